"""Pictures and masks as a network is trained on them: items, whole pictures, and batches."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from calbench.errors import FormatError, InputError, ShapeError
from calbench.io.coding import MaskCoding
from calbench.io.labels import LabelCoding, read_labels
from calbench.io.pictures import open_picture
from calbench.statistics.rows import Array
from calbench.training.augment import augmented, resized
from calbench.training.draws import rng
from calbench.training.image_sets import Example, ImageSet, read_binary

MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue over ImageNet, by which pictures are normalised."""


@dataclass(frozen=True)
class Item:
    """One picture and its target, at the size of the network.

    Attributes:
        name, index: of the picture, and its position in the set.
        image: `(3, s, s)` float32, normalised by `MEAN` and `SPREAD`.
        target: `(1, s, s)` float32 in [0, 1] of binary masks, `(s, s)` int64 of several classes.
        valid: `(s, s)` bool, or None where all pixels count.
    """

    name: str
    index: int
    image: Tensor
    target: Tensor
    valid: Tensor | None


@dataclass(frozen=True)
class Damaged:
    """A picture or mask that cannot be read, and why."""

    name: str
    index: int
    message: str


@dataclass(frozen=True)
class Batch:
    """Items that go through the network together.

    Attributes:
        names, index: of the n pictures, and their positions in the set, `(n,)` int64.
        images: `(n, 3, s, s)` float32.
        target: `(n, 1, s, s)` float32, or `(n, s, s)` int64.
        valid: `(n, s, s)` bool, or None where all pixels count.
        damaged: pictures of the batch that could not be read; they are not among the n.
    """

    names: tuple[str, ...]
    index: Tensor
    images: Tensor
    target: Tensor
    valid: Tensor | None
    damaged: tuple[Damaged, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device, *, channels_last: bool = False) -> Batch:
        """On another device, without waiting for copies from pinned memory; images laid out by pixel if asked for."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        if not channels_last:
            return moved
        return replace(moved, images=moved.images.contiguous(memory_format=torch.channels_last))

    def pin_memory(self) -> Batch:
        """In page-locked memory; a `DataLoader` with `pin_memory` calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            index=change(self.index),
            images=change(self.images),
            target=change(self.target),
            valid=None if self.valid is None else change(self.valid),
        )


@dataclass(frozen=True)
class Whole:
    """One picture at the size of the network, not augmented, and its mask at the size of the picture.

    Attributes:
        name, index: of the picture, and its position in the set.
        image: `(3, s, s)` float32, normalised by `MEAN` and `SPREAD`.
        size: height and width of the picture.
        target: `(H, W)` bool of binary masks, integers of several classes, both 0 at void pixels; None without masks.
        valid: `(H, W)` bool, or None where all pixels count.
        grey: `(H, W)` uint8, the bytes of the mask, where the set is raw.
    """

    name: str
    index: int
    image: Tensor
    size: tuple[int, int]
    target: Array | None
    valid: Array | None
    grey: Array | None = None


class TrainingItems(Dataset[Item | Damaged]):
    """Pictures to train on, asked for by (epoch, position); the same whoever asks, and in which order.

    Args:
        images: with masks.
        size: of the network, pixels.
        seed: of the augmentation.
        augment: whether pictures are flipped, cropped and turned, see `augmented`, or resized only.
    Raises:
        InputError: a set without masks.
    """

    def __init__(self, images: ImageSet, size: int, seed: int, *, augment: bool) -> None:
        if images.coding is None:
            raise InputError(f"{images.name} has no masks; expected one for each picture to train on")
        self.images = images
        self.size = size
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: tuple[int, int]) -> Item | Damaged:
        epoch, index = at
        example = self.images.examples[index]
        try:
            picture, mask = _read(example, self.images)
        except (FormatError, InputError) as error:
            return Damaged(example.name, index, str(error))
        assert mask is not None
        target, void = _layers(mask)
        if self.augment:
            draws = rng(self.seed, epoch, example.name, "augmentation")
            picture, target, void = augmented(picture, target, void, self.size, draws)
        else:
            picture, target, void = resized(picture, target, void, self.size)
        return Item(
            example.name,
            index,
            _normalised(picture),
            _target(target),
            None if void is None else torch.from_numpy(np.asarray(void) == 0),
        )


