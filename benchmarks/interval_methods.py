"""What 95 % intervals cover: calbench's, the percentile and the basic bootstrap over images, and one over pixels.

    python benchmarks/interval_methods.py --figure docs/images/interval-coverage.png
    python benchmarks/interval_methods.py --quick      # in seconds, to see that it runs

Every seed is a set of images of its own from one population (`calbench.synthetic`, 32 x 48 pixels that depend on each other
as in photographs), whose truth follows by integration. A set of n images is the first n of its seed; methods of different
sharpness see the same images. The contenders, T the metric, T* its replicates:

    calbench    what `calbench evaluate` prints: the norm interval of an ECE, else the widened percentile interval; of a
                difference what `paired_difference` gives: the box of two ECEs, else the widened percentile interval
    percentile  the quantiles of T* over resampled images
    basic       2 T less these quantiles
    pixels      the quantiles of T* over resampled pixels, as if they were independent: multinomial draws of as many pixels
                as there are from the pooled 2 x 256 counts

Coverage and mean width of single values, then of paired differences B - A; p<.05 is the share of the seeds in which the
paired bootstrap tells the two apart at 5 %: power, or level where they are equal.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from coverage import SCENE, TARGETS, true_values
from joblib import Parallel, delayed
from PIL import Image
from scipy.optimize import brentq

from calbench.differences import paired_difference
from calbench.evaluate import Evaluator, Settings
from calbench.progress import progress_bar
from calbench.report.style import COLUMN, GREY, INK, TEXT, looks, new_figure, rendered, tidy
from calbench.statistics import JointHistogram, Statistics
from calbench.synthetic import histograms, sharpness_for_ece

Array = np.ndarray

SIZES = (20, 100, 500)
"""Images a set."""
METRIC_NAMES = ("ece", "nll")
CONTENDERS = ("calbench", "percentile", "basic", "pixels")
PAIRED_CONTENDERS = CONTENDERS[:3]
DRAWN = ("calbench", "percentile", "pixels")
UNDER = 0.01
"""True ECE of the under-confident method, which follows those of TARGETS."""
PAIRS = {"0.05, 0.002": (3, 1), "0.01, 0.002": (2, 1), "0.01 over, 0.01 under": (2, 4)}
"""True ECEs of A and B, and their places among the methods."""
LEVEL = 0.95
BOOT_SEED = 10**6
"""Far from the seeds of the images: numpy's streams of `s` and of `[s, 0]`, which is image 0 of set s, are the same."""


@dataclass(frozen=True)
class Found:
    """Intervals on one set of images, or on all sets, with a leading axis of seeds.

    Attributes:
        single: limits of each method of TARGETS, `(sizes, targets, metrics, contenders, 2)`.
        paired: limits of the differences, `(sizes, pairs, metrics, paired contenders, 2)`.
        p_value: of the differences, `(sizes, pairs, metrics)`.
    """

    single: Array
    paired: Array
    p_value: Array


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=400, help="sets of images")
    parser.add_argument("--boot", type=int, default=1000, help="bootstrap replicates")
    parser.add_argument("--quick", action="store_true", help="10 seeds and 200 replicates")
    parser.add_argument("--jobs", type=int, default=1, help="processes; -1 for all cores")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the coverage of the ECE, PNG")
    given = parser.parse_args()
    seeds, n_boot = (10, 200) if given.quick else (given.seeds, given.boot)
    started = time.perf_counter()
    sharpnesses = [*(sharpness_for_ece(target, scene=SCENE) for target in TARGETS), under_confident(UNDER)]
    truths = np.array([[true_values(s, METRIC_NAMES)[name] for name in METRIC_NAMES] for s in sharpnesses])
    found = measured(seeds, n_boot, sharpnesses, given.jobs)
    error = 100 * np.sqrt(LEVEL * (1 - LEVEL) / seeds)
    print(f"{seeds} sets of images of 32 x 48 pixels, {n_boot} replicates, nominal {LEVEL:.0%}.")
    print(f"Each cell: {' / '.join(map(str, SIZES))} images. Standard error of a coverage of 95 %: {error:.1f}.")
    print("\n".join(tables(found, truths)))
    print(f"\n{time.perf_counter() - started:.0f} s")
    if given.figure:
        given.figure.write_bytes(
            figure(coverage(found.single, truths[: len(TARGETS)])[:, :, METRIC_NAMES.index("ece")])
        )


