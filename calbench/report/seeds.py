"""Tables over seeds: for the terminal, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from calbench.errors import plural
from calbench.evaluate import Value
from calbench.report.comparisons import TOLD_APART
from calbench.report.paper import (
    DIGITS,
    WideTable,
    _blocks,
    _gap,
    _has_spread,
    _md,
    _preamble,
    _reading,
    _shown,
    _spread,
    _tabular,
    _tex,
    _title,
    wide_tables,
)
from calbench.report.tables import WIDTH, number
from calbench.results import Key, Results
from calbench.seeds import SeedRow, TrainingRecord, over_seeds, seeds_of

if TYPE_CHECKING:
    import pandas as pd

SEED_FILES = ("seeds.csv", "seeds.md", "seeds.tex")
LEFT_OUT = "‡"
_NAME = 16
"""Letters of a method's name on a line of the terminal."""


@dataclass(frozen=True)
class SeedTable:
    """The numbers of one data set over seeds: a row a method, a column a metric.

    Attributes:
        title: what the single runs are of.
        means: means with their t intervals, as a table of single runs has values with theirs.
        rows: `[row][column]`, where the means come from; None where no run has the metric.
        reading: how many seeds the means are over, and what their intervals cover.
        footnotes: what the signs behind means say, those that are there.
    """

    title: str
    means: WideTable
    rows: tuple[tuple[SeedRow | None, ...], ...]
    reading: str
    footnotes: tuple[str, ...]


def tables_over_seeds(tables: Sequence[WideTable], results: Results, record: TrainingRecord) -> list[SeedTable]:
    """The columns of tables of single runs, over the seeds of each method; tables without a run of the record are left out.

    Args:
        tables: of `wide_tables`.
        results: that they are of.
        record: of the runs.
    """
    found = []
    for table in tables:
        rows = seeds_of(table, record, ci=results.settings.ci)
        if not rows:
            continue
        of = {(row.method, row.calibrator, row.metric, row.against): row for row in rows}
        known = {(row.metric, row.against) for row in rows}
        columns = tuple(column for column in table.columns if (column.metric.name, column.against) in known)
        keys = tuple(dict.fromkeys(Key(table.dataset, row.method, calibrator=row.calibrator) for row in rows))
        cells = tuple(
            tuple(of.get((key.method, key.calibrator, column.metric.name, column.against)) for column in columns)
            for key in keys
        )
        means = WideTable(table.dataset, keys, columns, tuple(tuple(map(_mean, row)) for row in cells), table.outside)
        reading = _origin(keys, rows, record, results)
        found.append(SeedTable(_title(table, results), means, cells, reading, _footnotes(rows, record)))
    return found


def seed_tables(results: Results, record: TrainingRecord) -> list[Table | Text]:
    """For each data set a title and a table of headline metrics over seeds, then a legend: to be printed one by one.

    Columns that do not fit into 100 characters are in `seeds.csv`.
    """
    tables = tables_over_seeds(wide_tables(results), results, record)
    shown: list[Table | Text] = []
    notes = [*(table.reading for table in tables), "bold: best of a column"]
    for table in tables:
        drawn = _terminal_table(table)
        shown += [Text(table.title), drawn]
        notes += table.footnotes
        notes += ["more columns in seeds.csv"] * (len(drawn.columns) <= len(table.means.columns))
    return [*shown, Text("; ".join(dict.fromkeys(notes)), style="dim")] if tables else []


def seed_frame(results: Results, record: TrainingRecord) -> pd.DataFrame:
    """The table of `seeds.csv`: every metric of each method over seeds, in full precision; NaN where undefined."""
    import pandas as pd

    return pd.DataFrame(over_seeds(results, record, ci=results.settings.ci), columns=list(SeedRow._fields))


def seed_markdown(tables: Sequence[SeedTable], results: Results) -> str:
    """A GitHub table for each data set: best **bold**, second underlined, ± half the width of the t interval."""
    return "\n\n".join(_markdown_table(table, results) for table in tables) + "\n"


def seed_latex(tables: Sequence[SeedTable], results: Results) -> str:
    r"""A `table` for each data set, to be read by `\input`: best bold, second underlined, ± half the width below."""
    floats = [_latex_table(table, place, results) for place, table in enumerate(tables, 1)]
    return "\n\n".join([_preamble([table.means for table in tables]), *floats]) + "\n"


def signs_of(row: SeedRow | None) -> str:
    """Signs behind a mean, which the footnotes of its table explain."""
    if row is None:
        return ""
    return TOLD_APART * row.differs + LEFT_OUT * (row.n_undefined > 0 and row.n_seeds > 0)


def _mean(row: SeedRow | None) -> Value | None:
    """A mean over seeds in the place of a value of one run."""
    if row is None:
        return None
    return Value(row.metric, row.options, row.average, row.mean, row.low, row.high, math.nan, math.nan, 0, 0, 0, {})


