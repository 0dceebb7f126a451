"""The command line: parse, call one function, print. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from calbench import __version__
from calbench.errors import CalbenchError, InputError, plural
from calbench.evaluate import Settings
from calbench.io.pairing import refuse_mixing
from calbench.metrics import METRICS
from calbench.options import (
    CALIBRATED,
    CONFIG,
    IMAGES,
    INPUT,
    INTERVALS,
    JOBS,
    JSON,
    NAMES,
    NUMBERS,
    OUTPUT,
    PARTS,
    QUIET,
    announcer,
    command_line,
    parsed_parameters,
    split_names,
    with_options,
)
from calbench.plan import CollectOptions
from calbench.profiles import PROFILES
from calbench.training.commands import losses, predict, train_aslp


class _Group(click.Group):
    """Turns calbench's errors into text and an exit code, here and nowhere else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _one_interrupt():
                return super().invoke(ctx)
        except CalbenchError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"calbench: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("calbench: interrupted", err=True)
            ctx.exit(130)
        except BrokenPipeError:  # the reader of stdout has gone, as `head` does; files are written before
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            where = f" {error.filename}" if error.filename else ""
            click.echo(
                f"calbench: cannot read or write{where}: {error.strerror or error}; is there room, and permission?",
                err=True,
            )
            ctx.exit(1)


@contextmanager
def _one_interrupt() -> Iterator[None]:
    """Let the first Ctrl-C end the run and ignore those after it, which would break off what it leaves in order."""

    def interrupt(*_: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, before)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="calbench")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Measure the calibration of dense classification models.

    \b
    Start with:
      calbench demo
      calbench check    --pred 'preds/{method}/{dataset}' --gt 'data/{dataset}/GT'
      calbench evaluate --pred 'preds/{method}/{dataset}' --gt 'data/{dataset}/GT' -o results
    """


@main.command("evaluate")
@with_options(
    INPUT,
    PARTS,
    [click.option("--stats", type=click.Path(path_type=Path), metavar="FILE",
                  help="Evaluate the statistics of an earlier run instead of folders; no pixel is read.")],
    CALIBRATED,
    IMAGES,
    OUTPUT,
    [click.option("--resume", is_flag=True, help="Continue an interrupted run in OUT.")],
    NUMBERS, JOBS, QUIET, CONFIG,
)  # fmt: skip
def _evaluate(
    stats: Path | None,
    output: Path | None,
    force: bool,
    resume: bool,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Evaluate folders of predictions against ground truth.

    Binary maps (8-bit, 16-bit, float), probabilities or logits of several classes, and classification tables: PNG, TIFF,
    .npy, .npz, NIfTI, CSV. Calibration, saliency and segmentation metrics with intervals that resample images, in one pass
    over the pixels. Every pair of every method and data set is checked before the first pixel is counted. Memory: about
    60 KB an image, whatever its size; up to 7 KB more for each class.

    \b
    Examples:
      calbench evaluate --pred preds/mynet --gt data/SOD/GT
      calbench evaluate --pred 'preds/{method}/{dataset}' --gt 'data/{dataset}/GT' -o results
      calbench evaluate --pred drive/pred/mynet --gt drive/gt --mask drive/fov --group-by '^(\\d+)_'
      calbench evaluate --pred 'logits/{method}' --gt labels --ignore-index 255 --regions -o results
      calbench evaluate --pred 'preds/{method}/SOD' --gt data/SOD/GT --ood 'textures=preds/{method}/DTD'
      calbench evaluate --pred 'tables/{method}.csv'
      calbench evaluate --stats results/stats.npz --bins 30 -o results30
      calbench evaluate --pred preds/mynet --gt data/SOD/GT --calibrator fits/calibrators/temperature.safetensors
    """
    from calbench.collect import calibrated_run, collect_folders
    from calbench.findings import brief_lines
    from calbench.progress import progress_bar
    from calbench.report.tables import console, headline_tables
    from calbench.results import Results
    from calbench.statistics.storage import load_run

    if given["allow_overlap"] and given["calibrator"] is None:
        raise click.UsageError("--allow-overlap is about --calibrator, which is not given")
    if given["images"] is not None and given["calibrator"] is None:
        raise click.UsageError("--images are for a --calibrator that looks at them, and none is given")
    say = announcer(quiet)
    settings = _settings(given)
    partial = output / "partial.npz" if output else None
    finished = output / "stats.npz" if output else None
    _prepare(output, given, force=force, resume=resume)
    if stats is not None:
        _refuse_with_stats()
        run = load_run(stats)
        if given["calibrator"] is not None:
            run = calibrated_run(run, given["calibrator"], allow_overlap=given["allow_overlap"])
    else:
        run = collect_folders(
            _collect_options(given, settings),
            jobs=jobs,
            checkpoint=partial,
            resume_from=next((path for path in (partial, finished) if resume and path and path.exists()), None),
            progress=not quiet,
            announce=say,
            settings=asdict(settings),
            vet=lambda run: Results(run, settings),
        )
    results = Results(run, settings)
    with progress_bar("intervals", len(results.evaluators) + len(results.outside), enabled=not quiet) as advance:
        results.values(advance)
    for warning in results.warnings:
        say(warning)
    shown = ("error",) if quiet else (("error", "warning", "note") if verbose else ("error", "warning"))
    for line in brief_lines([finding for finding in results.findings if finding.severity in shown]):
        click.echo(line, err=True)
    if output is not None and partial is not None:
        with progress_bar("diagrams", len(run.combinations), enabled=not quiet) as advance:
            written = results.write(output, advance)
        partial.unlink(missing_ok=True)
        plots = sum(path.suffix == ".png" for path in written)
        names = ", ".join(path.name for path in written if path.suffix != ".png")
        say(f"wrote {names} and {plural(plots, 'diagram')} in plots/ to {output}")
    if as_json:
        click.echo(json.dumps(results.to_json(), indent=2, ensure_ascii=False))
    else:
        screen = console()
        for table in headline_tables(results):
            screen.print(table)


