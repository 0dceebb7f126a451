"""Methods x seeds: train them on one split, predict the test sets, evaluate, and report: the in-training comparison."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count

from calbench.collect import collect_folders
from calbench.errors import InputError, OptionError, listing, plural
from calbench.evaluate import Settings
from calbench.io.arrays import extension
from calbench.io.files import digest, write_text
from calbench.parallel import check_jobs, parallel_map
from calbench.plan import CollectOptions
from calbench.progress import progress_bar
from calbench.report.build import ReportOptions, draw_plots, write_report
from calbench.report.plots import training_plots
from calbench.report.style import FORMATS
from calbench.results import Results
from calbench.seeds import TRAINING, TrainingRecord, TrainingRun
from calbench.training.checkpoint import load_checkpoint
from calbench.training.config import TrainingConfig
from calbench.training.distributed import World, joined
from calbench.training.image_sets import ImageSet
from calbench.training.predict import PredictOptions, predict_folder
from calbench.training.run import ALPHAS, BEST_FILE, LAST, METRICS, identity, refuse_other_run
from calbench.training.sets import Sets
from calbench.training.train import train

RUNS, TEST_SETS, PREDICTIONS, RESULTS, REPORT = "runs", "test-sets", "predictions", "results", "report"
PARTS = (RUNS, TEST_SETS, PREDICTIONS, RESULTS, REPORT)
CHECKPOINTS = {"last": LAST, "best": BEST_FILE}
SCHEMA = 1


@dataclass(frozen=True)
class Comparison:
    """What is trained and compared.

    Attributes:
        configs: a run each; the method of the first is the baseline of the others.
        sets: the images of all of them.
        masks: how masks are read, options of `CollectOptions`, for evaluation.
        settings: of the evaluation.
        use: which checkpoint predicts: "last", the same number of epochs for all, or "best".
        format: of the predictions.
    """

    configs: tuple[TrainingConfig, ...]
    sets: Sets
    masks: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    use: str = "last"
    format: str | None = None

    def __post_init__(self) -> None:
        names = [run_name(config) for config in self.configs]
        for name in names:
            if names.count(name) > 1:
                raise OptionError(f"{name} is named twice; name each method and each seed once")
        for config in self.configs:
            stored = PredictOptions("", "", "", format=self.format, profile=config.profile).stored_as
            if stored.startswith("png") and config.classes > 1:
                raise OptionError(
                    f"--format {stored} is for binary maps, but there are {config.classes} classes; take npz"
                )


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes:
        output: folder with runs, predictions, results and report.
        results: of the test sets; None where there are none.
        record: the runs behind them.
        page: the report.
    """

    output: Path
    results: Results | None
    record: TrainingRecord | None
    page: Path | None


@dataclass(frozen=True)
class How:
    """Where and by what a comparison is computed, which does not change it.

    Attributes:
        device: "cpu", "cuda" or "auto".
        workers: processes that read pictures, for each that trains.
        jobs: runs at once, each in a process of its own, for CPUs; interrupted, they lose the epoch they are in.
        resume, force: continue, or replace, what an earlier comparison left in the folder.
        tensorboard: write events, too.
        progress: show it on stderr.
        announce: takes lines for people.
        command: that makes the report again.
    """

    device: str = "auto"
    workers: int = 0
    jobs: int = 1
    resume: bool = False
    force: bool = False
    tensorboard: bool = False
    progress: bool = False
    announce: Callable[[str], None] = print
    command: str = ""


def run_name(config: TrainingConfig) -> str:
    """The name of a run among the methods of the results.

    >>> run_name(TrainingConfig("aslp-mc", seed=2))
    'aslp-mc-s2'
    """
    return f"{config.method}-s{config.seed}"


def train_and_compare(comparison: Comparison, output: Path, how: How) -> Compared | None:
    """Train every run, predict the test sets with it, evaluate all of them together, and write the report.

    Finished runs, predictions and rows are kept: with `how.resume`, what an interruption left is continued. Where torchrun
    started several processes, all of them train, and the first one does the rest.

    Args:
        comparison: what is trained and compared.
        output: folder, which gets runs/, test-sets/ (links to their files), predictions/, results/ and report/.
        how: where it is computed.
    Returns:
        What was found; None in the processes that only trained.
    Raises:
        CalbenchError: see `train`, `predict_folder` and `collect_folders`.
    """
    check_jobs(how.jobs)
    with _terminated_as_interrupted():
        return _compared(comparison, output, how)


