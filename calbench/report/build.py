"""`calbench report`: from results folders to the tables, the plots and the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from calbench.agreement import named_alike
from calbench.errors import InputError, OptionError, UnknownName
from calbench.evaluate import Evaluator, Settings
from calbench.intervals import MIN_UNITS
from calbench.io.files import atomic, write_text
from calbench.metrics import METRICS
from calbench.noise import Noise, as_good, noise
from calbench.parallel import check_jobs, default_jobs, parallel_map
from calbench.progress import progress_bar
from calbench.report.gallery import GalleryRow, gallery
from calbench.report.page import Page, render_page
from calbench.report.paper import SPREADS, Spread, WideTable, latex, markdown, wide_frame, wide_tables
from calbench.report.plots import Plot, plots_of
from calbench.report.seeds import SEED_FILES, SeedTable, seed_frame, seed_latex, seed_markdown, tables_over_seeds
from calbench.report.style import FORMATS, Format, rendered
from calbench.results import SUMMARY_COLUMNS, Results
from calbench.saved import load_results, merged
from calbench.seeds import TRAINING, TrainingRecord, read_training
from calbench.statistics import Statistics

GALLERY_ROWS = 240
"""Five pictures of some 5 KB each: 6 MB of the page at most."""
PLOT = 8
"""A plot in three formats takes as long as collecting so many images."""
ROWS = 50
"""So many rows are resampled while one image is collected."""
RECORD = "report.json"
"""What makes the report again, and the plots it has: written first, so that an interrupted one can be cleared away."""
FILES = (RECORD, "summary.csv", "table.csv", "table.md", "table.tex", "per_image.csv", "reliability.csv", "report.html")


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows, and how.

    Attributes:
        title: of the page.
        metrics: columns of the tables; None for the headline metrics of the profile.
        spread: what stands beside a value in table.md and table.tex: "none", "interval" or "pm" (± half its width).
        formats: of the plots; the page shows them whatever is written.
        images: folder or template of the pictures that predictions were made from, for the gallery.
        gallery: worst and best images of each method on each data set; 0 for none.
        gallery_by: metric that ranks them; None for the error of the profile's first reliability diagram.
    """

    title: str = "Calibration report"
    metrics: tuple[str, ...] | None = None
    spread: Spread = "none"
    formats: tuple[Format, ...] = FORMATS
    images: str | None = None
    gallery: int = 3
    gallery_by: str | None = None

    def __post_init__(self) -> None:
        for what, names in (("metrics", self.metrics), ("formats", self.formats)):
            if names is not None and not names:
                raise OptionError(f"{what} names none; name some, or leave it out")
        for name in (*(self.metrics or ()), *([self.gallery_by] if self.gallery_by else [])):
            if name not in METRICS:
                raise UnknownName("metric", name, METRICS)
        for what, given, known in (("spread", (self.spread,), SPREADS), ("format", self.formats, FORMATS)):
            for name in given:
                if name not in known:
                    raise UnknownName(what, name, known)