@main.command("calibrate")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@with_options(
    INPUT,
    IMAGES,
    [
        click.option("--cv", type=int, metavar="K", help="Folds by image. Default: 5; for networks one hold-out of 0.3."),
        click.option("--holdout", type=float, metavar="F", help="Share of images held out, instead of folds."),
        click.option("--fit-list", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
                     help="Names of the images to fit on, one a line; all others are held out."),
        click.option("--allow-overlap", is_flag=True, help="Even measure calibrators on images they were fitted on."),
        click.option("--set", "parameters", multiple=True, metavar="NAME.KEY=VALUE",
                     help="Parameter of a calibrator, such as selective.t_wrong=2 (repeatable)."),
        click.option("--max-pixels", type=int, default=500_000, show_default=True, metavar="N",
                     help="Most pixels that a fit draws, the same share of each image, where it does not use all."),
        click.option("--rank-by", default="nll", show_default=True, metavar="METRIC",
                     help="What ranks the contenders: nll, brier, ece, aece, accuracy or miou."),
        click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
                     help="Where networks are trained."),
        click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="OUT",
                     help="Folder for the calibrators, the split, comparison.csv and the files of `calbench evaluate`."),
        click.option("--force", is_flag=True, help="Replace results that OUT already holds."),
        click.option("--resume", is_flag=True, help="Continue an interrupted run in OUT."),
        *INTERVALS,
    ],
    JOBS, QUIET[:2], CONFIG,
)  # fmt: skip
def _calibrate(
    names: tuple[str, ...],
    fit_list: Path | None,
    parameters: tuple[str, ...],
    output: Path,
    force: bool,
    resume: bool,
    jobs: int | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Fit post-hoc calibrators, measure them on images they have not seen, and rank them.

    NAME is a calibrator (see `calbench calibrators`), or `all`. Images (groups, with --group-by) are split, never pixels.
    By default every image is held out once in 5 folds; the calibrator that is saved is fitted again on all, and its file
    lists them. Doing nothing is always a contender. Binary 8-bit maps are read once; others as often as fits need it.

    \b
    Examples:
      calbench calibrate temperature --pred preds/mynet --gt data/SOD/GT -o fits
      calbench calibrate all --pred 'preds/{method}/SOD' --gt data/SOD/GT -o fits
      calbench calibrate all --pred logits --gt labels --ignore-index 255 --images photos --cv 3 -o fits
      calbench calibrate selective --set selective.t_wrong=2 --pred logits --gt labels -o fits
    """
    from calbench.calibration import MEASURED, calibrate_folders
    from calbench.contenders import FitOptions
    from calbench.progress import progress_bar
    from calbench.report.tables import console, leaderboard_tables

    say = announcer(quiet)
    settings = Settings(metrics=MEASURED, **{key: given[key] for key in ("ci", "n_boot", "seed", "group_by")})
    fit = FitOptions(
        tuple(name.replace("-", "_") for name in names), parsed_parameters(parameters), given["cv"], given["holdout"],
        None if fit_list is None else _listed_names(fit_list), given["max_pixels"], given["rank_by"], given["device"],
        given["allow_overlap"],
    )  # fmt: skip
    options = _collect_options(given, settings)
    _prepare(output, given, force=force, resume=resume)
    found = calibrate_folders(
        options, fit, settings, output=output, resume=resume, jobs=jobs, progress=not quiet,
        announce=say,
    )  # fmt: skip
    with progress_bar("intervals", len(found.results.evaluators), enabled=not quiet) as advance:
        found.results.values(advance)
    for warning in found.results.warnings:
        say(warning)
    with progress_bar("diagrams", len(found.results.evaluators), enabled=not quiet) as advance:
        written = found.write(output, advance)
    (output / "partial.npz").unlink(missing_ok=True)
    fitted = [path for path in written if path.suffix == ".safetensors"]
    say(
        f"wrote {plural(len(fitted), 'calibrator')} to {output / 'calibrators'}, and split.json, comparison.csv and the files "
        f"of calbench evaluate to {output}"
    )
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        screen = console()
        for table in leaderboard_tables(found):
            screen.print(table)


@main.command("calibrators")
@JSON
def _calibrators(as_json: bool) -> None:
    """List every calibrator: definition, source, parameters, what it keeps.

    \b
    Examples:
      calbench calibrators
      calbench calibrators --json
    """
    from calbench.calibrators import CALIBRATORS

    entries = [
        {
            "name": kind.name,
            "definition": kind.definition,
            "source": kind.source,
            "parameters": kind().get_params(),
            "keeps_class": kind.keeps_class,
            "needs_images": kind.needs_images,
        }
        for kind in CALIBRATORS.values()
    ]
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    for entry in entries:
        facts = [*["keeps the class"] * entry["keeps_class"], *["needs images"] * entry["needs_images"]]
        click.echo(entry["name"] + (f"  ({', '.join(facts)})" if facts else ""))
        click.echo(f"    {entry['definition']}\n    {entry['source']}")
        if entry["parameters"]:
            click.echo(
                "    parameters: "
                + ", ".join(f"{key}={json.dumps(value)}" for key, value in entry["parameters"].items())
            )


@main.command("check")
@with_options(
    INPUT,
    JOBS,
    [JSON, click.option("-q", "--quiet", is_flag=True, help="Leave out notes, which need no action.")],
    CONFIG,
)
def _check(jobs: int | None, as_json: bool, quiet: bool, **given: Any) -> None:
    """Look for what is wrong with folders of predictions and masks: the doctor.

    Pairs, sizes, modes, mask values, anti-aliasing, empty masks, hard or inverted maps, maps that were min-max stretched
    when they were saved, constant maps, duplicates. Exits 1 if something makes the numbers wrong.

    \b
    Examples:
      calbench check --pred preds/mynet --gt data/SOD/GT
      calbench check --pred 'preds/{method}/{dataset}' --gt 'data/{dataset}/GT' --json
    """
    from calbench.check import check_folders
    from calbench.findings import report_lines

    diagnosis = check_folders(_collect_options(given, None), jobs=jobs, progress=not quiet)
    if as_json:
        click.echo(json.dumps(diagnosis.to_json(), indent=2, ensure_ascii=False))
    else:
        shown = [finding for finding in diagnosis.findings if not quiet or finding.severity != "note"]
        for line in (*report_lines(shown), diagnosis.summary):
            click.echo(line)
    click.get_current_context().exit(diagnosis.exit_code)


@main.command("apply")
@click.argument("calibrator", type=click.Path(dir_okay=False))
@with_options(
    [
        click.option("--pred", required=True, metavar="DIR", help="Predictions: a folder or file; no ground truth is read."),
        click.option("-o", "--output", required=True, type=click.Path(file_okay=False), metavar="DIR",
                     help="Folder for the calibrated maps: one a prediction, of its stem, in its sub-folder."),
        click.option("--format", type=click.Choice(["npz", "png16", "png8"]), default="npz", show_default=True,
                     help="float16 arrays, or grey levels of 16 or 8 bits for binary maps."),
        click.option("--pred-suffix", default="", help="Ending of the prediction stems; other files are left out."),
        click.option("--input", type=click.Choice(["levels", "probabilities", "logits"]),
                     help="What predictions hold. Default: inferred once for all, and printed."),
        click.option("--layout", type=click.Choice(["CHW", "HWC"], case_sensitive=False),
                     help="Axes of predictions of several classes. Default: inferred, as the calibrator knows how many."),
        click.option("--npz-key", metavar="KEY",
                     help="Array of .npz predictions. Default: data, probabilities, logits, ..."),
        click.option("--images", metavar="DIR",
                     help="Folder of the pictures the predictions were made from, for calibrators that look at them."),
    ],
    IMAGES[1:],
    [
        click.option("--resume", is_flag=True, help="Keep what this calibrator wrote from the same predictions before."),
        click.option("--force", is_flag=True, help="Replace what the folder holds."),
    ],
    JOBS,
    [JSON, click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")],
    CONFIG,
)  # fmt: skip
def _apply(jobs: int | None, resume: bool, force: bool, as_json: bool, quiet: bool, **given: Any) -> None:
    """Write calibrated maps: predictions through the calibrator in the file CALIBRATOR.

    Binary maps (8-bit, 16-bit, float), probabilities or logits of several classes, and .npz tables, an image at a time.
    Files hold probabilities, rounded: every pixel keeps its calibrated class, and what else rounding costs is printed.
    `calbench evaluate` reads the folder as it is; its NLL is clipped by the unit of the type stored. `calbench evaluate
    --calibrator` measures the same without writing or rounding.

    \b
    Examples:
      calbench apply fits/calibrators/temperature.safetensors --pred preds/mynet -o calibrated/mynet
      calbench apply fits/calibrators/temperature.safetensors --pred preds/mynet -o calibrated/mynet --format png16
      calbench apply fits/local.safetensors --pred logits/mynet --images data/images -o calibrated/mynet -j 4 --resume
    """
    from calbench.apply import ApplyOptions, apply_folder

    applied = apply_folder(
        ApplyOptions(**given), jobs=jobs, resume=resume, force=force, progress=not quiet, announce=announcer(quiet)
    )
    click.echo(json.dumps(applied.to_json(), indent=2, ensure_ascii=False) if as_json else applied.text)


@main.command("report")
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    metavar="RESULTS...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@with_options(
    [
        click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR",
                     help="Folder for report.html, the tables and plots/."),
        click.option("--title", default="Calibration report", show_default=True, help="Title of the page."),
        click.option("--metrics", metavar=NAMES, help="Columns of the tables. Default: the headline metrics of the profile."),
        click.option("--spread", type=click.Choice(["none", "interval", "pm"]), default="none", show_default=True,
                     help="Beside each value in table.md and table.tex: its interval, or ± half the width of it."),
        click.option("--formats", default="png,pdf,svg", show_default=True, metavar=NAMES, help="Files of each plot."),
        click.option("--images", metavar="DIR",
                     help="Pictures the predictions were made from (folder or template), shown in the gallery."),
        click.option("--gallery", type=click.IntRange(min=0), default=3, show_default=True, metavar="N",
                     help="Worst and best images of each method on each data set; 0 for none."),
        click.option("--gallery-by", metavar="METRIC", help="What ranks those images. Default: the top-label error."),
        click.option("--force", is_flag=True, help="Replace the report that DIR already holds."),
    ],
    JOBS,
    [click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")],
    CONFIG,
)  # fmt: skip
def _report(folders: tuple[Path, ...], output: Path, force: bool, jobs: int | None, quiet: bool, **given: Any) -> None:
    """Write the page, the tables and the plots for a paper from results folders.

    RESULTS are folders that `calbench evaluate -o` or `calbench calibrate -o` wrote, under the same settings. Numbers are
    theirs; no pixel is read again, except for the gallery of worst and best images, where the files are still at hand.

    \b
    Examples:
      calbench report results -o report
      calbench report results fits -o report --spread interval --images 'data/{dataset}/images'
      calbench report results -o report --metrics ece,nll,mae --formats pdf --gallery 0
    """
    from calbench.report.build import ReportOptions, refuse_output, write_report

    options = ReportOptions(
        **{**given, "metrics": split_names(given["metrics"]), "formats": tuple(split_names(given["formats"]) or ())}
    )
    refuse_output(output, force=force)
    say = announcer(quiet)
    written = write_report(
        folders, output, options, command=command_line(), jobs=jobs, progress=not quiet, announce=say
    )
    plots = sum(path.parent.name == "plots" for path in written)
    say(
        f"wrote {', '.join(path.name for path in written if path.parent == output)} and {plural(plots, 'file')} in plots/"
    )
    if not quiet:
        click.echo(written[-1])


@main.command("compare")
@click.argument("results", nargs=-1, required=True, metavar="RESULTS...")
@with_options(
    [
        click.option("--metrics", metavar=NAMES, help="Only these metrics (see `calbench metrics`)."),
        click.option("--all", "show_all", is_flag=True, help="Print every metric, not the headline metrics alone."),
        click.option("--fail-if", "gates", multiple=True, metavar="EXPR",
                     help="Exit with 3 if B is so: 'ece > 0.05', or 'delta(ece) > 0.002' for B − A (repeatable)."),
        click.option("--ci", type=float, help="Level of the intervals. Default: that of A."),
        click.option("--n-boot", type=int, help="Bootstrap replicates; 0 for none. Default: those of A."),
        click.option("--seed", type=int, help="Seed of the bootstrap. Default: that of A."),
        click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), metavar="OUT",
                     help="Folder for comparison.csv and comparison.json."),
        click.option("--force", is_flag=True, help="Replace a comparison that OUT already holds."),
    ],
    [JSON, click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")],
    CONFIG,
)  # fmt: skip
def _compare(
    results: tuple[str, ...],
    metrics: str | None,
    show_all: bool,
    gates: tuple[str, ...],
    output: Path | None,
    force: bool,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Compare methods on the images they share, by paired bootstrap; B − A, and whether it is told from chance.

    RESULTS are folders of `calbench evaluate -o` or `calbench calibrate -o`, or FOLDER:METHOD for one method of them. Two
    methods are A and B; two folders of the same methods are compared method by method; of all else every two methods are,
    with p-values corrected by Holm's method. Data set, masks, conventions and settings must be the same; no pixel is read.

    \b
    Examples:
      calbench compare results/old results/new
      calbench compare results:net fits:'net + temperature' --fail-if 'delta(nll) > 0'
      calbench compare results --metrics ece,nll,miou
      calbench compare main branch --fail-if 'ece > 0.05' --fail-if 'delta(ece) > 0.002' --json
    """
    from calbench.comparison import compare
    from calbench.report.comparisons import comparison_tables
    from calbench.report.tables import console

    if metrics is not None and show_all:
        raise click.UsageError("--metrics names what --all prints all of: give one of them")
    if output is not None:
        _prepare_comparison(output, force=force)
    found = compare(*results, metrics=split_names(metrics), gates=gates, progress=not quiet, **given)
    say = announcer(quiet)
    for note in found.notes:
        say(note)
    if output is not None:
        say(f"wrote {' and '.join(path.name for path in found.write(output))} to {output}")
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        screen = console()
        for table in comparison_tables(found, found.headline if metrics is None and not show_all else found.metrics):
            screen.print(table)
    for outcome in found.broken:
        click.echo(outcome.text, err=True)
    if found.broken:
        click.get_current_context().exit(3)


@main.command("metrics")
@click.option("--profile", type=click.Choice(list(PROFILES)), help="Only the metrics of this profile.")
@JSON
def _metrics(profile: str | None, as_json: bool) -> None:
    """List every metric: definition, source, direction, average.

    \b
    Examples:
      calbench metrics
      calbench metrics --profile pysodmetrics --json
    """
    names = PROFILES[profile].metrics if profile else tuple(METRICS)
    chosen = [METRICS[name] for name in names]
    if as_json:
        keys = ("name", "average", "better", "definition", "source", "options", "needs")
        click.echo(json.dumps([{key: getattr(m, key) for key in keys} for m in chosen], indent=2, ensure_ascii=False))
        return
    for metric in chosen:
        average = "pixels and images" if metric.average == "pixels" and metric.per_image else metric.average
        options = f"; options {', '.join(metric.options)}" if metric.options else ""
        click.echo(f"{metric.heading}  (average over {average}{options})")
        click.echo(f"    {metric.definition}\n    needs {metric.needs}\n    {metric.source}")


@main.command("demo")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("calbench-demo"),
              show_default=True, help="Folder to write to.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace what an earlier demo wrote there.")
