"""The trainer: exact resume, keyed draws, processes and parts, the loop and the validation by hand, and what goes wrong."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from calbench.errors import DivergedError, FormatError, InputError, OptionError
from calbench.training import run as run_module
from calbench.training.checkpoint import Checkpoint, load_checkpoint, trained_network
from calbench.training.config import TrainingConfig
from calbench.training.distributed import World
from calbench.training.draws import key
from calbench.training.image_sets import ImageSet, image_set
from calbench.training.models import build_model
from calbench.training.run import Run
from calbench.training.train import Trained, train
from calbench.training.validation import Validation, validate

H, W, SIZE = 40, 56, 32
VOID = 128
"""Mask byte of void pixels, where a test says that there are any."""
TIMES = ("images_per_second", "seconds")
"""Columns of metrics.csv that no two runs share."""
MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


# --- images to train on, and runs ---------------------------------------------------------------------------------------


def draw(number: int, *, void: bool = False, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A bright disk on noise with its mask; with void pixels that differ from image to image, all of them in one of 7.

    Of several classes: 0, and a disk of a class that is also its colour; void pixels are 255.
    """
    draws = np.random.default_rng(number)
    row, column, radius = draws.integers(12, H - 12), draws.integers(14, W - 14), draws.integers(7, 13)
    y, x = np.mgrid[:H, :W]
    inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
    picture = draws.integers(0, 120, (H, W, 3))
    shown = 1 + number % (classes - 1) if classes > 1 else 1
    picture[inside, :: shown if classes > 1 else 1] += 110
    mask = np.where(inside, 255 if classes == 1 else shown, 0).astype(np.uint8)
    if void:
        mask[:, : (W if number % 7 == 3 else 5 * (number % 5))] = VOID if classes == 1 else 255
    return picture.astype(np.uint8), mask


def write_set(folder: Path, numbers: Any, **kinds: Any) -> tuple[Path, Path]:
    """Folders of pictures and masks."""
    images, masks = folder / "image", folder / "gt"
    for path in (images, masks):
        path.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture, mask = draw(number, **kinds)
        Image.fromarray(picture).save(images / f"im{number:02}.jpg", quality=95)
        Image.fromarray(mask).save(masks / f"im{number:02}.png")
    return images, masks


def halves(images: ImageSet, n_training: int) -> tuple[ImageSet, ImageSet]:
    return images.select(images.names[:n_training], "training"), images.select(images.names[n_training:], "validation")


Sets = tuple[ImageSet, ImageSet]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def toy(folder: Path) -> Sets:
    """9 images to train on, in steps of 4: the last step has 1; 4 to validate with."""
    return halves(image_set("toy", *write_set(folder / "toy", range(13))), 9)


@pytest.fixture(scope="module")
def holed(folder: Path) -> Sets:
    """The same with void pixels."""
    return halves(image_set("holed", *write_set(folder / "holed", range(13), void=True), void_values=(VOID,)), 9)


def config(method: str = "bce", **given: Any) -> TrainingConfig:
    return TrainingConfig(**{"method": method, "size": SIZE, "epochs": 3, "batch": 4, "lr": 2e-3, **given})


ADAPTING = {"start": 1, "eta": 0.05}
"""Options under which α moves enough in three epochs to perturb some of nine images."""


def contents(run: Path) -> dict[str, Any]:
    """All that a run left, apart from the times."""
    found: dict[str, Any] = {}
    for name in ("last.pt", "best.pt"):
        found[name] = torch.load(run / name, weights_only=True)
        del found[name]["state"]["seconds"]
        for row in found[name]["state"]["history"]:
            for column in TIMES:
                del row[column]
    found["metrics.csv"] = [
        {name: value for name, value in row.items() if name not in TIMES} for row in rows(run, "metrics.csv")
    ]
    found["alphas.csv"] = rows(run, "alphas.csv") if (run / "alphas.csv").exists() else []
    return found


