"""How fast and how large the fit of a temperature is, against netcal, scikit-learn and torch's LBFGS.

    python benchmarks/temperature.py                     10^7 pixels, some three minutes
    python benchmarks/temperature.py --quick             10^6 pixels and one fit each, under one minute

Three cases, all of logits 1.5 times too sharp: a binary map in float64; the same map as the 8-bit rows that calbench keeps
of images, so that its pixels are 512 weighted samples; 19 classes in float32. Each contender runs in a process of its own
on the same two cores, reads the pixels from a file, fits a few to warm up, and then all of them, several times:

    calbench              Temperature().fit
    netcal                TemperatureScaling().fit on float64 probabilities (of float32 ones it returns T = 1)
    scikit-learn          LogisticRegression without intercept and penalty (binary); CalibratedClassifierCV
                          (method="temperature") of a classifier whose decision function is the logits
    torch LBFGS           one parameter, strong Wolfe line search, in the type of the logits

Seconds are medians; memory is the growth of the process's peak in the first fit. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

PACKAGES = ("numpy", "scipy", "torch", "scikit-learn", "netcal", "calbench")
CORES = 2
SEED = 20_260_101
CLASSES = 19
TRUE = 1.5
WARM = 2_000
BLOCK = 1 << 16
IMAGES = 100
"""Rows of 8-bit statistics."""

Array = np.ndarray
Fit = Callable[[], float]
"""The temperature."""


# ---- the pixels ------------------------------------------------------------------------------------------------------


def write(folder: Path, pixels: int) -> None:
    """Draw the pixels of every case, block by block, so that memory shows what a fit takes."""
    rng = np.random.default_rng(SEED)
    shapes = {"binary": ((pixels,), np.float64), "classes": ((pixels, CLASSES), np.float32)}
    for case, (shape, kind) in shapes.items():
        logits = np.lib.format.open_memmap(folder / f"{case} logits.npy", "w+", kind, shape)
        target = np.lib.format.open_memmap(folder / f"{case} target.npy", "w+", np.int64, (pixels,))
        for start in range(0, pixels, BLOCK):
            z = 4 * rng.standard_normal((min(BLOCK, pixels - start), *shape[1:]))
            at = slice(start, start + len(z))
            target[at] = rng.random(len(z)) < expit(z) if case == "binary" else (z + rng.gumbel(size=z.shape)).argmax(1)
            logits[at] = TRUE * z
    levels = np.round(255 * expit(np.load(folder / "binary logits.npy", mmap_mode="r"))).astype(np.intp)
    image = np.arange(pixels) * IMAGES // pixels
    cell = (2 * image + np.load(folder / "binary target.npy")) * 256 + levels
    np.save(folder / "levels counts.npy", np.bincount(cell, minlength=512 * IMAGES).reshape(IMAGES, 2, 256))


def read(folder: Path, case: str) -> tuple[Array, Array]:
    return np.load(folder / f"{case} logits.npy"), np.load(folder / f"{case} target.npy")


# ---- the contenders --------------------------------------------------------------------------------------------------


def calbench(z: Array, y: Array) -> Fit:
    from calbench.calibrators.temperature import Temperature

    return lambda: Temperature().fit(z, y).temperature_


def calbench_levels(counts: Array) -> Fit:
    from calbench.calibrators.samples import level_logits
    from calbench.calibrators.temperature import Temperature

    logits, target = np.tile(level_logits(), 2), np.repeat([0, 1], 256)
    return lambda: Temperature().fit(logits, target, counts.sum(0).ravel()).temperature_


def netcal(z: Array, y: Array) -> Fit:
    from netcal.scaling import TemperatureScaling

    p = expit(z) if z.ndim == 1 else softmax(np.asarray(z, np.float64), axis=1)
    return lambda: 1 / float(TemperatureScaling().fit(p, y, tensorboard=False).temperature.item())


def logistic_regression(z: Array, y: Array) -> Fit:
    from sklearn.linear_model import LogisticRegression

    return lambda: 1 / float(LogisticRegression(C=np.inf, fit_intercept=False).fit(z[:, None], y).coef_.item())


def calibrated_classifier(z: Array, y: Array) -> Fit:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        """A classifier whose decision function is what it is given."""

        def fit(self, _: Array, target: Array) -> Given:
            self.classes_ = np.unique(target)
            return self

        def predict(self, x: Array) -> Array:
            return self.decision_function(x) >= 0 if len(self.classes_) == 2 else x.argmax(1)

        def decision_function(self, x: Array) -> Array:
            return x[:, 0] if x.shape[1] == 1 else x

    def fit() -> float:
        x = z.reshape(len(z), -1)
        calibrated = CalibratedClassifierCV(FrozenEstimator(Given().fit(x, y)), method="temperature").fit(x, y)
        beta = float(calibrated.calibrated_classifiers_[0].calibrators[0].beta_)
        return 1 / beta if z.ndim == 2 else 1 / (2 * beta)  # of binary logits it takes (−z, z)

    return fit


def lbfgs(z: Array, y: Array) -> Fit:
    import torch
    from torch.nn import functional

    torch.set_num_threads(CORES)
    logits, target = torch.from_numpy(z), torch.from_numpy(y)
    target = target.to(logits.dtype) if z.ndim == 1 else target
    loss_of = functional.binary_cross_entropy_with_logits if z.ndim == 1 else functional.cross_entropy

    def fit() -> float:
        beta = torch.ones((), dtype=logits.dtype, requires_grad=True)
        optimiser = torch.optim.LBFGS([beta], max_iter=50, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            loss = loss_of(beta * logits, target)
            loss.backward()
            return loss

        optimiser.step(closure)
        return 1 / float(beta)

    return fit


CASES: dict[str, dict[str, Callable[..., Fit]]] = {
    "binary": {
        "calbench": calbench,
        "netcal": netcal,
        "scikit-learn, logistic regression": logistic_regression,
        "scikit-learn, temperature": calibrated_classifier,
        "torch LBFGS": lbfgs,
    },
    "levels": {"calbench": calbench_levels},
    "classes": {"calbench": calbench, "scikit-learn, temperature": calibrated_classifier, "torch LBFGS": lbfgs},
}
TITLES = {
    "binary": "binary pixels, float64 logits",
    "levels": f"binary pixels as 8-bit rows of {IMAGES} images",
    "classes": f"pixels x {CLASSES} classes, float32 logits",
}


def run(folder: Path, case: str, name: str, rounds: int) -> dict[str, float | list[float]]:
    """What one contender does, in this process."""
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    contender = CASES[case][name]
    if case == "levels":
        arrays: tuple[Array, ...] = (np.load(folder / "levels counts.npy"),)
        contender(arrays[0][:1])()
    else:
        arrays = read(folder, case)
        contender(*(array[:WARM].copy() for array in arrays))()
    fit = contender(*arrays)
    before, seconds = peak_memory(), []
    for number in range(rounds):
        start = time.perf_counter()
        temperature = fit()
        seconds.append(time.perf_counter() - start)
        if number == 0:
            grown = peak_memory() - before
    return {"seconds": seconds, "T": temperature, "memory": grown}


def peak_memory() -> int:
    """Peak resident bytes of this process; Linux hands `ru_maxrss` of the parent down, so its own record is read there."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# ---- the report ------------------------------------------------------------------------------------------------------


