"""Laws that every metric of the registry obeys, the one binning rule, and equality with the textbook oracles.

The laws of the registry hold for each metric on every kind of predictions that gives it: 8-bit maps, float maps, logits of
several classes, maps that a calibrator changed; metrics of out-of-distribution sets are held to them on images without
masks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import (
    CLASSES,
    KINDS,
    OPTIONS,
    Image,
    evaluator,
    histogram_of,
    images,
    metrics_of,
    number,
    row,
    scene,
    scenes,
    statistics_of,
    values,
    without_masks,
)

from calbench.evaluate import Evaluator, Settings
from calbench.kernels import measure_float_map, measure_levels
from calbench.measure import measure_sample
from calbench.metrics import METRICS, Metric
from calbench.ood import Separation
from calbench.statistics import JointHistogram, KeptScores, ReliabilityCells, Rows, Run, Statistics
from calbench.statistics.reliability import bin_index, equal_mass, equal_width
from calbench.statistics.storage import load_run, save_run

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
every_kind = pytest.mark.parametrize("kind", KINDS)

DETECTION = tuple(name for name, metric in METRICS.items() if metric.scope == "id-ood")
GIVEN = [(kind, name) for kind in KINDS for scope in ("id", "ood") for name in metrics_of(kind, scope)]
"""Each kind of predictions with each metric that it gives."""


def each(condition: Callable[[Metric], object] = lambda _: True) -> pytest.MarkDecorator:
    """Parameters kind and name: the metrics that fulfil the condition, on every kind that gives them."""
    return pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in GIVEN if condition(METRICS[name])])


ASKED_FOR = (
    "ece", "ece_fg", "aece", "aece_fg", "ece_sweep", "ce2_debiased", "ce2_debiased_cluster", "rmsce_debiased",
    "rmsce_debiased_cluster", "mce", "rmsce", "oe", "over", "under", "gap", "ks", "smece", "brier", "brier_reliability",
    "brier_resolution", "brier_uncertainty", "nll", "entropy", "accuracy", "auroc", "ap", "mae", "mae_raw", "max_f",
    "mean_f", "adp_f", "weighted_f", "max_e", "mean_e", "adp_e", "s_measure", "max_iou", "mean_iou", "adp_iou",
    "max_dice", "mean_dice", "adp_dice", "ece_classwise", "tace", "average_ce", "auroc_error", "aupr_error",
    "aupr_success", "fpr95_error", "aurc", "eaurc", "augrc", "pixel_accuracy", "class_accuracy", "miou", "fw_iou", "mdice",
    "entropy_normalised", "ood_entropy", "ood_ece", "ood_oe", "ood_auroc", "ood_aupr_in", "ood_aupr_out", "ood_fpr95",
)  # fmt: skip

NOISE_SUBTRACTED = {
    "ce2_debiased",
    "ce2_debiased_cluster",
    "rmsce_debiased",
    "rmsce_debiased_cluster",
    "aslp_debias",
    "aslp_debias_oe",
}
"""Estimates that subtract sampling noise: signed, and twice the data is less noise."""

SOFTENED = {"aslp_ece", "aslp_oe"}
"""Cell means are divided by n + 1e-6."""

NEEDS_ERRORS = {"auroc_error", "aupr_error", "fpr95_error"}
"""Undefined where every decision is right: there is nothing to find."""

CLIPPED_NLL = {
    "8-bit": -np.log(509 / 510),
    "float": -np.log1p(-np.finfo(np.float32).eps),
    "classes": 0,
    "calibrated": 0,
}
"""−ln P of a perfect prediction: half a level is kept off, or the unit of float32, or nothing from logits."""


# --- statistics of scenes, each made once -----------------------------------------------------------------------------

Change = Callable[[list[Image]], list[Image]]


def six(kind: str, name: str, change: Change = list) -> Statistics:
    """Six images with void, for one metric, after a change of the images."""
    return _measured(kind, METRICS[name].scope, 6, 0, True, change)


def forty(kind: str, name: str, change: Change = list) -> Statistics:
    """Forty images without void."""
    return _measured(kind, METRICS[name].scope, 40, 100, False, change)


@cache
def _measured(kind: str, scope: str, n: int, first: int, void: bool, change: Change) -> Statistics:
    pictures = scenes(n, kind=kind, first=first, void=void)
    return statistics_of(change(pictures if scope == "id" else without_masks(pictures)))


def turned(pictures: list[Image]) -> list[Image]:
    return pictures[::-1]


def twice(pictures: list[Image]) -> list[Image]:
    return pictures * 2


def emptied(pictures: list[Image]) -> list[Image]:
    return [image._replace(valid=np.zeros(image.scores.shape[-2:], bool)) for image in pictures]


def and_an_empty_one(pictures: list[Image]) -> list[Image]:
    return [*pictures, *emptied(pictures[:1])]


def scribbled(pictures: list[Image]) -> list[Image]:
    """Anything under void: any byte, NaN and numbers that are no probabilities, classes that there are not."""
    generator = np.random.default_rng(5)

    def scribble(image: Image) -> Image:
        noise = generator.integers(0, 256, (2, *image.valid.shape), dtype=np.uint8)
        scores = noise[0] if image.scores.dtype == np.uint8 else np.where(noise[0] < 50, np.nan, noise[0] - 128.0)
        return image._replace(
            scores=np.where(image.valid, image.scores, scores).astype(image.scores.dtype),
            mask=None if image.mask is None else np.where(image.valid, image.mask, noise[1]),
        )

    return [scribble(image) for image in pictures]


def truth(image: Image) -> np.ndarray:
    """The mask; out of distribution, background everywhere."""
    return np.zeros(image.scores.shape[-2:], np.uint8) if image.mask is None else image.mask


def certain(image: Image, outcome: np.ndarray) -> Image:
    """The image with this outcome, a mask, predicted as surely as can be."""
    if image.scores.ndim == 3:
        classes = np.arange(CLASSES)[:, None, None]
        return image._replace(scores=np.where(classes == outcome, 200, 0).astype(np.float32))
    return image._replace(scores=outcome if image.scores.dtype == np.uint8 else (outcome > 128).astype(np.float32))


def perfect(pictures: list[Image]) -> list[Image]:
    return [certain(image, truth(image)) for image in pictures]


def inverted(pictures: list[Image]) -> list[Image]:
    """Wrong everywhere, and sure of it."""
    return [
        certain(image, (truth(image) + 1) % CLASSES if image.scores.ndim == 3 else 255 - truth(image))
        for image in pictures
    ]


def numbers(statistics: Statistics, name: str) -> dict[str, float]:
    return {of: value.value for of, value in values(statistics, name).items()}


def options_of(metric: Metric) -> dict[str, object]:
    return {name: OPTIONS[name] for name in metric.options}


def same(a: Statistics, b: Statistics) -> bool:
    """Bit for bit the same rows of the same kinds under the same names, and the same conventions."""

    def same_field(x: object, y: object) -> bool:
        if not isinstance(x, np.ndarray):
            return x == y
        return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f")

    return (
        a.names == b.names
        and a.conventions == b.conventions
        and a.parts.keys() == b.parts.keys()
        and all(
            same_field(getattr(a.parts[part], f.name), getattr(b.parts[part], f.name))
            for part in a.parts
            for f in dataclasses.fields(a.parts[part])
        )
    )


# --- the registry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ASKED_FOR)
def test_metric_asked_for_exists(name):
    assert METRICS[name].name == name


@pytest.mark.parametrize("name", METRICS)
def test_metric_says_what_it_is(name):
    metric = METRICS[name]
    assert metric.definition
    assert metric.source
    assert metric.function.__doc__, f"{name}: the function has no docstring"


def test_every_metric_is_held_to_the_laws():
    assert {name for _, name in GIVEN} | set(DETECTION) == set(METRICS)


# --- merging, order, leading axes -----------------------------------------------------------------------------------


@every_kind
@quick
@given(st.data())
def test_split_anywhere_and_concat_is_the_whole(kind, data):
    whole = statistics_of(data.draw(st.lists(images(kind), min_size=2, max_size=5)))
    cut = data.draw(st.integers(1, len(whole.names) - 1))
    order = data.draw(st.permutations(range(len(whole.names))))
    parts = [whole.select(order[:cut]), whole.select(order[cut:])]
    assert same(Statistics.concat(parts), whole)
    for part, rows in whole.total().parts.items():
        for field in rows.row_fields():
            pooled, added = getattr(rows, field), sum(getattr(piece.total().parts[part], field) for piece in parts)
            if pooled.dtype.kind == "i":
                assert np.array_equal(added, pooled), (part, field)
            else:
                np.testing.assert_allclose(added, pooled, rtol=1e-12, atol=1e-12, err_msg=f"{part}.{field}")


@each()
def test_order_of_images_is_irrelevant(kind, name):
    """Other names, hence other rows: counts pool to the same bits; sums of floats differ in the last bits only."""
    metric = METRICS[name]
    other = numbers(six(kind, name, turned), name)
    for of, value in numbers(six(kind, name), name).items():
        exact = kind == "8-bit" and of.startswith("pixels") and metric.rows == "pooled"
        assert other[of] == (value if exact else pytest.approx(value, rel=1e-12, abs=1e-15)), of


def functions(metric: Metric) -> list[Callable[..., np.ndarray]]:
    """Statistic -> number, and statistic -> number of each class."""
    return [metric.function, *([metric.by_class] if metric.by_class else [])]


@each(lambda metric: metric.per_image)
def test_stack_of_images_gives_each_image_its_own_value(kind, name):
    metric, options, rows = METRICS[name], options_of(METRICS[name]), six(kind, name)
    for function in functions(metric):
        stacked = function(metric.reads(rows), **options)
        assert len(stacked) == len(rows.names)
        for i in range(len(rows.names)):
            alone = function(metric.reads(rows.select([i])), **options)[0]
            np.testing.assert_allclose(stacked[i], alone, rtol=1e-12, atol=1e-15)
            if metric.average == "pixels":
                pooled = function(metric.reads(rows.select([i]).total()), **options)
                np.testing.assert_allclose(stacked[i], pooled, rtol=1e-12, atol=1e-15)


@each(lambda metric: metric.average == "pixels" and metric.per_image)
def test_any_leading_axes(kind, name):
    """`(replicates, images, ...)` gives the values of each, in its place.

    Kept scores have no such axes: single values cannot be weighted, and their metric takes all of them as one.
    """
    metric, options, rows = METRICS[name], options_of(METRICS[name]), six(kind, name)

    def folded(part: Rows) -> Rows:
        arrays = {f: getattr(part, f).reshape(2, 3, *getattr(part, f).shape[1:]) for f in part.row_fields()}
        return dataclasses.replace(part, names=(), **arrays)

    parts = {of: folded(part) for of, part in rows.parts.items() if not isinstance(part, KeptScores)}
    for function in functions(metric):
        flat = function(metric.reads(rows), **options)
        grid = function(metric.reads(Statistics(**parts)), **options)
        np.testing.assert_allclose(grid, flat.reshape(2, 3, *flat.shape[1:]), rtol=1e-12, atol=1e-15)


@each()
def test_all_images_twice_is_the_same_value(kind, name):
    """Except where sampling noise is subtracted: twice the pixels are taken for twice the evidence.

    The ASLP scripts divide cell means by n + 1e-6, so that doubling n moves their errors by about 1e-6 / n.
    """
    doubled = numbers(six(kind, name, twice), name)
    for of, once in numbers(six(kind, name), name).items():
        if name in NOISE_SUBTRACTED and of == "pixels":
            assert doubled[of] != once
        else:
            assert doubled[of] == pytest.approx(once, rel=1e-7 if name in SOFTENED else 1e-12, abs=1e-15), of


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Statistics]:
    """`six` as it comes back from a file."""

    @cache
    def load(kind: str, scope: str) -> Statistics:
        path = tmp_path_factory.mktemp("laws") / "stats.npz"
        rows = _measured(kind, scope, 6, 0, True, list)
        save_run(Run({("DUTS-TE", "méthode"): rows}, {"bins": 15}, ("a note",)), path)
        back = load_run(path).combinations["DUTS-TE", "méthode"]
        assert same(back, rows)
        return back

    return lambda kind, name: load(kind, METRICS[name].scope)


@each()
def test_saved_and_loaded_statistics_give_the_same_bits(kind, name, loaded):
    assert numbers(loaded(kind, name), name) == numbers(six(kind, name), name)


@every_kind
@quick
@given(st.data())
def test_any_statistics_survive_the_file(kind, tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any-stats.npz"
    pictures = data.draw(st.lists(images(kind), min_size=1, max_size=3))
    names = ["ünïcode/ß", "b.b", "空"][: len(pictures)]
    statistics = statistics_of(pictures, names)
    save_run(Run({("d", "m"): statistics}), path)
    assert same(load_run(path).combinations["d", "m"], statistics)


# --- what counts ----------------------------------------------------------------------------------------------------


@each()
def test_values_under_void_change_no_number(kind, name):
    """Predictions and mask bytes under void are free, also for the metrics that look at positions."""
    assert numbers(six(kind, name, scribbled), name) == numbers(six(kind, name), name)


@every_kind
@quick
@given(st.data(), st.integers(0, 2**32 - 1))
def test_values_under_void_change_no_row(kind, data, seed):
    image = data.draw(images(kind))
    assume(image.valid is not None)
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 256, image.scores.shape).astype(image.scores.dtype)
    mask = generator.integers(0, 256, image.mask.shape, dtype=np.uint8)
    other = image._replace(
        scores=np.where(image.valid, image.scores, scores), mask=np.where(image.valid, image.mask, mask)
    )
    assert same(row("a", image), row("a", other))


@each()
def test_image_without_valid_pixels_is_undefined_and_counted(kind, name):
    before, with_empty = values(six(kind, name), name), six(kind, name, and_an_empty_one)
    for of, value in values(with_empty, name).items():
        assert value.n_undefined == before[of].n_undefined + 1
        assert value.n_undefined == 1 or "class" in of
        assert value.value == pytest.approx(before[of].value, rel=1e-12, abs=1e-15)
    column = evaluator(with_empty, name).per_image().get(name)
    if METRICS[name].per_image:
        assert np.isnan(column[-1])
        assert np.isfinite(column[:-1]).all()


@each()
def test_nothing_but_void_is_undefined(kind, name):
    for value in values(six(kind, name, emptied), name, n_boot=40).values():
        assert np.isnan(value.value)
        assert value.n_undefined == 6


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, name in GIVEN if name in ("ece", "ece_fg", "ece_classwise")],
)
def test_counts_add_up_for_every_number_of_bins(kind, name):
    pooled = six(kind, name).total()
    valid = sum(np.count_nonzero(image.valid) for image in scenes(6, kind=kind, void=True))
    cells = METRICS[name].reads(pooled)
    assert kind == "classes" or pooled.histogram.counts.sum() == valid
    assert (cells.count.sum(-1) == valid).all()
    for bins in range(1, 1001):
        count = cells.binned(bins).count
        assert (count.sum(-1) == valid).all()
        assert count.shape[-1] == bins
    for bins in range(1, 60):
        np.testing.assert_allclose(cells.equal_mass(bins).count, valid / bins, rtol=1e-12)
        assert (cells.equal_mass(bins, "whole").count.sum(-1) == valid).all()


@each()
def test_perfect_prediction_is_best(kind, name):
    """The mask itself as prediction scores no worse than any map, by `better`."""
    metric = METRICS[name]
    best, real, worst = (number(forty(kind, name, change), name) for change in (perfect, list, inverted))
    if name in NEEDS_ERRORS:
        assert np.isnan(best)
        assert np.isfinite(real)
    elif name in NOISE_SUBTRACTED or metric.better == "zero":
        assert best == pytest.approx(0, abs=1e-8)
    elif metric.better == "lower":
        assert best <= np.nanmin([real, worst]) + 1e-8  # a calibrated map is not quite certain
        assert best == pytest.approx(CLIPPED_NLL[kind] if name == "nll" else 0, abs=1e-8)
    elif metric.better == "higher":
        assert best >= np.nanmax([real, worst])
        assert best > real
    else:
        assert metric.better == "none"


# --- one binning rule -----------------------------------------------------------------------------------------------


def test_bin_index_is_right_for_every_level_and_number_of_bins():
    """Against ⌈k · B / 255⌉ − 1 in integers, for p and for max(p, 1 − p) as float64 writes them."""
    k = np.arange(256)
    p = k / 255
    for bins in range(1, 1001):
        assert np.array_equal(bin_index(p, bins), oracles.right_closed_bin(k, bins))
        assert np.array_equal(
            bin_index(np.maximum(p, 1 - p), bins), oracles.right_closed_bin(np.maximum(k, 255 - k), bins)
        )


def test_integer_rule_is_the_definition():
    """The oracle's integers against exact fractions: the bin's left edge < score <= its right edge, 0 in the first."""
    for bins in (1, 2, 7, 10, 15, 49, 50, 51, 85, 100, 255, 999):
        for k in range(256):
            b, score = int(oracles.right_closed_bin(k, bins)), Fraction(k, 255)
            assert Fraction(b, bins) < score <= Fraction(b + 1, bins) or (k == 0 and b == 0)


def test_confidence_and_its_mirror_share_a_cell():
    """Levels k and 255 − k are one confidence, although 1 − k / 255 is another float."""
    counts = np.ones((1, 2, 256), np.int64)
    cells = JointHistogram(("a",), counts).reliability("top-label")
    assert np.allclose(cells.score * 255, np.arange(128, 256), rtol=0, atol=1e-10)
    assert (cells.count == 4).all()


# --- decompositions and norms ---------------------------------------------------------------------------------------


@quick
@given(images())
def test_sums_that_must_hold(image):
    statistics = row("a", image)
    got = {
        name: number(statistics, name)
        for kind, name in GIVEN
        if kind == "8-bit" and METRICS[name].average == "pixels" and METRICS[name].scope == "id"
    }
    if not image.pixels[0].size:
        assert all(np.isnan(value) for value in got.values())
        return
    uncertainty = got["brier_uncertainty"]
    assert got["over"] + got["under"] == pytest.approx(got["ece"], abs=1e-12)
    assert got["over"] - got["under"] == pytest.approx(got["gap"], abs=1e-12)
    assert got["brier_reliability"] - got["brier_resolution"] + uncertainty == pytest.approx(got["brier"], abs=1e-12)
    assert got["corp_miscalibration"] - got["corp_discrimination"] + uncertainty == pytest.approx(
        got["brier"], abs=1e-12
    )
    assert abs(got["gap"]) <= got["ece"] + 1e-12
    assert got["ece"] <= got["rmsce"] + 1e-12 <= got["mce"] + 2e-12
    assert got["corp_miscalibration"] >= -1e-12
    assert got["corp_discrimination"] >= -1e-12


def pixels_of(cells: ReliabilityCells) -> float:
    """Valid pixels of pooled cells: every class counts each of them."""
    return float(cells.count.sum(-1).flat[0])


@each(lambda metric: metric.norm)
def test_norm_is_the_metric(kind, name):
    """(gauge of pooled residuals times weights per pixel) to its power equals the metric's own function.

    Where noise is subtracted the norm is that of the plug-in error, RMSCE or its square. The ASLP scripts divide cell
    means by n + 1e-6, which the norm leaves out: at most 1e-6 / n of a cell.
    """
    metric, options, rows = METRICS[name], options_of(METRICS[name]), forty(kind, name)
    pooled = metric.reads(rows.total())
    norm = metric.norm(pooled, **options)
    gauge = float(norm.gauge(norm.vector(pooled.residual / pixels_of(pooled)))) ** norm.power
    plug_in = number(forty(kind, "rmsce"), "rmsce")
    expected = {
        "ce2_debiased": plug_in**2,
        "ce2_debiased_cluster": plug_in**2,
        "rmsce_debiased": plug_in,
        "rmsce_debiased_cluster": plug_in,
    }.get(name, number(rows, name))
    assert gauge == pytest.approx(expected, rel=1e-7 if name in SOFTENED else 1e-12)


@each(lambda metric: metric.class_norm)
def test_norm_of_a_class_is_its_value(kind, name):
    metric, options = METRICS[name], options_of(METRICS[name])
    pooled = metric.reads(forty(kind, name).total())
    for k, expected in enumerate(metric.by_class(pooled, **options)):
        norm = metric.class_norm(pooled, k, **options)
        gauge = float(norm.gauge(norm.vector(pooled.residual[k] / pixels_of(pooled)))) ** norm.power
        assert gauge == pytest.approx(expected, rel=1e-12)


@each(lambda metric: metric.norm)
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_gauge_scales_and_is_convex(kind, name, factor):
    metric, options = METRICS[name], options_of(METRICS[name])
    pooled = metric.reads(six(kind, name).total())
    norm = metric.norm(pooled, **options)
    a, b = np.random.default_rng(0).normal(size=(2, 50, len(norm.vector(pooled.residual))))
    np.testing.assert_allclose(norm.gauge(factor * a), factor * norm.gauge(a))
    assert (norm.gauge((a + b) / 2) <= (norm.gauge(a) + norm.gauge(b)) / 2 + 1e-12).all()
    np.testing.assert_allclose(norm.gauge(norm.direction(a)), norm.gauge(a))


# --- in-distribution against out-of-distribution ----------------------------------------------------------------------


def separation(inside: Statistics, outside: Statistics) -> dict[str, dict[str, float]]:
    """metric -> options -> value of every detection metric."""
    chosen = Settings(metrics=DETECTION, n_boot=0)
    found: dict[str, dict[str, float]] = {name: {} for name in DETECTION}
    for value in Separation(Evaluator(inside, chosen), Evaluator(outside, chosen, "ood"), chosen).values():
        found[value.metric][value.options] = value.value
    return found


def middle(image: Image) -> float:
    """The score that says nothing."""
    return 0 if image.scores.ndim == 3 else 128 if image.scores.dtype == np.uint8 else 0.5


def unsure(pictures: list[Image]) -> list[Image]:
    """As unsure as can be, everywhere."""
    return [image._replace(scores=np.full_like(image.scores, middle(image))) for image in pictures]


def never_seen(pictures: list[Image]) -> list[Image]:
    """Less sure than they were, and without a mask."""
    return without_masks(
        [
            image._replace(
                scores=((image.scores.astype(np.float64) + 2 * middle(image)) / 3).astype(image.scores.dtype)
            )
            for image in pictures
        ]
    )


@cache
def sides(kind: str, change: Change = list) -> tuple[Statistics, Statistics]:
    """An in-distribution and an out-of-distribution set."""
    inside, outside = scenes(6, kind=kind, void=True), never_seen(scenes(4, kind=kind, first=60, void=True))
    return statistics_of(change(inside)), statistics_of(change(outside))


@every_kind
def test_detection_does_not_depend_on_the_order_of_images(kind):
    assert separation(*sides(kind)) == separation(*sides(kind, turned))


@every_kind
def test_sides_swapped_turn_the_area_round(kind):
    there, back = separation(*sides(kind))["ood_auroc"], separation(*sides(kind)[::-1])["ood_auroc"]
    assert len(there) == 4, "by pixel and by image, from entropy and from the largest probability"
    for options, value in there.items():
        assert 0.5 < value <= 1
        assert back[options] == pytest.approx(1 - value, abs=1e-12)


@every_kind
def test_a_constant_score_tells_nothing(kind):
    """All pixels and all images are tied: OOD is found at its share, and flagging any flags all."""
    pictures = [image._replace(valid=None) for image in scenes(5, kind=kind)]
    inside, outside = (statistics_of(unsure(part)) for part in (pictures[:2], pictures[2:]))
    found = separation(inside, outside)
    share = {"pixel": outside.n_pixels.sum() / (outside.n_pixels.sum() + inside.n_pixels.sum()), "image": 3 / 5}
    for options in found["ood_auroc"]:
        out = share["image" if "level=image" in options else "pixel"]
        got = [found[name][options] for name in ("ood_auroc", "ood_aupr_in", "ood_aupr_out", "ood_fpr95")]
        assert got == pytest.approx([0.5, 1 - out, out, 1], abs=1e-12), options


@every_kind
def test_perfect_separation(kind):
    found = separation(six(kind, "accuracy", perfect), six(kind, "ood_entropy", unsure))
    for name, value in (("ood_auroc", 1), ("ood_aupr_in", 1), ("ood_aupr_out", 1), ("ood_fpr95", 0)):
        assert set(found[name].values()) == {value}


# --- calibrated maps --------------------------------------------------------------------------------------------------


@quick
@given(images("calibrated"))
def test_class_changes_are_those_of_the_pixels(image):
    """p' = σ((3 logit p − 1) / 2) is below one half up to p = σ(1/3)."""
    p = image.scores if image.valid is None else image.scores[image.valid]
    assume(p.size)
    changed = (p >= 0.5) & (np.log(np.maximum(p, 1e-9) / np.maximum(1 - p, 1e-9)) < 1 / 3)
    assert number(row("a", image), "class_changed") == pytest.approx(changed.mean(), rel=1e-12)


