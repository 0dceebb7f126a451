"""How fast `calbench evaluate` is on multi-class logits, where its time goes, and how much memory it takes.

    python benchmarks/multiclass.py                      some three minutes
    python benchmarks/multiclass.py --quick              few images and one round, under one minute

Logits of 19 classes, float16, at 256 x 512 and 1024 x 2048, as packed `.npz` and as `.npy`; labels as PNG. Three contenders
take turns, round after round, on the same files in the page cache, with one thread a process:

    floor         read (inflate) the logits and take their soft-max, block by block in NumPy; nothing is counted
    calbench      what `calbench evaluate` does with an image: logits and labels in, all statistics of the row out
    torchmetrics  read, soft-max, update and compute calibration error, accuracy and IoU

What calbench does once a data set, inferring how files are coded and computing the metrics from the rows, is timed apart.
Tables show medians over the rounds (and the fastest round); ratios are medians of ratios within a round. Nothing here is
a test.
"""

# ruff: noqa: E402 (thread counts have to be set before numpy is imported)
from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from evaluate import N_BOOT, Seconds, load_average, peak_memory
from joblib import Parallel, delayed
from PIL import Image

import calbench
from calbench import measure
from calbench.collect import collect_folders
from calbench.io.labels import LabelCoding
from calbench.kernels import multiclass
from calbench.measure import Task, measure_pair, tasks_of
from calbench.plan import CollectOptions, plan_run
from calbench.statistics import Run, Statistics

PACKAGES = ("numpy", "scipy", "pillow", "joblib", "torch", "torchmetrics", "calbench")
SEED = 20_260_101
CLASSES = 19
SIZES = ((256, 512), (1024, 2048))
FORMATS = (".npz", ".npy")
SIDES = ("calbench", "torchmetrics", "float64")
COLUMNS = ("1 process", "its CPU", "2 processes")
"""Time on the wall, or of the process's CPU, which other load on the machine moves less."""
BLOCK = 1 << 15
"""Pixels of a block of the floor."""
MANY_IMAGES = 500
"""Rows that the metrics are computed from, beside those of the set."""
BINS = 15

Tasks = Sequence[Task]
Case = tuple[int, str, str]
"""Height, format, column."""


# ---- the images ------------------------------------------------------------------------------------------------------


