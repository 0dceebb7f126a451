"""When selective scaling helps with the class kept, and when only by changing it: an oracle detector on synthetic pixels.

    python benchmarks/selective.py

Pixels. C = 150 classes. The logits of 149 classes are N(0, 1); the winner, a random class, has their log-sum-exp plus a
margin m, so that its softmax probability is σ(m), or their maximum where that is larger. A share of 0.801 of the pixels
is right: the truth is the winner, m ~ N(a, 2²). The others are wrong: the truth is another class, drawn evenly,
m ~ N(b, 2²). a and b are such that the mean confidence is 0.988 of right and 0.868 of wrong pixels, all confidences above
their accuracy on the whole: ECE 0.163.

Detector. It flags wrong pixels at random with the probability `recall`, and right ones at random with the probability
that makes `precision` the share of wrong ones among the flagged. It knows nothing else.

Flagged logits are divided by t_wrong. "kept": the class stays, whatever the scaled logits say. "re-argmax": the class is
taken from the scaled logits in float32, as the study's code does. "NLL": t_wrong by maximum likelihood on the flagged
pixels. ECE has 10 bins.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

from calbench.calibrators.temperature import Temperature
from calbench.statistics.reliability import bin_index

N_CLASSES = 150
ACCURACY = 0.801
CONFIDENCE_RIGHT, CONFIDENCE_WRONG = 0.988, 0.868
SPREAD = 2.0
RECALL, PRECISION = 0.6, 0.6
T_WRONG = (2.0, 5.0, 10.0, 1e10)
PRECISIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BINS = 10
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Drawn:
    """Synthetic pixels: logits `(n, C)` float32, and the truth, the winner, and a uniform number of each, `(n,)`."""

    logits: Array
    target: Array
    winner: Array
    uniform: Array

    @property
    def right(self) -> Array:
        return self.winner == self.target

    def flagged(self, precision: float, recall: float = RECALL) -> Array:
        """What a detector of that precision and recall takes for wrong."""
        n_wrong = int((~self.right).sum())
        mistaken = recall * n_wrong * (1 - precision) / precision / self.right.sum()
        return self.uniform < np.where(self.right, mistaken, recall)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Confidence and outcome of every pixel at one temperature, `(n,)` each."""

    confidence: Array
    kept: Array
    reargmax: Array


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pixels", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    drawn = draw(given.pixels, given.seed)
    plain = scaled(drawn, 1.0)
    scalings = {t: scaled(drawn, t) for t in T_WRONG}
    print(
        f"{given.pixels:,} pixels, {N_CLASSES} classes, seed {given.seed}: accuracy {plain.kept.mean():.3f}, "
        f"ECE {ece(plain.confidence, plain.kept):.3f}; recall {RECALL}\n"
    )
    print_temperatures(drawn, plain, scalings)
    print_precisions(drawn, plain, scalings)


def print_temperatures(drawn: Drawn, plain: Scaled, scalings: dict[float, Scaled]) -> None:
    """Both classes at each temperature, at the study's precision."""
    flagged = drawn.flagged(PRECISION)
    best = best_temperature(drawn, flagged)
    print(f"precision {PRECISION}\n")
    print("| t_wrong | ECE, kept | accuracy, kept | ECE, re-argmax | accuracy, re-argmax |")
    print("|---|---|---|---|---|")
    print(row("1 (uncalibrated)", plain, plain, np.zeros_like(flagged)))
    for t, scaling in scalings.items():
        print(row(f"{t:g}", plain, scaling, flagged))
    print(row(f"{best:.2f} (NLL)", plain, scaled(drawn, best), flagged) + "\n")


def print_precisions(drawn: Drawn, plain: Scaled, scalings: dict[float, Scaled]) -> None:
    """The class kept, at each precision, and where the gain ends."""
    print("ECE with the class kept\n")
    print("| precision | " + " | ".join(f"t_wrong {t:g}" for t in scalings) + " | t_wrong by NLL | T |")
    print("|---" * (len(scalings) + 3) + "|")
    for precision in PRECISIONS:
        flagged = drawn.flagged(precision)
        best = best_temperature(drawn, flagged)
        columns = [*scalings.values(), scaled(drawn, best)]
        errors = " | ".join(f"{kept_ece(plain, scaling, flagged):.3f}" for scaling in columns)
        print(f"| {precision} | {errors} | {best:.2f} |")
    ends = " | ".join(break_even(drawn, plain, scaling) for scaling in scalings.values())
    print(f"| break-even | {ends} | none | |")


def draw(n: int, seed: int) -> Drawn:
    """The pixels."""
    generator = np.random.default_rng(seed)
    winner = generator.integers(N_CLASSES, size=n)
    right = generator.random(n) < ACCURACY
    target = np.where(right, winner, (winner + generator.integers(1, N_CLASSES, size=n)) % N_CLASSES)
    logits = generator.standard_normal((n, N_CLASSES), np.float32)
    means = np.where(right, margin_for(CONFIDENCE_RIGHT), margin_for(CONFIDENCE_WRONG))
    margin = means + SPREAD * generator.standard_normal(n)
    logits[np.arange(n), winner] = -np.inf
    logits[np.arange(n), winner] = np.maximum(logsumexp(logits, axis=1) + margin, np.nextafter(logits.max(1), np.inf))
    return Drawn(logits, target, winner, generator.random(n))


def margin_for(confidence: float) -> float:
    """The mean margin at which the mean of σ(margin) is that confidence."""
    return float(brentq(lambda mean: WEIGHTS @ expit(mean + SPREAD * NODES) / WEIGHTS.sum() - confidence, -20, 20))


def scaled(drawn: Drawn, temperature: float) -> Scaled:
    """Softmax of all logits divided by the temperature, in float32."""
    z = drawn.logits / np.float32(temperature)
    e = np.exp(z - z.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return Scaled(p.max(1).astype(np.float64), drawn.right, p.argmax(1) == drawn.target)


def best_temperature(drawn: Drawn, flagged: Array) -> float:
    return Temperature().fit(drawn.logits[flagged], drawn.target[flagged]).temperature_


def kept_ece(plain: Scaled, scaling: Scaled, flagged: Array) -> float:
    return ece(np.where(flagged, scaling.confidence, plain.confidence), plain.kept)


def ece(confidence: Array, correct: Array) -> float:
    """Σ over bins of |Σ (correct − confidence)|, a pixel."""
    return float(np.abs(np.bincount(bin_index(confidence, BINS), correct - confidence, BINS)).sum() / len(confidence))


def row(name: str, plain: Scaled, scaling: Scaled, flagged: Array) -> str:
    """A line of the table of temperatures."""
    confidence = np.where(flagged, scaling.confidence, plain.confidence)
    again = np.where(flagged, scaling.reargmax, plain.kept)
    cells = (ece(confidence, plain.kept), plain.kept.mean(), ece(confidence, again), again.mean())
    return f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |"


def break_even(drawn: Drawn, plain: Scaled, scaling: Scaled) -> str:
    """The precision at which the ECE with the class kept is that of the uncalibrated pixels."""
    target = ece(plain.confidence, plain.kept)

    def excess(precision: float) -> float:
        return kept_ece(plain, scaling, drawn.flagged(precision)) - target

    least = PRECISIONS[0]
    return f"{brentq(excess, least, 1, xtol=1e-3):.2f}" if excess(least) > 0 else f"below {least}"


if __name__ == "__main__":
    main()