@quick
@given(images(), st.integers(0, 2**32 - 1))
def test_calibrated_levels_are_measured_as_their_pixels(image, seed):
    """256 new probabilities for the levels, and the map of float64 probabilities pixel by pixel: the same rows.

    Probabilities of the extremes, of ties and of changed classes are among them.
    """
    generator = np.random.default_rng(seed)
    special = np.array([0, 1, 0.5, np.nextafter(0.5, 0), 1e-300, 1 - 2**-53, 1 / 3, 0.25])
    probs = np.where(generator.random(256) < 0.5, generator.choice(special, 256), generator.random(256))
    target, before = image.foreground, image.scores >= 128
    levels = measure_levels(measure_sample(image.sample("a")), probs)
    [pixels] = measure_float_map("a", probs[image.scores], "probabilities", target, image.valid)
    for part in ("top_label", "foreground", "sums", "counts", "unsure"):
        one, other = getattr(levels, part), getattr(pixels, part)
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(other, field.name)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=f"{part}.{field.name}")
            else:
                assert a == b, (part, field.name)
    inside = np.ones(target.shape, bool) if image.valid is None else image.valid
    changed = ((probs[image.scores] >= 0.5) != before) & inside
    assert levels.changes.changed.tolist() == [np.count_nonzero(changed)]
    assert levels.changes.count.tolist() == [np.count_nonzero(inside)]


