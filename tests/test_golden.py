"""Numbers that were once written down: a change of any of them is a change of a definition, and must be meant."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from calbench.metrics import METRICS

FOLDER = Path(__file__).with_name("golden")
GOLDEN = json.loads((FOLDER / "golden.json").read_text(encoding="utf-8"))


def load_maker():
    spec = importlib.util.spec_from_file_location("golden_maker", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_maker()
STORED = {
    kind: [tuple(make.decoded(image[key]) for key in keys) for image in GOLDEN[kind]]
    for kind, keys in make.KEYS.items()
}


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, dict[str, float]]]:
    return make.golden_values(STORED)


def test_file_says_how_it_was_made():
    assert GOLDEN["tool"] == "calbench"
    assert GOLDEN["version"].count(".") == 2
    assert GOLDEN["command"] == make.COMMAND
    assert GOLDEN["options"] == make.OPTIONS


@pytest.mark.parametrize("n", range(3))
@pytest.mark.parametrize("kind", make.KEYS)
def test_predictions_are_those_that_the_code_draws(kind, n):
    for stored, drawn in zip(STORED[kind][n], make.DRAW[kind](n), strict=True):
        assert np.array_equal(stored, drawn)


def test_every_metric_has_a_golden_value(measured):
    """On every kind of predictions that gives it; none of these went through a calibrator."""
    assert set().union(*GOLDEN["values"].values()) == set(METRICS) - {"class_changed"}
    assert {kind: set(values) for kind, values in GOLDEN["values"].items()} == {
        kind: set(values) for kind, values in measured.items()
    }


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, values in GOLDEN["values"].items() for name in values]
)
def test_value_is_the_golden_one(kind, name, measured):
    assert measured[kind][name] == pytest.approx(GOLDEN["values"][kind][name], rel=1e-12, abs=1e-12)
