"""The ASLP profile against the outputs of the official scripts on three images defined by a formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strategies import Image, number, row, scene, statistics_of, values

from calbench.errors import InputError
from calbench.evaluate import Evaluator, Settings
from calbench.kernels.aslp import measure_aslp, thresholds
from calbench.metrics import METRICS
from calbench.metrics.aslp import _introsort, aslp_cells
from calbench.profiles import PROFILES
from calbench.results import Results
from calbench.statistics import Run, Statistics

OFFICIAL = {  # printed by the official functions on CPU, float32; ten cells also for the debiased error
    "aslp_ece": 0.113189,
    "aslp_oe": 6.6425e-05,
    "aslp_accuracy": 0.845052,
    "aslp_debias": 0.0242408,
    "aslp_debias_oe": -1.07540e-04,
    "aslp_mae": 0.282889,
    "aslp_max_f": 0.878492,
    "aslp_mean_f": 0.503939,
    "aslp_ap": 0.843095,
    "aslp_auc": 0.931246,
    "aslp_max_e": 0.901864,
    "aslp_mean_e": 0.517681,
    "aslp_s_measure": 0.664532,
}
TOLERANCE = {"aslp_oe": 1e-7, "aslp_debias_oe": 1e-7}  # small numbers; the scripts' float32 means are good to 1e-7


def formula_images() -> list[Image]:
    i, j = np.mgrid[:24, :32]
    pictures = []
    for n in range(3):
        mask = np.where((i - 11 - n) ** 2 + (j - 15 + 2 * n) ** 2 <= 49, 255, 0).astype(np.uint8)
        noise = (7 * i + 13 * j + 3 * i * j + 31 * n) % 160 - 80
        levels = np.clip(np.where(mask == 255, 170, 70) + noise, 0, 255).astype(np.uint8)
        if n == 2:
            mask[0, :10] = 100
        pictures.append(Image(levels, mask))
    return pictures


@pytest.fixture(scope="module")
def official() -> Statistics:
    return statistics_of(formula_images())


def test_formula_images_are_the_ones_the_scripts_saw():
    assert [int(image.scores.sum()) for image in formula_images()] == [68740, 68605, 67635]
    assert [int(image.mask.sum()) for image in formula_images()] == [37995, 37995, 38995]


@pytest.mark.parametrize("name", OFFICIAL)
def test_equals_the_official_scripts(name, official):
    assert number(official, name) == pytest.approx(OFFICIAL[name], rel=0, abs=TOLERANCE.get(name, 1e-5))


def test_profile_holds_exactly_these_numbers():
    assert set(PROFILES["aslp"].metrics) == set(OFFICIAL)


def test_signed_sum_of_the_validation_helper(official):
    """Σ w_k (C_k − A_k) over the ten cells: the scripts' validation "ECE" has no absolute value."""
    cells = aslp_cells(official.total()).binned(10)
    assert -cells.residual.sum() / cells.count.sum() == pytest.approx(-0.112948, abs=1e-6)


def test_soft_mask_bytes_are_counted_wrong():
    """A byte that is neither 0 nor 255 equals no thresholded prediction; other profiles cut it at 128."""
    levels = np.full((4, 6), 255, np.uint8)
    mask = np.full((4, 6), 255, np.uint8)
    mask[1, :3] = 254
    statistics = row("a", Image(levels, mask))
    assert number(statistics, "aslp_accuracy") == 1 - 3 / 24
    assert number(statistics, "accuracy") == 1


def test_masks_coded_with_ones_are_wrong_throughout():
    image = scene(0)
    ones = image._replace(mask=(image.mask == 255).astype(np.uint8))
    right = number(row("a", image), "aslp_accuracy")
    found = np.mean((image.mask == 255) & (image.scores >= 128))
    assert number(row("a", ones), "aslp_accuracy") == pytest.approx(right - found, rel=1e-12)


def test_soft_mask_bytes_enter_the_curves_as_shares():
    """At the lowest threshold all is selected: precision is the mean of byte / 255, recall 1."""
    image = scene(3)._replace(mask=np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8))
    rows = measure_aslp("a", image.scores, image.mask)
    assert rows.precision[0, 0] == pytest.approx((image.mask / 255).mean())
    assert rows.recall[0, 0] == pytest.approx(1)
    assert rows.mae[0] == pytest.approx(np.abs(image.scores / 255 - image.mask / 255).mean())


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch rounds twice without vectors")
def test_thresholds_are_those_of_torch_linspace():
    """Bit for bit in float32; where a CPU has vectors, torch multiplies and adds with one rounding."""
    theirs = torch.linspace(0, 1 - 1e-10, 255).numpy()
    assert thresholds().dtype == theirs.dtype == np.float32
    assert np.array_equal(thresholds(), theirs)
    assert thresholds()[-1] == 1


def test_ties_are_sorted_as_torch_sorts_them():
    """`torch.sort` is not stable; the order it leaves tied values in decides the area under the curve."""
    generator = np.random.default_rng(0)
    unstable = 0
    for _ in range(300):
        n, distinct = generator.integers(1, 300), generator.integers(1, 60)
        ranks = generator.integers(0, distinct, n)
        theirs = torch.sort(torch.tensor(ranks, dtype=torch.float32)).indices.numpy()
        assert np.array_equal(_introsort(tuple(ranks.tolist())), theirs)
        unstable += not np.array_equal(theirs, np.argsort(ranks, kind="stable"))
    assert unstable > 50


def test_centroid_in_the_first_row_is_nan_and_counted():
    """A rectangle of the S-measure is then empty; the scripts' mean becomes NaN, here the image is left out and counted."""
    corner = Image(np.arange(48, dtype=np.uint8).reshape(6, 8), np.zeros((6, 8), np.uint8))
    corner.mask[0, 2:5] = 255
    value = values(statistics_of([*formula_images(), corner]), "aslp_s_measure")["images"]
    assert value.n_undefined == 1
    assert value.value == pytest.approx(OFFICIAL["aslp_s_measure"], abs=1e-5)


@pytest.mark.parametrize("profile", ["calbench", "aslp"])
@pytest.mark.parametrize("name", OFFICIAL)
def test_statistics_without_raw_bytes_say_what_to_do(name, profile, official):
    """Asked for by name or by profile, whatever the other settings."""
    plain = Run({("d", "m"): Statistics(official.histogram, scores=official.scores)})
    with pytest.raises(InputError, match=f"{name} needs .* --profile aslp"):
        Results(plain, Settings(profile=profile, metrics=(name,), n_boot=0))
    with pytest.raises(InputError, match="--profile aslp"):
        Results(plain, Settings(profile="aslp"))


@pytest.mark.parametrize("name", OFFICIAL)
def test_metric_can_be_asked_for_under_any_profile(name, official):
    """The options that only this profile knows keep their defaults elsewhere."""
    plain = Settings(metrics=(name,), n_boot=0, options={"bins": 10})
    own = Settings(metrics=(name,), n_boot=0, profile="aslp")
    assert [v.value for v in Evaluator(official, plain).values()] == [
        v.value for v in Evaluator(official, own).values()
    ]


def test_default_options_are_the_scripts():
    """ECE_EW uses ten cells, ECE_DEBIAS a hundred."""
    settings = Settings(profile="aslp")
    assert settings.options_of(METRICS["aslp_ece"]) == {"bins": 10}
    assert settings.options_of(METRICS["aslp_debias"]) == {"debias_bins": 100}
