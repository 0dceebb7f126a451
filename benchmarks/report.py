"""How long `calbench report` takes on a large study: 12 methods x 6 data sets x 1 000 images.

    python benchmarks/report.py --work DIR     about ten minutes the first time, one when DIR holds the study

The study is drawn (128 x 96 synthetic maps, whose methods differ in sharpness), evaluated, and reported with its gallery:
every command runs whole, in processes of its own. Printed are seconds and peak memory of the report, the size of its page and
the number of its plots. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image

from calbench.synthetic import draw_image, quantise, sharpen

SHARPNESS = np.geomspace(0.4, 2.5, 12)
DATASETS = 6
IMAGES = 1000


def draw(work: Path, dataset: int, n_images: int) -> None:
    """One data set: masks, and the maps of all methods."""
    for index in range(n_images):
        probability, mask = draw_image(np.random.default_rng([dataset, index]))
        written = {f"data/set{dataset}/gt": (255 * mask).astype(np.uint8)} | {
            f"preds/net{number:02d}/set{dataset}": quantise(sharpen(probability, sharpness))
            for number, sharpness in enumerate(SHARPNESS)
        }
        for folder, pixels in written.items():
            path = work / folder / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=1)


def calbench(*arguments: str, cwd: Path) -> tuple[float, float]:
    """Seconds and peak memory in MiB of one command, its largest process."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "calbench", *arguments], cwd=cwd, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"calbench {arguments[0]} failed"
    return time.perf_counter() - started, usage.ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the study, about 0.5 GB")
    parser.add_argument("--images", type=int, default=IMAGES)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if not (given.work / "results" / "summary.json").exists():
        Parallel(n_jobs=-1)(delayed(draw)(given.work, dataset, given.images) for dataset in range(DATASETS))
        calbench(
            "evaluate", "--pred", "preds/{method}/{dataset}", "--gt", "data/{dataset}/gt", "--exclude",
            "weighted_f,s_measure", "-o", "results", "--force", cwd=given.work,
        )  # fmt: skip
    print("| report | seconds | peak memory, MiB | report.html, MB | plots |\n|---|---|---|---|---|")
    for name, options in (("whole", ()), ("without gallery", ("--gallery", "0")), ("PDF alone", ("--formats", "pdf"))):
        seconds, memory = calbench("report", "results", "-o", "report", "--force", *options, cwd=given.work)
        size = (given.work / "report" / "report.html").stat().st_size / 1e6
        plots = len(list((given.work / "report" / "plots").iterdir()))
        print(f"| {name} | {seconds:.1f} | {memory:.0f} | {size:.1f} | {plots} |", flush=True)


if __name__ == "__main__":
    main()
