"""`calbench report` from end to end: every file, the same numbers in all of them, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from calbench import load_results, write_report
from calbench.cli import main
from calbench.errors import OptionError, UnknownName
from calbench.report.build import FILES, ReportOptions
from calbench.synthetic import write_demo

Run = Callable[..., Result]
BOOT = ("--n-boot", "50")


def run_ok(*words: object) -> Result:
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three methods with regions and an out-of-distribution set, a calibrator of one of them, and the report of both."""
    root = write_demo(tmp_path_factory.mktemp("study"), n_images=8)
    photos = root / "photos"
    photos.mkdir()
    for path in (root / "data" / "synthetic" / "gt").iterdir():
        Image.fromarray(np.full((96, 128, 3), (90, 120, 40), np.uint8)).save(photos / path.name)
    folders = ("--pred", f"{root}/preds/{{method}}/{{dataset}}", "--gt", f"{root}/data/{{dataset}}/gt", *BOOT, "-q")
    dark = f"dark={root}/preds/{{method}}/synthetic"
    run_ok("evaluate", *folders, "--regions", "--ood", dark, "-o", root / "results")
    run_ok("calibrate", "temperature", *folders, "--method", "overconfident", "--cv", 2, "-o", root / "fits")
    done = run_ok(
        "report", root / "results", root / "fits", "-o", root / "report", "--images", photos, "--spread", "interval",
        "--title", "Study <1>",
    )  # fmt: skip
    (root / "said.json").write_text(json.dumps({"stdout": done.stdout, "stderr": done.stderr}), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return (study / "report" / "report.html").read_text(encoding="utf-8")


def drawn(page: str) -> list[str]:
    return re.findall(r'data-plot="([^"]+)"', page)


def text_of(svg: Path) -> str:
    """The words of a figure, line by line."""
    return "\n".join(unescape(t) for t in re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text(encoding="utf-8")))


def test_it_writes_the_tables_the_plots_and_the_page_and_says_so(study: Path, page: str) -> None:
    said = json.loads((study / "said.json").read_text(encoding="utf-8"))
    report = study / "report"
    assert said["stdout"].strip() == str(report / "report.html")
    assert {path.name for path in report.iterdir()} == {*FILES, "plots"}
    stems = drawn(page)
    assert {path.name for path in (report / "plots").iterdir()} == {
        f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf", "svg")
    }
    assert f"{3 * len(stems)} files in plots/" in said["stderr"]
    kinds = {stem.split("_")[0] for stem in stems}
    assert kinds == {
        "overlay", "reliability", "joint", "precision-recall", "roc", "f", "e", "risk-coverage", "regions", "images",
        "entropy", "scatter",
    }  # fmt: skip
    for path in (report / "plots").iterdir():
        start = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}[path.suffix]
        assert path.read_bytes().startswith(start)


def test_the_wide_table_has_the_numbers_of_the_results(study: Path) -> None:
    table = pd.read_csv(study / "report" / "table.csv")
    document = json.loads((study / "results" / "summary.json").read_text(encoding="utf-8"))
    checked = 0
    for record in document["results"]:
        if record["region"] == "all" and record["metric"] in table and record["options"].find("class=") < 0:
            if record["average"] != ("images" if record["metric"] in ("mae", "max_f", "s_measure") else "pixels"):
                continue
            if record["metric"].startswith("ood_"):
                continue
            row = table[(table.dataset == record["dataset"]) & (table.method == record["method"])]
            row = row[row.calibrator == "none"].iloc[0]
            for name, key in ((record["metric"], "value"), (record["metric"] + "_low", "low")):
                assert row[name] == record[key] or (np.isnan(row[name]) and record[key] is None)
            checked += 1
    assert checked >= 18
    assert "temperature" in set(table.calibrator), "the calibrated predictions of the second folder are there"


def test_titles_of_plots_have_the_numbers_of_the_results(study: Path) -> None:
    document = json.loads((study / "results" / "summary.json").read_text(encoding="utf-8"))
    for event, metric in (("top-label", "ece"), ("foreground", "ece_fg")):
        for record in document["results"]:
            is_it = (record["metric"], record["average"], record["region"]) == (metric, "pixels", "all")
            if not is_it or record["dataset"] != "synthetic":
                continue
            words = text_of(study / "report" / "plots" / f"reliability_{event}_synthetic_{record['method']}.svg")
            assert f"{record['value']:.4f} [{record['low']:.4f}, {record['high']:.4f}]" in words
            pixels = f"{record['n_pixels']:,}".replace(",", "\xa0")
            assert f"15 bins, 8 images, {pixels} pixels" in words
            overlay = text_of(study / "report" / "plots" / f"overlay_{event}_synthetic.svg")
            shown = f"{record['value']:.4f} [{record['low']:.4f}, {record['high']:.4f}]"
            assert any(shown in line and record["method"] in line for line in overlay.splitlines())


