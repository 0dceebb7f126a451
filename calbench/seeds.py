"""Training runs behind results: numbers over seeds, learning curves, and what became of the perturbation."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit

from calbench.errors import FormatError
from calbench.evaluate import Value
from calbench.report.paper import WideTable, wide_tables
from calbench.results import Results
from calbench.statistics.bundle import UNCALIBRATED
from calbench.statistics.rows import Array

TRAINING = "training.json"
"""What a results folder of `calbench train-aslp` holds besides: the runs that its methods come from."""
SCHEMA = 1


@dataclass(frozen=True)
class TrainingRun:
    """One training: a method under one seed.

    Attributes:
        name: of its predictions among the methods of the results.
        method: how it was trained.
        seed: of all its random draws.
        metrics: file with a row an epoch.
        alphas: file with a row a training image; None of methods whose perturbation does not adapt.
    """

    name: str
    method: str
    seed: int
    metrics: Path
    alphas: Path | None


@dataclass(frozen=True)
class TrainingRecord:
    """The runs behind the methods of a results folder.

    Attributes:
        runs: a method and a seed each.
    """

    runs: tuple[TrainingRun, ...]

    @cached_property
    def methods(self) -> dict[str, tuple[TrainingRun, ...]]:
        """The runs of each method, in the order of the record."""
        methods = dict.fromkeys(run.method for run in self.runs)
        return {method: tuple(run for run in self.runs if run.method == method) for method in methods}

    @property
    def baseline(self) -> str:
        """The method that others are compared with: the first."""
        return self.runs[0].method

    @property
    def missing_files(self) -> list[Path]:
        """Files of the runs that are not at hand; figures do without them."""
        files = (path for run in self.runs for path in (run.metrics, run.alphas))
        return [path for path in files if path is not None and not path.is_file()]


class SeedRow(NamedTuple):
    """A metric of a method on a data set, over seeds: a row of `seeds.csv`. NaN where it takes more seeds than there are.

    Attributes:
        dataset, method, calibrator, metric, options, average: what it is of, as in `summary.csv`.
        against: of OOD detection with several in-distribution sets, the set.
        n_seeds: runs with a value, `n_undefined`: runs whose value is undefined, which are left out.
        mean, sd: over these seeds; the standard deviation has n − 1 below.
        low, high: t interval of the mean.
        n_paired: seeds that the baseline has a value of, too.
        delta: mean over them of the value less that of the baseline under the same seed.
        delta_low, delta_high: t interval of `delta`.
    """

    dataset: str
    method: str
    calibrator: str
    metric: str
    options: str
    average: str
    against: str
    n_seeds: int
    n_undefined: int
    mean: float
    sd: float
    low: float
    high: float
    n_paired: int
    delta: float
    delta_low: float
    delta_high: float

    @property
    def differs(self) -> bool:
        """Whether the interval of the difference to the baseline excludes 0."""
        return self.delta_low > 0 or self.delta_high < 0


class Band(NamedTuple):
    """A quantity over the epochs of a method: the mean over its seeds, the least and the greatest; each `(epochs,)`."""

    epoch: Array
    mean: Array
    low: Array
    high: Array


class Alphas(NamedTuple):
    """Perturbation probability of each training image after training, and how hard the image is; seeds pooled.

    Attributes:
        alpha: `(images,)`, in [0, 1].
        loss: `(images,)`, mean NLL against the unperturbed label at the last visit, nats; NaN of images never visited.
        rank_correlation: of the two (Spearman), in [−1, 1]; NaN where either is the same for all images.
    """

    alpha: Array
    loss: Array
    rank_correlation: float


def read_training(folder: str | Path) -> TrainingRecord | None:
    """The training record of a results folder; None where it has none.

    Raises:
        FormatError: `training.json` is damaged, or of a newer schema.

    >>> read_training("results-of-evaluate") is None
    True
    """
    path = Path(folder) / TRAINING
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        schema = document["schema"]
        newer = schema > SCHEMA
        runs = () if newer else tuple(_run(path.parent, given) for given in document["runs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is damaged ({error}); train again, or delete it to report without it") from error
    if newer:
        raise FormatError(f"{path} has schema {schema}, this calbench reads up to {SCHEMA}; update calbench")
    if not runs or len({run.name for run in runs}) < len(runs) or len({(r.method, r.seed) for r in runs}) < len(runs):
        raise FormatError(
            f"{path} names {', '.join(run.name for run in runs) or 'no run'}; expected runs of different names, each of "
            "another method or seed; train again, or delete it to report without it"
        )
    return TrainingRecord(runs)


def over_seeds(
    results: Results, record: TrainingRecord, metrics: Sequence[str] | None = None, *, ci: float
) -> list[SeedRow]:
    """Every metric of the results over the seeds of each method, on each data set, in and out of distribution.

    With x_s the pooled value of the run with seed s, over the n seeds that have one,

        mean = Σ x_s / n,   sd² = Σ (x_s − mean)² / (n − 1),   mean ± t_{(1 + ci) / 2, n − 1} · sd / √n,

    and the same of the differences x_s − b_s to the first method of the record, over the seeds that both have.

    The interval covers the randomness of training (first weights, order, augmentation, draws of the perturbation) on these
    test images, and takes values over seeds to be about normal. It does not cover that of images, which the bootstrap
    interval of each run does. Values are those of the results; it is not cut off at the bounds of a metric.

    Args:
        results: with every run of the record among the methods.
        record: of the folder that they come from.
        metrics: names, in order; None for all.
        ci: level of the intervals, in (0, 1).
    Returns:
        Rows by data set, method (and calibrator), metric.
    Raises:
        UnknownName, InputError: there is no such metric, or no such number.
    Reference: Student, Biometrika 6, 1908 (doi:10.1093/biomet/6.1.1).

    >>> from calbench import Run, Settings, collect
    >>> from calbench.synthetic import samples
    >>> rows = [collect(samples(3, sharpness), scores=()).combinations["dataset", "method"] for sharpness in (1.0, 1.5)]
    >>> results = Results(Run({("toy", f"bce-s{s}"): rows[s] for s in (0, 1)}), Settings(metrics=("ece",), n_boot=0))
    >>> record = TrainingRecord(tuple(TrainingRun(f"bce-s{s}", "bce", s, Path("metrics.csv"), None) for s in (0, 1)))
    >>> [(row.method, row.metric, row.n_seeds) for row in over_seeds(results, record, ci=0.95)]
    [('bce', 'ece', 2)]
    """
    if metrics is None:
        known = {metric for evaluator in results.evaluators.values() for metric in evaluator.metrics}
        names = {metric.name for metric in known}
        names |= {value.metric for key in results.outside for value in results.values()[key]}
        metrics = [metric.name for metric in results.settings.chosen if metric.name in names]
    return [row for table in wide_tables(results, metrics) for row in seeds_of(table, record, ci=ci)]


def seeds_of(table: WideTable, record: TrainingRecord, *, ci: float) -> list[SeedRow]:
    """The columns of a table of single runs over the seeds of each method; see `over_seeds`.

    Numbers of the map before calibration (`as_stored`) are left out: they are of another method.
    """
    runs = {run.name: run for run in record.runs}
    seeds: dict[tuple[str, str], dict[int, tuple[Value | None, ...]]] = {}
    for key, values in zip(table.keys, table.values, strict=True):
        if key.method in runs:
            run = runs[key.method]
            seeds.setdefault((run.method, key.calibrator), {})[run.seed] = values
    baseline = seeds.get((record.baseline, UNCALIBRATED), {})
    order = list(record.methods)
    rows = []
    for method, calibrator in sorted(seeds, key=lambda one: order.index(one[0])):
        for j, column in enumerate(table.columns):
            values_of = _column(seeds[method, calibrator], j)
            if not values_of:
                continue
            first = next(iter(values_of.values()))
            x = {seed: value.value for seed, value in values_of.items() if math.isfinite(value.value)}
            b = {seed: value.value for seed, value in _column(baseline, j).items() if math.isfinite(value.value)}
            itself = (method, calibrator) == (record.baseline, UNCALIBRATED)
            paired = [] if itself else [x[seed] - b[seed] for seed in x if seed in b]
            delta, _, *limits = t_interval(paired, ci) if len(paired) > 1 else (math.nan,) * 4
            rows.append(
                SeedRow(
                    table.dataset, method, calibrator, column.metric.name, first.options, first.average, column.against,
                    len(x), len(values_of) - len(x), *t_interval(list(x.values()), ci), len(paired), delta, *limits,
                )
            )  # fmt: skip
    return rows


def t_interval(values: Sequence[float], ci: float) -> tuple[float, float, float, float]:
    """Mean, standard deviation and Student's t interval of the mean: mean ± t_{(1 + ci) / 2, n − 1} · sd / √n.

    Args:
        values: independent draws, about normal.
        ci: level, in (0, 1).
    Returns:
        Mean, sd (n − 1 below), low, high; NaN where there are too few values: one has a mean alone.

    >>> [round(number, 2) for number in t_interval([1.0, 2.0, 3.0], 0.95)]
    [2.0, 1.0, -0.48, 4.48]
    """
    n = len(values)
    if n < 2:
        return (values[0] if n else math.nan, math.nan, math.nan, math.nan)
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(n - 1, (1 + ci) / 2)) * sd / math.sqrt(n)
    return mean, sd, mean - half, mean + half


def learning_curves(record: TrainingRecord, columns: Iterable[str]) -> dict[str, dict[str, Band]]:
    """Columns of `metrics.csv` over the epochs of each method: column -> method -> mean and range over its seeds.

    An epoch counts if every run of the method whose file is at hand has a value; a method without one is left out.

    Args:
        record: of the runs.
        columns: for example `loss`, `validation_ece`.
    Raises:
        FormatError: a file is damaged.
    """
    columns = list(columns)
    curves: dict[str, dict[str, Band]] = {column: {} for column in columns}
    for method, runs in record.methods.items():
        tables = [_epochs(run.metrics, columns) for run in runs if run.metrics.is_file()]
        for column in columns if tables else ():
            known = [
                {e: v for e, v in zip(table["epoch"], table[column], strict=True) if math.isfinite(v)}
                for table in tables
            ]
            epochs = sorted(set.intersection(*map(set, known)))
            if epochs:
                values = np.array([[of_run[epoch] for epoch in epochs] for of_run in known])
                curves[column][method] = Band(np.array(epochs), values.mean(0), values.min(0), values.max(0))
    return curves


def final_alphas(record: TrainingRecord) -> dict[str, Alphas]:
    """Perturbation probabilities and difficulties of the training images of each adaptive method, seeds pooled.

    Raises:
        FormatError: a file is damaged.
    """
    found = {}
    for method, runs in record.methods.items():
        files = [run.alphas for run in runs if run.alphas is not None and run.alphas.is_file()]
        if files:
            tables = [_images(path) for path in files]
            alpha, loss = (np.concatenate([table[name] for table in tables]) for name in ("alpha", "loss"))
            found[method] = Alphas(alpha, loss, rank_correlation(alpha, loss))
    return found


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's ρ: the correlation of the ranks, ties at their mean rank.

    Args:
        x, y: `(n,)` each; pairs with a NaN are left out.
    Returns:
        ρ in [−1, 1]; NaN where either is constant.
    Reference: Spearman, The American Journal of Psychology 15, 1904 (doi:10.2307/1412159).

    >>> round(rank_correlation(np.array([1.0, 2.0, 9.0]), np.array([0.1, 0.5, 0.7])), 6)
    1.0
    """
    from scipy.stats import rankdata

    known = np.isfinite(x) & np.isfinite(y)
    ranks = rankdata(np.stack([x[known], y[known]]), axis=1)
    if not known.any() or (np.ptp(ranks, axis=1) == 0).any():
        return math.nan
    return float(np.corrcoef(ranks)[0, 1])


