"""Tables for papers: methods by metrics, one for each data set, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, get_args

from calbench.errors import InputError, UnknownName, plural
from calbench.evaluate import Value, option_text
from calbench.metrics import METRICS, Metric
from calbench.report.tables import (
    AS_STORED,
    LEFT_OUT,
    NOT_DISTINGUISHABLE,
    dataset_title,
    find_value,
    headline_columns,
    number,
    shown_value,
    signs_of,
)
from calbench.results import Key, Results
from calbench.statistics.bundle import ALL, UNCALIBRATED

if TYPE_CHECKING:
    import pandas as pd

Spread = Literal["none", "interval", "pm"]
"""What stands beside a value: nothing, [low, high], or ± half the width of the interval."""
SPREADS: tuple[Spread, ...] = get_args(Spread)

DIGITS = 4
"""Decimals shown."""
_TEXT_WIDTH = 345.0
"""Of LaTeX's `article` at 10 pt, points: columns beyond it go below."""
_LETTER, _SMALL_LETTER = 4.2, 3.15
"""Widths of a letter in `footnotesize` and in `scriptsize`, points."""


@dataclass(frozen=True)
class Column:
    """A column of a table: a metric and, of OOD detection with several in-distribution sets, the set it is against."""

    metric: Metric
    against: str = ""

    @property
    def name(self) -> str:
        """Name in files."""
        return f"{self.metric.name} against {self.against}" if self.against else self.metric.name

    @property
    def heading(self) -> str:
        """The metric, with an arrow towards better values."""
        return self.metric.heading


