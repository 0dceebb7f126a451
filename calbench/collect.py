"""Samples -> statistics: the only pass over pixels. Folders are checked whole before the first pixel is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calbench.checkpoint import assembled, kept, resumed
from calbench.errors import InputError, OptionError, RangeError, ShapeError, UnknownName
from calbench.io.coding import MaskCoding, read_mask
from calbench.io.images import FORMATS, resize_bilinear
from calbench.io.pairing import Pair
from calbench.io.sample import Sample
from calbench.kernels import IMAGE_SCORES, measure, measure_aslp
from calbench.parallel import parallel_map
from calbench.plan import PRED_THRESHOLD, CollectOptions, Plan, describe, fingerprint, plan_run, verify_codings
from calbench.progress import progress_bar
from calbench.statistics import ImageFacts, ImageScores, JointHistogram, Run, Statistics

CHECKPOINT_SECONDS = 20.0


@dataclass(frozen=True)
class Task:
    """Everything a worker needs for one image: file names and rules, a few hundred bytes."""

    pair: Pair
    coding: MaskCoding
    fov: MaskCoding | None
    resize: bool
    scores: tuple[str, ...]
    raw_bytes: bool


def collect(
    samples: Iterable[Sample] | None = None,
    *,
    pred: str | Path | None = None,
    gt: str | Path | None = None,
    dataset: str | None = None,
    method: str | None = None,
    scores: Collection[str] = IMAGE_SCORES,
    jobs: int | None = None,
    **options: Any,
) -> Run:
    """Read every pixel once and keep one row of statistics an image.

    Either from folders (`pred=`, `gt=`, and any field of `CollectOptions`), or from `samples`, an iterable of `Sample`
    that may be a generator: one image is held at a time.

    Args:
        samples: images in memory.
        dataset, method: their names; with folders, the names to give or, with placeholders, to keep.
        pred, gt: folders or templates.
        scores: positional scores to compute.
        jobs: worker processes for folders; None chooses.
    Returns:
        A `Run`; give it to `calbench.evaluate`.
    Raises:
        PairingError, ShapeError, RangeError, FormatError: what is wrong, where, and what to do.

    >>> image = Sample("a", np.array([[0, 255]], np.uint8), np.array([[0, 1]]))
    >>> collect([image]).combinations["dataset", "method"].names
    ('a',)
    """
    if (samples is None) == (pred is None or gt is None):
        raise OptionError("give either samples, or both pred= and gt=")
    if samples is not None:
        samples = [samples] if isinstance(samples, Sample) else samples
        if options:
            raise OptionError(f"{', '.join(sorted(options))}: of folders only; samples hold what is to be counted")
        rows = [measure_sample(_checked(sample), scores=_names(scores)) for sample in samples]
        if not rows:
            raise InputError("there are no samples to collect; expected at least one calbench.Sample")
        return Run({(dataset or "dataset", method or "method"): Statistics.concat(rows)})
    if method is not None:
        options["methods"] = (method,)
    if dataset is not None:
        options["datasets"] = (dataset,)
    unknown = sorted(options.keys() - CollectOptions.__dataclass_fields__.keys())
    if unknown:
        raise UnknownName("option", unknown[0], CollectOptions.__dataclass_fields__)
    return collect_folders(CollectOptions(str(pred), str(gt), scores=_names(scores), **options), jobs=jobs)


def _names(scores: Collection[str]) -> tuple[str, ...]:
    return (scores,) if isinstance(scores, str) else tuple(scores)


def _checked(sample: Sample) -> Sample:
    if not isinstance(sample, Sample):
        raise InputError(
            f"samples hold a {type(sample).__name__}; expected calbench.Sample(name, levels, target), one for each image"
        )
    return sample


def measure_sample(sample: Sample, *, scores: tuple[str, ...] = IMAGE_SCORES) -> Statistics:
    """One row from one image in memory."""
    measured = measure(sample.levels, sample.target, sample.valid, scores=scores)
    histogram = JointHistogram((sample.name,), measured.counts[None])
    table = ImageScores.from_records((sample.name,), [measured.scores], np.float64)
    return Statistics(histogram, table, conventions={"input": "levels", "pred_threshold": PRED_THRESHOLD})


def collect_folders(
    options: CollectOptions,
    *,
    jobs: int | None = None,
    checkpoint: Path | None = None,
    resume_from: Path | None = None,
    progress: bool = False,
    announce: Callable[[str], None] = lambda _: None,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Read folders: check all pairs of all combinations, then count.

    Args:
        checkpoint: file that keeps finished rows, written every 20 seconds, at the end, and when interrupted or failing.
        resume_from: statistics to continue from; refused when options or files have changed.
        progress: draw a bar on stderr.
        announce: receives what was inferred, skipped or left out, for people.
        settings: what the rows are wanted for; recorded, and held against those of `resume_from`.
    """
    plans, notes = plan_run(options)
    for line in describe(plans):
        announce(line)
    notes = [*notes, *(note for plan in plans for note in plan.notes)]
    for note in notes:
        announce(note)
    recorded = asdict(options) | {"images": fingerprint(plans)} | dict(settings or {})
    done = resumed(resume_from, recorded, plans) if resume_from is not None else {}
    if done:
        announce(f"resuming: {len(done)} of {sum(len(plan.pairs) for plan in plans)} images are done")
    tasks = [
        (number, task)
        for number, plan in enumerate(plans)
        for task in _tasks(plan, options)
        if (number, task.pair.name) not in done
    ]
    with (
        kept(done, checkpoint, recorded, plans) as save,
        progress_bar("images", len(tasks), enabled=progress) as advance,
    ):
        saved = time.monotonic()
        for key, row in parallel_map(_measured, tasks, jobs):
            done[key] = row
            advance()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
        save()  # what follows may be interrupted, too
    run = assembled(done, plans, recorded, notes)
    spread_notes = []
    for plan, statistics in zip(plans, run.combinations.values(), strict=True):
        verify_codings(plan, statistics)
        spread_notes += _channel_notes(plan, statistics)
    spread_notes = list(dict.fromkeys(spread_notes))
    for note in spread_notes:
        announce(note)
    return replace(run, notes=(*run.notes, *spread_notes))


