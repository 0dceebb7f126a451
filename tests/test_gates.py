"""Gates: what they read, what breaks them, and what they say."""

from __future__ import annotations

import math

import pytest

from calbench.errors import OptionError, UnknownName
from calbench.gates import Gate, Outcome


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ece>0.05", Gate("ece", False, ">", 0.05)),
        (" max_f  <=  .5 ", Gate("max_f", False, "<=", 0.5)),
        ("delta(nll) >= -1e-3", Gate("nll", True, ">=", -0.001)),
        ("delta( miou )<0", Gate("miou", True, "<", 0.0)),
    ],
)
def test_gates_are_read_with_and_without_spaces(text: str, expected: Gate) -> None:
    assert Gate.parse(text) == expected
    assert Gate.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "ece", "ece 0.05", "ece = 0.05", "ece == 0.05", "ece > five", "ece > nan", "ece > inf", "0.05 < ece",
             "delta ece > 0", "delta(ece > 0", "delta(ece) > 0 and nll > 0", "ece > 0.05 0.06", "ece >> 1"],
)  # fmt: skip
def test_what_is_no_gate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match=r"such as 'ece > 0\.05' or 'delta\(ece\) > 0\.002'") as error:
        Gate.parse(text)
    assert repr(text) in str(error.value)
    assert error.value.exit_code == 2


def test_unknown_metrics_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'brier'"):
        Gate.parse("breir > 0.1")
    with pytest.raises(UnknownName, match="no metric 'ood_auroc'"):  # of an out-of-distribution set
        Gate.parse("ood_auroc < 0.9")


@pytest.mark.parametrize(
    ("text", "at", "below", "above"),
    [("ece>0.05", False, False, True), ("ece>=0.05", True, False, True),
     ("ece<0.05", False, True, False), ("ece<=0.05", True, True, False)],
)  # fmt: skip
def test_each_operator_breaks_on_its_side(text: str, at: bool, below: bool, above: bool) -> None:
    gate = Gate.parse(text)
    assert [gate.broken(x, math.nan) for x in (0.05, 0.049, 0.051)] == [at, below, above]
    of_delta = Gate.parse(text.replace("ece", "delta(ece)"))
    assert [of_delta.broken(math.nan, x) for x in (0.05, 0.049, 0.051)] == [at, below, above]


def test_what_is_undefined_breaks_every_gate() -> None:
    for text in ("ece > 0.05", "ece < 0.05", "delta(ece) > 0", "delta(ece) < 0"):
        assert Gate.parse(text).broken(math.nan, math.nan)
    assert "ece is undefined on SOD, net" in Outcome(Gate.parse("ece > 1"), "SOD", "", "net", math.nan, True).text


def test_the_line_of_a_broken_gate_shows_why() -> None:
    gate = Gate.parse("ece>0.05")
    assert Outcome(gate, "SOD", "", "net", 0.0812, True).text == "gate: ece 0.0812 > 0.05 on SOD, net"
    assert Outcome(gate, "SOD", "", "net", 0.05000001, True).text == "gate: ece 0.05000001 > 0.05 on SOD, net"
    of_delta = Outcome(Gate.parse("delta(ece)>0.002"), "SOD", "old", "new", 0.00312, True)
    assert of_delta.text == "gate: delta(ece) 0.0031 > 0.002 on SOD, new against old"