class WholeItems(Dataset[Whole | Damaged]):
    """Pictures to validate with or to predict, and their masks, if any, at their own size.

    Args:
        images: with masks or without.
        size: of the network, pixels.
    """

    def __init__(self, images: ImageSet, size: int) -> None:
        self.images = images
        self.size = size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Whole | Damaged:
        example = self.images.examples[index]
        try:
            picture, mask = _read(example, self.images)
        except (FormatError, InputError) as error:
            return Damaged(example.name, index, str(error))
        image = _normalised(picture.resize((self.size, self.size), Image.Resampling.BILINEAR))
        size = picture.height, picture.width
        if mask is None:
            return Whole(example.name, index, image, size, None, None)
        return Whole(example.name, index, image, size, mask.target, mask.valid, mask.grey)


def collate(items: Sequence[Item | Damaged]) -> Batch:
    """The items of a step in one batch; where all are damaged, its tensors have no element, and no size.

    >>> batch = collate([Damaged("cat", 3, "cat.jpg is truncated")])
    >>> len(batch), batch.images.shape, batch.damaged[0].name
    (0, torch.Size([0, 3, 0, 0]), 'cat')
    """
    read = [item for item in items if isinstance(item, Item)]
    damaged = tuple(item for item in items if isinstance(item, Damaged))
    if not read:
        return Batch(
            (), torch.empty(0, dtype=torch.int64), torch.empty(0, 3, 0, 0), torch.empty(0, 1, 0, 0), None, damaged
        )
    counting = [item.valid for item in read]
    if all(valid is None for valid in counting):
        together = None
    else:
        together = torch.stack(
            [torch.ones(item.image.shape[1:], dtype=torch.bool) if item.valid is None else item.valid for item in read]
        )
    return Batch(
        tuple(item.name for item in read),
        torch.tensor([item.index for item in read]),
        torch.stack([item.image for item in read]),
        torch.stack([item.target for item in read]),
        together,
        damaged,
    )


def void_batch(size: int, classes: int) -> Batch:
    """One black picture without a name, all void, for a process that has no image in a step.

    >>> batch = void_batch(4, classes=1)
    >>> len(batch), batch.images.shape, batch.target.shape, bool(batch.valid.any())
    (0, torch.Size([1, 3, 4, 4]), torch.Size([1, 1, 4, 4]), False)
    """
    black = Image.new("RGB", (size, size))
    target = _target(Image.new("L" if classes == 1 else "I", (size, size)))
    black_item = Item("", -1, _normalised(black), target, torch.zeros(size, size, dtype=torch.bool))
    return replace(collate([black_item]), names=())


def leave_interrupts(_: int) -> None:
    """Make a process that reads pictures leave signals that are sent to all to the one that it reads for, and ends with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@dataclass(frozen=True)
class _Mask:
    """A mask at its own size: target, valid and grey as in `Whole`."""

    target: Array
    valid: Array | None
    grey: Array | None = None


def _read(example: Example, images: ImageSet) -> tuple[Image.Image, _Mask | None]:
    """A picture and what its mask says."""
    picture = open_picture(example.image)
    if example.mask is None or images.coding is None:
        return picture, None
    mask = _read_mask(example.mask, images.coding, raw=images.raw)
    if mask.target.shape != (picture.height, picture.width):
        height, width = mask.target.shape
        raise ShapeError(
            f"{example.mask} has {width}x{height} pixels, its picture {picture.width}x{picture.height}; did it change "
            "meanwhile?"
        )
    return picture, mask


def _read_mask(path: Path, coding: MaskCoding | LabelCoding, *, raw: bool) -> _Mask:
    if isinstance(coding, LabelCoding):
        return _Mask(*coding.apply(read_labels(path)[0], path))
    image, void = read_binary(path, coding)
    target = coding.foreground(image.levels)
    grey = image.levels.clip(0).astype(np.uint8, copy=False) if raw else None
    return _Mask(target, None, grey) if void is None else _Mask(target & ~void, ~void, grey)


def _layers(mask: _Mask) -> tuple[Image.Image, Image.Image | None]:
    """Target and void as `augmented` takes them."""
    if mask.grey is not None:
        target = Image.fromarray(mask.grey)
    elif mask.target.dtype == bool:
        target = Image.fromarray(mask.target.view(np.uint8) * np.uint8(255))
    else:
        target = Image.fromarray(mask.target.astype(np.int32))
    return target, None if mask.valid is None else Image.fromarray((~mask.valid).view(np.uint8))


def _normalised(image: Image.Image) -> Tensor:
    """`(3, s, s)` float32: (v / 255 − mean) / spread."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    mean, spread = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, SPREAD))
    return pixels.div_(255).sub_(mean).div_(spread)


def _target(layer: Image.Image) -> Tensor:
    """`(1, s, s)` float32 of grey levels, `(s, s)` int64 of class indices."""
    values = torch.from_numpy(np.array(layer))
    return values[None].float().div_(255) if layer.mode == "L" else values.long()
