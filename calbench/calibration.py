"""Fit calibrators on some images, measure them on others, and rank them: hold-out, or K-fold by image.

The module is not called as its function, which `calbench.calibrate` is: whichever was imported last would win.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit
from sklearn.base import clone

from calbench.calibrators import Calibrator, load_calibrator, save_calibrator
from calbench.calibrators.maps import MapCalibrator
from calbench.calibrators.origin import origin_of
from calbench.calibrators.samples import level_logits, refuse_calibrated
from calbench.calibrators.temperature import Temperature
from calbench.collect import collect, collect_plans
from calbench.contenders import ALL_CONTENDERS, COMPARED, SAME_ON_BINARY, FitOptions
from calbench.differences import Difference, paired_difference
from calbench.errors import InputError, OptionError, RangeError, UnknownName, listing, plural
from calbench.evaluate import Evaluator, Settings, resampling_units
from calbench.fitting import Fits, ImageSource, LevelSource, Source, TableSource
from calbench.io.files import safe_name
from calbench.io.sample import Sample
from calbench.kernels import measure_levels
from calbench.leaderboard import Calibration, Contender, Leaderboard
from calbench.measure import Task, read_scored_table, tasks_of
from calbench.metrics import METRICS
from calbench.plan import CollectOptions, Plan, plan_run
from calbench.profiles import PROFILES
from calbench.progress import progress_bar
from calbench.results import Key, Results
from calbench.splits import Split, folds, listed, one_holdout
from calbench.statistics import Run, Statistics
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    pass

Names = tuple[str, str]
"""Data set and method."""

FOLDS = 5
HOLDOUT = 0.3
"""The share of images that networks are held out from, unless folds are asked for."""


def calibrate(
    names: str | Sequence[str],
    samples: Iterable[Sample] | None = None,
    *,
    pred: str | Path | None = None,
    gt: str | Path | None = None,
    dataset: str | None = None,
    method: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    cv: int | None = None,
    holdout: float | None = None,
    fit_list: Sequence[str] | None = None,
    max_pixels: int = 500_000,
    rank_by: str = "nll",
    device: str = "cpu",
    allow_overlap: bool = False,
    seed: int = 0,
    ci: float = 0.95,
    n_boot: int = 1000,
    group_by: str | None = None,
    output: str | Path | None = None,
    jobs: int | None = None,
    **options: Any,
) -> Calibration:
    """Fit calibrators on some images, measure them on others, and rank them.

    Args:
        names: calibrators, see `calbench.CALIBRATORS`, or "all".
        samples: images in memory, with their ground truth; instead of folders.
        pred, gt: folders or templates, see `collect`; with any further field of `CollectOptions` (images, ignore_index, ...).
        dataset, method: their names.
        parameters, cv, holdout, fit_list, max_pixels, rank_by, device, allow_overlap: see `FitOptions`.
        seed: of the split, the draw of pixels, the networks and the bootstrap.
        ci, n_boot, group_by: of the intervals, see `Settings`; groups are never split.
        output: folder to write to, as `calbench calibrate` does; None writes nothing.
        jobs: worker processes for folders.
    Returns:
        A `Calibration`: `comparison` (a table), `calibrator(name)`, `results`.
    Raises:
        InputError, FormatError, UnknownName: what is wrong, where, and what to do.

    >>> from calbench.synthetic import samples
    >>> found = calibrate("temperature", samples(20, sharpness=2.5), n_boot=0)
    >>> round(found.calibrator("temperature").temperature_, 1)  # low: 8 bits hide how sure the surest pixels were
    1.8
    """
    fit = FitOptions(
        (names,) if isinstance(names, str) else tuple(names), parameters or {}, cv, holdout,
        None if fit_list is None else tuple(fit_list), max_pixels, rank_by, device, allow_overlap,
    )  # fmt: skip
    settings = Settings(metrics=MEASURED, ci=ci, n_boot=n_boot, seed=seed, group_by=group_by)
    if samples is not None:
        if pred is not None or gt is not None or options:
            raise OptionError("give either samples, or folders by pred= and gt= with their options")
        held = [samples] if isinstance(samples, Sample) else list(samples)
        run = collect(held, dataset=dataset, method=method, scores=())
        blind = [sample.name for sample in held if sample.target is None]
        if blind:
            raise InputError(
                f"{len(blind)} of {plural(len(held), 'sample')} have no target:\n{listing(blind)}\ncalibrators are fitted on "
                "predictions with ground truth; leave these out, or give their targets"
            )
        board = _Board(*next(iter(run.combinations)), _source_of_samples(run, held, fit, seed))
        found = _calibrated([board], fit, settings, run, None)
        if output is not None:
            found.write(Path(output))
        return found
    if pred is None:
        raise OptionError("give either samples, or pred= and gt=")
    if dataset is not None:
        options["datasets"] = (dataset,)
    if method is not None:
        options["methods"] = (method,)
    unknown = sorted(options.keys() - CollectOptions.__dataclass_fields__.keys())
    if unknown:
        raise UnknownName("option", unknown[0], CollectOptions.__dataclass_fields__)
    given = CollectOptions(str(pred), None if gt is None else str(gt), scores=(), **options)
    found = calibrate_folders(given, fit, settings, output=None if output is None else Path(output), jobs=jobs)
    if output is not None:
        found.write(Path(output))
    return found


def calibrate_folders(
    options: CollectOptions,
    fit: FitOptions,
    settings: Settings,
    *,
    output: Path | None = None,
    resume: bool = False,
    jobs: int | None = None,
    progress: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Calibrate folders: check all pairs of all combinations, count, fit, and measure.

    Args:
        output: folder that keeps finished rows and fits; None keeps nothing.
        resume: whether to take up what an interrupted run left there.
        progress: whether to draw bars on stderr.
        announce: receives what was inferred, fitted or left out, for people.
    """
    plans, notes = plan_run(options)
    for plan in plans:
        _check_plan(plan, options, fit, settings)
    partial = None if output is None else output / "partial.npz"
    kept = partial if resume and partial is not None and partial.exists() else None
    run = collect_plans(
        plans, notes, options, jobs=jobs, checkpoint=partial, resume_from=kept, progress=progress, announce=announce
    )
    boards = []
    for plan in plans:
        names = (plan.folders.dataset, plan.folders.method)
        folds_of = None if output is None else output / "folds" / f"{safe_name(names[0])}_{safe_name(names[1])}"
        source = _source_of_plan(plan, options, run.combinations[names], fit, settings.seed, jobs, progress)
        boards.append(_Board(*names, source, folds_of, resume))
    return _calibrated(boards, fit, settings, run, announce, progress=progress)


