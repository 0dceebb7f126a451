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
MAPS = [tuple(make.decoded(stored[key]) for key in ("levels", "mask", "valid")) for stored in GOLDEN["maps"]]


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float]]:
    return make.golden_values([(levels, mask, valid.astype(bool)) for levels, mask, valid in MAPS])


def test_file_says_how_it_was_made():
    assert GOLDEN["tool"] == "calbench"
    assert GOLDEN["version"].count(".") == 2
    assert GOLDEN["command"] == make.COMMAND
    assert GOLDEN["options"] == make.OPTIONS


@pytest.mark.parametrize("n", range(3))
def test_maps_are_those_that_the_code_draws(n):
    for stored, drawn in zip(MAPS[n], make.draw(n), strict=True):
        assert np.array_equal(stored, drawn)


def test_every_metric_has_a_golden_value():
    assert set(GOLDEN["values"]) == set(METRICS)


@pytest.mark.parametrize("name", GOLDEN["values"])
def test_value_is_the_golden_one(name, measured):
    assert measured[name] == pytest.approx(GOLDEN["values"][name], rel=1e-12, abs=1e-12)
