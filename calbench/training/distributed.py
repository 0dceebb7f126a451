"""The processes that train together: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from calbench.errors import OptionError


@dataclass(frozen=True)
class World:
    """The processes that train together, seen from one of them.

    Attributes:
        device: of this process.
        rank: its number, from 0.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def take_first(self, values: Tensor) -> None:
        """Overwrite a tensor with that of the first process."""
        if self.size > 1:
            dist.broadcast(values, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = World(torch.device("cpu"))
"""One process on the CPU."""


def in_first_process() -> bool:
    """Whether torchrun, if it started this process, started it as the first one: known before they have joined."""
    return os.environ.get("RANK", "0") == "0"


def device_named(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises:
        OptionError: a GPU is asked for, and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError(
            "the device is cuda, and torch finds no GPU; say --device cpu, or install a CUDA build of torch"
        )
    return torch.device("cuda", torch.cuda.current_device()) if name == "cuda" else torch.device(name)


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world of this process, joined where torchrun started it: NCCL between GPUs, gloo between CPUs.

    Raises:
        OptionError: a GPU is asked for, and there is none.
    """
    chosen = device_named(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    # numbers that the CPU waits for travel by gloo, past the work that a GPU has in hand
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        world = World(chosen, dist.get_rank(), size)
        yield world
        world.wait()  # a process that leaves early takes the meeting point of the others with it
    finally:
        dist.destroy_process_group()