def _demo(output: Path, force: bool) -> None:
    """Run the main job on a small synthetic data set of three methods whose calibration is known.

    Draws the images, checks them, evaluates them, prints the table and says which files to open.

    \b
    Examples:
      calbench demo
      calbench demo -o /tmp/demo
    """
    from calbench.demo import run_demo

    run_demo(output, force=force)


for _command in (train_aslp, predict, losses):
    main.add_command(_command)


def _settings(given: dict[str, Any]) -> Settings:
    """The settings that the options of `NUMBERS` describe."""
    options = {key: given[key] for key in ("bins", "ties", "debias_bins", "batch") if given[key] is not None}
    common = {key: given[key] for key in ("profile", "ci", "n_boot", "seed", "group_by")}
    return Settings(
        metrics=split_names(given["metrics"]), exclude=split_names(given["exclude"]) or (), options=options, **common
    )


def _listed_names(path: Path) -> tuple[str, ...]:
    """The names in a text file, one a line."""
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{path} is no text file; expected one image name a line") from error
    if not names:
        raise click.BadParameter(f"{path} is empty; expected one image name a line")
    return names


def _refuse_with_stats() -> None:
    """Options about folders say nothing about statistics that were collected before."""
    context = click.get_current_context()
    folder_options = {"resume", "jobs", *CollectOptions.__dataclass_fields__} - {"calibrator", "allow_overlap"}
    given = [
        p.opts[-1]
        for p in context.command.params
        if p.name in folder_options
        and context.get_parameter_source(p.name) in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)
    ]
    if given:
        raise click.UsageError(f"--stats reads no folder: it does not go with {', '.join(given)}")


