"""Profiles: named sets of metrics and the conventions they are computed under."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calbench.errors import UnknownName
from calbench.metrics import METRICS
from calbench.statistics.histogram import Event


@dataclass(frozen=True)
class Profile:
    """A convention by name.

    Attributes:
        name: as given to `--profile`.
        metrics: what is computed, in order.
        headline: candidates for the columns of the printed table, of which the first that are available are shown.
        diagrams: the error that each reliability diagram shows, by event; its bins are those drawn. Events that predictions
            do not have are left out.
        options: settings of the metrics; the command line wins over them.
        description: one line.
    """

    name: str
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    diagrams: Mapping[Event, str]
    options: Mapping[str, Any]
    description: str


def _of(prefix: str) -> tuple[str, ...]:
    return tuple(name for name in METRICS if name.startswith(prefix))


_OFFICIAL, _MBLS, _SELECTIVECAL, _TORCHMETRICS = (_of(p) for p in ("aslp_", "mbls_", "selectivecal_", "torchmetrics_"))
_OWN = tuple(name for name in METRICS if name not in _OFFICIAL + _MBLS + _SELECTIVECAL + _TORCHMETRICS)
_SALIENCY = tuple(name for name in _OWN if METRICS[name].average == "images" and name != "mae_raw")

DEFAULT_OPTIONS: dict[str, Any] = {"bins": 15, "ties": "split", "batch": 1}
"""What a profile that says nothing about an option uses."""

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "calbench",
            _OWN,
            ("ece", "ece_fg", "ece_classwise", "brier", "mae", "max_f", "s_measure", "nll", "miou", "accuracy"),
            {"top-label": "ece", "foreground": "ece_fg"},
            DEFAULT_OPTIONS,
            "every metric that the predictions allow, each under its published definition",
        ),
        Profile(
            "pysodmetrics",
            _SALIENCY,
            ("mae", "max_f", "adp_f", "weighted_f", "max_e", "s_measure"),
            {"top-label": "ece", "foreground": "ece_fg"},
            {},
            "the saliency metrics alone, as PySODMetrics 1.6.2 computes them",
        ),
        Profile(
            "aslp",
            _OFFICIAL,
            ("aslp_ece", "aslp_oe", "aslp_mae", "aslp_max_f", "aslp_max_e", "aslp_s_measure"),
            {"top-label": "aslp_ece"},
            {"bins": 10, "debias_bins": 100},
            "the official ASLP scripts' numbers: raw mask bytes, exact-byte correctness, 255 thresholds",
        ),
        Profile(
            "mbls",
            (
                "ece",
                "mbls_aece",
                "mbls_cece",
                "nll",
                "accuracy",
                "mbls_segmentation_ece",
                "mbls_objects_ece",
                "mean_confidence",
                "entropy_normalised",
                "mbls_kl",
                "mbls_l1",
                "logit_mean_distance",
                "logit_max_distance",
                "logit_margin",
            ),
            ("ece", "mbls_aece", "mbls_cece", "nll", "accuracy", "mbls_segmentation_ece"),
            {"top-label": "ece"},
            {"bins": 15, "batch": 1},
            "the numbers of the MbLS evaluators: interpolated edges, classes up to the largest label, ECE by batches",
        ),
        Profile(
            "selectivecal",
            ("ece", "selectivecal_ece_rechosen", "accuracy", "selectivecal_accuracy_rechosen", "nll"),
            ("ece", "selectivecal_ece_rechosen", "accuracy", "selectivecal_accuracy_rechosen", "nll"),
            {"top-label": "ece"},
            {"bins": 10},
            "the numbers of selectivecal: ten bins, and what choosing the class again from scaled logits does to them",
        ),
        Profile(
            "torchmetrics",
            (*_TORCHMETRICS, "pixel_accuracy", "miou"),
            (
                "torchmetrics_ece",
                "torchmetrics_rmsce",
                "torchmetrics_mce",
                "pixel_accuracy",
                "torchmetrics_class_accuracy",
                "miou",
            ),
            {"top-label": "ece", "foreground": "ece_fg"},
            {"bins": 15},
            "the numbers of torchmetrics: left-closed bins and one for exactly 1, foreground probability on binary maps",
        ),
    )
}


def home_of(metric: str) -> Profile:
    """The first profile that a metric belongs to."""
    return next(profile for profile in PROFILES.values() if metric in profile.metrics)


def profile_named(name: str) -> Profile:
    """The profile of this name.

    Raises:
        UnknownName: there is none.
    """
    if name not in PROFILES:
        raise UnknownName("profile", name, PROFILES)
    return PROFILES[name]
