"""Comparisons of several methods on the images they share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calbench.differences import ALPHA, can_be_tested, holm, noise_level, paired_difference, win_rate
from calbench.errors import InputError, MergeError, OptionError, UnknownName, listing, plural
from calbench.evaluate import Evaluator, Settings, option_text
from calbench.gates import Gate, Outcome
from calbench.intervals import MIN_UNITS
from calbench.io.files import atomic, write_text
from calbench.metrics import METRICS, Metric
from calbench.progress import progress_bar
from calbench.results import Results, definition_of, jsonable
from calbench.saved import load_results
from calbench.statistics import Statistics
from calbench.statistics.bundle import ALL
from calbench.statistics.rows import MEMBER, owner

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
FILES = ("comparison.csv", "comparison.json")
Mode = Literal["pair", "methods", "matrix"]

_TRUTH = (
    "classes", "mask_coding", "gt_threshold", "void_values", "ignore_index", "reduce_zero_label", "label_map",
    "field_of_view", "samples",
)  # fmt: skip
"""Conventions of the ground truth: what two sides both state must be the same."""
_ROWS = ("table", "volumes")
"""Conventions of what rows are; stated only where it is so."""
_STORED = ("input", "stored", "layout", "pred_threshold")
"""Conventions of how predictions are stored, which may differ."""
_STATED_OF_STORED = ("clip", "levels")
"""What the options of a value say about how predictions are stored; all else they say decides what the value is."""


@dataclass(frozen=True)
class Noise:
    """How large a difference between two methods must be, on one data set, to be told from chance.

    Half the width of the interval of the paired difference at the level of the settings, over all pairs of methods.

    Attributes:
        metric: name.
        median, least, most: over the pairs.
        n_pairs: how many.
    """

    metric: str
    median: float
    least: float
    most: float
    n_pairs: int


def noise(evaluators: Mapping[str, Evaluator], metrics: Sequence[Metric]) -> list[Noise]:
    """The noise level of each metric over all pairs of methods that were measured on the same images.

    Metrics that no such pair has, or that have no resampled values, are left out.

    Args:
        evaluators: of one data set, by method.
        metrics: to say it of.
    """
    pairs = [
        pair for pair in combinations(evaluators.values(), 2) if pair[0].statistics.names == pair[1].statistics.names
    ]
    found = []
    for metric in metrics:
        both = [pair for pair in pairs if can_be_tested(metric) and all(metric in e.metrics for e in pair)]
        levels = np.array([noise_level(*pair, metric) for pair in both if pair[0].settings.n_boot])
        levels = levels[np.isfinite(levels)]
        if len(levels):
            middle, least, most = float(np.median(levels)), float(levels.min()), float(levels.max())
            found.append(Noise(metric.name, middle, least, most, len(levels)))
    return found


def as_good(evaluators: Mapping[str, Evaluator], metric: Metric) -> frozenset[str]:
    """The best method, and those that the paired test does not tell apart from it at 5 %.

    p-values are corrected by Holm's method over the comparisons with the best. Methods on other images than the best are
    not tested, and not among them. Empty where neither direction is better.

    Args:
        evaluators: of one data set, by method.
        metric: to rank them by.
    """
    if metric.better not in ("lower", "higher"):
        return frozenset()
    values = {name: e.value_of(metric).value for name, e in evaluators.items() if metric in e.metrics}
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    if not values:
        return frozenset()
    best = (min if metric.better == "lower" else max)(values, key=values.__getitem__)
    names = evaluators[best].statistics.names
    others = [name for name in values if name != best and evaluators[name].statistics.names == names]
    p_values = holm([paired_difference(evaluators[best], evaluators[name], metric).p_value for name in others])
    return frozenset({best, *(name for name, p in zip(others, p_values, strict=True) if p >= ALPHA)})


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


@dataclass(frozen=True)
class Contrast:
    """One metric of two methods on one data set: a row of `comparison.csv`.

    Attributes:
        dataset, first, second: what is compared; the difference is second − first.
        metric, options, average: of the values.
        n_images: both values rest on.
        first_value, second_value, difference: the numbers.
        low, high, interval: of the difference, see `Difference`.
        p: of "the two are equal", paired bootstrap.
        p_holm: corrected for the number of pairs of this data set and metric.
        win_rate: share of images on which the second is better.
    """

    dataset: str
    first: str
    second: str
    metric: str
    options: str
    average: str
    n_images: int
    first_value: float
    second_value: float
    difference: float
    low: float
    high: float
    interval: str
    p: float
    p_holm: float
    win_rate: float

    @property
    def differs(self) -> bool:
        """Whether the two are told apart at 5 %, after Holm's correction."""
        return self.p_holm < ALPHA


