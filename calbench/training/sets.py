"""Which images are trained on, validated with and tested with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calbench.errors import InputError, OptionError, listing, plural
from calbench.io.files import digest, read_bytes
from calbench.io.labels import read_label_map
from calbench.io.pairing import dataset_name
from calbench.training.image_sets import ImageSet, image_set, official_sets, read_names, split

SHARE = 0.1
"""Of the images, that validate where nothing else is said."""


@dataclass(frozen=True)
class Sets:
    """The images of a comparison.

    Attributes:
        training, validation: with masks.
        tests: with masks; of distinct names.
        ood: out-of-distribution sets: pictures with nothing to find, without masks.
    Raises:
        InputError: pictures that are trained on, and validated or tested with.
        OptionError: two sets of one name, or an out-of-distribution set without a test set.
    """

    training: ImageSet
    validation: ImageSet
    tests: tuple[ImageSet, ...] = ()
    ood: tuple[ImageSet, ...] = ()

    def __post_init__(self) -> None:
        if self.ood and not self.tests:
            raise OptionError(
                f"--ood names {self.ood[0].name!r}, but no test set is named, beside which it is measured: say "
                "--test-list or --test"
            )
        names = [images.name for images in (*self.tests, *self.ood)]
        for name in names:
            if names.count(name) > 1:
                raise OptionError(f"two test sets are called {name!r}; give each its own name, as in --test NAME=DIR")
        uses = [("trained on", self.training), ("validated with", self.validation)]
        uses += [(f"tested with, in {images.name}", images) for images in (*self.tests, *self.ood)]
        use_of: dict[Path, str] = {}
        for use, images in uses:
            here = {example.image.resolve() for example in images.examples}
            for earlier in dict.fromkeys(use_of[path] for path in sorted(here & use_of.keys())):
                if not earlier.startswith("tested"):
                    shared = sorted(str(path) for path in here if use_of.get(path) == earlier)
                    raise InputError(
                        f"{plural(len(shared), 'picture')} would be {earlier} and {use}, which flatters the numbers:\n"
                        f"{listing(shared)}\ngive each picture one use"
                    )
            use_of |= dict.fromkeys(here, use)

    def copies(self) -> list[str]:
        """What to say of pictures under another name, or in another folder, that are trained on or validated with.

        Data sets of the field share pictures; numbers on those are flattered, but they are the numbers that others report.
        """
        fitted = [example.image for example in (*self.training.examples, *self.validation.examples)]
        of_size: dict[int, list[Path]] = defaultdict(list)
        for path in fitted:
            of_size[path.stat().st_size].append(path)
        digests: dict[Path, int] = {}

        def content(path: Path) -> int:
            if path not in digests:
                digests[path] = digest(read_bytes(path))
            return digests[path]

        lines = []
        for images in (*self.tests, *self.ood):
            alike = [
                f"{example.image} is {other}"
                for example in images.examples
                for other in of_size[example.image.stat().st_size]
                if content(example.image) == content(other)
            ]
            if alike:
                lines.append(
                    f"{len(alike)} of {plural(len(images), 'picture')} of {images.name} are copies of pictures that are "
                    f"trained on or validated with, which flatters the numbers:\n{listing(alike)}"
                )
        return lines


@dataclass(frozen=True)
class SetOptions:
    """Where images are, and what each is for.

    Attributes:
        images, masks: folders that training and validation images come from, and those of `test_list`.
        official: folder in the official layout, in place of these.
        train_list, validation_list, test_list: files with names; what no list names is trained on, and the validation images
            are drawn from what is.
        validation_share: of them; None: 0.1.
        split_seed: of that draw, one for all runs; None: 0.
        tests, test_masks, ood: further test sets and out-of-distribution sets, "NAME=FOLDER" each.
        mask_suffix: ending of the stems of masks.
        classes: 1 of binary masks.
        raw: whether binary masks are read as the official code does.
        coding: how mask values are read: keywords of `image_set`, but the label map as a file.
    """

    images: str | None = None
    masks: str | None = None
    official: str | None = None
    train_list: str | None = None
    validation_list: str | None = None
    test_list: str | None = None
    validation_share: float | None = None
    split_seed: int | None = None
    tests: tuple[str, ...] = ()
    test_masks: tuple[str, ...] = ()
    ood: tuple[str, ...] = ()
    mask_suffix: str = ""
    classes: int = 1
    raw: bool = False
    coding: Mapping[str, Any] = field(default_factory=dict)


def find_sets(options: SetOptions) -> Sets:
    """Read the folders and lists, and pair pictures with masks.

    Raises:
        OptionError: options that do not go together.
        InputError, PairingError, ShapeError: see `image_set` and `Sets`.
    """
    label_map = options.coding.get("label_map")
    coding = {**options.coding, "label_map": None if label_map is None else read_label_map(Path(label_map))}
    shared = {**coding, "mask_suffix": options.mask_suffix, "classes": options.classes, "raw": options.raw}
    masks_of = _folders("--test-masks", options.test_masks)
    tests = _folders("--test", options.tests)
    if masks_of.keys() != tests.keys():
        odd = min(masks_of.keys() ^ tests.keys())
        raise OptionError(f"the test set {odd!r} needs both --test {odd}=IMAGES and --test-masks {odd}=MASKS")
    further = [image_set(name, folder, masks_of[name], **shared) for name, folder in tests.items()]
    outside = [image_set(name, folder, None) for name, folder in _folders("--ood", options.ood).items()]
    if options.official is not None:
        _refuse_beside_official(options)
        official = official_sets(Path(options.official), raw=options.raw)
        return Sets(official.train, official.validation, (*official.tests, *further), (*official.ood, *outside))
    if options.images is None or options.masks is None:
        raise OptionError("say where the images and masks are: --images DIR --masks DIR, or --official DIR")
    everything = image_set(dataset_name(Path(options.images)), Path(options.images), Path(options.masks), **shared)
    listed = {
        name: everything.select(read_names(Path(path)), path)
        for name, path in (("test", options.test_list), ("validation", options.validation_list))
        if path is not None
    }
    if options.train_list is not None:
        training = everything.select(read_names(Path(options.train_list)), options.train_list)
    else:
        taken = {name for images in listed.values() for name in images.names}
        training = everything.select([name for name in everything.names if name not in taken], "what no list names")
    if "validation" not in listed:
        share, seed = options.validation_share, options.split_seed
        training, listed["validation"] = split(training, SHARE if share is None else share, seed or 0)
    elif options.validation_share is not None or options.split_seed is not None:
        raise OptionError("--val-list names the validation images: --val-share and --split-seed draw none")
    own = [listed["test"]] if "test" in listed else []
    return Sets(training, listed["validation"], (*own, *further), tuple(outside))


def _folders(option: str, texts: Iterable[str]) -> dict[str, Path]:
    """Folders by name.

    Raises:
        OptionError: one that is not NAME=FOLDER, or a name twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder) or "/" in name:
            raise OptionError(f"{option} {text!r} is not NAME=FOLDER, such as DUTS-TE=data/DUTS-TE/image")
        if name in found:
            raise OptionError(f"{option} names the set {name!r} twice; give each its own name")
        found[name] = Path(folder)
    return found


def _refuse_beside_official(options: SetOptions) -> None:
    coding = options.coding
    given = {
        "--images": options.images, "--masks": options.masks, "--train-list": options.train_list,
        "--val-list": options.validation_list, "--test-list": options.test_list,
        "--mask-suffix": options.mask_suffix or None, "--val-share": options.validation_share,
        "--split-seed": options.split_seed, "--num-classes": options.classes > 1 or None,
        "--gt-threshold": coding.get("gt_threshold"),
        "--void-value": coding.get("void_values") or None, "--ignore-index": coding.get("ignore_index") or None,
        "--reduce-zero-label": coding.get("reduce_zero_label") or None, "--label-map": coding.get("label_map"),
    }  # fmt: skip
    for option, value in given.items():
        if value is not None:
            raise OptionError(
                f"--official says which images are for what, and how masks are read: it does not go with {option}"
            )