MEASURED = tuple(
    name
    for name in (*PROFILES["calbench"].metrics, "class_changed")
    if METRICS[name].average == "pixels" and METRICS[name].scope == "id"
)
"""Metrics of calibrated predictions: all of the default profile that pool pixels, and the share of changed classes."""


def _check_plan(plan: Plan, options: CollectOptions, fit: FitOptions, settings: Settings) -> None:
    """Refuse, before the first pixel, what calibrators cannot be fitted on."""
    where = f"{plan.folders.method} on {plan.folders.dataset}"
    if plan.table == "decisions":
        raise InputError(
            f"{where}: the table holds decisions and their confidence; calibrators need the scores of all classes, as .npz"
        )
    refuse_calibrated(plan.folders.pred)
    if plan.folders.gt is None and plan.scores is not None:
        raise OptionError(
            f"{where}: calibrators are fitted on predictions with ground truth; say where it is: --gt DIR"
        )
    binary = plan.scores is not None and plan.scores.binary
    contenders = fit.contenders(binary=binary, images=options.images is not None)
    if plan.many_rows and any(contender.needs_images for contender in contenders):
        raise OptionError(f"{where}: calibrators that look at pictures need one image a file, not volumes or tables")
    if plan.scores is not None:  # a split that is not possible
        names = [pair.name for pair in plan.pairs]
        _splits(contenders, names, resampling_units(names, settings.group_by), fit, settings.seed)


def _source_of_plan(
    plan: Plan,
    options: CollectOptions,
    statistics: Statistics,
    fit: FitOptions,
    seed: int,
    jobs: int | None,
    progress: bool,
) -> Source:
    tasks = list(tasks_of(plan, options))
    if plan.scores is None:
        reading = read_scored_table(tasks[0])
        assert not isinstance(reading, Statistics)
        return TableSource(statistics, reading, fit.max_pixels, seed)
    images = ImageSource(statistics, tasks, fit.max_pixels, seed, jobs, progress)
    return LevelSource(statistics, fit.max_pixels, seed, images) if plan.scores.eight_bit else images


