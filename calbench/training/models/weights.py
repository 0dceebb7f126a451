"""Trained weights for the network of the ASLP study: the study's own, and those of ImageNet."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calbench.errors import FormatError, InputError, OptionError, listing, plural
from calbench.training.models.aslp_resnet import UNEXECUTED, AslpResNet50

IMAGENET = "https://download.pytorch.org/models/resnet50-0676ba61.pth"
"""The weights that torchvision calls IMAGENET1K_V1 of ResNet-50, those of the study's time."""
COPY = re.compile(r"_[12](?=\.)")
"""The number of a copy of a stage, which the names of torchvision lack."""


def load_official(model: nn.Module, path: str | Path) -> None:
    """Give the network the weights of the study, `Model_30_Gen.pth`, or of a file of its layout.

    The names may begin with `module.`. Weights that are never executed are left out where the model has no place for
    them. Nothing is unpickled but tensors and plain containers.

    Args:
        model: an `AslpResNet50`, of 1 class for the study's file.
        path: a torch file with a plain `state_dict`.
    Raises:
        OptionError: another model.
        FormatError: no such file, a file that holds other objects, or other weights; the model is left as it was.
    """
    network = _aslp_resnet(model)
    expected = network.state_dict()
    weights = {name: w for name, w in read_weights(path).items() if name in expected or not UNEXECUTED.match(name)}
    _refuse_others(weights, expected, f"{path} does not hold this network", "take Model_30_Gen.pth, for 1 class")
    network.load_state_dict(weights)


def load_imagenet(model: nn.Module, source: str | Path = IMAGENET) -> None:
    """Give the encoder the weights of torchvision's ResNet-50; the decoder stays as it is.

    Both copies of a stage, where the model has two, start from the same weights: `layer3_1` and `layer3_2` from `layer3`.
    The classifier `fc` is left out, and counters of batches that early files lack start at 0.

    Args:
        model: an `AslpResNet50`.
        source: a torch file, or a URL, whose file torch keeps under `torch.hub.get_dir()` and checks against the hash in
            its name.
    Raises:
        OptionError: another model.
        InputError: the URL cannot be reached.
        FormatError: no such file, a file that holds other objects, or other weights; the model is left as it was.
    """
    encoder = _aslp_resnet(model).resnet
    names = {name: COPY.sub("", name) for name in encoder.state_dict()}
    expected = {names[name]: w for name, w in encoder.state_dict().items()}
    weights = {name: w for name, w in read_weights(source).items() if not name.startswith("fc.")}
    counters = (name for name in expected if name.endswith(".num_batches_tracked"))
    weights = dict.fromkeys(counters, torch.tensor(0)) | weights
    _refuse_others(weights, expected, f"{source} does not hold a ResNet-50", "take torchvision's resnet50")
    encoder.load_state_dict({name: weights[origin] for name, origin in names.items()})


def _aslp_resnet(model: nn.Module) -> AslpResNet50:
    if not isinstance(model, AslpResNet50):
        raise OptionError(f"the model is {type(model).__name__}; these weights are for aslp-resnet50")
    return model


def read_weights(source: str | Path) -> dict[str, Tensor]:
    """The `state_dict` of a file or URL, names without `module.`."""
    expected = "expected a torch file with a plain state_dict"
    online = str(source).startswith(("https://", "http://"))
    try:
        load = _download if online else _load
        content = load(str(source))
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{source} is damaged, or holds objects other than tensors and numbers, which may run code and are not "
            f"loaded; {expected}"
        ) from error
    except (OSError, HTTPException) as error:
        if online:
            raise InputError(
                f"cannot download {source}: {error}; where the network does not allow it, fetch the file on another "
                "machine and give its path instead"
            ) from error
        raise FormatError(f"cannot read {source}: {error}; {expected}") from error
    except Exception as error:  # whatever torch's reader stumbles over in a file of something else, KeyError for one
        raise FormatError(f"{source} is damaged, or no torch file ({error}); {expected}") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in content.items()
    ):
        found = (
            f"entries {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else type(content).__name__
        )
        raise FormatError(f"{source} holds {found}; {expected}")
    return {name.removeprefix("module."): weight for name, weight in content.items()}


def _load(path: str) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _download(url: str) -> Any:
    with redirect_stdout(sys.stderr):  # torch announces downloads on stdout, where results go
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)


def _refuse_others(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], verdict: str, remedy: str) -> None:
    """Hold names and shapes of weights against those of the model.

    Raises:
        FormatError: weights that are missing, foreign or of another shape.
    """
    missing = [f"{name} is missing" for name in expected if name not in found]
    foreign = [f"{name} is of another network" for name in found if name not in expected]
    shapes = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(weight.shape)}"
        for name, weight in expected.items()
        if name in found and found[name].shape != weight.shape
    ]
    if differences := missing + foreign + shapes:
        raise FormatError(
            f"{verdict}: {plural(len(differences), 'difference')} in its {plural(len(found), 'weight')}, "
            f"{len(expected)} expected:\n{listing(differences)}\n{remedy}"
        )
