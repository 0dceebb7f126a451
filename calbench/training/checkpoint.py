"""Checkpoints: one torch file of tensors and plain values, written whole or not at all, read without unpickling code."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from calbench.errors import CalbenchError, FormatError, OptionError
from calbench.io.files import atomic
from calbench.training.config import TrainingConfig
from calbench.training.models import AslpResNet50, build_model, load_imagenet, load_official
from calbench.training.models.weights import read_weights

SCHEMA = 1
KIND = "calbench training"


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two steps.

    Attributes:
        config: of the run.
        data: what identifies the images that it was trained and validated on.
        model: weights of the network.
        state: all else that continues the run: optimiser, position, history, images.
    """

    config: TrainingConfig
    data: Mapping[str, Any]
    model: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; where that fails, the one that was there before stays as it was.

    Raises:
        CalbenchError: the disk is full, or refuses.
    """
    buffer = io.BytesIO()  # torch's own writer reports a full disk as an internal error
    torch.save(
        {
            "kind": KIND,
            "schema": SCHEMA,
            "config": checkpoint.config.as_dict(),
            "data": dict(checkpoint.data),
            "model": dict(checkpoint.model),
            "state": dict(checkpoint.state),
        },
        buffer,
    )
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        kept = "the checkpoint before it is intact" if path.exists() else "there is none before it"
        raise CalbenchError(
            f"cannot write {path}, {buffer.getbuffer().nbytes / 1e6:.1f} MB: {error.strerror or error}; {kept}; make "
            "room, and continue with --resume"
        ) from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint of `calbench train-aslp`.

    Raises:
        FormatError: no such file, another kind of file, or a newer schema.
    """
    content = _content(path)
    if content["schema"] > SCHEMA:
        raise FormatError(f"{path} has schema {content['schema']}; this calbench reads up to {SCHEMA}; update it")
    config = TrainingConfig.from_dict(content["config"], path)
    return Checkpoint(config, content["data"], content["model"], content["state"])


def _content(path: str | Path) -> dict[str, Any]:
    expected = "expected last.pt or best.pt of calbench train-aslp"
    try:
        with ZipFile(path) as file:
            damaged = file.testzip()  # torch does not compare checksums
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}; {expected}") from error
    except pickle.UnpicklingError as error:
        raise FormatError(f"{path} holds objects other than tensors and plain values; {expected}") from error
    except Exception as error:  # whatever torch's reader stumbles over in a file of something else
        raise FormatError(f"{path} is damaged, or no torch file ({error}); {expected}") from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise FormatError(f"{path} is no checkpoint of calbench; {expected}")
    if damaged is not None:
        raise FormatError(f"{path} is damaged: the checksum of {damaged} is wrong; take another checkpoint")
    return content


def trained_network(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint with its weights, on the CPU."""
    config = checkpoint.config
    network = build_model(config.model, seed=config.seed, classes=config.classes, **config.model_options)
    network.load_state_dict(checkpoint.model)
    return network


def load_weights(network: nn.Module, source: str | Path) -> None:
    """Give a network the weights to start from.

    Args:
        network: any.
        source: "imagenet", for torchvision's, by URL; a file or URL of those; `Model_30_Gen.pth` of the study; or a
            checkpoint of calbench, for the same network.
    Raises:
        OptionError, InputError, FormatError: weights for another network, or that cannot be had.
    """
    if str(source) == "imagenet":
        load_imagenet(network)
        return
    path = Path(source)
    if not isinstance(network, AslpResNet50) or _is_checkpoint(path):  # no other network has weights elsewhere
        held = load_checkpoint(path)
        try:
            network.load_state_dict(held.model)
        except RuntimeError as error:
            raise OptionError(f"{path} holds the weights of {held.config.model!r}, another network: {error}") from error
        return
    if any(name.startswith("resnet.") for name in read_weights(source)):
        load_official(network, source)
        return
    load_imagenet(network, source)


def _is_checkpoint(path: Path) -> bool:
    try:
        _content(path)
    except FormatError:
        return False
    return True
