"""Sets of pictures with their masks: which files, what each is for, and what mask values mean."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from calbench.errors import FormatError, InputError, OptionError, PairingError, RangeError, ShapeError, listing, plural
from calbench.io.arrays import extension, read_header
from calbench.io.coding import DEFAULT_THRESHOLD, CodedFiles, MaskCoding, infer_coding, read_mask, verify_coding
from calbench.io.files import read_bytes
from calbench.io.images import FORMATS, GreyImage
from calbench.io.labels import LabelCoding
from calbench.io.pairing import EXTENSIONS, Folders, match_files
from calbench.io.pictures import picture_size
from calbench.io.predictions import squeezed
from calbench.statistics.rows import Array
from calbench.training.draws import key

TRAIN_LIST, VALIDATION_LIST = "DUTS-TR-Train.txt", "DUTS-TR-Validation.txt"
OUTSIDE = ("dtd", "texture")
"""How names of out-of-distribution sets begin in the official layout, in lower case."""
MOST_LABEL = 32
"""Masks whose values go no higher, void aside, hold labels rather than grey levels."""


@dataclass(frozen=True)
class Example:
    """One picture and its mask, if any."""

    name: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class ImageSet:
    """A data set to train on, to validate with, or to predict.

    Attributes:
        name: of the data set.
        examples: sorted by name.
        coding: what mask values mean; None where there are no masks.
        raw: whether binary labels are grey values / 255 as they are, without a threshold, as in the official code of ASLP.

    >>> images = ImageSet("toy", (Example("a", Path("a.jpg"), None), Example("b", Path("b.jpg"), None)), None)
    >>> len(images), images.select(["b"], "the list").names
    (2, ('b',))
    """

    name: str
    examples: tuple[Example, ...]
    coding: MaskCoding | LabelCoding | None
    raw: bool = False

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the pictures, sorted."""
        return tuple(example.name for example in self.examples)

    @property
    def digest(self) -> str:
        """Of the names and the sizes of the files, whatever their order, and of what mask values mean."""
        coding = None if self.coding is None else asdict(self.coding)
        files = sorted(
            (each.name, *(path.stat().st_size for path in (each.image, each.mask) if path)) for each in self.examples
        )
        text = json.dumps([files, coding, self.raw], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def select(self, names: Sequence[str], what: object) -> ImageSet:
        """The pictures of a list of names.

        Args:
            names: in any order.
            what: where they come from, for messages.
        Raises:
            InputError: no name.
            PairingError: a name twice, or one that is not in the set.
        """
        if not names:
            raise InputError(f"{what} holds no name; expected file names without their extension, one a line")
        doubled = [name for name, number in Counter(names).items() if number > 1]
        if doubled:
            raise PairingError(
                f"{plural(len(doubled), 'name')} more than once in {what}:\n{listing(doubled)}\nkeep each of them once"
            )
        example_of = {example.name: example for example in self.examples}
        absent = [name for name in names if name not in example_of]
        if absent:
            found = plural(len(self), "picture") + (" with a mask" if self.examples[0].mask else "")
            raise PairingError(
                f"{len(absent)} of {plural(len(names), 'name')} in {what} not found in {self.name}, which has {found}:\n"
                f"{listing(absent)}\ncorrect the list, or complete the folders"
            )
        return replace(self, examples=tuple(example_of[name] for name in sorted(names)))


@dataclass(frozen=True)
class OfficialSets:
    """The data sets of the official layout of ASLP.

    Attributes:
        train, validation: of DUTS-TR, by the official lists.
        tests: with masks.
        ood: out-of-distribution sets, without masks.
    """

    train: ImageSet
    validation: ImageSet
    tests: tuple[ImageSet, ...]
    ood: tuple[ImageSet, ...]


def image_set(
    name: str,
    images: Path,
    masks: Path | None,
    *,
    classes: int = 1,
    mask_suffix: str = "",
    gt_threshold: int | None = None,
    void_values: tuple[int, ...] = (),
    ignore_index: tuple[int, ...] = (),
    reduce_zero_label: bool = False,
    label_map: Mapping[int, int] | None = None,
    raw: bool = False,
) -> ImageSet:
    """The pictures of a folder with their masks, matched by stem, and what mask values mean.

    Sizes are compared by the headers of all files, and the coding of binary masks is decided on some and verified on all. A
    file that cannot be read stays in the set, to be reported by name when its turn comes.

    Args:
        name: of the data set.
        images: folder of pictures, or one file.
        masks: folder of masks; None where there are none.
        classes: 1 of binary masks.
        mask_suffix: ending of the stems of masks, such as "_mask".
        gt_threshold: foreground is byte > this; None infers it.
        void_values, ignore_index: mask values that do not count, by either name.
        reduce_zero_label, label_map: of `LabelCoding`.
        raw: of `ImageSet`.
    Raises:
        InputError: a folder that is not there, or holds no picture or no mask.
        PairingError: a picture without a mask, a mask without a picture, or two files of one name.
        ShapeError: a mask of another size than its picture.
        OptionError: an option that does not go with the number of classes.
        RangeError: masks of mixed codings.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     images, masks = Path(folder, "image"), Path(folder, "gt")
    ...     for path, mode in ((images / "cat.jpg", "RGB"), (masks / "cat.png", "L")):
    ...         path.parent.mkdir()
    ...         Image.new(mode, (40, 30), "white").save(path)
    ...     found = image_set("toy", images, masks)
    >>> found.names, found.coding.kind
    (('cat',), '0/255')
    """
    found = ImageSet(name, _examples(images, masks, mask_suffix), None, raw)
    if masks is None:
        return found
    _refuse_other_sizes(found)
    void = tuple(dict.fromkeys((*void_values, *ignore_index)))
    if classes == 1:
        if reduce_zero_label or label_map is not None:
            given = "--reduce-zero-label" if reduce_zero_label else "--label-map"
            raise OptionError(f"{given}, but the masks are binary; say --num-classes, or leave it out")
        if raw and gt_threshold is not None:
            raise OptionError(
                "--gt-threshold, but --profile aslp trains on grey values as they are; leave one of them out"
            )
        return replace(found, coding=_binary_coding(found, masks, gt_threshold, void))
    if raw or gt_threshold is not None:
        given = "--profile aslp" if raw else "--gt-threshold"
        raise OptionError(f"{given} is for binary masks, but --num-classes is {classes}; leave one of them out")
    return replace(found, coding=LabelCoding(classes, void, reduce_zero_label, label_map))


def official_sets(root: Path, *, raw: bool) -> OfficialSets:
    """The data sets of a folder laid out as the official code of ASLP has it.

    `DUTS-TR-Train.txt` and `DUTS-TR-Validation.txt` name the pictures to take from `Train/DUTS-TR/Image` and `GT`; what else
    lies there is left alone. Each folder of `Test` with `Image` is a data set. Those whose name begins with DTD or Texture
    are out of distribution, and their masks, which are empty, are not read.

    Args:
        root: the folder, called `Dataset` there.
        raw: of `ImageSet`.
    Raises:
        InputError: a list or folder that is not there.
        PairingError: a listed picture or mask that is not there, or one in both lists; or as `image_set` does for tests.
        ShapeError, RangeError: as `image_set` does.
    """
    images, masks, test = root / "Train/DUTS-TR/Image", root / "Train/DUTS-TR/GT", root / "Test"
    lists = [root / TRAIN_LIST, root / VALIDATION_LIST]
    missing = [path for path in lists if not path.is_file()]
    missing += [path for path in (images, masks, test) if not path.is_dir()]
    if missing:
        raise InputError(
            f"{root} lacks what the official layout has:\n{listing(map(str, missing))}\n"
            f"expected {TRAIN_LIST}, {VALIDATION_LIST}, Train/DUTS-TR/Image, Train/DUTS-TR/GT and Test/<name>/Image and GT"
        )
    there = ImageSet("DUTS-TR", _examples(images, masks, "", strays=True), None, raw)
    train, validation = (there.select(read_names(path), path) for path in lists)
    both = there.select([*train.names, *validation.names], " and ".join(map(str, lists)))
    _refuse_other_sizes(both)
    coding = _binary_coding(both, masks, None, ())
    tests, ood = [], []
    for folder in sorted(path for path in test.iterdir() if (path / "Image").is_dir()):
        if folder.name.lower().startswith(OUTSIDE):
            ood.append(image_set(folder.name, folder / "Image", None))
        else:
            tests.append(image_set(folder.name, folder / "Image", folder / "GT", raw=raw))
    if not tests:
        raise InputError(f"no test set in {test}; expected folders with Image and GT, such as {test / 'ECSSD'}")
    return OfficialSets(replace(train, coding=coding), replace(validation, coding=coding), tuple(tests), tuple(ood))


def read_names(path: Path) -> tuple[str, ...]:
    """A list of names, one a line, with or without the extension of a file.

    Raises:
        FormatError: unreadable, or no UTF-8.
        InputError: no name in it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "names.txt")
    ...     _ = path.write_bytes(b"bumpy_0001.jpg\\r\\nILSVRC2012_val_00000019\\n")
    ...     read_names(path)
    ('bumpy_0001', 'ILSVRC2012_val_00000019')
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no UTF-8 text ({error}); expected a name a line; save it as UTF-8") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} holds no name; expected file names, one a line; write them into it")
    return tuple(line[: -len(end)] if (end := extension(Path(line))) in EXTENSIONS else line for line in lines)


def split(images: ImageSet, share: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Images to train on and images to validate with, drawn by name: neither order nor folder matters.

    Args:
        images: at least two.
        share: of the images, to validate with; rounded, but one at least, and one is left to train on.
        seed: of the draw.
    Raises:
        OptionError: a share outside (0, 1).
        InputError: fewer than two images.

    >>> images = ImageSet("toy", tuple(Example(name, Path(name), None) for name in "abcdefgh"), None)
    >>> [len(part) for part in split(images, 0.25, seed=0)]
    [6, 2]
    """
    if not 0 < share < 1:
        raise OptionError(f"the share of validation images is {share}; expected a number between 0 and 1")
    if len(images) < 2:
        raise InputError(
            f"{images.name} has {plural(len(images), 'image')}; expected two at least: one to train on, one to validate with"
        )
    n = min(max(1, round(share * len(images))), len(images) - 1)
    drawn = sorted(images.names, key=lambda name: key(seed, name, "split"))
    what = f"the split of {images.name}"
    return images.select(drawn[n:], what), images.select(drawn[:n], what)


def read_binary(path: Path, coding: MaskCoding) -> tuple[GreyImage, Array | None]:
    """The bytes of a binary mask, and its void pixels.

    Raises:
        FormatError: unreadable.
        RangeError: values below 0 that are not void.
    """
    image = read_mask(path)
    void = coding.void(image)
    lowest = int((image.levels if void is None else image.levels[~void]).min(initial=0))
    if lowest < 0:
        raise RangeError(
            f"{path} holds the value {lowest}, which is no byte; say --ignore-index {lowest} if it is void"
        )
    return image, void


def _examples(images: Path, masks: Path | None, mask_suffix: str, *, strays: bool = False) -> tuple[Example, ...]:
    """Pictures with their masks; `strays`: whether files without their partner are left alone."""
    where = f"in {images}" + ("" if masks is None else f" and {masks}")
    matching = match_files(Folders("", "", images, masks), gt_suffix=mask_suffix)
    if matching.doubled:
        raise PairingError(
            f"{len(matching.doubled)} files share their name with another {where}:\n{listing(map(str, matching.doubled))}\n"
            "pictures and masks match on the stem; keep one file a name"
        )
    # tables and arrays that lie beside the pictures are none
    alone = [path for path in matching.without_gt if extension(path) in FORMATS]
    if not strays and (alone or matching.without_pred):
        counts = [(len(alone), "picture", "without a mask"), (len(matching.without_pred), "mask", "without a picture")]
        found = ", ".join(f"{plural(number, what)} {lack}" for number, what, lack in counts if number)
        raise PairingError(
            f"{found} {where}:\n{listing(map(str, [*alone, *matching.without_pred]))}\n"
            "names must agree up to their extension; complete the folders, or name the ending of masks by --mask-suffix"
        )
    found_pairs = [pair for pair in matching.pairs if extension(pair.pred) in FORMATS]
    if not found_pairs:
        raise InputError(
            f"no picture{'' if masks is None else ' with a mask'} {where}; expected {', '.join(FORMATS)} files"
        )
    return tuple(Example(pair.name, pair.pred, pair.gt) for pair in found_pairs)


def _refuse_other_sizes(images: ImageSet) -> None:
    """Hold the size of each mask against its picture's, by their headers."""
    wrong = []
    for example in images.examples:
        assert example.mask is not None
        try:
            height, width = picture_size(example.image)
            shape = squeezed(read_header(example.mask, "mask")[0])
        except FormatError:
            continue  # reported by name when its turn comes
        if shape != (height, width):
            found = "x".join(map(str, shape[::-1]))
            wrong.append(f"{example.image} {width}x{height}, mask {found} (WxH)")
    if wrong:
        raise ShapeError(
            f"{len(wrong)} of {plural(len(images), 'mask')} of {images.name} differ in size from their picture:\n"
            f"{listing(wrong)}\nsave each mask at the size of its picture"
        )


def _binary_coding(images: ImageSet, folder: Path, threshold: int | None, void_values: tuple[int, ...]) -> MaskCoding:
    """How the masks of a set are coded, decided on some and verified on all that can be read."""
    undecided = MaskCoding("", DEFAULT_THRESHOLD, void_values)
    paths = [example.mask for example in images.examples if example.mask is not None]
    seen: list[tuple[Path, int, int, float, int]] = []
    levels: set[int] = set()
    for path in paths:
        try:
            image, void = read_binary(path, undecided)
        except (FormatError, InputError):
            continue  # reported by name when its turn comes
        counts = np.bincount((image.levels if void is None else image.levels[~void]).ravel(), minlength=256)
        held = counts.nonzero()[0]
        levels |= set(held.tolist())
        highest = int(held.max(initial=0))
        between = int(counts.sum() - counts[[0, 1, 255]].sum())
        seen.append((path, image.bits, highest, float(counts[1] / image.levels.size), between))
    labels = sorted(levels - {0, 1, 255})
    if threshold is None and labels and labels[-1] <= MOST_LABEL:
        raise RangeError(
            f"the masks in {folder} hold the values {', '.join(map(str, sorted(levels)))}, which look like labels of several "
            "classes; say --num-classes, and --ignore-index for what is void, or, if they are binary, --gt-threshold N"
        )
    coding = infer_coding([path for path, *_ in seen] or paths, threshold=threshold, void_values=void_values)
    if seen:
        read, bits, highest_of, ones, between_of = zip(*seen, strict=True)
        facts = (np.array(column) for column in (bits, highest_of, ones, between_of))
        verify_coding(coding, folder, CodedFiles([path.name for path in read], *facts), "masks")
    return coding