@dataclass(frozen=True)
class WideTable:
    """The numbers of one data set, whole images: a row a method (and calibrator), a column a metric.

    Attributes:
        dataset: name.
        keys: of the rows; calibrated predictions follow those they came from.
        columns: each metric is under its own average.
        values: `[row][column]`; None where these predictions have none.
        outside: whether the data set is out of distribution.
    """

    dataset: str
    keys: tuple[Key, ...]
    columns: tuple[Column, ...]
    values: tuple[tuple[Value | None, ...], ...]
    outside: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metric of each column."""
        return tuple(column.metric for column in self.columns)

    def rank(self, row: int, column: int, digits: int = DIGITS) -> int:
        """1 of the best of a column, 2 of the second; 0 of all else.

        Values that print alike at these digits share a place, and the next one is lost: after two best there is no second.
        No place where neither direction is better, for undefined values, and for a value with none to compare it with.
        """
        better = self.columns[column].metric.better
        if better not in ("lower", "higher"):
            return 0
        sign = 1 if better == "lower" else -1
        printed = [sign * _printed(values[column], digits) for values in self.values]
        if not math.isfinite(printed[row]) or sum(map(math.isfinite, printed)) < 2:
            return 0
        place = 1 + sum(-math.inf < other < printed[row] for other in printed)
        return place if place <= 2 else 0


def wide_tables(results: Results, metrics: Sequence[str] | None = None) -> list[WideTable]:
    """One table a data set, in the order of the results, then one for each out-of-distribution set.

    Without names, columns are the headline metrics of the printed table and, of OOD sets, every OOD metric. Detection is by
    entropy, pixel by pixel. Numbers are those of `summary.json`.

    Args:
        results: of a run.
        metrics: names of columns, in order; each data set shows those that any of its rows has.
    Raises:
        UnknownName: there is no metric of this name.
        InputError: the results have no such number.

    >>> from calbench import Results, Settings, collect
    >>> from calbench.synthetic import samples
    >>> results = Results(collect(samples(3), scores=()), Settings(metrics=("ece", "brier"), n_boot=0))
    >>> [(table.dataset, [column.heading for column in table.columns]) for table in wide_tables(results)]
    [('dataset', ['ece ↓', 'brier ↓'])]
    """
    for name in metrics or ():
        if name not in METRICS:
            raise UnknownName("metric", name, METRICS)
    named = None if metrics is None else [METRICS[name] for name in dict.fromkeys(metrics)]
    whole = [key for key in results.evaluators if key.region == ALL]
    tables = [_inside(results, keys, named) for keys in _by_dataset(whole)]
    tables += [_outside(results, keys, named) for keys in _by_dataset(results.outside)]
    shown = {column.metric for table in tables for column in table.columns}
    missing = [metric.name for metric in named or () if metric not in shown]
    if missing:
        raise InputError(
            f"these results hold no {', '.join(missing)}; name metrics that are in their summary.json, or evaluate again "
            "(--stats needs no pixels)"
        )
    return [table for table in tables if table.columns]


def wide_frame(tables: Sequence[WideTable], *, spread: Spread = "none") -> pd.DataFrame:
    """The tables below one another: `dataset, method, calibrator`, then one column a metric, in full precision.

    With a spread, the limits of the intervals follow each metric, as `NAME_low` and `NAME_high`. NaN where there is no value.
    """
    import pandas as pd

    columns = dict.fromkeys(column.name for table in tables for column in table.columns)
    parts = {"": "value"} if spread == "none" else {"": "value", "_low": "low", "_high": "high"}
    rows = [
        {"dataset": key.dataset, "method": key.method, "calibrator": key.calibrator}
        | {
            f"{column.name}{suffix}": getattr(value, attribute)
            for column, value in zip(table.columns, values, strict=True)
            if value is not None
            for suffix, attribute in parts.items()
        }
        for table in tables
        for key, values in zip(table.keys, table.values, strict=True)
    ]
    names = [f"{column}{suffix}" for column in columns for suffix in parts]
    return pd.DataFrame(rows, columns=["dataset", "method", "calibrator", *names]).astype(dict.fromkeys(names, float))


def markdown(tables: Sequence[WideTable], *, results: Results, spread: Spread = "none", digits: int = DIGITS) -> str:
    """A GitHub table for each data set: heading, what it is of, best **bold**, second underlined, signs explained below.

    Args:
        tables: of `wide_tables`.
        results: that they are of.
        spread: what stands beside a value.
        digits: decimals.
    """
    return "\n\n".join(_markdown_table(table, results, spread, digits) for table in tables) + "\n"


def latex(tables: Sequence[WideTable], *, results: Results, spread: Spread = "none", digits: int = DIGITS) -> str:
    r"""A `table` for each data set, to be read by `\input`: best bold, second underlined, captions that say what is shown.

    A spread stands below its value. Columns that do not fit beside each other follow below, in the same float.

    Args:
        tables: of `wide_tables`.
        results: that they are of.
        spread: what stands below a value.
        digits: decimals.
    """
    labels: list[str] = []
    for table in tables:
        plain = "tab:calbench-" + (re.sub(r"[^a-z0-9]+", "-", table.dataset.lower()).strip("-") or "data")
        alike = sum(label == plain or label.startswith(f"{plain}.") for label in labels)
        labels.append(f"{plain}.{alike + 1}" if alike else plain)
    parts = [_preamble(tables)]
    parts += [_latex_table(table, label, results, spread, digits) for table, label in zip(tables, labels, strict=True)]
    return "\n\n".join(parts) + "\n"


def _by_dataset(keys: Iterable[Key]) -> list[list[Key]]:
    """The keys of each data set; those of a method together, in the order of the results."""
    groups: dict[str, dict[str, list[Key]]] = {}
    for key in keys:
        groups.setdefault(key.dataset, {}).setdefault(key.method, []).append(key)
    return [[key for keys in methods.values() for key in keys] for methods in groups.values()]


def _inside(results: Results, keys: Sequence[Key], named: Sequence[Metric] | None) -> WideTable:
    metrics: Sequence[Metric] = headline_columns(results, keys)
    if named is not None:
        known = {metric.name for key in keys for metric in results.evaluators[key].metrics}
        metrics = [metric for metric in named if metric.name in known]
    values = tuple(tuple(find_value(results.values()[key], metric) for metric in metrics) for key in keys)
    return WideTable(keys[0].dataset, tuple(keys), tuple(map(Column, metrics)), values)


def _outside(results: Results, keys: Sequence[Key], named: Sequence[Metric] | None) -> WideTable:
    """Detection has a column for each in-distribution set, which the heading names where rows have several."""
    wanted = [metric for metric in named or results.settings.chosen if metric.scope != "id"]
    found: dict[tuple[Metric, str], dict[Key, Value]] = {}
    for key in keys:
        for value in results.values()[key]:
            metric = METRICS[value.metric]
            against = _against(value, key, results) if metric.scope == "id-ood" else ""
            if metric in wanted and value.average == "pixels" and against is not None:
                found.setdefault((metric, against), {})[key] = value
    sets = list(dict.fromkeys(against for metric, against in found if metric.scope == "id-ood"))

    def place(column: tuple[Metric, str]) -> tuple[int, ...]:
        """By name where columns were named; otherwise what is of the set alone, then one in-distribution set after another."""
        metric, against = column
        order = wanted.index(metric)
        if metric.scope == "ood":
            return (order, 0) if named else (0, 0, order)
        return (order, sets.index(against)) if named else (1, sets.index(against), order)

    places = sorted(found, key=place)
    columns = tuple(Column(metric, against if len(sets) > 1 else "") for metric, against in places)
    values = tuple(tuple(found[column].get(key) for column in places) for key in keys)
    return WideTable(keys[0].dataset, tuple(keys), columns, values, outside=True)


def _against(value: Value, key: Key, results: Results) -> str | None:
    """The in-distribution set of a detection from entropy by pixel; None of another, "" where it cannot be told.

    Values say it where their run had several sets; results that were merged may have more sets than the run of a value.
    """
    options = {"level": "pixel", "score": "entropy"}
    insides = {
        inside.dataset: (len(evaluator.statistics.names), int(evaluator.n_pixels.sum()))
        for inside, evaluator in results.evaluators.items()
        if inside.region == ALL and (inside.method, inside.calibrator) == (key.method, key.calibrator)
    }
    if value.options != option_text(options):
        return next((name for name in insides if value.options == option_text(options | {"id": name})), None)
    size = (value.details["id_images"], value.details["id_pixels"])
    alike = [name for name in insides if insides[name] == size]
    return alike[0] if len(alike) == 1 else ""


def _printed(value: Value | None, digits: int) -> float:
    """The number that is read off the table; NaN without one."""
    return math.nan if value is None else float(f"{value.value:.{digits}f}")


def _shown(value: Value | None, digits: int) -> str:
    """A value; a dash where these predictions have none."""
    if value is None:
        return "–"
    return shown_value(value.value, digits)


def _spread(value: Value | None, spread: Spread, digits: int) -> str:
    """What stands beside a value; nothing where it has no interval."""
    if spread == "none" or value is None or not math.isfinite(value.low):
        return ""
    if spread == "pm":
        return f"± {number((value.high - value.low) / 2, digits)}"
    return f"[{number(value.low, digits)}, {number(value.high, digits)}]"


_SIGNS = {
    LEFT_OUT: "images without a value are left out",
    AS_STORED: "of the map before calibration",
    NOT_DISTINGUISHABLE: "the interval reaches perfect calibration: not distinguishable from calibrated",
}
_DIRECTIONS = {"lower": "↓ lower is better", "higher": "↑ higher is better", "zero": "→0 signed, best at 0"}


def _has_spread(table: WideTable, spread: Spread, digits: int) -> bool:
    return any(_spread(value, spread, digits) for values in table.values for value in values)


def _sign(value: Value | None) -> str:
    return "".join(sorted(signs_of(value)))


def _footnotes(table: WideTable) -> list[str]:
    """What the signs behind values mean, those that are there."""
    there = {sign for values in table.values for value in values for sign in signs_of(value)}
    return [f"{sign} {meaning}" for sign, meaning in _SIGNS.items() if sign in there]


def _title(table: WideTable, results: Results) -> str:
    if not table.outside:
        return dataset_title(results, table.dataset, table.keys)
    images = plural(len(results.outside[table.keys[0]].statistics.names), "image")
    return f"{table.dataset}: out of distribution, {images}"


def _reading(table: WideTable, results: Results, spread: Spread, digits: int) -> str:
    """How to read the table, and the conventions behind its numbers."""
    sentences = []
    if any(metric.scope == "id-ood" for metric in table.metrics):
        sentences.append("Detected by entropy, pixel by pixel")
    means = [metric.name for metric in table.metrics if metric.average == "images"]
    if len(means) == len(table.columns):
        sentences.append("Means over images")
    elif means:
        sentences.append(f"Pooled over pixels, except {', '.join(means)}: means over images")
    directions = [text for better, text in _DIRECTIONS.items() if better in {m.better for m in table.metrics}]
    if directions:
        sentences.append("; ".join(directions))
    ranks = {table.rank(i, j, digits) for i in range(len(table.keys)) for j in range(len(table.columns))}
    if 1 in ranks:
        second = ", second underlined" * (2 in ranks)
        sentences.append(f"Best in bold{second}; values that agree to {digits} decimals share a place")
    if _has_spread(table, spread, digits):
        evaluators = [(results.outside if table.outside else results.evaluators)[key] for key in table.keys]
        units = " or ".join(dict.fromkeys(evaluator.unit for evaluator in evaluators))
        settings = results.settings
        interval = (
            f"{100 * settings.ci:g} % interval ({settings.n_boot:,} bootstrap replicates, which resample {units})"
        )
        sentences.append(
            f"In brackets, the {interval}"
            if spread == "interval"
            else f"± half the width of the {interval}; intervals of calibration errors are not symmetrical"
        )
    sentences += _conventions(table)
    return ". ".join(sentences) + "." * bool(sentences)


def _conventions(table: WideTable) -> list[str]:
    """The options that the numbers were computed under, and the columns that have them."""
    names: dict[str, list[str]] = {}
    for column, values in zip(table.columns, zip(*table.values, strict=True), strict=True):
        if column.metric.scope != "id-ood":  # how these detect is said, and what they are against is in the heading
            options = dict.fromkeys(v.options.replace(";", ", ") for v in values if v and AS_STORED not in signs_of(v))
            text = " or ".join(option for option in options if option)
            if text:
                names.setdefault(text, []).append(column.name)
    text = "; ".join(f"{text} ({', '.join(columns)})" for text, columns in names.items())
    return [f"Computed with {text}"] if text else []


def _one_line(name: str) -> str:
    """A name from a file system, whose control characters would break a row."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


