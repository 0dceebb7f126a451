"""`calbench demo`: the main job, end to end, on synthetic maps whose true calibration is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from calbench.calibration import MEASURED, calibrate_folders
from calbench.check import check_folders
from calbench.collect import collect_folders
from calbench.contenders import FitOptions
from calbench.errors import InputError
from calbench.evaluate import Settings
from calbench.findings import report_lines
from calbench.metrics import METRICS
from calbench.plan import CollectOptions
from calbench.report.build import write_report
from calbench.report.tables import console, headline_tables, leaderboard_tables
from calbench.results import Results
from calbench.statistics.histogram import Event
from calbench.synthetic import DEMO_SHARPNESS, expected_histogram, write_demo


def run_demo(folder: Path, *, force: bool = False) -> None:
    """Draw the data set, check it, evaluate it, compare with the truth, and say which files to open.

    Raises:
        InputError: `folder` holds something else than an earlier demo, or one that is not to be replaced.
    """
    results_folder, fits, page = folder / "results", folder / "fits", folder / "report"
    if folder.exists() and any(folder.iterdir()) and not (force and (folder / "data" / "synthetic").is_dir()):
        what = "does not hold an earlier demo to replace" if force else "is not empty; --force replaces an earlier demo"
        raise InputError(f"{folder} {what}; choose another -o")
    write_demo(folder)
    pred, gt = f"{folder}/preds/{{method}}/{{dataset}}", f"{folder}/data/{{dataset}}/gt"
    click.echo(f"Three methods on one synthetic data set, in {folder}. The commands, and what they print:\n")

    click.echo(f"$ calbench check --pred '{pred}' --gt '{gt}'")
    options = CollectOptions(pred, gt)
    diagnosis = check_folders(options)
    for line in (*report_lines(diagnosis.findings), diagnosis.summary):
        click.echo(line)

    click.echo(f"\n$ calbench evaluate --pred '{pred}' --gt '{gt}' -o {results_folder}")
    results = Results(collect_folders(options), Settings())
    screen = console()
    for table in headline_tables(results):
        screen.print(table)
    results.write(results_folder)

    click.echo("\nThe truth, from the formula that drew the maps:")
    for method, sharpness in DEMO_SHARPNESS.items():
        truth = expected_histogram(sharpness)
        errors = {name: METRICS[name].function(truth.reliability(event), bins=15) for name, event in _EVENTS.items()}
        click.echo(f"  {method:16s} " + "  ".join(f"{name} {float(value):.4f}" for name, value in errors.items()))
    click.echo(
        f"\n$ calbench calibrate {' '.join(CONTENDERS)} --pred '{pred}' --gt '{gt}' --method overconfident -o {fits}"
    )
    found = calibrate_folders(
        replace(options, methods=("overconfident",), scores=()), FitOptions(CONTENDERS), Settings(metrics=MEASURED)
    )
    for table in leaderboard_tables(found):
        screen.print(table)
    found.write(fits)

    command = f"calbench report {results_folder} {fits} -o {page}"
    click.echo(f"\n$ {command}")
    *rest, html = write_report((results_folder, fits), page, command=command)
    click.echo(f"{len(rest)} files beside the page: tables for a paper, and every plot as PNG, PDF and SVG")

    click.echo("\nOpen these:")
    for path in (html, page / "table.tex", page / "plots", results_folder / "summary.csv", fits / "comparison.csv"):
        click.echo(f"  {path}")


CONTENDERS = ("temperature", "platt", "isotonic")
_EVENTS: dict[str, Event] = {"ece": "top-label", "ece_fg": "foreground"}