def _compared(comparison: Comparison, output: Path, how: How) -> Compared | None:
    with joined(how.device) as world:
        if world.size > 1 and how.jobs > 1:
            raise OptionError("--jobs trains several runs side by side, torchrun one in several processes: choose one")
        if world.is_main:
            refuse_output(output, resume=how.resume, force=how.force)
            if how.force:
                clear(output)
        world.wait()
        _train_all(comparison, output, how, world)
    if not world.is_main:
        return None
    sets = comparison.sets
    named = {_folder(output, config) for config in comparison.configs}
    others = sorted(path.parent for path in output.glob(f"{RUNS}/*/seed-*/{LAST}") if path.parent not in named)
    if others:
        how.announce(
            f"{plural(len(others), 'run')} of earlier commands, not named now, left out:\n{listing(map(str, others))}"
        )
    if not sets.tests:
        drawn = draw_plots(list(training_plots(_record(comparison, output))), output / REPORT / "plots", FORMATS)
        how.announce(
            "no test set: --test-list or --test names one; validation numbers are in metrics.csv of each run, "
            f"{' and '.join(plot.title.lower() for plot, _ in drawn)} in {output / REPORT / 'plots'}"
        )
        return Compared(output, None, None, None)
    for images in (*sets.tests, *sets.ood):
        _link(images, output / TEST_SETS / images.name)
    incomplete = _predict_all(comparison, output, how, world)
    results = _evaluated(comparison, output, how, incomplete=incomplete)
    shown = f"{output / TEST_SETS}/{{dataset}}/image"
    page = write_report(
        output / RESULTS, output / REPORT, ReportOptions(title="In-training calibration", images=shown),
        command=how.command, progress=how.progress, announce=how.announce,
    )[-1]  # fmt: skip
    return Compared(output, results, _record(comparison, output), page)


