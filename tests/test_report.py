"""Figures draw the numbers they are given; progress says how far a run is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from calbench import Results, Run, Settings, collect, progress
from calbench.report.figures import reliability_diagram, save_reliability_diagram, score_histogram
from calbench.report.tables import number
from calbench.results import Key
from calbench.synthetic import samples

KEY = Key("dataset", "method")


@pytest.fixture(scope="module")
def results() -> Results:
    run: Run = collect(samples(12, sharpness=2.5), scores=())
    return Results(run, Settings(metrics=("ece", "ece_fg"), n_boot=100))


def test_the_diagram_shows_accuracy_gap_and_interval_of_each_bin_that_holds_pixels(results: Results) -> None:
    bins, _ = results.diagrams[KEY]["foreground"]
    ax = Figure().subplots()
    assert reliability_diagram(bins, ax) is ax
    filled = [b for b in bins if b.n]
    heights = [patch.get_height() for patch in ax.patches]
    np.testing.assert_allclose(heights[: len(filled)], [b.accuracy for b in filled])
    tops = sorted(patch.get_y() + patch.get_height() for patch in ax.patches[len(filled) :])
    np.testing.assert_allclose(tops, sorted(b.confidence for b in filled))
    segments = ax.containers[-1].lines[2][0].get_segments()
    np.testing.assert_allclose([s[0][1] for s in segments], [b.low for b in filled])
    np.testing.assert_allclose([s[1][1] for s in segments], [b.high for b in filled])


def test_the_histogram_shows_the_share_of_pixels(results: Results) -> None:
    bins, _ = results.diagrams[KEY]["top-label"]
    ax = score_histogram(bins, Figure().subplots())
    assert sum(patch.get_height() for patch in ax.patches) == pytest.approx(1)
    assert len(ax.patches) == sum(b.n > 0 for b in bins) < len(bins), "confidence never falls below one half"


def test_the_heading_has_the_numbers_of_the_table(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_title", lambda _, text, **__: titles.append(text))
    save_reliability_diagram(tmp_path / "a.png", "title", results.diagrams[KEY], level=0.95)
    for title, metric in zip(titles, ("ece", "ece_fg"), strict=True):
        row = results.summary[(results.summary.metric == metric) & (results.summary.average == "pixels")].iloc[0]
        for shown in (
            f"{row.value:.4f}",
            f"[{row.low:.4f}, {row.high:.4f}]",
            "15 bins, 12 images",
            "147\u00a0456 pixels",
        ):
            assert shown in title
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > image.height > 500


def test_limits_lose_their_leading_zero_only() -> None:
    assert [number(x) for x in (0.5, -0.25, 1.5, 10.05, 0.0)] == [".5000", "-.2500", "1.5000", "10.0500", ".0000"]


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress_bar("images", 10, enabled=True) as advance:
        for _ in range(10):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"images: {done} of 10, about {(10 - done) * 12} s left" for done in (3, 6, 9)]
    with progress.progress_bar("images", 10, enabled=False) as advance:
        advance()
    assert capsys.readouterr().err == ""
