"""Reliability figures draw the numbers they are given, print those of summary.json, and look as their pictures do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_baselines import same_as_baseline
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy.stats import gaussian_kde

from calbench import Results, Sample, Settings, collect, evaluate
from calbench.errors import InputError, OptionError, ShapeError, UnknownName
from calbench.evaluate import Evaluator, JointPoints, ReliabilityBin, Value
from calbench.metrics import METRICS
from calbench.report.display import ReliabilityDisplay
from calbench.report.figures.density import DECADES, GRID, joint_density, joint_figure, kernel_density
from calbench.report.figures.reliability import (
    class_grid_figure,
    overlay_figure,
    reliability_diagram,
    reliability_figure,
    reliability_overlay,
)
from calbench.report.style import looks
from calbench.results import Key
from calbench.statistics.histogram import Event
from calbench.statistics.reliability import bin_index
from calbench.synthetic import samples
from calbench.synthetic_classes import class_samples

KEY = Key("dataset", "method")


def made_bins(event: Any = "top-label", gap: float = 0.1, empty: Sequence[int] = ()) -> list[ReliabilityBin]:
    """Ten bins by formulas, the same everywhere; top-label ones from one half."""
    bins = []
    for b in range(10):
        n = 0 if b in empty or (event == "top-label" and b < 5) else 10 ** (b - 3 if b > 4 else 4 - b // 2)
        score = (b + 0.3 + 0.05 * b) / 10
        accuracy = min(max(score - gap * np.sin(b), 0), 1)
        numbers = (score, accuracy, max(accuracy - 0.05, 0), min(accuracy + 0.04, 1)) if n else (np.nan,) * 4
        bins.append(ReliabilityBin(event, b, b / 10, (b + 1) / 10, n, *map(float, numbers)))
    return bins


def made_value(metric: str = "ece", value: float = 0.0812, half: float = 0.01) -> Value:
    return Value(metric, "bins=10", "pixels", value, value - half, value + half, value, 0.01, 150, 0, 10**6, {})


def made_points() -> JointPoints:
    turn = np.arange(300)
    score = 0.75 + 0.25 * np.sin(turn)
    return JointPoints(score, np.clip(score**1.5 + 0.1 * np.cos(3 * turn), 0, 1), 1 + turn**2, pooled=False)


def made_series() -> dict[str, list[ReliabilityBin]]:
    return {name: made_bins("foreground", gap, [4, 6]) for name, gap in (("a", 0.1), ("b", -0.15))}


def made_overlay() -> Figure:
    series = made_series()
    errors = {"a": made_value("ece_fg"), "b": made_value("ece_fg", 0.1, np.nan)}
    return overlay_figure("title", series, errors, looks(series), 0.95)


def made_grid() -> Figure:
    classes = {k: made_bins("class", gap) for k, gap in enumerate((0.1, -0.1, 0.3))}
    errors = {k: made_value("ece_classwise") for k in classes}
    return class_grid_figure("title", classes, errors, made_value("ece_classwise"), 0.95)


FIGURES: dict[str, Callable[[], Figure]] = {
    "reliability": lambda: reliability_figure("title", made_bins(), made_value(), 0.95),
    "reliability_foreground": lambda: reliability_figure(
        "title", made_bins("foreground", empty=[4, 6]), made_value("ece_fg"), 0.95
    ),
    "overlay": made_overlay,
    "class_grid": made_grid,
    "joint": lambda: joint_figure("title", {"net": (made_points(), made_bins(), made_value())}, 0.95),
}


@pytest.fixture(scope="module")
def binary() -> Results:
    return Results(collect(samples(12, sharpness=2.5), scores=()), Settings(metrics=("ece", "ece_fg"), n_boot=100))


@pytest.fixture(scope="module")
def several() -> Results:
    """Four classes, of which the last is in no ground truth, and void pixels."""
    images = []
    for i in range(8):
        rng = np.random.default_rng(i)
        target = rng.integers(0, 3, (6, 9))
        scores = rng.normal(size=(4, 6, 9)) + 2 * (np.arange(4)[:, None, None] == target)
        images.append(Sample(f"{i}", 2 * scores, target, rng.uniform(size=(6, 9)) < 0.9, "logits"))
    return Results(collect(images), Settings(metrics=("ece", "ece_classwise"), n_boot=100))


def class_values(results: Results) -> tuple[dict[int, Value], Value]:
    values = [v for v in results.values()[KEY] if v.metric == "ece_classwise" and v.average == "pixels"]
    return {v.details["class"]: v for v in values if "class" in v.details}, next(
        v for v in values if "class" not in v.details
    )


def written(results: Results, metric: str) -> dict[str, Any]:
    """The record of `summary.json` of all pixels together."""
    records = results.to_json()["results"]
    return next(
        r for r in records if r["metric"] == metric and r["average"] == "pixels" and "class" not in r["details"]
    )


def texts(figure: Figure) -> str:
    return "\n".join(
        artist.get_text() for artist in figure.findobj(Text) if isinstance(artist, Text) and artist.get_visible()
    )


def inside(figure: Figure) -> None:
    """No text of the figure is cut off at its edge, and no legend covers axes beside which it should be."""
    figure.draw_without_rendering()
    page = figure.bbox
    for artist in figure.findobj(Text):
        if artist.get_visible() and artist.get_text():  # type: ignore[attr-defined]
            box = artist.get_window_extent()
            assert box.x0 >= -1, artist
            assert box.y0 >= -1, artist
            assert box.x1 <= page.x1 + 1, artist
            assert box.y1 <= page.y1 + 1, artist
    for legend in figure.legends:
        for ax in figure.axes:
            assert not legend.get_window_extent().overlaps(ax.get_tightbbox())


class TestOneEvent:
    @pytest.mark.parametrize(("event", "metric"), [("top-label", "ece"), ("foreground", "ece_fg")])
    def test_the_heading_has_the_numbers_of_summary_json(self, binary: Results, event: Event, metric: str) -> None:
        figure = reliability_figure("net on set", *binary.diagrams[KEY][event], 0.95)
        found = written(binary, metric)
        heading = figure.axes[0].get_title(loc="left")
        assert re.findall(r"\d\.\d{4}", heading) == [f"{found[name]:.4f}" for name in ("value", "low", "high")]
        assert heading.endswith("(95 %)\n15 bins, 12 images, 147\u00a0456 pixels")
        assert found["n_pixels"] == 147_456
        assert figure.get_suptitle() == "net on set"
        inside(figure)

    def test_without_bootstrap_there_are_no_limits(self, binary: Results) -> None:
        results = Results(binary.run, replace(binary.settings, n_boot=0))
        bins, error = results.diagrams[KEY]["foreground"]
        figure = reliability_figure("net", bins, error, 0.95)
        assert "[" not in figure.axes[0].get_title(loc="left")
        assert not figure.axes[0].containers[-1].lines[2][0].get_segments()
        overlay = reliability_overlay({"net": bins}, looks(["net"]), Figure().subplots())
        assert not any(len(path.vertices) for band in overlay.collections for path in band.get_paths())

    def test_one_image(self, binary: Results) -> None:
        run = collect(samples(1), scores=())
        results = Results(run, binary.settings)
        title = reliability_figure("net", *results.diagrams[KEY]["top-label"], 0.95).axes[0].get_title(loc="left")
        assert title.endswith("15 bins, 1 image, 12\u00a0288 pixels")
        assert "[" not in title

    def test_samples_of_a_table_are_no_pixels(self) -> None:
        figure = reliability_figure("net", made_bins(), made_value(), 0.9, ("groups", "samples"))
        assert "(90 %)\n10 bins, 150 groups, 1\u00a0111\u00a0100 samples" in texts(figure)
        assert figure.axes[1].get_ylabel() == "samples"

    def test_a_dollar_sign_is_a_letter(self) -> None:
        assert "a$b$" in texts(reliability_figure("a$b$", made_bins(), made_value(), 0.95)).replace("\\", "")
        inside(reliability_figure("a long name of a method with $ in it " * 3, made_bins(), made_value(), 0.95))


class TestOverlay:
    def test_lines_and_bands_are_the_bins(self) -> None:
        series = made_series()
        ax = reliability_overlay(series, looks(series), Figure().subplots())
        for line, band, (name, bins) in zip(ax.get_lines(), ax.collections[::2], series.items(), strict=False):
            look = looks(series)[name]
            assert (line.get_color(), line.get_marker()) == (look.colour, look.marker)
            assert same_color(band.get_facecolor()[0, :3], look.colour)
            np.testing.assert_array_equal(line.get_xdata(), [b.confidence for b in bins])
            np.testing.assert_array_equal(line.get_ydata(), [b.accuracy for b in bins])
            assert np.isnan(line.get_ydata()).sum() == 2, "empty bins break the line"
            drawn = {tuple(vertex) for path in band.get_paths() for vertex in path.vertices.round(9)}
            banded = [b for b in bins if b.n]
            assert {(round(b.confidence, 9), round(y, 9)) for b in banded for y in (b.low, b.high)} == drawn
        for strokes, bins in zip(ax.collections[1::2], series.values(), strict=True):
            [alone] = strokes.get_segments()
            np.testing.assert_allclose(alone, [(bins[5].confidence, bins[5].low), (bins[5].confidence, bins[5].high)])

    def test_the_legend_has_the_numbers_of_summary_json(self, binary: Results) -> None:
        other = Results(collect(samples(12, sharpness=0.5), scores=()), binary.settings)
        both = {"sharp": binary, "soft": other}
        series = {name: results.diagrams[KEY]["top-label"][0] for name, results in both.items()}
        errors = {name: results.diagrams[KEY]["top-label"][1] for name, results in both.items()}
        figure = overlay_figure("set", series, errors, looks(series), 0.95)
        [legend] = figure.legends
        for text, (name, results) in zip(legend.get_texts(), both.items(), strict=True):
            found = written(results, "ece")
            assert text.get_text() == f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]  {name}"
        assert legend.get_title().get_text() == "top-label ECE [95 % interval]"
        assert figure.axes[0].get_title(loc="left") == "15 bins, 12 images, 147\u00a0456 pixels"

    def test_methods_on_other_images_say_how_many(self) -> None:
        series = made_series()
        errors = {"a": made_value(), "b": replace(made_value(), n_images=1160)}
        figure = overlay_figure("set", series, errors, looks(series), 0.95)
        assert "10 bins, 150 to 1\u00a0160 images, " in figure.axes[0].get_title(loc="left")

    def test_twelve_methods_stay_legible(self) -> None:
        names = [f"_method {i} with a long $name$ and temperature" for i in range(12)]
        series = {name: made_bins(gap=0.02 * i) for i, name in enumerate(names)}
        figure = overlay_figure("set", series, dict.fromkeys(names, made_value()), looks(names), 0.95)
        inside(figure)
        [legend] = figure.legends
        assert len(legend.get_texts()) == 12
        boxes = [text.get_window_extent() for text in legend.get_texts()]
        assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))
        assert min(text.get_fontsize() for text in legend.get_texts()) >= 4.5
        lines = figure.axes[0].get_lines()[:12]
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12
        ax = reliability_overlay(series, looks(names), Figure(layout="constrained").subplots())
        ax.figure.draw_without_rendering()
        assert len(ax.get_legend().get_texts()) == 12
        assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent()), "beneath the axes"


class TestClasses:
    def test_bins_add_up_to_the_error_of_each_class(self, several: Results) -> None:
        classes = several.evaluators[KEY].class_reliability()
        errors, mean = class_values(several)
        assert list(classes) == [0, 1, 2, 3]
        for k, bins in classes.items():
            filled = [b for b in bins if b.n]
            total = sum(b.n for b in filled)
            assert total == mean.n_pixels < 8 * 6 * 9
            gap = sum(b.n * abs(b.confidence - b.accuracy) for b in filled) / total
            assert gap == pytest.approx(errors[k].value, rel=1e-12)
            pixels = several.per_class.set_index("class").n_target[k]
            assert sum(b.n * b.accuracy for b in filled) == pytest.approx(pixels, rel=1e-12)
            assert all(b.low <= b.accuracy <= b.high for b in filled if np.isfinite(b.low))
        assert mean.value == pytest.approx(np.mean([error.value for error in errors.values()]), rel=1e-12)

    def test_of_two_classes_the_second_is_the_foreground(self) -> None:
        rng = np.random.default_rng(0)
        maps = [(f"{i}", rng.beta(0.5, 0.5, (8, 11)), rng.uniform(size=(8, 11)) < 0.4) for i in range(9)]
        as_map = collect([Sample(name, p, y, kind="probabilities") for name, p, y in maps])
        as_classes = collect(
            [Sample(name, np.stack([1 - p, p]), y.astype(int), kind="probabilities") for name, p, y in maps]
        )
        settings = Settings(metrics=("ece",), n_boot=200, seed=3)
        expected = Results(as_map, settings).evaluators[KEY].reliability("foreground")
        found = Results(as_classes, settings).evaluators[KEY].class_reliability()[1]
        assert {b.event for b in found} == {"class"}
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.n, ours.low_edge, ours.high_edge) == (theirs.n, theirs.low_edge, theirs.high_edge)
            np.testing.assert_allclose(
                [ours.confidence, ours.accuracy, ours.low, ours.high],
                [theirs.confidence, theirs.accuracy, theirs.low, theirs.high],
                rtol=1e-12,
            )
        assert np.isfinite([b.low for b in found]).sum() > 10

    def test_number_of_bins_is_that_of_the_error(self, several: Results) -> None:
        results = Results(several.run, Settings(metrics=("ece_classwise",), n_boot=0, options={"bins": 6}))
        assert {len(bins) for bins in results.evaluators[KEY].class_reliability().values()} == {6}

    def test_binary_maps_have_none(self, binary: Results) -> None:
        assert binary.evaluators[KEY].class_reliability() == {}

    def test_panels_show_the_classes(self, several: Results) -> None:
        classes = several.evaluators[KEY].class_reliability()
        errors, mean = class_values(several)
        figure = class_grid_figure("net on set", classes, errors, mean, 0.95)
        for k, ax in enumerate(figure.axes):
            filled = [b for b in classes[k] if b.n]
            np.testing.assert_allclose(
                [p.get_height() for p in ax.patches[: len(filled)]], [b.accuracy for b in filled]
            )
            assert ax.get_title() == f"class {k}{', absent' if k == 3 else ''}: {errors[k].value:.4f}"
        found = written(several, "ece_classwise")
        numbers = re.findall(r"\d\.\d{4}", figure.get_suptitle())
        assert numbers == [f"{found[name]:.4f}" for name in ("value", "low", "high")]
        assert "15 bins, 8 images, " in figure.get_suptitle()
        inside(figure)

    def test_of_many_classes_those_with_most_pixels_are_shown(self) -> None:
        bins = {k: [replace(b, n=b.n * (100 - k)) for b in made_bins("class")] for k in range(30)}
        bins[7] = [replace(b, accuracy=0.0) if b.n else b for b in bins[7]]
        errors = dict.fromkeys(bins, made_value("ece_classwise"))
        figure = class_grid_figure("net", bins, errors, made_value("ece_classwise"), 0.95)
        titles = [ax.get_title() for ax in figure.axes]
        assert titles == [f"class {k}: 0.0812" for k in range(21) if k != 7]
        assert "20 of 30 classes: those with most pixels" in figure.get_suptitle()
        inside(figure)


class TestJoint:
    def test_points_are_the_bins_of_each_image(self) -> None:
        images = list(samples(4, sharpness=2.5))
        joint = Results(collect(images, scores=()), Settings(metrics=("ece",), n_boot=0)).evaluators[KEY].joint()
        expected = []
        for image in images:
            p = image.scores.ravel() / 255
            score, right = np.maximum(p, 1 - p), (p >= 0.5) == image.target.ravel()
            index = bin_index(score, 15)
            expected += [
                (score[index == b].mean(), right[index == b].mean(), (index == b).sum()) for b in np.unique(index)
            ]
        np.testing.assert_allclose(np.stack([joint.confidence, joint.accuracy, joint.weight], 1), expected)
        assert not joint.pooled

    def test_the_study_repeats_the_bins_of_all_images(self, demo_set: Path) -> None:
        run = collect(
            pred=demo_set / "preds" / "overconfident" / "synthetic",
            gt=demo_set / "data" / "synthetic" / "gt",
            scores=(),
            extras=("aslp",),
        )
        [evaluator] = Results(run, Settings("aslp", n_boot=0)).evaluators.values()
        joint = evaluator.joint()
        bins = [b for b in evaluator.reliability("top-label") if b.n]
        copies = [int(8 * b.n / sum(b.n for b in bins)) for b in bins]
        assert 0 < sum(copies) == len(joint.weight) <= 8
        assert joint.pooled
        assert set(joint.weight) == {1}
        np.testing.assert_array_equal(joint.confidence, np.repeat([b.confidence for b in bins], copies))
        np.testing.assert_array_equal(joint.accuracy, np.repeat([b.accuracy for b in bins], copies))

    def test_the_density_is_that_of_scipy(self) -> None:
        points = made_points()
        nodes = np.arange(GRID + 1) / GRID
        at = np.stack(np.meshgrid(nodes, nodes)).reshape(2, -1)
        kde = gaussian_kde(np.stack([points.confidence, points.accuracy]), weights=points.weight)
        expected = kde(at).reshape(GRID + 1, GRID + 1)
        np.testing.assert_allclose(kernel_density(points), expected / expected.max(), atol=0.02)

    @pytest.mark.parametrize(
        ("confidence", "accuracy"),
        [
            ([0.9], [0.4]),
            ([0.9, 0.9], [0.4, 0.4]),
            ([0.6, 0.7, 0.9], [0.6, 0.7, 0.9]),
            ([1.0, 1.0], [0.0, 1.0]),
            ([], []),
        ],
    )
    def test_points_without_area_are_drawn(self, confidence: list[float], accuracy: list[float]) -> None:
        points = JointPoints(np.array(confidence), np.array(accuracy), np.ones(len(confidence)), pooled=False)
        figure = Figure()
        joint_density(points, figure.subplots())
        figure.draw_without_rendering()
        assert len(figure.axes) == (2 if confidence else 1), "a colour scale only where there are colours"
        for x, y in zip(confidence, accuracy, strict=True):
            assert kernel_density(points)[round(y * GRID), round(x * GRID)] > 0.3

    def test_a_bin_with_most_pixels_does_not_hide_the_others(self) -> None:
        points = JointPoints(np.array([0.99, 0.6]), np.array([0.98, 0.3]), np.array([10**6, 10**3]), pooled=False)
        density = kernel_density(points)
        assert density[round(0.3 * GRID), round(0.6 * GRID)] > 10.0**-DECADES

    def test_dots_and_heading_are_those_of_the_diagram(self, binary: Results) -> None:
        bins, error = binary.diagrams[KEY]["top-label"]
        figure = joint_figure("net", {"net": (binary.evaluators[KEY].joint(), bins, error)}, 0.95)
        dots = figure.axes[0].get_lines()[-1]
        np.testing.assert_array_equal(dots.get_ydata(), [b.accuracy for b in bins if b.n])
        assert f"{written(binary, 'ece')['value']:.4f}" in figure.axes[0].get_title(loc="left")
        inside(figure)


@pytest.fixture(scope="module")
def maps() -> list[tuple[Any, Any]]:
    """Labels and foreground probabilities of images of several sizes; 7 is void."""
    found = []
    for i in range(8):
        rng = np.random.default_rng(i)
        p = rng.uniform(size=(5 + i % 2, 7))
        label = (rng.uniform(size=p.shape) < p**2).astype(int)
        label[0, :2] = 7
        found.append((label, p))
    return found


class TestDisplay:
    @pytest.mark.parametrize(("event", "metric"), [("top-label", "ece"), ("foreground", "ece_fg")])
    def test_maps_have_the_numbers_of_evaluate(self, maps: list[tuple[Any, Any]], event: Event, metric: str) -> None:
        display = ReliabilityDisplay.from_predictions(
            *zip(*maps, strict=True), n_bins=10, event=event, ignore_index=7, n_boot=100, seed=5, name="net"
        )
        images = [
            Sample(str(i), p, np.where(label == 7, 0, label), label != 7, "probabilities")
            for i, (label, p) in enumerate(maps)
        ]
        table = evaluate(images, metrics=metric, bins=10, n_boot=100, seed=5)
        row = table[table.average == "pixels"].iloc[0]
        assert (display.error.value, display.error.low, display.error.high) == (row.value, row.low, row.high)
        assert sum(b.n for b in display.bins) == row.n_pixels
        assert f"net\n{'top-label' if metric == 'ece' else 'foreground'} ECE {row.value:.4f}" in texts(
            display.plot().figure_
        )

    def test_stacks_and_classes(self) -> None:
        names, logits, labels = zip(*class_samples(5), strict=True)
        scores = np.exp(logits - np.max(logits, 1, keepdims=True))
        probs = scores / scores.sum(1, keepdims=True)
        display = ReliabilityDisplay.from_predictions(np.stack(labels), probs, n_boot=0)
        images = [Sample(*parts, kind="probabilities") for parts in zip(names, probs, labels, strict=True)]
        assert display.error.value == evaluate(images, metrics="ece", n_boot=0)["value"][0]
        one = ReliabilityDisplay.from_predictions(labels[0], probs[0], n_boot=0)
        assert one.error.value == evaluate(images[:1], metrics="ece", n_boot=0)["value"][0]
        with pytest.raises(UnknownName, match="'foreground'; known: top-label"):
            ReliabilityDisplay.from_predictions(labels[0], probs[0], event="foreground")

    @pytest.mark.parametrize("n", [300, 1500])
    def test_samples_have_the_numbers_of_a_table(self, n: int, tmp_path: Path) -> None:
        rng = np.random.default_rng(n)
        probs = rng.dirichlet(np.ones(4), n)
        labels = (rng.uniform(size=(n, 1)) > probs.cumsum(1)).sum(1)
        np.savez(tmp_path / "net.npz", softmax=probs, label=labels)
        run = collect(pred=tmp_path / "net.npz", input="probabilities")
        row = evaluate(run, metrics="ece", n_boot=100).iloc[0]
        display = ReliabilityDisplay.from_predictions(labels, probs, n_boot=100)
        np.testing.assert_allclose(
            [display.error.value, display.error.low, display.error.high], [row.value, row.low, row.high], rtol=1e-9
        )
        assert display.error.n_images == row.n_images
        assert f"{n:,} samples".replace(",", "\u00a0") in texts(display.plot().figure_)

    def test_binary_samples_are_those_of_one_image(self) -> None:
        rng = np.random.default_rng(1)
        p = rng.uniform(size=1200).astype(np.float32)
        y = (rng.uniform(size=1200) < p**2).astype(int)
        display = ReliabilityDisplay.from_predictions(y, p, event="foreground", n_boot=0)
        whole = ReliabilityDisplay.from_predictions(y[None], p[None], event="foreground", n_boot=0)
        assert display.error.value == pytest.approx(whole.error.value, rel=1e-12)
        assert whole.error.n_images == 1 < display.error.n_images <= 1000

    @pytest.mark.parametrize(
        ("y_true", "y_prob", "error", "message"),
        [
            (np.zeros(3, int), np.zeros(4), ShapeError, r"y_true has shape \(3,\) and y_prob \(4,\)"),
            (np.zeros((2, 3, 4), int), np.zeros((3, 3, 4)), ShapeError, "y_true holds 2 images, y_prob 3"),
            (np.zeros((3, 4), int), np.zeros((4, 3)), ShapeError, r"\(3, 4\)"),
            (np.zeros((1, 1, 3, 4), int), np.zeros((1, 1, 3, 4)), ShapeError, "expected labels"),
            ([], [], InputError, "no samples"),
        ],
    )
    def test_what_does_not_go_together(self, y_true: Any, y_prob: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            ReliabilityDisplay.from_predictions(y_true, y_prob)

    def test_results_and_their_folder(self, binary: Results, tmp_path: Path) -> None:
        bins, error = binary.diagrams[KEY]["foreground"]
        binary.write(tmp_path)
        evaluator: Evaluator = binary.evaluators[KEY]
        for source in (binary, evaluator, tmp_path, str(tmp_path)):
            display = ReliabilityDisplay.from_results(source, event="foreground")
            assert (display.error, display.level) == (error, 0.95)
            np.testing.assert_array_equal(
                [(b.accuracy, b.low) for b in display.bins], [(b.accuracy, b.low) for b in bins]
            )
            assert display.name == (None if source is evaluator else "method on dataset")

    def test_one_method_is_chosen(self, binary: Results) -> None:
        [rows] = binary.run.combinations.values()
        run = replace(binary.run, combinations={(d, m): rows for d in ("d1", "d2") for m in ("m1", "m2")})
        results = Results(run, Settings(metrics=("ece",), n_boot=0))
        assert ReliabilityDisplay.from_results(results, dataset="d1", method="m2").name == "m2 on d1"
        with pytest.raises(OptionError, match=r"2 datasets:\n  d1\n  d2\nsay which by dataset="):
            ReliabilityDisplay.from_results(results, method="m2")
        with pytest.raises(OptionError, match="say which by method="):
            ReliabilityDisplay.from_results(results, dataset="d2")
        with pytest.raises(UnknownName, match="no method 'm3'; known: m1, m2"):
            ReliabilityDisplay.from_results(results, dataset="d2", method="m3")
        with pytest.raises(UnknownName, match="no calibrator 'temperature'"):
            ReliabilityDisplay.from_results(results, dataset="d2", method="m1", calibrator="temperature")

    def test_axes_of_others_are_drawn_into(self) -> None:
        display = ReliabilityDisplay(made_bins(), made_value(), name="net")
        picture = display._repr_png_()
        assert picture is not None
        assert picture.startswith(b"\x89PNG")
        figure = Figure()
        left, right = figure.subplots(1, 2)
        assert display.plot(left, name="other") is display
        assert (display.ax_, display.histogram_ax_, display.figure_) == (left, None, figure)
        assert left.get_title(loc="left").startswith("other\ntop-label ECE 0.0812")
        assert left.get_xlabel() == "confidence (largest probability)"
        assert display._repr_png_() is None, "that figure shows itself"
        display.plot((left, right))
        assert (display.histogram_ax_, right.get_yscale()) == (right, "log")


class TestPictures:
    @pytest.mark.parametrize("name", FIGURES)
    def test_figures_look_as_they_did(self, name: str, tmp_path: Path) -> None:
        same_as_baseline(FIGURES[name](), name, tmp_path)

    @pytest.mark.parametrize("change", ["height", "colour", "missing", "line", "class", "density"])
    def test_a_change_is_seen(self, change: str, tmp_path: Path) -> None:
        name = {"line": "overlay", "class": "class_grid", "density": "joint"}.get(change, "reliability")
        figure = FIGURES[name]()
        ax: Axes = figure.axes[0]
        if change == "height":
            bar = ax.patches[1]
            bar.set_height(bar.get_height() + 0.02)  # type: ignore[attr-defined]
        elif change == "colour":
            ax.patches[-1].set_facecolor("#009E73")
        elif change == "missing":
            figure.axes[1].patches[0].remove()
        elif change == "line":
            ax.get_lines()[0].set_color("#009E73")
        elif change == "class":
            figure.axes[2].patches[3].remove()
        else:
            ax.collections[0].set_cmap("Greys")
        with pytest.raises(AssertionError, match="Image files did not match"):
            same_as_baseline(figure, name, tmp_path)


def test_events_of_bins_are_named(several: Results) -> None:
    """A class is no event of the rows: `diagrams` leaves it out."""
    found: Mapping[Event, Any] = several.diagrams[KEY]
    assert set(found) == {"top-label"}
    bins = several.evaluators[KEY].class_reliability()[0]
    ax = reliability_diagram(bins, Figure().subplots())
    assert ax.get_ylabel() == "share of the class"
    assert ax.get_xlim() == (0, 1)
    assert METRICS["ece_classwise"].reads.needs == "probabilities or logits of several classes"
