"""Comparisons: what is told apart, on which images, and what does not go together."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image

from calbench import Results, Run, Settings
from calbench.comparison import COLUMNS, FILES, Comparison, compare
from calbench.differences import holm, paired_difference, paired_draws, win_rate
from calbench.errors import FormatError, InputError, MergeError, OptionError, UnknownName
from calbench.evaluate import Evaluator
from calbench.intervals import resampling_weights, small_sample_factor
from calbench.metrics import METRICS
from calbench.noise import as_good, noise
from calbench.report.comparisons import comparison_tables, verdict
from calbench.report.tables import console
from calbench.results import Key
from calbench.statistics import ImageScores, JointHistogram, ReliabilityCells, Statistics
from calbench.statistics.storage import save_run

Cli = Callable[..., Result]
Write = Callable[..., Path]

CONVENTIONS = {
    "input": "levels", "stored": "uint8", "classes": 2, "pred_threshold": 128, "mask_coding": "0/255",
    "gt_threshold": 128, "void_values": [], "field_of_view": None,
}  # fmt: skip
METRIC_NAMES = ("ece", "nll", "brier", "gap", "mce", "ce2_debiased_cluster", "brier_resolution", "accuracy", "mae",
                "max_f", "adp_f", "mean_confidence")  # fmt: skip
N_BOOT = 100


def maps(
    sharpness: float, n: int = 30, noise: float = 0.0, seed: int = 3, noise_seed: int = 99
) -> tuple[np.ndarray, np.ndarray]:
    """Levels and targets of n images of 60 pixels; targets depend on the seed alone, logits are stretched."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 0.7, (n, 1)) + rng.normal(0, 1.5, (n, 60))
    target = rng.uniform(size=z.shape) < 1 / (1 + np.exp(-z))
    target[:, 0] = True
    z = sharpness * (z + noise * np.random.default_rng(noise_seed).normal(size=z.shape))
    return np.round(255 / (1 + np.exp(-z))).astype(int), target.astype(int)


def rows(level: np.ndarray, target: np.ndarray, **conventions: Any) -> Statistics:
    counts = np.zeros((len(level), 2, 256), np.int64)
    np.add.at(counts, (np.arange(len(level))[:, None], target, level), 1)
    names = tuple(f"{i:03d}" for i in range(len(level)))
    return Statistics(JointHistogram(names, counts), conventions=CONVENTIONS | conventions)


GOOD, SHARP = rows(*maps(1.0)), rows(*maps(2.5))


