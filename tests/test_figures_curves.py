"""Curves, distributions, regions and scatter: what is drawn is what the table says."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from figure_baselines import same_as_baseline
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from calbench import Results, Run, Settings, collect
from calbench.evaluate import EntropyBin, Value
from calbench.metrics import ranking
from calbench.report.figures import bars, curves, distributions, scatter
from calbench.report.style import OVER, UNDER, looks, rendered
from calbench.results import Key
from calbench.statistics import ReliabilityCells
from calbench.statistics.histogram import LEVELS
from calbench.synthetic import samples

METHODS = {"calm": 0.4, "fair": 1.0, "sure $1$": 2.5}
LOOKS = looks(METHODS)
METRICS = ("auroc", "ap", "aurc", "max_f", "max_e", "mae", "ece")


@cache
def results() -> Results:
    """Three methods on 12 synthetic images, with regions."""
    rows = {("set", name): collect(samples(12, s), scores=(), regions=True) for name, s in METHODS.items()}
    run = Run({key: next(iter(run.combinations.values())) for key, run in rows.items()})
    return Results(run, Settings(metrics=METRICS, n_boot=100))


def of_methods(metric: str, average: str) -> dict[str, Value]:
    return {name: value(Key("set", name), metric, average) for name in METHODS}


def value(key: Key, metric: str, average: str) -> Value:
    (found,) = (v for v in results().values()[key] if (v.metric, v.average) == (metric, average))
    return found


def drawn_curves(kind: curves.Kind) -> dict[str, curves.Points | np.ndarray]:
    """The curves of each method as a report gets them."""
    evaluators = {name: results().evaluators[Key("set", name)] for name in METHODS}
    if kind in ("f", "e"):
        return {name: evaluator.curves()[kind] for name, evaluator in evaluators.items()}
    if kind == "risk-coverage":
        return {name: ranking.risk_coverage_points(e.pooled.reliability("top-label")) for name, e in evaluators.items()}
    points = ranking.roc_points if kind == "roc" else ranking.precision_recall_points
    foreground = {name: evaluator.pooled.reliability("foreground") for name, evaluator in evaluators.items()}
    return {name: points(cells.correct, cells.count - cells.correct) for name, cells in foreground.items()}


KINDS: dict[curves.Kind, tuple[str, str]] = {
    "roc": ("auroc", "pixels"),
    "precision-recall": ("ap", "pixels"),
    "risk-coverage": ("aurc", "pixels"),
    "f": ("max_f", "images"),
    "e": ("max_e", "images"),
}


def curves_of(kind: curves.Kind) -> Figure:
    return curves.curves_figure(kind, f"{kind} on set", drawn_curves(kind), of_methods(*KINDS[kind]), LOOKS, 0.95)


def per_image() -> dict[str, np.ndarray]:
    return {name: results().evaluators[Key("set", name)].per_image()["ece"] for name in METHODS}


def distribution() -> Figure:
    means = of_methods("ece", "images")
    return distributions.distribution_figure("ECE of each image of set", per_image(), means, LOOKS, 0.95)


def entropy_bins() -> dict[str, list[EntropyBin]]:
    return {name: results().evaluators[Key("set", name)].entropy_histogram() for name in METHODS}


def mirrored(bins: list[EntropyBin]) -> list[EntropyBin]:
    """A set that is unsure where the other is sure, with no pixel in its second bin."""
    return [replace(b, n=0 if b.bin == 1 else other.n) for b, other in zip(bins, reversed(bins), strict=True)]


def entropy() -> Figure:
    panels = {name: (bins, {"out": mirrored(bins), "same": bins}) for name, bins in entropy_bins().items()}
    return distributions.entropy_figure("Predictive entropy of set", panels)


def by_region() -> dict[str, dict[str, Value]]:
    regions = dict.fromkeys(key.region for key in results().evaluators)
    return {name: {r: value(Key("set", name, r), "ece", "pixels") for r in regions} for name in METHODS}


def regions() -> Figure:
    return bars.region_figure("ECE by region of set", "ece", by_region(), LOOKS, 0.95)


def errors() -> dict[str, tuple[Value, Value]]:
    mae, ece = of_methods("mae", "images"), of_methods("ece", "pixels")
    return {name: (mae[name], ece[name]) for name in METHODS}


def against() -> Figure:
    return scatter.scatter_figure("MAE against ECE on set", errors(), LOOKS, 0.95)


FIGURES: dict[str, Callable[[], Figure]] = {
    **{f"curve_{kind}": partial(curves_of, kind) for kind in KINDS},
    "per_image": distribution,
    "entropy": entropy,
    "regions": regions,
    "scatter": against,
}
"""What the pictures in tests/baselines show."""


@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_they_did(name: str, tmp_path: Path) -> None:
    same_as_baseline(FIGURES[name](), name, tmp_path)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_stay_within_one_column(name: str) -> None:
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    assert width == 3.5
    box = figure.get_tightbbox()
    assert min(box.x0, box.y0) >= 0, "nothing is cut off"
    assert box.x1 <= width
    assert box.y1 <= height


# --- the points of curves ------------------------------------------------------------------------------------------------

counts = st.lists(st.integers(0, 5), min_size=6, max_size=6).map(np.array)
quick = settings(max_examples=60, deadline=None)


def steps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.diff(x) * y[..., 1:]).sum(-1)


@quick
@given(counts, counts)
def test_areas_under_the_points_are_the_metrics(positives: np.ndarray, negatives: np.ndarray) -> None:
    fpr, tpr = ranking.roc_points(positives, negatives)
    np.testing.assert_allclose(np.trapezoid(tpr, fpr), ranking.area_under_roc(positives, negatives), atol=1e-12)
    recall, precision = ranking.precision_recall_points(positives, negatives)
    np.testing.assert_allclose(steps(recall, precision), ranking.average_precision_of(positives, negatives), atol=1e-12)
    score = np.linspace(0.5, 1, len(positives))
    cells = ReliabilityCells.exact(("a",), (positives + negatives)[None], positives[None], score)
    coverage, risk = ranking.risk_coverage_points(cells)
    assert coverage.shape == risk.shape == (1, 7)
    np.testing.assert_allclose(steps(coverage, risk), ranking.aurc(cells), atol=1e-12)
    np.testing.assert_allclose(risk[0, -1], negatives.sum() / max((positives + negatives).sum(), 1) or risk[0, -1])


@quick
@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_points_are_those_of_scikit_learn_on_pixels(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    level, y = generator.integers(0, 8, n), generator.random(n) < 0.4
    y[:2] = True, False
    positives, negatives = (np.bincount(level[y == side], minlength=8) for side in (True, False))
    occupied = np.append(True, (positives + negatives)[::-1] > 0)
    got = [points[occupied] for points in ranking.roc_points(positives, negatives)]
    np.testing.assert_allclose(got, roc_curve(y, level, drop_intermediate=False)[:2], atol=1e-12)
    precision, recall, _ = precision_recall_curve(y, level)
    got = [points[occupied][1:] for points in ranking.precision_recall_points(positives, negatives)]
    # scikit-learn ends at precision 1 without a threshold; ours starts at the precision of the first
    np.testing.assert_allclose(got, [recall[-2::-1], precision[-2::-1]], atol=1e-12)


def test_points_keep_leading_axes_and_are_undefined_together() -> None:
    positives, negatives = np.random.default_rng(0).integers(0, 9, (2, 4, 3, 20))
    positives[0, 0] = 0
    for function in (ranking.roc_points, ranking.precision_recall_points):
        together = function(positives, negatives)
        assert [points.shape for points in together] == [(4, 3, 21)] * 2
        assert np.isnan([points[0, 0] for points in together]).all()
        for at in np.ndindex(4, 3):
            np.testing.assert_array_equal([points[at] for points in together], function(positives[at], negatives[at]))


@pytest.mark.parametrize("kind", ["roc", "precision-recall", "risk-coverage"])
def test_areas_of_a_run_are_those_of_its_table(kind: curves.Kind) -> None:
    table = of_methods(*KINDS[kind])
    area = (lambda x, y: np.trapezoid(y, x)) if kind == "roc" else steps
    for name, (x, y) in drawn_curves(kind).items():
        assert area(x, y) == pytest.approx(table[name].value, abs=1e-12)


# --- curves --------------------------------------------------------------------------------------------------------------


def lines_of(figure: Figure) -> dict[str, np.ndarray]:
    return {str(line.get_label()): line.get_xydata() for line in figure.axes[0].get_lines()}


def corners(kind: curves.Kind, curve: curves.Points | np.ndarray) -> np.ndarray:
    if kind in ("f", "e"):
        return np.stack([np.arange(LEVELS), curve], axis=1)
    return np.stack(curve if kind == "roc" else curves.stairs(*curve), axis=1)


def distances(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """How far each point lies from a line of several stretches."""
    along = np.diff(line, axis=0)
    offset = points[:, None] - line[:-1]
    share = np.clip((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-300), 0, 1)
    return np.linalg.norm(offset - share[..., None] * along, axis=-1).min(1)


@pytest.mark.parametrize("kind", KINDS)
def test_lines_run_through_the_points(kind: curves.Kind) -> None:
    figure = curves_of(kind)
    (ax,) = figure.axes
    extent = np.array([np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
    lines = lines_of(figure)
    for name, curve in drawn_curves(kind).items():
        points, line = corners(kind, curve), lines[name.replace("$", r"\$")]
        assert set(map(tuple, line)) <= set(map(tuple, points)), "every corner of the line is a point"
        np.testing.assert_array_equal(line[[0, -1]], points[[0, -1]])
        assert distances(points / extent, line / extent).max() <= curves.TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_legends_say_the_numbers_of_the_table(kind: curves.Kind) -> None:
    (legend,) = curves_of(kind).legends
    metric, average = KINDS[kind]
    assert legend.get_title().get_text() in (f"{metric} ↑, 95 % interval", f"{metric} ↓, 95 % interval")
    for text, (name, number) in zip(legend.get_texts(), of_methods(metric, average).items(), strict=True):
        shown = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]  (.+)", text.get_text())
        assert shown is not None
        assert shown[4] == name.replace("$", r"\$")
        said = [float(part) for part in shown.groups()[:3]]
        assert said == [round(part, 4) for part in (number.value, number.low, number.high)]


@pytest.mark.parametrize(("kind", "metric"), [("f", "max_f"), ("e", "max_e")])
def test_maxima_are_those_of_the_table(kind: curves.Kind, metric: str) -> None:
    (ax,) = curves_of(kind).axes
    dots = [line.get_xydata()[0] for line in ax.get_lines() if len(line.get_xydata()) == 1]
    table = of_methods(metric, "images")
    for (threshold, height), (name, curve) in zip(dots, drawn_curves(kind).items(), strict=True):
        assert height == pytest.approx(table[name].value, abs=1e-12)
        assert curve[int(threshold)] == height


def test_methods_without_a_curve_are_named_and_have_no_line() -> None:
    given = drawn_curves("roc")
    undefined = np.full(3, np.nan)
    given |= {"calm": (undefined, undefined)}
    del given["sure $1$"]
    figure = curves.curves_figure("roc", "t", given, of_methods("auroc", "pixels"), LOOKS, 0.95)
    assert figure.axes[0].get_xlabel().splitlines()[1:] == [
        "not drawn, undefined: calm",
        r"not drawn, no curve: sure \$1\$",
    ]
    (legend,) = figure.legends
    assert [text.get_text().split()[-1] for text in legend.get_texts()] == ["fair"]


def test_the_risk_axis_holds_every_risk_that_is_sure() -> None:
    coverage = np.array([0, 0.001, 0.3, 1])
    ax = curves.risk_coverage({"a": (coverage, np.array([1, 1, 0.05, 0.1]))}, looks("a"), Figure().subplots())
    assert ax.get_ylim() == pytest.approx((0, 0.108))
    perfect = curves.risk_coverage({"a": (coverage, np.zeros(4))}, looks("a"), Figure().subplots())
    assert perfect.get_ylim() == (0, 1)


@pytest.mark.parametrize("kind", ["precision-recall", "risk-coverage"])
def test_vector_files_of_many_fine_curves_stay_small(kind: curves.Kind) -> None:
    x = np.linspace(0, 1, 683)
    y = {f"m{i:02}": 0.8 * x ** (1 + i / 4) + 0.1 for i in range(12)}
    points = {name: (x, 1 - of if kind == "precision-recall" else of) for name, of in y.items()}
    table = dict.fromkeys(points, of_methods(*KINDS[kind])["fair"])
    svg = rendered(curves.curves_figure(kind, "t", points, table, looks(points), 0.95), ["svg"])["svg"]
    assert len(svg) < 60_000


def test_points_that_a_line_needs_keep_corners_and_spikes() -> None:
    x = np.linspace(0, 1, 401)
    spike = np.where(np.arange(401) == 200, 0.01, 0.0)
    assert np.flatnonzero(curves.needed(np.stack([x, spike], 1))).tolist() == [0, 199, 200, 201, 400]
    assert curves.needed(np.zeros((3, 2))).tolist() == [True, False, True]
    assert curves.needed(np.zeros((1, 2))).tolist() == [True]


# --- distributions -------------------------------------------------------------------------------------------------------


def test_rows_show_quartiles_median_mean_and_every_image() -> None:
    (ax,) = distribution().axes
    marks = [line.get_xdata() for line in ax.get_lines()]
    for row, (name, number) in enumerate(of_methods("ece", "images").items()):
        column = per_image()[name]
        everything, most, half, median, mean = marks[5 * row : 5 * row + 5]
        np.testing.assert_allclose(everything, [column.min(), column.max()])
        np.testing.assert_allclose(most, np.quantile(column, [0.05, 0.95]))
        np.testing.assert_allclose(half, np.quantile(column, [0.25, 0.75]))
        assert median == np.median(column)
        assert mean == number.value
        assert column.mean() == pytest.approx(number.value)
        np.testing.assert_array_equal(ax.collections[row].get_offsets()[:, 0], column)
        assert f"{number.value:.4f} [{number.low:.4f}, {number.high:.4f}]" in ax.texts[row].get_text()
    heights = np.concatenate([dots.get_offsets()[:, 1] for dots in ax.collections])
    (again,) = distribution().axes
    np.testing.assert_array_equal(np.concatenate([d.get_offsets()[:, 1] for d in again.collections]), heights)


def test_images_without_a_value_are_counted_and_many_have_no_dots() -> None:
    number = replace(of_methods("ece", "images")["fair"], n_undefined=2)
    none = replace(number, value=np.nan, low=np.nan, high=np.nan, n_undefined=3)
    columns = {"few": np.array([0.1, np.nan, 0.3, np.nan]), "none": np.full(3, np.nan), "many": np.linspace(0, 1, 300)}
    means = {"few": number, "none": none, "many": replace(number, n_undefined=0)}
    ax = distributions.per_image_distribution(columns, means, looks(columns), Figure().subplots())
    assert [text.get_text() for text in ax.texts if "undefined" in text.get_text()] == ["2 undefined", "3 undefined"]
    assert [dots.get_offsets()[:, 0].tolist() for dots in ax.collections] == [[0.1, 0.3]]
    assert len(ax.get_lines()) == 10, "two rows; nothing is drawn of a method without values"
    assert ax.texts[2].get_text() == "none   –"


def test_steps_are_the_shares_of_the_pixels_by_side() -> None:
    bins = entropy_bins()["fair"]
    ax = distributions.entropy_histograms({"in": bins}, {"out": mirrored(bins)}, Figure().subplots())
    n = np.array([b.n for b in bins])
    floor = n[n > 0].min() / n.sum() / 2
    inside, outside = ax.patches
    heights, edges, baseline = inside.get_data()
    np.testing.assert_allclose(heights, np.maximum(n / n.sum(), floor))
    np.testing.assert_allclose(edges, np.linspace(0, np.log(2), 21))
    flipped = n[::-1] * (np.arange(20) != 1)
    np.testing.assert_allclose(outside.get_data()[0], np.maximum(flipped / flipped.sum(), baseline))
    assert ax.get_ylim()[0] == baseline
    assert [to_hex(patch.get_edgecolor()).upper() for patch in ax.patches] == [UNDER, OVER]


def test_empty_bins_and_sets_do_not_warn_and_are_named(tmp_path: Path) -> None:
    bins = [EntropyBin(b, b / 4, (b + 1) / 4, n) for b, n in enumerate([9, 0, 0, 1])]
    empty = [replace(b, n=0) for b in bins]
    figure = distributions.entropy_figure("t", {"_a": (bins, {"none": [], "_zero": empty}), "b": (bins, {"o": bins})})
    assert rendered(figure, ["png"])["png"]
    first, second = figure.axes
    assert first.get_xlabel().splitlines() == ["predictive entropy (nats)", "not drawn, no pixels: none, _zero"]
    assert first.get_ylim() == second.get_ylim() == (0.05, 1)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["in distribution", "o"]


def test_panels_share_the_axis_of_the_smallest_share() -> None:
    lowest = min(b.n / sum(c.n for c in bins) for bins in entropy_bins().values() for b in bins if b.n)
    axes = entropy().axes
    assert len(axes) == 3
    for ax in axes:
        assert ax.get_ylim()[0] <= lowest / 2 * (1 + 1e-12)
        assert all(patch.get_data().baseline == ax.get_ylim()[0] for patch in ax.patches)


# --- regions and scatter -------------------------------------------------------------------------------------------------


def test_points_and_intervals_of_regions_are_those_of_the_table() -> None:
    (ax,) = regions().axes
    dots = {str(line.get_label()): line.get_xydata() for line in ax.get_lines()}
    names = list(next(iter(by_region().values())))
    assert names == ["all", "boundary", "interior_fg", "interior_bg", "size_q1", "size_q2", "size_q3", "size_q4"]
    for (name, of_method), whiskers in zip(by_region().items(), ax.collections, strict=True):
        points = dots[name.replace("$", r"\$")]
        np.testing.assert_array_equal(points[:, 0], [v.value for v in of_method.values()])
        np.testing.assert_array_equal(np.round(points[:, 1]), range(len(names)))
        drawn = np.array(whiskers.get_segments())
        known = {at: v for at, v in zip(points[:, 1], of_method.values(), strict=True) if np.isfinite(v.low)}
        np.testing.assert_array_equal(drawn[:, :, 0], [(v.low, v.high) for v in known.values()])
        np.testing.assert_array_equal(drawn[:, 0, 1], list(known))
    assert [t.get_text() for t in ax.get_yticklabels()][:3] == ["all pixels", "boundary", "interior,\nforeground"]


def test_regions_without_a_value_are_named() -> None:
    values = by_region()
    values["calm"]["boundary"] = replace(values["calm"]["boundary"], value=np.nan)
    del values["fair"]["size_q4"]
    ax = bars.region_bars(values, LOOKS, Figure().subplots(), metric="ece")
    assert ax.get_xlabel() == "ece ↓\nnot drawn, undefined: calm boundary, fair size_q4"
    assert [len(line.get_xydata()) for line in ax.get_lines()][:3] == [7, 7, 8]


def test_points_and_crosses_of_the_scatter_are_those_of_the_table() -> None:
    (ax,) = against().axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mae ↓", "ece ↓")
    crosses = [collection.get_segments()[0] for collection in ax.collections]
    for place, (x, y) in enumerate(errors().values()):
        assert ax.get_lines()[place].get_xydata().tolist() == [[x.value, y.value]]
        across, along = crosses[2 * place : 2 * place + 2]
        assert across.tolist() == [[x.low, y.value], [x.high, y.value]]
        assert along.tolist() == [[x.value, y.low], [x.value, y.high]]


def test_undefined_points_are_named_and_intervals_that_are_not_there_not_drawn() -> None:
    points = errors()
    points["calm"] = (points["calm"][0], replace(points["calm"][1], value=np.nan))
    points["fair"] = tuple(replace(number, low=np.nan, high=np.nan) for number in points["fair"])
    points["_new"] = points.pop("sure $1$")
    figure = scatter.scatter_figure("t", points, looks(points), 0.9)
    (ax,) = figure.axes
    assert ax.get_xlabel() == "mae ↓\nnot drawn, undefined: calm"
    assert len(ax.get_lines()) == len(ax.collections) == 2, "two points; the cross of one"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["fair", " _new"]
    assert legend.get_title().get_text() == "lines: 90 % intervals"


def test_figures_can_be_made_by_another_process() -> None:
    makers = [
        partial(curves.curves_figure, "f", "t", drawn_curves("f"), of_methods("max_f", "images"), LOOKS, 0.95),
        partial(distributions.distribution_figure, "t", per_image(), of_methods("ece", "images"), LOOKS, 0.95),
        partial(distributions.entropy_figure, "t", {"a": (entropy_bins()["fair"], {})}),
        partial(bars.region_figure, "t", "ece", by_region(), LOOKS, 0.95),
        partial(scatter.scatter_figure, "t", errors(), LOOKS, 0.95),
    ]
    for maker in makers:
        there = pickle.loads(pickle.dumps(maker))
        assert rendered(there(), ["svg"]) == rendered(maker(), ["svg"])