def load_average() -> str:
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def table(title: str, found: dict[str, dict[str, float]]) -> str:
    lines = [
        f"| {title} | seconds | T | memory, MiB | time / calbench |",
        "|---|---|---|---|---|",
    ]
    ours = found["calbench"]["seconds"]
    for name, of in found.items():
        seconds, ratio = of["seconds"], of["seconds"] / ours
        digits = 3 if seconds > 0.01 else 5
        lines.append(f"| {name} | {seconds:.{digits}f} | {of['T']:.5f} | {of['memory'] / 2**20:.0f} | {ratio:.1f} |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="fits of each contender")
    parser.add_argument("--quick", action="store_true", help="10^6 pixels, one fit each")
    parser.add_argument("--run", nargs=4, metavar=("FOLDER", "CASE", "NAME", "ROUNDS"), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.run:
        folder, case, name, rounds = given.run
        print(json.dumps(run(Path(folder), case, name, int(rounds))))
        return
    pixels, rounds = (1_000_000, 1) if given.quick else (given.pixels, given.rounds)
    started = time.perf_counter()
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    print(f"{platform.system()} {platform.machine()}, {CORES} cores, load before {load_average()}", flush=True)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(CORES))
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary), pixels)
        for case, contenders in CASES.items():
            found = {}
            for name in contenders:
                command = [sys.executable, __file__, "--run", temporary, case, name, str(rounds)]
                output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
                of = json.loads(output.splitlines()[-1])
                found[name] = of | {"seconds": float(np.median(of["seconds"]))}
            print(f"\n{table(f'{pixels:,} {TITLES[case]}', found)}", flush=True)
    print(f"\nload after {load_average()}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
