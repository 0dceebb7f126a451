"""Predictions of a trained network on disk: the pictures of a folder, each at its own size, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import Tensor, nn
from torch.utils.data import DataLoader

from calbench.errors import CalbenchError, FormatError, InputError, OptionError, RangeError, UnknownName, plural
from calbench.io.files import digest, read_bytes
from calbench.io.maps import FORMATS, TOPS, Rounding, map_file, quantised, write_map
from calbench.io.pairing import dataset_name, refuse_mixing
from calbench.io.written import Record, Written
from calbench.progress import progress_bar
from calbench.statistics.rows import Array
from calbench.training.checkpoint import load_checkpoint, trained_network
from calbench.training.config import CHOICES, RECIPES, Precision
from calbench.training.data import Damaged, WholeItems, leave_interrupts
from calbench.training.distributed import device_named
from calbench.training.image_sets import ImageSet, image_set, read_names
from calbench.training.inference import logits_of
from calbench.training.models import AslpResNet50, build_model, load_official
from calbench.training.models.weights import read_weights

PREDICTED = "predict.json"
"""The record in a folder of predictions: which were written, by what and from what."""
SCHEMA = 1
STRETCH_OFFSET = 1e-8


@dataclass(frozen=True)
class PredictOptions:
    """What predicts which pictures, and how that is written.

    Attributes:
        checkpoint: of `calbench train-aslp`, or a torch file with a plain `state_dict`, which needs `model`.
        images: folder of pictures.
        output: folder to write to: a map for each picture, of its stem, in its sub-folder.
        names: text file with the stems of the pictures to predict, one a line; None: all.
        model: of `calbench.training.models.MODELS`, or `package.module:function`, of a plain file.
        classes: of a plain file; None: 1.
        size: side of the square that pictures are resized to, pixels; None: that of the training.
        flip: whether logits are averaged with those of the mirrored picture.
        format: "npz": float16 `probabilities`, `(H, W)` of binary maps, `(C, H, W)` of several classes; "png16", "png8":
            grey levels of binary maps; None: "npz", or "png8" of profile "aslp".
        profile: "calbench", or "aslp", which stretches each map as the official code does: see `stretched`.
        device: "cpu", "cuda" or "auto".
        batch: pictures that go through the network at once. Sums of floats depend on it in their last bit.
        workers: processes that read pictures; 0: this one.
        precision: of the forward pass, "fp32" or "bf16"; None: that of the training, and fp32 of a plain file.
        skip_damaged: whether a picture that cannot be read is left out, and named, or ends the run.
    Raises:
        OptionError: a number out of its range, or options that do not go together.
        UnknownName: an unknown choice.
    """

    checkpoint: str
    images: str
    output: str
    names: str | None = None
    model: str | None = None
    classes: int | None = None
    size: int | None = None
    flip: bool = False
    format: str | None = None
    profile: str = "calbench"
    device: str = "cpu"
    batch: int = 8
    workers: int = 0
    precision: Precision | None = None
    skip_damaged: bool = False

    def __post_init__(self) -> None:
        for name, least in (("classes", 1), ("size", 1), ("batch", 1), ("workers", 0)):
            if (number := getattr(self, name)) is not None and number < least:
                raise OptionError(f"{name} is {number}; expected {least} or more")
        for name, known in (*((name, CHOICES[name]) for name in ("profile", "precision")), ("format", tuple(FORMATS))):
            if (choice := getattr(self, name)) is not None and choice not in known:
                raise UnknownName(name, choice, known)
        if self.stretch and self.stored_as != "png8":
            raise OptionError(
                f"--profile aslp writes 8-bit maps as the official code does, and goes with --format png8 alone, not "
                f"{self.format}; leave out one of them"
            )
        if self.model is None and self.classes is not None:
            raise OptionError("--classes is of a plain state_dict: say of which network by --model, or leave it out")

    @property
    def stretch(self) -> bool:
        """Whether maps are stretched."""
        return self.profile == "aslp"

    @property
    def stored_as(self) -> str:
        """The format, with its default."""
        return self.format or ("png8" if self.stretch else "npz")


@dataclass(frozen=True)
class Predicted:
    """What was written.

    Attributes:
        checkpoint, output: as given.
        model: name of the network.
        size: side of the square that pictures were resized to, pixels.
        format, profile: see `PredictOptions`.
        files: paths below the folder, sorted.
        skipped: how many of them an earlier run had written.
        damaged: pictures that could not be read, and have no map.
        rounding: of all files together.
    """

    checkpoint: str
    output: str
    model: str
    size: int
    format: str
    profile: str
    files: tuple[str, ...]
    skipped: int
    damaged: tuple[Damaged, ...]
    rounding: Rounding

    @property
    def text(self) -> str:
        """For people: what was written, what storing it cost, and what could not be read."""
        earlier = f" ({self.skipped:,} of them before)" * bool(self.skipped)
        lines = [
            f"{plural(len(self.files), 'file')} in {self.output}{earlier}, predicted by {self.model}",
            self.rounding.text(self.format, "stretched maps" if self.profile == "aslp" else "probabilities"),
        ]
        if self.damaged:
            lines += [f"without a map, as {plural(len(self.damaged), 'picture')} could not be read:"]
            lines += [f"  {damaged.name}: {damaged.message}" for damaged in self.damaged]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """One document of plain values."""
        return {
            "checkpoint": self.checkpoint,
            "model": self.model,
            "size": self.size,
            "output": self.output,
            "format": self.format,
            "profile": self.profile,
            "images": len(self.files),
            "skipped": self.skipped,
            "damaged": [{"name": damaged.name, "message": damaged.message} for damaged in self.damaged],
            "quantisation": self.rounding.to_json(),
            "files": list(self.files),
        }


@dataclass(frozen=True)
class _Trained:
    """A network with its weights, and how it was trained as far as that is known."""

    network: nn.Module
    model: str
    classes: int
    size: int
    channels_last: bool
    precision: Precision
    text: str


def predict_folder(
    options: PredictOptions,
    *,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> Predicted:
    """Write the prediction of every picture of a folder at its own size, as `calbench evaluate` reads it.

    Every pixel keeps the class of its probabilities, whatever storing rounds. A record of what was written from what,
    `predict.json`, stays in the folder. A run that was interrupted and resumed writes what an uninterrupted one does.

    Args:
        resume: keep files that the same checkpoint wrote with the same options from the same pictures.
        force: replace what the folder holds; what an earlier run wrote there, and this one does not, is removed.
        progress: draw a bar on stderr.
        announce: receives what is about to be done, for people.
    Raises:
        FormatError: no checkpoint, weights of another network, or a picture that cannot be read.
        RangeError: logits that are not finite.
        PairingError, InputError: pictures that share a name, listed names without a picture, a folder that is in use.
        OptionError: options that do not go together, or a GPU where there is none.
    """
    device = device_named(options.device)
    folder, output, format = Path(options.images), Path(options.output), options.stored_as
    refuse_mixing(output, {"pictures": options.images}, around=True)
    checkpoint_digest = digest(read_bytes(Path(options.checkpoint)))
    trained = _plain(options, options.model) if options.model is not None else _of_run(options)
    if trained.classes > 1 and format in TOPS:
        given = "--profile aslp" if options.stretch else f"--format {format}"
        raise OptionError(
            f"{given} holds binary maps, but the network of {options.checkpoint} has {trained.classes} classes; leave it "
            "out: --format npz holds several"
        )
    images = image_set(dataset_name(folder), folder, None)
    if options.names is not None:
        images = images.select(read_names(Path(options.names)), options.names)
    announce(
        f"{plural(len(images), 'picture')} in {folder}, predicted at {trained.size} x {trained.size} pixels"
        f"{' with their mirror images' * options.flip} by {trained.text}"
    )
    if options.stretch:
        announce(
            "each map is stretched to the levels 0 to 255, as in the official test code: these are no probabilities, and "
            "calibration measured on them is not that of the network"
        )
    example_of = {map_file(example.image, folder, format): example for example in images.examples}
    head = {
        "schema": SCHEMA,
        "checkpoint_digest": checkpoint_digest,
        "model": trained.model,
        "size": trained.size,
        "format": format,
        "precision": options.precision or trained.precision,
        **{name: getattr(options, name) for name in ("profile", "flip")},
    }
    record = Record(output / PREDICTED, head, holds="predictions", by="checkpoint", source="pictures")
    earlier = record.earlier(set(example_of), resume=resume, force=force)
    done = {file: written for file, written in earlier.items() if written.origin == _origin(example_of[file].image)}
    record.remove(earlier.keys() - done.keys())  # now, so that no map is ever older than its picture
    skipped = len(done)
    files = {example.name: file for file, example in example_of.items() if file not in done}
    damaged = []
    with (
        record.kept(done) as keep,
        progress_bar("images", len(files), enabled=progress) as advance,
    ):
        for file, outcome in predict_set(
            trained.network, images, output, files=files, size=trained.size, format=format, device=device,
            batch=options.batch, workers=options.workers, precision=options.precision or trained.precision,
            channels_last=trained.channels_last, flip=options.flip, stretch=options.stretch,
            skip_damaged=options.skip_damaged,
        ):  # fmt: skip
            if isinstance(outcome, Damaged):
                damaged.append(outcome)
            else:
                keep(file, outcome)
            advance()
    if not done:
        raise InputError(
            f"none of the pictures in {folder} can be read, such as {damaged[0].name}: {damaged[0].message}"
        )
    rounding = Rounding.merged([done[file].rounding for file in sorted(done)])
    return Predicted(
        options.checkpoint, options.output, trained.model, trained.size, format, options.profile, tuple(sorted(done)),
        skipped, tuple(damaged), rounding,
    )  # fmt: skip


def predict_set(
    network: nn.Module,
    images: ImageSet,
    output: Path,
    *,
    files: Mapping[str, str],
    size: int,
    format: str = "npz",
    device: torch.device,
    batch: int = 8,
    workers: int = 0,
    precision: Precision = "fp32",
    channels_last: bool = False,
    flip: bool = False,
    stretch: bool = False,
    skip_damaged: bool = False,
) -> Iterator[tuple[str, Written | Damaged]]:
    """Predict pictures of a set, each at its own size, and write their maps.

    p = sigmoid(z) of one logit, softmax(z) of several, in float64 from float32 logits that are interpolated to the size of
    the picture. Batches are cut from the whole set, and run where any of their pictures is to be predicted: what a picture
    gets does not depend on which others were predicted before.

    Args:
        network: is moved to the device and put into evaluation mode.
        output: folder of the maps.
        files: the map of each picture to be predicted, by its name in the set; paths below `output`.
        size: side of the square that pictures are resized to, pixels.
        stretch: whether maps are `stretched`.
        format, batch, workers, precision, flip, skip_damaged: see `PredictOptions`.
        device, channels_last: of the forward pass.
    Yields:
        File by file, in the order of the set: its path below `output`, and its record, or why there is none: the picture
        is damaged, and a map that was there before is removed.
    Raises:
        FormatError: a damaged picture, where these are not skipped.
        RangeError: logits that are not finite.
        CalbenchError: a GPU with too little memory.
    """
    network = network.to(device).eval()
    indices = range(len(images))
    cut = [list(indices[first : first + batch]) for first in range(0, len(images), batch)]
    loader = DataLoader(
        WholeItems(images, size),
        batch_sampler=[some for some in cut if any(images.examples[index].name in files for index in some)],
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=leave_interrupts,
    )
    for read in loader:
        wholes = []
        for whole in read:
            if not isinstance(whole, Damaged):
                wholes.append(whole)
            elif whole.name in files:
                if not skip_damaged:
                    raise FormatError(
                        f"picture {whole.name!r}: {whole.message}; repair it, or leave such pictures out with "
                        "--on-damaged skip"
                    )
                (output / files[whole.name]).unlink(missing_ok=True)
                yield files[whole.name], whole
        try:
            for whole, logits in logits_of(
                network, [wholes] * bool(wholes), device, precision=precision, channels_last=channels_last, flip=flip
            ):
                if whole.name not in files:
                    continue
                path = images.examples[whole.index].image
                p = _probabilities(logits, path)
                stored, rounding = quantised(stretched(p) if stretch else p, format)
                write_map(output / files[whole.name], stored)
                yield files[whole.name], Written(_origin(path), rounding)
        except torch.OutOfMemoryError as error:
            raise CalbenchError(
                f"{device} has too little memory for {plural(batch, 'picture')} of {size} x {size} pixels at once; make "
                "--batch smaller, and continue with --resume"
            ) from error


def stretched(p: Array) -> Array:
    """A map stretched to (p − min p) / (max p − min p + 1e-8), as in the official test code of ASLP.

    What it gives are no probabilities: the largest of the map becomes 1, however unsure the network is.

    Reference: Liu et al., ICCV 2023 (arXiv:2307.13539), their published code.

    >>> stretched(np.array([[0.25, 0.5, 0.75]])).round(4).tolist()
    [[0.0, 0.5, 1.0]]
    """
    low = p.min()
    return (p - low) / (p.max() - low + STRETCH_OFFSET)


def _of_run(options: PredictOptions) -> _Trained:
    """The network of a checkpoint of `calbench train-aslp`.

    Raises:
        OptionError: a plain file instead, whose network is not said.
        FormatError: no checkpoint.
    """
    try:
        held = load_checkpoint(options.checkpoint)
    except FormatError:
        if _is_readable(read_weights, options.checkpoint):
            raise OptionError(
                f"{options.checkpoint} holds weights alone; say of which network: --model aslp-resnet50 of the study's "
                "Model_30_Gen.pth"
            ) from None
        raise
    config = held.config
    text = f"{config.model}, trained by {config.method} at {config.size} x {config.size} pixels"
    size = options.size or config.size
    return _Trained(
        trained_network(held), config.model, config.classes, size, config.channels_last, config.precision, text
    )


def _plain(options: PredictOptions, model: str) -> _Trained:
    """The network of a file that holds a plain `state_dict`.

    Raises:
        OptionError: a checkpoint of calbench, which says itself what its network is, or no size for a network of one's own.
        FormatError: another file, or the weights of another network.
    """
    path, classes = options.checkpoint, options.classes or 1
    network = build_model(model, classes=classes)
    try:
        if isinstance(network, AslpResNet50):
            load_official(network, path)
        else:
            network.load_state_dict(read_weights(path))
    except FormatError:
        if _is_readable(load_checkpoint, path):
            raise OptionError(
                f"{path} is a checkpoint of calbench, which says what its network is; leave out --model"
            ) from None
        raise
    except RuntimeError as error:
        raise FormatError(
            f"{path} does not hold the weights of {model} with {plural(classes, 'channel')} of logits; give its --model and "
            f"--classes: {error}"
        ) from error
    size = options.size or RECIPES.get(model, {}).get("size")
    if size is None:
        raise OptionError(f"--model {model} does not say at which size it was trained; say so by --size N, pixels")
    return _Trained(network, model, classes, size, False, "fp32", model)


def _is_readable(read: Callable[[str], Any], path: str) -> bool:
    try:
        read(path)
    except FormatError:
        return False
    return True


def _probabilities(logits: Tensor, path: Path) -> Array:
    """`(H, W)` of one logit, `(C, H, W)` of several, float64."""
    z = logits.numpy().astype(np.float64)
    if not np.isfinite(z).all():
        raise RangeError(
            f"the network gives NaN or infinite logits for {path}; expected finite numbers; did its training diverge, or does "
            "it need --precision fp32?"
        )
    return np.asarray(expit(z[0]) if len(z) == 1 else softmax(z, axis=0))


def _origin(picture: Path) -> dict[str, int]:
    return {"image": digest(read_bytes(picture))}
