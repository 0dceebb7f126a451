"""How fast training is, and in how much memory, against the same network in a plain fp32 eager loop.

    python benchmarks/train.py                                              the study's ResNet-50, 384 x 384; for a GPU
    python benchmarks/train.py --model small --size 96 --steps 20           under one minute on a CPU

Synthetic pictures of about 300 x 400 pixels are drawn once and written as JPEG, their masks as PNG, so that reading them is
real. Every contender trains from the same weights on the same batches of augmented pictures and perturbed labels (method
`slp`), an epoch that shows each picture once, one contender after another, with the same number of processes that read:

    recipe                calbench.training. On a GPU: bf16 autocast, channels-last, torch.compile, fused Adam, cuDNN's choice
                          of algorithms, copies from pinned memory. On a CPU, as on the command line: fp32, eager
    recipe without ...    what it owes to one of these
    plain loop            fp32 as torch ships it, whose convolutions may use TF32; eager, Adam as torch chooses, copies that
                          are waited for, and loss.item() at every step
    plain loop, TF32 off  the same in full fp32

The first step, which compiles, is timed apart. Images/s is the median over windows of steps after warming up, with the device
synchronised around each; memory is the peak of what torch allocated, beyond what was there before. The loss curves are
smoothed over 10 steps: the recipe's, less the plain loop's, should be smaller than what the plain loop differs by from itself
under another seed of the draws (order, augmentation, perturbation). Nothing here is a test.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_set import draw, smooth_noise
from PIL import Image
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from calbench.errors import plural
from calbench.losses import LabelPerturbation
from calbench.training.commands import GPU_WORKERS
from calbench.training.config import TrainingConfig
from calbench.training.data import Batch, TrainingItems, collate
from calbench.training.distributed import World, device_named
from calbench.training.draws import generator, key
from calbench.training.image_sets import ImageSet, image_set
from calbench.training.models import build_model
from calbench.training.order import Order
from calbench.training.run import Run

METHOD = "slp"
WINDOWS = 6
SMOOTH = 10
"""Steps that the loss is averaged over before curves are compared."""
SEED, OTHER_SEEDS = 0, (1, 2)
"""Of weights and draws; of the draws of the plain loop alone, for the noise."""

Step = Callable[[Batch], Tensor | float]
"""A step of the optimiser; its loss."""


@dataclass(frozen=True)
class Contender:
    """A way to train the network; `recipe`: settings of calbench, or None for the plain loop."""

    name: str
    recipe: Mapping[str, Any] | None = None
    tf32: bool = True


GPU_RECIPE = {"precision": "bf16", "channels_last": True, "compile": True}
PLAIN = Contender("plain loop")
CONTENDERS = {
    "cuda": (
        Contender("recipe", GPU_RECIPE),
        Contender("recipe without compile", GPU_RECIPE | {"compile": False}),
        Contender("recipe without bf16", GPU_RECIPE | {"precision": "fp32"}),
        Contender("recipe without channels-last", GPU_RECIPE | {"channels_last": False}),
        PLAIN,
        Contender("plain loop, TF32 off", tf32=False),
    ),
    "cpu": (Contender("recipe", {}), Contender("recipe, channels-last", {"channels_last": True}), PLAIN),
}


@dataclass(frozen=True)
class Setting:
    """What all contenders have in common."""

    config: TrainingConfig
    images: ImageSet
    device: torch.device
    workers: int
    warmup: int
    folder: Path


@dataclass(frozen=True, eq=False)
class Measured:
    """What one contender did: seconds of its first step, images/s of each window, peak bytes, loss of each step."""

    first: float
    rates: list[float]
    memory: float
    losses: np.ndarray

    @property
    def rate(self) -> float:
        return float(np.median(self.rates))

    def apart(self, other: Measured) -> float:
        """Mean |difference| of the smoothed losses."""
        kernel = np.ones(min(SMOOTH, len(self.losses))) / min(SMOOTH, len(self.losses))
        return float(np.abs(np.convolve(self.losses - other.losses, kernel, "valid")).mean())


# ---- the pictures ----------------------------------------------------------------------------------------------------


def write(folder: Path, n_images: int) -> ImageSet:
    """Pictures and masks: blobs of another colour than what is around them, under smooth noise."""
    for side in ("image", "gt"):
        (folder / side).mkdir()
    for number in range(n_images):
        _, mask = draw(number)
        rng = np.random.default_rng(number)
        noise = np.stack(
            [smooth_noise(rng, mask.shape, 30, 1) + smooth_noise(rng, mask.shape, 4, 1) for _ in range(3)], 2
        )
        picture = 128 + 30 * noise + np.where(mask[..., None], rng.uniform(-60, 60, 3), 0)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "image" / f"{number:05d}.jpg", quality=90)
        Image.fromarray(mask).save(folder / "gt" / f"{number:05d}.png")
    return image_set("synthetic", folder / "image", folder / "gt")


def batches(setting: Setting, seed: int, *, pinned: bool) -> Iterator[Batch]:
    """The batches of the first epoch."""
    config = setting.config
    items = TrainingItems(setting.images, config.size, seed, augment=True)
    order = Order(len(items), config.batch, accumulate=1, seed=seed)
    return iter(
        DataLoader(items, batch_sampler=order, collate_fn=collate, num_workers=setting.workers, pin_memory=pinned)
    )


# ---- the contenders --------------------------------------------------------------------------------------------------


def recipe(setting: Setting) -> Step:
    """As `calbench.training.train` does it."""
    config, images = setting.config, setting.images
    torch.backends.cudnn.benchmark = setting.device.type == "cuda"
    run = Run.started(config, images, images, setting.folder, World(setting.device), announce=print)
    run.begin(1)
    steps = len(images) // config.batch

    def step(batch: Batch) -> Tensor:
        loss, _, pixels, _ = run.sums.clone()
        run.take([batch])
        run.look(run.step - 1, steps, lambda _: None)
        return (run.sums[0] - loss) / (run.sums[2] - pixels)

    return step


def plain(setting: Setting, seed: int) -> Step:
    """As one writes it first; `seed`: of the perturbation."""
    config, device = setting.config, setting.device
    torch.backends.cudnn.benchmark = False
    network = build_model(config.model, seed=key(config.seed, "weights"), classes=1).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), config.lr)
    perturb = LabelPerturbation()

    def step(batch: Batch) -> float:
        draws = [generator(seed, 1, name, "perturbation") for name in batch.names]
        labels = perturb(batch.target.to(device), generator=draws)
        loss = binary_cross_entropy_with_logits(network(batch.images.to(device)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def measured(setting: Setting, contender: Contender, *, seed: int = SEED) -> Measured:
    """Train one contender for an epoch; `seed`: of the plain loop's draws."""
    on_gpu = setting.device.type == "cuda"
    torch.backends.cudnn.allow_tf32 = contender.tf32
    before = released(on_gpu)
    if contender.recipe is None:
        step = plain(setting, seed)
    else:
        step = recipe(replace(setting, config=replace(setting.config, **contender.recipe)))
    read = batches(setting, seed, pinned=on_gpu and contender.recipe is not None)
    read = itertools.chain([next(read)], read)  # the processes that read are up before the clock starts
    losses: list[Tensor | float] = []

    def seconds(n_steps: int) -> float:
        synchronise(on_gpu)
        start = time.perf_counter()
        losses.extend(step(batch) for batch in itertools.islice(read, n_steps))
        synchronise(on_gpu)
        return time.perf_counter() - start

    first = seconds(1)
    seconds(setting.warmup - 1)
    left = len(setting.images) // setting.config.batch - setting.warmup
    windows = [len(part) for part in np.array_split(np.arange(left), min(WINDOWS, left))]
    rates = [setting.config.batch * n_steps / seconds(n_steps) for n_steps in windows]
    memory = torch.cuda.max_memory_allocated() - before if on_gpu else float("nan")
    return Measured(first, rates, memory, np.array([float(loss) for loss in losses]))


