"""The house style of figures: colours, sizes, one look a method, and files that come out the same every time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from calbench.errors import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#26313D"
"""Text and axes."""
PAPER = "#FFFFFF"
"""Background, and the thin lines between bars."""
GREY = "#C8CDD3"
"""What is there for comparison: bars of accuracy, grids."""
OVER, UNDER = "#D55E00", "#0072B2"
"""Okabe-Ito vermilion and blue, which colour-blind readers tell apart: too confident, too cautious."""

COLUMN = 3.5
"""Width of one column of a two-column paper, inches."""
TEXT = 7.0
"""Size of labels at that width, points."""

METHOD_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7B5EA7", "#8C6D31")
"""Okabe-Ito without its yellow, which white paper swallows, and two more."""
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
_MARKERS = "osD^vPX*"

Format = Literal["png", "pdf", "svg"]
FORMATS: tuple[Format, ...] = ("png", "pdf", "svg")
DPI = 200


@dataclass(frozen=True)
class Look:
    """How one method is drawn in every figure: colour, dash of its lines, marker of its points."""

    colour: str
    dash: Any
    marker: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by its place among the sorted names: the same in all figures that are given all names.

    Colours repeat after 8 names; dashes and markers then change.

    >>> looks(["b", "a"])["a"].colour
    '#0072B2'
    """
    n = len(METHOD_COLOURS)
    return {
        name: Look(METHOD_COLOURS[i % n], _DASHES[i // n % len(_DASHES)], _MARKERS[(i + i // n) % len(_MARKERS)])
        for i, name in enumerate(sorted(dict.fromkeys(names)))
    }


def new_figure(width: float = COLUMN, height: float = COLUMN) -> Figure:
    """An empty figure, inches, that needs no display and belongs to no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(ax: Axes) -> Axes:
    """Small dark labels, no frame above and to the right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(labelsize=TEXT, colors=INK)
    for label in (ax.xaxis.label, ax.yaxis.label, ax.title):
        label.set_color(INK)
        label.set_fontsize(TEXT + 1)
    return ax


def plain(name: str) -> str:
    """A name as matplotlib shows it letter for letter: a dollar sign starts no formula."""
    return name.replace("$", r"\$")


def number_of(n: int, what: str) -> str:
    """A number of things for captions, with spaces between thousands that break no line.

    >>> number_of(1234, "image")
    '1\u00a0234 images'
    """
    return plural(n, what).replace(",", "\u00a0")


def rendered(figure: Figure, formats: Iterable[Format], *, salt: str = "calbench") -> Mapping[Format, bytes]:
    """The figure as files, without dates: equal numbers give equal bytes.

    Args:
        figure: laid out once, then drawn in each format.
        formats: of "png" (200 dpi), "pdf" (fonts embedded), "svg" (text stays text).
        salt: makes the identifiers inside an SVG its own, so that several can stand in one page.
    """
    files: dict[Format, bytes] = {}
    with _steady(salt):
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # laid out; any other engine, "none" too, makes matplotlib draw twice
        for kind in formats:
            buffer = io.BytesIO()
            metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[kind]
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
            files[kind] = buffer.getvalue()
    return files


@contextmanager
def _steady(salt: str) -> Iterator[None]:
    """The settings of file formats for this while; letters that the font lacks show as boxes, without a warning."""
    import matplotlib as mpl

    settings: Any = {
        "svg.fonttype": "none",
        "pdf.fonttype": 42,
        "svg.hashsalt": salt,
        "figure.autolayout": False,
        "figure.constrained_layout.use": False,
    }
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
