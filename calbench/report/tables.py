"""Tables for the terminal: headline metrics with their intervals, one row a method."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import accumulate

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from calbench.errors import plural
from calbench.evaluate import Value
from calbench.intervals import MIN_UNITS
from calbench.metrics import METRICS, Metric
from calbench.results import Results

WIDTH = 100
MOST_COLUMNS = 6
NOT_DISTINGUISHABLE = "°"
LEFT_OUT = "*"


def console() -> Console:
    """A console for results, at least 100 columns wide: a narrow terminal breaks lines, but no number is cut off."""
    width = Console().width if sys.stdout.isatty() else WIDTH
    return Console(highlight=False, width=max(width, WIDTH))


def headline_tables(results: Results) -> Iterable[Table | Text]:
    """A title and a table for each data set, then the legend."""
    columns = headline_columns(results)
    by_dataset: dict[str, list[str]] = {}
    for dataset, method in results.evaluators:
        by_dataset.setdefault(dataset, []).append(method)
    cells = {key: [(metric, _find(values, metric)) for metric in columns] for key, values in results.values().items()}
    columns = columns[: _fitting(cells.values(), max(len(method) for _, method in cells))]
    marks: set[str] = set()
    for dataset, methods in by_dataset.items():
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
        table.add_column("method", overflow="fold", min_width=8)
        for metric in columns:
            table.add_column(_header(metric), justify="right", no_wrap=True)
        for method in methods:
            values = [value for _, value in cells[dataset, method][: len(columns)]]
            table.add_row(method, *map(_cell, values))
            marks.update(*map(_marks, values))
        yield Text(_title(results, dataset, methods))
        yield table
    yield Text(_legend(results, marks, len(columns)), style="dim")


def _header(metric: Metric) -> str:
    return f"{metric.name} {metric.arrow}".strip()


def _fitting(rows: Iterable[Sequence[tuple[Metric, Value]]], method_width: int) -> int:
    """How many columns fit into 100 characters beside the methods' names, which may fold down to 16."""
    widths = [
        1 + max(len(_header(column[0][0])), *(len(line) for _, value in column for line in _cell(value).splitlines()))
        for column in zip(*rows, strict=True)
    ]
    room = WIDTH - 2 - min(max(method_width, 8), 16)
    return max(1, sum(total <= room for total in accumulate(widths)))


def headline_columns(results: Results) -> tuple[Metric, ...]:
    """The headline metrics of the profile, or the first six of those asked for."""
    chosen = [metric.name for metric in results.settings.chosen]
    headline = results.settings.convention.headline if results.settings.metrics is None else chosen
    names = [name for name in headline if name in chosen] or chosen
    return tuple(METRICS[name] for name in names[:MOST_COLUMNS])


def number(value: float, digits: int = 4) -> str:
    """A number with fixed decimals and no leading zero for limits in (−1, 1); an en dash where undefined.

    >>> number(0.0812), number(-0.5), number(float("nan"))
    ('.0812', '-.5000', '–')
    """
    if not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _cell(value: Value) -> str:
    """The value, and its interval on a second line."""
    shown = f"{value.value:.4f}" if math.isfinite(value.value) else "undefined"
    interval = f"\n{number(value.low)}–{number(value.high)}" if math.isfinite(value.low) else ""
    return shown + "".join(sorted(_marks(value))) + interval


def _marks(value: Value) -> set[str]:
    """Signs behind a value that the legend explains."""
    marks = set()
    if math.isfinite(value.p_calibrated) and value.low <= 0:  # the interval reaches perfect calibration
        marks.add(NOT_DISTINGUISHABLE)
    if value.n_undefined and math.isfinite(value.value):
        marks.add(LEFT_OUT)
    return marks


def _find(values: Sequence[Value], metric: Metric) -> Value:
    return next(value for value in values if value.metric == metric.name and value.average == metric.average)


def _title(results: Results, dataset: str, methods: Sequence[str]) -> str:
    counts = {len(results.evaluators[dataset, method].statistics.names) for method in methods}
    pixels = {int(results.evaluators[dataset, method].n_pixels.sum()) for method in methods}
    return f"{dataset}: {_range(counts)} image{'s' * (counts != {1})}, {_range(pixels)} valid pixels"


def _range(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _legend(results: Results, marks: set[str], n_shown: int) -> str:
    settings = results.settings
    unit = "images" if settings.group_by is None else "groups of images"
    parts = ["pooled over pixels, except saliency metrics, which are means over images"]
    if settings.n_boot and any(evaluator.n_units >= MIN_UNITS for evaluator in results.evaluators.values()):
        parts.append(f"{100 * settings.ci:g} % intervals resample {unit}")
    if NOT_DISTINGUISHABLE in marks:
        parts.append(f"{NOT_DISTINGUISHABLE} not distinguishable from calibrated")
    if LEFT_OUT in marks:
        parts.append(f"{LEFT_OUT} images without a value are left out (n_undefined in summary.csv)")
    if settings.metrics is not None and len(settings.chosen) > n_shown:
        parts.append(f"{plural(len(settings.chosen) - n_shown, 'more metric')} with -o or --json")
    return "; ".join(parts)
