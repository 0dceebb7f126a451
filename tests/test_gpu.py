"""Training and prediction on a GPU, held against the CPU; and the benchmark of training, which runs on both.

TF32 is off here: it rounds the factors of convolutions to 11 bits, which would hide mistakes of the same size. Sums on a GPU
are made in another order from run to run, so that nothing is compared bit for bit.
"""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_train import Sets, alphas_of, config, halves, signal_at, write_set

from calbench.training.checkpoint import load_checkpoint, trained_network
from calbench.training.distributed import ALONE, World
from calbench.training.image_sets import image_set
from calbench.training.predict import PredictOptions, predict_folder
from calbench.training.train import Trained, train
from calbench.training.validation import validate

ROOT = Path(__file__).parents[1]
CUDA = World(torch.device("cuda", 0))
FP32, BF16 = 1e-3, 1e-2
"""By how much losses, accuracies and alphas of a run may differ from those of an fp32 run on the CPU."""
FLOAT16 = 2**-11
"""Distance of two neighbours in float16 between 1/2 and 1."""
COLUMNS = ("loss", "accuracy", "validation_accuracy", "validation_ece", "validation_nll", "alpha_mean", "alpha_max")
GIVEN = config("aslp-mc", epochs=4, options={"start": 1, "eta": 0.05}, channels_last=True)


