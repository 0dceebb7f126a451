"""The misprediction classifier of selective scaling as torch modules, and the checkpoints that were released of it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from calbench.calibrators.modules import two_class
from calbench.errors import FormatError

LOG_OFFSET = 1e-16
"""Added to probabilities before the logarithm, as the released weights expect it."""


class MispredictionNetwork(nn.Module):
    """Is the largest of C scores the right class? A perceptron on the log-probabilities of one pixel.

    ln(softmax(z) + 1e-16) → dirichlet_linear C → C (starts as the identity) → bn0 → ReLU → linear_1 C → 2C → bn1 → ReLU
    → linear_2 2C → C → bn2 → ReLU → binary_linear C → 2. The names are those of the released weights.

    Shape:
        logits `(n, C)` → scores `(n, 2)`: of "wrong" and of "right".

    Reference: Wang et al., CVPR 2023 (arXiv:2212.12053).
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.dirichlet_linear = nn.Linear(n_classes, n_classes)
        self.binary_linear = nn.Linear(n_classes, 2)
        self.bn0 = nn.BatchNorm1d(n_classes)
        self.linear_1 = nn.Linear(n_classes, 2 * n_classes)
        self.bn1 = nn.BatchNorm1d(2 * n_classes)
        self.linear_2 = nn.Linear(2 * n_classes, n_classes)
        self.bn2 = nn.BatchNorm1d(n_classes)
        nn.init.eye_(self.dirichlet_linear.weight)
        nn.init.zeros_(self.dirichlet_linear.bias)

    def forward(self, logits: Tensor) -> Tensor:
        """Scores of "wrong" and "right"."""
        x = torch.log(torch.softmax(logits, dim=1) + LOG_OFFSET)
        x = torch.relu(self.bn0(self.dirichlet_linear(x)))
        x = torch.relu(self.bn1(self.linear_1(x)))
        x = torch.relu(self.bn2(self.linear_2(x)))
        return cast(Tensor, self.binary_linear(x))


class SelectiveModule(nn.Module):
    """Selective scaling: logits `(N, C, ...)`, or of any shape for a binary map, to probabilities of that shape."""

    temperature: Tensor

    def __init__(
        self, network: nn.Module, n_classes: int, *, t_wrong: float, t_correct: float, keep_class: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.n_classes = n_classes
        self.keep_class = keep_class
        self.register_buffer("temperature", torch.tensor([t_wrong, t_correct], dtype=torch.float64))

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities."""
        if self.n_classes == 1:
            p = self._pixels(two_class(logits.reshape(-1)))
            # argmax takes the first of equal classes, background; a foreground probability of one half would say otherwise
            p = torch.where(p[:, 1] > p[:, 0], p[:, 1], p[:, 1].clamp(max=_below_half(p.dtype)))
            if self.keep_class:
                p = torch.where(logits.reshape(-1) >= 0, p.clamp(min=0.5), p.clamp(max=_below_half(p.dtype)))
            return p.reshape(logits.shape)
        z = logits.movedim(1, -1)
        return self._pixels(z.reshape(-1, self.n_classes)).reshape(z.shape).movedim(-1, 1)

    def _pixels(self, z: Tensor) -> Tensor:
        temperature = self.temperature.to(z.dtype)[judged_right(self.network, z).long(), None]
        if self.keep_class:
            return _keep_class(torch.softmax(z / temperature, dim=1), z)
        # float32 whatever comes in, as in the study: there T = 1e10 leaves every class with the same probability
        return torch.softmax(z.float() / temperature.float(), dim=1).to(z.dtype)


def judged_right(network: nn.Module, logits: Tensor) -> Tensor:
    """Whether the classifier takes the largest score for the right class, `(n,)`, computed in the type of the logits."""
    weights = {
        name: tensor.to(logits.dtype) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    scores: Tensor = torch.func.functional_call(network, weights, (logits,))
    return scores.argmax(1) == 1


def _keep_class(p: Tensor, logits: Tensor) -> Tensor:
    """`calibrator.keep_class` on tensors `(n, C)`."""
    winner, largest = logits.argmax(1, keepdim=True), p.max(1, keepdim=True).values
    raised = p.scatter(1, winner, torch.nextafter(largest, torch.full_like(largest, 2)))
    return torch.where(p.argmax(1, keepdim=True) == winner, p, raised)


def _below_half(dtype: torch.dtype) -> float:
    return float(torch.nextafter(torch.tensor(0.5, dtype=dtype), torch.tensor(0.0, dtype=dtype)))


def read_checkpoint(path: str | Path) -> tuple[MispredictionNetwork, int]:
    """A released checkpoint: a torch file with `state_dict`, its keys with or without the prefix `module.`.

    Nothing is unpickled but tensors, plain containers and numpy's scalars.

    Returns:
        The network, in evaluation mode, and the epoch that the file says, or −1.
    Raises:
        FormatError: no such file, a file that holds other objects, or other weights.
    """
    expected = "expected a checkpoint of the misprediction classifier: a torch file with state_dict"
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise FormatError(f"there is no file {path}; {expected}") from error
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path} is damaged, or holds objects other than tensors and numbers, which may run code and are not "
            f"loaded; {expected}"
        ) from error
    except Exception as error:  # whatever torch's reader stumbles over in a file of something else, KeyError for one
        raise FormatError(f"{path} is damaged, or no torch file; {expected}") from error
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise FormatError(f"{path} holds no state_dict of tensors; {expected}")
    weights = {name.removeprefix("module."): tensor.float() for name, tensor in weights.items()}
    last = weights.get("binary_linear.weight", torch.empty(0))
    if last.ndim != 2 or last.shape[1] < 2:
        raise FormatError(f"{path} has no binary_linear.weight of shape (2, C), but {sorted(weights)[:5]}; {expected}")
    network = MispredictionNetwork(last.shape[1])
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise FormatError(f"{path} holds another network: {error}; {expected}") from error
    epoch = content.get("epoch")
    return network.eval(), epoch if isinstance(epoch, int) else -1


def _numpy_scalars() -> list[Any]:
    """What the pickle of a numpy number names, under its module of numpy 1 and 2."""
    rebuild = np.float64(0).__reduce__()[0]
    types = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32)]
    return [(rebuild, "numpy.core.multiarray.scalar"), (rebuild, "numpy._core.multiarray.scalar"), np.dtype, *types]