def evaluators(*statistics: Statistics, **settings: Any) -> list[Evaluator]:
    chosen = Settings(**{"metrics": METRIC_NAMES, "n_boot": N_BOOT, **settings})
    return [Evaluator(part, chosen) for part in statistics]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A results folder, without its tables and plots; methods of one data set, or of several by `dataset/method`."""

    def make(name: str, methods: Mapping[str, Statistics], **settings: Any) -> Path:
        keys = {method: tuple(method.split("/")) if "/" in method else ("toy", method) for method in methods}
        run = Run({(keys[m][0], keys[m][1]): statistics for m, statistics in methods.items()})
        results = Results(run, Settings(**{"metrics": METRIC_NAMES, "n_boot": N_BOOT, **settings}))
        folder = tmp_path / name
        save_run(run, folder / "stats.npz")
        (folder / "summary.json").write_text(json.dumps(results.to_json()), "utf-8")
        return folder

    return make


def of(comparison: Comparison, metric: str) -> Any:
    [found] = [c for c in comparison.contrasts if c.metric == metric]
    return found


# --- differences ----------------------------------------------------------------------------------------------------


def test_a_planted_difference_is_found_and_is_b_less_a(write: Write) -> None:
    found = compare(write("a", {"net": GOOD}), write("b", {"net": SHARP}))
    assert found.mode == "pair"
    for metric in ("ece", "nll", "brier"):
        contrast = of(found, metric)
        assert contrast.difference == contrast.second_value - contrast.first_value > 0
        assert contrast.p == contrast.p_holm == pytest.approx(2 / (N_BOOT + 1))
        assert verdict(contrast) == "worse"
    assert of(found, "nll").low > 0
    assert of(found, "accuracy").difference == 0
    back = compare(write("b", {"net": SHARP}), write("a", {"net": GOOD}))
    for metric in METRIC_NAMES:
        one, other = of(found, metric), of(back, metric)
        assert (other.difference, other.low, other.high) == pytest.approx(
            (-one.difference, -one.high, -one.low), nan_ok=True, abs=1e-15
        )
        assert other.win_rate == pytest.approx(1 - one.win_rate, nan_ok=True)
    assert verdict(of(back, "nll")) == "better"


def test_a_against_itself_differs_in_nothing(write: Write) -> None:
    folder = write("a", {"net": SHARP})
    found = compare(folder, f"{folder}:net")
    for contrast in found.contrasts:
        assert contrast.difference == 0
        assert contrast.p in (1.0,) or math.isnan(contrast.p)
        assert contrast.win_rate == 0.5 or math.isnan(contrast.win_rate)
        assert verdict(contrast) in ("≈", "")
    assert {c.metric for c in found.contrasts if math.isnan(c.p)} == {"mce", "ce2_debiased_cluster"}
    assert {c.metric for c in found.contrasts if math.isnan(c.win_rate)} == {"mean_confidence", "ce2_debiased_cluster"}


def test_values_are_those_of_the_summary(write: Write) -> None:
    folders = [write("a", {"net": GOOD}), write("b", {"net": SHARP})]
    found = compare(*folders)
    assert {c.metric for c in found.contrasts} == set(METRIC_NAMES)
    for folder, side in zip(folders, ("first_value", "second_value"), strict=True):
        records = json.loads((folder / "summary.json").read_text("utf-8"))["results"]
        for contrast in found.contrasts:
            [record] = [r for r in records if (r["metric"], r["average"]) == (contrast.metric, contrast.average)]
            assert getattr(contrast, side) == record["value"]
            assert contrast.options == record["options"]


def test_a_norm_has_a_box_and_a_mean_has_percentiles() -> None:
    before, after = evaluators(GOOD, SHARP)
    ece, nll, mce = (paired_difference(before, after, METRICS[name]) for name in ("ece", "nll", "mce"))
    assert (ece.interval, nll.interval, mce.interval) == ("box", "percentile", "none")
    first, second = (e.pooled_value(METRICS["ece"]) for e in (before, after))
    assert (ece.low, ece.high) == (second.low - first.high, second.high - first.low)
    assert mce.difference > 0
    assert math.isnan(mce.low)


def bootstrap(values: np.ndarray, summary: Callable[[np.ndarray], np.ndarray]) -> tuple[float, np.ndarray]:
    """Mean over images and its replicates, by plain loops over the weights that every metric shares."""
    weights = resampling_weights(len(values), N_BOOT, (0,))
    drawn = [summary(np.average(values, axis=0, weights=w)) for w in weights]
    return float(summary(values.mean(0))), np.array(drawn)


def expected_difference(one: tuple[float, np.ndarray], two: tuple[float, np.ndarray], n: int) -> tuple[float, ...]:
    """Difference, percentile limits and p, from the definitions."""
    value, drawn, factor = two[0] - one[0], two[1] - one[1], small_sample_factor(n, 0.95)
    low, high = (value + factor * (np.quantile(drawn, q) - value) for q in (0.025, 0.975))
    moved = value + factor * (drawn - value)
    p = 2 * min(1 + (moved <= 0).sum(), 1 + (moved >= 0).sum()) / (N_BOOT + 1)
    return value, low, high, min(p, 1.0)


@pytest.mark.parametrize("metric", ["mae", "max_f", "adp_f"])
def test_differences_of_means_over_images_are_a_plain_paired_bootstrap(metric: str) -> None:
    before, after = evaluators(rows(*maps(1.0, noise=0.3)), SHARP)
    definition = METRICS[metric]
    curves = [np.asarray(definition.function(e.statistics.histogram)) for e in (before, after)]
    summary = definition.summary or (lambda mean: mean)
    one, two = (bootstrap(curve, summary) for curve in curves)
    found = paired_difference(before, after, definition)
    numbers = (found.difference, found.low, found.high, found.p_value)
    assert numbers == pytest.approx(expected_difference(one, two, 30), rel=1e-9)
    assert found.p_value < 1
    assert (found.interval, found.n_images) == ("percentile", 30)


def test_images_that_either_leaves_undefined_are_in_neither_mean() -> None:
    empty = np.zeros_like(SHARP.histogram.counts[:3])  # type: ignore[union-attr]
    counts = SHARP.histogram.counts.copy()  # type: ignore[union-attr]
    counts[:3] = empty
    holed = replace(SHARP, histogram=JointHistogram(SHARP.names, counts))
    before, after = evaluators(GOOD, holed)
    assert np.isnan(after.image_values(METRICS["mae"])).sum() == 3
    found = paired_difference(before, after, METRICS["mae"])
    one, two = (e.image_values(METRICS["mae"])[3:] for e in (before, after))
    assert found.n_images == 27
    assert (found.before, found.after) == pytest.approx((one.mean(), two.mean()), rel=1e-12)
    first, second = (bootstrap(values, lambda mean: mean) for values in (one, two))
    assert (found.low, found.high) == pytest.approx(expected_difference(first, second, 27)[1:3], rel=1e-9)
    assert paired_difference(before, after, METRICS["nll"]).n_images == 30


def test_an_inflated_metric_is_moved_on_both_sides() -> None:
    before, after = evaluators(GOOD, SHARP)
    metric = METRICS["brier_resolution"]
    assert metric.inflated
    moved = []
    for evaluator in (before, after):
        weights = resampling_weights(30, N_BOOT, (0,))
        drawn = np.array([metric.function(metric.reads(evaluator.statistics.total(w))) for w in weights])
        value = float(metric.function(metric.reads(evaluator.statistics.total())))
        moved.append((value, drawn - 2 * (drawn.mean() - value)))
    found = paired_difference(before, after, metric)
    numbers = (found.difference, found.low, found.high, found.p_value)
    assert numbers == pytest.approx(expected_difference(*moved, 30), rel=1e-7)
    assert before.pooled_value(metric).high == pytest.approx(
        moved[0][0] + small_sample_factor(30, 0.95) * (np.quantile(moved[0][1], 0.975) - moved[0][0])
    )


def test_few_images_and_no_replicates_have_no_test() -> None:
    for settings, images in (({}, 4), ({"n_boot": 0}, 30)):
        before, after = evaluators(*(s.select(slice(0, images)) for s in (GOOD, SHARP)), **settings)
        for metric in before.metrics:
            found = paired_difference(before, after, metric)
            assert found.interval == "none"
            assert np.isnan([found.low, found.high, found.p_value]).all()
            assert np.isfinite(found.difference)


def test_groups_stay_whole() -> None:
    """Two rows a patient: resampled as one row each would be."""
    before, after = evaluators(GOOD, SHARP, group_by=r"^(\d\d)", metrics=("nll",))
    halves = [
        rows(*(part.reshape(3, -1) for part in maps(sharpness))) for sharpness in (1.0, 2.5)
    ]  # ten images a group, in order
    one, two = evaluators(*halves, metrics=("nll",))
    assert before.n_units == one.n_units == 3
    np.testing.assert_allclose(
        after.replicated(METRICS["nll"]) - before.replicated(METRICS["nll"]),
        two.replicated(METRICS["nll"]) - one.replicated(METRICS["nll"]),
    )


# --- Holm, win rate, noise ------------------------------------------------------------------------------------------


def holm_by_steps(p: list[float], alpha: float) -> list[bool]:
    """The step-down procedure itself: reject the smallest while p ≤ α / (number left)."""
    rejected = [False] * len(p)
    for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[i] > alpha / (len(p) - step):
            break
        rejected[i] = True
    return rejected


def test_corrected_p_values_reject_what_holms_steps_reject() -> None:
    rng = np.random.default_rng(5)
    some = False
    for _ in range(200):
        p = (rng.uniform(size=rng.integers(1, 9)) ** 3).tolist()
        for alpha in (0.01, 0.05, 0.3):
            rejected = holm_by_steps(p, alpha)
            assert (holm(p) <= alpha).tolist() == rejected
            some |= any(rejected) and not all(rejected)
    assert some
    assert holm([0.5, 0.5, 0.02]).tolist() == pytest.approx([1, 1, 0.06])
    np.testing.assert_equal(holm([0.01, math.nan, 0.04]), [0.02, math.nan, 0.04])
    assert holm([]).tolist() == []


def test_the_win_rate_counts_images_and_halves_ties() -> None:
    ties = SHARP.histogram.counts.copy()  # type: ignore[union-attr]
    ties[:7] = GOOD.histogram.counts[:7]  # type: ignore[union-attr]
    before, after = evaluators(GOOD, replace(SHARP, histogram=JointHistogram(SHARP.names, ties)))
    for name, better in (
        ("brier", lambda a, b: b < a), ("accuracy", lambda a, b: b > a), ("gap", lambda a, b: abs(b) < abs(a)),
    ):  # fmt: skip
        score = 0.0
        for a, b in zip(before.per_image()[name], after.per_image()[name], strict=True):
            score += 1.0 if better(a, b) else (0.5 if a == b else 0.0)
        assert win_rate(before, after, METRICS[name]) == pytest.approx(score / 30)
    assert 3.5 / 30 < win_rate(before, after, METRICS["brier"]) < 0.5
    assert math.isnan(win_rate(before, after, METRICS["mean_confidence"]))


def test_the_noise_level_is_half_the_width_of_what_chance_does() -> None:
    methods = {str(k): rows(*maps(1.0 + 0.1 * k, noise=0.3 * k)) for k in range(4)}
    methods["fewer"] = GOOD.select(slice(0, 20))
    found = dict(zip(methods, evaluators(*methods.values()), strict=True))
    [nll, mae] = noise(found, [METRICS[name] for name in ("nll", "mce", "mae")])
    assert (nll.metric, mae.metric, nll.n_pairs) == ("nll", "mae", 6)
    widths = []
    for one, two in combinations("0123", 2):
        drawn = found[two].replicated(METRICS["nll"]) - found[one].replicated(METRICS["nll"])
        widths.append(small_sample_factor(30, 0.95) * np.diff(np.quantile(drawn, [0.025, 0.975]))[0] / 2)
    assert (nll.median, nll.least, nll.most) == pytest.approx((np.median(widths), min(widths), max(widths)))
    interval = paired_difference(found["0"], found["1"], METRICS["nll"])
    value, drawn = paired_draws(found["0"], found["1"], METRICS["nll"])
    assert value == interval.difference
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([interval.low, interval.high])
    assert noise({"one": found["0"], "fewer": found["fewer"]}, [METRICS["nll"]]) == []


def test_as_good_are_the_best_and_those_not_told_apart_from_it() -> None:
    close = rows(*maps(1.0, noise=0.02))
    found = dict(zip(("good", "close", "sharp"), evaluators(GOOD, close, SHARP), strict=True))
    assert as_good(found, METRICS["nll"]) == {"good", "close"}
    assert as_good(found, METRICS["mean_confidence"]) == as_good(found, METRICS["gap"]) == frozenset()
    values = {name: evaluator.pooled_value(METRICS["nll"]).value for name, evaluator in found.items()}
    best = min(values, key=values.__getitem__)
    [other] = evaluators(GOOD.select(slice(10, 30)))
    assert other.pooled_value(METRICS["nll"]).value > values[best]
    assert as_good(found | {"of other images": other}, METRICS["nll"]) == {"good", "close"}
    unresampled = dict(zip(found, evaluators(GOOD, close, SHARP, n_boot=0), strict=True))
    assert as_good(unresampled, METRICS["nll"]) == frozenset(), "nothing is tied that was not tested"


def test_nothing_is_said_where_too_few_images_have_a_value() -> None:
    """Weighted F is undefined without foreground: here on all images but one, which no bootstrap can resample."""

    def scored(value: float) -> Statistics:
        column = np.full((30, 1), np.nan)
        column[3] = value
        return replace(GOOD, scores=ImageScores(GOOD.names, column, ("weighted_f",)))

    metric = METRICS["weighted_f"]
    found = dict(zip("ab", evaluators(scored(0.4), scored(0.9), metrics=("weighted_f",)), strict=True))
    assert found["a"].n_units_of(metric) == 1
    assert as_good(found, metric) == frozenset()
    assert noise(found, [metric]) == []


def test_many_methods_are_told_apart_with_the_usual_number_of_replicates() -> None:
    """Corrections that multiply p by the number of pairs cannot: the smallest p is 2 / 1001."""
    many = {f"{k:02}": rows(*maps(1.0, noise=0.4, noise_seed=k)) for k in range(30)} | {"sharp": SHARP}
    found = dict(zip(many, evaluators(*many.values(), n_boot=400), strict=True))
    good = as_good(found, METRICS["nll"])
    assert "sharp" not in good
    assert len(good) > 15


def test_equal_methods_seldom_lose_their_mark() -> None:
    """The best of many was picked on the same images; tested against each as if it had not been, 1 set in 6 lost a mark."""
    lost = 0
    for seed in range(40):
        parts = [rows(*maps(1.0, n=100, noise=0.4, seed=seed, noise_seed=100 * seed + k)) for k in range(12)]
        each = evaluators(*parts, n_boot=400, metrics=("nll",), seed=seed)
        found = {str(k): evaluator for k, evaluator in enumerate(each)}
        lost += len(as_good(found, METRICS["nll"])) < len(found)
    assert lost <= 5, "of 40 sets"


def test_numbers_of_the_map_before_calibration_are_no_methods_of_their_own() -> None:
    maps_of = evaluators(GOOD, SHARP)
    copy = replace(maps_of[0].statistics, conventions={**GOOD.conventions, "saliency": "uncalibrated"})
    assert noise({"a": maps_of[0], "b": maps_of[1]}, [METRICS["mae"]])[0].n_pairs == 1
    # a copy says so where its rows are no plain 8-bit maps
    cells = copy.reliability("top-label")
    [copied] = evaluators(replace(copy, top_label=cells))
    found = {"a": maps_of[0], "b": maps_of[1], "a + t": copied}
    [mae] = noise(found, [METRICS["mae"]])
    assert (mae.n_pairs, mae.least > 0) == (1, True)
    assert "a + t" not in as_good(found, METRICS["mae"])


# --- which methods, which images ------------------------------------------------------------------------------------


def test_names_with_colons_and_brackets_are_names(write: Write, calbench: Callable[..., Any]) -> None:
    folder = write("run:a", {"net:v2": GOOD, "net[bold]": SHARP})
    found = compare(f"{folder}:net:v2", f"{folder}:net[bold]", metrics=["nll"])
    assert [side.label for side in found.sides] == ["net:v2", "net[bold]"]
    shown = calbench("compare", folder, "--metrics", "nll").stdout
    assert "net:v2" in shown
    assert "net[bold]" in shown
    assert calbench("compare", folder, "--metrics", "").exit_code == 2


def test_sources_name_methods_pairs_and_matrices(write: Write) -> None:
    both = {"net": GOOD, "other": SHARP}
    a, b = write("run:a", both), write("run:b", both | {"third": SHARP})
    one = compare(f"{a}:net", f"{a}:other", metrics=["nll"])
    assert (one.mode, [s.label for s in one.sides]) == ("pair", ["net", "other"])
    assert of(one, "nll").second == "other"
    likewise = compare(a, write("c", {"other": GOOD, "net": SHARP}), metrics=["nll"])
    assert likewise.mode == "methods"
    assert [(c.first, c.second) for c in likewise.contrasts] == [
        ("run:a:net", "c:net"), ("run:a:other", "c:other"),
    ]  # fmt: skip
    assert likewise.contrasts[0].difference == pytest.approx(-likewise.contrasts[1].difference)
    matrix = compare(a, b, metrics=["nll"])
    assert matrix.mode == "matrix"
    assert len(matrix.contrasts) == 10
    assert compare(b, metrics=["nll"]).mode == "matrix"
    assert len(compare(b, f"{b}:net", metrics=["nll"]).contrasts) == 3, "the same method twice is one"
    with pytest.raises(UnknownName, match="did you mean 'net'"):
        compare(f"{a}:nett", a)
    with pytest.raises(OptionError, match="there is one method"):
        compare(f"{a}:net")
    with pytest.raises(FormatError, match="no finished results"):
        compare(a, f"{a}-missing")


def test_a_matrix_is_corrected_by_metric_and_data_set(write: Write) -> None:
    methods = {f"{d}/{m}": rows(*maps(s, seed=k)) for k, d in enumerate(("one", "two")) for m, s in
               (("a", 1.0), ("b", 1.1), ("c", 2.5))}  # fmt: skip
    found = compare(write("a", methods), n_boot=400)
    table = found.frame
    assert tuple(table.columns) == COLUMNS
    groups = table.groupby(["dataset", "metric"])
    assert groups.ngroups == 2 * len(METRIC_NAMES)
    for _, group in groups:
        assert len(group) == 3
        np.testing.assert_allclose(group.p_holm, holm(group.p.tolist()))
    assert (table.p_holm > table.p).any()


def test_many_pairs_need_more_replicates(write: Write) -> None:
    folder = write("a", {f"m{k}": rows(*maps(1 + 0.1 * k)) for k in range(4)})
    few = compare(folder, metrics=["nll"])
    assert any("6 pairs, 100 replicates" in note and "--n-boot 240" in note for note in few.notes)
    enough = compare(folder, metrics=["nll"], n_boot=240)
    assert not enough.notes
    assert min(c.p_holm for c in enough.contrasts) < 0.05 <= min(c.p_holm for c in few.contrasts)


def test_both_sides_are_reduced_to_the_images_they_share(write: Write) -> None:
    a, b = write("a", {"net": GOOD.select(slice(0, 24))}), write("b", {"net": SHARP.select(slice(6, 30))})
    found = compare(a, b)
    [common] = found.sets
    assert common.n_images == 18
    assert common.left_out == (tuple(f"{i:03d}" for i in range(6)), tuple(f"{i:03d}" for i in range(24, 30)))
    note = next(note for note in found.notes if "6 images of a:net" in note)
    assert "004" in note
    assert "005" not in note
    document = found.to_json()
    assert document["datasets"][0]["left_out"][1]["images"] == [f"{i:03d}" for i in range(24, 30)]
    level, target = maps(1.0)
    sharp, _ = maps(2.5)
    one, two = evaluators(rows(level[6:24], target[6:24]), rows(sharp[6:24], target[6:24]))
    for metric in one.metrics:
        expected, contrast = paired_difference(one, two, metric), of(found, metric.name)
        assert (contrast.first_value, contrast.difference, contrast.low, contrast.p) == pytest.approx(
            (expected.before, expected.difference, expected.low, expected.p_value), nan_ok=True
        )
    with pytest.raises(MergeError, match="share 1 image of toy; expected at least 2"):
        compare(a, write("c", {"net": SHARP.select(slice(23, 30))}))


def test_only_data_sets_that_all_have_are_compared(write: Write) -> None:
    a = write("a", {"one/net": GOOD, "two/net": GOOD})
    found = compare(a, write("b", {"two/net": SHARP, "three/net": SHARP}), metrics=["nll"])
    assert [common.dataset for common in found.sets] == ["two"]
    assert [note.split(",")[0] for note in found.notes] == ["left out: one", "left out: three"]
    with pytest.raises(MergeError, match=r"no data set is common to all methods:\n  a:net: one, two\n  c:net: four"):
        compare(a, write("c", {"four/net": GOOD}))


def test_tables_match_by_group_whatever_their_file_is_called(write: Write) -> None:
    def table(sharpness: float, stem: str) -> Statistics:
        part = rows(*maps(sharpness), table=True, samples=1800, groups=30)
        names = tuple(f"{stem}#{name}" for name in part.names)
        assert part.histogram is not None
        return replace(part, histogram=replace(part.histogram, names=names))

    settings: dict[str, Any] = {"metrics": ("nll", "accuracy")}
    folder = write("a", {"net": table(1.0, "net"), "other": table(2.5, "other")}, **settings)
    found = compare(f"{folder}:net", f"{folder}:other")
    assert found.sets[0].n_images == 30
    assert of(found, "nll").p < 0.05
    assert math.isnan(of(found, "nll").win_rate), "groups of samples are no images"


# --- what does not go together --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [("gt_threshold", 0), ("mask_coding", "0/1"), ("void_values", [128]), ("field_of_view", "0/255"), ("classes", 3),
     ("ignore_index", [255]), ("label_map", {"0": 1}), ("volumes", "slices along the third axis")],
)  # fmt: skip
def test_other_conventions_of_the_masks_are_refused(write: Write, key: str, value: Any) -> None:
    stated = {"ignore_index": [], "label_map": None, "reduce_zero_label": False}
    a = write("a", {"net": rows(*maps(1.0), **stated)})
    other = write("b", {"net": rows(*maps(2.5), **stated | {key: value})})
    with pytest.raises(MergeError, match=f"(?s)other conventions of the ground truth:\n  {key}: .* of b:net\n"):
        compare(a, other)


def test_other_ways_of_storing_predictions_are_noted(write: Write) -> None:
    stored = write("b", {"net": rows(*maps(2.5), stored="uint16")})
    found = compare(write("a", {"net": GOOD}), stored, metrics=["nll"])
    assert [note.splitlines() for note in found.notes] == [
        ["toy: predictions were stored or read in other ways:", "  a:net: stored uint8", "  b:net: stored uint16"]
    ]


def test_other_masks_are_refused_with_the_images(write: Write) -> None:
    level, target = maps(2.5)
    target = target.copy()
    target[4:11, 5] = 1 - target[4:11, 5]
    with pytest.raises(
        MergeError, match=r"7 of 30 images have other .*\n  004: 60 and 60.*\n(.*\n){4}  \.\.\. and 2 more"
    ):
        compare(write("a", {"net": GOOD}), write("b", {"net": rows(level, target)}))
    fewer = SHARP.histogram.counts.copy()  # type: ignore[union-attr]
    fewer[2] = fewer[2] * (np.arange(256) < 128)
    void = replace(SHARP, histogram=JointHistogram(SHARP.names, fewer))
    with pytest.raises(MergeError, match="measured against other masks on toy: 1 of 30 images"):
        compare(write("c", {"net": GOOD}), write("d", {"net": void}))


@pytest.mark.parametrize(
    ("settings", "what"),
    [({"profile": "aslp"}, "profile: calbench and aslp"), ({"options": {"bins": 10}}, "options of ece: bins=15 and bins=10"),
     ({"group_by": r"^\d\d"}, "group_by: None"), ({"ci": 0.9}, "ci: 0.95 and 0.9")],
)  # fmt: skip
def test_other_settings_are_refused(write: Write, settings: dict[str, Any], what: str) -> None:
    a, b = write("a", {"net": GOOD}), write("b", {"net": SHARP}, **settings)
    with pytest.raises(MergeError, match=f"other settings: .*{what}"):
        compare(a, b)


def test_settings_that_shape_no_number_may_differ(write: Write) -> None:
    a = write("a", {"net": GOOD}, options={"bins": 15})
    b = write("b", {"net": SHARP}, ci=0.9, n_boot=50, seed=4, metrics=("nll", "ece", "mae_raw"))
    found = compare(a, b, ci=0.9)
    assert (found.settings.ci, found.settings.n_boot, found.settings.seed) == (0.9, N_BOOT, 0)
    assert set(found.metrics) == {"nll", "ece"}, "what both chose"
    assert compare(a, b, ci=0.9, n_boot=0).contrasts[0].interval == "none"
    other = compare(a, b, ci=0.9, seed=5)
    assert of(other, "nll").difference == of(found, "nll").difference
    assert of(other, "nll").low != of(found, "nll").low


def test_a_metric_that_cannot_be_compared_is_refused(write: Write) -> None:
    a, b = write("a", {"net": GOOD}), write("b", {"net": SHARP})
    with pytest.raises(InputError, match="s_measure cannot be compared: it needs"):
        compare(a, b, metrics=["nll", "s_measure"])
    with pytest.raises(UnknownName, match="no metric 'nl'"):
        compare(a, b, metrics=["nl"])
    assert compare(a, b, metrics=["mae_raw"]).metrics == ("mae_raw",), "chosen by neither, but computable"


# --- gates ----------------------------------------------------------------------------------------------------------


def test_gates_read_b_and_its_difference_on_every_data_set(write: Write) -> None:
    sets = {"one/net": (1.0, 2.5), "two/net": (1.0, 1.0)}
    a, b = (write(name, {key: rows(*maps(s[k])) for key, s in sets.items()}) for k, name in enumerate("ab"))
    plain = compare(a, b, metrics=["nll"])
    values = {c.dataset: c.second_value for c in plain.contrasts}
    limit = (values["one"] + values["two"]) / 2
    found = compare(a, b, metrics=["nll"], gates=[f"nll > {limit}", "delta(nll) > 0", "mae_raw > 0.001"])
    assert [(o.dataset, str(o.gate.subject), o.broken) for o in found.outcomes] == [
        ("one", "nll", True), ("one", "delta(nll)", True), ("one", "mae_raw", True),
        ("two", "nll", False), ("two", "delta(nll)", False), ("two", "mae_raw", True),
    ]  # fmt: skip
    assert [o.number for o in found.outcomes[:2]] == [values["one"], plain.contrasts[0].difference]
    raw = Evaluator(SHARP, Settings(metrics=("mae_raw",))).image_values(METRICS["mae_raw"]).mean()
    assert found.outcomes[2].number == pytest.approx(raw), "chosen by neither, computed from the rows of B"
    assert [g["broken"] for g in found.to_json()["gates"]] == [o.broken for o in found.outcomes]


def test_in_a_matrix_every_method_is_a_b(write: Write) -> None:
    folder = write("a", {"x": GOOD, "y": SHARP, "z": rows(*maps(1.1))})
    found = compare(folder, gates=["nll > 0.6"])
    assert [o.second for o in found.outcomes] == ["x", "y", "z"]
    with pytest.raises(OptionError, match=r"delta\(METRIC\) needs an A and a B"):
        compare(folder, gates=["delta(nll) > 0"])


def test_an_undefined_number_breaks_its_gate_and_an_impossible_one_is_an_error(write: Write) -> None:
    empty = rows(*maps(1.0))
    assert empty.histogram is not None
    counts = empty.histogram.counts.copy()
    counts[:, 1] += counts[:, 0]
    counts[:, 0] = 0
    full = replace(empty, histogram=JointHistogram(empty.names, counts))  # nothing is background: no ranking
    folder = write("a", {"net": full}, metrics=("ap", "auroc", "nll"), n_boot=0)
    found = compare(folder, folder, gates=["auroc < 0.5", "delta(auroc) > 0.5"])
    assert [(o.broken, math.isnan(o.number)) for o in found.outcomes] == [(True, True), (True, True)]
    assert found.to_json()["gates"][0]["number"] is None
    with pytest.raises(InputError, match=r"the gate 's_measure < 0\.5' cannot be checked on toy"):
        compare(folder, folder, gates=["s_measure < 0.5"])


# --- the command ----------------------------------------------------------------------------------------------------


def test_exit_codes_and_the_streams(calbench: Cli, write: Write) -> None:
    a, b = write("a", {"net": GOOD}), write("b", {"net": SHARP})
    kept = calbench("compare", a, b, "--fail-if", "nll > 9", "--fail-if", "delta(nll) < 0")
    assert kept.exit_code == 0, kept.output
    assert "gate" not in kept.stderr
    broken = calbench("compare", a, b, "--fail-if", "nll>0.01", "--fail-if", "delta(nll)>0", "--fail-if", "ece>0.9")
    assert broken.exit_code == 3
    value = Evaluator(SHARP, Settings(metrics=("nll",), n_boot=0)).pooled_value(METRICS["nll"]).value
    lines = broken.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0] == f"gate: nll {value:.4f} > 0.01 on toy, b:net"
    assert lines[1].startswith("gate: delta(nll) 0.")
    assert broken.stdout == kept.stdout, "gates are about the exit, not the table"
    assert calbench("compare", a, write("c", {"net": rows(*maps(1.0, seed=4))})).exit_code == 1
    for wrong in (("--fail-if", "nll = 1"), ("--fail-if", "nil > 1"), ("--metrics", "nil"), ("--n-boot", 3),
                  ("--metrics", "nll", "--all")):  # fmt: skip
        assert calbench("compare", a, b, *wrong).exit_code == 2
    assert calbench("compare", f"{a}:nope", b).exit_code == 2
    assert calbench("compare").exit_code == 2


def test_json_is_one_document_with_gates_and_without_nan(calbench: Cli, write: Write) -> None:
    a, b = write("a", {"net": GOOD}), write("b", {"net": SHARP})
    result = calbench("compare", a, b, "--json", "--fail-if", "nll > 0.01")
    assert result.exit_code == 3
    document = json.loads(result.stdout, parse_constant=lambda text: pytest.fail(text))
    assert document == compare(a, b, gates=["nll > 0.01"]).to_json()
    assert [pair["metric"] for pair in document["pairs"]] == list(METRIC_NAMES)
    assert next(p for p in document["pairs"] if p["metric"] == "mce")["p"] is None
    assert document["gates"] == [
        {"gate": "nll > 0.01", "dataset": "toy", "first": "", "second": "b:net",
         "number": next(p for p in document["pairs"] if p["metric"] == "nll")["second_value"], "broken": True}
    ]  # fmt: skip
    assert document["sides"][0] == {"label": "a:net", "folder": str(a), "method": "net"}


def test_files_are_written_once_and_never_among_results(calbench: Cli, write: Write, tmp_path: Path) -> None:
    a, b, out = write("a", {"net": GOOD}), write("b", {"net": SHARP}), tmp_path / "out"
    assert calbench("compare", a, b, "-o", out).exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    table = pd.read_csv(out / "comparison.csv")
    document = json.loads((out / "comparison.json").read_text("utf-8"))
    assert list(table.columns) == list(document["pairs"][0]) == list(COLUMNS)
    for column in ("first_value", "difference", "low", "p_holm", "win_rate"):
        expected = [math.nan if pair[column] is None else pair[column] for pair in document["pairs"]]
        np.testing.assert_allclose(table[column], expected, rtol=1e-14)
    again = calbench("compare", a, b, "-o", out)
    assert again.exit_code == 1
    assert "already holds comparison.csv" in again.stderr
    assert calbench("compare", b, a, "-o", out, "--force").exit_code == 0
    assert pd.read_csv(out / "comparison.csv").difference[0] == -table.difference[0]
    assert "holds results" in calbench("compare", a, b, "-o", a, "--force").stderr


def test_the_tables_show_the_numbers_and_fit_100_columns(calbench: Cli, write: Write) -> None:
    a, b = write("a", {"net": GOOD}), write("b", {"net": SHARP})
    found = compare(a, b)
    text = calbench("compare", a, b).stdout
    assert max(len(line) for line in text.splitlines()) <= 100
    line = next(line for line in text.splitlines() if line.startswith(" nll ↓"))
    nll = of(found, "nll")
    assert line.split() == [
        "nll", "↓", f"{nll.first_value:.4f}", f"{nll.second_value:.4f}", f"{nll.difference:+.4f}",
        f"{nll.p:.4f}"[1:], f"{100 * nll.win_rate:.0f}", "%", "worse",
    ]  # fmt: skip
    assert f"{nll.low:+.4f} to {nll.high:+.4f}" in text
    assert "mce" not in text, "headline metrics only"
    everything = calbench("compare", a, b, "--all").stdout
    assert all(f" {name}" in everything for name in METRIC_NAMES)
    assert "more metric" in text
    assert "more metric" not in everything
    only = calbench("compare", a, b, "--metrics", "mce,gap").stdout
    assert [row.split()[0] for row in only.splitlines()[5:] if row.startswith((" mce", " gap"))] == ["mce", "gap"]


def test_a_matrix_shows_row_less_column_and_what_is_told_apart(write: Write) -> None:
    methods = {f"method number {k} with a long name": rows(*maps(0.7 + 0.1 * k, noise=0.2)) for k in range(13)}
    found = compare(write("a", methods), metrics=["nll"], n_boot=4000)
    screen = console()
    with screen.capture() as capture:
        for table in comparison_tables(found, found.headline):
            screen.print(table)
    text = capture.get()
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    values = {c.first: c.first_value for c in found.contrasts} | {c.second: c.second_value for c in found.contrasts}
    order = sorted(values, key=values.__getitem__)
    cells: dict[int, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0].isdigit() and words[1] == "method":
            start = next(i for i, word in enumerate(words) if word.startswith("0."))
            assert words[start] == f"{values[order[int(words[0]) - 1]]:.4f}"
            cells.setdefault(int(words[0]), []).extend(words[start + 1 :])
    contrast_of = {frozenset((c.first, c.second)): c for c in found.contrasts}
    starred = 0
    for place, row in enumerate(order, start=1):
        expected = []
        for column in order[: place - 1]:
            contrast = contrast_of[frozenset((row, column))]
            assert (contrast.p_holm < 0.05) == contrast.differs
            starred += contrast.differs
            expected.append(f"{values[row] - values[column]:+.4f}".replace("0.", ".", 1) + "*" * contrast.differs)
        assert cells[place] == expected
    assert 0 < starred < len(found.contrasts)


def test_real_folders_of_other_thresholds_and_voids_do_not_compare(calbench: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for folder in ("a", "b", "toy/gt"):
        (tmp_path / folder).mkdir(parents=True)
    for name in range(6):
        mask = rng.choice(np.array([0, 100, 255], np.uint8), (9, 14))
        Image.fromarray(mask).save(tmp_path / "toy" / "gt" / f"{name}.png")
        for method in "ab":
            Image.fromarray(rng.integers(0, 256, (9, 14)).astype(np.uint8)).save(tmp_path / method / f"{name}.png")

    def evaluated(method: str, out: str, *options: object) -> Path:
        given = ("--metrics", "ece,nll", "--n-boot", 50, "-o", tmp_path / out, *options)
        result = calbench("evaluate", "--pred", tmp_path / method, "--gt", tmp_path / "toy" / "gt", *given)
        assert result.exit_code == 0, result.output
        return tmp_path / out

    a, b = (evaluated(method, f"out_{method}", "--gt-threshold", 128) for method in "ab")
    assert calbench("compare", a, b).exit_code == 0
    low = calbench("compare", a, evaluated("b", "low", "--gt-threshold", 50))
    assert low.exit_code == 1
    assert "gt_threshold: 128 of a, 50 of b" in low.stderr
    void = calbench("compare", a, evaluated("b", "void", "--gt-threshold", 128, "--void-value", 100))
    assert void.exit_code == 1
    assert "void_values: [] of a, [100] of b" in void.stderr
    assert of(compare(a, b), "ece").first == Key("toy", "a").name


def test_levels_and_floats_share_what_is_the_same_number(write: Write) -> None:
    """A binary map and one of two classes have a Brier score each, of another form: the two are not compared."""
    from calbench import Sample, collect

    level, target = maps(1.0, n=8)
    binary = [Sample(f"{i:03d}", x.reshape(6, 10) / 255, y.reshape(6, 10), kind="probabilities")
              for i, (x, y) in enumerate(zip(level, target, strict=True))]  # fmt: skip
    several = [replace(s, scores=np.stack([1 - s.scores, s.scores]), layout="CHW") for s in binary]
    one, two = (next(iter(collect(s, scores=()).combinations.values())) for s in (binary, several))
    assert isinstance(one.top_label, ReliabilityCells)
    settings: dict[str, Any] = {"metrics": ("ece", "brier", "nll")}
    found = compare(write("a", {"net": one}, **settings), write("b", {"net": two}, **settings))
    assert found.metrics == ("ece", "nll")
    assert of(found, "ece").difference == 0
    assert any("brier" in note and "form=binary of a:net; form=multiclass of b:net" in note for note in found.notes)