def under_confident(target: float) -> float:
    """The sharpness below 1 whose true ECE is `target`."""
    return float(brentq(lambda sharpness: true_values(sharpness, ["ece"])["ece"] - target, 0.5, 1.0))


def measured(seeds: int, n_boot: int, sharpnesses: Sequence[float], jobs: int) -> Found:
    """The intervals of all seeds."""
    works = (delayed(one_set)(seed, n_boot, sharpnesses) for seed in range(seeds))
    runs = []
    with progress_bar("sets of images", seeds, enabled=True) as advance:
        for run in Parallel(n_jobs=jobs, return_as="generator")(works):
            runs.append(astuple(run))
            advance()
    return Found(*map(np.stack, zip(*runs, strict=True)))


def one_set(seed: int, n_boot: int, sharpnesses: Sequence[float]) -> Found:
    """The intervals on the first images of one seed."""
    settings = Settings(metrics=METRIC_NAMES, ci=LEVEL, n_boot=n_boot, seed=BOOT_SEED + seed)
    drawn = histograms(max(SIZES), sharpnesses, seed=seed, scene=SCENE)
    generator = np.random.default_rng([BOOT_SEED + seed, 1])
    single, paired, p_values = [], [], []
    for n in SIZES:
        methods = [Evaluator(Statistics(rows.select(slice(n))), settings) for rows in drawn]
        single.append([single_limits(method, generator) for method in methods[: len(TARGETS)]])
        differences = [paired_limits(methods[a], methods[b]) for a, b in PAIRS.values()]
        paired.append([limits for limits, _ in differences])
        p_values.append([p_value for _, p_value in differences])
    return Found(np.array(single), np.array(paired), np.array(p_values))


def single_limits(method: Evaluator, generator: np.random.Generator) -> Array:
    """Limits of each metric by each contender, `(metrics, contenders, 2)`."""
    pixels = resampled_pixels(method.pooled, method.settings.n_boot, generator)
    limits = []
    for metric in method.metrics:
        value = method.pooled_value(metric)
        drawn = metric.function(metric.reads(pixels), **method.settings.options_of(metric))
        over_images = image_bootstraps(value.value, method.replicated(metric))
        limits.append([(value.low, value.high), *over_images, quantiles(drawn)])
    return np.array(limits)


def paired_limits(before: Evaluator, after: Evaluator) -> tuple[Array, list[float]]:
    """Limits of the difference of each metric by each contender, `(metrics, paired contenders, 2)`, and p-values."""
    limits, p_values = [], []
    for metric in before.metrics:
        found = paired_difference(before, after, metric)
        drawn = after.replicated(metric) - before.replicated(metric)
        limits.append([(found.low, found.high), *image_bootstraps(found.difference, drawn)])
        p_values.append(found.p_value)
    return np.array(limits), p_values


def image_bootstraps(value: float, replicates: Array) -> tuple[Array, Array]:
    """The percentile and the basic limits."""
    percentile = quantiles(replicates)
    return percentile, 2 * value - percentile[::-1]


def quantiles(replicates: Array) -> Array:
    """The two ends of the middle 95 %, `(2,)`."""
    return np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])


def resampled_pixels(pooled: Statistics, n_boot: int, generator: np.random.Generator) -> Statistics:
    """Replicates of the pooled pixels, each drawn on its own; spatial dependence and images are forgotten."""
    assert pooled.exact_histogram is not None
    counts = pooled.exact_histogram.counts
    drawn = generator.multinomial(counts.sum(), counts.ravel() / counts.sum(), size=n_boot)
    return Statistics(JointHistogram((), drawn.reshape(n_boot, *counts.shape)))


def coverage(limits: Array, truths: Array) -> Array:
    """Share of the seeds whose interval holds the truth, %: `(sizes, rows, metrics, contenders)`.

    Args:
        limits: `(seeds, sizes, rows, metrics, contenders, 2)`.
        truths: `(rows, metrics)`.
    """
    truth = truths[:, :, None]
    return 100 * np.mean((limits[..., 0] <= truth) & (truth <= limits[..., 1]), axis=0)