def _train_all(comparison: Comparison, output: Path, how: How, world: World) -> None:
    tasks = [
        _Task(config, comparison.sets, _folder(output, config), replace(how, announce=_silent, progress=False))
        for config in comparison.configs
    ]
    data = identity(comparison.sets.training, comparison.sets.validation)
    for task in tasks:  # all of them, before the first step of any
        if (task.folder / LAST).exists():
            refuse_other_run(load_checkpoint(task.folder / LAST), task.config, data, task.folder)
    if how.jobs == 1:
        for number, task in enumerate(tasks, 1):
            if world.is_main and len(tasks) > 1:
                how.announce(f"run {number} of {len(tasks)}: {run_name(task.config)}")
            _trained(replace(task, how=how), world)
        return
    try:
        with progress_bar("runs", len(tasks), enabled=how.progress) as advance:
            for name, last, lines in parallel_map(_TrainAlone(max(1, cpu_count() // how.jobs)), tasks, how.jobs):
                for line in lines:
                    how.announce(f"{name}: {line}")
                advance(f"{name}: accuracy {last['validation_accuracy']:.4f}, ECE {last['validation_ece']:.4f}")
    except KeyboardInterrupt:
        how.announce(f"{output / RUNS} holds each run up to its last epoch; continue with --resume")
        raise


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """End in order on SIGTERM, too; processes that train side by side would go on alone."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class _Task:
    """One run, as it is sent to a process."""

    config: TrainingConfig
    sets: Sets
    folder: Path
    how: How


@dataclass(frozen=True)
class _TrainAlone:
    """Trains a run in a process that has a share of the cores; gives its name, last row, and lines for people."""

    threads: int

    def __call__(self, task: _Task) -> tuple[str, dict[str, float], list[str]]:
        torch.set_num_threads(self.threads)
        lines: list[str] = []
        with joined(task.how.device) as world:
            last = _trained(replace(task, how=replace(task.how, announce=lines.append)), world)
        return run_name(task.config), last, lines


def _trained(task: _Task, world: World) -> dict[str, float]:
    """Train one run, and give the last row of its history."""
    how = task.how
    run = train(
        task.config, task.sets.training, task.sets.validation, task.folder, world=world, workers=how.workers,
        resume=how.resume, tensorboard=how.tensorboard, progress=how.progress, announce=how.announce,
    )  # fmt: skip
    return run.history[-1]


def _predict_all(comparison: Comparison, output: Path, how: How, world: World) -> bool:
    """Predict every set by every run; whether pictures were left out, as they could not be read."""
    sets = comparison.sets
    damaged: set[str] = set()
    with progress_bar("predictions", len(comparison.configs) * (len(sets.tests) + len(sets.ood)),
                      enabled=how.progress) as advance:  # fmt: skip
        for config in comparison.configs:
            for images in (*sets.tests, *sets.ood):
                options = PredictOptions(
                    checkpoint=str(_folder(output, config) / CHECKPOINTS[comparison.use]),
                    images=str(output / TEST_SETS / images.name / "image"),
                    output=str(output / PREDICTIONS / run_name(config) / images.name),
                    format=comparison.format,
                    profile=config.profile,
                    device=world.device.type,
                    workers=how.workers,
                    precision=config.precision,
                    skip_damaged=config.skip_damaged,
                )
                try:
                    predicted = predict_folder(options, resume=True)
                except InputError:  # of another checkpoint, or in another format
                    predicted = predict_folder(options, force=True)
                damaged |= {f"{images.name}: {file.name}: {file.message}" for file in predicted.damaged}
                advance(f"{run_name(config)} on {images.name}")
    for text in sorted(damaged):
        how.announce(f"left out test picture of {text}")
    return bool(damaged)


def _evaluated(comparison: Comparison, output: Path, how: How, *, incomplete: bool) -> Results:
    """Rows and numbers of all runs on all test sets, in the folder of the results."""
    settings, sets = comparison.settings, comparison.sets
    classes = comparison.configs[0].classes
    folder, predictions = output / RESULTS, f"{output / PREDICTIONS}/{{method}}"
    options = CollectOptions(
        pred=f"{predictions}/{{dataset}}",
        gt=f"{output / TEST_SETS}/{{dataset}}/gt",
        methods=tuple(run_name(config) for config in comparison.configs),
        datasets=tuple(images.name for images in sets.tests),
        ood=tuple(f"{images.name}={predictions}/{images.name}" for images in sets.ood),
        on_missing="skip" if incomplete else "error",
        num_classes=classes if classes > 1 else None,
        layout="CHW" if classes > 1 else None,
        scores=settings.positional_scores,
        extras=settings.extras,
        **comparison.masks,
    )
    asked = repr((options, settings)).encode()
    partial = folder / f"partial-{digest(asked):x}.npz"  # what was asked for before may have been other runs
    run = collect_folders(
        options,
        checkpoint=partial,
        resume_from=partial if partial.exists() else None,
        progress=how.progress,
        announce=how.announce,
        settings=asdict(settings),
        vet=lambda run: Results(run, settings),
    )
    results = Results(run, settings)
    with progress_bar("intervals", len(results.evaluators) + len(results.outside), enabled=how.progress) as advance:
        results.values(advance)
    runs = [
        {
            **asdict(run),
            "metrics": _relative(run.metrics, folder),
            "alphas": None if run.alphas is None else _relative(run.alphas, folder),
        }
        for run in _record(comparison, output).runs
    ]
    write_text(folder / TRAINING, json.dumps({"schema": SCHEMA, "runs": runs}, indent=2) + "\n")
    with progress_bar("diagrams", len(run.combinations), enabled=how.progress) as advance:
        results.write(folder, advance)
    for path in folder.glob("partial-*.npz"):
        path.unlink()
    return results


def _record(comparison: Comparison, output: Path) -> TrainingRecord:
    """The runs of a comparison, and where their tables are."""
    folders = [(config, _folder(output, config)) for config in comparison.configs]
    return TrainingRecord(
        tuple(
            TrainingRun(
                run_name(config),
                config.method,
                config.seed,
                folder / METRICS,
                folder / ALPHAS if (folder / ALPHAS).exists() else None,
            )
            for config, folder in folders
        )
    )


def refuse_output(output: Path, *, resume: bool, force: bool) -> None:
    """Refuse a folder that holds a comparison, unless it is to be continued or replaced, and one that holds other things.

    Raises:
        InputError: it is in use.
        OptionError: both are asked for.
    """
    if resume and force:
        raise OptionError("--resume continues what --force would replace: give one of them")
    held = [name for name in PARTS if any(not path.is_dir() for path in output.glob(f"{name}/**/*"))]
    ours = any(output.glob(f"{RUNS}/*/seed-*/{LAST}"))
    if held and not (ours and (resume or force)):
        if not ours:
            raise InputError(f"{output} already holds {held[0]}/, which train-aslp did not write; choose another -o")
        raise InputError(
            f"{output} already holds {held[0]}/; continue it with --resume, replace it with --force, or choose another -o"
        )


def clear(output: Path) -> None:
    """Remove what an earlier comparison left in the folder."""
    for name in PARTS:
        shutil.rmtree(output / name, ignore_errors=True)


def _folder(output: Path, config: TrainingConfig) -> Path:
    return output / RUNS / config.method / f"seed-{config.seed}"


def _link(images: ImageSet, folder: Path) -> None:
    """Links to the pictures and masks of a set, by its names; copies where links are not allowed."""
    wanted = {}
    for example in images.examples:
        wanted[folder / "image" / f"{example.name}{extension(example.image)}"] = example.image
        if example.mask is not None:
            wanted[folder / "gt" / f"{example.name}{extension(example.mask)}"] = example.mask
    for path in [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]:
        if path not in wanted:
            path.unlink()
    for link, target in wanted.items():
        if link.is_symlink() and link.resolve() == target.resolve():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # of another folder, or a copy, which may be old
        try:
            link.symlink_to(target.resolve())
        except OSError:
            shutil.copyfile(target, link)


def _relative(path: Path, start: Path) -> str:
    return Path(os.path.relpath(path, start)).as_posix()


def _silent(_: str) -> None:
    """Where several runs train side by side, their lines would mix."""