# --- big counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2**24 + 1, 2**32 + 1, 2**40 + 1])
def test_big_counts_stay_exact(n, tmp_path):
    """One wrong pixel among n in a bin, in three images: float32 counters would stop at 2^24, int32 at 2^31."""
    counts = np.zeros((3, 2, 256), np.int64)
    counts[:, 1, 255] = n - 1
    counts[:, 0, 255] = 1
    statistics = Statistics(JointHistogram(("a", "b", "c"), counts))
    pooled = statistics.total()
    cells = pooled.histogram.reliability("top-label")
    assert int(cells.count[-1]) == 3 * n
    assert int(cells.correct[-1]) == 3 * n - 3
    assert cells.binned(15).count[-1] == 3 * n
    for name in ("ece", "ece_fg", "aece", "mce", "over", "gap", "ks", "rmsce", "brier", "mae_raw"):
        assert number(statistics, name) == pytest.approx(float(Fraction(1, n)), rel=1e-12), name
    assert number(statistics, "accuracy") == float(1 - Fraction(1, n))
    weights = np.array([[2, 0, 1]], np.uint16)
    assert statistics.total(weights).histogram.counts[0, 1, 255] == 3 * (n - 1)
    save_run(Run({("d", "m"): statistics}), tmp_path / "big.npz")
    assert same(load_run(tmp_path / "big.npz").combinations["d", "m"], statistics)