def rows(run: Path, file: str) -> list[dict[str, str]]:
    with (run / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two values are not the same to the last bit; NaN is the same as NaN."""
    if type(one) is not type(other):
        return [f"{where}: {type(one)} and {type(other)}"]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [found for name in one for found in differences(one[name], other[name], f"{where}/{name}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)} values"]
        return [found for i in range(len(one)) for found in differences(one[i], other[i], f"{where}/{i}")]
    if isinstance(one, Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return [f"{where}: {one.dtype} {tuple(one.shape)} and {other.dtype} {tuple(other.shape)}"]
        same = torch.equal(one.nan_to_num(-7), other.nan_to_num(-7)) if one.is_floating_point() else one.equal(other)
    else:
        same = one == other or (one != one and other != other)
    return [] if same else [f"{where}: {one} and {other}"]


def assert_same_run(one: Path, other: Path) -> None:
    assert differences(contents(one), contents(other)) == []


def weights_apart(one: Path, other: Path) -> float:
    """The largest difference of two weights."""
    first, second = (load_checkpoint(run / "last.pt").model for run in (one, other))
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def alphas_of(run: Path) -> np.ndarray:
    return np.array([float(row["alpha"]) for row in rows(run, "alphas.csv")])


class Plain(nn.Module):
    """A network of one's own. Each of its weights has a gradient far above the rounding, which Adam would blow up."""

    dropout = 0.0

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2), nn.Tanh(), nn.Dropout(self.dropout), nn.Conv2d(8, classes, 5, padding=2)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


class Dropping(Plain):
    """With dropout, whose masks are different at every step."""

    dropout = 0.5


# --- interrupted runs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A way to train that has a state, or draws, of its own."""

    config: TrainingConfig
    holed: bool = False


CASES = {
    "aslp-mc": Case(config("aslp-mc", options=ADAPTING), holed=True),
    "slp-dm": Case(config("slp", options={"kind": "dm", "alpha": 0.5})),
    "mixup": Case(config("mixup")),
    "mmce": Case(config("mmce", options={"sample": 64})),
    "dropout": Case(config("aslp-mei", options=ADAPTING, model="test_train:Dropping")),
    "accumulate": Case(config("aslp-mc", options=ADAPTING, accumulate=2, schedule="step", decay=0.5, decay_epochs=1)),
}


@pytest.fixture(scope="module")
def whole_run(folder: Path, toy: Sets, holed: Sets) -> Callable[[str], Path]:
    """The folder of a run that nothing interrupted, by the name of its case; trained once."""

    def trained(name: str) -> Path:
        where = folder / "whole" / name
        if not where.exists():
            case = CASES[name]
            train(case.config, *(holed if case.holed else toy), where)
        return where

    return trained


def signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal when that many steps are done."""
    take, done = Run.take, 0

    def counted(run: Run, parts: Any) -> None:
        nonlocal done
        take(run, parts)
        done += 1
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Run, "take", counted)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", CASES)
def test_a_run_interrupted_in_an_epoch_and_resumed_is_the_uninterrupted_one(
    name: str,
    workers: int,
    whole_run: Callable[[str], Path],
    toy: Sets,
    holed: Sets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, run, lines = CASES[name], tmp_path / "run", []
    sets = holed if case.holed else toy
    with monkeypatch.context() as patch:
        signal_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            train(case.config, *sets, run, workers=workers, announce=lines.append)
    assert lines[-1] == f"{run / 'last.pt'} holds epoch 2, step 2 of 3; continue with --resume"
    held = load_checkpoint(run / "last.pt").state
    assert (held["epoch"], held["step"], len(held["history"])) == (2, 2, 1)
    train(case.config, *sets, run, workers=workers, resume=True)
    assert_same_run(run, whole_run(name))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 3, 9])
def test_any_step_can_be_the_last_before_a_signal(
    step: int,
    number: int,
    whole_run: Callable[[str], Path],
    holed: Sets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        signal_at(patch, step, number)
        with pytest.raises(KeyboardInterrupt):
            train(CASES["aslp-mc"].config, *holed, tmp_path)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    held = load_checkpoint(tmp_path / "last.pt").state
    assert (held["epoch"], held["step"]) == ((step - 1) // 3 + 1, (step - 1) % 3 + 1)
    train(CASES["aslp-mc"].config, *holed, tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run("aslp-mc"))


def test_a_run_that_died_between_epochs_goes_on_after_the_last_one(
    whole_run: Callable[[str], Path], holed: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Run.begin

    def dying(run: Run, epoch: int) -> None:
        if epoch == 2:
            raise RuntimeError("killed")
        begin(run, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "begin", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(CASES["aslp-mc"].config, *holed, tmp_path)
    assert load_checkpoint(tmp_path / "last.pt").state["epoch"] == 2
    finished = train(CASES["aslp-mc"].config, *holed, tmp_path, resume=True)
    assert [row["epoch"] for row in finished.history] == [1, 2, 3]
    assert_same_run(tmp_path, whole_run("aslp-mc"))


def test_a_run_that_died_between_two_files_makes_all_of_them_again(
    whole_run: Callable[[str], Path], holed: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = run_module.save_checkpoint

    def dying(held: Checkpoint, path: Path) -> None:
        if path.name == "last.pt" and held.state["epoch"] == 3:
            raise RuntimeError("killed")
        save(held, path)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_checkpoint", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(CASES["aslp-mc"].config, *holed, tmp_path)
    assert len(rows(tmp_path, "metrics.csv")) == 2, "or nothing was written before last.pt"
    assert load_checkpoint(tmp_path / "last.pt").state["epoch"] == 2
    train(CASES["aslp-mc"].config, *holed, tmp_path, resume=True)
    assert_same_run(tmp_path, whole_run("aslp-mc"))


def test_events_for_tensorboard_are_the_rows_of_the_history(toy: Sets, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(config(epochs=2), *toy, tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    told = {name for name, value in run.history[0].items() if not math.isnan(value)}
    assert set(events.Tags()["scalars"]) == told
    assert "alpha_mean" not in told
    for name in told:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in run.history]


def test_a_resumed_run_needs_no_weights_to_start_from(toy: Sets, tmp_path: Path) -> None:
    train(config(epochs=1), *toy, tmp_path / "first")
    start = tmp_path / "start.pt"
    shutil.copyfile(tmp_path / "first" / "last.pt", start)
    given = config(epochs=1, weights=str(start))
    train(given, *toy, tmp_path / "run")
    start.unlink()
    assert len(train(given, *toy, tmp_path / "run", resume=True).history) == 1


def test_a_signal_during_validation_is_heeded(
    whole_run: Callable[[str], Path], holed: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = Run.end
    for epoch, left in ((1, (2, 1)), (3, (4, 0))):  # after the next step; after the last epoch, at once
        run = tmp_path / str(epoch)

        def ending(self: Run, found: Validation, epoch: int = epoch) -> None:
            if self.epoch == epoch:
                os.kill(os.getpid(), signal.SIGINT)
            end(self, found)

        with monkeypatch.context() as patch:
            patch.setattr(Run, "end", ending)
            with pytest.raises(KeyboardInterrupt):
                train(CASES["aslp-mc"].config, *holed, run)
        held = load_checkpoint(run / "last.pt").state
        assert (held["epoch"], held["step"]) == left
        train(CASES["aslp-mc"].config, *holed, run, resume=True)
        assert_same_run(run, whole_run("aslp-mc"))


def test_a_finished_run_stays_byte_for_byte_when_it_is_resumed(toy: Sets, tmp_path: Path) -> None:
    first = train(config(epochs=1), *toy, tmp_path)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    again = train(config(epochs=1), *toy, tmp_path, resume=True)
    assert before == {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    assert sorted(before) == ["best.pt", "last.pt", "metrics.csv"]
    assert differences(again.history, first.history) == []
    weights = again.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.network.state_dict().items())


def test_a_run_is_neither_replaced_nor_resumed_as_another_one(toy: Sets, tmp_path: Path) -> None:
    train(config(epochs=1), *toy, tmp_path)
    with pytest.raises(InputError, match=r"already holds a run; continue it with --resume, replace it with --force"):
        train(config(epochs=1), *toy, tmp_path)
    with pytest.raises(InputError, match=r"(?s)2 differences.*epochs: 1 -> 2.*lr: 0\.002 -> 0\.1.*start afresh"):
        train(config(epochs=2, lr=0.1), *toy, tmp_path, resume=True)
    fewer = toy[0].select(toy[0].names[:-1], "fewer")
    with pytest.raises(InputError, match="1 difference:\n  training images have changed"):
        train(config(epochs=1), fewer, toy[1], tmp_path, resume=True)


# --- draws --------------------------------------------------------------------------------------------------------------


def test_neither_workers_nor_the_order_of_files_change_a_run(
    whole_run: Callable[[str], Path], folder: Path, tmp_path: Path
) -> None:
    again = image_set("again", *write_set(tmp_path / "again", reversed(range(13)), void=True), void_values=(VOID,))
    assert (tmp_path / "again/image/im03.jpg").read_bytes() == (folder / "holed/image/im03.jpg").read_bytes()
    state = torch.random.get_rng_state()
    torch.rand(7)  # what was drawn before does not matter
    train(CASES["aslp-mc"].config, *halves(again, 9), tmp_path / "run", workers=2)
    assert_same_run(tmp_path / "run", whole_run("aslp-mc"))
    torch.random.set_rng_state(state)


def test_a_run_leaves_the_random_state_of_its_caller_alone(toy: Sets, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    train(config("aslp-mc", epochs=1), *toy, tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_seed_is_another_run(toy: Sets, tmp_path: Path) -> None:
    found = [train(config(epochs=1, seed=seed), *toy, tmp_path / str(seed)).history[0]["loss"] for seed in (0, 1)]
    assert abs(found[0] - found[1]) > 1e-3


@pytest.mark.parametrize("method", ["bce", "aslp-mc"])
def test_parts_of_a_step_are_the_step(method: str, holed: Sets, tmp_path: Path) -> None:
    options = ADAPTING if method == "aslp-mc" else {}
    runs = {}
    for parts in (1, 2, 3):
        given = config(method, options=options, epochs=2, accumulate=parts, model="test_train:Plain")
        runs[parts] = train(given, *holed, tmp_path / str(parts))
    for parts in (2, 3):
        assert weights_apart(tmp_path / "1", tmp_path / str(parts)) < 1e-6
        for one, other in zip(runs[1].history, runs[parts].history, strict=True):
            for column in one.keys() - set(TIMES):
                assert other[column] == pytest.approx(one[column], abs=1e-6, nan_ok=True)
        if method == "aslp-mc":
            np.testing.assert_allclose(alphas_of(tmp_path / str(parts)), alphas_of(tmp_path / "1"), atol=1e-6)
    moved = load_checkpoint(tmp_path / "1" / "last.pt").model
    start = build_model("test_train:Plain", seed=key(0, "weights"), classes=1).state_dict()
    assert max(float((moved[name] - start[name]).abs().max()) for name in start) > 1e-3
    if method == "aslp-mc":
        assert alphas_of(tmp_path / "1").max() > 1e-3


# --- the loop, by hand --------------------------------------------------------------------------------------------------


def network_input(path: Path) -> Tensor:
    """`(1, 3, SIZE, SIZE)`."""
    pixels = np.asarray(Image.open(path).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) / 255
    return torch.from_numpy(((pixels - MEAN) / SPREAD).transpose(2, 0, 1)[None]).float()


def logits_by_hand(network: nn.Module, path: Path) -> Tensor:
    """`(C, H, W)` float32, at the size of the picture."""
    with torch.no_grad():
        return F.interpolate(network.eval()(network_input(path)), (H, W), mode="bilinear", align_corners=False)[0]


def transcribed(
    sets: Sets, given: TrainingConfig, reference: float | None
) -> tuple[list[dict[str, float]], dict[str, float]]:
    """Training without augmentation in plain PyTorch: history and α, of binary masks without void pixels."""
    train_on, b = sets[0].examples, 1.0
    network = build_model("test_train:Plain", seed=key(given.seed, "weights"), classes=1)
    adam = torch.optim.Adam(network.parameters(), given.lr)
    eta, start = given.options.get("eta", 0.0), given.options.get("start", 99)
    alpha = {example.name: 0.0 for example in train_on}
    history: list[dict[str, float]] = []
    for epoch in range(1, given.epochs + 1):
        order = np.random.default_rng(key(given.seed, epoch, "order")).permutation(len(train_on))
        losses, right, perturbed, held_back = [], [], 0, 0
        network.train()
        for first in range(0, len(order), given.batch):
            some = [train_on[i] for i in order[first : first + given.batch]]
            x = torch.cat([network_input(example.image) for example in some])
            masks = [Image.open(example.mask).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for example in some]
            y = torch.stack([torch.from_numpy(np.array(mask)[None] / 255) for mask in masks]).float()
            labels = y.clone()
            for i, example in enumerate(some):
                draws = torch.Generator().manual_seed(key(given.seed, epoch, example.name, "perturbation"))
                if float(torch.rand(1, generator=draws)) < alpha[example.name]:
                    labels[i], perturbed = 1 - y[i], perturbed + 1
            z = network(x)
            each = F.binary_cross_entropy_with_logits(z, labels, reduction="none").mean((1, 2, 3))
            adam.zero_grad()
            each.mean().backward()
            adam.step()
            losses += each.tolist()
            right += ((z > 0) == (y > 0.5)).float().mean((1, 2, 3)).tolist()
            if epoch > start:
                now = history[-1]["validation_accuracy"]
                best = max([row["validation_accuracy"] for row in history[:-1]] or [now])
                for example, g in zip(some, ((2 * y - 1) * z).mean((1, 2, 3)).tolist(), strict=True):
                    a = alpha[example.name]
                    r = (
                        (1 - now) - b * a
                        if given.method == "aslp-mc"
                        else now - (best if reference is None else reference)
                    )
                    held_back += r < 0
                    alpha[example.name] = min(max(a + eta * (b * g + min(r, 0) / (eta * b)), 0), 0.5)
        found = [
            (logits_by_hand(network, example.image)[0] >= 0).numpy() == (np.asarray(Image.open(example.mask)) > 128)
            for example in sets[1].examples
        ]
        history.append({
            "loss": float(np.mean(losses)), "accuracy": float(np.mean(right)), "validation_accuracy": float(np.mean(found)),
            "alpha_mean": float(np.mean(list(alpha.values()))), "alpha_max": max(alpha.values()), "perturbed": perturbed,
            "held_back": held_back,
        })  # fmt: skip
    return history, alpha


@pytest.mark.parametrize(
    ("method", "reference"),
    [("bce", None), ("aslp-mc", None), ("aslp-mei", None), ("aslp-mei", 0.985)],
    ids=["bce", "mc", "mei-best", "mei-0.985"],
)
def test_the_loop_is_the_algorithm_in_plain_pytorch(
    method: str, reference: float | None, toy: Sets, tmp_path: Path
) -> None:
    options: dict[str, Any] = {} if method == "bce" else {"start": 1, "eta": 0.03}
    if reference is not None:
        options["reference"] = reference
    epochs = 2 if method == "bce" else 4
    given = config(method, options=options, epochs=epochs, lr=0.01, augment=False, model="test_train:Plain")
    found = train(given, *toy, tmp_path).history
    expected, alpha = transcribed(toy, given, reference)
    columns = ["loss", "accuracy", "validation_accuracy"] + ["alpha_mean", "alpha_max"] * (method != "bce")
    for row, wanted in zip(found, expected, strict=True):
        assert [row[name] for name in columns] == pytest.approx([wanted[name] for name in columns], abs=1e-6)
    if method == "bce":
        assert all(math.isnan(row["alpha_mean"]) for row in found)
        assert not (tmp_path / "alphas.csv").exists()
    else:
        np.testing.assert_allclose(alphas_of(tmp_path), [alpha[name] for name in toy[0].names], atol=1e-6)
        assert expected[-1]["perturbed"] > 0, "or the draws are not looked at"
        assert sum(row["held_back"] for row in expected) > 0, "or the constraint is not looked at"


# --- α ------------------------------------------------------------------------------------------------------------------


def test_alpha_moves_after_start_and_its_columns_say_so(toy: Sets, tmp_path: Path) -> None:
    given = config("aslp-mc", options={"start": 2, "eta": 0.05}, augment=False)
    run = train(given, *toy, tmp_path)
    assert [(row["alpha_mean"], row["alpha_max"]) for row in run.history[:2]] == [(0, 0), (0, 0)]
    alphas, table = alphas_of(tmp_path), rows(tmp_path, "alphas.csv")
    assert len(set(alphas)) > 2
    assert run.history[2]["alpha_mean"] == pytest.approx(alphas.mean(), rel=1e-6)
    assert run.history[2]["alpha_max"] == pytest.approx(alphas.max(), rel=1e-6)
    assert [row["name"] for row in table] == list(toy[0].names)
    assert {row["visits"] for row in table} == {"3"}
    assert rows(tmp_path, "metrics.csv")[0]["alpha_mean"] == "0.0"

    one = config("aslp-mc", options={"start": 2}, epochs=1, batch=9, augment=False)
    train(one, *toy, tmp_path / "one")  # a single step: its numbers are those of the initial weights
    network = build_model("small", seed=key(0, "weights"), classes=1)
    for row, example in zip(rows(tmp_path / "one", "alphas.csv"), toy[0].examples, strict=True):
        with torch.no_grad():
            z = network(network_input(example.image))[0, 0]
        y = torch.from_numpy(np.array(Image.open(example.mask).resize((SIZE, SIZE), Image.Resampling.BILINEAR)) / 255)
        assert float(row["loss"]) == pytest.approx(float(F.binary_cross_entropy_with_logits(z.double(), y)), abs=1e-6)
        assert float(row["accuracy"]) == pytest.approx(float(((z > 0) == (y > 0.5)).double().mean()), abs=1e-6)


def test_mei_holds_accuracy_against_a_checkpoint_measured_on_the_same_images(toy: Sets, tmp_path: Path) -> None:
    baseline = train(config(epochs=1), *toy, tmp_path / "baseline")
    options = {**ADAPTING, "reference": str(tmp_path / "baseline" / "last.pt")}
    train(config("aslp-mei", options=options, epochs=2), *toy, tmp_path / "mei")
    accuracy = baseline.history[0]["validation_accuracy"]
    assert load_checkpoint(tmp_path / "mei" / "last.pt").state["reference"] == accuracy
    number = {**ADAPTING, "reference": accuracy}
    train(config("aslp-mei", options=number, epochs=2), *toy, tmp_path / "number")
    np.testing.assert_array_equal(alphas_of(tmp_path / "mei"), alphas_of(tmp_path / "number"))
    for odd in (90, "absent.pt"):
        with pytest.raises(OptionError, match=rf"reference is '?{odd}'?; expected .*an accuracy in \[0, 1\]"):
            train(config("aslp-mei", options={"reference": odd}), *toy, tmp_path / "x")
    other = str(tmp_path / "mei" / "metrics.csv")
    with pytest.raises(FormatError, match=r"metrics\.csv"):
        train(config("aslp-mei", options={"reference": other}), *toy, tmp_path / "x")


@pytest.mark.parametrize("best_by", ["nll", "accuracy", "ece"])
@pytest.mark.parametrize("inverted", [False, True])
def test_best_is_the_epoch_of_the_best_validation_number(
    best_by: str, inverted: bool, toy: Sets, folder: Path, tmp_path: Path
) -> None:
    validation = toy[1]
    if inverted:  # the better the network, the worse it is on these: no epoch but an early one is best
        masks = tmp_path / "inverted"
        masks.mkdir()
        for example in validation.examples:
            Image.fromarray(255 - np.asarray(Image.open(example.mask))).save(masks / example.mask.name)
        examples = tuple(replace(example, mask=masks / example.mask.name) for example in validation.examples)
        validation = replace(validation, examples=examples)
    given = config(best_by=best_by, epochs=4, lr=5e-3)
    run = train(given, toy[0], validation, tmp_path / "run")
    values = [row[f"validation_{best_by}"] * (-1 if best_by == "accuracy" else 1) for row in run.history]
    best = 1 + int(np.argmin(values))
    held = load_checkpoint(tmp_path / "run" / "best.pt")
    assert (held.state["epoch"], held.state["step"]) == (best + 1, 0)
    found = validate(trained_network(held), validation, given)
    assert found.nll == pytest.approx(run.history[best - 1]["validation_nll"], abs=1e-9)
    assert len(set(values)) == 4
    assert not inverted or best < 4


# --- validation ---------------------------------------------------------------------------------------------------------


def sharpened(classes: int) -> nn.Module:
    """A network with random weights that gives confident and unsure pixels."""
    network = build_model("small", seed=3, classes=classes)
    with torch.no_grad():
        network.head.weight.mul_(6 if classes == 1 else 2)
    return network


@pytest.mark.parametrize("classes", [1, 4])
def test_validation_is_what_evaluate_says_of_the_predictions(
    classes: int, calbench: Callable[..., Result], tmp_path: Path
) -> None:
    images, masks = write_set(tmp_path, range(6), void=True, classes=classes)
    void = {"void_values": (VOID,)} if classes == 1 else {"ignore_index": (255,)}
    found = image_set("toy", images, masks, classes=classes, **void)
    network = sharpened(classes)
    for example in found.examples:
        z = logits_by_hand(network, example.image).double()
        p = z[0].sigmoid() if classes == 1 else z.softmax(0)
        (tmp_path / "pred").mkdir(exist_ok=True)
        np.save(tmp_path / "pred" / f"{example.name}.npy", p.numpy().astype(np.float32))
    said = ("--void-value", VOID) if classes == 1 else ("--ignore-index", 255)
    result = calbench(
        "evaluate", "--pred", tmp_path / "pred", "--gt", masks, *said, "--metrics", "ece,nll,accuracy", "--n-boot", 0,
        "--json", "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["results"]
    expected = {row["metric"]: row["value"] for row in rows if row["average"] == "pixels" and row["region"] == "all"}
    network.train()
    measured = validate(network, found, config(classes=classes))
    assert network.training
    assert (measured.ece, measured.nll, measured.accuracy) == pytest.approx(
        (expected["ece"], expected["nll"], expected["accuracy"]), abs=1e-6
    )
    assert measured.ece > 0.05
    assert 0.05 < measured.accuracy < 0.95


def grey_set(folder: Path) -> ImageSet:
    """Masks with soft edges, as anti-aliased ones have; most of one is grey."""
    images, masks = write_set(folder, range(5))
    for number in range(5):
        mask = np.asarray(Image.open(masks / f"im{number:02}.png")).copy()
        mask[:6, :20] = (1, 127, 128, 254, 255)[number]
        Image.fromarray(mask).save(masks / f"im{number:02}.png")
    return image_set("grey", images, masks, raw=True)


def test_the_official_accuracy_takes_every_grey_value_for_wrong(tmp_path: Path) -> None:
    images, network = grey_set(tmp_path), sharpened(1)
    right = total = 0
    nll = []
    for example in images.examples:
        level = np.rint(255 * logits_by_hand(network, example.image)[0].sigmoid().numpy()).astype(np.uint8)
        grey = np.asarray(Image.open(example.mask))
        right += int((np.where(level < 128, 0, 255) == grey).sum())
        total += grey.size
        z, share = logits_by_hand(network, example.image)[0].double(), torch.from_numpy(grey / 255)
        nll.append(float(F.binary_cross_entropy_with_logits(z, share)))
    found = validate(network, images, config(profile="aslp"))
    assert found.accuracy == pytest.approx(right / total, abs=1e-9)
    assert found.nll == pytest.approx(np.mean(nll), abs=1e-6)
    judged = validate(network, replace(images, raw=False), config())
    assert judged.accuracy - found.accuracy > 100 / total, "grey pixels count as right where the profile is calbench's"


class Third(World):
    """One of three processes; what they would add up is kept in place of that."""

    tables: list[Tensor]

    def sum(self, values: Tensor) -> Tensor:
        self.tables.append(values.clone())
        return torch.stack(self.tables).sum(0)


def test_validation_does_not_depend_on_the_number_of_processes(holed: Sets) -> None:
    network, images = sharpened(1), holed[0]
    tables: list[Tensor] = []
    for rank in range(3):
        world = Third(torch.device("cpu"), rank, 3)
        object.__setattr__(world, "tables", tables)
        together = validate(network, images, config(), world)
    assert [int((table[:, 0] > 0).sum()) for table in tables] == [2, 3, 3], "9 images, one of them void"
    alone = validate(network, images, config())
    assert (together.accuracy, together.ece, together.nll) == pytest.approx(
        (alone.accuracy, alone.ece, alone.nll), abs=1e-8
    ), "but for the rounding of logits, whose batches are others"
    assert alone == validate(network, images, config(), workers=2)


# --- what goes wrong ----------------------------------------------------------------------------------------------------


def damage(path: Path) -> None:
    """Cut a picture off in the middle of its pixels; its header stays."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


