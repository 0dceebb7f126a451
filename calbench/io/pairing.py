"""From paths and templates to pairs: which prediction belongs to which mask, of which method on which data set."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calbench.errors import InputError, OptionError, PairingError, listing, plural
from calbench.io.images import FORMATS

PLACEHOLDER = re.compile(r"\{(\w+)\}")
GENERIC_FOLDERS = {"gt", "gts", "mask", "masks", "label", "labels", "groundtruth", "ground_truth", "annotations"}
"""Folder names that say what a folder holds, not which data set it is."""


@dataclass(frozen=True)
class Pair:
    """One image: the files of its prediction, its ground truth and, if any, its field of view."""

    name: str
    pred: Path
    gt: Path
    mask: Path | None = None


@dataclass(frozen=True)
class Folders:
    """The folders of one method on one data set."""

    dataset: str
    method: str
    pred: Path
    gt: Path
    mask: Path | None = None


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
        where = f"in {folders.pred} against {folders.gt}"
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
    gt: str,
    mask: str | None = None,
    *,
    methods: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> tuple[list[Folders], list[str]]:
    """Every method x data set that the folders or templates name, and notes on combinations that are incomplete.

    Args:
        pred: folder of predictions, or a template with `{method}` and `{dataset}`.
        gt: folder of masks, or a template with `{dataset}`.
        mask: folder of fields of view, or a template with `{dataset}`.
        methods, datasets: with a placeholder, which of the found names to keep; without, the name to give.
    Raises:
        InputError: an unknown placeholder, a folder that does not exist, or nothing found.
    """
    _check_placeholders(pred, gt, mask)
    pred_folders, gt_folders = expand(pred), expand(gt)
    for template, found in ((pred, pred_folders), (gt, gt_folders)):
        if not found:
            raise InputError(
                f"no folder matches {template!r}; check the path and its {{method}}/{{dataset}} placeholders"
            )
    gt_of = {names.get("dataset", ""): folder for names, folder in gt_folders}
    pred_of: dict[tuple[str, str], Path] = {}
    for names, folder in pred_folders:
        method = names.get("method") or _given(methods, "method") or folder.resolve().name
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
                fov = _formatted(mask, dataset)
                complete.append(Folders(dataset, method, pred_of[dataset, method], gt_of[dataset], fov))
    if not complete:
        raise InputError(
            f"no method x data set is complete under --pred {pred!r} and --gt {gt!r}"
            + (f":\n{listing(notes)}" if notes else "; do --method and --dataset name what is there?")
        )
    return complete, notes


def expand(template: str) -> list[tuple[dict[str, str], Path]]:
    """Folders that match a template, with the names that its placeholders took, sorted.

    A placeholder matches within one path component, and the same placeholder the same text.
    """
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
                if child.is_dir() and not child.name.startswith(".") and (match := pattern.fullmatch(child.name)):
                    grown.append((names | match.groupdict(), child))
        matches = grown
    return [(names, folder) for names, folder in matches if folder.is_dir()]


def match_files(folders: Folders, *, pred_suffix: str = "", gt_suffix: str = "") -> Matching:
    """Pair the files of the folders by stem, recursively.

    Where stems repeat in sub-folders, the path below the folder (without extension) is the name instead.

    Raises:
        InputError: a folder that does not exist or holds no image.
    """
    preds, gts = image_files(folders.pred, pred_suffix), image_files(folders.gt, gt_suffix)
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
        Pair(name, pred_of[name], gt_of[name], None if mask_of is None else mask_of[name])
        for name in shared
        if mask_of is None or name in mask_of
    ]
    return Matching(
        tuple(pairs),
        tuple(pred_of[name] for name in sorted(pred_of.keys() - gt_of.keys())),
        tuple(gt_of[name] for name in sorted(gt_of.keys() - pred_of.keys())),
        tuple(gt_of[name] for name in shared if mask_of is not None and name not in mask_of),
        tuple(sorted(doubled)),
    )


def image_files(folder: Path, suffix: str) -> list[tuple[str, Path]]:
    """Images below a folder whose stem ends in `suffix`, as (path below it without suffix and extension, file), sorted.

    Raises:
        InputError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; check the path")
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    images = [
        (path.relative_to(folder).with_suffix("").as_posix().removesuffix(suffix), path)
        for path in files
        if path.suffix.lower() in FORMATS and path.stem.endswith(suffix)
    ]
    if not images:
        others = sorted({path.suffix.lower() or path.name for path in files})
        found = f"it holds {', '.join(others[:5])} files" if others else "it is empty"
        ending = f" whose name ends in {suffix!r}" if suffix else ""
        raise InputError(f"no image{ending} in {folder}: {found}; calbench reads {', '.join(FORMATS)}")
    return sorted(images)


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


def _check_placeholders(pred: str, gt: str, mask: str | None) -> None:
    allowed = {"--pred": (pred, {"method", "dataset"}), "--gt": (gt, {"dataset"}), "--mask": (mask or "", {"dataset"})}
    for option, (template, known) in allowed.items():
        unknown = set(PLACEHOLDER.findall(template)) - known
        if unknown:
            raise OptionError(
                f"{option} {template!r} has the placeholder {{{sorted(unknown)[0]}}}; it understands "
                + " and ".join(f"{{{name}}}" for name in sorted(known))
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