def released(on_gpu: bool) -> int:
    """Bytes still allocated on the GPU when what the contender before left is given back."""
    torch.compiler.reset()
    gc.collect()
    if not on_gpu:
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def synchronise(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


def reading_rate(setting: Setting) -> float:
    """Images/s of reading alone."""
    start = time.perf_counter()
    n_images = sum(len(batch) for batch in batches(setting, SEED, pinned=False))
    return n_images / (time.perf_counter() - start)


# ---- the report ------------------------------------------------------------------------------------------------------


def header(setting: Setting) -> str:
    """Machine and settings, one line each."""
    config, on_gpu = setting.config, setting.device.type == "cuda"
    if on_gpu:
        where = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    else:
        where = f"{platform.system()} {platform.machine()}, {plural(torch.get_num_threads(), 'thread')}"
    lines = [
        f"Python {platform.python_version()}, torch {torch.__version__}; {where}; {os.cpu_count()} CPU cores, "
        f"load {os.getloadavg()[0]:.2f}",
        f"{config.model}, {config.size} x {config.size}, batch {config.batch}, {setting.workers} processes that read; "
        f"{setting.warmup} steps to warm up, {len(setting.images) // config.batch - setting.warmup} timed",
    ]
    if on_gpu:
        products = "on" if torch.backends.cuda.matmul.allow_tf32 else "off"
        lines.append(f"TF32: of convolutions on, unless said otherwise; of matrix products {products}")
    else:
        lines.append(
            "no GPU: all is fp32 and eager, without TF32; of the recipe, only its loop and its layout of memory differ"
        )
    return "\n".join(lines)


def table(found: Mapping[str, Measured]) -> str:
    """A line a contender."""
    base = found[PLAIN.name]
    lines = [
        "| contender | images/s | x plain loop | slowest … fastest window | peak memory, MiB | first step, s | loss apart |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, of in found.items():
        memory = "–" if np.isnan(of.memory) else f"{of.memory / 2**20:,.0f}"
        apart = "" if of is base else f"{of.apart(base):.1e}"
        lines.append(
            f"| {name} | {of.rate:.1f} | {of.rate / base.rate:.2f} | {min(of.rates):.1f} … {max(of.rates):.1f} | {memory} | "
            f"{of.first:.2f} | {apart} |"
        )
    return "\n".join(lines)


def verdict(ours: Measured, plains: list[Measured]) -> str:
    """Whether the recipe's curve is nearer to the plain loop's than that is to itself under other draws."""
    noise = [one.apart(other) for one, other in itertools.combinations(plains, 2)]
    apart = ours.apart(plains[0])
    return (
        f"loss curve inside noise: {'yes' if apart < min(noise) else 'no'} (recipe − plain loop {apart:.1e}; plain loop under "
        f"three seeds of the draws {', '.join(f'{each:.1e}' for each in sorted(noise))}; loss {plains[0].losses[0]:.3f} -> "
        f"{plains[0].losses[-SMOOTH:].mean():.3f})"
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--model", default="aslp-resnet50")
    parser.add_argument("--size", type=int, help="pixels; default: the network's")
    parser.add_argument("--batch", type=int, help="images a step; default: the network's")
    parser.add_argument("--steps", type=int, default=60, help="that are timed")
    parser.add_argument("--warmup", type=int, default=10, help="steps before, the first of which is timed apart")
    parser.add_argument("--workers", type=int, help=f"processes that read; default: {GPU_WORKERS} on a GPU, else 0")
    given = parser.parse_args()
    if min(given.steps, given.warmup) < 1:
        parser.error("--steps and --warmup are 1 or more")
    return given


def main() -> None:
    given = arguments()
    device = device_named(given.device)
    workers = GPU_WORKERS * (device.type == "cuda") if given.workers is None else given.workers
    config = TrainingConfig.of(given.model, {"method": METHOD, "seed": SEED, "size": given.size, "batch": given.batch})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = (
            f"{temporary}/compiled"  # or a second run would find the first one's work
        )
        folder = Path(temporary)
        images = write(folder, config.batch * (given.warmup + given.steps))
        setting = Setting(config, images, device, workers, given.warmup, folder)
        print(header(setting), flush=True)
        print(f"reading alone: {reading_rate(setting):.1f} images/s\n", flush=True)
        found = {contender.name: measured(setting, contender) for contender in CONTENDERS[device.type]}
        print(table(found), flush=True)
        noise = [found[PLAIN.name], *(measured(setting, PLAIN, seed=seed) for seed in OTHER_SEEDS)]
        print(f"\n{verdict(found['recipe'], noise)}\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
