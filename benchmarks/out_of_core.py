"""How much memory `calbench calibrate temperature` takes as the number of images grows.

    python benchmarks/out_of_core.py                     about two minutes

Folders of float16 logits, 19 classes, 256 x 512, twice too sharp, with their labels. The command runs whole: it collects the
statistics, draws 50 000 pixels to start from, fits five folds and all images exactly, pass by pass over the files, and
measures every image with the fit that had not seen it. One process, one BLAS thread. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from calbench import load_calibrator
from calbench.synthetic_classes import ClassScene, draw_classes

SCENE = ClassScene(height=256, width=512)
SHARPNESS = 2.0
DISTINCT = 10
"""Images that are drawn; the others are copies, which cost the same to read."""


def write(folder: Path, n_images: int) -> None:
    """Logits and labels of so many images."""
    rng = np.random.default_rng(0)
    drawn = [draw_classes(rng, SCENE) for _ in range(min(n_images, DISTINCT))]
    for name in ("pred", "gt"):
        (folder / name).mkdir()
    for number in range(n_images):
        logits, labels = drawn[number % len(drawn)]
        np.save(folder / "pred" / f"{number:04d}.npy", (SHARPNESS * logits).astype(np.float16))
        Image.fromarray(labels).save(folder / "gt" / f"{number:04d}.png")


def measured(folder: Path) -> tuple[float, float, float]:
    """Seconds, peak memory in MiB, and T."""
    command = [
        sys.executable, "-m", "calbench", "calibrate", "temperature", "--pred", str(folder / "pred"),
        "--gt", str(folder / "gt"), "-o", str(folder / "fits"), "--max-pixels", "50000", "--n-boot", "0", "-j", "1", "-q",
    ]  # fmt: skip
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    started = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, "calibrate failed"
    seconds = time.perf_counter() - started
    fitted = load_calibrator(folder / "fits" / "calibrators" / "temperature.safetensors")
    return seconds, usage.ru_maxrss / 2**10, fitted.temperature_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[10, 40, 160])
    given = parser.parse_args()
    print("| images | pixels | logits, MiB | seconds | peak memory, MiB | T |\n|---|---|---|---|---|---|")
    for n_images in given.images:
        with tempfile.TemporaryDirectory() as temporary:
            write(Path(temporary), n_images)
            seconds, memory, temperature = measured(Path(temporary))
        pixels = n_images * SCENE.height * SCENE.width
        size = pixels * SCENE.classes * 2 / 2**20
        print(
            f"| {n_images} | {pixels:,} | {size:,.0f} | {seconds:.1f} | {memory:.0f} | {temperature:.4f} |", flush=True
        )


if __name__ == "__main__":
    main()