def gpu(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs a CUDA device, and skips it where there is none."""
    skipped = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test)
    return pytest.mark.gpu(skipped)


@pytest.fixture(scope="module", autouse=True)
def full_fp32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.get_num_threads()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_num_threads(before[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def toy(folder: Path) -> Sets:
    """9 images to train on, in steps of 4: the last step has 1; 4 to validate with."""
    return halves(image_set("toy", *write_set(folder / "toy", range(13))), 9)


@pytest.fixture(scope="module")
def on_cpu(folder: Path, toy: Sets) -> Trained:
    """The run that those on a GPU are held against."""
    return train(GIVEN, *toy, folder / "cpu", world=ALONE)


@pytest.fixture(scope="module")
def on_gpu(folder: Path, toy: Sets) -> Trained:
    """The same in fp32 on a GPU."""
    return train(GIVEN, *toy, folder / "gpu", world=CUDA)


def assert_close(found: Trained, expected: Trained, tolerance: float) -> None:
    """The same course of training, up to the rounding."""
    assert len(found.history) == len(expected.history) == GIVEN.epochs
    for row, wanted in zip(found.history, expected.history, strict=True):
        assert [row[name] for name in COLUMNS] == pytest.approx([wanted[name] for name in COLUMNS], abs=tolerance)
    np.testing.assert_allclose(alphas_of(found.folder), alphas_of(expected.folder), atol=tolerance)


# --- training -----------------------------------------------------------------------------------------------------------


def test_what_is_compared_is_a_run_that_learns_and_whose_alphas_move(on_cpu: Trained) -> None:
    nll = [row["validation_nll"] for row in on_cpu.history]
    assert nll[-1] < 0.85 * nll[0]
    assert on_cpu.history[0]["alpha_max"] == 0
    assert alphas_of(on_cpu.folder).min() > 20 * FP32
    assert np.ptp(alphas_of(on_cpu.folder)) > FP32


@gpu
def test_fp32_on_a_gpu_is_the_run_on_the_cpu(on_gpu: Trained, on_cpu: Trained) -> None:
    assert next(on_gpu.network.parameters()).is_cuda
    assert_close(on_gpu, on_cpu, FP32)


@gpu
@pytest.mark.parametrize("channels_last", [False, True])
def test_bf16_on_a_gpu_trains_alike(channels_last: bool, toy: Sets, on_cpu: Trained, tmp_path: Path) -> None:
    run = train(replace(GIVEN, precision="bf16", channels_last=channels_last), *toy, tmp_path, world=CUDA)
    assert_close(run, on_cpu, BF16)
    assert abs(run.history[0]["loss"] - on_cpu.history[0]["loss"]) > FP32 / 100, "or it was fp32"
    assert next(run.network.parameters()).dtype == torch.float32
    convolution = run.network.state_dict()["down.1.0.0.weight"]
    assert convolution.is_contiguous(memory_format=torch.channels_last) == channels_last


@gpu
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::torch")  # its compiler warns of itself, and that TF32 is off
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", FP32), ("bf16", BF16)])
def test_a_compiled_network_trains_alike_and_is_kept_as_a_plain_one(
    precision: Any, tolerance: float, toy: Sets, on_cpu: Trained, tmp_path: Path
) -> None:
    run = train(replace(GIVEN, precision=precision, compile=True), *toy, tmp_path, world=CUDA)
    assert_close(run, on_cpu, tolerance)
    assert load_checkpoint(tmp_path / "last.pt").model.keys() == load_checkpoint(on_cpu.folder / "last.pt").model.keys()


@gpu
def test_parts_of_a_step_are_the_step_on_a_gpu(toy: Sets, on_cpu: Trained, tmp_path: Path) -> None:
    assert_close(train(replace(GIVEN, accumulate=2), *toy, tmp_path, world=CUDA), on_cpu, FP32)


@gpu
def test_pinned_batches_of_several_workers_are_the_same(toy: Sets, on_gpu: Trained, tmp_path: Path) -> None:
    """Copies that nobody waits for must not read a batch that was overwritten meanwhile."""
    assert_close(train(GIVEN, *toy, tmp_path, world=CUDA, workers=2), on_gpu, FP32)


@gpu
def test_a_run_interrupted_on_a_gpu_and_resumed_there_or_on_the_cpu_goes_on(
    toy: Sets, on_cpu: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, world in (("gpu", CUDA), ("cpu", ALONE)):
        with monkeypatch.context() as patch:
            signal_at(patch, 5, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train(GIVEN, *toy, tmp_path / name, world=CUDA)
        held = load_checkpoint(tmp_path / name / "last.pt").state
        assert (held["epoch"], held["step"]) == (2, 3), "a GPU is looked at after the last step of the epoch"
        assert_close(train(GIVEN, *toy, tmp_path / name, world=world, resume=True), on_cpu, FP32)


@gpu
def test_a_run_on_a_gpu_leaves_its_random_state_and_the_settings_of_cudnn_alone(toy: Sets, tmp_path: Path) -> None:
    before = torch.cuda.get_rng_state(CUDA.device), torch.backends.cudnn.benchmark
    train(replace(GIVEN, epochs=1), *toy, tmp_path, world=CUDA)
    assert torch.cuda.get_rng_state(CUDA.device).equal(before[0])
    assert torch.backends.cudnn.benchmark == before[1]


@gpu
def test_memory_does_not_grow_with_epochs(toy: Sets, tmp_path: Path) -> None:
    peaks, kept = [], []
    for epochs in (2, 2, 8):  # the first run pays for what libraries keep
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        train(replace(GIVEN, epochs=epochs), *toy, tmp_path / str(len(peaks)), world=CUDA)
        peaks.append(torch.cuda.max_memory_allocated() - before)
        gc.collect()
        kept.append(torch.cuda.memory_allocated() - before)
    weights = sum(4 * value.numel() for value in load_checkpoint(tmp_path / "0" / "last.pt").model.values())
    assert peaks[1] > 4 * weights, "weights, gradients, and the two moments of Adam"
    assert peaks[2] < 1.1 * peaks[1]
    assert max(kept[1:]) < weights / 2


# --- checkpoints and predictions ----------------------------------------------------------------------------------------


@gpu
def test_a_checkpoint_of_a_gpu_is_the_same_network_on_the_cpu(on_gpu: Trained, toy: Sets) -> None:
    held = load_checkpoint(on_gpu.folder / "last.pt")
    assert {value.device.type for value in held.model.values()} == {"cpu"}
    network = trained_network(held).eval()
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 40, 56), np.float32))
    with torch.no_grad():
        here, there = network(images), on_gpu.network.eval()(images.to(CUDA.device)).cpu()
    assert np.ptp(here.numpy()) > 100 * FP32
    np.testing.assert_allclose(there.numpy(), here.numpy(), atol=FP32)
    found = validate(network, toy[1], GIVEN)
    last = on_gpu.history[-1]
    assert (found.accuracy, found.ece, found.nll) == pytest.approx(
        (last["validation_accuracy"], last["validation_ece"], last["validation_nll"]), abs=FP32
    )


@gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_maps_of_a_gpu_are_those_of_the_cpu(
    precision: Any, on_cpu: Trained, folder: Path, toy: Sets, tmp_path: Path
) -> None:
    options = PredictOptions(str(on_cpu.folder / "last.pt"), str(folder / "toy" / "image"), "", batch=4)
    for device, given in (("cpu", "fp32"), ("cuda", precision)):
        predict_folder(replace(options, output=str(tmp_path / device), device=device, precision=given, workers=1))
    tolerance = FLOAT16 + (1e-4 if precision == "fp32" else 0.05)
    spread = 0.0
    for name in toy[0].names + toy[1].names:
        with np.load(tmp_path / "cpu" / f"{name}.npz") as here, np.load(tmp_path / "cuda" / f"{name}.npz") as there:
            p, q = (file["probabilities"].astype(np.float64) for file in (here, there))
        np.testing.assert_allclose(q, p, atol=tolerance)
        spread = max(spread, np.ptp(p))
    assert spread > 0.5


# --- the benchmark of training ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.slow])])
def test_the_benchmark_prints_its_table(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    command = [sys.executable, "benchmarks/train.py", "--device", device, "--model", "small", "--size", "32"]
    command += ["--batch", "3", "--steps", "5", "--warmup", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = [line[2:-2].split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    rows = {name: row for name, *row in cells[1:]}
    expected = {"cpu": ["recipe", "recipe, channels-last", "plain loop"], "cuda": [
        "recipe", "recipe without compile", "recipe without bf16", "recipe without channels-last", "plain loop",
        "plain loop, TF32 off",
    ]}  # fmt: skip
    assert list(rows) == expected[device]
    rates = {name: float(row[0]) for name, row in rows.items()}
    assert all(len(row) == len(cells[0]) - 1 for row in rows.values())
    assert float(rows["plain loop"][1]) == 1
    for name, row in rows.items():
        assert float(row[1]) == pytest.approx(rates[name] / rates["plain loop"], abs=0.02 * (1 + float(row[1])))
        slowest, fastest = map(float, row[2].split(" … "))
        assert slowest <= rates[name] <= fastest
        assert row[3] == "–" if device == "cpu" else int(row[3].replace(",", "")) > 0
        # the same weights, batches and draws: without bf16, only rounding tells the losses apart
        assert name == "plain loop" or float(row[5]) < (1e-4 if device == "cpu" else BF16)
    pattern = r"loss curve inside noise: (yes|no) \(recipe − plain loop (\S+); .* draws (\S+), (\S+), (\S+);"
    found = re.search(pattern, done.stdout)
    assert found, done.stdout
    recipe, *noise = map(float, found.groups()[1:])
    assert recipe == float(rows["recipe"][5])
    assert min(noise) > 1e-3
    assert found[1] == ("yes" if recipe < min(noise) else "no")
