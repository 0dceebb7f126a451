"""How fast `calbench evaluate` is: against PySODMetrics, and against the floor that no reader of the files can pass.

    python benchmarks/evaluate.py                        1000 images, some five minutes
    python benchmarks/evaluate.py --quick                150 images, under one minute
    python benchmarks/evaluate.py --keep images          draw the images once, use them again

Every comparison is a ratio within one run: the contenders take turns, round after round, on the same files, with one
thread a process, and the table shows medians over the rounds. Both sides decode the PNGs with Pillow; PySODMetrics is
called as its README does. The floor decodes both files and counts one joint histogram, nothing more. What the files cost
both sides alike hides the difference between them, so the last comparison is on decoded images. Nothing here is a test.
"""

# ruff: noqa: E402 (thread counts have to be set before numpy is imported)
from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from image_set import image_set
from joblib import Parallel, delayed
from PIL import Image

from calbench.collect import collect_folders
from calbench.evaluate import Evaluator, Settings
from calbench.kernels import measure
from calbench.plan import CollectOptions, plan_run
from calbench.profiles import profile_named
from calbench.statistics import ImageScores, JointHistogram, Statistics

PACKAGES = ("numpy", "scipy", "pillow", "joblib", "pysodmetrics", "calbench")
S, WEIGHTED_F = "s_measure", "weighted_f"
SETS = {"histogram": (), "without weighted F": (S,), "full": (S, WEIGHTED_F)}
"""What is measured -> the scores that need more than the joint histogram."""
CHUNKS = 8
"""Parts the peer's images are dealt into when it uses several processes."""
N_BOOT = 1000
IN_MEMORY = 150
"""Images held decoded for the comparison without files."""

Pairs = Sequence[tuple[Path, Path]]
Seconds = dict[str, float]


# ---- the contenders --------------------------------------------------------------------------------------------------


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def floor(pairs: Pairs) -> None:
    """Decode and count: what any tool that reads 8-bit maps has to do."""
    for pred, gt in pairs:
        levels, mask = read(pred), read(gt)
        np.bincount((levels | (mask > 128).astype(np.uint16) << 8).ravel(), minlength=512)


def peer(images: Sequence[tuple[Any, Any]], load: Callable[[Any], np.ndarray], weighted: bool) -> list[np.ndarray]:
    """PySODMetrics on some images: per-image MAE, S, adaptive E, E curve, adaptive F, F curve and, if asked, weighted F."""
    import py_sod_metrics as sod

    handler = sod.FmeasureHandler(with_dynamic=True, with_adaptive=True)
    mae, s, e, f = sod.MAE(), sod.Smeasure(), sod.Emeasure(), sod.FmeasureV2({"f": handler})
    wf = sod.WeightedFmeasure()
    for pred, gt in images:
        levels, mask = load(pred), load(gt)
        for metric in (mae, s, e, f, *[wf] * weighted):
            metric.step(levels, mask)
    columns = [mae.maes, s.sms, e.adaptive_ems, e.changeable_ems, handler.adaptive_results, handler.dynamic_results]
    return [np.array(column, np.float64) for column in (*columns, *[wf.weighted_fms] * weighted)]


def on_all(function: Callable[[Pairs], Any], pairs: Pairs, jobs: int) -> list[Any]:
    """A contender in one process, or dealt to several."""
    if jobs == 1:
        return [function(pairs)]
    return list(Parallel(n_jobs=jobs)(delayed(function)(pairs[part::CHUNKS]) for part in range(CHUNKS)))


def peer_values(parts: list[list[np.ndarray]]) -> dict[str, float]:
    """The data set's values under calbench's names."""
    columns = [np.concatenate(column).mean(0) for column in zip(*parts, strict=True)]
    mae, s, adaptive_e, e, adaptive_f, f = columns[:6]
    values = {"mae": mae, S: s, "adp_e": adaptive_e, "max_e": e.max(), "mean_e": e.mean()}
    values |= {"adp_f": adaptive_f, "max_f": f.max(), "mean_f": f.mean()}
    return {name: float(value) for name, value in (values | dict(zip([WEIGHTED_F], columns[6:], strict=False))).items()}


def metrics_of(scores: Sequence[str], profile: str) -> tuple[str, ...]:
    """The profile's metrics that can be computed with these scores."""
    return tuple(name for name in profile_named(profile).metrics if name not in {S, WEIGHTED_F} - set(scores))


def evaluate(statistics: Statistics, scores: Sequence[str], profile: str, n_boot: int = 0) -> dict[str, float]:
    """Numbers of calbench from its rows, by metric; means over images."""
    settings = Settings(metrics=metrics_of(scores, profile), n_boot=n_boot)
    values = Evaluator(statistics, settings).values()
    return {value.metric: value.value for value in values if value.average == "images"}


# ---- time ------------------------------------------------------------------------------------------------------------


class Clock:
    """Seconds by name: on the wall, and of this process's CPU, which other load on the machine hardly moves."""

    def __init__(self) -> None:
        self.wall: Seconds = {}
        self.cpu: Seconds = {}

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        self.wall[name], self.cpu[name] = time.perf_counter() - wall, time.process_time() - cpu
        return result


