"""Tables for the terminal: headline metrics with their intervals, one row a method."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from calbench.evaluate import Value
from calbench.metrics import METRICS, Metric
from calbench.results import Results

WIDTH = 100
NOT_DISTINGUISHABLE = "°"


def console() -> Console:
    """A console for results, at least 100 columns wide: a narrow terminal breaks lines, but no number is cut off."""
    width = Console().width if sys.stdout.isatty() else WIDTH
    return Console(highlight=False, width=max(width, WIDTH))


def headline_tables(results: Results) -> Iterable[Table | Text]:
    """One table a data set, then the legend."""
    columns = headline_columns(results)
    by_dataset: dict[str, list[str]] = {}
    for dataset, method in results.evaluators:
        by_dataset.setdefault(dataset, []).append(method)
    marked = False
    for dataset, methods in by_dataset.items():
        table = Table(
            title=_title(results, dataset, methods),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 0),
            pad_edge=False,
        )
        table.add_column("method", overflow="fold")
        for metric in columns:
            table.add_column(f"{metric.name} {metric.arrow}".strip(), justify="right", no_wrap=True)
        for method in methods:
            values = [_find(results.values()[dataset, method], metric) for metric in columns]
            table.add_row(method, *map(_cell, values))
            marked = marked or any(map(_indistinguishable, values))
        yield table
    yield Text(_legend(results, marked=marked), style="dim")


def headline_columns(results: Results) -> tuple[Metric, ...]:
    """The profile's headline metrics that were computed, or the first six of those asked for."""
    chosen = [metric.name for metric in results.settings.chosen]
    names = [name for name in results.settings.convention.headline if name in chosen] or chosen[:6]
    return tuple(METRICS[name] for name in names)


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
    mark = NOT_DISTINGUISHABLE if _indistinguishable(value) else ""
    undefined = f" ({value.n_undefined} undef.)" if value.n_undefined else ""
    shown = f"{value.value:.4f}{mark}" if math.isfinite(value.value) else "undefined"
    if not math.isfinite(value.low):
        return shown + undefined
    return f"{shown}{undefined}\n{number(value.low)}–{number(value.high)}"


def _indistinguishable(value: Value) -> bool:
    """An error whose interval reaches the value of perfect calibration."""
    return math.isfinite(value.p_calibrated) and value.low <= 0


def _find(values: Sequence[Value], metric: Metric) -> Value:
    return next(value for value in values if value.metric == metric.name and value.average == metric.average)


def _title(results: Results, dataset: str, methods: Sequence[str]) -> str:
    counts = {len(results.evaluators[dataset, method].statistics.names) for method in methods}
    pixels = {int(results.evaluators[dataset, method].n_pixels.sum()) for method in methods}
    return f"{dataset}: {_range(counts)} images, {_range(pixels)} valid pixels"


def _range(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _legend(results: Results, *, marked: bool) -> str:
    settings = results.settings
    unit = "images" if settings.group_by is None else "groups of images"
    parts = ["pooled over pixels, except saliency metrics, which are means over images"]
    if settings.n_boot:
        parts.append(f"{settings.ci:.0%} intervals resample {unit}")
    if marked:
        parts.append(f"{NOT_DISTINGUISHABLE} not distinguishable from calibrated")
    return "; ".join(parts)