def write_report(
    folders: str | Path | Sequence[str | Path],
    output: str | Path,
    options: ReportOptions | None = None,
    *,
    command: str = "",
    jobs: int | None = None,
    progress: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Write the report on the results in `folders` to `output`, and return the paths of its files, the page last.

    Numbers are read from the results, not computed again; pixels are read for the gallery alone, where they still are.

    Args:
        folders: of `calbench evaluate -o` or `calbench calibrate -o`, one or several.
        output: folder; what an earlier report left there is replaced.
        command: that reproduces the page, to be shown on it.
        jobs: processes that draw; None chooses.
        progress: whether to show it on stderr.
        announce: takes lines for people.
    Raises:
        FormatError: a folder holds no finished results.
        MergeError: folders whose numbers do not go together.
        InputError: `output` holds results.
    """
    options = options or ReportOptions()
    output = Path(output)
    folders = [folders] if isinstance(folders, str | Path) else list(folders)
    check_jobs(jobs)
    refuse_output(output)
    if not folders:
        raise OptionError("there are no results to report on; name at least one folder of `calbench evaluate -o`")
    parts = {str(folder): load_results(folder) for folder in folders}
    results = merged(parts)
    training, notes = _training(parts, results)
    tables = wide_tables(results, options.metrics)
    seeds = [] if training is None else tables_over_seeds(tables, results, training)
    plots = plots_of(results, training)
    noises, tied = _compared(results, tables, jobs, progress=progress)
    rows: list[GalleryRow] = []
    if options.gallery:
        homes = {key: part.run.options for part in parts.values() for key in part.evaluators}
        with progress_bar("gallery", GALLERY_ROWS, enabled=progress) as advance:
            rows, lacking = gallery(
                results,
                homes,
                images=options.images,
                by=options.gallery_by,
                each=options.gallery,
                limit=GALLERY_ROWS,
                advance=advance,
                jobs=jobs,
            )
        notes += lacking
    for note in notes:
        announce(note)
    _clear(output)  # all that could go wrong with what was asked for has been tried
    record = {"calbench": version("calbench"), "command": command, "plots": [plot.name for plot in plots]}
    if training is not None:
        record |= {"seeds": list(SEED_FILES)}
    write_text(output / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    figures = draw_plots(plots, output / "plots", options.formats, jobs, progress=progress)
    _write_tables(output, results, parts, tables, options)
    if training is not None:
        _write_seeds(output, results, training, seeds)
    page = Page(
        title=options.title,
        results=results,
        tables=tables,
        noise=noises,
        as_good=tied,
        figures=figures,
        gallery=rows,
        notes=notes,
        sources={
            name: {"settings": asdict(part.settings), "collected": dict(part.run.options)}
            for name, part in parts.items()
        },
        command=command,
        seeds=seeds,
    )
    write_text(output / "report.html", render_page(page))
    drawn = [output / "plots" / f"{plot.name}.{kind}" for plot in plots for kind in options.formats]
    names = [*FILES[:-1], *(SEED_FILES if training is not None else ())]
    return [*(output / name for name in names), *drawn, output / "report.html"]


def refuse_output(output: Path, *, force: bool = True) -> None:
    """Refuse to write a report among results, which have files of the same names, and over what is there unless forced.

    What an interrupted report left is no obstacle.

    Raises:
        InputError: the folder holds results, a report, or files of these names that no report wrote.
    """
    held = [name for name in ("summary.json", "stats.npz", "partial.npz") if (output / name).exists()]
    if held:
        raise InputError(f"{output} holds results ({held[0]}); choose another folder for the report")
    present = [name for name in (*FILES, *SEED_FILES) if (output / name).exists()]
    if present and not force and ("report.html" in present or RECORD not in present):
        what = "a report" if "report.html" in present else present[0]
        raise InputError(f"{output} already holds {what}; replace it with --force, or choose another -o")


def _clear(output: Path) -> None:
    """Remove the page of an earlier report, as a folder with a page is a complete report, and what others may lack."""
    (output / "report.html").unlink(missing_ok=True)
    try:
        earlier = json.loads((output / RECORD).read_text(encoding="utf-8"))
        stems, tables = earlier["plots"], earlier.get("seeds", ())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    for name in SEED_FILES:
        if name in tables:
            (output / name).unlink(missing_ok=True)
    for stem in stems:
        for kind in FORMATS:
            (output / "plots" / f"{Path(stem).name}.{kind}").unlink(missing_ok=True)


def _training(parts: Mapping[str, Results], results: Results) -> tuple[TrainingRecord | None, list[str]]:
    """The training record of the one folder that has one, and what of it cannot be shown, and why.

    Raises:
        FormatError: a record is damaged.
    """
    records = {name: record for name in parts if (record := read_training(name)) is not None}
    if len(records) > 1:
        return None, [f"no numbers over seeds: {' and '.join(records)} each hold a {TRAINING}; report them apart"]
    for name, record in records.items():
        lacking = sorted({run.name for run in record.runs} - {key.method for key in results.evaluators})
        if lacking:
            return None, [
                f"no numbers over seeds: {name}/{TRAINING} names {', '.join(lacking)}, which the results lack; train or "
                "evaluate them again"
            ]
        return record, [f"training figures are without {path}, which is not at hand" for path in record.missing_files]
    return None, []


def draw_plots(
    plots: Sequence[Plot], folder: Path, formats: tuple[Format, ...], jobs: int | None = None, *, progress: bool = False
) -> list[tuple[Plot, str]]:
    """Every plot with its SVG text, each written in every format, drawn side by side in worker processes."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    with progress_bar("plots", len(plots), enabled=progress) as advance:
        jobs = default_jobs(PLOT * len(plots)) if jobs is None else jobs
        for name, svg in parallel_map(_Draw(folder, formats), plots, jobs):
            found[name] = svg
            advance()
    return [(plot, found[plot.name]) for plot in plots]


@dataclass(frozen=True)
class _Draw:
    """Draws one plot and writes its files."""

    folder: Path
    formats: tuple[Format, ...]

    def __call__(self, plot: Plot) -> tuple[str, str]:
        files = rendered(plot.draw(), dict.fromkeys((*self.formats, "svg")), salt=plot.name)
        for kind in self.formats:
            with atomic(self.folder / f"{plot.name}.{kind}") as temporary:
                temporary.write_bytes(files[kind])
        return plot.name, files["svg"].decode("utf-8")


def _compared(
    results: Results, tables: Sequence[WideTable], jobs: int | None, *, progress: bool
) -> tuple[dict[str, list[Noise]], dict[tuple[str, str], frozenset[str]]]:
    """For each data set how large a difference must be to be none of chance, and the methods as good as the best."""
    noises: dict[str, list[Noise]] = {}
    tied: dict[tuple[str, str], frozenset[str]] = {}
    tasks = []
    for table in tables:
        metrics = tuple(column.metric for column in table.columns if column.metric.interval)
        rows = {
            key.name: named_alike(replace(results.evaluators[key].statistics, regions={}))
            for key in table.keys
            if not table.outside and results.evaluators[key].n_units >= MIN_UNITS
        }
        if metrics and results.settings.n_boot and len(rows) > 1:
            names = tuple(metric.name for metric in metrics)
            tasks.append((table.dataset, rows, replace(results.settings, metrics=names, exclude=())))
    n_rows = sum(len(part.names) for _, rows, _ in tasks for part in rows.values())
    jobs = default_jobs(n_rows // ROWS) if jobs is None else jobs
    with progress_bar("differences", len(tasks), enabled=progress) as advance:
        for dataset, noises[dataset], as_good_of in parallel_map(_compare, tasks, min(jobs, max(len(tasks), 1))):
            tied |= {(dataset, metric): names for metric, names in as_good_of.items()}
            advance()
    return noises, tied


def _compare(
    task: tuple[str, Mapping[str, Statistics], Settings],
) -> tuple[str, list[Noise], dict[str, frozenset[str]]]:
    """The methods of one data set in pairs, by evaluators that compute the metrics of the table alone."""
    dataset, rows, settings = task
    evaluators = {name: Evaluator(part, settings) for name, part in rows.items()}
    tied = {metric.name: as_good(evaluators, metric) for metric in settings.chosen}
    return dataset, noise(evaluators, settings.chosen), tied


def _write_tables(
    output: Path, results: Results, parts: Mapping[str, Results], tables: Sequence[WideTable], options: ReportOptions
) -> None:
    for name, frame in (
        ("summary.csv", results.summary[list(SUMMARY_COLUMNS)]),
        ("table.csv", wide_frame(tables, spread=options.spread)),
        ("reliability.csv", results.reliability),
    ):
        with atomic(output / name) as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")
    with atomic(output / "per_image.csv") as temporary:
        only = next(iter(parts))
        if len(parts) == 1 and (Path(only) / "per_image.csv").is_file():  # as it is: the largest file by far
            shutil.copyfile(Path(only) / "per_image.csv", temporary)
        else:
            results.per_image.to_csv(temporary, index=False, lineterminator="\n")
    write_text(output / "table.md", markdown(tables, spread=options.spread, results=results))
    write_text(output / "table.tex", latex(tables, spread=options.spread, results=results))


def _write_seeds(output: Path, results: Results, training: TrainingRecord, tables: Sequence[SeedTable]) -> None:
    with atomic(output / "seeds.csv") as temporary:
        seed_frame(results, training).to_csv(temporary, index=False, lineterminator="\n")
    write_text(output / "seeds.md", seed_markdown(tables, results))
    write_text(output / "seeds.tex", seed_latex(tables, results))