def one_round(folder: Path, pairs: Pairs, jobs: int) -> tuple[Clock, dict[str, float]]:
    """Every contender once, in turns: their times, and the largest difference between the two sides' values."""
    timed = Clock()
    timed("floor", lambda: on_all(floor, pairs, jobs))
    differences = {}
    for name, scores in SETS.items():
        options = CollectOptions(str(folder / "pred"), str(folder / "gt"), scores=scores)
        timed(f"{name}: plan", partial(plan_run, options))
        run = timed(f"{name}: collect", partial(collect_folders, options, jobs=jobs))
        rows = next(iter(run.combinations.values()))
        ours = timed(f"{name}: same numbers", partial(evaluate, rows, scores, "pysodmetrics"))
        timed(f"{name}: all numbers", partial(evaluate, rows, scores, "calbench"))
        if scores:
            their = partial(peer, load=read, weighted=WEIGHTED_F in scores)
            theirs = peer_values(timed(f"{name}: peer", partial(on_all, their, pairs, jobs)))
            differences[name] = float(np.max([abs(ours[metric] - value) for metric, value in theirs.items()]))
    timed("intervals", partial(evaluate, rows, scores, "calbench", N_BOOT))
    return timed, differences


def in_memory(pairs: Pairs) -> Seconds:
    """Both sides on decoded images, one process: CPU seconds of what the files hide."""
    images = [(read(pred), read(gt)) for pred, gt in pairs[:IN_MEMORY]]
    names = tuple(pred.stem for pred, _ in pairs[:IN_MEMORY])

    def ours(scores: Sequence[str]) -> dict[str, float]:
        measured = [measure(levels, mask > 128, scores=scores) for levels, mask in images]
        rows = Statistics(
            JointHistogram(names, np.stack([image.counts for image in measured])),
            scores=ImageScores.from_records(names, [image.scores for image in measured], np.float64),
        )
        return evaluate(rows, scores, "pysodmetrics")

    timed = Clock()
    for name, scores in SETS.items():
        timed(f"{name}: ours", partial(ours, scores))
        if scores:
            their = partial(peer, images, np.asarray, WEIGHTED_F in scores)
            timed(f"{name}: peer", their)
    return timed.cpu


def import_contenders() -> None:
    """What a process spends its first second on; the memory of calbench alone is measured without it."""
    import py_sod_metrics  # noqa: F401

    time.sleep(0.5)


# ---- memory ----------------------------------------------------------------------------------------------------------


