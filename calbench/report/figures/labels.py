"""What figures write: headings, legends, and numbers with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from calbench.evaluate import Value
from calbench.metrics import METRICS
from calbench.report.style import INK, TEXT, plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = 62  # characters that fit one column


def headed(figure: Figure, title: str, caption: str = "") -> Figure:
    """The figure under a title, wrapped to its width, and a smaller caption."""
    letters = int(12 * figure.get_figwidth())
    lines = [plain(line) for line in textwrap.wrap(title, letters, break_on_hyphens=False)]
    if not caption:
        figure.suptitle("\n".join(lines), fontsize=TEXT + 2, color=INK)
        return figure
    figure.suptitle("\n".join([*lines, caption]), fontsize=TEXT + 1, color=INK)
    return figure


def say_left_out(ax: Axes, why: str, names: Iterable[str]) -> None:
    """Name what is not drawn, and why, under the label of the x axis; nothing if that is nothing."""
    names = list(names)
    if names:
        note = textwrap.fill(f"not drawn, {why}: {', '.join(names)}", _LINE, break_on_hyphens=False)
        ax.set_xlabel(f"{ax.get_xlabel()}\n{plain(note)}")


def named(name: str, most: int = 30) -> str:
    """A name for legends and panels: of more than so many characters the middle is left out.

    >>> named("a rather long name of a method", 15)
    'a rathe… method'
    """
    return plain(name if len(name) <= most else f"{name[: most // 2]}…{name[-(most - 1) // 2 :]}")


def estimate(value: Value) -> str:
    """A number with its interval, if it has one, four decimals as in tables; a dash for none."""
    if not np.isfinite(value.value):
        return "–"
    interval = f" [{value.low:.4f}, {value.high:.4f}]" if np.isfinite(value.low) else ""
    return f"{value.value:.4f}{interval}"


def estimated(values: Iterable[Value], level: float) -> str:
    """What `estimate` shows of a metric: its name, its better direction, and the level of the intervals, if there are any."""
    values = list(values)
    interval = f", {100 * level:g} % interval" * any(np.isfinite(value.low) for value in values)
    return f"{METRICS[values[0].metric].heading}{interval}"


def legend_below(
    figure: Figure, handles: Sequence[Artist], labels: Sequence[str], title: str, columns: int = 1
) -> None:
    """A legend under the axes, where it hides nothing."""
    # matplotlib leaves out what starts with an underscore
    labels = [f" {label}" if label.startswith("_") else label for label in labels]
    legend = figure.legend(
        handles, labels, title=title, ncols=columns, loc="outside lower center", fontsize=TEXT - 0.5,
        title_fontsize=TEXT - 0.5, frameon=False, labelcolor=INK, handlelength=2.2, labelspacing=0.25, borderpad=0.1,
    )  # fmt: skip
    legend.get_title().set_color(INK)
