"""Write golden.json: tiny predictions drawn by formula, and the value of every metric on them.

    python tests/golden/make.py

Three 8-bit maps; the same maps as float32 probabilities; three volumes of logits of five classes; and 8-bit maps of
images with nothing to find, against the first three. Run it only when a definition changes on purpose, and say so in the
changelog: the file says what a version computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from calbench.evaluate import Evaluator, Settings, Value
from calbench.io.sample import Sample
from calbench.kernels import measure_aslp
from calbench.measure import Request, measure_sample
from calbench.metrics import METRICS
from calbench.ood import Separation
from calbench.statistics import AslpRows, Statistics

PATH = Path(__file__).with_name("golden.json")
COMMAND = "python tests/golden/make.py"
OPTIONS = {"bins": 15, "ties": "split", "debias_bins": 8, "batch": 2}
SETTINGS = Settings(metrics=tuple(METRICS), options=OPTIONS, n_boot=0)
EXTRAS = ("mbls", "selectivecal", "torchmetrics")
SHAPE = (13, 19)
CLASSES = 5
STEPS = 16
"""Logits are stored as bytes 128 + 16 · logit: exact binary fractions from −8 to 8."""

Arrays = tuple[np.ndarray, ...]


def draw(n: int) -> Arrays:
    """Levels, mask bytes (grey rim) and valid pixels (void in the last map only) of map n; integers only."""
    i, j = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = (i - 5 - n) ** 2 * 2 + (j - 10 + n) ** 2
    mask = np.select([distance <= 27, distance <= 33], [255, 128 + 20 * (n - 1)], 0)
    levels = np.clip(300 - 8 * distance + (37 * i * j + 53 * i + 11 * j * n) % 97 - 48, 9 * n, 255 - 17 * n)
    valid = (i + 2 * j) % 7 > 0 if n == 2 else np.ones(SHAPE, bool)
    return levels.astype(np.uint8), mask.astype(np.uint8), valid


def draw_volume(n: int) -> Arrays:
    """Logits as bytes `(classes, H, W)`, classes and valid pixels (void in the last volume only) of volume n; integers only.

    Four classes lie around a point each, class 0 fills the rest; the last class is missing in the first volume. At one
    pixel of each volume all logits are equal.
    """
    k, i, j = np.mgrid[:CLASSES, : 7 + n, : 11 + n]
    distance = 2 * (i - 5 * k % 8) ** 2 + (j - 3 * k) ** 2
    nearness = np.select([k == 0, (k == CLASSES - 1) & (n == 0)], [50, 20], 64 - distance)
    noise = (29 * i * j + 41 * i * k + 17 * j * (k + n) + 7 * k * n) % 83 - 41
    logits = np.clip(78 + nearness + noise * 2 // 3, 0, 255)
    logits[:, 3, 5 + n] = 128
    valid = (i[0] + 3 * j[0]) % 5 > 0 if n == 2 else np.ones(logits.shape[1:], bool)
    return logits.astype(np.uint8), nearness.argmax(0).astype(np.uint8), valid


def draw_outside(n: int) -> Arrays:
    """Levels of map n of an image with nothing to find, halfway between map n and grey."""
    return (draw(n)[0] // 2 + 64,)


DRAW = {"maps": draw, "volumes": draw_volume, "outside": draw_outside}
KEYS = {"maps": ("levels", "mask", "valid"), "volumes": ("logits", "labels", "valid"), "outside": ("levels",)}


def measured(samples: Iterable[Sample]) -> Statistics:
    """Everything that any metric reads of these predictions."""
    return Statistics.concat([measure_sample(sample, Request(extras=EXTRAS)) for sample in samples])


def golden_values(drawn: dict[str, list[Arrays]]) -> dict[str, dict[str, dict[str, float]]]:
    """kind of predictions -> metric -> what of it -> value."""
    maps = [
        Sample(f"map{n}", levels, mask > 128, valid.astype(bool))
        for n, (levels, mask, valid) in enumerate(drawn["maps"])
    ]
    raw = [measure_aslp(f"map{n}", *arrays[:2], arrays[2].astype(bool)) for n, arrays in enumerate(drawn["maps"])]
    eight_bit = measured(maps)
    eight_bit = replace(eight_bit, aslp=AslpRows.concat(raw))
    floats = measured(
        replace(sample, scores=(sample.scores / 255).astype(np.float32), kind="probabilities") for sample in maps
    )
    classes = measured(
        Sample(f"volume{n}", (logits - 128.0) / STEPS, labels, valid.astype(bool), "logits")
        for n, (logits, labels, valid) in enumerate(drawn["volumes"])
    )
    inside = Evaluator(eight_bit, SETTINGS)
    outside = Evaluator(measured(Sample(f"map{n}", *a, None) for n, a in enumerate(drawn["outside"])), SETTINGS, "ood")
    return {
        "8-bit": by_metric(inside.values()),
        "float": by_metric(Evaluator(floats, SETTINGS).values()),
        "classes": by_metric(Evaluator(classes, SETTINGS).values()),
        "outside": by_metric([*outside.values(), *Separation(inside, outside, SETTINGS).values()]),
    }


def by_metric(values: Iterable[Value]) -> dict[str, dict[str, float]]:
    """metric -> kind of average, with the class or the score of the ranking if there are several -> value."""
    found: dict[str, dict[str, float]] = {}
    for value in values:
        options = dict(part.split("=") for part in value.options.split(";") if part)
        of = ", ".join([value.average, *(f"{key} {options[key]}" for key in ("class", "score") if key in options)])
        found.setdefault(value.metric, {})[of] = value.value
    return found


def encoded(array: np.ndarray) -> list[Any]:
    """Rows of bytes as hexadecimal; a volume as a list of these."""
    return [encoded(part) if part.ndim > 1 else bytes(part).hex() for part in array.astype(np.uint8)]


def decoded(lines: Sequence[Any]) -> np.ndarray:
    """The array that `encoded` wrote."""
    return np.array([list(bytes.fromhex(line)) if isinstance(line, str) else decoded(line) for line in lines], np.uint8)


def main() -> None:
    """Draw, measure, write."""
    drawn = {kind: [function(n) for n in range(3)] for kind, function in DRAW.items()}
    document = {
        "tool": "calbench",
        "version": version("calbench"),
        "command": COMMAND,
        "options": OPTIONS,
        **{
            kind: [dict(zip(KEYS[kind], map(encoded, arrays), strict=True)) for arrays in images]
            for kind, images in drawn.items()
        },
        "values": golden_values(drawn),
    }
    PATH.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