def _collect_options(given: dict[str, Any], settings: Settings | None) -> CollectOptions:
    """What to read; `settings` decide which scores must be computed on the way."""
    if not given["pred"]:
        raise click.UsageError("say where the predictions and the masks are: --pred DIR --gt DIR")
    names = [parameter.name for parameter in click.get_current_context().command.params]
    fields = {name: given[name] for name in CollectOptions.__dataclass_fields__ if name in names}
    needs = {"scores": settings.positional_scores, "extras": settings.extras} if settings else {"scores": ()}
    return CollectOptions(**fields, **needs)


def _prepare(output: Path | None, given: dict[str, Any], *, force: bool, resume: bool) -> None:
    """Make the folder of the results, before any work; an earlier result is replaced only on request."""
    if resume and force:
        raise click.UsageError("--resume continues what --force would replace: give one of them")
    if output is None:
        if resume:
            raise click.UsageError("--resume continues a run in a folder: say which one by -o OUT")
        return
    read = {"predictions": "pred", "masks": "gt", "fields of view": "mask", "pictures": "images"}
    refuse_mixing(output, {what: given[name] for what, name in read.items()})
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {output} ({error.strerror}); choose another -o") from error
    if force or resume:
        return
    for name, what in (("partial.npz", "an interrupted run"), ("summary.json", "results"), ("stats.npz", "results")):
        if (output / name).exists():
            raise InputError(
                f"{output} already holds {what} ({name}); continue it with --resume, replace it with --force, "
                "or choose another -o"
            )


def _prepare_comparison(output: Path, *, force: bool) -> None:
    """Refuse, before any work, to write a comparison over another, or among results, which have a file of its name."""
    from calbench.comparison import FILES

    if (output / "summary.json").exists():
        raise InputError(f"{output} holds results; choose another -o for their comparison")
    held = [name for name in FILES if (output / name).exists()]
    if held and not force:
        raise InputError(f"{output} already holds {held[0]}; replace it with --force, or choose another -o")


if __name__ == "__main__":
    sys.exit(main())
