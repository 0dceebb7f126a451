"""The ASLP kernel: one image as the official ASLP scripts see it, quirks included.

The scripts compute in float32; decisions (level >= threshold) are taken in float32 here too, sums in float64.
"""

from __future__ import annotations

import numpy as np

from calbench.kernels.binary import centroid, quadrant_counts, s_measure
from calbench.statistics.aslp import AslpRows
from calbench.statistics.histogram import LEVELS
from calbench.statistics.reliability import linspace_float32
from calbench.statistics.rows import Array

TINY = 1e-20
N_THRESHOLDS = 255


def thresholds() -> Array:
    """The evaluator's thresholds, float32: `torch.linspace(0, 1 - 1e-10, 255)`, whose end rounds to 1."""
    return linspace_float32(N_THRESHOLDS)


def measure_aslp(name: str, levels: Array, mask_bytes: Array, valid: Array | None = None) -> AslpRows:
    """One image as the official ASLP scripts see it.

    Args:
        levels: `(H, W)` uint8 prediction.
        mask_bytes: `(H, W)` uint8 ground truth, as stored.
        valid: `(H, W)` bool or None; the scripts know no void, so without one the numbers are theirs.
    """
    inside = slice(None) if valid is None else valid
    joint = np.bincount(
        (mask_bytes.astype(np.uint16) * LEVELS + levels)[inside].ravel(), minlength=LEVELS * LEVELS
    ).reshape(LEVELS, LEVELS)
    decided = np.where(np.arange(LEVELS) < 128, 0, 255)
    right = joint[decided, np.arange(LEVELS)]
    per_level = joint.sum(0)
    n = int(per_level.sum())
    if n == 0:
        nan = np.full((1, N_THRESHOLDS), np.nan)
        counts = np.zeros((1, 2, LEVELS), np.int64)
        return AslpRows((name,), counts, nan, nan, nan, nan, nan, nan[:, 0], nan[:, 0])

    level = np.arange(LEVELS, dtype=np.float32) / np.float32(255)
    occupied = np.flatnonzero(per_level)
    low, high = level[occupied[0]], level[occupied[-1]]
    stretched = (level - low) / (high - low + np.float32(TINY))
    above = (stretched >= thresholds()[:, None]).astype(np.float64)  # (thresholds, levels)

    bytes_present = np.flatnonzero(joint.any(1))
    y = bytes_present / 255
    selected = above @ joint[bytes_present].T  # (thresholds, bytes): pixels of each mask byte that are selected
    positive = selected.sum(1)
    true_positive = selected @ y
    all_positive = float(joint[bytes_present].sum(1) @ y)
    recall = true_positive / (all_positive + TINY)

    foreground = mask_bytes >= 128
    quadrants, has_area = _quadrants(levels, foreground, valid)
    return AslpRows(
        (name,),
        np.stack([per_level - right, right])[None],
        (true_positive / (positive + TINY))[None],
        recall[None],
        recall[None],
        ((positive - true_positive) / (n - all_positive + TINY))[None],
        _e_curve(selected, joint[bytes_present].sum(1), y)[None],
        np.array([np.abs(np.arange(LEVELS) / 255 - y[:, None]).ravel() @ joint[bytes_present].ravel() / n]),
        np.array([s_measure(quadrants, stretched.astype(np.float64), eps=TINY) if has_area else np.nan]),
    )


def _quadrants(levels: Array, foreground: Array, valid: Array | None) -> tuple[Array, bool]:
    """Quadrants around the evaluator's zero-based centroid, and whether each has area (it yields NaN otherwise)."""
    if valid is not None:
        foreground = foreground & valid
    codes = levels.astype(np.uint16) + foreground.astype(np.uint16) * LEVELS
    if valid is not None:
        codes[~valid] = 2 * LEVELS
    corner = centroid(foreground, offset=0)
    quadrants = quadrant_counts(codes, corner)
    mixed = bool(quadrants.sum((0, 2)).all())
    return quadrants, (corner[0] > 0 and corner[1] > 0) or not mixed


def _e_curve(selected: Array, per_byte: Array, y: Array) -> Array:
    """E-measure at each threshold with soft truth, denominator N − 1, no special case for empty or full masks."""
    n = per_byte.sum()
    share = selected.sum(1, keepdims=True) / n
    phi_y = y - per_byte @ y / n
    total = np.zeros(len(selected))
    for phi_m, count in ((1 - share, selected), (-share, per_byte - selected)):
        alignment = 2 * phi_m * phi_y / (phi_m**2 + phi_y**2 + TINY)
        total += (count * (alignment + 1) ** 2 / 4).sum(1)
    return total / (n - 1 + TINY)
