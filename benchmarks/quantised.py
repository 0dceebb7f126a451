"""How far a temperature is off that was fitted on saved maps instead of logits.

    python benchmarks/quantised.py                       a few seconds

Binary maps of `calbench.synthetic`, sharpened by T: their logits are T times the calibrated ones, and T undoes that. The
same pixels are fitted as float64 logits; as probabilities in float16; as maps of 16 and of 8 bits; as 8-bit maps without
the pixels at levels 0 and 255. What is stored becomes logits as `calbench calibrate` does it: p is kept half a level, or
the unit of the type, away from 0 and 1. So those two levels hide how large the logits were: a pixel at 255 counts as 6.2,
and the sharper the maps, the more of them there are.

Prints a Markdown table of T from the logits, and of the relative error of the others, with the share of pixels that 8
bits put at level 0 or 255. Nothing here is a test.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit, logit

from calbench.calibrators.samples import logits_of
from calbench.calibrators.temperature import Temperature
from calbench.io.sample import Sample
from calbench.synthetic import draw_image

SHARPNESSES = (0.5, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)

Array = np.ndarray


def pixels(images: int, seed: int) -> tuple[Array, Array]:
    """Calibrated logits, at most ±34 (1 − p is a float64), and the masks."""
    drawn = [draw_image(np.random.default_rng([seed, number])) for number in range(images)]
    p, mask = (np.stack(parts) for parts in zip(*drawn, strict=True))
    return logit(np.clip(p, 1e-15, 1 - 1e-15)).reshape(len(p), -1), mask.reshape(len(p), -1)


def stored(z: Array) -> dict[str, Sample]:
    """The maps as files hold them."""
    p = expit(z)
    return {
        "float16": Sample("p", p.astype(np.float16), None, kind="probabilities"),
        "16 bits": Sample("p", np.round(65535 * p).astype(np.uint16), None, kind="levels"),
        "8 bits": Sample("p", np.round(255 * p).astype(np.uint8), None),
    }


def temperature(z: Array, mask: Array) -> float:
    return Temperature().fit(z.ravel(), mask.ravel().astype(np.intp)).temperature_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    calibrated, mask = pixels(given.images, given.seed)
    columns = ("float16", "16 bits", "8 bits", "8 bits, ends left out")
    print(f"{given.images} images, {calibrated.size:,} pixels, seed {given.seed}\n")
    print("| sharpened by | T of the logits | " + " | ".join(columns) + " | at level 0 or 255 |")
    print("|---" * (len(columns) + 3) + "|")
    for sharpness in SHARPNESSES:
        z = sharpness * calibrated
        expected, maps = temperature(z, mask), stored(z)
        logits = {name: logits_of(sample) for name, sample in maps.items()}
        inside = (maps["8 bits"].scores > 0) & (maps["8 bits"].scores < 255)
        found = [temperature(logits[name], mask) for name in columns[:3]]
        found.append(temperature(logits["8 bits"][inside], mask[inside]))
        errors = " | ".join(f"{100 * (t / expected - 1):+.2f} %" for t in found)
        print(f"| {sharpness:g} | {expected:.4f} | {errors} | {100 * (1 - inside.mean()):.0f} % |", flush=True)


if __name__ == "__main__":
    main()
