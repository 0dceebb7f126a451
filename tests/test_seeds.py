"""The published systems' own numbers on formula-defined input, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

LOGITS, LABELS = "logits", "label"

MBLS = {
    ("nll", 15): 1.737114,
    ("ece", 10): 0.226973,
    ("ece", 15): 0.226973,
    ("mbls_aece", 10): 0.207288,
    ("mbls_aece", 15): 0.213515,
    ("mbls_cece", 10): 0.0525179,
    ("mbls_cece", 15): 0.0597060,
    ("accuracy", 15): 0.7875,
    ("logit_mean_distance", 15): 5.276570,
    ("logit_max_distance", 15): 9.529469,
    ("logit_margin", 15): 0.907539,
    ("entropy_normalised", 15): 0.471156,
    ("mbls_kl", 15): 3.062948,
    ("mbls_l1", 15): 0.129718,
    ("mbls_segmentation_ece", 15): 0.240341,
    ("mbls_objects_ece", 15): 0.221588,
}
"""What the evaluators of MbLS give on `table`; batches of 60 samples, and `objects` drops label 0."""


def table() -> tuple[np.ndarray, np.ndarray]:
    """Logits (240, 10) and labels by formula."""
    n, k = np.mgrid[:240, :10]
    logits = 12 * ((17 * n + 29 * k + 5 * n * k) % 97) / 97 - 6 + 0.01 * k
    sample = np.arange(240)
    labels = np.where(sample % 4 != 0, logits.argmax(1), (3 * sample + sample // 5) % 10)
    assert logits.sum() == pytest.approx(-41.3199, abs=1e-3)
    assert labels.sum() == 1073
    return logits, labels


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("seeds") / "net.npz"
    logits, labels = table()
    np.savez(path, **{LOGITS: logits, LABELS: labels})
    return path


def numbers(result) -> dict[str, float]:
    assert result.exit_code == 0, result.output
    return {row["metric"]: row["value"] for row in reversed(json.loads(result.stdout)["results"])}


@pytest.mark.parametrize("bins", [10, 15])
def test_mbls_profile_gives_the_numbers_of_its_evaluators(calbench, file, bins):
    options = ("--profile", "mbls", "--bins", bins, "--batch", 60, "--n-boot", 0, "--json", "-q")
    found = numbers(calbench("evaluate", "--pred", file, *options))
    expected = {name: value for (name, b), value in MBLS.items() if b == bins}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_own_profile_agrees_where_the_definitions_do(calbench, file):
    found = numbers(calbench("evaluate", "--pred", file, "--bins", 10, "--n-boot", 0, "--json", "-q"))
    expected = {
        "nll": 1.737114,
        "ece": 0.226973,
        "ece_classwise": 0.0525179,
        "brier": 0.520948,
        "pixel_accuracy": 0.7875,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)


def test_batches_of_one_sample_exceed_larger_ones_which_exceed_the_pooled_error(calbench, file):
    """By the triangle inequality; so the number says little without its batch size, which stands among the options."""
    errors = [
        numbers(calbench("evaluate", "--pred", file, "--profile", "mbls", "--batch", n, "--n-boot", 0, "--json", "-q"))
        for n in (1, 60, 240)
    ]
    values = [found["mbls_segmentation_ece"] for found in errors]
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(errors[0]["mbls_objects_ece"], abs=1e-12)


def test_extreme_temperature_changes_the_class_only_where_it_is_chosen_anew(calbench, tmp_path):
    """Logits divided by 1e10: float32 probabilities are all equal, class 0 wins, and ECE falls because accuracy does."""
    logits, labels = table()
    flat = np.where((np.arange(240) % 5 == 0)[:, None], logits / 1e10, logits).astype(np.float32)
    np.savez(tmp_path / "scaled.npz", **{LOGITS: flat, LABELS: labels})
    options = ("--profile", "selectivecal", "--n-boot", 0, "--json", "-q")
    found = numbers(calbench("evaluate", "--pred", tmp_path / "scaled.npz", *options))
    confidence = np.exp(flat - flat.max(1, keepdims=True))
    confidence /= confidence.sum(1, keepdims=True)
    kept, chosen = flat.argmax(1) == labels, confidence.argmax(1) == labels
    assert found["accuracy"] == pytest.approx(kept.mean(), abs=1e-12)
    assert found["selectivecal_accuracy_rechosen"] == pytest.approx(chosen.mean(), abs=1e-12)
    assert chosen.mean() < kept.mean()
    for name, right in (("ece", kept), ("selectivecal_ece_rechosen", chosen)):
        edges = np.clip(np.ceil(confidence.max(1).astype(float) * 10 - 1e-6) - 1, 0, 9)
        gaps = [abs((confidence.max(1) - right)[edges == b].sum()) for b in range(10)]
        assert found[name] == pytest.approx(sum(gaps) / 240, abs=1e-6)