@pytest.fixture
def damaged(tmp_path: Path) -> Sets:
    """Images of which im04, to train on, is damaged."""
    images, masks = write_set(tmp_path / "damaged", range(13))
    damage(images / "im04.jpg")
    return halves(image_set("damaged", images, masks), 9)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_ends_the_run_by_name(damaged: Sets, tmp_path: Path, workers: int) -> None:
    with pytest.raises(FormatError, match=r"(?s)training image 'im04': .*im04\.jpg.*; --on-damaged skip leaves"):
        train(config(), *damaged, tmp_path / "run", workers=workers)


@pytest.mark.parametrize("batch", [4, 1])
def test_a_damaged_picture_is_left_out_and_named_once(damaged: Sets, tmp_path: Path, batch: int) -> None:
    """A batch of 1 is damaged altogether."""
    lines: list[str] = []
    given = config("aslp-mc", options=ADAPTING, batch=batch, skip_damaged=True)
    run = train(given, *damaged, tmp_path / "run", announce=lines.append)
    assert len(run.history) == 3
    assert len(lines) == 1
    assert lines[0].startswith("left out training image 'im04': ")
    table = {row["name"]: row for row in rows(tmp_path / "run", "alphas.csv")}
    assert table["im04"] == {"name": "im04", "alpha": "0.0", "visits": "0", "loss": "", "accuracy": ""}
    assert {row["visits"] for name, row in table.items() if name != "im04"} == {"3"}
    assert all(math.isfinite(row["loss"]) for row in run.history)