def test_the_page_has_them_too(study: Path, page: str) -> None:
    document = json.loads((study / "results" / "summary.json").read_text(encoding="utf-8"))
    exact = set(re.findall(r'data-value="([^"]+)"', page))
    for record in document["results"]:
        if record["metric"] in ("ece", "brier") and record["average"] == "pixels" and record["region"] == "all":
            assert repr(record["value"]) in exact
    assert "Study &lt;1&gt;" in page
    assert "<1>" not in page


def test_the_rows_of_all_folders_are_in_the_csv_files(study: Path) -> None:
    report = study / "report"
    for name in ("summary.csv", "per_image.csv", "reliability.csv"):
        ours = pd.read_csv(report / name)
        parts = [pd.read_csv(study / folder / name) for folder in ("results", "fits")]
        assert {*ours.calibrator} == {"none", "temperature"}
        whole = parts[0]
        key = [c for c in ("dataset", "method", "calibrator", "region", "metric", "average", "options", "image", "event",
                           "bin") if c in whole]  # fmt: skip
        both = whole.merge(ours, on=key, how="left", suffixes=("", "_ours"))
        assert len(both) == len(whole)
        column = next(c for c in ("value", "nll", "accuracy") if c in whole)
        pd.testing.assert_series_equal(both[column], both[column + "_ours"], check_names=False, check_exact=True)


def test_the_gallery_shows_files_where_they_are(page: str) -> None:
    assert page.count("data:image/webp;base64,") + page.count("data:image/png;base64,") >= 3 * 6 * 4
    assert "no gallery" not in page


def test_the_command_on_the_page_makes_the_same_page(study: Path, page: str, tmp_path: Path) -> None:
    [command] = [unescape(found) for found in re.findall(r">(calbench report [^<]+)<", page)]
    words = shlex.split(command)
    assert words[:2] == ["calbench", "report"]
    at = words.index("--output" if "--output" in words else "-o") + 1
    words[at] = str(tmp_path / "again")
    run_ok(*words[1:])
    again = (tmp_path / "again" / "report.html").read_text(encoding="utf-8")
    assert again.replace(str(tmp_path / "again"), str(study / "report")) == page


def test_the_page_of_the_command_works_in_a_browser(study: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 390, "height": 800})
        said: list[Any] = []
        asked: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto((study / "report" / "report.html").as_uri())
        opened.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        opened.evaluate("Promise.all([...document.images].map(image => image.decode()))")
        assert opened.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert opened.evaluate("document.images.length") >= 3 * 6 * 4
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [(study / "report" / "report.html").as_uri()]
        browser.close()


# --- what it refuses, replaces and survives ---------------------------------------------------------------------------------


@pytest.fixture
def small(study: Path, tmp_path: Path) -> Path:
    """A copy of the results, to be damaged."""
    shutil.copytree(study / "results", tmp_path / "results")
    return tmp_path


def test_an_earlier_report_is_replaced_on_request_and_other_files_stay(small: Path, calbench: Run) -> None:
    out, results = small / "out", small / "results"
    quick = ("--formats", "png", "--gallery", 0, "-q", "-o", out)
    assert calbench("report", results, *quick).exit_code == 0
    (out / "plots" / "mine.png").write_bytes(b"mine")
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    done = calbench("report", results, *quick)
    assert done.exit_code == 1
    assert f"{out} already holds a report; replace it with --force" in done.stderr
    before = {path.name for path in (out / "plots").iterdir()}
    run_ok("evaluate", "--stats", results / "stats.npz", "--metrics", "ece", *BOOT, "-o", small / "fewer", "-q")
    assert calbench("report", small / "fewer", *quick, "--force").exit_code == 0
    after = {path.name for path in (out / "plots").iterdir()}
    assert "roc_synthetic.png" in before - after, "what the new report does not draw is gone"
    assert "mine.png" in after
    assert (out / "notes.txt").exists()


def test_it_refuses_what_cannot_be(small: Path, calbench: Run) -> None:
    results = small / "results"
    for words, code, message in (
        ((results, "-o", results, "--force"), 1, "holds results (summary.json)"),
        ((results, "-o", small / "out", "--metrics", ""), 2, "metrics names none"),
        ((results, "-o", small / "out", "--formats", ""), 2, "formats names none"),
        ((small / "nowhere", "-o", small / "out"), 2, "does not exist"),
        ((results, "-o", small / "out", "--metrics", "eec"), 2, "did you mean"),
        ((results, "-o", small / "out", "--formats", "png,gif"), 2, "there is no format 'gif'"),
        ((results, "-o", small / "out", "--gallery-by", "nothing"), 2, "there is no metric 'nothing'"),
        ((results, "-o", small / "out", "-j", 0), 2, "jobs is 0"),
        (("-o", small / "out"), 2, "RESULTS"),
    ):
        done = calbench("report", *words)
        assert (done.exit_code, message in done.stderr) == (code, True), done.output
        assert not (small / "out").exists()
    (results / "summary.json").unlink()
    done = calbench("report", results, "-o", small / "out")
    assert done.exit_code == 1
    assert "holds no finished results" in done.stderr
    with pytest.raises(UnknownName):
        ReportOptions(spread="sd")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no results to report on"):
        write_report([], small / "out")


