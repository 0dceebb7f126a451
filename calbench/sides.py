"""Which methods are compared, on which images they share, and whether they may be: the same ground truth, read alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

from calbench.agreement import named_alike, refuse_other_ground_truth, selected
from calbench.errors import MergeError, OptionError, UnknownName, listing, plural
from calbench.evaluate import Evaluator, Settings
from calbench.results import Results
from calbench.saved import load_results
from calbench.statistics import Statistics
from calbench.statistics.bundle import ALL

Mode = Literal["pair", "methods", "matrix"]

_STORED = ("input", "stored", "layout", "pred_threshold")
"""Conventions of how predictions are stored, which may differ."""


@dataclass(frozen=True, eq=False)
class Side:
    """One method of a results folder.

    Attributes:
        label: name in this comparison.
        folder: of the results.
        method: its name there, with its calibrator (`Key.name`).
        results: all of that folder.
    """

    label: str
    folder: str
    method: str
    results: Results

    @property
    def statistics(self) -> dict[str, Statistics]:
        """The rows of whole images, by data set."""
        keys = [key for key in self.results.evaluators if key.region == ALL and key.name == self.method]
        return {key.dataset: self.results.evaluators[key].statistics for key in keys}


@dataclass(frozen=True)
class Common:
    """What all sides share of one data set.

    Attributes:
        dataset: name.
        n_images, n_pixels: that all were measured on.
        unit: what is resampled.
        left_out: for each side, the images that another lacks.
    """

    dataset: str
    n_images: int
    n_pixels: int
    unit: str
    left_out: tuple[tuple[str, ...], ...]


def arranged(sources: Sequence[str]) -> tuple[Mode, tuple[Side, ...], list[tuple[int, int]]]:
    """How the sources are compared: the sides, and which of them are A and B."""
    read: dict[Path, Results] = {}
    groups: list[list[tuple[str, str, Results]]] = []
    for source in sources:
        folder, method = _split(source)
        path = Path(folder).resolve()
        if path not in read:
            read[path] = load_results(folder)
        known = dict.fromkeys(key.name for key in read[path].evaluators)
        if method is not None and method not in known:
            raise UnknownName(f"method of {folder} called", method, known)
        groups.append([(folder, name, read[path]) for name in (known if method is None else (method,))])
    names = [sorted(name for _, name, _ in group) for group in groups]
    if len(groups) == 2 and names[0] == names[1] and len(names[0]) > 1:
        order = [name for _, name, _ in groups[0]]
        sides = _labelled([*groups[0], *sorted(groups[1], key=lambda entry: order.index(entry[1]))])
        return "methods", sides, [(i, i + len(order)) for i in range(len(order))]
    if [len(group) for group in groups] == [1, 1]:
        return "pair", _labelled([*groups[0], *groups[1]]), [(0, 1)]
    once = {(id(results), name): (folder, name, results) for group in groups for folder, name, results in group}
    if len(once) < 2:
        raise OptionError(
            f"there is one method in {', '.join(sources)}; compare two results folders, or two methods as FOLDER:METHOD"
        )
    return "matrix", _labelled(list(once.values())), list(combinations(range(len(once)), 2))


def _split(source: str) -> tuple[str, str | None]:
    """Folder and method of `FOLDER:METHOD`; a folder may have colons in its name."""
    if Path(source).is_dir() or ":" not in source:
        return source, None
    ends = [place for place, letter in enumerate(source) if letter == ":"][::-1]
    end = next((place for place in ends if Path(source[:place]).is_dir()), ends[0])  # methods may have colons, too
    return source[:end], source[end + 1 :]


def _labelled(entries: Sequence[tuple[str, str, Results]]) -> tuple[Side, ...]:
    """Sides called by their method; by folder, too, where several are called the same."""
    methods = [method for _, method, _ in entries]
    if len(set(methods)) == len(methods):
        return tuple(Side(method, folder, method, results) for folder, method, results in entries)
    stems = {Path(folder).resolve(): Path(folder).resolve().name for folder, _, _ in entries}
    short = len(set(stems.values())) == len(stems)
    return tuple(
        Side(f"{stems[Path(folder).resolve()] if short else folder}:{method}", folder, method, results)
        for folder, method, results in entries
    )


def common_datasets(sides: Sequence[Side]) -> tuple[list[str], list[str]]:
    """The data sets that all sides have, and a note on the others.

    Raises:
        MergeError: there is none.
    """
    known = [side.statistics for side in sides]
    common = [dataset for dataset in known[0] if all(dataset in datasets for datasets in known)]
    if not common:
        has = [f"{side.label}: {', '.join(datasets)}" for side, datasets in zip(sides, known, strict=True)]
        raise MergeError(
            f"no data set is common to all methods:\n{listing(has, limit=len(has))}\n"
            "compare results of one data set; --dataset names it when it is evaluated"
        )
    left_out = [
        f"left out: {dataset}, which {plural(sum(dataset not in d for d in known), 'method')} of {len(sides)} lack"
        for dataset in dict.fromkeys(dataset for datasets in known for dataset in datasets)
        if dataset not in common
    ]
    return common, left_out


def on_common_images(dataset: str, sides: Sequence[Side], settings: Settings) -> tuple[Common, list[Evaluator]]:
    """The sides on the images that all have.

    Raises:
        MergeError: too few of them, or other conventions or masks.
    """
    rows = [(side.label, named_alike(replace(side.statistics[dataset], regions={}))) for side in sides]
    names = refuse_other_ground_truth(dataset, rows)
    if len(names) < 2:
        has = [f"{label}: {_some(part.names)}" for label, part in rows]
        raise MergeError(
            f"the methods share {plural(len(names), 'image')} of {dataset}; expected at least 2 to resample:\n"
            f"{listing(has, limit=len(has))}\nimages are matched by their names: are these of one data set?"
        )
    left_out = tuple(tuple(name for name in part.names if name not in set(names)) for _, part in rows)
    evaluators = [Evaluator(selected(part, names), settings) for _, part in rows]
    n_pixels = int(evaluators[0].n_pixels.sum())
    return Common(dataset, len(names), n_pixels, evaluators[0].unit, left_out), evaluators


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def stored_otherwise(dataset: str, sides: Sequence[Side]) -> Iterator[str]:
    """A note where predictions are stored in other ways, which moves some numbers a little."""
    stated = [
        {key: side.statistics[dataset].conventions.get(key) for key in _STORED}
        | {"on_mismatch": side.results.run.options.get("on_mismatch")}
        for side in sides
    ]
    differing = [key for key in stated[0] if len({str(one[key]) for one in stated}) > 1]
    if differing:
        ways = [
            f"{side.label}: {', '.join(f'{key} {one[key]}' for key in differing)}"
            for side, one in zip(sides, stated, strict=True)
        ]
        yield f"{dataset}: predictions were stored or read in other ways:\n{listing(ways)}"


def left_out_of(common: Common, sides: Sequence[Side]) -> Iterator[str]:
    """A note for each side that has images which another lacks."""
    for side, names in zip(sides, common.left_out, strict=True):
        if names:
            yield (
                f"{common.dataset}: left out {plural(len(names), 'image')} of {side.label} that are not in all:\n"
                f"{listing(names)}"
            )
