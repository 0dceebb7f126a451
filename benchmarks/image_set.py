"""The image set of the benchmarks: over-confident blobs and their masks, drawn the same on every machine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SEED = 20_260_101
SIZES = ((300, 400), (267, 400), (400, 300), (300, 400), (281, 375), (400, 311))
"""Heights and widths in turn: about 300 x 400, as in the saliency data sets, portrait and landscape."""


def image_set(folder: Path, images: int, *, scale: int = 1) -> Path:
    """`folder` with `pred/` and `gt/` of so many 8-bit PNG pairs; drawn unless it already holds exactly these.

    Args:
        scale: factor on both sides of every image.
    """
    recipe = {"seed": SEED, "images": images, "scale": scale, "sizes": [list(size) for size in SIZES], "version": 1}
    marker = folder / "image_set.json"
    if marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == recipe:
        return folder
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise SystemExit(f"{folder} is not empty and holds no image set; name another folder")
    for side in ("pred", "gt"):
        shutil.rmtree(folder / side, ignore_errors=True)
        (folder / side).mkdir(parents=True)
    for number in range(images):
        prediction, mask = draw(number, scale)
        Image.fromarray(prediction).save(folder / "pred" / f"{number:05d}.png")
        Image.fromarray(mask).save(folder / "gt" / f"{number:05d}.png")
    marker.write_text(json.dumps(recipe), encoding="utf-8")
    return folder


def draw(number: int, scale: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and mask, `(H, W)` uint8 each: a blob that the model sees with errors, and too surely."""
    height, width = SIZES[number % len(SIZES)]
    rng = np.random.default_rng([SEED, number])
    row, column = rng.uniform(0.3, 0.7, 2)
    reach = rng.uniform(0.15, 0.35)
    y, x = np.mgrid[0 : height * scale, 0 : width * scale]
    distance = np.hypot(y / (height * scale) - row, x / (width * scale) - column)
    shape = 3 * (1 - distance / reach) + smooth_noise(rng, (height, width), 60, scale)
    mask = shape + 0.5 * smooth_noise(rng, (height, width), 8, scale) > 0
    seen = shape + smooth_noise(rng, (height, width), 40, scale) + 0.2 * smooth_noise(rng, (height, width), 4, scale)
    sharpness = rng.uniform(2, 5)
    prediction = np.round(255 / (1 + np.exp(-np.clip(sharpness * seen, -50, 50))))
    return prediction.astype(np.uint8), mask.astype(np.uint8) * np.uint8(255)


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], wavelength: int, scale: int) -> np.ndarray:
    """Standard normal noise on a grid of so many pixels, interpolated to the image."""
    height, width = size
    coarse = rng.standard_normal((height // wavelength + 2, width // wavelength + 2)).astype(np.float32)
    fine = Image.fromarray(coarse).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float64)