def test_files_that_are_no_report_are_not_replaced_unasked(small: Path, calbench: Run) -> None:
    out = small / "mine"
    out.mkdir()
    (out / "table.csv").write_text("mine", encoding="utf-8")
    words = ("report", small / "results", "-o", out, "--formats", "png", "--gallery", 0, "-q")
    done = calbench(*words)
    assert (done.exit_code, "already holds table.csv" in done.stderr) == (1, True)
    assert (out / "table.csv").read_text(encoding="utf-8") == "mine"
    assert calbench(*words, "--force").exit_code == 0


def test_a_request_that_cannot_be_met_leaves_the_earlier_report(study: Path, tmp_path: Path, calbench: Run) -> None:
    words = ("report", study / "results", "-o", tmp_path / "out", "-q", "--formats", "png")
    run_ok(*words, "--gallery", 0)
    page = (tmp_path / "out" / "report.html").read_bytes()
    assert calbench(*words, "--force", "--gallery-by", "mean_confidence").exit_code == 2
    assert (tmp_path / "out" / "report.html").read_bytes() == page


def test_what_a_configuration_says_is_in_the_command_of_the_page(study: Path, tmp_path: Path) -> None:
    config = tmp_path / "report.toml"
    config.write_text('title = "T & Co"\ngallery = 0\nformats = ["svg"]\n', encoding="utf-8")
    run_ok("report", study / "fits", "-o", tmp_path / "out", "--config", config, "-q")
    record = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert shlex.split(record["command"]) == [
        "calbench", "report", str(study / "fits"), "--output", str(tmp_path / "out"), "--title", "T & Co",
        "--formats", "svg", "--gallery", "0", "--quiet",
    ]  # fmt: skip


def test_tables_of_samples_are_told_apart_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 4000)
    for name, noise in (("sharp", 0.1), ("dull", 2.0)):
        score = np.eye(3)[label] * 2 + rng.normal(0, 1 + noise, (4000, 3))
        share = np.exp(score) / np.exp(score).sum(1, keepdims=True)
        np.savez(tmp_path / f"{name}.npz", probabilities=share, label=label)
    run_ok(
        "evaluate",
        "--pred",
        f"{tmp_path}/{{method}}.npz",
        "--metrics",
        "nll,ece",
        *BOOT,
        "-o",
        tmp_path / "results",
        "-q",
    )
    run_ok("report", tmp_path / "results", "-o", tmp_path / "out", "--formats", "svg", "-q")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "are noise" in " ".join(html.split())


def test_predictions_that_are_gone_leave_a_note(small: Path, calbench: Run) -> None:
    path = small / "results" / "summary.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["collected"]["pred"].endswith("preds/{method}/{dataset}")
    results = load_results(small / "results")
    results.run.options["pred"] = "/nowhere/{method}/{dataset}"  # type: ignore[index]
    results.write(small / "moved")
    done = calbench("report", small / "moved", "-o", small / "out", "--formats", "svg")
    assert done.exit_code == 0
    assert "/nowhere/calibrated/synthetic is not at hand" in done.stderr
    assert "/nowhere/calibrated/synthetic is not at hand" in (small / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_report_leaves_no_page_and_can_be_made_again(jobs: str, study: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "calbench",
        "report",
        str(study / "results"),
        "-o",
        str(tmp_path / "out"),
        "-j",
        jobs,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    plots = tmp_path / "out" / "plots"
    for _ in range(600):
        if plots.is_dir() and len(list(plots.glob("*.png"))) > 2:
            break
        time.sleep(0.05)
    for _ in range(2):  # of an impatient user; a shell sends it to the workers, too
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.02)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "interrupted" in said
    assert not (tmp_path / "out" / "report.html").exists()
    assert not list(plots.glob(".*")), "no half-written file is left"
    run_ok("report", study / "fits", "-o", tmp_path / "out", "--formats", "png", "--gallery", 0, "-q")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert {path.name for path in plots.iterdir()} == {f"{stem}.png" for stem in drawn(page)}, (
        "nothing of the first is left"
    )


def test_two_processes_draw_the_same_files(study: Path, tmp_path: Path) -> None:
    for jobs in (1, 2):
        write_report([study / "fits"], tmp_path / str(jobs), ReportOptions(gallery=0), jobs=jobs)
    names = sorted(path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file())
    assert len(names) > 20
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
