"""The training loop of calibrators that are networks: AdamW by epochs, the best epoch by validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calbench.errors import InputError, OptionError
from calbench.statistics.rows import Array

Batch = tuple[Tensor, ...]
LossSum = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""Module and batch -> (Σ weight · loss, Σ weight): void pixels have weight 0 and enter neither."""


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs, lr, weight_decay: of AdamW.
        device: "cpu" or "cuda".
        seed: of the initial weights, the order of batches and dropout.
    """

    epochs: int
    lr: float
    weight_decay: float
    device: str
    seed: int

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise OptionError(f"epochs is {self.epochs}; a network is trained for at least 1")


@dataclass(frozen=True)
class Outcome:
    """What training ended with.

    Attributes:
        best_epoch: the epoch whose weights the module has now, counted from 1; 0 for those it started with.
        losses: validation loss before training and after each epoch, nats a pixel.
    """

    best_epoch: int
    losses: tuple[float, ...]


def split_groups(groups: Array, share: float, seed: int) -> Array:
    """True for the pixels of the images, a random share of them, that validate, `(n,)`.

    Raises:
        OptionError: a share outside (0, 1).
        InputError: fewer than two images.
    """
    images = np.unique(groups)
    if not 0 < share < 1:
        raise OptionError(
            f"validation is {share}; it is the share of images that choose the best epoch, between 0 and 1"
        )
    if len(images) < 2:
        raise InputError("there is 1 image to fit on; a network needs two at least: one to train on, one to validate")
    n = min(max(1, round(share * len(images))), len(images) - 1)
    return np.isin(groups, np.random.default_rng(seed).permutation(images)[:n])


def train(
    module: nn.Module,
    batches: Callable[[np.random.Generator], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]],
    loss_sum: LossSum,
    recipe: Recipe,
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train in place, and leave the module in evaluation mode with the weights of the best epoch.

    The start counts as a contender: where no epoch improves the validation loss, nothing is learned. `train()` is called
    each epoch, so that batch normalisation keeps adapting and dropout stays on.

    Args:
        module: on the CPU; it returns there.
        batches: a generator of randomness -> the batches of an epoch, in random order.
        validation: the batches of the validation part.
        loss_sum: see `LossSum`.
        recipe: epochs and the rest.
        advance: called after each epoch.
    Raises:
        OptionError: a device that is not there.
    """
    device = torch_device(recipe.device)
    generator = np.random.default_rng(recipe.seed)
    module.to(device)
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        losses = [_validated(module, validation, loss_sum, device)]
        best, kept = 0, _copied(module)
        for epoch in range(1, recipe.epochs + 1):
            module.train()
            for batch in batches(generator):
                total, weight = loss_sum(module, _on(batch, device))
                if weight > 0:
                    optimiser.zero_grad()
                    (total / weight).backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
            losses.append(_validated(module, validation, loss_sum, device))
            if losses[-1] < min(losses[:-1]):
                best, kept = epoch, _copied(module)
            advance()
    module.load_state_dict(kept)
    module.to("cpu").eval()
    return Outcome(best, tuple(losses))


def torch_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        OptionError: it is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("--device cuda, but torch finds no CUDA device; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise OptionError(f"the device is {name!r}; expected cpu or cuda")
    return torch.device(name)


def _validated(module: nn.Module, validation: Callable[[], Iterable[Batch]], loss_sum: LossSum, device: Any) -> float:
    module.eval()
    total, weight = 0.0, 0.0
    with torch.no_grad():
        for batch in validation():
            part = loss_sum(module, _on(batch, device))
            total, weight = total + float(part[0]), weight + float(part[1])
    return total / weight if weight else float("nan")


def _on(batch: Batch, device: torch.device) -> Batch:
    return tuple(tensor.to(device) for tensor in batch)


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def network_state(module: nn.Module) -> dict[str, Array]:
    """The weights of a module as arrays, to be saved."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def load_network(module: nn.Module, state: dict[str, Array]) -> nn.Module:
    """The module with these weights, in evaluation mode."""
    module.load_state_dict({name: torch.as_tensor(np.array(array)) for name, array in state.items()})
    return module.eval()


def shuffled(items: Sequence[Any], size: int, generator: np.random.Generator) -> Iterable[list[Any]]:
    """The items in random order, `size` at a time."""
    order = generator.permutation(len(items))
    for start in range(0, len(items), size):
        yield [items[i] for i in order[start : start + size]]