def peak_memory() -> int:
    """Peak resident bytes of this process.

    Linux hands `ru_maxrss` of the parent down to a new process, so its own record is read where there is one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_memory(folder: Path) -> dict[str, float]:
    """Peaks of one process that evaluates one folder: after the imports, after the pixels, after the intervals."""
    peaks = {"imports": peak_memory()}
    start = time.perf_counter()
    run = collect_folders(CollectOptions(str(folder / "pred"), str(folder / "gt")), jobs=1)
    seconds = time.perf_counter() - start
    peaks["collect"] = peak_memory()
    rows = next(iter(run.combinations.values()))
    evaluate(rows, SETS["full"], "calbench", N_BOOT)
    peaks["evaluate"] = peak_memory()
    pixels = int(rows.histogram.counts.sum())
    return {"images": len(rows.names), "pixels": pixels, "seconds": seconds} | peaks


def memory_table(cache: Path, images: int) -> list[dict[str, float]]:
    """Peaks in fresh processes, over the number of images and over their size."""
    table = []
    for count, scale in ((images // 4, 1), (images // 2, 1), (images, 1), (images // 4, 2), (images // 2, 2)):
        folder = image_set(cache / f"{count}x{scale}", count, scale=scale)
        command = [sys.executable, __file__, "--measure-memory", str(folder)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        table.append(json.loads(answer) | {"scale": scale})
    return table


# ---- the report ------------------------------------------------------------------------------------------------------


def load_average() -> str:
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


def summary(rounds: list[Seconds], images: int) -> dict[str, float]:
    """Medians over the rounds: milliseconds an image, and ratios taken within each round."""

    def median(value: Callable[[Seconds], float]) -> float:
        return float(np.median([value(times) for times in rounds]))

    result = {f"{name} [ms]": median(lambda t, n=name: t[n] / images * 1000) for name in rounds[0]}
    for name, scores in SETS.items():
        for what in ("same numbers", "all numbers"):
            against = f"{name}: peer" if scores else "floor"

            def ratio(times: Seconds, name: str = name, what: str = what, against: str = against) -> float:
                ours = times[f"{name}: collect"] + times[f"{name}: {what}"]
                return times[against] / ours if against != "floor" else ours / times[against]

            result[f"{name}: {what} / {against.rsplit(': ', 1)[-1]}"] = median(ratio)
        result[f"{name}: collect / floor"] = median(lambda t, n=name: t[f"{n}: collect"] / t["floor"])
        if scores:
            result[f"{name}: peer / floor"] = median(lambda t, n=name: t[f"{n}: peer"] / t["floor"])
    return result


def print_times(columns: dict[str, dict[str, float]]) -> None:
    print(f"\n{'milliseconds an image':<50}" + "".join(f"{title:>16}" for title in columns))

    def line(label: str, key: str, unit: str = "") -> None:
        print(f"{label:<50}" + "".join(f"{column[key]:>15.2f}{unit:<1}" for column in columns.values()))

    line("floor: decode both PNGs, one bincount", "floor [ms]")
    for name, scores in SETS.items():
        print(f"{name} metrics" if not scores else f"{name} set" if name == "full" else f"set {name}")
        line("  calbench, collect (reads the files)", f"{name}: collect [ms]")
        line("    of which finding, pairing, reading headers", f"{name}: plan [ms]")
        line("  calbench, evaluate: the saliency metrics", f"{name}: same numbers [ms]")
        line("  calbench, evaluate: every metric", f"{name}: all numbers [ms]")
        if scores:
            line("  PySODMetrics", f"{name}: peer [ms]")
            line("  calbench is faster, the saliency metrics", f"{name}: same numbers / peer", "x")
            line("  calbench is faster, every metric", f"{name}: all numbers / peer", "x")
            line("  (at most: PySODMetrics / floor)", f"{name}: peer / floor", "x")
        else:
            line("  collect / floor", f"{name}: collect / floor", "x")
            line("  collect and evaluate every metric / floor", f"{name}: all numbers / floor", "x")
    line(f"  calbench, evaluate with {N_BOOT} replicates", "intervals [ms]")


def print_memory(table: list[dict[str, float]]) -> None:
    print("\npeak memory of a fresh process [MB]       imports   collect  evaluate   collect [ms an image]")
    for row in table:
        label = f"{row['images']:>6} images of {row['pixels'] / row['images'] / 1e3:.0f} kpixel"
        peaks = "".join(f"{row[step] / 1e6:>10.1f}" for step in ("imports", "collect", "evaluate"))
        print(f"{label:<39}{peaks}{row['seconds'] / row['images'] * 1e3:>16.2f}")
    for scale, label in ((1, "one image more"), (2, "one image more, of 4 x the pixels")):
        rows = [row for row in table if row["scale"] == scale]
        images = rows[-1]["images"] - rows[0]["images"]
        growth = "".join(
            f"{(rows[-1][step] - rows[0][step]) / images / 1e6:>10.3f}" for step in ("collect", "evaluate")
        )
        print(f"  {label:<47}{growth}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="images in the set")
    parser.add_argument("--rounds", type=int, default=3, help="how often the contenders take turns")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for the drawn images, used again next time")
    parser.add_argument("--quick", action="store_true", help="150 images, two rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers as JSON")
    parser.add_argument("--measure-memory", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    warnings.simplefilter("ignore")
    if given.measure_memory:
        print(json.dumps(measure_memory(given.measure_memory)))
        return
    images, rounds = (150, 2) if given.quick else (given.images, given.rounds)
    setting = {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        **{name: os.environ[name] for name in THREADS},
        "load before": load_average(),
    }
    print("\n".join(f"{name:<22}{value}" for name, value in setting.items()), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        cache = given.keep or Path(temporary)
        folder = image_set(cache / f"{images}x1", images)
        pairs = [(pred, folder / "gt" / pred.name) for pred in sorted((folder / "pred").iterdir())]
        floor(pairs)  # the files are in the page cache from here on
        import_contenders()
        Parallel(n_jobs=2)(delayed(import_contenders)() for _ in range(4))
        found: dict[str, list[Seconds]] = {"1 process": [], "its CPU": [], "2 processes": []}
        differences: dict[str, float] = {}
        decoded = []
        for _ in range(rounds):
            alone, differences = one_round(folder, pairs, 1)
            found["1 process"].append(alone.wall)
            found["its CPU"].append(alone.cpu)
            found["2 processes"].append(one_round(folder, pairs, 2)[0].wall)
            decoded.append(in_memory(pairs))
        memory = memory_table(cache, images)
    columns = {title: summary(times, images) for title, times in found.items()}
    setting["load after"] = load_average()
    floors = [times["floor"] for times in found["1 process"]]

    print(f"{'load after':<22}{setting['load after']}")
    print(f"{'images':<22}{images}")
    print(f"{'rounds':<22}{rounds}; the floor's slowest / fastest: {max(floors) / min(floors):.2f}")
    print_times(columns)
    print("\ncalbench is faster on decoded images, the saliency metrics, one process's CPU")
    compute = {}
    for name in (name for name, scores in SETS.items() if scores):
        compute[name] = float(np.median([times[f"{name}: peer"] / times[f"{name}: ours"] for times in decoded]))
        print(f"  {name:<50}{compute[name]:>13.2f}x")
    print("\nlargest difference from PySODMetrics over MAE, S, E, F" + " (and weighted F)")
    for name, difference in differences.items():
        print(f"  {name:<50}{difference:>13.1e}")
    print_memory(memory)
    if given.json:
        record = {"setting": setting, "images": images, "rounds": found, "decoded": decoded, "summary": columns}
        record |= {"faster on decoded images": compute, "differences": differences, "memory": memory}
        given.json.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
