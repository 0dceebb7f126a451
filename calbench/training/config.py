"""Everything that decides what a training run computes, in one value that its checkpoints hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from calbench.errors import FormatError, OptionError, UnknownName

Precision = Literal["fp32", "bf16"]
Schedule = Literal["step", "constant", "aslp"]
BestBy = Literal["nll", "accuracy", "ece"]

RECIPES: dict[str, dict[str, Any]] = {
    "aslp-resnet50": {"size": 384, "batch": 10, "epochs": 30, "lr": 2.5e-5},
    "small": {"size": 128, "batch": 10, "epochs": 60, "lr": 1e-3},
}
"""What a run has where nothing is said, by network; networks of your own start from the second."""
PROFILES = ("calbench", "aslp")
CHOICES: dict[str, tuple[str, ...]] = {
    "profile": PROFILES,
    "precision": ("fp32", "bf16"),
    "schedule": ("step", "constant", "aslp"),
    "best_by": ("nll", "accuracy", "ece"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """What is trained, and how; not where: device and number of processes only round sums differently.

    Attributes:
        method: of `calbench.training.methods.METHODS`.
        options: parameters of the method that differ from its defaults.
        seed: of the initial weights and of all draws.
        profile: "calbench", or "aslp" for the conventions of the official code.
        model: of `calbench.training.models.MODELS`, or `package.module:function`.
        model_options: for the network, beside its classes.
        weights: to start from: "imagenet", a file, or a URL; None: random ones.
        classes: of the logits; 1 of binary maps.
        size: side of the square that pictures are resized to, pixels.
        epochs: passes over the training images.
        batch: images a step of the optimiser, over all processes and parts together.
        accumulate: parts that the images of a process go through the network in.
        lr: learning rate of Adam at the start.
        schedule: "step": × `decay` every `decay_epochs` epochs; "aslp": × decay^⌊e / decay_epochs⌋ at the end of epoch e,
            which compounds; "constant".
        decay, decay_epochs: of the schedule.
        augment: whether pictures are flipped, cropped and turned.
        precision: of the forward pass: "fp32", or "bf16" by autocast.
        channels_last: whether images and weights are laid out so.
        compile: whether torch compiles the network.
        best_by: validation metric that says which epoch is kept as the best.
        skip_damaged: whether a picture that cannot be read is left out, and named, or ends the run.
    Raises:
        OptionError: a number out of its range.
        UnknownName: an unknown choice.
    """

    method: str = "bce"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    profile: str = "calbench"
    model: str = "small"
    model_options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    classes: int = 1
    size: int = 128
    epochs: int = 60
    batch: int = 10
    accumulate: int = 1
    lr: float = 1e-3
    schedule: Schedule = "step"
    decay: float = 0.95
    decay_epochs: int = 10
    augment: bool = True
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    best_by: BestBy = "nll"
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        for name in ("classes", "size", "epochs", "batch", "accumulate", "decay_epochs"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; expected 1 or more")
        for name in ("lr", "decay"):
            if not 0 < getattr(self, name) < float("inf"):
                raise OptionError(f"{name} is {getattr(self, name)}; expected a number above 0")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownName(name.replace("_", " "), str(getattr(self, name)), known)

    @classmethod
    def of(cls, model: str, given: Mapping[str, Any]) -> TrainingConfig:
        """The recipe of a network with what was given; None stands for the recipe's value.

        Raises:
            OptionError: options that do not go together, or out of their range.

        >>> TrainingConfig.of("aslp-resnet50", {"lr": None, "batch": 4}).lr
        2.5e-05
        """
        recipe = RECIPES.get(model, RECIPES["small"])
        if given.get("profile") == "aslp":
            recipe = {**RECIPES["aslp-resnet50"], "schedule": "aslp"}
        chosen = {name: value for name, value in given.items() if value is not None}
        if chosen.get("schedule") == "constant" and chosen.keys() & {"decay", "decay_epochs"}:
            raise OptionError("--schedule constant has no --decay: leave one of them out")
        return cls(model=model, **{**recipe, **chosen})

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], where: object) -> TrainingConfig:
        """The configuration that a checkpoint holds.

        Raises:
            FormatError: it names something this version does not know.
        """
        unknown = sorted(set(stored) - {item.name for item in fields(cls)})
        if unknown:
            raise FormatError(f"{where} was written by another version: it sets {unknown[0]!r}; update calbench")
        return cls(**stored)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which JSON and checkpoints hold."""
        return {**asdict(self), "options": dict(self.options), "model_options": dict(self.model_options)}

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1.

        >>> config = TrainingConfig(schedule="aslp", lr=2.5e-5)
        >>> [round(config.rate(epoch) / config.lr, 4) for epoch in (10, 11, 20, 21, 30)]
        [1.0, 0.95, 0.5987, 0.5404, 0.2146]
        """
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "step":
            return self.lr * self.decay ** ((epoch - 1) // self.decay_epochs)
        return self.lr * self.decay ** sum(e // self.decay_epochs for e in range(1, epoch))