def draw(number: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(19, H, W)` float16 and labels `(H, W)` uint8, about as sure as a trained network, and a little too sure."""
    rng = np.random.default_rng([SEED, height, number])
    logits = 14 * fields(rng, height, width, height // 8) + fields(rng, height, width, 8)
    labels = (logits + 2 * fields(rng, height, width, height // 16)).argmax(0)
    return logits.astype(np.float16), labels.astype(np.uint8)


def fields(rng: np.random.Generator, height: int, width: int, wavelength: int) -> np.ndarray:
    """A field of standard normal noise for each class, on a grid of so many pixels and interpolated, float32."""
    coarse = rng.standard_normal((CLASSES, height // wavelength + 2, width // wavelength + 2), np.float32)
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(grid).resize((width, height), bicubic)) for grid in coarse])


@dataclass(frozen=True)
class ImageSet:
    """Images of one size on disk: folders `npz` and `npy` of logits, `gt` of labels."""

    folder: Path
    height: int
    width: int
    images: int

    def write(self) -> dict[str, float]:
        """Draw and save the images.

        Returns:
            What the speed depends on: the mean confidence, accuracy, class probabilities above 0.01 a pixel, and the size
            of the `.npy` files over that of the packed ones.
        """
        for name in ("npz", "npy", "gt"):
            (self.folder / name).mkdir(parents=True)
        facts = []
        for number in range(self.images):
            logits, labels = draw(number, self.height, self.width)
            packed = self.folder / "npz" / f"{number:03d}.npz"
            np.savez_compressed(packed, logits=logits)
            np.save(self.folder / "npy" / f"{number:03d}.npy", logits)
            Image.fromarray(labels).save(self.folder / "gt" / f"{number:03d}.png")
            p = np.concatenate(list(softmax_blocks(logits)), axis=1)
            right = p.argmax(0) == labels.ravel()
            above = np.count_nonzero(p > 0.01) / labels.size
            facts.append([p.max(0).mean(), right.mean(), above, logits.nbytes / packed.stat().st_size])
        names = ("confidence", "accuracy", "above 0.01", "packed")
        return dict(zip(names, np.mean(facts, axis=0).tolist(), strict=True))

    def options(self, extension: str) -> CollectOptions:
        """Its logits in one format, and its labels."""
        return CollectOptions(str(self.folder / extension[1:]), str(self.folder / "gt"))

    def tasks(self, extension: str) -> list[Task]:
        """What is to be done for each image."""
        options = self.options(extension)
        [plan], _ = plan_run(options)
        return list(tasks_of(plan, options))

    def linked(self, folder: Path, images: int) -> ImageSet:
        """A set of so many images that has these files, again and again."""
        for name, extension in (("npz", ".npz"), ("npy", ".npy"), ("gt", ".png")):
            (folder / name).mkdir(parents=True)
            for number in range(images):
                source = self.folder / name / f"{number % self.images:03d}{extension}"
                (folder / name / f"{number:03d}{extension}").hardlink_to(source)
        return replace(self, folder=folder, images=images)


# ---- the contenders --------------------------------------------------------------------------------------------------


def read(path: Path) -> np.ndarray:
    loaded = np.load(path)
    return loaded if path.suffix == ".npy" else loaded["logits"]


def softmax_blocks(logits: np.ndarray) -> Iterator[np.ndarray]:
    """Probabilities `(C, n)` float32 of some pixels at a time."""
    flat = logits.reshape(len(logits), -1)
    for start in range(0, flat.shape[1], BLOCK):
        p = flat[:, start : start + BLOCK].astype(np.float32)
        p -= p.max(0)
        np.exp(p, out=p)
        p /= p.sum(0)
        yield p


def floor(tasks: Tasks) -> None:
    """Read and soft-max: what any tool that evaluates logits has to do."""
    for task in tasks:
        for _ in softmax_blocks(read(task.pair.pred)):
            pass


def ours(tasks: Tasks) -> list[Statistics]:
    """The rows of calbench."""
    return [measure_pair(task) for task in tasks]


def peer(tasks: Tasks) -> list[float]:
    """Calibration error, accuracy and mean IoU of torchmetrics."""
    import torch
    from torchmetrics import classification as tm

    torch.set_num_threads(1)
    metrics = (
        tm.MulticlassCalibrationError(CLASSES, n_bins=BINS),
        tm.MulticlassAccuracy(CLASSES, average="micro"),
        tm.MulticlassJaccardIndex(CLASSES),
    )
    for task in tasks:
        p = torch.from_numpy(read(task.pair.pred)).float().softmax(0)[None]
        with Image.open(task.pair.gt) as image:
            labels = torch.from_numpy(np.array(image)).long()[None]
        for metric in metrics:
            metric.update(p, labels)
    return [float(metric.compute()) for metric in metrics]


CONTENDERS: dict[str, Callable[[Tasks], Any]] = {"floor": floor, "calbench": ours, "torchmetrics": peer}


def on_all(function: Callable[[Tasks], Any], tasks: Tasks, jobs: int) -> None:
    """A contender in one process, or a share of the images in each of several."""
    if jobs == 1:
        function(tasks)
    else:
        Parallel(n_jobs=jobs)(delayed(function)(tasks[part::jobs]) for part in range(jobs))


def start_up(tasks: Tasks) -> None:
    """What a process spends its first seconds on."""
    for function in CONTENDERS.values():
        function(tasks)
    time.sleep(0.5)


# ---- time ------------------------------------------------------------------------------------------------------------


def one_round(tasks: dict[tuple[int, str], list[Task]], turn: int) -> dict[Case, Seconds]:
    """Milliseconds an image of every contender in every case; who begins changes from turn to turn."""
    found: dict[Case, Seconds] = {(*files, column): {} for files, column in product(tasks, COLUMNS)}
    order = list(CONTENDERS)[turn % 3 :] + list(CONTENDERS)[: turn % 3]
    for (files, given), jobs, name in product(tasks.items(), (1, 2), order):
        wall, cpu = time.perf_counter(), time.process_time()
        on_all(CONTENDERS[name], given, jobs)
        scale = 1e3 / len(given)
        found[*files, COLUMNS[0 if jobs == 1 else 2]][name] = (time.perf_counter() - wall) * scale
        if jobs == 1:
            found[*files, COLUMNS[1]][name] = (time.process_time() - cpu) * scale
    return found


def once_a_set(images: ImageSet) -> dict[str, Seconds]:
    """Milliseconds for all images together, of what is not done image by image: before the pixels, and after them."""
    seconds: dict[str, Seconds] = {}

    def timed(images: int, name: str, function: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = function()
        seconds.setdefault(f"{images} images", {})[name] = (time.perf_counter() - start) * 1e3
        return result

    timed(images.images, "plan", partial(plan_run, images.options(".npz")))
    run = collect_folders(images.options(".npz"), jobs=1)
    for sized in (run, repeated(run, MANY_IMAGES)):
        number = len(next(iter(sized.combinations.values())).names)
        for n_boot in (0, N_BOOT):
            timed(number, f"{n_boot} replicates", partial(calbench.evaluate, sized, n_boot=n_boot))
    return seconds


def repeated(run: Run, images: int) -> Run:
    """The rows of a run again and again, under new names."""
    [(key, rows)] = run.combinations.items()
    names = tuple(f"{number:06d}" for number in range(images))
    chosen = rows.select(np.arange(images) % len(rows.names))
    parts: dict[str, Any] = {name: replace(part, names=names) for name, part in chosen.parts.items()}
    return Run({key: replace(chosen, **parts)})


def values(images: ImageSet) -> dict[str, tuple[float, float, float]]:
    """Calibration error, accuracy and mean IoU: of calbench, of torchmetrics, and as they are, in float64."""
    tasks = images.tasks(".npy")
    run = collect_folders(replace(images.options(".npy"), extras=("torchmetrics",)), jobs=1)
    names = ("torchmetrics_ece", "pixel_accuracy", "miou")  # torchmetrics has a bin of its own for a confidence of 1
    table = calbench.evaluate(run, metrics=names, bins=BINS, n_boot=0)
    pooled = table[(table["average"] == "pixels") & ~table["options"].str.contains("class=")].set_index("metric")
    found = (float(pooled["value"][name]) for name in names)
    return dict(zip(names, zip(found, peer(tasks), exact(tasks), strict=True), strict=True))


def exact(tasks: Tasks) -> list[float]:
    """What `peer` computes, from all pixels at once."""
    p = np.concatenate([block for task in tasks for block in softmax_blocks(read(task.pair.pred))], axis=1)
    labels = np.concatenate([np.asarray(Image.open(task.pair.gt)).ravel() for task in tasks])
    winner, confidence = p.argmax(0), p.max(0)
    cell = np.searchsorted(np.linspace(0, 1, BINS + 1, dtype=np.float32), confidence, side="right")
    gaps = np.bincount(cell, confidence.astype(np.float64)) - np.bincount(cell, winner == labels)
    both = np.bincount(CLASSES * labels.astype(np.intp) + winner, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    hit = np.diag(both)
    iou = hit / (both.sum(0) + both.sum(1) - hit)
    return [float(np.abs(gaps).sum() / len(labels)), float(hit.sum() / len(labels)), float(iou.mean())]


STEPS: tuple[tuple[str, Any, str], ...] = (
    ("read the logits (.npy: map them)", measure, "read_array"),
    ("read the labels", measure, "read_labels"),
    ("label values to classes", LabelCoding, "apply"),
    ("tell logits from probabilities", measure, "looks_normalised"),
    ("cast to float32 (.npy: read)", multiclass, "_load"),
    ("soft-max, winner, entropy, distances", multiclass._Kernel, "softmax"),
    ("top-label cells, scores, class counts", multiclass._Kernel, "sums"),
    ("class-wise cells", multiclass._Kernel, "_classwise"),
)
"""What is timed within calbench's pass: label, owner of the function, its name."""


def breakdown(tasks: Tasks) -> Seconds:
    """Milliseconds an image of each step of calbench's pass, without the steps within it; medians over the images."""
    found = []
    for task in tasks:
        spent: Counter[str] = Counter()
        within = [0.0]  # of the calls under way, outermost first: time spent in steps that they call

        def timed(label: str, function: Callable[..., Any], spent: Any = spent, within: Any = within) -> Any:
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                within.append(0.0)
                start = time.perf_counter()
                result = function(*args, **kwargs)
                took = time.perf_counter() - start
                spent[label] += took - within.pop()
                within[-1] += took
                return result

            return wrapper

        with ExitStack() as patches:
            for label, owner, name in STEPS:
                patches.enter_context(patch.object(owner, name, timed(label, getattr(owner, name))))
            timed("the rest", measure_pair)(task)
        found.append(spent)
    return {label: float(np.median([spent[label] for spent in found])) * 1e3 for label in found[0]}


# ---- memory ----------------------------------------------------------------------------------------------------------


def measure_memory(pred: Path, gt: Path) -> int:
    """Bytes by which the peak of this process grows while it evaluates a folder."""
    before = peak_memory()
    collect_folders(CollectOptions(str(pred), str(gt)), jobs=1)
    return peak_memory() - before


def memory_table(images: ImageSet, folder: Path, counts: Sequence[int]) -> dict[int, dict[str, int]]:
    """Growth in fresh processes, by number of images and by format."""
    table: dict[int, dict[str, int]] = {}
    for count in counts:
        linked = images.linked(folder / str(count), count)
        table[count] = {}
        for extension in FORMATS:
            folders = [str(linked.folder / extension[1:]), str(linked.folder / "gt")]
            command = [sys.executable, __file__, "--measure-memory", *folders]
            table[count][extension] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return table


# ---- the report ------------------------------------------------------------------------------------------------------


def print_times(sets: Sequence[ImageSet], rounds: Sequence[dict[Case, Seconds]]) -> None:
    title = "milliseconds an image, median (fastest)"
    print(f"\n{title:<46}" + "".join(f"{column:>18}" for column in COLUMNS))
    for images, extension in product(sets, FORMATS):
        cases: list[Case] = [(images.height, extension, column) for column in COLUMNS]
        print(f"{images.images} images, {CLASSES} x {images.height} x {images.width}, {extension}")
        for name in CONTENDERS:
            times = [[found[case][name] for found in rounds] for case in cases]
            print(f"  {name:<44}" + "".join(f"{f'{np.median(t):.1f} ({min(t):.1f})':>18}" for t in times))
        for label, above, below in (
            ("calbench / floor", "calbench", "floor"),
            ("calbench is faster than torchmetrics", "torchmetrics", "calbench"),
        ):
            ratios = [[found[case][above] / found[case][below] for found in rounds] for case in cases]
            print(f"  {label:<44}" + "".join(f"{np.median(ratio):>17.2f}x" for ratio in ratios))


def print_once(seconds: dict[str, Seconds]) -> None:
    print(f"\n{'once a data set, milliseconds an image':<48}" + "".join(f"{title:>16}" for title in seconds))

    def line(label: str, name: str) -> None:
        values = [
            f"{times[name] / int(title.split()[0]):.2f}" if name in times else "" for title, times in seconds.items()
        ]
        print(f"{label:<48}" + "".join(f"{value:>16}" for value in values).rstrip())

    line("find, pair, infer from up to 4 files", "plan")
    line("all metrics, no intervals", "0 replicates")
    line(f"all metrics, {N_BOOT} replicates", f"{N_BOOT} replicates")


def print_breakdown(columns: dict[tuple[int, str], Seconds]) -> None:
    titles = [f"{height} {extension}" for height, extension in columns]
    print(f"\n{'calbench, milliseconds an image, 1 process':<44}" + "".join(f"{title:>12}" for title in titles))
    for label in (*(label for label, *_ in STEPS), "the rest"):
        print(f"  {label:<42}" + "".join(f"{times[label]:>12.2f}" for times in columns.values()))


def print_memory(table: dict[int, dict[str, int]], images: ImageSet) -> None:
    size = CLASSES * images.height * images.width * 2
    print(f"\n{f'growth of the peak, in images of {size / 2**20:.0f} MiB':<44}" + "".join(f"{e:>12}" for e in FORMATS))
    for count, growth in table.items():
        label = f"{count} image{'s' * (count > 1)} one after another"
        print(f"  {label:<42}" + "".join(f"{growth[extension] / size:>11.2f}x" for extension in FORMATS))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24, help="small images; there are 4 large ones")
    parser.add_argument("--rounds", type=int, default=3, help="how often the contenders take turns")
    parser.add_argument("--quick", action="store_true", help="4 small images, 2 large ones, one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers as JSON")
    parser.add_argument("--measure-memory", type=Path, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.measure_memory:
        print(measure_memory(*given.measure_memory))
        return
    started = time.perf_counter()
    counts, turns, of_memory = ((4, 2), 1, (1, 2)) if given.quick else ((given.images, 4), given.rounds, (1, 4, 12))
    setting = {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        **{name: os.environ[name] for name in THREADS},
        "torch threads": "1",
        "load before": load_average(),
    }
    print("\n".join(f"{name:<22}{value}" for name, value in setting.items()), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        sets = [ImageSet(Path(temporary) / str(h), h, w, n) for (h, w), n in zip(SIZES, counts, strict=True)]
        small, large = sets
        drawn = {images.height: images.write() for images in sets}
        tasks = {(images.height, extension): images.tasks(extension) for images in sets for extension in FORMATS}
        for files in tasks.values():
            floor(files)  # they are in the page cache from here on
        compared = values(small)
        Parallel(n_jobs=2)(delayed(start_up)(tasks[small.height, ".npz"][:1]) for _ in range(4))
        rounds = [one_round(tasks, turn) for turn in range(turns)]
        once = once_a_set(small)
        steps = {case: breakdown(files) for case, files in tasks.items()}
        memory = memory_table(large, Path(temporary) / "memory", of_memory)
    setting["load after"] = load_average()

    print(f"{'load after':<22}{setting['load after']}")
    print(f"{'rounds':<22}{turns}")
    for height, facts in drawn.items():
        print(f"{f'images of height {height}':<22}" + ", ".join(f"{name} {fact:.2f}" for name, fact in facts.items()))
    print_times(sets, rounds)
    print_once(once)
    print_breakdown(steps)
    print_memory(memory, large)
    print(f"\n{'values, ' + str(small.images) + ' small images':<28}" + "".join(f"{side:>14}" for side in SIDES))
    for name, row in compared.items():
        print(f"  {name:<26}" + "".join(f"{value:>14.8f}" for value in row))
    print(f"{time.perf_counter() - started:.0f} s")
    if given.json:
        record = {
            "setting": setting,
            "drawn": drawn,
            "rounds": [{" ".join(map(str, case)): times for case, times in found.items()} for found in rounds],
            "once": once,
            "steps": {f"{height} {extension}": times for (height, extension), times in steps.items()},
            "memory": memory,
            "values": compared,
        }
        given.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
