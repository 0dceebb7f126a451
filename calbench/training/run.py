"""A training run between two steps: everything that changes, how a step changes it, and how it is kept."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from calbench.errors import DivergedError, FormatError, InputError, OptionError, listing, plural
from calbench.io.files import write_text
from calbench.losses import mixup, one_hot
from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import Pixels
from calbench.progress import Advance
from calbench.training.checkpoint import Checkpoint, load_checkpoint, load_weights, save_checkpoint, trained_network
from calbench.training.config import TrainingConfig
from calbench.training.data import Batch, Damaged
from calbench.training.distributed import World
from calbench.training.draws import generator, key
from calbench.training.image_sets import ImageSet
from calbench.training.images_table import ImageTable
from calbench.training.inference import autocast, checked_logits
from calbench.training.methods import BEST, Recipe, method_named
from calbench.training.models import build_model
from calbench.training.validation import Validation, validate

LAST, BEST_FILE, METRICS, ALPHAS = "last.pt", "best.pt", "metrics.csv", "alphas.csv"
MAY_CHANGE = {"channels_last", "skip_damaged"}
"""What a resumed run may change of a configuration: how numbers lie in memory, and what ends a run."""
SAVE_SECONDS = 600.0
"""An interrupted run loses no more than this."""
GPU_STEPS = 20
"""Steps between two looks at a GPU's results, each of which makes the CPU wait for it."""
HISTORY = (
    "epoch", "lr", "loss", "accuracy", "validation_accuracy", "validation_ece", "validation_nll", "alpha_mean", "alpha_max",
    "images_per_second", "seconds",
)  # fmt: skip
"""Columns of metrics.csv."""