_MARKDOWN = str.maketrans(
    {c: f"\\{c}" for c in "\\`*_{}#|~$"} | {c: f"&#{ord(c)};" for c in "&<>[]"}
)  # fmt: skip


def _md(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table, too.

    >>> _md("a_b | <i>")
    'a\\\\_b \\\\| &#60;i&#62;'
    """
    return _one_line(text).translate(_MARKDOWN)


def _markdown_table(table: WideTable, results: Results, spread: Spread, digits: int) -> str:
    def cell(row: int, column: int) -> str:
        value = table.values[row][column]
        emphasis = {1: "**{}**", 2: "<ins>{}</ins>"}.get(table.rank(row, column, digits), "{}")
        return f"{emphasis.format(_shown(value, digits))}{_md(_sign(value))} {_spread(value, spread, digits)}".strip()

    headings = [f"{c.heading} against {c.against}" if c.against else c.heading for c in table.columns]
    rows = [[_md(key.name), *(cell(i, j) for j in range(len(table.columns)))] for i, key in enumerate(table.keys)]
    lines = [["method", *map(_md, headings)], ["---", *["---:"] * len(headings)], *rows]
    parts = [
        f"### {_md(_title(table, results))}",
        _md(_reading(table, results, spread, digits)),
        "\n".join(f"| {' | '.join(cells)} |" for cells in lines),
        _md("; ".join(_footnotes(table))),
    ]
    return "\n\n".join(part for part in parts if part)


_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "#$%&_{}"}
    | {c: f"{{{c}}}" for c in "[*"}  # at the start of a row they would be taken for an argument of the row before
    | {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}",
        "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "–": "--", "±": r"$\pm$",
        "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "°": r"$^{\circ}$", "†": r"$^{\dagger}$",
    }
)  # fmt: skip


def _tex(text: str) -> str:
    r"""Text that LaTeX shows as it is.

    >>> print(_tex("a_b & 50%"))
    a\_b \& 50\%
    """
    hyphens = re.sub("-(?=-)", "-\0", _one_line(text))  # two of them would become a dash
    return hyphens.translate(_LATEX).replace("\0", "{}")


def _preamble(tables: Sequence[WideTable]) -> str:
    lines = [
        rf"Made by calbench {version('calbench')}.",
        r"Needs \usepackage{booktabs}, and for some accents in names \usepackage[T1]{fontenc}.",
        r"\input this file where the tables belong; in a paper of two columns, write table* for table.",
    ]
    names = "".join(_one_line(f"{key.dataset}{key.name}") for table in tables for key in table.keys)
    beyond = sorted({c for c in names if ord(c) > 0xFF})
    if beyond:
        lines.append(
            f"Names hold characters that pdflatex may lack: {' '.join(beyond)}; lualatex and xelatex take them, with a font "
            "that has them."
        )
    return "\n".join(f"% {line}" for line in lines)


def _latex_table(table: WideTable, label: str, results: Results, spread: Spread, digits: int) -> str:
    caption = _tex(f"{_title(table, results)}. {_reading(table, results, spread, digits)}").replace(r" \%", r"~\%")
    tabulars = [_tabular(table, block, spread, digits) for block in _blocks(table, spread, digits)]
    gap = _gap(_has_spread(table, spread, digits))
    footnotes = _footnotes(table)
    lines = [
        r"\begin{table}",
        rf"\centering\footnotesize\setlength{{\tabcolsep}}{{{gap / 2:g}pt}}",
        rf"\caption{{{caption}}}",
        rf"\label{{{label}}}",
        r"\smallskip",
        "\n\\par\\medskip\n".join(tabulars),
        *([rf"\par\smallskip{{\scriptsize {_tex('; '.join(footnotes))}\par}}"] if footnotes else []),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _gap(stacked: bool) -> float:
    """Space between two columns, points."""
    return 4.0 if stacked else 8.0


def _blocks(table: WideTable, spread: Spread, digits: int) -> list[range]:
    """Columns in as few parts, of about the same number each, as the width needs."""
    stacked = _has_spread(table, spread, digits)
    names = [max(key.method, f"+ {key.calibrator}", key=len) if stacked else key.name for key in table.keys]
    room = max(_TEXT_WIDTH - _LETTER * max(map(len, names)), _TEXT_WIDTH / 4)
    total = 0.0
    for column, values in zip(table.columns, zip(*table.values, strict=True), strict=True):
        large = [column.heading, *(_shown(value, digits) for value in values)]
        small = [f"against {column.against}" * bool(column.against), *(_spread(v, spread, digits) for v in values)]
        total += max(_LETTER * max(map(len, large)), _SMALL_LETTER * max(map(len, small))) + _gap(stacked)
    n = len(table.columns)
    parts = min(n, math.ceil(total / room))
    return [range(start, end) for start, end in pairwise(round(n * i / parts) for i in range(parts + 1))]


def _tabular(table: WideTable, columns: range, spread: Spread, digits: int) -> str:
    """Some columns; a spread is on a second line, where the calibrator is, too: names and numbers then need less width."""
    against = [table.columns[j].against for j in columns]
    lines = [
        rf"\begin{{tabular}}{{@{{}}l{'r' * len(columns)}@{{}}}}",
        r"\toprule",
        _line("method", [_tex(table.columns[j].heading) for j in columns]),
        *(
            [_line("", [rf"\scriptsize {_tex(f'against {name}')}" if name else "" for name in against])]
            if any(against)
            else []
        ),
        r"\midrule",
    ]
    stacked = _has_spread(table, spread, digits)
    for i, (key, values) in enumerate(zip(table.keys, table.values, strict=True)):
        if stacked and i:
            lines.append(r"\addlinespace[2pt]")
        cells = [_latex_cell(values[j], table.rank(i, j, digits), digits) for j in columns]
        if not stacked:
            lines.append(_line(_tex(key.name), cells))
            continue
        calibrator = "" if key.calibrator == UNCALIBRATED else f"+ {key.calibrator}"
        lines.append(_line(_tex(key.method), cells))
        lines.append(_line(_tex(calibrator), [_small(_spread(values[j], spread, digits)) for j in columns]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _line(name: str, cells: Sequence[str]) -> str:
    return " & ".join([name, *cells]) + r" \\"


def _latex_cell(value: Value | None, rank: int, digits: int) -> str:
    """A value with its signs, which take no width: decimals stay below one another."""
    emphasis = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(rank, "%s")
    sign = _sign(value)
    shown = emphasis % _shown(value, digits).replace("-", "$-$").replace("–", "--")
    return shown + (rf"\rlap{{{_tex(sign)}}}" if sign else "")


def _small(spread: str) -> str:
    text = spread.replace("-", "$-$").replace("± ", r"$\pm$\,").replace(", ", r",\,")
    return rf"\scriptsize {text}" if text else ""