COLUMNS = tuple(field.name for field in fields(Contrast))
"""Columns of `comparison.csv`."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several methods on the images they share.

    Attributes:
        mode: "pair" (A and B), "methods" (each method of A against that of B), or "matrix" (every two).
        sides: the methods.
        settings: of all numbers; their metrics are those compared.
        sets: the data sets that all sides have.
        contrasts: for each data set, pair and metric, in that order.
        outcomes: of the gates.
        notes: what differs and is left out, for people.
    """

    mode: Mode
    sides: tuple[Side, ...]
    settings: Settings
    sets: tuple[Common, ...]
    contrasts: tuple[Contrast, ...]
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics compared."""
        return tuple(dict.fromkeys(contrast.metric for contrast in self.contrasts))

    @property
    def headline(self) -> tuple[str, ...]:
        """The headline metrics of the profile that were compared; all where there is none."""
        return tuple(name for name in self.settings.convention.headline if name in self.metrics) or self.metrics

    @property
    def broken(self) -> tuple[Outcome, ...]:
        """What broke a gate."""
        return tuple(outcome for outcome in self.outcomes if outcome.broken)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a data set, pair and metric: the columns of `comparison.csv`."""
        import pandas as pd

        return pd.DataFrame([asdict(contrast) for contrast in self.contrasts], columns=list(COLUMNS))

    def to_json(self) -> dict[str, Any]:
        """The document of `comparison.json`."""
        document = {
            "schema": SCHEMA,
            "calbench": version("calbench"),
            "mode": self.mode,
            "settings": asdict(self.settings),
            "sides": [{"label": s.label, "folder": s.folder, "method": s.method} for s in self.sides],
            "datasets": [
                {
                    **asdict(common),
                    "left_out": [
                        {"label": side.label, "images": list(names)}
                        for side, names in zip(self.sides, common.left_out, strict=True)
                    ],
                }
                for common in self.sets
            ],
            "notes": list(self.notes),
            "definitions": {name: definition_of(name) for name in self.metrics},
            "difference": (
                "second − first; interval of metrics that are means: paired bootstrap percentiles; of errors that are "
                "norms (box): the limits of the one less those of the other, conservative; p: paired bootstrap"
            ),
            "pairs": [asdict(contrast) for contrast in self.contrasts],
            "gates": [outcome.to_json() for outcome in self.outcomes],
        }
        clean: dict[str, Any] = jsonable(document)
        return clean

    def write(self, folder: Path) -> list[Path]:
        """Write `comparison.csv` and `comparison.json`, each atomically, and return their paths."""
        with atomic(folder / FILES[0]) as temporary:
            self.frame.to_csv(temporary, index=False, lineterminator="\n")
        write_text(folder / FILES[1], json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")
        return [folder / name for name in FILES]


def compare(
    *sources: str | Path,
    metrics: Sequence[str] | None = None,
    gates: Sequence[Gate | str] = (),
    ci: float | None = None,
    n_boot: int | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> Comparison:
    """Compare methods on the images they share, by paired bootstrap.

    Two sources of one method each are A and B; two that hold the same several methods are compared method by method; of all
    else every two methods are compared. The difference is B − A, and gates read B, both on the images that all share. Whole
    images are compared, not their regions, and no out-of-distribution sets.

    Args:
        sources: results folders, or `FOLDER:METHOD` for one method of them.
        metrics: names to compare; None for all that every source chose. Those of gates are added.
        gates: limits to check, see `Gate.parse`.
        ci, n_boot, seed: of the intervals; None for those of the first source.
        progress: whether to show it on stderr.
    Raises:
        FormatError: a source is no finished results folder.
        MergeError: other settings, conventions, masks or data sets, or fewer than two common images.
        InputError: a metric that was asked for cannot be computed.
        UnknownName, OptionError: a method, metric or gate that cannot be.
    """
    checks = [gate if isinstance(gate, Gate) else Gate.parse(gate) for gate in gates]
    mode, sides, pairs = _arranged([str(source) for source in sources])
    if mode == "matrix" and any(gate.delta for gate in checks):
        raise OptionError(
            "a gate on delta(METRIC) needs an A and a B, and here every two methods are compared; give two of them as "
            "FOLDER:METHOD, or gate the value"
        )
    settings = _settings(sides, metrics, [gate.metric for gate in checks], ci, n_boot, seed)
    datasets, notes = _common_datasets(sides)
    readers = dict.fromkeys(range(len(sides)) if mode == "matrix" else (j for _, j in pairs))
    sets: list[Common] = []
    contrasts: list[Contrast] = []
    outcomes: list[Outcome] = []
    with progress_bar("differences", len(datasets) * len(pairs), enabled=progress) as advance:
        for dataset in datasets:
            common, evaluators = _on_common_images(dataset, sides, settings)
            notes += [*_stored_otherwise(dataset, sides), *_stated_otherwise(dataset, sides, evaluators)]
            notes += [*_left_out(common, sides), *_too_few(common, evaluators[0])]
            found: list[Contrast] = []
            for i, j in pairs:
                found += _contrasts(dataset, (sides[i], sides[j]), (evaluators[i], evaluators[j]))
                advance()
            found = _corrected(found)
            outcomes += _outcomes(checks, dataset, {sides[j].label: evaluators[j] for j in readers}, found)
            contrasts += found
            sets.append(common)
    _refuse_what_none_can_give(settings if metrics is not None else None, contrasts)
    notes += _too_few_replicates(settings, len(pairs))
    return Comparison(
        mode, sides, settings, tuple(sets), tuple(contrasts), tuple(outcomes), tuple(dict.fromkeys(notes))
    )


def _arranged(sources: Sequence[str]) -> tuple[Mode, tuple[Side, ...], list[tuple[int, int]]]:
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
            raise UnknownName(f"method in {folder}", method, known)
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
    folder, _, method = source.rpartition(":")
    return folder, method


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


def _settings(
    sides: Sequence[Side],
    metrics: Sequence[str] | None,
    gated: Sequence[str],
    ci: float | None,
    n_boot: int | None,
    seed: int | None,
) -> Settings:
    """The settings of all numbers: those of the first results, with the metrics that all chose.

    Raises:
        MergeError: the numbers of the results were made under other settings.
    """
    for name in metrics or ():
        if name not in METRICS:
            raise UnknownName("metric", name, METRICS)
    first, *others = {id(side.results): side for side in sides}.values()
    ours = first.results.settings
    names = [metric.name for metric in ours.chosen if metric.scope == "id"] if metrics is None else list(metrics)
    for other in others:
        theirs = other.results.settings
        if metrics is None:
            names = [name for name in names if METRICS[name] in theirs.chosen]
        differing = [(name, getattr(ours, name), getattr(theirs, name)) for name in ("profile", "group_by")]
        if ci is None:
            differing.append(("ci", ours.ci, theirs.ci))
        for name in dict.fromkeys([*names, *gated]):
            one, two = (option_text(settings.options_of(METRICS[name])) for settings in (ours, theirs))
            differing.append((f"options of {name}", one, two))
        for what, one, two in differing:
            if one != two:
                raise MergeError(
                    f"{first.folder} and {other.folder} were evaluated under other settings: {what}: {one} and {two}; "
                    "evaluate one again under the settings of the other, by --stats without reading a pixel"
                )
    chosen = tuple(dict.fromkeys([*names, *gated]))
    if not chosen:
        raise MergeError(
            f"no metric is in all of {', '.join(dict.fromkeys(side.folder for side in sides))}; name some by --metrics"
        )
    return replace(
        ours,
        metrics=chosen,
        exclude=(),
        ci=ours.ci if ci is None else ci,
        n_boot=ours.n_boot if n_boot is None else n_boot,
        seed=ours.seed if seed is None else seed,
    )


def _common_datasets(sides: Sequence[Side]) -> tuple[list[str], list[str]]:
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


def _on_common_images(dataset: str, sides: Sequence[Side], settings: Settings) -> tuple[Common, list[Evaluator]]:
    """The sides on the images that all have.

    Raises:
        MergeError: too few of them, or other conventions or masks.
    """
    rows = [_named_alike(replace(side.statistics[dataset], regions={})) for side in sides]
    for side, theirs in zip(sides[1:], rows[1:], strict=True):
        _refuse_other_conventions(dataset, (sides[0].label, side.label), (rows[0].conventions, theirs.conventions))
    names = sorted(set.intersection(*(set(part.names) for part in rows)))
    if len(names) < 2:
        has = [f"{side.label}: {_some(part.names)}" for side, part in zip(sides, rows, strict=True)]
        raise MergeError(
            f"the methods share {plural(len(names), 'image')} of {dataset}; expected at least 2 to resample:\n"
            f"{listing(has, limit=len(has))}\nimages are matched by their names: are these of one data set?"
        )
    left_out = tuple(tuple(name for name in part.names if name not in set(names)) for part in rows)
    rows = [_selected(part, names) for part in rows]
    for side, theirs in zip(sides[1:], rows[1:], strict=True):
        _refuse_other_masks(dataset, (sides[0].label, side.label), (rows[0], theirs))
    evaluators = [Evaluator(part, settings) for part in rows]
    n_pixels = int(evaluators[0].n_pixels.sum())
    return Common(dataset, len(names), n_pixels, evaluators[0].unit, left_out), evaluators


def _named_alike(rows: Statistics) -> Statistics:
    """The rows of a table, which are groups of its samples by their place, without the name of its file."""
    if "table" not in rows.conventions or len({owner(name) for name in rows.names}) > 1:
        return rows
    names = tuple(name.rpartition(MEMBER)[2] for name in rows.names)
    parts: dict[str, Any] = {kind: replace(part, names=names) for kind, part in rows.parts.items()}
    return replace(rows, **parts)


def _selected(rows: Statistics, names: Sequence[str]) -> Statistics:
    if rows.names == tuple(names):
        return rows
    place = {name: row for row, name in enumerate(rows.names)}
    return rows.select([place[name] for name in names])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _refuse_other_conventions(
    dataset: str, labels: tuple[str, str], conventions: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> None:
    """Both state the same of the ground truth: what only one states, as of images in memory, tells nothing apart."""
    ours, theirs = conventions
    differing = [key for key in _TRUTH if key in ours and key in theirs and ours[key] != theirs[key]]
    differing += [key for key in _ROWS if ours.get(key) != theirs.get(key)]
    if differing:
        lines = [f"{key}: {ours.get(key)} of {labels[0]}, {theirs.get(key)} of {labels[1]}" for key in differing]
        raise MergeError(
            f"{labels[0]} and {labels[1]} were measured on {dataset} under other conventions of the ground truth:\n"
            f"{listing(lines)}\nevaluate both with the same masks and options"
        )


def _refuse_other_masks(dataset: str, labels: tuple[str, str], rows: tuple[Statistics, Statistics]) -> None:
    """The same pixels are valid in each image, by number, and as many are of each class."""
    ours, theirs = rows
    unsure = [part.uncertainty() for part in rows]
    if unsure[0] is not None and unsure[1] is not None and unsure[0].classes != unsure[1].classes:
        raise MergeError(
            f"{labels[0]} and {labels[1]} were scored over {unsure[0].classes} and {unsure[1].classes} classes on {dataset}; "
            "expected the same classes"
        )
    other = ours.n_pixels != theirs.n_pixels
    counts = [part.class_counts() for part in rows]
    if counts[0] is not None and counts[1] is not None:
        # tables of decisions have the classes that occur
        targets = [count.target for count in counts if count is not None]
        widest = max(target.shape[1] for target in targets)
        one, two = (np.pad(target, ((0, 0), (0, widest - target.shape[1]))) for target in targets)
        other |= (one != two).any(1)
    if other.any():
        names = [f"{ours.names[i]}: {ours.n_pixels[i]:,} and {theirs.n_pixels[i]:,} valid pixels"
                 for i in np.flatnonzero(other)]  # fmt: skip
        raise MergeError(
            f"{labels[0]} and {labels[1]} were measured against other masks on {dataset}: {len(names):,} of "
            f"{len(other):,} images have other valid pixels, or other pixels of the classes:\n{listing(names)}\n"
            "evaluate both with the same ground truth, fields of view and void labels"
        )


def _stored_otherwise(dataset: str, sides: Sequence[Side]) -> Iterator[str]:
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


def _left_out(common: Common, sides: Sequence[Side]) -> Iterator[str]:
    for side, names in zip(sides, common.left_out, strict=True):
        if names:
            yield (
                f"{common.dataset}: left out {plural(len(names), 'image')} of {side.label} that are not in all:\n"
                f"{listing(names)}"
            )


def _too_few(common: Common, evaluator: Evaluator) -> Iterator[str]:
    if evaluator.settings.n_boot and evaluator.n_units < MIN_UNITS:
        yield (
            f"{common.dataset}: no intervals and p-values; {evaluator.n_units} {common.unit} are too few to resample "
            f"(at least {MIN_UNITS})"
        )


def _too_few_replicates(settings: Settings, n_pairs: int) -> Iterator[str]:
    smallest = 2 * n_pairs / (settings.n_boot + 1)
    if settings.n_boot and smallest >= ALPHA:
        yield (
            f"{n_pairs} pairs, {settings.n_boot:,} replicates: no corrected p can be below {smallest:.2g}, so that nothing "
            f"is told apart; use --n-boot {round(2 * n_pairs / ALPHA)} or more"
        )


def _stated(evaluator: Evaluator, metric: Metric) -> set[str]:
    """What the `options` column says of a value, in parts."""
    return set(filter(None, evaluator.value_of(metric).options.split(";")))


def _stated_otherwise(dataset: str, sides: Sequence[Side], evaluators: Sequence[Evaluator]) -> Iterator[str]:
    """A note for the metrics whose conventions follow how predictions are stored, where that differs."""
    metrics_of: dict[str, list[str]] = {}
    for metric in evaluators[0].metrics:
        labels_of: dict[str, list[str]] = {}
        stated = {s.label: _stated(e, metric) for s, e in zip(sides, evaluators, strict=True) if metric in e.metrics}
        common = set.intersection(*stated.values())
        for label, parts in stated.items():
            labels_of.setdefault(", ".join(sorted(parts - common)) or "not", []).append(label)
        if len(labels_of) > 1:
            ways = "; ".join(f"{way} of {', '.join(labels)}" for way, labels in labels_of.items())
            metrics_of.setdefault(ways, []).append(metric.name)
    for ways, names in metrics_of.items():
        yield f"{dataset}: conventions of {', '.join(names)} differ: {ways}"


def _contrasts(dataset: str, sides: tuple[Side, Side], evaluators: tuple[Evaluator, Evaluator]) -> Iterator[Contrast]:
    """Every metric that both have, and that is the same number of both."""
    before, after = evaluators
    labels = (sides[0].label, sides[1].label)
    for metric in before.metrics:
        if metric not in after.metrics:
            continue
        first, second = (_stated(evaluator, metric) for evaluator in evaluators)
        if any(part.partition("=")[0] not in _STATED_OF_STORED for part in first ^ second):
            continue  # such as a Brier score of two classes and one of the foreground alone
        paired = paired_difference(before, after, metric)
        yield Contrast(
            dataset, *labels, metric.name, ";".join(sorted(first & second)), metric.average,
            paired.n_images, paired.before, paired.after, paired.difference, paired.low, paired.high,
            paired.interval, paired.p_value, paired.p_value, win_rate(before, after, metric),
        )  # fmt: skip


def _corrected(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts of one data set with the p-values of each metric corrected for the number of its pairs."""
    corrected = list(contrasts)
    for metric in dict.fromkeys(contrast.metric for contrast in contrasts):
        places = [i for i, contrast in enumerate(contrasts) if contrast.metric == metric]
        for i, p in zip(places, holm([contrasts[i].p for i in places]), strict=True):
            corrected[i] = replace(contrasts[i], p_holm=float(p))
    return corrected


def _outcomes(
    gates: Sequence[Gate], dataset: str, readers: Mapping[str, Evaluator], contrasts: Sequence[Contrast]
) -> Iterator[Outcome]:
    """Each gate on every method that it reads, or on every pair.

    Raises:
        InputError: the predictions cannot give its metric.
    """
    for gate in gates:
        metric = METRICS[gate.metric]
        of_pairs = [contrast for contrast in contrasts if contrast.metric == gate.metric]
        lacking = [label for label, evaluator in readers.items() if metric not in evaluator.metrics]
        if lacking or (gate.delta and not of_pairs):
            raise InputError(
                f"the gate '{gate}' cannot be checked on {dataset}: {gate.metric} needs {metric.needs}"
                + (f", which {lacking[0]} has not" if lacking else " of both methods")
            )
        if gate.delta:
            for c in of_pairs:
                broken = gate.broken(c.second_value, c.difference)
                yield Outcome(gate, dataset, c.first, c.second, c.difference, broken)
        else:
            for label, evaluator in readers.items():
                value = evaluator.value_of(metric).value
                yield Outcome(gate, dataset, "", label, value, gate.broken(value))


def _refuse_what_none_can_give(asked: Settings | None, contrasts: Sequence[Contrast]) -> None:
    compared = {contrast.metric for contrast in contrasts}
    missing = [metric for metric in asked.chosen if metric.name not in compared] if asked else []
    if missing:
        raise InputError(
            f"{missing[0].name} cannot be compared: it needs {missing[0].needs}, of both methods alike; leave it out of "
            "--metrics"
        )
    if not compared:
        raise InputError("the predictions have no metric in common; compare predictions of one kind")
