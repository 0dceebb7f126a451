"""Figures against pictures of them: `python tests/make_baselines.py` draws the pictures anew."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from matplotlib.ticker import NullFormatter

BASELINES = Path(__file__).parent / "baselines"
DPI = 60
MATPLOTLIB = "3.11."
TOLERANCE = 1.0
"""Root mean square difference of colours, 0 to 255; a bar that is 2 % of the axis too high exceeds it."""


def save_baseline(figure: Figure, path: Path) -> None:
    """A small picture without letters and legends, whose shapes and places depend on the FreeType that is installed."""
    for ax in figure.get_axes():
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(NullFormatter())
            axis.set_minor_formatter(NullFormatter())
    for artist in figure.findobj(lambda artist: isinstance(artist, Text | Legend)):
        artist.set_visible(False)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": None})


def same_as_baseline(figure: Figure, name: str, tmp_path: Path) -> None:
    """Hold a figure against `baselines/NAME.png`; takes its letters off.

    Places depend on the sizes of the letters, which change with matplotlib.
    """
    if not matplotlib.__version__.startswith(MATPLOTLIB):
        pytest.skip(f"the baselines were drawn by matplotlib {MATPLOTLIB}, this is {matplotlib.__version__}")
    drawn = tmp_path / f"{name}.png"
    save_baseline(figure, drawn)
    difference = compare_images(str(BASELINES / f"{name}.png"), str(drawn), TOLERANCE)
    assert difference is None, f"{difference}\nif the change is wanted: python tests/make_baselines.py {name}"
