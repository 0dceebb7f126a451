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
        headline: the columns of the printed table.
        diagrams: the error that each reliability diagram shows, by event; its bins are those drawn.
        options: settings of the metrics; the command line wins over them.
        description: one line.
    """

    name: str
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    diagrams: Mapping[Event, str]
    options: Mapping[str, Any]
    description: str


_OFFICIAL = tuple(name for name in METRICS if name.startswith("aslp_"))
_OWN = tuple(name for name in METRICS if name not in _OFFICIAL)
_SALIENCY = tuple(name for name in _OWN if METRICS[name].average == "images" and name != "mae_raw")

DEFAULT_OPTIONS: dict[str, Any] = {"bins": 15, "ties": "split"}
"""What a profile that says nothing about an option uses."""

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            "calbench",
            _OWN,
            ("ece", "ece_fg", "brier", "mae", "max_f", "s_measure"),
            {"top-label": "ece", "foreground": "ece_fg"},
            DEFAULT_OPTIONS,
            "every binary metric, each under its published definition",
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
