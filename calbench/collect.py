"""Samples -> statistics: the only pass over pixels. Folders are checked whole before the first pixel is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from calbench.checkpoint import assembled, kept, resumed
from calbench.errors import InputError, OptionError, ShapeError, UnknownName
from calbench.io.arrays import Role
from calbench.io.files import digest, read_bytes
from calbench.io.sample import Sample
from calbench.kernels import IMAGE_SCORES, measure_levels
from calbench.measure import Request, Task, measure_pair, measure_sample, tasks_of
from calbench.parallel import check_jobs, parallel_map
from calbench.plan import CollectOptions, Plan, describe, digest_of, fingerprint, plan_run, verify_codings
from calbench.progress import progress_bar
from calbench.statistics import Run, Statistics
from calbench.statistics.bundle import UNCALIBRATED

CHECKPOINT_SECONDS = 20.0


def collect(
    samples: Iterable[Sample] | None = None,
    *,
    pred: str | Path | None = None,
    gt: str | Path | None = None,
    dataset: str | None = None,
    method: str | None = None,
    scores: Collection[str] = IMAGE_SCORES,
    extras: Collection[str] = (),
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
        extras: profiles that need more than is always collected, see `Settings.extras`.
        jobs: worker processes for folders; None chooses.
    Returns:
        A `Run`; give it to `calbench.evaluate`.
    Raises:
        PairingError, ShapeError, RangeError, FormatError: what is wrong, where, and what to do.

    >>> import numpy as np
    >>> image = Sample("a", np.array([[0, 255]], np.uint8), np.array([[0, 1]]))
    >>> collect([image]).combinations["dataset", "method"].names
    ('a',)
    """
    if (samples is None) == (pred is None):
        raise OptionError("give either samples, or pred= (and gt=, unless the files of predictions hold their labels)")
    if samples is not None:
        samples = [samples] if isinstance(samples, Sample) else samples
        regions = {key: options.pop(key) for key in ("regions", "boundary_width") if key in options}
        if options:
            raise OptionError(f"{', '.join(sorted(options))}: of folders only; samples hold what is to be counted")
        if "aslp" in extras:
            raise OptionError("the ASLP numbers need folders, by pred= and gt=: samples hold no raw mask bytes")
        request = Request(_names(scores), _names(extras), **regions)
        rows = [measure_sample(_checked(sample), request) for sample in samples]
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
    given = CollectOptions(
        str(pred), None if gt is None else str(gt), scores=_names(scores), extras=_names(extras), **options
    )
    return collect_folders(given, jobs=jobs)


def _names(scores: Collection[str]) -> tuple[str, ...]:
    return (scores,) if isinstance(scores, str) else tuple(scores)


def _checked(sample: Sample) -> Sample:
    if not isinstance(sample, Sample):
        raise InputError(
            f"samples hold a {type(sample).__name__}; expected calbench.Sample(name, levels, target), one for each image"
        )
    return sample


def collect_folders(options: CollectOptions, **how: Any) -> Run:
    """Read folders: check all pairs of all combinations, then count; `how` as in `collect_plans`."""
    return collect_plans(*plan_run(options), options, **how)


