"""Tables of comparisons for the terminal: two methods metric by metric, or several by every two of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

from rich import box
from rich.table import Table
from rich.text import Text

from calbench.comparison import Comparison, Contrast
from calbench.errors import plural
from calbench.intervals import MIN_UNITS
from calbench.metrics import METRICS, Metric
from calbench.report.tables import MOST_COLUMNS, NOT_TOLD_APART, WIDTH, number, shown_value
from calbench.sides import Common

TOLD_APART = "*"
BOX = "□"
_NAME = 16
"""Most characters of a method's name in a matrix before it folds."""


def comparison_tables(comparison: Comparison, shown: Sequence[str]) -> Iterable[Table | Text]:
    """Titles and tables of each data set, then the legend.

    Args:
        comparison: of two methods, of several against their like, or of every two.
        shown: metrics, in order; of every two, the first six.
    """
    if comparison.mode == "matrix":
        shown = shown[:MOST_COLUMNS]
    for common in comparison.sets:
        contrasts = [c for c in comparison.contrasts if c.dataset == common.dataset and c.metric in shown]
        if comparison.mode == "matrix":
            yield Text(f"{common.dataset}: {_counted(common)}")
            for name in shown:
                of_metric = [c for c in contrasts if c.metric == name]
                if of_metric:
                    yield from _matrix(METRICS[name], of_metric)
        else:
            for pair in dict.fromkeys((c.first, c.second) for c in contrasts):
                yield Text(f"{common.dataset}: {_counted(common)}\nA  {pair[0]}\nB  {pair[1]}")
                yield _pair_table([c for c in contrasts if (c.first, c.second) == pair], shown)
    yield Text(_legend(comparison, shown), style="dim")


def verdict(contrast: Contrast) -> str:
    """What a contrast says of B: "better", "worse", "differs" where neither direction is better, or "≈"; "" untested.

    Two are told apart at 5 % after Holm's correction.
    """
    if not math.isfinite(contrast.p_holm):
        return ""
    if not contrast.differs:
        return NOT_TOLD_APART
    better = METRICS[contrast.metric].better
    if better not in ("lower", "higher"):
        return "differs"
    return "better" if (contrast.difference < 0) == (better == "lower") else "worse"


def _counted(common: Common) -> str:
    if common.unit == "groups of samples":
        return f"{common.n_pixels:,} samples in {plural(common.n_images, 'group')}"
    return f"{plural(common.n_images, 'image')}, {common.n_pixels:,} valid pixels"


