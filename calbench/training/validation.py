"""Accuracy and calibration on the validation images, in memory, at the size of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus
from torch.utils.data import DataLoader, Subset

from calbench.errors import FormatError, InputError, plural
from calbench.statistics.reliability import FLOAT32_TOLERANCE, bin_index
from calbench.statistics.rows import Array
from calbench.training.config import TrainingConfig
from calbench.training.data import Damaged, Whole, WholeItems, leave_interrupts
from calbench.training.distributed import ALONE, World
from calbench.training.image_sets import ImageSet
from calbench.training.inference import logits_of

BINS = 15
BATCH = 8


@dataclass(frozen=True)
class Validation:
    """What a network is worth on the validation images, all pixels pooled.

    Attributes:
        accuracy: share of right pixels.
        ece: top-label ECE over 15 equal-width bins.
        nll: mean negative log-likelihood, nats a pixel.
    """

    accuracy: float
    ece: float
    nll: float


def validate(
    network: nn.Module,
    images: ImageSet,
    config: TrainingConfig,
    world: World = ALONE,
    *,
    workers: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> Validation:
    """Measure a network on a set of images with masks.

    Every process measures its share of the images; the sums of each image stand in a table that all add up, so that the
    result does not depend on how many processes there are. A raw set is judged as the official code of ASLP does: a pixel is
    right where its grey value is 0 or 255 and agrees, and any other grey value is wrong; its NLL is that of grey / 255.

    Args:
        network: in any mode, which it has afterwards again.
        images: with masks.
        config: size, precision and layout.
        world: the processes.
        workers: processes that read the pictures.
        advance: called once an image.
    Raises:
        FormatError: a picture or mask that cannot be read: without it, accuracy would be another's.
        InputError: no pixel counts.
    """
    table = torch.zeros(len(images), 3 + 2 * BINS, dtype=torch.float64)
    mine = range(world.rank, len(images), world.size)
    loader = DataLoader(
        Subset(WholeItems(images, config.size), mine), batch_size=BATCH, num_workers=workers, collate_fn=_all_read,
        worker_init_fn=leave_interrupts,
    )  # fmt: skip
    was_training = network.training
    network.eval()
    try:
        for whole, logits in logits_of(
            network, loader, world.device, precision=config.precision, channels_last=config.channels_last
        ):
            table[whole.index] = torch.from_numpy(_sums(whole, logits))
            advance()
    finally:
        network.train(was_training)
    total = world.sum(table).sum(0).numpy()
    if not total[0]:
        raise InputError(f"all pixels of the {plural(len(images), 'validation image')} are void; validate with others")
    n, right, nll = total[:3]
    residual = total[3 + BINS :] - total[3 : 3 + BINS]
    return Validation(float(right / n), float(np.abs(residual).sum() / n), float(nll / n))


def _all_read(wholes: Sequence[Whole | Damaged]) -> list[Whole]:
    for whole in wholes:
        if isinstance(whole, Damaged):
            raise FormatError(f"validation image {whole.name!r}: {whole.message}")
    return [whole for whole in wholes if isinstance(whole, Whole)]


def _sums(whole: Whole, logits: Tensor) -> Array:
    """Pixels, right ones, Σ NLL, and in each bin Σ confidence and Σ right, `(3 + 2 bins,)`."""
    z = logits.double()
    assert whole.target is not None
    if len(z) == 1:
        share = whole.target if whole.grey is None else whole.grey / 255
        nll = softplus(z[0]) - z[0] * torch.from_numpy(np.asarray(share, np.float64))
        p = z[0].sigmoid()
        confidence, found = torch.maximum(p, 1 - p).numpy(), (p >= 0.5).numpy()
        right = found == whole.target if whole.grey is None else whole.grey == np.where(found, 255, 0)
    else:
        target = torch.from_numpy(whole.target.astype(np.int64))
        nll = cross_entropy(z[None], target[None], reduction="none")[0]
        best = z.softmax(0).max(0)
        confidence, right = best.values.numpy(), best.indices.numpy() == whole.target
    valid = np.ones(whole.size, bool) if whole.valid is None else whole.valid
    confidence, right = confidence[valid], right[valid].astype(np.float64)
    bins = bin_index(
        np.nan_to_num(confidence), BINS, FLOAT32_TOLERANCE
    )  # NaN has no bin; the sums say that it is there
    sums = [np.bincount(bins, weights, BINS) for weights in (confidence, right)]
    return np.concatenate([[confidence.size, right.sum(), nll.numpy()[valid].sum()], *sums])
