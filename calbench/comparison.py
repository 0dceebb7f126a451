"""Comparisons of several methods on the images they share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calbench.differences import ALPHA, holm, paired_difference, win_rate
from calbench.errors import InputError, MergeError, OptionError, UnknownName
from calbench.evaluate import Evaluator, Settings, option_text
from calbench.gates import Gate, Outcome
from calbench.intervals import MIN_UNITS
from calbench.io.files import atomic, write_text
from calbench.metrics import METRICS, Metric
from calbench.progress import progress_bar
from calbench.results import definition_of, jsonable
from calbench.sides import (
    Common,
    Mode,
    Side,
    arranged,
    common_datasets,
    left_out_of,
    on_common_images,
    stored_otherwise,
)

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
FILES = ("comparison.csv", "comparison.json")

_STATED_OF_STORED = ("clip", "levels")
"""What the options of a value say about how predictions are stored; all else they say decides what the value is."""


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
    if metrics is not None and not metrics:
        raise OptionError("metrics names none; name some, or leave it out")
    checks = [gate if isinstance(gate, Gate) else Gate.parse(gate) for gate in gates]
    mode, sides, pairs = arranged([str(source) for source in sources])
    if mode == "matrix" and any(gate.delta for gate in checks):
        raise OptionError(
            "a gate on delta(METRIC) needs an A and a B, and here every two methods are compared; give two of them as "
            "FOLDER:METHOD, or gate the value"
        )
    settings = _settings(sides, metrics, [gate.metric for gate in checks], ci, n_boot, seed)
    datasets, notes = common_datasets(sides)
    readers = dict.fromkeys(range(len(sides)) if mode == "matrix" else (j for _, j in pairs))
    sets: list[Common] = []
    contrasts: list[Contrast] = []
    outcomes: list[Outcome] = []
    with progress_bar("differences", len(datasets) * len(pairs), enabled=progress) as advance:
        for dataset in datasets:
            common, evaluators = on_common_images(dataset, sides, settings)
            notes += [*stored_otherwise(dataset, sides), *_stated_otherwise(dataset, sides, evaluators)]
            notes += [*left_out_of(common, sides), *_too_few(common, evaluators[0])]
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