def _footnotes(rows: Sequence[SeedRow], record: TrainingRecord) -> tuple[str, ...]:
    meanings = {
        TOLD_APART: f"differs from {record.baseline}: the interval of the difference, paired by seed, excludes 0",
        LEFT_OUT: "runs without a value are left out (n_undefined in seeds.csv)",
    }
    there = {sign for row in rows for sign in signs_of(row)}
    return tuple(f"{sign} {meaning}" for sign, meaning in meanings.items() if sign in there)


def _origin(keys: Sequence[Key], rows: Sequence[SeedRow], record: TrainingRecord, results: Results) -> str:
    """How many seeds the means are over, and what their intervals cover."""
    counts = {key.method: len(record.methods[key.method]) for key in keys}
    if len(set(counts.values())) == 1:
        mean = f"Mean over {plural(next(iter(counts.values())), 'seed')}"
    else:
        mean = f"Mean over seeds ({', '.join(f'{method} {n}' for method, n in counts.items())})"
    if not any(math.isfinite(row.low) for row in rows):
        return f"{mean}; no intervals, which take two seeds"
    return (
        f"{mean} with its {100 * results.settings.ci:g} % t interval, which covers the randomness of training, not that of "
        "images"
    )


def _full_reading(table: SeedTable, results: Results) -> str:
    """How to read a table of a paper: the origin of its numbers, then what tables of single runs say."""
    spread = "; ± is half the width of the interval" * _has_spread(table.means, "pm", DIGITS)
    return f"{table.reading}{spread}. {_reading(table.means, results, 'none', DIGITS)}"


def _terminal_table(seeds: SeedTable) -> Table:
    """Means with their intervals below, as many columns as fit beside the names, which may fold."""
    means = seeds.means
    cells = [
        [
            Text.assemble(
                (_shown(value, DIGITS), "bold" if means.rank(i, j) == 1 else ""),
                signs_of(seeds.rows[i][j]),
                f"\n[{number(value.low)}, {number(value.high)}]" if value and math.isfinite(value.low) else "",
            )
            for j, value in enumerate(values)
        ]
        for i, values in enumerate(means.values)
    ]
    headings = [f" {c.heading}\n against {c.against}" if c.against else f" {c.heading}" for c in means.columns]
    widths = [
        max(map(len, [*heading.splitlines(), *(f" {line}" for cell in of for line in cell.plain.splitlines())]))
        for heading, of in zip(headings, zip(*cells, strict=True), strict=True)
    ]
    name = min(max(len("method"), *(len(key.name) for key in means.keys)), _NAME)
    fitting = max(1, sum(total <= WIDTH - 2 - name for total in accumulate(widths)))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False)
    table.add_column("method", overflow="fold", min_width=name)
    for heading in headings[:fitting]:
        table.add_column(heading, justify="right", no_wrap=True)
    for key, row in zip(means.keys, cells, strict=True):
        table.add_row(key.name, *row[:fitting])
    return table


def _markdown_table(seeds: SeedTable, results: Results) -> str:
    means = seeds.means

    def cell(row: int, column: int) -> str:
        value = means.values[row][column]
        emphasis = {1: "**{}**", 2: "<ins>{}</ins>"}.get(means.rank(row, column), "{}")
        signs = _md(signs_of(seeds.rows[row][column]))
        return f"{emphasis.format(_shown(value, DIGITS))}{signs} {_spread(value, 'pm', DIGITS)}".strip()

    headings = [f"{c.heading} against {c.against}" if c.against else c.heading for c in means.columns]
    lines = [["method", *map(_md, headings)], ["---", *["---:"] * len(headings)]]
    lines += [[_md(key.name), *(cell(i, j) for j in range(len(means.columns)))] for i, key in enumerate(means.keys)]
    parts = [
        f"### {_md(seeds.title)}, over seeds",
        _md(_full_reading(seeds, results)),
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        _md("; ".join(seeds.footnotes)),
    ]
    return "\n\n".join(part for part in parts if part)


def _latex_table(seeds: SeedTable, place: int, results: Results) -> str:
    caption = _tex(f"{seeds.title}, over seeds. {_full_reading(seeds, results)}").replace(r" \%", r"~\%")
    blocks = _blocks(seeds.means, "pm", DIGITS)
    stacked = _has_spread(seeds.means, "pm", DIGITS)
    return "\n".join(
        [
            r"\begin{table}",
            rf"\centering\footnotesize\setlength{{\tabcolsep}}{{{_gap(stacked) / 2:g}pt}}",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:calbench-seeds-{place}}}",
            r"\smallskip",
            "\n\\par\\medskip\n".join(_tabular(seeds.means, block, "pm", DIGITS) for block in blocks),
            r"\end{table}",
        ]
    )