def _source_of_samples(run: Run, samples: Sequence[Sample], fit: FitOptions, seed: int) -> Source:
    statistics = next(iter(run.combinations.values()))
    if statistics.exact_histogram is not None:
        return LevelSource(statistics, fit.max_pixels, seed)
    in_order = sorted(samples, key=lambda sample: sample.name)
    return ImageSource(statistics, in_order, fit.max_pixels, seed, jobs=1)


@dataclass(frozen=True, eq=False)
class _Board:
    """One method on one data set, to be calibrated.

    Attributes:
        source: its images.
        folder: where finished fits are kept; None keeps none.
        resume: whether to take up those that are there.
    """

    dataset: str
    method: str
    source: Source
    folder: Path | None = None
    resume: bool = False


@dataclass(eq=False)
class _Fitted:
    """The fits of one board, contender by contender."""

    splits: dict[str, Split]
    fits: dict[str, list[Calibrator]] = field(default_factory=dict)
    final: dict[str, Calibrator] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _calibrated(
    boards: Sequence[_Board],
    fit: FitOptions,
    settings: Settings,
    run: Run,
    announce: Callable[[str], None] | None,
    *,
    progress: bool = False,
) -> Calibration:
    """Fit all contenders of all boards, measure them on the images that all of them held out, and rank them."""
    say = announce or (lambda _: None)
    before: dict[Names, Statistics] = {}
    after: dict[tuple[str, str, str], Statistics] = {}
    fitted: list[tuple[_Board, _Fitted, Array]] = []
    for board in boards:
        found = _fit_board(board, fit, settings, progress, say)
        held_out = np.all([found.splits[name].held_out.any(0) for name in found.final], axis=0)
        if not held_out.any():
            raise InputError(
                f"{board.method} on {board.dataset}: no image is held out by all contenders; fit fewer of them"
            )
        if isinstance(board.source, LevelSource) and len(found.final) > 1:
            found.notes.append(_about_ends(board.source.statistics.select(np.flatnonzero(held_out)), settings))
            say(f"{board.method} on {board.dataset}: {found.notes[-1]}")
        names = (board.dataset, board.method)
        before[names] = board.source.statistics.select(np.flatnonzero(held_out))
        fits: Fits = {
            name: [
                (calibrator, rows & held_out)
                for calibrator, rows in zip(calibrators, found.splits[name].held_out, strict=True)
                if (rows & held_out).any()
            ]
            for name, calibrators in found.fits.items()
            if name != "identity"
        }
        for name, rows in board.source.measured(fits).items():
            conventions = {**board.source.statistics.conventions, "calibrator": name, "split": found.splits[name].how}
            levels = isinstance(board.source, LevelSource) and not found.final[name].needs_images
            after[(*names, name)] = rows.under(conventions | ({"saliency": "uncalibrated"} if levels else {}))
        fitted.append((board, found, held_out))
    measured = Run(before, run.options, run.notes, calibrated=after)
    every = [*before.values(), *after.values()]
    available = tuple(metric.name for metric in settings.chosen if any(metric.reads.available(rows) for rows in every))
    results = Results(measured, replace(settings, metrics=available))
    leaderboards = tuple(_ranked(board, found, held_out, results, fit) for board, found, held_out in fitted)
    return Calibration(leaderboards, results, fit)


