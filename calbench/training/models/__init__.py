"""Networks for dense prediction: one file each, one line each here."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from inspect import signature
from typing import Any

import torch
from torch import nn

from calbench.errors import InputError, OptionError, UnknownName
from calbench.training.models.aslp_resnet import AslpResNet50
from calbench.training.models.small import SmallUNet
from calbench.training.models.weights import load_imagenet, load_official

MODELS: dict[str, Callable[..., nn.Module]] = {
    "aslp-resnet50": AslpResNet50,
    "small": SmallUNet,
}
"""Every network by name. Images `(N, 3, H, W)` go in, logits `(N, classes, H, W)` come out."""
IMPORT_PATH = "package.module:function"


def build_model(name: str, *, seed: int = 0, **options: Any) -> nn.Module:
    """The network of that name, its random weights drawn from the seed.

    Args:
        name: of `MODELS`, or `package.module:function`, a function (or class) of your own that returns a module.
        seed: of the weights. They are drawn on the CPU; torch's random state is afterwards what it was before.
        options: for the network, such as `classes`.
    Raises:
        UnknownName: a name that is not in `MODELS`, or a function that is not in its module.
        OptionError: options the network does not take, or a path of another form.
        InputError: a module that cannot be imported, or a function that returns something else.

    >>> network = build_model("small", seed=1, classes=3)
    >>> torch.equal(network.head.weight, build_model("small", seed=1, classes=3).head.weight)
    True
    >>> build_model("torch.nn:Conv2d", in_channels=3, out_channels=1, kernel_size=1)
    Conv2d(3, 1, kernel_size=(1, 1), stride=(1, 1))
    """
    factory = _imported(name) if ":" in name else MODELS.get(name)
    if factory is None:
        raise UnknownName("model", name, [*MODELS, IMPORT_PATH])
    takes = signature(factory)
    try:
        takes.bind(**options)
    except TypeError as error:
        raise OptionError(f"model {name!r}: {error}; it takes {', '.join(takes.parameters) or 'no options'}") from error
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also seed every GPU, whose state is not restored here
        torch.default_generator.manual_seed(seed)
        model = factory(**options)
    if not isinstance(model, nn.Module):
        raise InputError(f"model {name!r} returned {type(model).__name__}; expected a torch.nn.Module")
    return model


def _imported(path: str) -> Callable[..., Any]:
    module_name, _, function_name = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), function_name]):
        raise OptionError(f"the model is {path!r}; expected {IMPORT_PATH}")
    try:
        module = import_module(module_name)
    except Exception as error:  # whatever somebody's module raises
        raise InputError(
            f"model {path!r}: {module_name} cannot be imported: {type(error).__name__}: {error}; expected a module that "
            "is installed, or lies in a folder of PYTHONPATH"
        ) from error
    callables = {name: value for name, value in vars(module).items() if callable(value)}
    if function_name not in callables:
        public = [name for name in callables if not name.startswith("_")]
        raise UnknownName(f"function of {module_name} named", function_name, public)
    return callables[function_name]


__all__ = ["MODELS", "AslpResNet50", "SmallUNet", "build_model", "load_imagenet", "load_official"]
