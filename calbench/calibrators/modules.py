"""Calibrators as torch modules: the pixelwise ones share one module, whose buffers are what was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from calbench.calibrators.calibrator import Calibrator


class PixelModule(nn.Module):
    """A pixelwise calibrator: logits `(N, C, ...)`, or of any shape for a binary map, to probabilities of that shape."""

    def __init__(self, calibrator: type[Calibrator], state: dict[str, Array], n_classes: int) -> None:
        super().__init__()
        self.calibrator = calibrator
        self.n_classes = n_classes
        for name, array in state.items():
            self.register_buffer(name, torch.as_tensor(array))

    def forward(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities."""
        state = {
            name: buffer.to(logits.dtype) if buffer.is_floating_point() else buffer
            for name, buffer in self.named_buffers()
        }
        if self.n_classes == 1:
            flat = self.calibrator.torch_forward(logits.reshape(-1), state)
            return flat.reshape(logits.shape)
        z = logits.movedim(1, -1)
        return self.calibrator.torch_forward(z.reshape(-1, self.n_classes), state).reshape(z.shape).movedim(-1, 1)


def uncalibrated(logits: Tensor) -> Tensor:
    """Sigmoid of `(n,)`, softmax of `(n, C)`."""
    return torch.sigmoid(logits) if logits.ndim == 1 else torch.softmax(logits, dim=1)


def two_class(logits: Tensor) -> Tensor:
    """Binary logits `(n,)` as those of two classes `(n, 2)`, background first; of several classes, as they are."""
    return logits if logits.ndim == 2 else torch.stack([-logits / 2, logits / 2], dim=1)
