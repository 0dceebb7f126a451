"""Samples through a calibrator: what they store as logits, and what comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import logit

from calbench.calibrators.calibrator import Calibrator, described_classes
from calbench.calibrators.maps import needs_images
from calbench.errors import InputError, RangeError, ShapeError
from calbench.io.files import APPLIED
from calbench.io.sample import Sample
from calbench.statistics.histogram import HALF_LEVEL, level_probs
from calbench.statistics.rows import Array


def level_logits() -> Array:
    """The logit of each 8-bit level, `(256,)`: of v / 255, kept half a level away from 0 and 1.

    >>> level_logits()[[0, 255]].round(3).tolist()
    [-6.232, 6.232]
    """
    return np.asarray(logit(np.clip(level_probs(), HALF_LEVEL, 1 - HALF_LEVEL)))


def logits_of(sample: Sample) -> Array:
    """The logits that a sample's scores stand for: `(H, W)` of a binary map, `(C, H, W)` of several classes.

    Logits are what they are. Probabilities become logit p (binary, p kept a unit of the stored type away from 0 and 1) or
    ln p (several classes, p at least the smallest normal number of the stored type). Levels become logit(v / 255), v / 255
    kept half a level away from 0 and 1. At void pixels they are 0.
    """
    scores = sample.scores
    if sample.layout == "HWC" and scores.ndim == 3:
        scores = np.moveaxis(scores, 2, 0)
    if scores.dtype == np.uint8:
        logits = level_logits()[scores]
    elif sample.kind == "levels":
        half = 1 / (2 * np.iinfo(scores.dtype).max)
        logits = logit(np.clip(scores * (2 * half), half, 1 - half))
    elif sample.kind == "logits":
        logits = scores
    elif scores.ndim == 2:
        eps = sample.eps or float(np.finfo(scores.dtype).eps)
        logits = logit(np.clip(np.asarray(scores, np.float64), eps, 1 - eps))
    else:
        logits = np.log(
            np.maximum(scores, np.finfo(scores.dtype).tiny), dtype=np.promote_types(scores.dtype, np.float32)
        )
    return logits if sample.valid is None else np.where(sample.valid, logits, logits.dtype.type(0))


def calibrated(sample: Sample, calibrator: Calibrator, image: Array | None = None) -> tuple[Sample, Array]:
    """The sample with calibrated probabilities, float64, and where its class changed, `(H, W)` bool, void pixels too.

    Args:
        image: `(3, H, W)` in [0, 1], for calibrators that need it.
    Raises:
        ShapeError: another number of classes than the calibrator was fitted on.
        InputError: it needs an image, and there is none.
    """
    refuse_mismatch(calibrator, sample.classes, sample.kind or "levels", sample.source or sample.name)
    if calibrator.needs_images and image is None:
        raise InputError(needs_images(calibrator.name))
    logits = logits_of(sample)
    try:
        p = calibrator.transform_map(logits, image)
    except RangeError as error:
        raise RangeError(f"{sample.source or sample.name}: {error}") from error
    changed = (p >= 0.5) != (logits >= 0) if sample.classes == 1 else p.argmax(0) != logits.argmax(0)
    return replace(sample, scores=p, kind="probabilities", layout="CHW", eps=None), changed


def refuse_calibrated(folder: Path) -> None:
    """Refuse to calibrate what `calbench apply` wrote.

    Raises:
        InputError: the folder holds its record.
    """
    record = folder / APPLIED
    if record.is_file():
        raise InputError(
            f"{folder} holds maps that calbench apply calibrated ({APPLIED} says by what); give the predictions themselves, "
            f"or delete {APPLIED} if they are to be calibrated twice"
        )


def refuse_mismatch(calibrator: Calibrator, n_classes: int, kind: str, where: str | Path) -> None:
    """Hold a calibrator against the predictions that it is to calibrate.

    Raises:
        ShapeError: another number of classes.
        InputError: fitted on logits of several classes, but these are probabilities, or the other way round: softmax
            forgets what all logits of a pixel have in common, and only some calibrators do.
    """
    if calibrator.n_classes_ != n_classes:
        raise ShapeError(
            f"{where}: {described_classes(n_classes)}, but the calibrator {calibrator.name!r} was fitted on "
            f"{described_classes(calibrator.n_classes_)}; fit one on predictions like these"
        )
    fitted_on = calibrator.origin_.get("input", kind)
    if n_classes > 1 and fitted_on != kind:
        raise InputError(
            f"{where}: these are {kind}, but the calibrator {calibrator.name!r} was fitted on {fitted_on}; give it the same "
            "kind, or fit one on these"
        )
