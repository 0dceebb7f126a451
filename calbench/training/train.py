"""The training loop.

    calbench train-aslp --method aslp-mc --images data/image --masks data/gt -o runs
    torchrun --nproc-per-node 4 -m calbench train-aslp --method aslp-mc --images data/image --masks data/gt -o runs

A run is a folder: `last.pt` and `best.pt`, `metrics.csv` with a row an epoch, and, where α adapts, `alphas.csv` with a row an
image. How many processes made it changes the rounding of sums, and what is of a batch as a whole: see docs/training.md.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from calbench.errors import InputError, OptionError
from calbench.progress import progress_bar
from calbench.training.checkpoint import load_checkpoint
from calbench.training.config import TrainingConfig
from calbench.training.data import Batch, TrainingItems, collate, leave_interrupts, void_batch
from calbench.training.distributed import ALONE, World
from calbench.training.image_sets import ImageSet
from calbench.training.order import Order
from calbench.training.run import LAST, Run
from calbench.training.validation import validate


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        config: of the run.
        folder: with its files.
        history: a row an epoch, see `run.HISTORY`.
        network: with the weights of the last epoch.
    """

    config: TrainingConfig
    folder: Path
    history: tuple[dict[str, float], ...]
    network: nn.Module


def train(
    config: TrainingConfig,
    images: ImageSet,
    validation: ImageSet,
    folder: Path,
    *,
    world: World = ALONE,
    workers: int = 0,
    resume: bool = False,
    tensorboard: bool = False,
    progress: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> Trained:
    """Train a network, and leave its checkpoints in a folder.

    Args:
        config: what is computed.
        images: to train on.
        validation: to measure accuracy on, after each epoch.
        folder: of the run.
        world: the processes that train together.
        workers: processes that read pictures, for each of these.
        resume: continue from `last.pt`, if there is one; the result is that of a run that was never interrupted.
        tensorboard: write events beside metrics.csv, too.
        progress: whether to show it on stderr.
        announce: takes lines for people.
    Raises:
        InputError: the folder holds another run, or one that is to be resumed under another configuration or data.
        FormatError: a picture that cannot be read, unless the configuration skips it.
        DivergedError: loss or weights are no longer numbers; the last checkpoint is good.
        KeyboardInterrupt: Ctrl-C, or SIGTERM, after the step was finished and saved.
    """
    last = folder / LAST
    if last.exists() and not resume:
        raise InputError(f"{folder} already holds a run; continue it with --resume, replace it with --force")
    seeded = torch.random.fork_rng(devices=[world.device] if world.device.type == "cuda" else [])
    with seeded, _benchmarked(world.device), _stop_requests() as stop:
        run = Run.started(config, images, validation, folder, world, announce, resuming=last.exists())
        if last.exists():
            run.restore(load_checkpoint(last))
        order = Order(len(images), config.batch, config.accumulate, config.seed, world.rank, world.size)
        loader = _loader(TrainingItems(images, config.size, config.seed, augment=config.augment), order, workers, world)
        log = _tensorboard(folder, run.epoch) if tensorboard and world.is_main else None
        left = order.steps * (config.epochs - run.epoch + 1) - run.step
        with progress_bar(f"{config.method} seed {config.seed}", left, enabled=progress and world.is_main) as advance:
            for epoch in range(run.epoch, config.epochs + 1):
                run.begin(epoch)
                order.epoch, order.first = epoch, run.step
                for step, parts in _steps(loader, order, config):
                    run.take(parts)
                    if run.look(step, order.steps, advance) and run.agreed(stop.requested):
                        run.save()
                        if world.is_main:
                            announce(
                                f"{last} holds epoch {epoch}, step {run.step} of {order.steps}; continue with --resume"
                            )
                        raise KeyboardInterrupt
                run.pause()
                run.end(validate(run.network, validation, config, world, workers=workers))
                if log is not None:
                    for name, value in run.history[-1].items():
                        if not math.isnan(value):
                            log.add_scalar(name, value, epoch)
        if log is not None:
            log.close()
        if stop.requested:  # during the last validation: the run is complete, what comes after it is not wanted
            raise KeyboardInterrupt
    return Trained(config, folder, tuple(run.history), run.network)


def _steps(loader: DataLoader[Any], order: Order, config: TrainingConfig) -> Iterator[tuple[int, list[Batch]]]:
    """The steps of an epoch with the parts of this process; where it has none, one of void pixels."""
    parts = iter(loader)
    for step in range(order.first, order.steps):
        read = [next(parts) for _ in range(order.parts(step))]
        damaged = tuple(file for part in read for file in part.damaged)
        first, *others = [part for part in read if len(part)] or [void_batch(config.size, config.classes)]
        yield step, [replace(first, damaged=damaged), *(replace(part, damaged=()) for part in others)]


def _loader(items: TrainingItems, order: Order, workers: int, world: World) -> DataLoader[Any]:
    return DataLoader(
        items,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=world.device.type == "cuda",
        worker_init_fn=leave_interrupts,
    )


@dataclass
class _Stop:
    requested: bool = False


@contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """Turns Ctrl-C and SIGTERM into a wish to stop after the step."""
    stop = _Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(*_: Any) -> None:
        stop.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _benchmarked(device: torch.device) -> Iterator[None]:
    """Let cuDNN choose its fastest algorithms: all batches have one size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _tensorboard(folder: Path, epoch: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise OptionError("--tensorboard needs its package: pip install 'calbench[tensorboard]'") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=epoch)
