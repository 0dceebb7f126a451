"""Write golden.json: three tiny maps drawn by formula, and the value of every metric on them.

    python tests/golden/make.py

Run it only when a definition changes on purpose, and say so in the changelog: the file says what a version computed.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

from calbench.evaluate import Evaluator, Settings
from calbench.kernels import measure, measure_aslp
from calbench.metrics import METRICS
from calbench.statistics import ImageScores, JointHistogram, Statistics

PATH = Path(__file__).with_name("golden.json")
COMMAND = "python tests/golden/make.py"
OPTIONS = {"bins": 15, "ties": "split", "debias_bins": 8}
SHAPE = (13, 19)


def draw(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, mask bytes (grey rim) and valid pixels (void in the last map only) of map n; integers only."""
    i, j = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = (i - 5 - n) ** 2 * 2 + (j - 10 + n) ** 2
    mask = np.select([distance <= 27, distance <= 33], [255, 128 + 20 * (n - 1)], 0)
    levels = np.clip(300 - 8 * distance + (37 * i * j + 53 * i + 11 * j * n) % 97 - 48, 9 * n, 255 - 17 * n)
    valid = (i + 2 * j) % 7 > 0 if n == 2 else np.ones(SHAPE, bool)
    return levels.astype(np.uint8), mask.astype(np.uint8), valid


def row(n: int, levels: np.ndarray, mask: np.ndarray, valid: np.ndarray) -> Statistics:
    """Everything that any metric reads, of one map."""
    names = (f"map{n}",)
    measured = measure(levels, mask > 128, valid)
    scores = ImageScores.from_records(names, [measured.scores], np.float64)
    aslp = measure_aslp(names[0], levels, mask, valid)
    return Statistics(JointHistogram(names, measured.counts[None]), scores, aslp=aslp)


def golden_values(maps: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, dict[str, float]]:
    """metric -> average -> value."""
    statistics = Statistics.concat([row(n, *arrays) for n, arrays in enumerate(maps)])
    found: dict[str, dict[str, float]] = {name: {} for name in METRICS}
    for value in Evaluator(statistics, Settings(metrics=tuple(METRICS), options=OPTIONS, n_boot=0)).values():
        found[value.metric][value.average] = value.value
    return found


def encoded(array: np.ndarray) -> list[str]:
    """Rows of bytes as hexadecimal."""
    return [bytes(line).hex() for line in array.astype(np.uint8)]


def decoded(lines: list[str]) -> np.ndarray:
    """The array that `encoded` wrote."""
    return np.array([list(bytes.fromhex(line)) for line in lines], np.uint8)


def main() -> None:
    """Draw, measure, write."""
    maps = [draw(n) for n in range(3)]
    document = {
        "tool": "calbench",
        "version": version("calbench"),
        "command": COMMAND,
        "options": OPTIONS,
        "maps": [dict(zip(("levels", "mask", "valid"), map(encoded, arrays), strict=True)) for arrays in maps],
        "values": golden_values(maps),
    }
    PATH.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
