"""Synthetic maps with nothing to find, through the command line: the numbers of the population that they were drawn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calbench.metrics.calibration_error import expected_calibration_error
from calbench.statistics import JointHistogram
from calbench.synthetic import SyntheticScene, expected_histogram, write_demo
from calbench.synthetic_classes import OOD_SCENE, ood_maps

SHARPNESS = {"calibrated": 1.0, "overconfident": 2.5, "underconfident": 0.4}
IMAGES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three methods on the demo's images, and on as many with nothing to find."""
    folder = write_demo(tmp_path_factory.mktemp("ood"), n_images=IMAGES, scene=SyntheticScene(height=24, width=32))
    for method, sharpness in SHARPNESS.items():
        textures = folder / "preds" / method / "textures"
        textures.mkdir()
        for name, levels in ood_maps(IMAGES, sharpness, seed=1):
            Image.fromarray(levels).save(textures / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def found(folder) -> dict[str, dict[tuple[str, str], dict[str, float]]]:
    """method -> (metric, options) -> row, pooled rows of the textures."""
    from click.testing import CliRunner

    from calbench.cli import main

    preds = f"{folder}/preds/{{method}}"
    arguments = ["evaluate", "--pred", f"{preds}/synthetic", "--gt", f"{folder}/data/synthetic/gt"]
    result = CliRunner().invoke(
        main, [*arguments, "--ood", f"textures={preds}/textures", "--json", "-q", "--n-boot", "400"]
    )
    assert result.exit_code == 0, result.output
    rows = [row for row in json.loads(result.stdout)["results"] if row["dataset"] == "textures"]
    return {
        method: {
            (row["metric"], row["options"]): row
            for row in rows
            if row["method"] == method and ("level" in row["options"] or row["average"] == "pixels")
        }
        for method in SHARPNESS
    }


def population(sharpness: float) -> JointHistogram:
    """Shares of the levels, all of them background."""
    shares = expected_histogram(sharpness, scene=OOD_SCENE).counts.sum(0)
    return JointHistogram((), np.stack([shares, np.zeros_like(shares)]))


@pytest.mark.parametrize("method", SHARPNESS)
def test_entropy_and_error_are_those_of_the_population(found, method):
    """Within four standard errors; the error of maps without an object is what they claim of one."""
    truth = population(SHARPNESS[method])
    entropy = float(truth.score_sums().entropy / truth.counts.sum())
    row = found[method]["ood_entropy", ""]
    assert row["value"] == pytest.approx(entropy, abs=4 * (row["high"] - row["low"]) / 3.92)
    assert (row["high"] - row["low"]) < 0.05
    error = float(expected_calibration_error(truth.reliability("top-label")))
    row = found[method]["ood_ece", "bins=15"]
    assert row["value"] == pytest.approx(error, rel=0.05)
    assert row["low"] <= error <= row["high"]


def test_sharper_maps_are_less_unsure(found):
    entropies = [
        found[method]["ood_entropy", ""]["value"] for method in ("underconfident", "calibrated", "overconfident")
    ]
    assert entropies == sorted(entropies, reverse=True)


def test_detection_does_not_depend_on_a_monotone_change_of_confidence(found):
    """Sharpness orders pixels as before, up to the rounding to levels; binary entropy and confidence order them alike."""
    for level in ("pixel", "image"):
        values = [found[method]["ood_auroc", f"level={level};score=entropy"]["value"] for method in SHARPNESS]
        assert values == pytest.approx([values[0]] * 3, abs=0.01 if level == "pixel" else 0.05)
        assert values[0] > 0.75
    for method in SHARPNESS:
        by_score = [
            found[method]["ood_fpr95", f"level=pixel;score={score}"]["value"] for score in ("entropy", "maxprob")
        ]
        assert by_score[0] == by_score[1]
