"""Real predictions: what their publishers or other tools say of them, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REGIONS = ("boundary", "interior_fg", "interior_bg")


def rows(result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["results"]


def pooled(found: list[dict[str, Any]], region: str = "all", method: str | None = None) -> dict[str, float]:
    """The first pooled value of each metric: not that of a class."""
    return {
        row["metric"]: row["value"]
        for row in reversed(found)
        if row["average"] == "pixels" and row["region"] == region and method in (None, row["method"])
    }


def test_camvid_logits_have_the_values_that_came_with_them(calbench, real_data: Path):
    folder = real_data / "camvid-logits"
    found = pooled(rows(calbench("evaluate", "--pred", folder, "--ignore-index", 11, "--n-boot", 0, "--json", "-q")))
    expected = {"pixel_accuracy": 0.9066, "mean_confidence": 0.9130, "nll": 0.2871, "brier": 0.1373, "ece": 0.0092}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=5e-5)


def test_resnet_on_cifar_has_its_published_error(calbench, real_data: Path):
    """0.0475035: 15 equal-width bins (lo, hi], printed by the notebook of markus93/NN_calibration."""
    table = real_data / "toplabel-csv" / "probs_resnet110_c10_logits.csv"
    found = pooled(rows(calbench("evaluate", "--pred", table, "--n-boot", 0, "--json", "-q")))
    assert found["ece"] == pytest.approx(0.0475035184, abs=1e-7)
    assert not {"nll", "brier", "ece_classwise", "entropy"} & found.keys()


@pytest.mark.parametrize("name", ["lenet-5-cifar-10", "wideresnet-16-4-cifar-10", "densenet-bc-100-cifar-100"])
def test_softmax_tables_agree_with_plain_numpy(calbench, real_data: Path, name: str):
    path = real_data / "cifar-softmax" / f"{name}.npz"
    with np.load(path) as file:
        p, y = file["predictions"].astype(np.float64), file["ground_truth"]
    found = pooled(rows(calbench("evaluate", "--pred", path, "--n-boot", 0, "--json", "-q")))
    confidence, right = p.max(1), p.argmax(1) == y
    bins = np.clip(np.ceil((confidence - 2.0**-21) * 15) - 1, 0, 14).astype(int)
    ece = np.abs(np.bincount(bins, confidence - right, minlength=15)).sum() / len(y)
    hot = np.eye(p.shape[1])[y]
    cells = np.clip(np.ceil((p - 2.0**-21) * 15) - 1, 0, 14).astype(int)
    classwise = np.mean([np.abs(np.bincount(cells[:, k], (p - hot)[:, k])).sum() / len(y) for k in range(p.shape[1])])
    eps = np.finfo(np.float32).eps
    expected = {
        "accuracy": right.mean(),
        "ece": ece,
        "ece_classwise": classwise,
        "brier": ((p - hot) ** 2).sum(1).mean(),
        "nll": -np.log(np.clip(p[np.arange(len(y)), y], eps, 1 - eps)).mean(),
    }
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected, abs=1e-6)


def test_regions_of_drive_add_up(calbench, real_data: Path):
    drive = real_data / "drive"
    options = ("--gt", drive / "gt", "--mask", drive / "fov", "--regions", "--n-boot", 0, "--json", "-q")
    found = rows(calbench("evaluate", "--pred", drive / "pred" / "LadderNet", *options))
    pixels = {row["region"]: row["n_pixels"] for row in found if row["metric"] == "brier"}
    assert sum(pixels[region] for region in REGIONS) == pixels["all"]
    assert sum(pixels[f"size_q{q}"] for q in (1, 2, 3, 4)) == pixels["all"]
    for metric in ("brier", "nll", "accuracy", "gap", "entropy"):
        parts = [pooled(found, region)[metric] * pixels[region] for region in REGIONS]
        assert sum(parts) / pixels["all"] == pytest.approx(pooled(found)[metric], abs=1e-12)
    assert pooled(found, "boundary")["brier"] > 20 * pooled(found, "interior_bg")["brier"]
    assert {row["region"] for row in found if row["metric"] == "max_f"} == {"all"}