@dataclass(eq=False)
class Run:
    """A run between two steps: everything that changes, and how."""

    config: TrainingConfig
    data: dict[str, Any]
    folder: Path
    world: World
    announce: Callable[[str], None]
    recipe: Recipe
    network: nn.Module
    forward: nn.Module
    exchange: DistributedDataParallel | None
    optimizer: torch.optim.Optimizer
    table: ImageTable
    reference: float | None
    sums: Tensor
    epoch: int = 1
    step: int = 0
    seconds: float = 0.0
    note: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    clock: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)

    @classmethod
    def started(
        cls,
        config: TrainingConfig,
        images: ImageSet,
        validation: ImageSet,
        folder: Path,
        world: World,
        announce: Callable[[str], None],
        *,
        resuming: bool = False,
    ) -> Run:
        """A run before its first step.

        Args:
            resuming: whether a checkpoint is restored next, so that weights to start from and mei's reference are not needed.
        Raises:
            OptionError: a network without weights to train, or parts of one image, which mixup has nothing to mix with.
        """
        official = config.profile == "aslp"
        recipe = method_named(config.method).build(config.options, classes=config.classes, official=official)
        for note in recipe.notes if world.is_main else ():
            announce(note)
        network = build_model(
            config.model, seed=key(config.seed, "weights"), classes=config.classes, **config.model_options
        )
        if not any(weight.requires_grad for weight in network.parameters()):
            raise OptionError(f"model {config.model!r} has no weights to train; expected some that require a gradient")
        if recipe.mixup is not None and config.batch < 2 * config.accumulate * world.size:
            raise OptionError(
                f"mixup mixes the images of a part, but --batch {config.batch} leaves some alone in {config.accumulate} "
                f"parts of {world.size} processes; take a larger batch, or fewer parts"
            )
        if config.weights is not None and not resuming:
            load_weights(network, config.weights)
        network.to(world.device)
        if config.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if world.size > 1 and world.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        exchange = None
        if world.size > 1:
            exchange = DistributedDataParallel(network, [world.device] if world.device.type == "cuda" else None)
        forward = exchange or network
        if config.compile:
            forward = torch.compile(forward)  # type: ignore[assignment]
        optimizer = torch.optim.Adam(network.parameters(), config.lr, fused=world.device.type == "cuda")
        alpha = 0.0 if recipe.perturbation is None or recipe.rule else recipe.perturbation.alpha
        table = ImageTable.empty(images.names, world.device, alpha)
        data = identity(images, validation)
        reference = None if resuming else _reference(recipe, config, validation, world)
        sums = torch.zeros(4, dtype=torch.float64, device=world.device)
        return cls(
            config, data, folder, world, announce, recipe, network, forward, exchange, optimizer, table, reference, sums
        )

    def begin(self, epoch: int) -> None:
        """Set the learning rate of an epoch."""
        self.epoch = epoch
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(epoch)
        self.forward.train()
        self.clock = time.perf_counter()

    def take(self, parts: list[Batch]) -> None:
        """One step of the optimiser on the images of all parts of all processes: the mean over their valid pixels."""
        for part in parts:
            self._refuse_damaged(part.damaged)
        self.step += 1
        n_valid = [_n_valid(part) for part in parts]
        total = self._total(float(sum(n_valid)))
        if not total:
            return  # Adam would move on by its momentum
        self.optimizer.zero_grad(set_to_none=True)
        for number, (part, n) in enumerate(zip(parts, n_valid, strict=True)):
            with self._in_step(last=number == len(parts) - 1):
                loss = self._loss(part.to(self.world.device, channels_last=self.config.channels_last))
                # averaged over processes by their gradients, hence the size
                (loss * (n * self.world.size / total)).backward()  # type: ignore[no-untyped-call]
            self.sums[0] += loss.detach().double() * n
            self.sums[2] += n
        self.optimizer.step()

    def _loss(self, part: Batch) -> Tensor:
        """The loss of one part; α of its images moves on the way."""
        if not part.names:  # it takes part in the exchange of gradients, and has none
            return self.forward(part.images).float().sum() * 0
        seed, recipe = self.config.seed, self.recipe
        drawn = (seed, self.epoch, *part.names)
        images, labels, valid = part.images, part.target, part.valid
        alpha = self.table.alpha[part.index]
        if recipe.perturbation is not None:
            draws = [generator(seed, self.epoch, name, "perturbation") for name in part.names]
            labels = recipe.perturbation(labels, alpha, valid=valid, generator=draws)
        if recipe.mixup is not None:
            soft = labels if labels.ndim == 4 else one_hot(labels, self.config.classes)
            images, labels, valid, _ = mixup(images, soft, recipe.mixup, generator(*drawn, "mixup"), valid)
        torch.manual_seed(key(*drawn, "network"))  # dropout, where a network has it
        with autocast(self.world.device, self.config.precision):
            logits = self.forward(images)
        logits = checked_logits(logits, images, self.config.classes).float()
        loss: Tensor = recipe.loss(logits, labels, valid, generator=generator(*drawn, "pixels"))
        if recipe.mixup is None:
            self._visit(part, alpha, logits.detach())
        return loss

    @torch.no_grad()
    def _visit(self, part: Batch, alpha: Tensor, logits: Tensor) -> None:
        """Take down how the images of a part fared against their own labels, and move their α."""
        pixels = Pixels.of(logits, part.target, part.valid)
        nll = pixels.mean_by_image(cross_entropy(pixels))
        # max: argmax over few channels is ten times slower on a CPU
        labels = pixels.target if pixels.target.ndim == 3 else pixels.target.max(1).indices
        right = pixels.logits.max(1).indices == labels
        accuracy = pixels.mean_by_image(right.to(nll.dtype))
        rule, perturbation = self.recipe.rule, self.recipe.perturbation
        if rule is not None and perturbation is not None and self.epoch > rule.start:
            slope = rule.slope(perturbation, logits, part.target, part.valid)
            alpha = rule.updated(alpha, slope, accuracy=self._accuracy, reference=self._reference_accuracy)
        if part.valid is None:
            n_valid = torch.full_like(nll, logits[0, 0].numel())
        else:
            n_valid = part.valid.sum((-2, -1)).to(nll)
            nll, accuracy = (torch.where(n_valid > 0, value, math.nan) for value in (nll, accuracy))
            alpha = torch.where(n_valid > 0, alpha, self.table.alpha[part.index])
        self.sums[1] += (accuracy.nan_to_num().double() * n_valid).sum()
        self.sums[3] += len(part)
        self.table.record(part.index, alpha, nll.to(alpha), accuracy.to(alpha))

    @property
    def _accuracy(self) -> float:
        return self.history[-1]["validation_accuracy"]

    @property
    def _reference_accuracy(self) -> float:
        """What mei holds accuracy against: a frozen model's, or the best before the last validation."""
        if self.reference is not None:
            return self.reference
        return max((row["validation_accuracy"] for row in self.history[:-1]), default=self._accuracy)

    def look(self, step: int, steps: int, advance: Advance) -> bool:
        """Look at the results where that costs nothing, or now and then; whether it was done.

        Raises:
            DivergedError: the loss is no number any more.
        """
        if self.world.device.type != "cpu" and (step + 1) % GPU_STEPS and step + 1 < steps:
            advance(self.note)
            return False
        loss, _, pixels, _ = self.sums.tolist()
        if not math.isfinite(loss):
            raise DivergedError(self._diverged(f"the loss is {loss}"))
        parts = [f"epoch {self.epoch} of {self.config.epochs}", f"loss {loss / max(pixels, 1):.4f}"]
        if self.history:
            row = self.history[-1]
            parts += [f"accuracy {row['validation_accuracy']:.4f}", f"ECE {row['validation_ece']:.4f}"]
            parts += [f"{row['images_per_second']:.0f} images/s"]
        self.note = ", ".join(parts)
        advance(self.note)
        if self.agreed(time.perf_counter() - self.saved > SAVE_SECONDS):
            self.save()
        return True

    def agreed(self, wish: bool) -> bool:
        """Whether any process wishes it; all are told."""
        return self._total(float(wish)) > 0

    def _total(self, number: float) -> float:
        """The sum of a number over all processes."""
        if self.world.size == 1:
            return number
        return float(self.world.sum(torch.tensor(number, dtype=torch.float64)))

    def pause(self) -> None:
        """Stop the clock of an epoch, which is of training alone, and let all have the batch statistics of the first one."""
        self.seconds += time.perf_counter() - self.clock
        for buffer in self.network.buffers():
            self.world.take_first(buffer)

    def end(self, found: Validation) -> None:
        """Finish an epoch: its row of history, its files, its checkpoints."""
        self._gather()
        loss, right, pixels, visits = self.sums.tolist()
        alpha = self.table.alpha
        values = (
            self.epoch, self.config.rate(self.epoch), loss / max(pixels, 1), right / pixels if visits else math.nan,
            found.accuracy, found.ece, found.nll, *((float(alpha.mean()), float(alpha.max())) if self.recipe.rule else
            (math.nan, math.nan)), len(self.table.names) / self.seconds, self.seconds,
        )  # fmt: skip
        if not math.isfinite(found.nll):
            raise DivergedError(self._diverged(f"the validation loss is {found.nll}"))
        self.history.append(dict(zip(HISTORY, values, strict=True)))
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.sums.zero_()
        self.save()

    def save(self) -> None:
        """Write the checkpoints and tables; all processes call it, the first one writes."""
        self._gather()
        if not all(bool(w.isfinite().all()) for w in self.network.state_dict().values() if w.is_floating_point()):
            raise DivergedError(self._diverged("weights are no longer finite"))
        self.saved = time.perf_counter()
        if not self.world.is_main:
            return
        now = self.saved
        state = {
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds + (now - self.clock if self.step else 0.0),
            "sums": self.sums.cpu(),
            "images": self.table.state(),
            "history": self.history,
            "reference": self.reference,
        }
        held = Checkpoint(self.config, self.data, self.network.state_dict(), state)
        # last.pt is written last: whatever ends the process before it, the run is continued from before this epoch
        if self.step == 0 and self._is_best():
            save_checkpoint(held, self.folder / BEST_FILE)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HISTORY)
        for row in self.history:
            writer.writerow([int(row["epoch"]), *("" if math.isnan(row[name]) else row[name] for name in HISTORY[1:])])
        write_text(self.folder / METRICS, text.getvalue())
        if self.recipe.rule is not None:
            self.table.write(self.folder / ALPHAS)
        save_checkpoint(held, self.folder / LAST)

    def restore(self, held: Checkpoint) -> None:
        """Continue where a checkpoint stands.

        Raises:
            InputError: it is of another configuration, or of other images.
        """
        refuse_other_run(held, self.config, self.data, self.folder)
        state = held.state
        self.network.load_state_dict(held.model)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["fused"] = self.optimizer.defaults["fused"]  # of this device, not of the one that wrote it
        self.table.restore(state["images"])
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self.history, self.reference = list(state["history"]), state["reference"]
        if self.world.is_main:
            self.sums.copy_(state["sums"])

    def _gather(self) -> None:
        """Bring together what the processes know of their images; sums stay with the first one."""
        self.table.share(self.world)
        if self.world.size > 1:
            self.world.sum(self.sums)
            if not self.world.is_main:
                self.sums.zero_()

    def _is_best(self) -> bool:
        name = f"validation_{self.config.best_by}"
        *before, latest = [row[name] for row in self.history]
        if self.config.best_by == "accuracy":
            return latest > max(before, default=-math.inf)
        return latest < min(before, default=math.inf)

    def _in_step(self, *, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged once a step, with those of the last part."""
        return nullcontext() if self.exchange is None or last else self.exchange.no_sync()

    def _refuse_damaged(self, damaged: tuple[Damaged, ...]) -> None:
        for file in damaged:
            if not self.config.skip_damaged:
                raise FormatError(
                    f"training image {file.name!r}: {file.message}; --on-damaged skip leaves such images out"
                )
            if file.name not in self.damaged:
                self.announce(f"left out training image {file.name!r}: {file.message}")
            self.damaged[file.name] = file.message

    def _diverged(self, what: str) -> str:
        last = self.folder / LAST
        kept = f"{last} holds the last good state" if last.exists() else "no checkpoint had been written yet"
        remedy = f"start again with a lower learning rate: --lr {self.config.lr / 10:g} and --force, or another -o"
        return f"{what} in epoch {self.epoch} at step {self.step}; {kept}; {remedy}"


def refuse_other_run(held: Checkpoint, config: TrainingConfig, data: Mapping[str, Any], folder: Path) -> None:
    """Hold a checkpoint against what is to be resumed.

    Raises:
        InputError: it is of another configuration, or of other images.
    """
    earlier, wanted = held.config.as_dict(), config.as_dict()
    changed = [
        f"{name}: {earlier[name]} -> {wanted[name]}"
        for name in wanted
        if name not in MAY_CHANGE and earlier[name] != wanted[name]
    ]
    changed += [f"{name} images have changed" for name in data if data[name] != held.data.get(name)]
    if changed:
        raise InputError(
            f"cannot resume {folder}: {plural(len(changed), 'difference')}:\n{listing(changed)}\nrepeat the earlier options, "
            "choose another -o, or start afresh with --force"
        )


def identity(images: ImageSet, validation: ImageSet) -> dict[str, str]:
    """What tells the images of a run from others."""
    return {"training": images.digest, "validation": validation.digest}


def _n_valid(part: Batch) -> int:
    """Valid pixels of a part that is still on the CPU."""
    n_images, _, height, width = part.images.shape
    return n_images * height * width if part.valid is None else int(part.valid.sum())


def _reference(recipe: Recipe, config: TrainingConfig, validation: ImageSet, world: World) -> float | None:
    """The accuracy that mei holds its own against; None for its own best.

    Raises:
        FormatError: no checkpoint.
        OptionError: one of another number of classes.
    """
    if recipe.rule is None or recipe.rule.kind != "mei" or recipe.reference == BEST:
        return None
    if not isinstance(recipe.reference, str):
        return float(recipe.reference)
    held = load_checkpoint(recipe.reference)
    if held.config.classes != config.classes:
        raise OptionError(
            f"the reference {recipe.reference} has {plural(held.config.classes, 'channel')} of logits, this run "
            f"{config.classes}; take a checkpoint that was trained on the same masks"
        )
    return validate(trained_network(held).to(world.device), validation, held.config, world).accuracy
