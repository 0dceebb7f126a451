"""Where a calibrator's fitting data came from, and whether other images are among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calbench.calibrators.calibrator import Calibrator
from calbench.errors import InputError, listing, plural
from calbench.statistics import Statistics
from calbench.statistics.rows import owner


def images_of(statistics: Statistics) -> dict[str, int]:
    """Digest of the ground truth of each file of predictions, by its name: what tells an image from others.

    Names alone do not: many data sets count their images from 1.
    """
    if statistics.facts is None:
        return {}
    many = not statistics.rows_are_whole or any(key in statistics.conventions for key in ("volumes", "table"))
    names = [owner(name) if many else name for name in statistics.names]
    return dict(zip(names, statistics.facts["gt_digest"].tolist(), strict=True))


def origin_of(dataset: str, method: str, statistics: Statistics) -> dict[str, Any]:
    """What a calibrator's file says about the rows it was fitted on."""
    kept = {key: statistics.conventions[key] for key in ("input", "stored") if key in statistics.conventions}
    return {"dataset": dataset, "method": method, **kept, "images": images_of(statistics)}


def shared_names(calibrator: Calibrator, names: set[str]) -> set[str]:
    """Those of the names that images of the fitting data have, too."""
    return names & calibrator.origin_.get("images", {}).keys()


def refuse_overlap(calibrator: Calibrator, images: Mapping[str, int], where: str) -> None:
    """Refuse to measure a calibrator on the images it was fitted on.

    Args:
        images: digest of the ground truth of each image, by its name.
        where: the data set, for the message.
    Raises:
        InputError: some are among them.
    """
    if calibrator.name == "identity":  # it learned nothing of them
        return
    fitted_on = calibrator.origin_.get("images", {})
    shared = sorted(name for name, digest in images.items() if fitted_on.get(name) == digest)
    if shared:
        raise InputError(
            f"{plural(len(shared), 'image')} of {len(images)} of {where} are among those that {calibrator.name!r} was fitted "
            f"on:\n{listing(shared)}\n"
            "numbers on them would flatter it; measure it on other images (calbench calibrate --cv and --holdout do), or say "
            "--allow-overlap"
        )