def collect_plans(
    plans: Sequence[Plan],
    notes: Sequence[str],
    options: CollectOptions,
    *,
    jobs: int | None = None,
    checkpoint: Path | None = None,
    resume_from: Path | None = None,
    progress: bool = False,
    announce: Callable[[str], None] = lambda _: None,
    settings: Mapping[str, Any] | None = None,
    vet: Callable[[Run], Any] = lambda _: None,
) -> Run:
    """Count what was planned.

    Args:
        checkpoint: file that keeps finished rows, written every 20 seconds, at the end, and when interrupted or failing.
        resume_from: statistics to continue from; refused when options or files have changed.
        progress: draw a bar on stderr.
        announce: receives what was inferred, skipped or left out, for people.
        vet: receives the rows of one image of each combination before the others are read, to raise what is sure to fail.
        settings: what the rows are wanted for; recorded, and held against those of `resume_from`.
    """
    for line in describe(plans):
        announce(line)
    notes = [*notes, *(note for plan in plans for note in plan.notes)]
    for note in notes:
        announce(note)
    recorded = asdict(options) | {"images": fingerprint(plans), "pictures": options.images} | dict(settings or {})
    if options.calibrator is not None:
        recorded["calibrator_digest"] = digest(read_bytes(Path(options.calibrator)))

    def current(path: Path, role: Role) -> int:
        return digest_of(path, role, options)

    done = resumed(resume_from, recorded, plans, current) if resume_from is not None else {}
    if done:
        announce(f"resuming: {len(done)} of {sum(len(plan.pairs) for plan in plans)} images are done")
    check_jobs(jobs)
    if not done:
        firsts = [next(tasks_of(plan, options)) for plan in plans]
        vet(assembled({(i, task.pair.name): measure_pair(task) for i, task in enumerate(firsts)}, plans, recorded, ()))
    tasks = [
        (number, task)
        for number, plan in enumerate(plans)
        for task in tasks_of(plan, options)
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
    for plan in plans:
        held = run.ood if plan.folders.ood else run.combinations
        statistics = held[plan.folders.dataset, plan.folders.method]
        verify_codings(plan, statistics)
        spread_notes += _channel_notes(plan, statistics)
    spread_notes = list(dict.fromkeys(spread_notes))
    for note in spread_notes:
        announce(note)
    return replace(run, notes=(*run.notes, *spread_notes))


def calibrated_run(run: Run, path: str | Path, *, allow_overlap: bool = False) -> Run:
    """The statistics of 8-bit binary maps after a calibrator, without a pixel.

    Saliency metrics stay those of the uncalibrated maps, and say so.

    Args:
        run: of 8-bit binary maps.
        path: file of a pixelwise calibrator.
        allow_overlap: whether it may be measured on the images it was fitted on.
    Raises:
        InputError: other predictions, or the images it was fitted on.
    """
    from calbench.calibrators import load_calibrator
    from calbench.calibrators.maps import needs_images
    from calbench.calibrators.origin import images_of, refuse_overlap
    from calbench.calibrators.samples import level_logits

    calibrator = load_calibrator(path)
    if calibrator.needs_images:
        raise InputError(f"{needs_images(calibrator.name)}, with --pred and --gt instead of --stats")
    if calibrator.n_classes_ != 1:
        raise ShapeError(
            f"{path} was fitted on {calibrator.n_classes_} classes; without pixels only 8-bit binary maps can be calibrated"
        )
    probs = calibrator.transform(level_logits())
    parts: list[dict[tuple[str, str], Statistics]] = [{}, {}]
    for part, rows in zip(parts, (run.combinations, run.ood), strict=True):
        for (dataset, method), statistics in rows.items():
            if statistics.calibrator != UNCALIBRATED:
                raise InputError(
                    f"these statistics were calibrated by {statistics.calibrator} before; give those of the maps"
                )
            if not allow_overlap:
                refuse_overlap(calibrator, images_of(statistics), f"{method} on {dataset}")
            new = statistics if calibrator.name == "identity" else measure_levels(statistics, probs)
            part[dataset, method] = new.under({**new.conventions, "calibrator": calibrator.name})
    return replace(run, combinations=parts[0], ood=parts[1], calibrated={})


def _channel_notes(plan: Plan, statistics: Statistics) -> list[str]:
    """Say where luma had to stand for channels that differ slightly."""
    notes = []
    for side, folder in (("pred", plan.folders.pred), ("gt", plan.folders.gt)):
        column = f"{side}_spread"
        if statistics.facts is not None and column in statistics.facts and statistics.facts[column].any():
            spread = statistics.facts[column]
            notes.append(
                f"{folder}: the channels of {int((spread > 0).sum())} files differ by up to {spread.max()} levels; "
                "their luma was read"
            )
    return notes


def _measured(numbered: tuple[int, Task]) -> tuple[tuple[int, str], Statistics]:
    number, task = numbered
    return (number, task.pair.name), measure_pair(task)