# --- oracles --------------------------------------------------------------------------------------------------------

BINNED = ["ece", "over", "under", "oe", "mce", "rmsce", "ce2_debiased"]


@quick
@given(images(), st.integers(1, 40))
def test_binned_errors_equal_the_oracles(image, bins):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name in BINNED:
        expected = getattr(oracles, name)(*oracles.top_label(q, y), bins)
        assert number(statistics, name, bins=bins) == pytest.approx(expected, abs=1e-10), name
    squared = oracles.ce2_debiased(*oracles.top_label(q, y), bins)
    assert number(statistics, "rmsce_debiased", bins=bins) ** 2 == pytest.approx(max(squared, 0), abs=1e-10)
    assert number(statistics, "ece_fg", bins=bins) == pytest.approx(
        oracles.ece(*oracles.foreground(q, y), bins), abs=1e-10
    )


@quick
@given(images(), st.integers(1, 40))
def test_equal_mass_errors_equal_the_oracles(image, bins):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name, event in (("aece", oracles.top_label), ("aece_fg", oracles.foreground)):
        pixels = event(q, y)
        assert number(statistics, name, bins=bins) == pytest.approx(oracles.aece(*pixels, bins), abs=1e-10)
        whole = number(statistics, name, bins=bins, ties="whole")
        assert whole == pytest.approx(oracles.aece_whole(*pixels, bins), abs=1e-10)


