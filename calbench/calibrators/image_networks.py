"""The networks of the calibrators that look at images, and the batches they are trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, nll_loss, one_hot, softplus

from calbench.calibrators.maps import Scene, Window, tiles
from calbench.calibrators.training import Batch, shuffled


class ImageNetwork(nn.Module):
    """Logits `(N, C, H, W)` and images `(N, 3, H, W)` to probabilities `(N, C, H, W)`; C = 1 of binary maps.

    Attributes:
        channels: number of classes; of binary maps 2, background first.
        absent: `(channels,)` bool, the classes that keep their uncalibrated scores.
    """

    absent: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.binary = n_classes == 1
        self.channels = max(2, n_classes)
        self.register_buffer("absent", torch.zeros(self.channels, dtype=torch.bool))

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """Calibrated probabilities."""
        p = self.log_probabilities(logits, image).exp()
        return p[:, 1:] if self.binary else p

    def log_probabilities(self, logits: Tensor, image: Tensor) -> Tensor:
        """Their logarithms, `(N, channels, H, W)`."""
        z = torch.cat([-logits / 2, logits / 2], dim=1) if self.binary else logits
        return self.calibrated(z, image)

    def calibrated(self, z: Tensor, image: Tensor) -> Tensor:
        """Logarithms of the calibrated probabilities, given the logits of each class."""
        raise NotImplementedError

    def unfitted(self) -> Tensor:
        """`absent`, to be broadcast over images and pixels."""
        return self.absent[:, None, None]


class LocalTemperatureNet(ImageNetwork):
    """z / T, with T of each pixel from nine 5x5 convolutions; see `LocalTemperature`."""

    def __init__(self, n_classes: int, start: float) -> None:
        super().__init__(n_classes)
        self.start = start
        # the eight convolutions of the logits, τ1..τ4, γ1..γ3 and γ_img, are the channels of one
        self.from_logits = _dilated(self.channels, 8)
        self.from_image = _dilated(3, 1)

    def temperature(self, z: Tensor, image: Tensor) -> Tensor:
        """T > 0, `(N, 1, H, W)`, float32."""
        maps = self.from_logits(z.float())
        t1, t2, t3, t4 = maps[:, :4].split(1, dim=1)
        g1, g2, g3, g_image = maps[:, 4:].sigmoid().split(1, dim=1)
        mixed = torch.lerp(torch.lerp(t4, t3, g2), torch.lerp(t2, t1, g1), g3)
        return torch.relu(torch.lerp(self.from_image(image.float()), mixed, g_image) + self.start) + 1e-8

    def calibrated(self, z: Tensor, image: Tensor) -> Tensor:
        """See `ImageNetwork.calibrated`."""
        return log_softmax(z / self.temperature(z, image).to(z.dtype), dim=1)


class StochasticSpatialNet(ImageNetwork):
    """The mean softmax of Gaussian samples of the logits; see `StochasticSpatial`."""

    noise: Tensor

    def __init__(self, n_classes: int, samples: int, spread: float, seed: int) -> None:
        super().__init__(n_classes)
        self.mean = nn.Conv2d(self.channels, self.channels, 1)
        nn.init.dirac_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)  # type: ignore[arg-type]
        self.samples = samples
        if samples:
            self.spread = nn.Conv2d(self.channels + 3, self.channels, 1)
            nn.init.zeros_(self.spread.weight)
            nn.init.constant_(self.spread.bias, float(np.log(np.expm1(spread))))  # type: ignore[arg-type]
            half = np.random.default_rng(seed).standard_normal((samples // 2, self.channels, 1, 1))
            self.register_buffer("noise", torch.as_tensor(np.concatenate([half, -half]), dtype=torch.float32))

    def calibrated(self, z: Tensor, image: Tensor) -> Tensor:
        """See `ImageNetwork.calibrated`."""
        x, absent = z.float(), self.unfitted()
        mean = torch.where(absent, z, self.mean(x).to(z.dtype))
        if not self.samples:
            return log_softmax(mean, dim=1)
        spread = softplus(self.spread(torch.cat([x, image.float()], dim=1))).masked_fill(absent, 0).to(z.dtype)
        total = torch.full_like(z, -torch.inf)
        for noise in self.noise.to(z.dtype):
            total = torch.logaddexp(total, log_softmax(mean + spread * noise, dim=1))
        return total - float(np.log(self.samples))


class CalibrationCNN(ImageNetwork):
    """A softmax of its own from the image and the classes predicted; see `CalibrationNet`."""

    def __init__(self, n_classes: int, one_hot_inputs: bool, width: int) -> None:
        super().__init__(n_classes)
        self.one_hot_inputs = one_hot_inputs
        layers: list[nn.Module] = []
        for inputs in (3 + self.channels, width, width, width):
            layers += [_reflected(inputs, width), nn.Dropout(0.2), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, _reflected(width, self.channels), nn.Dropout(0.2))

    def calibrated(self, z: Tensor, image: Tensor) -> Tensor:
        """See `ImageNetwork.calibrated`."""
        before, absent = log_softmax(z, dim=1), self.unfitted()
        given = one_hot(z.argmax(1), self.channels).movedim(-1, 1) if self.one_hot_inputs else before.exp()
        scores = self.layers(torch.cat([image.float(), given.float()], dim=1)).to(z.dtype)
        shared = log_softmax(scores.masked_fill(absent, -torch.inf), dim=1)
        left = before.masked_fill(absent, -torch.inf).logsumexp(1, keepdim=True)  # ln of what absent classes leave
        return torch.where(absent, before, shared + left)


def _dilated(inputs: int, outputs: int) -> nn.Conv2d:
    """5x5, dilation 2, reflected at the border; zero at the start."""
    layer = nn.Conv2d(inputs, outputs, 5, padding=4, dilation=2, padding_mode="reflect")
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _reflected(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, reflected at the border."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")


def loss_sum(module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Σ weight · −ln p(target) and Σ weight, of the batches below."""
    logits, image, target, weight = batch
    losses = nll_loss(module.log_probabilities(logits, image), target, reduction="none")  # type: ignore[operator]
    return (losses * weight).sum(), weight.sum()


