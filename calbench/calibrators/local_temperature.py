"""Local temperature scaling: a temperature for every pixel, from the logits and the image around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calbench.calibrators.maps import MapCalibrator
from calbench.errors import OptionError

if TYPE_CHECKING:
    from calbench.calibrators.image_networks import ImageNetwork


class LocalTemperature(MapCalibrator):
    """softmax(z / T) with T of each pixel predicted from the logits and the image around it; the class is kept.

    T = relu(U·σ(γ_img) + τ_img·(1 − σ(γ_img)) + start) + 1e-8,
    U = A·σ(γ3) + B·(1 − σ(γ3)), A = τ1·σ(γ1) + τ2·(1 − σ(γ1)), B = τ3·σ(γ2) + τ4·(1 − σ(γ2)).

    Each τ and γ is a 5x5 convolution of dilation 2 with one output, reflected at the border: τ1..τ4, γ1..γ3 and γ_img of
    the logits, τ_img of the image. All weights start at 0, so that T = `start` everywhere. Binary maps have two logits,
    ∓z/2. Absent classes have no parameters of their own here: they are divided by the T of their pixel.

    From zero weights the gradients of τ1..τ4 are equal and those of γ1..γ3 vanish, and so they stay: trained this way,
    as published, the tree acts as one convolution, U = τ1, that the gate γ_img mixes with τ_img.

    With many classes or large logits a learning rate as high as the 1e-3 of the selective-scaling study pushes T of
    whole images below 0 in the first steps, where the relu has no gradient and training does not recover. The start is
    then the best epoch and `notes_` says that nothing was learned: lower `lr`.

    Args:
        start: T before training. The published code adds 1 twice and starts at 2.
        epochs, lr, weight_decay: of AdamW.
        batch: images of a minibatch.
        crop: longest side of the random crops, pixels.
        validation: share of the images that choose the best epoch.
        seed: of crops, batches and the validation share.
        device: "cpu" or "cuda".

    Reference: Ding et al., ICCV 2021 (arXiv:2008.05105).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> z, images = rng.normal(0, 3, (4, 32, 32)), rng.random((4, 3, 32, 32))
    >>> y = (rng.random((4, 32, 32)) < 1 / (1 + np.exp(-z))).astype(int)
    >>> LocalTemperature(epochs=1).fit(z, y, images=images).transform_map(z[0], images[0]).shape
    (32, 32)
    """

    name = "local_temperature"
    definition = "p = softmax(z / T), T of each pixel from convolutions of the logits and the image"
    source = "Ding et al., ICCV 2021 (arXiv:2008.05105)"
    keeps_class = True
    reach = 4
    scores_classes = False

    def __init__(
        self,
        *,
        start: float = 1.0,
        epochs: int = 40,
        lr: float = 1e-4,
        weight_decay: float = 1e-6,
        batch: int = 4,
        crop: int = 256,
        validation: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.start = start
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch = batch
        self.crop = crop
        self.validation = validation
        self.seed = seed
        self.device = device

    def n_parameters(self, n_classes: int) -> int:
        """Eight convolutions of the logits and one of the image."""
        return 8 * (25 * max(2, n_classes) + 1) + 25 * 3 + 1

    def _network(self, n_classes: int) -> ImageNetwork:
        from calbench.calibrators.image_networks import LocalTemperatureNet

        if not self.start > 0:
            raise OptionError(f"start is {self.start}; a temperature is above 0")
        return LocalTemperatureNet(n_classes, self.start)
