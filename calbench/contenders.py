"""Which calibrators are fitted, with which parameters, and how they are split and ranked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calbench.calibrators import CALIBRATORS, Calibrator
from calbench.calibrators.maps import needs_images
from calbench.errors import OptionError, UnknownName

ALL_CONTENDERS = "all"

SAME_ON_BINARY = {"vector": "platt", "matrix": "platt"}
"""Calibrators that are another one on binary maps: `all` leaves them out there."""

COMPARED = ("nll", "brier", "ece", "aece", "accuracy", "miou")
"""Metrics whose difference to the uncalibrated predictions is reported."""


@dataclass(frozen=True)
class FitOptions:
    """Which calibrators are fitted, on what, and measured on what.

    Attributes:
        names: contenders, or "all"; doing nothing is always one.
        parameters: of contenders, by name.
        cv: number of folds; None: 5, and one hold-out for networks.
        holdout: share of images that are held out, instead of folds.
        fit_list: names of the images to fit on, instead; all others are held out.
        max_pixels: most pixels that a fit draws, where it does not use all.
        rank_by: metric that ranks the contenders, on held-out images.
        device: "cpu" or "cuda", of networks.
        allow_overlap: whether calibrators may be measured on images they were fitted on.
    """

    names: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cv: int | None = None
    holdout: float | None = None
    fit_list: tuple[str, ...] | None = None
    max_pixels: int = 500_000
    rank_by: str = "nll"
    device: str = "cpu"
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        if not self.names:
            raise OptionError("name the calibrators to fit, or all of them: all")
        for name in (*self.names, *self.parameters):
            if name not in (*CALIBRATORS, ALL_CONTENDERS):
                raise UnknownName("calibrator", name, (*CALIBRATORS, ALL_CONTENDERS))
        given = [o for o in ("cv", "holdout", "fit_list") if getattr(self, o) is not None]
        if len(given) > 1:
            raise OptionError(
                f"--{' and --'.join(o.replace('_', '-') for o in given)} both say what is held out: give one"
            )
        if self.cv is not None and self.cv < 2:
            raise OptionError(f"--cv is {self.cv}; it is a number of folds, at least 2")
        if self.holdout is not None and not 0 < self.holdout < 1:
            raise OptionError(f"--holdout is {self.holdout}; it is the share of images held out, between 0 and 1")
        if self.max_pixels < 1:
            raise OptionError(f"--max-pixels is {self.max_pixels}; it is at least 1")
        if self.rank_by not in COMPARED:
            raise UnknownName("metric to rank by", self.rank_by, COMPARED)
        chosen = {contender.name for contender in self.contenders(binary=False, images=True)}
        idle = sorted(self.parameters.keys() - chosen)
        if idle:
            raise OptionError(f"--set {idle[0]}: it is not among the calibrators to fit: {', '.join(sorted(chosen))}")

    def contenders(self, *, binary: bool, images: bool) -> list[Calibrator]:
        """The calibrators to fit, unfitted, in the order of the registry; doing nothing first.

        Raises:
            OptionError: one of those named needs images, or has no such parameter.
        """
        chosen = set(self.names) | {"identity"}
        if ALL_CONTENDERS in self.names:
            left_out = set(SAME_ON_BINARY) if binary else set()
            chosen |= {
                name for name, kind in CALIBRATORS.items() if (images or not kind.needs_images) and name not in left_out
            }
            chosen -= {ALL_CONTENDERS}
        found = []
        for name, kind in CALIBRATORS.items():
            if name in chosen:
                if kind.needs_images and not images:
                    raise OptionError(needs_images(name))
                found.append(self._made(name, kind))
        return found

    def _made(self, name: str, kind: type[Calibrator]) -> Calibrator:
        made = kind()
        known = made.get_params()
        shared = {"device": self.device} if "device" in known else {}
        given = {}
        for key, value in self.parameters.get(name, {}).items():
            if key not in known:
                raise UnknownName(f"parameter of {name}", key, known)
            given[key] = _of_the_kind(f"{name}.{key}", value, known[key])
        return made.set_params(**shared, **given)


def _of_the_kind(name: str, value: Any, default: Any) -> Any:
    """A parameter's value of the type that its default has; text and None stand for other values, too.

    Raises:
        OptionError: it is of another type.

    >>> _of_the_kind("temperature.bounds", [0.1, 10], (0.001, 1000.0))
    (0.1, 10)
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, tuple):
        fits = isinstance(value, list | tuple) and len(value) == len(default) and all(
            isinstance(item, int | float) and not isinstance(item, bool) for item in value
        )  # fmt: skip
        value = tuple(value) if fits else value
    elif isinstance(default, bool):
        fits = isinstance(value, bool)
    elif isinstance(default, int):
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(default, float):
        fits = number
    else:
        fits = number or value is None or isinstance(value, str)
    if not fits:
        kinds = {tuple: "a list such as [0.1, 10]", bool: "true or false", int: "a whole number", float: "a number"}
        raise OptionError(
            f"--set {name}={json.dumps(value)}: expected {kinds.get(type(default), 'a number or a name')}, as the default "
            f"{json.dumps(default)} is"
        )
    return value