def crops(
    readers: Sequence[Callable[[], Scene]], side: int, batch: int, generator: np.random.Generator
) -> Iterator[Batch]:
    """One random crop of each image, `batch` images at a time; crops of different sizes are batched apart."""
    for chosen in shuffled(readers, batch, generator):
        by_size: dict[tuple[int, int], list[Batch]] = {}
        for read in chosen:
            scene = read()
            height, width = (min(side, length) for length in scene.target.shape)
            top, left = (
                int(generator.integers(length - extent + 1))
                for length, extent in zip(scene.target.shape, (height, width), strict=True)
            )
            window = (slice(top, top + height), slice(left, left + width))
            by_size.setdefault((height, width), []).append(_tensors(scene, window))
        for items in by_size.values():
            yield tuple(torch.stack(parts) for parts in zip(*items, strict=True))


def whole(readers: Iterable[Callable[[], Scene]], halo: int) -> Iterator[Batch]:
    """Each image whole, as tiles that overlap by `halo`, whose weights are 0 in the overlap."""
    for read in readers:
        scene = read()
        for window, _, inner in tiles(scene.target.shape, halo):
            logits, image, target, weight = _tensors(scene, window)
            core = torch.zeros_like(weight)
            core[inner] = weight[inner]
            yield logits[None], image[None], target[None], core[None]


def _tensors(scene: Scene, window: Window) -> Batch:
    """Logits, image, target and weight within a window; logits and target are 0 at void pixels."""
    weight = scene.weight[window]
    valid = weight > 0
    logits = np.where(valid, scene.logits[(..., *window)], 0).reshape(-1, *weight.shape)
    return (
        torch.as_tensor(logits, dtype=torch.float32),
        torch.as_tensor(np.array(scene.image[(..., *window)], np.float32)),
        torch.as_tensor(np.where(valid, scene.target[window], 0), dtype=torch.int64),
        torch.as_tensor(np.array(weight, np.float32)),
    )
