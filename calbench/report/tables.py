"""Tables for the terminal: headline metrics with their intervals, one row a method."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from calbench.differences import Difference
from calbench.errors import plural
from calbench.evaluate import Value
from calbench.intervals import MIN_UNITS
from calbench.metrics import METRICS, Metric
from calbench.results import Key, Results
from calbench.statistics.bundle import ALL

if TYPE_CHECKING:
    from calbench.leaderboard import Calibration, Leaderboard

WIDTH = 100
MOST_COLUMNS = 6
NOT_DISTINGUISHABLE = "°"
LEFT_OUT = "*"
AS_STORED = "†"


def console() -> Console:
    """A console for results, at least 100 columns wide: a narrow terminal breaks lines, but no number is cut off.

    Names are printed as they are: square brackets in them are no markup.
    """
    width = Console().width if sys.stdout.isatty() else WIDTH
    return Console(highlight=False, markup=False, width=max(width, WIDTH))


def headline_tables(results: Results) -> Iterable[Table | Text]:
    """A title and a table for each data set, one by region if there are any, one for each OOD set, then the legend."""
    marks: set[str] = set()
    whole = [key for key in results.evaluators if key.region == ALL]
    datasets = list(dict.fromkeys(key.dataset for key in whole))
    columns_shown = 0
    for dataset in datasets:
        keys = [key for key in whole if key.dataset == dataset]
        columns = headline_columns(results, keys)
        if not columns:
            continue
        yield Text(dataset_title(results, dataset, keys))
        table, shown = _table(results, {key.name: key for key in keys}, columns, marks)
        yield table
        columns_shown = max(columns_shown, shown)
        parts = {f"{key.name} {key.region}": key for key in results.evaluators if key.dataset == dataset}
        columns = headline_columns(results, [key for key in parts.values() if key.region != ALL])
        if columns:
            yield Text(f"{dataset} by region")
            yield _table(results, parts, columns, marks)[0]
    for dataset in dict.fromkeys(key.dataset for key in results.outside):
        keys = [key for key in results.outside if key.dataset == dataset and results.values()[key]]
        if keys:
            images = plural(len(results.outside[keys[0]].statistics.names), "image")
            yield Text(f"{dataset}: out of distribution, {images}; detected by entropy, pixel by pixel")
            yield _outside_table(results, keys, marks)
    yield Text(legend(results, marks, columns_shown), style="dim")


COMPARED_VALUES = ("nll", "brier", "ece", "aece")
"""Columns of a leaderboard that show values; accuracy and IoU show what changed."""
NAME_WIDTH = 14
NOT_TOLD_APART = "≈"
AS_GOOD = "="


def leaderboard_tables(calibration: Calibration) -> Iterable[Table | Text]:
    """A title and a table of contenders, best first, for each method on each data set, then the legend."""
    marks: set[str] = set()
    for board in calibration.leaderboards:
        fitted = [split for name, split in board.splits.items() if name != "identity"] or board.splits.values()
        hows = dict.fromkeys(split.how for split in fitted)
        whole = calibration.results.evaluators[Key(board.dataset, board.method)].has_images
        yield Text(
            f"{board.method} on {board.dataset}: {plural(len(board.names), 'image' if whole else 'group')}; "
            f"{'; '.join(hows)} (whole {board.unit}); measured on {int(board.held_out.sum()):,}"
            + ("" if calibration.options.allow_overlap else " that no fit has seen")
        )
        yield _leaderboard(calibration.results, board, marks)
    yield Text(_leaderboard_legend(calibration, marks), style="dim")


def _leaderboard(results: Results, board: Leaderboard, marks: set[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("calibrator", no_wrap=True, min_width=NAME_WIDTH)
    shown = [difference.metric for difference in board.contenders[0].differences]
    values = [name for name in COMPARED_VALUES if name in shown]
    for name in values:
        table.add_column(" " + METRICS[name].heading, justify="right", no_wrap=True)
    for name in shown[len(values) :]:
        table.add_column(f" Δ{METRICS[name].heading}", justify="right", no_wrap=True)
    table.add_column(" changed", justify="right", no_wrap=True)
    for contender in board.contenders:
        key = Key(board.dataset, board.method, calibrator=contender.column)
        found = {v.metric: v for v in results.values()[key] if v.average == "pixels" and "class=" not in v.options}
        cells = []
        for difference in contender.differences:
            told = contender.name == "identity" or not math.isfinite(difference.p_value) or difference.differs
            mark = "" if told else NOT_TOLD_APART
            marks.add(mark)
            if difference.metric in COMPARED_VALUES:
                cells.append(_narrow(found[difference.metric], mark))
                marks.update(signs_of(found[difference.metric]))
            else:
                cells.append("" if contender.name == "identity" else _change(difference, mark))
        cells.append(_narrow(found["class_changed"], "", 3) if "class_changed" in found else "")
        tied = contender.rank > 1 and contender.to_best is not None and contender.to_best.p_value >= 0.05
        marks.update(AS_GOOD * tied)
        name = contender.name if len(contender.name) < NAME_WIDTH - 2 else contender.name.replace("_", "_\n   ")
        table.add_row(f"{contender.rank}{AS_GOOD * tied} {name}", *cells)
    return table


def _change(difference: Difference, mark: str) -> str:
    """A change with its sign and its interval on a second line; 0 alone where there can be none."""
    if difference.difference == 0 and not (difference.low < 0 or difference.high > 0):
        return "0"
    value = f"{difference.difference:+.4f}".replace("0.", ".", 1) + mark
    if not math.isfinite(difference.low):
        return value
    return f"{value}\n{number(difference.low, 3)}–{number(difference.high, 3)}"


def _narrow(value: Value, mark: str, digits: int = 4) -> str:
    """A value with its signs, and its interval on a second line, with fewer decimals beyond 1."""
    shown = shown_value(value.value)
    few = digits if value.high < 1 else 3
    interval = f"\n{number(value.low, few)}–{number(value.high, few)}" if math.isfinite(value.low) else ""
    return shown + "".join(sorted(signs_of(value))) + mark + interval


def _leaderboard_legend(calibration: Calibration, marks: set[str]) -> str:
    settings, by = calibration.results.settings, calibration.options.rank_by
    parts = [
        f"ranked by {by} on held-out pixels; identity does nothing; changed: share of pixels of another class than before"
    ]
    evaluators = calibration.results.evaluators.values()
    if settings.n_boot and any(evaluator.n_units >= MIN_UNITS for evaluator in evaluators):
        units = " or ".join(dict.fromkeys(board.unit for board in calibration.leaderboards))
        parts.append(f"{100 * settings.ci:g} % intervals resample {units}")
    if any(len(split.fitting) > 1 for board in calibration.leaderboards for split in board.splits.values()):
        parts.append("aece of calibrators is somewhat high: its bins tell the fits of the folds apart")
    if NOT_TOLD_APART in marks:
        parts.append(f"{NOT_TOLD_APART} not told apart from doing nothing (paired, 5 %)")
    if AS_GOOD in marks:
        parts.append(f"{AS_GOOD} not told apart from the best by {by}")
    if NOT_DISTINGUISHABLE in marks:
        parts.append(f"{NOT_DISTINGUISHABLE} not distinguishable from calibrated")
    return "; ".join(parts)


def _table(results: Results, rows: Mapping[str, Key], columns: Sequence[Metric], marks: set[str]) -> tuple[Table, int]:
    """One row a key, values with their intervals, and how many of the columns fit."""
    cells = {
        name: [(metric, find_value(results.values()[key], metric)) for metric in columns] for name, key in rows.items()
    }
    columns = columns[: _fitting(cells.values(), max(map(len, rows)))]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("method", overflow="fold", min_width=8)
    for metric in columns:
        table.add_column(metric.heading, justify="right", no_wrap=True)
    for name in rows:
        values = [value for _, value in cells[name][: len(columns)]]
        table.add_row(name, *map(_cell, values))
        marks.update(*map(signs_of, values))
    return table, len(columns)


def _outside_table(results: Results, keys: Sequence[Key], marks: set[str]) -> Table:
    """Entropy and calibration on an out-of-distribution set, and how well it is detected, by pixel, from entropy."""
    rows = {
        key.name: sorted(
            (
                value
                for value in results.values()[key]
                if value.average == "pixels" and ("score" not in value.options or "score=entropy" in value.options)
            ),
            key=lambda value: value.metric == "ood_aupr_in",  # the first to go where columns are short
        )[:MOST_COLUMNS]
        for key in keys
    }
    shown = [(value.metric, _set(value)) for value in next(iter(rows.values()))]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("method", overflow="fold", min_width=8)
    for metric, against in shown:
        heading = METRICS[metric].heading
        table.add_column(f"{heading}\nagainst {against}" if against else heading, justify="right", no_wrap=True)
    for method, values in rows.items():
        table.add_row(method, *map(_cell, values))
        marks.update(*map(signs_of, values))
    return table


def _set(value: Value) -> str:
    """The in-distribution set that a value compares with, where there are several."""
    return next((part[3:] for part in value.options.split(";") if part.startswith("id=")), "")


def _fitting(rows: Iterable[Sequence[tuple[Metric, Value | None]]], method_width: int) -> int:
    """How many columns fit into 100 characters beside the methods' names, which may fold down to 16."""
    widths = [
        1 + max(len(column[0][0].heading), *(len(line) for _, value in column for line in _cell(value).splitlines()))
        for column in zip(*rows, strict=True)
    ]
    room = WIDTH - 2 - min(max(method_width, 8), 16)
    return max(1, sum(total <= room for total in accumulate(widths)))


