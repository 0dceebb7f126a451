"""Stochastic spatial calibration: the mean softmax of Gaussian samples of the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calbench.calibrators.maps import MapCalibrator
from calbench.errors import OptionError

if TYPE_CHECKING:
    from calbench.calibrators.image_networks import ImageNetwork

SPREAD = 0.1
"""σ before training: small, so that the start is close to the identity, but not 0, where its gradient vanishes."""


class StochasticSpatial(MapCalibrator):
    """Mean softmax of logits drawn from a Gaussian at each pixel, whose mean and spread are learned.

    p = (1/S) Σ_s softmax(μ + σ ⊙ ε_s), μ = W z + b, σ = softplus(V [z, image] + c), ε_s ~ N(0, I).

    W and V are 1x1 convolutions; the start is μ = z and σ = 0.1. The S draws ε come from `seed` in pairs ±ε, are shared
    by all pixels and saved, so that the result is deterministic. A stochastic segmentation network also models how the
    noise of different pixels goes together; probabilities of single pixels, which calibration is about, do not depend
    on it. Classes may change. Binary maps have two logits, ∓z/2.

    `samples=0` is the published form: it averages the two samples μ + δ and μ − δ themselves, before the softmax, and
    the noise cancels. What is left is softmax(W z + b), without a look at the image. (That code starts at random W.)

    A class c absent from the fitting data keeps its uncalibrated score: μ_c = z_c and σ_c = 0; `notes_` lists them.

    Args:
        samples: S, even; 0 for the mean alone.
        epochs, lr, weight_decay: of AdamW.
        batch: images of a minibatch.
        crop: longest side of the random crops, pixels.
        validation: share of the images that choose the best epoch.
        seed: of the draws, crops, batches and the validation share.
        device: "cpu" or "cuda".

    Reference: Monteiro et al., NeurIPS 2020 (arXiv:2006.06015), with diagonal covariance; the form with samples=0: the
    code of Wang et al., CVPR 2023 (arXiv:2212.12053).

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> z, images = rng.normal(0, 3, (4, 5, 16, 32)), rng.random((4, 3, 16, 32))
    >>> fitted = StochasticSpatial(epochs=1).fit(z, z.argmax(1), images=images)
    >>> fitted.transform_map(z[0], images[0]).shape
    (5, 16, 32)
    """

    name = "stochastic_spatial"
    definition = "p = mean of softmax(μ + σ ε) over fixed draws ε; μ and σ from 1x1 convolutions of logits and image"
    source = "Monteiro et al., NeurIPS 2020 (arXiv:2006.06015); Wang et al., CVPR 2023 (arXiv:2212.12053)"
    reach = 0

    def __init__(
        self,
        *,
        samples: int = 10,
        epochs: int = 40,
        lr: float = 1e-3,
        weight_decay: float = 1e-6,
        batch: int = 4,
        crop: int = 256,
        validation: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.samples = samples
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch = batch
        self.crop = crop
        self.validation = validation
        self.seed = seed
        self.device = device

    def n_parameters(self, n_classes: int) -> int:
        """W and b, and with samples V and c."""
        channels = max(2, n_classes)
        return channels * (channels + 1) + (channels * (channels + 4) if self.samples else 0)

    def _network(self, n_classes: int) -> ImageNetwork:
        from calbench.calibrators.image_networks import StochasticSpatialNet

        if self.samples < 0 or self.samples % 2:
            raise OptionError(f"samples is {self.samples}; expected an even number, or 0 for the mean alone")
        return StochasticSpatialNet(n_classes, self.samples, SPREAD, self.seed)