def _fit_board(
    board: _Board, fit: FitOptions, settings: Settings, progress: bool, say: Callable[[str], None]
) -> _Fitted:
    source, where = board.source, f"{board.method} on {board.dataset}"
    binary = source.statistics.reliability("foreground") is not None
    images = isinstance(source, ImageSource | LevelSource) and _has_pictures(source)
    contenders = fit.contenders(binary=binary, images=images)
    units = Evaluator(source.statistics, settings).unit_of_row
    found = _Fitted(_splits(contenders, source.statistics.names, units, fit, settings.seed))
    steps = sum(_steps(c) * (len(found.splits[c.name].fitting) + found.splits[c.name].is_refitted) for c in contenders)
    with progress_bar(f"fitting, {where}", steps, enabled=progress) as advance:
        for contender in contenders:
            if "seed" in contender.get_params() and "seed" not in fit.parameters.get(contender.name, {}):
                contender.set_params(seed=settings.seed)
            split = found.splits[contender.name]
            wanted = [*split.fitting, split.final] if split.is_refitted else list(split.fitting)
            try:
                fits = _fits(contender, wanted, board, advance, units if settings.group_by else None)
            except RangeError as error:
                raise RangeError(f"{where}: {error}") from error
            except InputError as error:
                asked_for = contender.name in fit.names or contender.name == "identity"
                if asked_for or isinstance(error, OptionError):  # a wrong option is no property of the data
                    raise
                found.notes.append(f"{contender.name} is left out: {error}")
                continue
            found.fits[contender.name] = fits[: len(split.fitting)]
            found.final[contender.name] = fits[-1]
    own = [f"{name}: {note}" for name, c in found.final.items() for note in c.notes_]
    drawing = [name for name in found.final if name != "identity"]
    if binary and ALL_CONTENDERS in fit.names:
        same = [f"{name} is {other}" for name, other in SAME_ON_BINARY.items() if name not in found.final]
        found.notes += [f"left out, as on binary maps {' and '.join(same)}"] * bool(same)
    weighted = isinstance(source, LevelSource)  # all pixels count, but for some
    few = [
        name
        for name in drawing
        if not found.final[name].needs_images and (found.final[name].by_image if weighted else name != "temperature")
    ]
    if source.drawn and few:
        found.notes.append(f"{', '.join(few)}: fitted on {source.drawn} (--max-pixels)")
    found.notes += [*source.notes * bool(drawing), *own, *_about_splits(found)]
    for note in found.notes:
        say(f"{where}: {note}")
    return found


def _steps(contender: Calibrator) -> int:
    """Steps of a fit, for the progress bar: the epochs of a network, else one."""
    return int(contender.get_params()["epochs"]) if contender.network else 1


def _has_pictures(source: ImageSource | LevelSource) -> bool:
    images = source.images if isinstance(source, LevelSource) else source
    return images is not None and all(isinstance(item, Task) and item.pair.image for item in images.items)


def _splits(
    contenders: Sequence[Calibrator], names: Sequence[str], units: Array, fit: FitOptions, seed: int
) -> dict[str, Split]:
    """The split of each contender."""
    if fit.fit_list is not None:
        shared = listed(names, units, fit.fit_list, fit.allow_overlap)
    elif fit.holdout is not None:
        shared = one_holdout(units, fit.holdout, seed)
    else:
        shared = folds(units, fit.cv or FOLDS, seed)
    networks = shared
    if fit.cv is None and len(shared.fitting) > 1 and any(contender.network for contender in contenders):
        networks = one_holdout(units, HOLDOUT, seed)
    return {contender.name: networks if contender.network else shared for contender in contenders}


def _about_ends(rows: Statistics, settings: Settings) -> str:
    """Say what keeping levels 0 and 255 off 0 and 1, as all calibrators do, changes by itself."""
    plain = replace(settings, metrics=("ece", "brier"), n_boot=0)
    kept_off = measure_levels(rows, expit(level_logits()))
    values = [
        [Evaluator(part, plain).pooled_value(METRICS[name]).value for name in ("ece", "brier")]
        for part in (rows, kept_off)
    ]
    (ece, brier), (ece_off, brier_off) = values
    return (
        f"calibrators keep levels 0 and 255 half a level off 0 and 1; that alone moves ECE from {ece:.4f} to {ece_off:.4f} "
        f"and Brier from {brier:.4f} to {brier_off:.4f}"
    )


def _about_splits(found: _Fitted) -> list[str]:
    """Say on which images contenders are compared where they were not all split alike."""
    kinds = {id(found.splits[name]): found.splits[name] for name in found.final}
    if len(kinds) == 1:
        return []
    networks = ", ".join(name for name, calibrator in found.final.items() if calibrator.network)
    return [
        f"{networks}: one hold-out of {100 * HOLDOUT:g} % of the images, on which all contenders are compared; --cv {FOLDS} "
        "compares on all images, and fits each network as often"
    ]