@quick
@given(images())
def test_binless_errors_equal_the_oracles(image):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name in ("ece_sweep", "ks", "gap"):
        assert number(statistics, name) == pytest.approx(getattr(oracles, name)(*oracles.top_label(q, y)), abs=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_sweep_equals_the_oracle_on_real_looking_maps(seed):
    """Noisy labels of many levels, so that the sweep goes on for several bins and stops before it runs out of levels."""
    generator = np.random.default_rng(seed)
    q = generator.integers(0, 256, 3000).astype(np.uint8)
    y = generator.random(3000) < q / 255
    expected = oracles.ece_sweep(*oracles.top_label(q, y))
    value = values(histogram_of(q, y), "ece_sweep")["pixels"]
    assert value.value == pytest.approx(expected, abs=1e-12)
    assert 2 < value.details["bins_chosen"] < 128


@quick
@given(images())
def test_scores_equal_the_oracles(image):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name in ("brier", "nll", "entropy", "accuracy", "mae_raw"):
        assert number(statistics, name) == pytest.approx(getattr(oracles, name)(q, y), abs=1e-10), name
    for names, expected in (
        (("brier_reliability", "brier_resolution", "brier_uncertainty"), oracles.brier_decomposition(q, y)),
        (("corp_miscalibration", "corp_discrimination"), oracles.corp(q, y)),
    ):
        assert [number(statistics, name) for name in names] == pytest.approx(expected, abs=1e-10)


@quick
@given(images())
def test_rankings_equal_the_oracles_or_are_undefined(image):
    q, y = image.pixels
    statistics = row("a", image)
    both = y.any() and not y.all()
    assert number(statistics, "auroc") == pytest.approx(oracles.auroc(q, y) if both else np.nan, nan_ok=True)
    expected = oracles.average_precision(q, y) if y.any() else np.nan
    assert number(statistics, "ap") == pytest.approx(expected, nan_ok=True)


@quick
@given(st.lists(images(), min_size=1, max_size=5), st.integers(1, 12))
def test_cluster_debiased_error_equals_its_pairs(pictures, bins):
    pixels = [oracles.top_label(*image.pixels) for image in pictures]
    statistics = statistics_of(pictures)
    expected = oracles.ce2_debiased_cluster(pixels, bins) if sum(len(k) for k, _ in pixels) else np.nan
    assert number(statistics, "ce2_debiased_cluster", bins=bins) == pytest.approx(expected, abs=1e-10, nan_ok=True)
    rooted = number(statistics, "rmsce_debiased_cluster", bins=bins)
    assert rooted == pytest.approx(np.sqrt(np.maximum(expected, 0)), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_smooth_error_equals_a_brute_force_kernel(seed):
    q, y = scene(seed).pixels
    statistics = histogram_of(q, y)
    assert number(statistics, "smece") == pytest.approx(oracles.smece(*oracles.top_label(q, y)), abs=1e-5)


@pytest.mark.parametrize("name", ["ece", "aece", "ks", "rmsce", "oe", "smece", "brier", "nll", "auroc", "ap"])
def test_pooling_images_equals_pooling_their_pixels(name):
    pictures = scenes(5)
    levels, masks = (np.concatenate(parts) for parts in zip(*(image.pixels for image in pictures), strict=True))
    assert number(statistics_of(pictures), name) == pytest.approx(number(histogram_of(levels, masks), name), rel=1e-12)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.05, 1.0, 8.0]))