def _run(folder: Path, given: Mapping[str, Any]) -> TrainingRun:
    """A run of the record, whose paths are relative to the folder of the results."""
    name, method, seed = given["name"], given["method"], given["seed"]
    metrics, alphas = given["metrics"], given["alphas"]
    for text in (name, method, metrics, "" if alphas is None else alphas):
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is no text")
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"seed {seed!r} is no whole number")
    return TrainingRun(name, method, seed, folder / metrics, None if alphas is None else folder / alphas)


def _column(runs: Mapping[int, Sequence[Value | None]], column: int) -> dict[int, Value]:
    """The values of a column by seed, in order of the seeds, of the runs that have one of their own."""
    found = {seed: runs[seed][column] for seed in sorted(runs)}
    return {seed: value for seed, value in found.items() if value is not None and not value.as_stored}


def _epochs(path: Path, columns: Sequence[str]) -> dict[str, Array]:
    """Columns of a file with a row an epoch."""
    table = _numbers(path, ("epoch", *columns))
    if not np.isfinite(table["epoch"]).all() or not (np.diff(table["epoch"]) > 0).all():
        raise FormatError(
            f"{path} has the epochs {', '.join(f'{epoch:g}' for epoch in table['epoch'][:12])} ...; expected each once, "
            "in order; train again, or move the file away to report without it"
        )
    return table


def _images(path: Path) -> dict[str, Array]:
    """Alpha and loss of a file with a row a training image."""
    table = _numbers(path, ("alpha", "loss"))
    if not ((table["alpha"] >= 0) & np.isfinite(table["alpha"])).all():
        raise FormatError(
            f"{path} has the alphas {table['alpha'].min():g} to {table['alpha'].max():g}; expected numbers from 0, up to 1 "
            "or, by the official rule of ASLP, 1/(2b); train again, or move the file away to report without it"
        )
    return table


def _numbers(path: Path, columns: Sequence[str]) -> dict[str, Array]:
    """Columns of numbers of a CSV file, `(rows,)` each; nothing stands for NaN."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        table = dict(zip(header, zip(*rows, strict=True), strict=True))  # rows cut short are refused
        return {name: np.array([float(text) if text else math.nan for text in table[name]]) for name in columns}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise FormatError(
            f"{path} is damaged ({error}); expected the columns {', '.join(columns)}, numbers in every row; train again, or "
            "move the file away to report without it"
        ) from error
