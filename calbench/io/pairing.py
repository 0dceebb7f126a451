"""From paths and templates to pairs: which prediction belongs to which mask, of which method on which data set."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calbench.errors import InputError, OptionError, PairingError, listing, plural
from calbench.io.arrays import VOLUMES, extension
from calbench.io.images import FORMATS

EXTENSIONS = (*FORMATS, ".npy", ".npz", *VOLUMES, ".csv", ".tsv")
"""What calbench reads."""
PLACEHOLDER = re.compile(r"\{(\w+)\}")
GENERIC_FOLDERS = {"gt", "gts", "mask", "masks", "label", "labels", "groundtruth", "ground_truth", "annotations",
                   "image", "images", "img", "imgs"}  # fmt: skip
"""Folder names that say what a folder holds, not which data set it is."""


@dataclass(frozen=True)
class Pair:
    """One image: the files of its prediction, its ground truth and, if any, its field of view and its picture."""

    name: str
    pred: Path
    gt: Path | None
    mask: Path | None = None
    image: Path | None = None


@dataclass(frozen=True)
class Folders:
    """The folders (or single files) of one method on one data set.

    Attributes:
        dataset, method: their names.
        pred, gt, mask: where predictions, ground truth and fields of view are; `gt` is None for out-of-distribution images.
        ood: whether the images are out-of-distribution.
        images: where the pictures are that the predictions were made from.
    """

    dataset: str
    method: str
    pred: Path
    gt: Path | None
    mask: Path | None = None
    ood: bool = False
    images: Path | None = None

    @property
    def text(self) -> str:
        """How messages name the pair of folders."""
        return f"in {self.pred}" + (f" against {self.gt}" if self.gt not in (None, self.pred) else "")


@dataclass(frozen=True)
class Matching:
    """What matching two (or three) folders by name found.

    Attributes:
        pairs: complete pairs, sorted by name.
        without_gt, without_pred, without_mask: files that lack their partner.
        doubled: files that share a name within one folder.
    """

    pairs: tuple[Pair, ...]
    without_gt: tuple[Path, ...]
    without_pred: tuple[Path, ...]
    without_mask: tuple[Path, ...]
    doubled: tuple[Path, ...]

    def raise_on_problems(self, folders: Folders, *, skip_missing: bool) -> None:
        """Raise for doubled names, always, and for missing partners unless they are to be skipped.

        Raises:
            PairingError: lists the first five offenders and their number.
        """
        where = folders.text
        if self.doubled:
            raise PairingError(
                f"{len(self.doubled)} files share their name with another {where}:\n{listing(map(str, self.doubled))}\n"
                "names match on the stem; keep one file a name, or tell them apart by --pred-suffix/--gt-suffix"
            )
        missing = (*self.without_gt, *self.without_pred, *self.without_mask)
        if missing and not skip_missing:
            counts = [
                (len(self.without_gt), "prediction", "without ground truth"),
                (len(self.without_pred), "mask", "without prediction"),
                (len(self.without_mask), "image", "without field of view"),
            ]
            found = ", ".join(f"{plural(number, what)} {lack}" for number, what, lack in counts if number)
            raise PairingError(
                f"{found} {where}:\n{listing(map(str, missing))}\n"
                "complete the folders, name the endings by --pred-suffix/--gt-suffix, or leave these out with "
                "--on-missing skip"
            )
        if not self.pairs:
            raise PairingError(f"no prediction matches a mask {where}; file names must agree up to their extension")


def find_folders(
    pred: str,
    gt: str | None,
    mask: str | None = None,
    images: str | None = None,
    *,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> tuple[list[Folders], list[str]]:
    """Every method x data set that the folders or templates name, and notes on combinations that are incomplete.

    Args:
        pred: folder of predictions, or a template with `{method}` and `{dataset}`.
        gt: folder of masks, or a template with `{dataset}`; None where the files of predictions hold their labels.
        mask: folder of fields of view, or a template with `{dataset}`.
        images: folder of the pictures that predictions were made from, or a template with `{dataset}`.
        methods, datasets: with a placeholder, which of the found names to keep; without, the name to give.
    Raises:
        InputError: an unknown placeholder, a folder that does not exist, or nothing found.
    """
    _check_placeholders(
        {
            "--pred": (pred, {"method", "dataset"}),
            "--gt": (gt, {"dataset"}),
            "--mask": (mask, {"dataset"}),
            "--images": (images, {"dataset"}),
        }
    )
    if gt is None:
        alone = _self_contained(pred, methods, datasets)
        return [replace(folders, images=_formatted(images, folders.dataset)) for folders in alone], []
    pred_folders, gt_folders = expand(pred), expand(gt)
    for template, found in ((pred, pred_folders), (gt, gt_folders)):
        if not found:
            raise InputError(
                f"no folder matches {template!r}; check the path and its {{method}}/{{dataset}} placeholders"
            )
    gt_of = {names.get("dataset", ""): folder for names, folder in gt_folders}
    pred_of: dict[tuple[str, str], Path] = {}
    for names, folder in pred_folders:
        method = names.get("method") or _given(methods, "method") or stem_of(folder.resolve())
        dataset = names.get("dataset") or _given(datasets, "dataset") or _single_dataset(gt_of)
        pred_of[dataset, method] = folder
    if "" in gt_of:
        found_datasets = sorted({dataset for dataset, _ in pred_of})
        if len(found_datasets) > 1:
            raise InputError(
                f"--pred names {len(found_datasets)} data sets ({', '.join(found_datasets)}) but --gt {gt!r} is one folder; "
                "put {dataset} into --gt, too"
            )
        gt_of = {found_datasets[0]: gt_of[""]}
    elif "{dataset}" not in pred:
        gt_of = {dataset: folder for dataset, folder in gt_of.items() if any(dataset == d for d, _ in pred_of)}

    for option, asked, there in (
        ("--method", methods if "{method}" in pred else (), {m for _, m in pred_of}),
        ("--dataset", datasets if "{dataset}" in pred else (), gt_of.keys() | {d for d, _ in pred_of}),
    ):
        for name in asked:
            if name not in there:
                raise InputError(f"{option} {name} is not among what {pred!r} finds: {', '.join(sorted(there))}")
    wanted_methods = [
        m for m in sorted({m for _, m in pred_of}) if "{method}" not in pred or not methods or m in methods
    ]
    known = sorted(gt_of.keys() | {d for d, _ in pred_of})
    wanted_datasets = [d for d in known if not (datasets and "{dataset}" in pred) or d in datasets]
    complete, notes = [], []
    for dataset in wanted_datasets:
        for method in wanted_methods:
            if (dataset, method) not in pred_of:
                notes.append(f"{method} has no predictions for {dataset}: this combination is left out")
            elif dataset not in gt_of:
                notes.append(f"{dataset} has no ground truth under {gt}: {method} on it is left out")
            else:
                fov, pictures = _formatted(mask, dataset), _formatted(images, dataset)
                complete.append(
                    Folders(dataset, method, pred_of[dataset, method], gt_of[dataset], fov, images=pictures)
                )
    if not complete:
        raise InputError(
            f"no method x data set is complete under --pred {pred!r} and --gt {gt!r}"
            + (f":\n{listing(notes)}" if notes else "; do --method and --dataset name what is there?")
        )
    return complete, notes


def _self_contained(pred: str, methods: Sequence[str], datasets: Sequence[str]) -> list[Folders]:
    """Predictions whose files hold their labels, too: tables, and .npz with both."""
    found = []
    for names, path in expand(pred):
        method = names.get("method") or _given(methods, "method") or stem_of(path.resolve())
        parent = path.parent if path.is_file() or "method" in names else path
        dataset = names.get("dataset") or _given(datasets, "dataset") or dataset_name(parent)
        kept = (not methods or method in methods) and (not datasets or dataset in datasets)
        found += [Folders(dataset, method, path, path)] * kept
    if not found:
        raise InputError(f"nothing matches {pred!r}; check the path and its {{method}}/{{dataset}} placeholders")
    return sorted(found, key=lambda folders: (folders.dataset, folders.method))


def find_outside(name: str, pred: str, gt: str | None, methods: Sequence[str]) -> tuple[list[Folders], list[str]]:
    """The folders of an out-of-distribution set for each of these methods, and notes on methods that have none.

    Args:
        name: of the set.
        pred: folder of predictions, or a template with `{method}`.
        gt: folder of masks without foreground; None where there are none.
        methods: those of the in-distribution predictions.
    Raises:
        OptionError: a folder without `{method}` for several methods.
        InputError: no folder of any of the methods.
    """
    _check_placeholders({"--ood": (pred, {"method"}), "--ood-gt": (gt, set())})
    if "{method}" not in pred and len(methods) > 1:
        raise OptionError(
            f"--ood {name}={pred} names one folder, but there are {len(methods)} methods ({', '.join(methods)}); "
            "put {method} into it, or choose one by --method"
        )
    folder_of = {names.get("method", methods[0]): folder for names, folder in expand(pred)}
    found = [
        Folders(name, m, folder_of[m], None if gt is None else Path(gt), ood=True) for m in methods if m in folder_of
    ]
    if not found:
        raise InputError(f"no folder of {', '.join(methods)} matches --ood {name}={pred}; check the path")
    return found, [f"{m} has no predictions for {name}: it is left out there" for m in methods if m not in folder_of]


def expand(template: str) -> list[tuple[dict[str, str], Path]]:
    """Folders that match a template, with the names that its placeholders took, sorted.

    A placeholder matches within one path component, and the same placeholder the same text. A template that ends in the
    extension of a readable format matches files.
    """
    files = extension(Path(template)) in EXTENSIONS
    matches: list[tuple[dict[str, str], Path]] = [({}, Path(Path(template).anchor or "."))]
    path = Path(template)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not PLACEHOLDER.search(part):
            matches = [(names, folder / part) for names, folder in matches]
            continue
        grown = []
        for names, folder in matches:
            pattern = _component_pattern(part, names)
            for child in sorted(folder.iterdir()) if folder.is_dir() else ():
                if child.name.startswith(".") or not (child.is_dir() or files):
                    continue
                if match := pattern.fullmatch(child.name):
                    grown.append((names | match.groupdict(), child))
        matches = grown
    return [(names, folder) for names, folder in matches if folder.is_dir() or (files and folder.is_file())]


def match_files(folders: Folders, *, pred_suffix: str = "", gt_suffix: str = "") -> Matching:
    """Pair the files of the folders by stem, recursively.

    Where stems repeat in sub-folders, the path below the folder (without extension) is the name instead.

    Raises:
        InputError: a folder that does not exist or holds no image.
    """
    preds = image_files(folders.pred, pred_suffix)
    gts = preds if folders.gt is None else image_files(folders.gt, gt_suffix)
    if folders.pred.is_file() and folders.gt is not None and folders.gt.is_file():
        gts = [(preds[0][0], folders.gt)]  # two single files belong together, whatever they are called
    masks = image_files(folders.mask, "") if folders.mask is not None else None
    sides = [preds, gts] if masks is None else [preds, gts, masks]
    flat = all(len({key.rsplit("/", 1)[-1] for key, _ in side}) == len(side) for side in sides)
    named, doubled = [], []
    for side in sides:
        by_name: dict[str, list[Path]] = defaultdict(list)
        for key, path in side:
            by_name[key.rsplit("/", 1)[-1] if flat else key].append(path)
        doubled += [path for paths in by_name.values() if len(paths) > 1 for path in paths]
        named.append({name: paths[0] for name, paths in by_name.items()})
    pred_of, gt_of = named[0], named[1]
    mask_of = named[2] if masks is not None else None
    shared = sorted(pred_of.keys() & gt_of.keys())
    pairs = [
        Pair(
            name,
            pred_of[name],
            None if folders.gt is None else gt_of[name],
            None if mask_of is None else mask_of[name],
        )
        for name in shared
        if mask_of is None or name in mask_of
    ]
    return Matching(
        tuple(pairs),
        tuple(pred_of[name] for name in sorted(pred_of.keys() - gt_of.keys())),
        tuple(gt_of[name] for name in sorted(gt_of.keys() - pred_of.keys())),
        tuple(gt_of[name] for name in shared if mask_of is not None and name not in mask_of),
        tuple(sorted(set(doubled))),
    )


def with_pictures(pairs: Sequence[Pair], folder: Path, *, partial: bool = False) -> tuple[Pair, ...]:
    """The pairs with the pictures that their predictions were made from, matched by stem.

    Args:
        partial: whether pairs without a picture are left as they are.
    Raises:
        InputError: a folder that does not exist or holds no image.
        PairingError: images without a picture, or pictures that share a name.
    """
    found = [(key, path) for key, path in image_files(folder, "") if extension(path) in FORMATS]
    flat = len({key.rsplit("/", 1)[-1] for key, _ in found}) == len(found)
    picture_of = {key.rsplit("/", 1)[-1] if flat else key: path for key, path in found}
    names = {pair.name: pair.name.rsplit("/", 1)[-1] if flat else pair.name for pair in pairs}
    if len(picture_of) < len(found) or len(set(names.values())) < len(names):
        names_of = [key.rsplit("/", 1)[-1] if flat else key for key, _ in found]
        doubled = [str(path) for (_, path), name in zip(found, names_of, strict=True) if names_of.count(name) > 1]
        raise PairingError(
            f"pictures in {folder} share names, so that they cannot be told apart; keep one file a name:\n{listing(doubled)}"
        )
    missing = [pair.name for pair in pairs if names[pair.name] not in picture_of]
    if missing and not partial:
        raise PairingError(
            f"of {plural(len(pairs), 'image')}, {len(missing)} without a picture in {folder}:\n{listing(missing)}\n"
            f"pictures match on the stem, and are {', '.join(FORMATS)} files; complete the folder"
        )
    return tuple(replace(pair, image=picture_of.get(names[pair.name])) for pair in pairs)


def refuse_mixing(output: Path, templates: Mapping[str, str | None], *, around: bool = False) -> None:
    """Refuse to write results among what they are made from.

    Args:
        output: folder to write to.
        templates: folders, files or templates that are read, by what they hold.
        around: whether a folder that one of these lies in is refused, too, as where maps are written beside maps.
    Raises:
        InputError: `output` is one of these folders, lies in one, or holds the files themselves.
    """
    there = output.resolve()
    for what, template in templates.items():
        for _, path in expand(template) if template else ():
            source = path.resolve() if path.is_dir() else path.resolve().parent
            mixed = source == there or (path.is_dir() and source in there.parents)
            if mixed or (around and path.is_dir() and there in source.parents):
                raise InputError(
                    f"{output} and the {what} in {path} would mix; expected a folder of its own for the results; choose "
                    "another -o"
                )


def image_files(folder: Path, suffix: str) -> list[tuple[str, Path]]:
    """Images below a folder whose stem ends in `suffix`, as (path below it without suffix and extension, file), sorted.

    Raises:
        InputError: no such folder, or no image in it.
    """
    if folder.is_file():
        files = [folder]
    elif folder.is_dir():
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    else:
        raise InputError(f"{folder} is not a folder; check the path")
    images = [
        ((path.relative_to(folder).parent / stem_of(path)).as_posix().removesuffix(suffix), path)
        for path in files
        if extension(path) in EXTENSIONS and stem_of(path).endswith(suffix)
    ]
    if not images:
        others = sorted({path.suffix.lower() or path.name for path in files})
        found = f"it holds {', '.join(others[:5])} files" if others else "it is empty"
        ending = f" whose name ends in {suffix!r}" if suffix else ""
        raise InputError(f"no image{ending} in {folder}: {found}; calbench reads {', '.join(EXTENSIONS)}")
    return sorted(images)


def stem_of(path: Path) -> str:
    """The name without the extension of a readable format.

    >>> stem_of(Path("case.nii.gz")), stem_of(Path("v1.2"))
    ('case', 'v1.2')
    """
    ending = extension(path)
    return path.name[: -len(ending)] if ending in EXTENSIONS else path.name


def dataset_name(folder: Path) -> str:
    """Name of the nearest folder that is not called gt, mask, label or the like."""
    for part in reversed(folder.resolve().parts):
        if part.lower() not in GENERIC_FOLDERS:
            return part
    return folder.name


def _component_pattern(part: str, names: Mapping[str, str]) -> re.Pattern[str]:
    """A regular expression for one path component with placeholders, some of them already bound."""
    pieces, position, seen = [], 0, set(names)
    for match in PLACEHOLDER.finditer(part):
        pieces.append(re.escape(part[position : match.start()]))
        key = match.group(1)
        if key in names:
            pieces.append(re.escape(names[key]))
        else:
            pieces.append(f"(?P={key})" if key in seen else f"(?P<{key}>.+)")
        seen.add(key)
        position = match.end()
    return re.compile("".join(pieces) + re.escape(part[position:]))


def _check_placeholders(allowed: Mapping[str, tuple[str | None, set[str]]]) -> None:
    for option, (template, known) in allowed.items():
        unknown = set(PLACEHOLDER.findall(template or "")) - known
        if unknown:
            raise OptionError(
                f"{option} {template!r} has the placeholder {{{sorted(unknown)[0]}}}; it understands "
                + (" and ".join(f"{{{name}}}" for name in sorted(known)) or "none")
            )


def _given(names: Sequence[str], option: str) -> str | None:
    """The one name given for a side without placeholder."""
    if len(names) > 1:
        raise InputError(f"--{option} is given {len(names)} times, but --pred names one; put {{{option}}} into --pred")
    return names[0] if names else None


def _single_dataset(gt_of: Mapping[str, Path]) -> str:
    """The data set of a pred template without `{dataset}`."""
    if "" in gt_of:
        return dataset_name(gt_of[""])
    if len(gt_of) == 1:
        return next(iter(gt_of))
    raise InputError(
        f"--gt names {len(gt_of)} data sets ({', '.join(sorted(gt_of))}) but --pred has no {{dataset}}; "
        "say which one by --dataset"
    )


def _formatted(template: str | None, dataset: str) -> Path | None:
    return None if template is None else Path(template.replace("{dataset}", dataset))