def test_rounding_to_8_bits_stays_within_the_stated_bound(seed, bins, spread):
    generator = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-generator.normal(0, spread, generator.integers(1, 400))))
    y = generator.random(len(p)) < generator.choice([p, 1 - p, np.full(len(p), 0.5)])
    statistics = histogram_of(np.rint(p * 255).astype(np.uint8), y)
    bound = number(statistics, "quantisation_bound", bins=bins)
    error = abs(number(statistics, "ece", bins=bins) - oracles.ece_of_probabilities(p, y, bins))
    assert error <= bound + 1e-12


@quick
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 20))
def test_equal_mass_shares_are_whole_cells_cut_in_order(count, bins):
    """Every occupied cell is used up once, bins hold N / bins each, and no bin holds cells on both sides of another's."""
    count = np.array(count)
    assume(count.sum())
    shares = equal_mass(count, bins)
    np.testing.assert_allclose(shares.sum(1), count > 0, atol=1e-12)
    np.testing.assert_allclose(count @ shares, count.sum() / bins, atol=1e-9)
    used = shares > 1e-9
    last_of_each, first_of_each = len(count) - 1 - used[::-1].argmax(0), used.argmax(0)
    assert (last_of_each[:-1] <= first_of_each[1:]).all()


def test_equal_width_shares_are_the_bin_rule():
    score = np.arange(256) / 255
    assert np.array_equal(equal_width(score, 12).argmax(1), bin_index(score, 12))
    assert (equal_width(score, 12).sum(1) == 1).all()