def measure_pair(task: Task) -> Statistics:
    """One row from the files of one image."""
    pair, coding = task.pair, task.coding
    pred = FORMATS[pair.pred.suffix.lower()](pair.pred)
    if pred.palette:
        raise RangeError(
            f"{pair.pred} has a coloured palette: its values are indices, not probabilities; save the map as 8-bit grey"
        )
    gt = read_mask(pair.gt)
    levels = pred.levels
    resized = levels.shape != gt.levels.shape
    if resized:
        if not task.resize:
            raise ShapeError(f"{pair.pred} is {levels.shape}, its mask {gt.levels.shape}; did it change meanwhile?")
        levels = resize_bilinear(levels, gt.levels.shape)
    foreground = coding.foreground(gt.levels)
    void = named = coding.void(gt)  # named: by the mask file itself
    fov_facts = {"fov_bits": 0, "fov_max": 0, "fov_digest": 0}
    if pair.mask is not None and task.fov is not None:
        fov = read_mask(pair.mask)
        outside = ~task.fov.foreground(fov.levels)
        void = outside if void is None else void | outside
        fov_facts = {"fov_bits": fov.bits, "fov_max": int(fov.levels.max(initial=0)), "fov_digest": fov.digest}
    valid = None if void is None else ~void
    measured = measure(levels, foreground, valid, scores=task.scores)
    known = gt.levels if named is None else gt.levels[~named]
    facts = {
        "height": gt.levels.shape[0],
        "width": gt.levels.shape[1],
        "void": 0 if void is None else np.count_nonzero(void),
        "void_foreground": 0
        if void is None
        else np.count_nonzero(foreground & (void if named is None else void & ~named)),
        "void_nonzero": 0 if void is None else np.count_nonzero(levels[void]),
        "gt_one": np.count_nonzero(known == 1),
        "gt_between": known.size - sum(np.count_nonzero(known == value) for value in (0, 1, 255)),
        "gt_max": int(known.max(initial=0)),
        "gt_bits": gt.bits,
        "gt_channels": gt.channels,
        "pred_bits": pred.bits,
        "pred_channels": pred.channels,
        "gt_spread": gt.spread,
        "pred_spread": pred.spread,
        "resized": int(resized),
        "pred_digest": pred.digest,
        "gt_palette": int(gt.palette),
        "gt_digest": gt.digest,
        **fov_facts,
    }
    names = (pair.name,)
    return Statistics(
        JointHistogram(names, measured.counts[None]),
        ImageScores.from_records(names, [measured.scores], np.float64),
        ImageFacts.from_records(names, [facts], np.int64),
        measure_aslp(pair.name, levels, gt.levels, valid) if task.raw_bytes else None,
    )


def _channel_notes(plan: Plan, statistics: Statistics) -> list[str]:
    """Say where luma had to stand for channels that differ slightly."""
    notes = []
    for side, folder in (("pred", plan.folders.pred), ("gt", plan.folders.gt)):
        spread = statistics.facts[f"{side}_spread"] if statistics.facts else np.zeros(0)
        if spread.any():
            notes.append(
                f"{folder}: the channels of {np.count_nonzero(spread)} files differ by up to {spread.max()} levels; "
                "their luma was read"
            )
    return notes


def _measured(numbered: tuple[int, Task]) -> tuple[tuple[int, str], Statistics]:
    number, task = numbered
    return (number, task.pair.name), measure_pair(task)


def _tasks(plan: Plan, options: CollectOptions) -> Iterator[Task]:
    resize = options.on_mismatch == "resize-pred"
    for pair in plan.pairs:
        yield Task(pair, plan.coding, plan.fov, resize, options.scores, options.raw_bytes)
