"""The results of a run: tidy tables, and the files they are written to."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from calbench.collect import collect
from calbench.errors import InputError, OptionError
from calbench.evaluate import Evaluator, ReliabilityBin, Settings, Value
from calbench.findings import Finding, check_run
from calbench.intervals import FEW_UNITS, MIN_UNITS
from calbench.io.files import atomic, distinct_name, safe_name, write_text
from calbench.io.sample import Sample
from calbench.metrics import METRICS, Metric
from calbench.metrics.metric import READ_FOR_IT, levels
from calbench.ood import Separation
from calbench.statistics import Run, Statistics
from calbench.statistics.bundle import ALL, UNCALIBRATED
from calbench.statistics.histogram import Event
from calbench.statistics.reliability import divide
from calbench.statistics.storage import load_run, save_run

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1

SUMMARY_COLUMNS = (
    "dataset", "method", "calibrator", "region", "metric", "options", "average", "value", "low", "high",
    "n_images", "n_undefined", "n_pixels",
)  # fmt: skip
RELIABILITY_COLUMNS = (
    "dataset", "method", "calibrator", "region", "event", "bin", "low_edge", "high_edge", "n", "confidence", "accuracy",
    "low", "high",
)  # fmt: skip
ENTROPY_COLUMNS = ("dataset", "method", "calibrator", "region", "bin", "low_edge", "high_edge", "n")
FILES = (
    "summary.json", "summary.csv", "per_image.csv", "per_class.csv", "reliability.csv", "curves.csv", "entropy.csv",
    "stats.npz",
)  # fmt: skip


class Key(NamedTuple):
    """What a set of numbers is of."""

    dataset: str
    method: str
    region: str = ALL
    calibrator: str = UNCALIBRATED

    @property
    def name(self) -> str:
        """The method, and what calibrated it, for people."""
        return self.method if self.calibrator == UNCALIBRATED else f"{self.method} + {self.calibrator}"


class Results:
    """Every number of a run under one set of settings; each is computed when first asked for.

    Attributes:
        run: the statistics.
        settings: how they become numbers.
        evaluators: one for each data set, method, region and calibrator.
        outside: one for each out-of-distribution set and method.
    Raises:
        InputError: none of the rows can give a metric that was asked for by name, or any of the profile.
    """

    def __init__(self, run: Run, settings: Settings) -> None:
        self.run = run
        self.settings = settings
        self.evaluators = {
            Key(dataset, method, region, statistics.calibrator): Evaluator(part, settings)
            for (dataset, method, *_), statistics in [*run.combinations.items(), *run.calibrated.items()]
            for region, part in parts_of(statistics).items()
        }
        self.outside = {
            Key(*key, calibrator=statistics.calibrator): Evaluator(statistics, settings, "ood")
            for key, statistics in run.ood.items()
        }
        self._values: dict[Key, list[Value]] = {}
        self._refuse_what_none_can_give()

    def _refuse_what_none_can_give(self) -> None:
        for evaluator in self.evaluators.values():
            evaluator.unit_of_row  # noqa: B018 - raises where names do not match the groups asked for
        missing = self._missing
        if missing and (self.settings.metrics is not None or len(missing) == len(self.settings.chosen)):
            raise InputError(
                f"{', '.join(metric.name for metric in missing[:5])} cannot be computed from these predictions: "
                f"{missing[0].name} needs {missing[0].needs}"
            )

    @cached_property
    def _missing(self) -> list[Metric]:
        """The chosen metrics that none of the rows can give."""
        given = {metric.name for e in (*self.evaluators.values(), *self.outside.values()) for metric in e.metrics}
        if self.outside:
            given |= {metric.name for metric in self.settings.chosen if metric.scope == "id-ood"}
        return [metric for metric in self.settings.chosen if metric.name not in given]

    def values(self, advance: Callable[[], None] = lambda: None) -> dict[Key, list[Value]]:
        """The values of each data set, method and region; `advance` is called after each that is computed."""
        for key, evaluator in (self.evaluators | self.outside).items():
            if key not in self._values:
                values = evaluator.values()
                if key in self.outside:
                    values += [value for separation in self._separations(key) for value in separation.values()]
                self._values[key] = values
                evaluator.per_image()  # its columns stay
                evaluator.forget()
                advance()
        return self._values

    def remember(self, values: Mapping[Key, Sequence[Value]]) -> None:
        """Take values that were computed before from the same rows under the same settings."""
        evaluators = self.evaluators | self.outside
        for key, known in values.items():
            self._values[key] = list(known)
            evaluators[key].remember(known)

    def remember_bins(self, bins: Mapping[Key, Sequence[ReliabilityBin]]) -> None:
        """Take reliability bins, of all events together, that were computed before as `remember` takes values."""
        self.diagrams = {
            key: {
                event: ([b for b in bins.get(key, ()) if b.event == event], error)
                for event, error in evaluator.errors().items()
            }
            for key, evaluator in self.evaluators.items()
        }

    def _separations(self, key: Key) -> Iterator[Separation]:
        """An out-of-distribution set against each data set of the same method."""
        insides = [
            k for k in self.evaluators if k.region == ALL and (k.method, k.calibrator) == (key.method, key.calibrator)
        ]
        for inside in insides:
            label = {"id": inside.dataset} if len(insides) > 1 else None
            yield Separation(self.evaluators[inside], self.outside[key], self.settings, label)

    def _left_out(self) -> list[str]:
        """Metrics of a named convention that none of these predictions can give; of the default, those not read for."""
        missing: dict[str, list[str]] = {}
        if self.settings.metrics is None:
            maps = any(levels.available(e.statistics) for e in self.evaluators.values())
            for metric in self._missing:
                if self.settings.profile != Settings.profile or (maps and metric.needs.startswith(READ_FOR_IT)):
                    missing.setdefault(metric.needs, []).append(metric.name)
        return [f"left out: {', '.join(names)}: {needs} needed" for needs, names in missing.items()]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a number: the columns of `summary.csv`, then `median_unbiased`, `p_calibrated` and `details`."""
        import pandas as pd

        rows = [record for key in self.values() for record in self._records(key)]
        return pd.DataFrame(rows, columns=[*SUMMARY_COLUMNS, "median_unbiased", "p_calibrated", "details"])

    @cached_property
    def per_image(self) -> pd.DataFrame:
        """One row an image: its identity, `image, n_pixels` and one column a metric; none for tables."""
        import pandas as pd

        tables = [
            pd.DataFrame({**_identity(key), "image": list(e.statistics.names), "n_pixels": e.n_pixels} | e.per_image())
            for key, e in (self.evaluators | self.outside).items()
            if e.has_images
        ]
        if not tables:
            return pd.DataFrame(columns=[*_identity(Key("", "")), "image", "n_pixels"])
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """One row a class: its identity, its pixels in mask and prediction, and one column a class-wise metric."""
        import pandas as pd

        rows = []
        for key, evaluator in self.evaluators.items():
            counts = evaluator.pooled.class_counts()
            if counts is None:
                continue
            columns: dict[int, dict[str, float]] = {k: {} for k in range(len(counts.target))}
            for value in self.values()[key]:
                if "class" in value.details and value.average == "pixels":
                    columns[value.details["class"]][value.metric] = value.value
            rows += [
                {
                    **_identity(key),
                    "class": k,
                    "n_target": int(counts.target[k]),
                    "n_predicted": int(counts.predicted[k]),
                }
                | column
                for k, column in columns.items()
            ]
        return pd.DataFrame(
            rows, columns=None if rows else [*_identity(Key("", "")), "class", "n_target", "n_predicted"]
        )

    @cached_property
    def diagrams(self) -> dict[Key, dict[Event, tuple[list[ReliabilityBin], Value]]]:
        """For each data set, method and region, and each event, the reliability bins and the error they add up to."""
        found = {}
        for key, evaluator in self.evaluators.items():
            found[key] = evaluator.diagrams()
            evaluator.forget()
        return found

    @cached_property
    def reliability(self) -> pd.DataFrame:
        """One row a reliability bin: the columns of `reliability.csv`."""
        import pandas as pd

        rows = [
            _identity(key) | asdict(bin_)
            for key, events in self.diagrams.items()
            for bins, _ in events.values()
            for bin_ in bins
        ]
        return pd.DataFrame(rows, columns=list(RELIABILITY_COLUMNS))

    @cached_property
    def entropy(self) -> pd.DataFrame:
        """One row a bin of the histogram of predictive entropy: the columns of `entropy.csv`, edges in nats."""
        import pandas as pd

        rows = [
            _identity(key) | asdict(bin_)
            for key, evaluator in (self.evaluators | self.outside).items()
            for bin_ in evaluator.entropy_histogram()
        ]
        return pd.DataFrame(rows, columns=list(ENTROPY_COLUMNS))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Mean saliency curves: their `curve` and `value` by `threshold`, 0 to 255 on the stretched map."""
        import pandas as pd

        tables = [
            pd.DataFrame({**_identity(key), "curve": name, "threshold": range(len(values)), "value": values})
            for key, evaluator in self.evaluators.items()
            for name, values in evaluator.curves().items()
        ]
        if not tables:
            return pd.DataFrame(columns=[*_identity(Key("", "")), "curve", "threshold", "value"])
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def findings(self) -> list[Finding]:
        """What the doctor finds in the rows."""
        return check_run(self.run)

    @cached_property
    def warnings(self) -> list[str]:
        """What to know about the intervals: few resampling units make them short, very few none."""
        lines = self._left_out()
        if not self.settings.n_boot:
            return lines
        sizes: dict[tuple[str, int, str], list[str]] = {}
        for key, evaluator in (self.evaluators | self.outside).items():
            if key.region == ALL:
                sizes.setdefault((key.dataset, evaluator.n_units, evaluator.unit), []).append(key.method)
        for (dataset, n, unit), methods in sizes.items():
            where = f"{', '.join(dict.fromkeys(methods))} on {dataset}"
            if n < MIN_UNITS:
                few = f"1 {unit.replace('s', '', 1)} is" if n == 1 else f"{n} {unit} are"
                lines.append(f"{where}: no intervals, {few} too few to resample (at least {MIN_UNITS})")
            elif n < FEW_UNITS:
                lines.append(f"{where}: intervals from {n} {unit} are somewhat short; {FEW_UNITS} or more are better")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The document of `summary.json`: numbers, intervals, definitions, options, conventions, versions."""
        document = {
            "schema": SCHEMA,
            "calbench": version("calbench"),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "scipy")},
            "settings": asdict(self.settings),
            "collected": {
                key: value for key, value in self.run.options.items() if key not in Settings.__dataclass_fields__
            },
            "notes": [*self.run.notes, *self.warnings],
            "combinations": [
                {"dataset": dataset, "method": method, "conventions": dict(statistics.conventions)}
                for (dataset, method, *_), statistics in [
                    *self.run.combinations.items(),
                    *self.run.ood.items(),
                    *self.run.calibrated.items(),
                ]
            ],
            "definitions": {metric.name: definition_of(metric.name) for metric in self.settings.chosen},
            "interval": (
                "bootstrap over images or groups; errors that are norms of residual sums: interval for the error of the "
                "image population with these bins fixed (not percentile), with median_unbiased and p_calibrated"
            ),
            "results": [record for key in self.values() for record in self._records(key)],
            "findings": [asdict(finding) for finding in self.findings],
        }
        clean: dict[str, Any] = jsonable(document)
        return clean

    def write(self, folder: Path, advance: Callable[[], None] = lambda: None) -> list[Path]:
        """Write every file of a results folder, each atomically, and return their paths.

        `stats.npz` comes first, since it holds what took longest; `summary.json` comes last, so that a folder that has it is
        complete. `advance` is called after each diagram; diagrams of an earlier run are removed.
        """
        save_run(self.run, folder / "stats.npz")
        for name, table in (
            ("summary.csv", self.summary[list(SUMMARY_COLUMNS)]),
            ("per_image.csv", self.per_image),
            ("per_class.csv", self.per_class),
            ("reliability.csv", self.reliability),
            ("curves.csv", self.curves),
            ("entropy.csv", self.entropy),
        ):
            with atomic(folder / name) as temporary:
                table.to_csv(temporary, index=False, lineterminator="\n")
        plots = list(self._write_diagrams(folder / "plots", advance))
        for stale in set((folder / "plots").glob("reliability_*.png")) - set(plots):
            stale.unlink()
        write_text(folder / "summary.json", json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n")
        return [*(folder / name for name in FILES), *plots]

    def _write_diagrams(self, folder: Path, advance: Callable[[], None]) -> Iterator[Path]:
        from calbench.report.figures import save_reliability_diagram

        taken: set[str] = set()
        for key, events in self.diagrams.items():
            if key.region != ALL:
                continue
            stem = f"reliability_{safe_name(key.dataset)}_{safe_name(key.method)}"
            if key.calibrator != UNCALIBRATED:
                stem = f"{stem}_{safe_name(key.calibrator)}"
            path = folder / f"{distinct_name(stem, taken)}.png"
            images = self.evaluators[key].has_images
            counted = ("images", "pixels") if images else ("groups", "samples")
            title = f"{key.name} on {key.dataset}"
            save_reliability_diagram(path, title, events, level=self.settings.ci, counted=counted)
            advance()
            yield path

    def _records(self, key: Key) -> Iterator[dict[str, Any]]:
        for value in self.values()[key]:
            yield _identity(key) | asdict(value)


def parts_of(statistics: Statistics) -> dict[str, Statistics]:
    """The whole images, then their regions; binary maps have the quarters of the images by size of their foreground, too.

    `size_q1` holds the images with the smallest share of foreground; images without foreground are in none.
    """
    parts = {ALL: statistics, **statistics.regions}
    counts = statistics.class_counts()
    if statistics.regions and counts is not None and statistics.reliability("foreground") is not None:
        share = divide(counts.target[:, 1], counts.target.sum(1))
        filled = np.flatnonzero(counts.target[:, 1] > 0)
        if len(filled):
            quarter = np.searchsorted(np.quantile(share[filled], (0.25, 0.5, 0.75)), share[filled], side="left")
            for q in range(4):
                if (quarter == q).any():
                    name = f"size_q{q + 1}"
                    parts[name] = replace(statistics.select(filled[quarter == q]), regions={}, region=name)
    return parts


def evaluate(
    source: Run | Statistics | Iterable[Sample] | str | Path | None = None,
    *,
    pred: str | Path | None = None,
    gt: str | Path | None = None,
    profile: str = "calbench",
    metrics: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] = (),
    bins: int | None = None,
    ties: str | None = None,
    debias_bins: int | None = None,
    batch: int | None = None,
    ci: float = 0.95,
    n_boot: int = 1000,
    seed: int = 0,
    group_by: str | None = None,
    jobs: int | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Evaluate predictions and return the results table.

    Args:
        source: samples in memory (any iterable, a generator too), a `Run` of `collect`, one `Statistics`, or the path of a
            `stats.npz`; instead of folders.
        pred, gt: folders or templates, see `collect`; with any further field of `CollectOptions`.
        profile: convention, see `calbench.PROFILES`.
        metrics: names to compute, None for all of the profile; see `calbench.METRICS`.
        exclude: names to leave out.
        bins, ties, debias_bins, batch: options of the metrics; None takes the profile's.
        ci, n_boot, seed, group_by: of the intervals, see `Settings`.
        jobs: worker processes for folders.
    Returns:
        A `pandas.DataFrame`, one row a number: `dataset, method, calibrator, region, metric, options, average, value, low,
        high, n_images, n_undefined, n_pixels, median_unbiased, p_calibrated, details`.
    Raises:
        InputError, FormatError, UnknownName: what is wrong, where, and what to do.

    >>> import numpy as np
    >>> from calbench import Sample
    >>> image = Sample("a", np.array([[0, 255]], np.uint8), np.array([[0, 1]]))
    >>> float(evaluate([image], metrics="accuracy")["value"][0])
    1.0
    """
    given = {"bins": bins, "ties": ties, "debias_bins": debias_bins, "batch": batch}
    chosen = {key: value for key, value in given.items() if value is not None}
    names = (metrics,) if isinstance(metrics, str) else metrics
    left_out = (exclude,) if isinstance(exclude, str) else tuple(exclude)
    settings = Settings(profile, None if names is None else tuple(names), left_out, chosen, ci, n_boot, seed, group_by)
    if isinstance(source, Run | Statistics | str | Path):
        if pred is not None or gt is not None or options:
            raise OptionError(
                "evaluate takes a source that was collected, or folders by pred= and gt= with their options"
            )
        run = _as_run(source)
    else:
        run = collect(
            source, pred=pred, gt=gt, jobs=jobs, scores=settings.positional_scores, extras=settings.extras, **options
        )
    return Results(run, settings).summary


def _as_run(source: Run | Statistics | str | Path) -> Run:
    if isinstance(source, Run):
        return source
    return Run({("dataset", "method"): source}) if isinstance(source, Statistics) else load_run(source)


def _identity(key: Key) -> dict[str, str]:
    return {"dataset": key.dataset, "method": key.method, "calibrator": key.calibrator, "region": key.region}


def definition_of(name: str) -> dict[str, Any]:
    """What a metric is, for documents."""
    metric = METRICS[name]
    return {
        "definition": metric.definition,
        "source": metric.source,
        "better": metric.better,
        "average": metric.average,
        "interval": "none" if not metric.interval else ("norm" if metric.norm else "percentile"),
    }


def jsonable(value: Any) -> Any:
    """Plain JSON values; NaN and infinities, which JSON does not have, become null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