def _fits(
    contender: Calibrator,
    wanted: Sequence[Array],
    board: _Board,
    advance: Callable[[], None],
    unit_of_row: Array | None,
) -> list[Calibrator]:
    """The contender, fitted on each set of rows; fits that an earlier run finished are taken up.

    Networks keep the units of rows together, where there are some, when they choose their validation images.
    """
    source = board.source
    paths = [
        None if board.folder is None else board.folder / f"{contender.name}-fit{k}.safetensors"
        for k in range(len(wanted))
    ]
    pictures = _pictures(source) if contender.needs_images else []
    shared = [pictures, None if unit_of_row is None or not contender.network else unit_of_row.tolist()]
    prints = [_fingerprint(contender, source, rows, shared) for rows in wanted]
    kept = [_kept(path, mark) if board.resume else None for path, mark in zip(paths, prints, strict=True)]
    if all(calibrator is not None for calibrator in kept):
        for _ in range(_steps(contender) * len(kept)):
            advance()
        return [calibrator for calibrator in kept if calibrator is not None]
    solved = None
    if isinstance(contender, Temperature) and contender.grid is None:
        solved = source.temperatures(wanted, contender.bounds)
    fits = []
    for number, (rows, path, mark) in enumerate(zip(wanted, paths, prints, strict=True)):
        fitted = kept[number]
        if fitted is None:
            fitted = clone(contender)
            if isinstance(fitted, MapCalibrator):
                groups = None if unit_of_row is None else unit_of_row[rows]
                fitted.fit_scenes(source.scenes(rows), advance=advance, groups=groups)
            elif solved is not None:
                assert isinstance(fitted, Temperature)
                drawn, n_pixels = source.pixels(rows, by_image=False), int(source.statistics.n_pixels[rows].sum())
                fitted.adopt(solved[0], number, solved[1][:, number], n_pixels, drawn.logits, drawn.target)
            else:
                source.pixels(rows, by_image=fitted.by_image).fit(fitted, advance, unit_of_row)
            fitted.origin_ = origin_of(board.dataset, board.method, source.statistics.select(np.flatnonzero(rows)))
            fitted.origin_["fingerprint"] = mark
            if path is not None:
                save_calibrator(fitted, path)
        if kept[number] is not None or not contender.network:
            for _ in range(_steps(contender)):
                advance()
        fits.append(fitted)
    return fits


def _pictures(source: Source) -> list[tuple[str, int, int]]:
    """The pictures of a source, and what tells whether one has changed."""
    images = source.images if isinstance(source, LevelSource) else source
    assert isinstance(images, ImageSource)
    paths = [item.pair.image for item in images.items if isinstance(item, Task) and item.pair.image is not None]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def _fingerprint(contender: Calibrator, source: Source, rows: Array, shared: Sequence[Any]) -> str:
    """What a fit depends on, so that one that was interrupted is taken up only where all of it is the same."""
    what = [contender.name, contender.get_params(), source.max_pixels, source.seed, rows.tolist(), *shared]
    facts = source.statistics.facts  # digests of the files among them
    what += [source.statistics.names, source.statistics.conventions, None if facts is None else facts.values.tolist()]
    return hashlib.blake2b(json.dumps(what, default=str).encode(), digest_size=16).hexdigest()


def _kept(path: Path | None, mark: str) -> Calibrator | None:
    """A finished fit of the same data and options."""
    if path is None or not path.exists():
        return None
    calibrator = load_calibrator(path)
    return calibrator if calibrator.origin_.get("fingerprint") == mark else None


def _ranked(board: _Board, found: _Fitted, held_out: Array, results: Results, fit: FitOptions) -> Leaderboard:
    """The contenders by the metric that ranks them, each compared with doing nothing and with the best."""
    evaluators = {
        name: results.evaluators[Key(board.dataset, board.method, calibrator=Contender.column_of(name))]
        for name in found.final
    }
    before = evaluators["identity"]
    compared = [METRICS[name] for name in COMPARED if METRICS[name].reads.available(before.statistics)]
    by = METRICS[fit.rank_by]
    score = {name: evaluator.pooled_value(by).value for name, evaluator in evaluators.items()}
    sign = -1 if by.better == "higher" else 1
    order = sorted(score, key=lambda name: (not np.isfinite(score[name]), sign * score[name], name != "identity"))
    contenders = []
    for rank, name in enumerate(order, start=1):
        differences: tuple[Difference, ...] = tuple(
            paired_difference(before, evaluators[name], metric) for metric in compared
        )
        to_best = paired_difference(evaluators[order[0]], evaluators[name], by)
        contenders.append(Contender(found.final[name], evaluators[name].statistics, differences, rank, to_best))
    return Leaderboard(
        board.dataset, board.method, tuple(contenders), {name: found.splits[name] for name in found.final},
        board.source.statistics.names, held_out, tuple(found.notes), before.unit,
    )  # fmt: skip