def headline_columns(results: Results, keys: Sequence[Key]) -> tuple[Metric, ...]:
    """The first six headline metrics of the profile, or of those asked for, that any of these rows have."""
    known = {metric.name for key in keys for metric in results.evaluators[key].metrics}
    chosen = [metric.name for metric in results.settings.chosen if metric.name in known]
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


def shown_value(value: float, digits: int = 4) -> str:
    """A value with fixed decimals, as in every table.

    >>> shown_value(0.08125), shown_value(-0.00001), shown_value(float("nan"))
    ('0.0813', '0.0000', 'undefined')
    """
    return f"{value:z.{digits}f}" if math.isfinite(value) else "undefined"


def _cell(value: Value | None) -> str:
    """The value, and its interval on a second line; a dash where these predictions have none."""
    if value is None:
        return "–"
    shown = shown_value(value.value)
    interval = f"\n{number(value.low)}–{number(value.high)}" if math.isfinite(value.low) else ""
    return shown + "".join(sorted(signs_of(value))) + interval


def signs_of(value: Value | None) -> set[str]:
    """Signs behind a value that the legend explains."""
    marks: set[str] = set()
    if value is None:
        return marks
    if math.isfinite(value.p_calibrated) and value.low <= 0:  # the interval reaches perfect calibration
        marks.add(NOT_DISTINGUISHABLE)
    if value.n_undefined and math.isfinite(value.value):
        marks.add(LEFT_OUT)
    if value.as_stored:
        marks.add(AS_STORED)
    return marks