def _pair_table(contrasts: Sequence[Contrast], shown: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("metric", no_wrap=True)
    for heading in ("A", "B", "B − A", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    corrected = any(c.p_holm != c.p and math.isfinite(c.p) for c in contrasts)
    if corrected:
        table.add_column("p Holm", justify="right", no_wrap=True)
    table.add_column("B wins", justify="right", no_wrap=True)
    table.add_column("B is", no_wrap=True)
    for contrast in sorted(contrasts, key=lambda c: shown.index(c.metric)):
        cells = [
            METRICS[contrast.metric].heading,
            shown_value(contrast.first_value),
            shown_value(contrast.second_value),
        ]
        cells += [_difference(contrast), number(contrast.p)]
        cells += [number(contrast.p_holm)] * corrected
        wins = f"{100 * contrast.win_rate:.0f} %" if math.isfinite(contrast.win_rate) else "–"
        table.add_row(*cells, wins, verdict(contrast))
    return table


def _difference(contrast: Contrast) -> str:
    """The difference with its sign, and its interval on a second line."""
    if not math.isfinite(contrast.difference):
        return "–"
    shown = _signed(contrast.difference)
    if not math.isfinite(contrast.low):
        return shown
    limits = " to ".join(map(_signed, (contrast.low, contrast.high)))
    return f"{shown}\n{limits}{f' {BOX}' * (contrast.interval == 'box')}"


def _matrix(metric: Metric, contrasts: Sequence[Contrast]) -> Iterable[Table]:
    """Row − column of every two methods, best first, as many columns at a time as fit."""
    values = {c.first: c.first_value for c in contrasts} | {c.second: c.second_value for c in contrasts}
    sign = -1 if metric.better == "higher" else 1
    order = sorted(values, key=lambda name: (not math.isfinite(values[name]), sign * values[name]))
    if metric.better not in ("lower", "higher"):
        order = list(values)
    cells = {(c.second, c.first): _cell(c.difference, c) for c in contrasts}
    cells |= {(c.first, c.second): _cell(-c.difference, c) for c in contrasts}
    columns = [
        [f"− {k + 1}", *(cells.get((row, column), "") for row in order[k + 1 :])] for k, column in enumerate(order[:-1])
    ]
    names = [f"{place} {name}" for place, name in enumerate(order, start=1)]
    shown = [shown_value(values[name]) for name in order]
    room = WIDTH - 2 - min(max(map(len, names)), _NAME) - 1 - max(map(len, shown))
    for start, end in _blocks([1 + max(map(len, column)) for column in columns], room):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
        table.add_column(metric.heading, overflow="fold", min_width=min(max(map(len, names)), _NAME))
        table.add_column("value", justify="right", no_wrap=True)
        for k in range(start, end):
            table.add_column(f"− {k + 1}", justify="right", no_wrap=True)
        for place, name in enumerate(order):
            row = [cells.get((name, order[k]), "") if k < place else "" for k in range(start, end)]
            if place >= start:
                table.add_row(names[place], shown[place], *row)
        yield table


def _blocks(widths: Sequence[int], room: int) -> Iterable[tuple[int, int]]:
    """Runs of columns that fit into the room, each of at least one."""
    start = 0
    while start < len(widths):
        fitting = sum(total <= room for total in accumulate(widths[start:]))
        end = start + max(1, fitting)
        yield start, end
        start = end


def _cell(difference: float, contrast: Contrast) -> str:
    if not math.isfinite(difference):
        return "–"
    shown = _signed(difference)
    return (shown.replace("0.", ".", 1) if abs(difference) < 1 else shown) + TOLD_APART * contrast.differs


def _signed(difference: float) -> str:
    """With its sign, which tells a small difference from none."""
    return f"{difference:+.4f}" if difference else "0"


def _legend(comparison: Comparison, shown: Sequence[str]) -> str:
    contrasts = [c for c in comparison.contrasts if c.metric in shown]
    units = " or ".join(dict.fromkeys(common.unit for common in comparison.sets))
    tested = any(math.isfinite(c.p) for c in contrasts)
    matrix = comparison.mode == "matrix"
    parts = ["best first, where a direction is better; cells are row − column"] if matrix else []
    if tested:
        parts.append(f"paired bootstrap over {units}")
        corrected = " after Holm's correction for the pairs" if len(comparison.sides) > 2 else ""
        mark = f"{TOLD_APART} told apart" if matrix else f"{NOT_TOLD_APART} not told apart"
        parts.append(f"{mark} (5 %{corrected})")
    elif comparison.settings.n_boot:
        parts.append(f"no test: fewer than {MIN_UNITS} {units}")
    if not matrix and any(math.isfinite(c.low) for c in contrasts):
        parts.append(f"{100 * comparison.settings.ci:g} % intervals of the difference")
        if any(c.interval == "box" for c in contrasts):
            parts.append(
                f"{BOX} conservative, the limits of one less those of the other: p decides whether they differ"
            )
    if not matrix and any(math.isfinite(c.win_rate) for c in contrasts):
        parts.append("B wins: share of images on which B is better, ties half")
    more = len(comparison.metrics) - len(set(shown))
    if more:
        parts.append(f"{plural(more, 'more metric')} with --all, -o or --json")
    return "; ".join(parts)
