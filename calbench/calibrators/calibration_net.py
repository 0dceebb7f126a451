"""The calibration network of CAR: a new softmax from the image and what a black box predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calbench.calibrators.maps import MapCalibrator
from calbench.errors import UnknownName

if TYPE_CHECKING:
    from calbench.calibrators.image_networks import ImageNetwork

INPUTS = ("one_hot", "probabilities")
WIDTH = 64
"""Channels between the layers."""


class CalibrationNet(MapCalibrator):
    """Softmax of a five-layer network of 3x3 convolutions that sees the image and the predicted classes.

    p = softmax(F([image, one-hot of argmax z])), or F([image, softmax(z)]). Each layer is reflected at the border;
    64 channels; dropout 0.2, batch normalisation and LeakyReLU 0.2 after the first four, dropout 0.2 after the last:
    141,913 parameters for 25 classes. It is trained by cross-entropy from random weights; the class may change, as the
    output is a softmax of its own. With "one_hot" any black box can be calibrated, as its logits are not used.

    Classes absent from the fitting data keep their uncalibrated probabilities, and the network shares out the rest;
    `notes_` lists them.

    Args:
        inputs: "one_hot" of the predicted class, or "probabilities".
        epochs, lr, weight_decay: of AdamW.
        batch: images of a minibatch.
        crop: longest side of the random crops, pixels.
        validation: share of the images that choose the best epoch.
        seed: of the initial weights, dropout, crops, batches and the validation share.
        device: "cpu" or "cuda".

    Reference: Kassapis et al., ICCV 2021 (arXiv:2006.13144), the network F of Cityscapes.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> z, images = rng.normal(0, 3, (8, 16, 32)), rng.random((8, 3, 16, 32))
    >>> weight = np.full(z.shape, 100.0)  # each pixel counts as a hundred: the network has many parameters
    >>> fitted = CalibrationNet(epochs=1).fit(z, (z > 0).astype(int), weight, images=images)
    >>> fitted.transform_map(z[0], images[0]).shape
    (16, 32)
    """

    name = "calibration_net"
    definition = "p = softmax(F(image, predicted class)), F five 3x3 convolutions"
    source = "Kassapis et al., ICCV 2021 (arXiv:2006.13144)"
    reach = 5

    def __init__(
        self,
        *,
        inputs: str = "one_hot",
        epochs: int = 40,
        lr: float = 1e-3,
        weight_decay: float = 5e-4,
        batch: int = 4,
        crop: int = 128,
        validation: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.inputs = inputs
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch = batch
        self.crop = crop
        self.validation = validation
        self.seed = seed
        self.device = device

    def n_parameters(self, n_classes: int) -> int:
        """Weights and biases of five convolutions, and of four batch normalisations."""
        channels = max(2, n_classes)
        ins, outs = (3 + channels, WIDTH, WIDTH, WIDTH, WIDTH), (WIDTH, WIDTH, WIDTH, WIDTH, channels)
        return sum(9 * i * o + o for i, o in zip(ins, outs, strict=True)) + 4 * 2 * WIDTH

    def _network(self, n_classes: int) -> ImageNetwork:
        from calbench.calibrators.image_networks import CalibrationCNN

        if self.inputs not in INPUTS:
            raise UnknownName("kind of inputs", self.inputs, INPUTS)
        return CalibrationCNN(n_classes, self.inputs == "one_hot", WIDTH)