def mean_width(limits: Array) -> Array:
    """Mean width over the seeds, in 1e-3, shaped as `coverage`."""
    return 1000 * np.mean(limits[..., 1] - limits[..., 0], axis=0)


def tables(found: Found, truths: Array) -> Iterator[str]:
    """Markdown: coverage and width of single values, then of differences."""
    single = [[f"`{name}`", f"{target:g}"] for name in METRIC_NAMES for target in TARGETS]
    heads = ["metric", "true ECE", *CONTENDERS]
    yield from table("Coverage, %", heads, single, coverage(found.single, truths[: len(TARGETS)]), ".0f")
    yield from table("Mean width, 1e-3", heads, single, mean_width(found.single), ".2g")
    gains = np.array([truths[b] - truths[a] for a, b in PAIRS.values()])
    paired = [
        [f"`{name}`", pair, f"{round(1000 * gain, 3) + 0.0:.3g}"]
        for name, column in zip(METRIC_NAMES, gains.T, strict=True)
        for pair, gain in zip(PAIRS, column, strict=True)
    ]
    told_apart = 100 * np.mean(found.p_value < 1 - LEVEL, axis=0)[..., None]
    covered = np.concatenate([coverage(found.paired, gains), told_apart], axis=-1)
    heads = ["metric", "true ECEs of A, B", "true B − A, 1e-3", *PAIRED_CONTENDERS]
    yield from table("Differences B − A: coverage, %", [*heads, "p<.05"], paired, covered, ".0f")
    yield from table("Differences B − A: mean width, 1e-3", heads, paired, mean_width(found.paired), ".2g")


def table(
    title: str, heads: Sequence[str], labels: Sequence[Sequence[str]], numbers: Array, form: str
) -> Iterator[str]:
    """A Markdown table of `(sizes, rows, metrics, columns)` numbers: a line a metric and row, all sizes in a cell."""
    lines = np.moveaxis(numbers, (2, 1, 3, 0), (0, 1, 2, 3)).reshape(len(labels), numbers.shape[3], len(SIZES))
    yield from ("", f"**{title}**", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|")
    for label, line in zip(labels, lines, strict=True):
        cells = [" / ".join(f"{number:{form}}" for number in cell) for cell in line]
        yield f"| {' | '.join([*label, *cells])} |"


def figure(covered: Array) -> bytes:
    """Coverage of the ECE against the number of images, a panel a true ECE, from `(sizes, targets, contenders)`, as PNG."""
    picture = new_figure(COLUMN, 0.95 * COLUMN)
    panels = picture.subplots(2, 2, sharex=True, sharey=True).ravel()
    look = looks(DRAWN)
    for target, values, ax in zip(TARGETS, covered.transpose(1, 2, 0), panels, strict=True):
        ax.axhline(100 * LEVEL, color=GREY, linewidth=2)
        for aside, name in zip((0.93, 1.0, 1.07), DRAWN, strict=True):
            ax.plot(
                np.multiply(SIZES, aside), values[CONTENDERS.index(name)], label=name, color=look[name].colour,
                linestyle=look[name].dash, marker=look[name].marker, markersize=3.5, linewidth=1.1, clip_on=False,
            )  # fmt: skip
        ax.set(title=f"true ECE {target:g}", xscale="log", xlim=(17, 600), ylim=(0, 100))
        ax.set_xticks(SIZES, [str(n) for n in SIZES])
        ax.minorticks_off()
        tidy(ax)
    picture.supxlabel("images", fontsize=TEXT + 1, color=INK)
    picture.supylabel("coverage of 95 % intervals, %", fontsize=TEXT + 1, color=INK)
    handles, names = panels[0].get_legend_handles_labels()
    picture.legend(handles, names, loc="outside upper center", ncols=len(names), fontsize=TEXT, frameon=False)
    small = io.BytesIO()
    # 64 colours hold a line drawing in a third of the space
    Image.open(io.BytesIO(rendered(picture, ["png"])["png"])).convert("RGB").quantize(64).save(
        small, "png", optimize=True
    )
    return small.getvalue()


if __name__ == "__main__":
    main()