def test_a_step_without_a_pixel_moves_nothing(toy: Sets, tmp_path: Path) -> None:
    """Adam would go on by its momentum: a damaged picture in a step of its own is as if it were not there."""
    images, masks = write_set(tmp_path / "void", range(2))
    Image.fromarray(np.full((H, W), VOID, np.uint8)).save(masks / "im01.png")
    both = image_set("void", images, masks, void_values=(VOID,))
    one = both.select(["im00"], "one")
    runs = [train(config(batch=1, epochs=2), some, one, tmp_path / str(len(some))) for some in (both, one)]
    assert weights_apart(tmp_path / "1", tmp_path / "2") == 0
    assert [row["loss"] for row in runs[0].history] == [row["loss"] for row in runs[1].history]


def test_a_damaged_validation_picture_is_an_error_even_where_others_are_skipped(toy: Sets, tmp_path: Path) -> None:
    images, masks = write_set(tmp_path / "damaged", range(13))
    damage(images / "im11.jpg")
    sets = halves(image_set("damaged", images, masks), 9)
    with pytest.raises(FormatError, match=r"validation image 'im11': .*im11\.jpg"):
        train(config(skip_damaged=True), *sets, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


class Diverging(Plain):
    """Its logits are no numbers from the third step on."""

    steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        return super().forward(images) * (math.nan if self.steps >= 3 else 1)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_last_good_state(toy: Sets, tmp_path: Path) -> None:
    given = config(model="test_train:Diverging", batch=5)
    with pytest.raises(DivergedError) as caught:
        train(given, *toy, tmp_path)
    assert str(caught.value) == (
        f"the loss is nan in epoch 2 at step 1; {tmp_path / 'last.pt'} holds the last good state; "
        "start again with a lower learning rate: --lr 0.0002 and --force, or another -o"
    )
    held = load_checkpoint(tmp_path / "last.pt")
    assert (held.state["epoch"], len(held.state["history"])) == (2, 1)
    assert all(bool(value.isfinite().all()) for value in held.model.values())
    with pytest.raises(DivergedError, match="in epoch 1 at step 3; no checkpoint had been written yet"):
        train(replace(given, batch=2), *toy, tmp_path / "early")


class Unsound(Plain):
    """Its logits are no numbers when it is measured, as after a step that was too large."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * (1 if self.training else math.nan)


def test_a_validation_loss_that_is_no_number_ends_the_run(toy: Sets, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the validation loss is nan in epoch 1 at step 3; no checkpoint"):
        train(config(model="test_train:Unsound"), *toy, tmp_path)
    assert not list(tmp_path.iterdir())


def test_trained_is_what_lies_in_the_folder(toy: Sets, tmp_path: Path) -> None:
    run = train(config(epochs=2), *toy, tmp_path)
    assert isinstance(run, Trained)
    held = load_checkpoint(tmp_path / "last.pt")
    assert held.config == run.config
    assert differences(dict(held.model), dict(run.network.state_dict())) == []
    assert [int(row["epoch"]) for row in rows(tmp_path, "metrics.csv")] == [1, 2]
    for row, written in zip(run.history, rows(tmp_path, "metrics.csv"), strict=True):
        assert {name: float(value) for name, value in written.items() if value} == {
            name: value for name, value in row.items() if not math.isnan(value)
        }
    assert run.history[1]["loss"] < run.history[0]["loss"]
    assert run.history[0]["images_per_second"] == pytest.approx(9 / run.history[0]["seconds"])
