"""The results of a run: tidy tables, and the files they are written to."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calbench.collect import collect
from calbench.errors import OptionError
from calbench.evaluate import Evaluator, ReliabilityBin, Settings, Value
from calbench.findings import Finding, check_run
from calbench.intervals import FEW_UNITS, MIN_UNITS
from calbench.io.files import atomic, safe_name, write_text
from calbench.io.sample import Sample
from calbench.metrics import METRICS
from calbench.statistics import Run, Statistics
from calbench.statistics.histogram import Event
from calbench.statistics.storage import load_run, save_run

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
REGION = "all"
CALIBRATOR = "none"

SUMMARY_COLUMNS = (
    "dataset", "method", "calibrator", "region", "metric", "options", "average", "value", "low", "high",
    "n_images", "n_undefined", "n_pixels",
)  # fmt: skip
RELIABILITY_COLUMNS = (
    "dataset", "method", "calibrator", "region", "event", "bin", "low_edge", "high_edge", "n", "confidence", "accuracy",
    "low", "high",
)  # fmt: skip
FILES = ("summary.json", "summary.csv", "per_image.csv", "reliability.csv", "curves.csv", "stats.npz")


class Results:
    """Every number of a run under one set of settings; each is computed when first asked for.

    Attributes:
        run: the statistics.
        settings: how they become numbers.
        evaluators: one for each (dataset, method).
    """

    def __init__(self, run: Run, settings: Settings) -> None:
        self.run = run
        self.settings = settings
        self.evaluators = {key: Evaluator(statistics, settings) for key, statistics in run.combinations.items()}
        self._values: dict[tuple[str, str], list[Value]] = {}

    def values(self, advance: Callable[[], None] = lambda: None) -> dict[tuple[str, str], list[Value]]:
        """The values of each (dataset, method); `advance` is called after each that is computed."""
        for key, evaluator in self.evaluators.items():
            if key not in self._values:
                self._values[key] = evaluator.values()
                advance()
        return self._values

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a number: the columns of `summary.csv`, then `median_unbiased`, `p_calibrated` and `details`."""
        import pandas as pd

        rows = [record for key in self.values() for record in self._records(key)]
        return pd.DataFrame(rows, columns=[*SUMMARY_COLUMNS, "median_unbiased", "p_calibrated", "details"])

    @cached_property
    def per_image(self) -> pd.DataFrame:
        """One row an image: `dataset, method, image, n_pixels` and one column a metric."""
        import pandas as pd

        tables = [
            pd.DataFrame(
                {"dataset": dataset, "method": method, "image": list(e.statistics.names), "n_pixels": e.n_pixels}
                | e.per_image()
            )
            for (dataset, method), e in self.evaluators.items()
        ]
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def diagrams(self) -> dict[tuple[str, str], dict[Event, tuple[list[ReliabilityBin], Value]]]:
        """For each (dataset, method) and event, the reliability bins and the error they add up to."""
        return {key: evaluator.diagrams() for key, evaluator in self.evaluators.items()}

    @cached_property
    def reliability(self) -> pd.DataFrame:
        """One row a reliability bin: the columns of `reliability.csv`."""
        import pandas as pd

        rows = [
            _identity(*key) | asdict(bin_)
            for key, events in self.diagrams.items()
            for bins, _ in events.values()
            for bin_ in bins
        ]
        return pd.DataFrame(rows, columns=list(RELIABILITY_COLUMNS))

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Mean saliency curves: `dataset, method, curve, threshold, value`, thresholds 0 to 255 on the stretched map."""
        import pandas as pd

        tables = [
            pd.DataFrame(
                {"dataset": dataset, "method": method, "curve": name, "threshold": range(len(values)), "value": values}
            )
            for (dataset, method), evaluator in self.evaluators.items()
            for name, values in evaluator.curves().items()
        ]
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def findings(self) -> list[Finding]:
        """What the doctor finds in the rows."""
        return check_run(self.run)

    @cached_property
    def warnings(self) -> list[str]:
        """What to know about the intervals: few resampling units make them short, very few none."""
        if not self.settings.n_boot:
            return []
        unit = "images" if self.settings.group_by is None else "groups of images"
        sizes: dict[tuple[str, int], list[str]] = {}
        for (dataset, method), evaluator in self.evaluators.items():
            sizes.setdefault((dataset, evaluator.n_units), []).append(method)
        lines = []
        for (dataset, n), methods in sizes.items():
            where = f"{', '.join(methods)} on {dataset}"
            if n < MIN_UNITS:
                lines.append(f"{where}: no intervals, {n} {unit} are too few to resample (at least {MIN_UNITS})")
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
                for (dataset, method), statistics in self.run.combinations.items()
            ],
            "definitions": {metric.name: _definition(metric.name) for metric in self.settings.chosen},
            "interval": (
                "bootstrap over images or groups; errors that are norms of residual sums: interval for the error of the "
                "image population with these bins fixed (not percentile), with median_unbiased and p_calibrated"
            ),
            "results": [record for key in self.values() for record in self._records(key)],
            "findings": [asdict(finding) for finding in self.findings],
        }
        clean: dict[str, Any] = _jsonable(document)
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
            ("reliability.csv", self.reliability),
            ("curves.csv", self.curves),
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
        for (dataset, method), events in self.diagrams.items():
            stem = plain = f"reliability_{safe_name(dataset)}_{safe_name(method)}"
            number = 1
            while stem.lower() in taken:  # names may differ only in what a file name cannot hold
                number += 1
                stem = f"{plain}-{number}"
            taken.add(stem.lower())
            path = folder / f"{stem}.png"
            save_reliability_diagram(path, f"{method} on {dataset}", events, level=self.settings.ci)
            advance()
            yield path

    def _records(self, key: tuple[str, str]) -> Iterator[dict[str, Any]]:
        for value in self.values()[key]:
            yield _identity(*key) | asdict(value)


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
        bins, ties, debias_bins: options of the metrics; None takes the profile's.
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
    given = {"bins": bins, "ties": ties, "debias_bins": debias_bins}
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
        if settings.raw_bytes and source is not None:
            raise OptionError("the ASLP numbers need folders, by pred= and gt=: samples hold no raw mask bytes")
        if settings.raw_bytes:
            options["raw_bytes"] = True
        run = collect(source, pred=pred, gt=gt, jobs=jobs, scores=settings.positional_scores, **options)
    return Results(run, settings).summary


def _as_run(source: Run | Statistics | str | Path) -> Run:
    if isinstance(source, Run):
        return source
    return Run({("dataset", "method"): source}) if isinstance(source, Statistics) else load_run(source)


def _identity(dataset: str, method: str) -> dict[str, str]:
    return {"dataset": dataset, "method": method, "calibrator": CALIBRATOR, "region": REGION}


def _definition(name: str) -> dict[str, Any]:
    metric = METRICS[name]
    return {
        "definition": metric.definition,
        "source": metric.source,
        "better": metric.better,
        "average": metric.average,
        "interval": "none" if not metric.interval else ("norm" if metric.norm else "percentile"),
    }


def _jsonable(value: Any) -> Any:
    """Plain JSON values; NaN and infinities, which JSON does not have, become null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