def find_value(values: Sequence[Value], metric: Metric, average: str | None = None) -> Value | None:
    """A metric of all classes together under its own average, or another; None where there is none."""
    average = average or metric.average
    found = (value for value in values if value.metric == metric.name and value.average == average)
    return next((value for value in found if "class" not in value.details), None)


def dataset_title(results: Results, dataset: str, keys: Sequence[Key]) -> str:
    """What a table of a data set is of: its images and pixels, or its samples."""
    evaluators = [results.evaluators[key] for key in keys]
    counts = {len(evaluator.statistics.names) for evaluator in evaluators}
    pixels = {int(evaluator.n_pixels.sum()) for evaluator in evaluators}
    if not evaluators[0].has_images:
        return f"{dataset}: {_range(pixels)} samples, resampled in {_range(counts)} groups"
    return f"{dataset}: {_range(counts)} image{'s' * (counts != {1})}, {_range(pixels)} valid pixels"


def _range(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def legend(results: Results, marks: set[str], n_shown: int) -> str:
    """What the marks of the tables mean, and what intervals resample, in one line."""
    settings = results.settings
    unit = " or ".join(dict.fromkeys(evaluator.unit for evaluator in results.evaluators.values()))
    shown = {metric.average for evaluator in results.evaluators.values() for metric in evaluator.metrics}
    parts = ["pooled over pixels, except saliency metrics, which are means over images"] * ("images" in shown)
    if settings.n_boot and any(evaluator.n_units >= MIN_UNITS for evaluator in results.evaluators.values()):
        parts.append(f"{100 * settings.ci:g} % intervals resample {unit}")
    if NOT_DISTINGUISHABLE in marks:
        parts.append(f"{NOT_DISTINGUISHABLE} not distinguishable from calibrated")
    if LEFT_OUT in marks:
        parts.append(f"{LEFT_OUT} images without a value are left out (n_undefined in summary.csv)")
    if AS_STORED in marks:
        parts.append(f"{AS_STORED} of the map before calibration")
    if settings.metrics is not None and len(settings.chosen) > n_shown:
        parts.append(f"{plural(len(settings.chosen) - n_shown, 'more metric')} with -o or --json")
    return "; ".join(parts)
