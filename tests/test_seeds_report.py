"""Numbers over seeds and the figures of training: against SciPy, in every file of a report, and where there is little."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from rich.console import Console
from scipy import stats

from calbench import Results, Run, Settings, collect, write_report
from calbench.errors import FormatError, InputError
from calbench.report.build import FILES, ReportOptions
from calbench.report.figures import alpha_figure, alpha_histogram, learning_curve, learning_curves_figure
from calbench.report.paper import wide_tables
from calbench.report.plots import plots_of
from calbench.report.seeds import SEED_FILES, seed_frame, seed_latex, seed_markdown, seed_tables, tables_over_seeds
from calbench.report.style import looks, new_figure, rendered
from calbench.results import Key
from calbench.seeds import (
    Alphas,
    SeedRow,
    TrainingRecord,
    TrainingRun,
    final_alphas,
    learning_curves,
    over_seeds,
    rank_correlation,
    read_training,
    t_interval,
)
from calbench.statistics import Statistics
from calbench.synthetic import SyntheticScene, samples

SCENE = SyntheticScene(height=18, width=24)
METRICS = ("ece", "accuracy", "ood_entropy", "ood_auroc")
ECE = {"bce": (0.031, 0.035, 0.036), "aslp-mc": (0.012, 0.0155, 0.018)}
EPOCHS = 4


@cache
def rows(sharpness: float, seed: int = 0) -> Statistics:
    return next(iter(collect(samples(6, sharpness, seed=seed, scene=SCENE), scores=()).combinations.values()))


def results_of(methods: Mapping[str, Sequence[int]], *, outside: bool = True, n_boot: int = 0) -> Results:
    names = [f"{method}-s{seed}" for method, seeds in methods.items() for seed in seeds]
    inside = {("toy", name): rows(1 + i / 4) for i, name in enumerate(names)}
    far = {("far", name): rows(1 + i / 4, seed=5) for i, name in enumerate(names)} if outside else {}
    return Results(Run(inside, ood=far), Settings(metrics=METRICS[: 4 if outside else 2], n_boot=n_boot))


def record_of(methods: Mapping[str, Sequence[int]], home: Path = Path("nowhere")) -> TrainingRecord:
    return TrainingRecord(
        tuple(
            TrainingRun(
                f"{method}-s{seed}",
                method,
                seed,
                home / method / f"seed-{seed}" / "metrics.csv",
                home / method / f"seed-{seed}" / "alphas.csv" if "aslp" in method else None,
            )
            for method, seeds in methods.items()
            for seed in seeds
        )
    )


def with_ece(results: Results, ece: Mapping[str, Mapping[int, float]]) -> Results:
    """The same results with these numbers as ECE."""
    numbers = {f"{method}-s{seed}": x for method, seeds in ece.items() for seed, x in seeds.items()}
    for key, values in results.values().items():
        changed = [
            replace(v, value=numbers[key.method], low=math.nan, high=math.nan)
            if (v.metric, v.average) == ("ece", "pixels") and key.method in numbers
            else v
            for v in values
        ]
        results.remember({key: changed})
    return results


def row_of(found: Sequence[SeedRow], method: str, metric: str = "ece", dataset: str = "toy") -> SeedRow:
    [row] = [r for r in found if (r.dataset, r.method, r.metric, r.calibrator) == (dataset, method, metric, "none")]
    return row


THREE = {"bce": (0, 1, 2), "aslp-mc": (0, 1, 2)}


def hand(values: Sequence[float], ci: float) -> tuple[float, float]:
    return stats.t.interval(ci, len(values) - 1, np.mean(values), stats.sem(values))


# --- numbers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ci", [0.95, 0.8])
def test_mean_interval_and_paired_difference_are_those_of_scipy(ci: float) -> None:
    results = with_ece(results_of(THREE), {m: dict(enumerate(x)) for m, x in ECE.items()})
    found = over_seeds(results, record_of(THREE), ("ece",), ci=ci)
    assert [(row.dataset, row.method) for row in found] == [("toy", "bce"), ("toy", "aslp-mc")]
    for method, values in ECE.items():
        row = row_of(found, method)
        assert (row.n_seeds, row.n_undefined, row.options, row.average) == (3, 0, "bins=15", "pixels")
        assert row.mean == pytest.approx(np.mean(values), rel=1e-13)
        assert row.sd == pytest.approx(np.std(values, ddof=1), rel=1e-13)
        assert (row.low, row.high) == pytest.approx(hand(values, ci), rel=1e-12)
    baseline, other = row_of(found, "bce"), row_of(found, "aslp-mc")
    differences = np.subtract(ECE["aslp-mc"], ECE["bce"])
    assert other.n_paired == 3
    assert other.delta == pytest.approx(differences.mean(), rel=1e-13)
    assert (other.delta_low, other.delta_high) == pytest.approx(hand(differences, ci), rel=1e-12)
    assert other.differs
    assert baseline.n_paired == 0
    assert np.isnan([baseline.delta, baseline.delta_low, baseline.delta_high]).all()
    assert not baseline.differs


def test_every_metric_of_every_set_is_the_mean_of_the_numbers_of_the_summary() -> None:
    results = results_of(THREE)
    found = over_seeds(results, record_of(THREE), ci=0.95)
    summary = results.summary
    summary = summary[(summary["average"] == "pixels") & ~summary["options"].str.contains("maxprob")]
    expected = summary.groupby(["dataset", summary["method"].str.replace(r"-s\d$", "", regex=True), "metric"])["value"]
    means, spreads = expected.mean(), expected.std()
    assert {(r.dataset, r.method, r.metric) for r in found} == set(means.index)
    assert len(found) == 2 * (2 + 2)
    for row in found:
        assert row.mean == pytest.approx(means[row.dataset, row.method, row.metric], rel=1e-13)
        assert row.sd == pytest.approx(spreads[row.dataset, row.method, row.metric], rel=1e-9)


def test_a_method_without_one_seed_is_compared_over_the_seeds_that_both_have() -> None:
    methods = {"bce": (2, 0, 1), "slp": (2, 1)}
    ece = {"bce": {0: 0.9, 1: 0.03, 2: 0.05}, "slp": {1: 0.02, 2: 0.045}}
    found = over_seeds(with_ece(results_of(methods), ece), record_of(methods), ("ece",), ci=0.9)
    row = row_of(found, "slp")
    assert (row.n_seeds, row.n_paired) == (2, 2)
    assert row.delta == pytest.approx(-0.0075)
    assert (row.delta_low, row.delta_high) == pytest.approx(hand([-0.01, -0.005], 0.9))


def test_one_seed_has_a_mean_alone() -> None:
    methods = {"bce": (0,), "slp": (0,)}
    results = with_ece(results_of(methods), {"bce": {0: 0.03}, "slp": {0: 0.02}})
    row = row_of(over_seeds(results, record_of(methods), ci=0.95), "slp")
    assert (row.n_seeds, row.mean, row.n_paired) == (1, 0.02, 1)
    assert np.isnan([row.sd, row.low, row.high, row.delta, row.delta_low, row.delta_high]).all()
    tables = tables_over_seeds(wide_tables(results), results, record_of(methods))
    assert "no intervals, which take two seeds" in tables[0].reading
    assert "±" not in seed_markdown(tables, results)
    assert "pm" not in seed_latex(tables, results)


def test_undefined_values_are_left_out_and_counted() -> None:
    ece = {"bce": {0: 0.03, 1: math.nan, 2: 0.04}, "aslp-mc": {0: 0.01, 1: 0.5, 2: 0.03}}
    results = with_ece(results_of(THREE), ece)
    found = over_seeds(results, record_of(THREE), ("ece",), ci=0.95)
    bce, other = row_of(found, "bce"), row_of(found, "aslp-mc")
    assert (bce.n_seeds, bce.n_undefined, bce.mean) == (2, 1, pytest.approx(0.035))
    assert (bce.low, bce.high) == pytest.approx(hand([0.03, 0.04], 0.95))
    assert (other.n_seeds, other.n_paired, other.delta) == (3, 2, pytest.approx(-0.015))
    tables = tables_over_seeds(wide_tables(results), results, record_of(THREE))
    assert "| bce | **0.0350**‡ ± .0635 |" in seed_markdown(tables, results)
    assert tables[0].footnotes == ("‡ runs without a value are left out (n_undefined in seeds.csv)",)
    none = with_ece(results_of(THREE), {"bce": dict.fromkeys(range(3), math.nan)})
    row = row_of(over_seeds(none, record_of(THREE), ("ece",), ci=0.95), "bce")
    assert (row.n_seeds, row.n_undefined) == (0, 3)
    assert math.isnan(row.mean)
    assert row_of(over_seeds(none, record_of(THREE), ("ece",), ci=0.95), "aslp-mc").n_paired == 0


def test_calibrated_rows_stand_apart_and_are_compared_with_the_baseline_as_it_was() -> None:
    results = results_of(THREE, outside=False)
    calibrated = {
        ("toy", f"bce-s{s}", "platt"): rows(0.7 + s / 9).under({**rows(1.0).conventions, "calibrator": "platt"})
        for s in range(3)
    }
    results = Results(replace(results.run, calibrated=calibrated), results.settings)
    found = [r for r in over_seeds(results, record_of(THREE), ("ece",), ci=0.95) if r.method == "bce"]
    assert [r.calibrator for r in found] == ["none", "platt"]
    value = {k: next(v.value for v in values if v.metric == "ece") for k, values in results.values().items()}
    after = [value[Key("toy", f"bce-s{s}", calibrator="platt")] for s in range(3)]
    before = [value[Key("toy", f"bce-s{s}")] for s in range(3)]
    assert (found[1].mean, found[1].n_paired) == (pytest.approx(np.mean(after)), 3)
    assert found[1].delta == pytest.approx(np.mean(np.subtract(after, before)))


def test_equal_differences_of_nothing_do_not_differ_and_few_values_have_no_interval() -> None:
    assert t_interval([0.5, 0.5], 0.95) == (0.5, 0.0, 0.5, 0.5)
    assert np.isnan(t_interval([], 0.95)).all()
    results = with_ece(results_of(THREE), {m: dict(enumerate(ECE["bce"])) for m in THREE})
    row = row_of(over_seeds(results, record_of(THREE), ("ece",), ci=0.95), "aslp-mc")
    assert (row.delta, row.delta_low, row.delta_high, row.differs) == (0, 0, 0, False)


def test_metrics_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match="hold no brier"):
        over_seeds(results_of(THREE), record_of(THREE), ("brier",), ci=0.95)


# --- tables -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def known() -> tuple[Results, TrainingRecord]:
    return with_ece(results_of(THREE), {m: dict(enumerate(x)) for m, x in ECE.items()}), record_of(THREE)


def test_the_terminal_shows_means_intervals_and_marks(known: tuple[Results, TrainingRecord]) -> None:
    out = StringIO()
    console = Console(file=out, width=100, highlight=False, markup=False, force_terminal=True)
    for shown in seed_tables(*known):
        console.print(shown)
    text = out.getvalue()
    low, high = hand(ECE["aslp-mc"], 0.95)
    assert re.search(r"\x1b\[1m0\.0152\x1b\[0m\*", text), "the best is bold, and differs from the baseline"
    assert "0.0340" in text
    assert "0.0340*" not in text
    plain = re.sub(r"\x1b\[\d*m", "", text)
    assert f"[{low:.4f}, {high:.4f}]".replace("0.", ".") in plain
    assert "ece ↓" in plain
    assert "far: out of distribution, 6 images" in plain
    legend = " ".join(plain.split())
    assert "Mean over 3 seeds with its 95 % t interval" in legend
    assert "differs from bce: the interval of the difference, paired by seed, excludes 0" in legend
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 100


def test_markdown_and_latex_show_the_half_width_the_best_and_the_second(known: tuple[Results, TrainingRecord]) -> None:
    results, record = known
    tables = tables_over_seeds(wide_tables(results), results, record)
    half = {m: stats.t.ppf(0.975, 2) * stats.sem(x) for m, x in ECE.items()}
    shown = {m: f"{h:.4f}".removeprefix("0") for m, h in half.items()}
    markdown, latex = seed_markdown(tables, results), seed_latex(tables, results)
    assert f"| aslp-mc | **0.0152**\\* ± {shown['aslp-mc']} |" in markdown
    assert f"| bce | <ins>0.0340</ins> ± {shown['bce']} |" in markdown
    assert "### toy: 6 images, 2,592 valid pixels, over seeds" in markdown
    assert "aslp-mc & \\textbf{0.0152} & " in latex
    assert f"\\scriptsize $\\pm$\\,{shown['aslp-mc']} & " in latex
    assert "bce & \\underline{0.0340} & " in latex
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 2
    assert len(set(re.findall(r"\\label\{[^}]+\}", latex))) == 2
    for text in (markdown, latex):
        assert "not that of images" in text
        assert "bootstrap" not in text


def test_seeds_that_differ_by_method_are_said() -> None:
    methods = {"bce": (0, 1, 2), "slp": (1, 2)}
    results = results_of(methods)
    [inside, _] = tables_over_seeds(wide_tables(results), results, record_of(methods))
    assert inside.reading.startswith("Mean over seeds (bce 3, slp 2) with its 95 %")


# --- the record and its files -----------------------------------------------------------------------------------------------


def write_csv(path: Path, table: Mapping[str, Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])


def write_runs(home: Path, record: TrainingRecord) -> None:
    for run in record.runs:
        epochs = list(range(1, EPOCHS + 1))
        write_csv(
            run.metrics,
            {
                "epoch": epochs,
                "loss": [1 / e + run.seed / 10 for e in epochs],
                "validation_accuracy": [0.5 + e / 10 for e in epochs],
                "validation_ece": ["" if e % 2 else 0.1 / e + run.seed / 100 for e in epochs],
                "alpha_mean": [""] * EPOCHS,
            },
        )
        if run.alphas is not None:
            alpha = [0.04 * i + run.seed / 100 for i in range(5)]
            write_csv(
                run.alphas,
                {
                    "name": [f'a, "{i}"' for i in range(5)],
                    "alpha": alpha,
                    "loss": ["", 0.9, 0.5, 0.6, 0.1],
                    "accuracy": [0.9] * 5,
                },
            )
    (home / "results").mkdir(parents=True, exist_ok=True)
    document = {
        "schema": 1,
        "runs": [
            {
                "name": run.name,
                "method": run.method,
                "seed": run.seed,
                "metrics": f"../{run.metrics.relative_to(home)}",
                "alphas": None if run.alphas is None else f"../{run.alphas.relative_to(home)}",
            }
            for run in record.runs
        ],
    }
    (home / "results" / "training.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    write_runs(tmp_path, record_of(THREE, tmp_path))
    return tmp_path


def test_the_record_is_read_with_paths_from_the_folder_of_the_results(trained: Path) -> None:
    record = read_training(trained / "results")
    assert record is not None
    assert [(r.name, r.method, r.seed) for r in record.runs[2:4]] == [
        ("bce-s2", "bce", 2),
        ("aslp-mc-s0", "aslp-mc", 0),
    ]
    assert record.runs[0].metrics.samefile(trained / "bce" / "seed-0" / "metrics.csv")
    assert record.runs[0].alphas is None
    assert (record.baseline, record.missing_files) == ("bce", [])
    assert read_training(trained) is None


def test_learning_curves_are_mean_and_range_over_the_seeds(trained: Path) -> None:
    curves = learning_curves(record_of(THREE, trained), ("loss", "validation_ece", "alpha_mean"))
    loss, ece = curves["loss"]["bce"], curves["validation_ece"]["bce"]
    assert loss.epoch.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(loss.mean, [1.1, 0.6, 1 / 3 + 0.1, 0.35])
    np.testing.assert_allclose(loss.low, [1, 1 / 2, 1 / 3, 1 / 4])
    np.testing.assert_allclose(loss.high, [1.2, 0.7, 1 / 3 + 0.2, 0.45])
    assert ece.epoch.tolist() == [2, 4]
    np.testing.assert_allclose(ece.mean, [0.06, 0.035])
    assert curves["alpha_mean"] == {}
    shorter = trained / "bce" / "seed-1" / "metrics.csv"
    write_csv(shorter, {"epoch": [1, 2], "loss": [3.0, 3.0], "validation_ece": ["", ""], "alpha_mean": ["", ""]})
    curves = learning_curves(record_of(THREE, trained), ("loss", "validation_ece"))
    assert curves["loss"]["bce"].epoch.tolist() == [1, 2], "only epochs that every seed has"
    assert "bce" not in curves["validation_ece"]


def test_alphas_of_all_seeds_are_pooled_and_correlated_as_scipy_does(trained: Path) -> None:
    found = final_alphas(record_of(THREE, trained))
    assert list(found) == ["aslp-mc"]
    alphas = found["aslp-mc"]
    np.testing.assert_allclose(np.sort(alphas.alpha), np.sort([0.04 * i + s / 100 for i in range(5) for s in range(3)]))
    known = np.isfinite(alphas.loss)
    assert known.sum() == 12, "images never visited have no loss"
    expected = stats.spearmanr(alphas.alpha[known], alphas.loss[known]).statistic
    assert alphas.rank_correlation == pytest.approx(expected, rel=1e-12)
    assert -1 < expected < 0
    assert math.isnan(rank_correlation(np.zeros(4), np.arange(4.0)))
    assert math.isnan(rank_correlation(np.array([]), np.array([])))
    assert math.isnan(rank_correlation(np.arange(3.0), np.full(3, math.nan)))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is damaged"),
        ('{"schema": 2, "runs": []}', "has schema 2, this calbench reads up to 1"),
        ('{"schema": 1, "runs": []}', "names no run"),
        ('{"schema": 1, "runs": [{"name": "a", "method": "a", "seed": true, "metrics": "m", "alphas": null}]}', "True"),
        (
            '{"schema": 1, "runs": [{"name": "a", "method": "a", "seed": 0, "metrics": null, "alphas": null}]}',
            "no text",
        ),
        (
            '{"schema": 1, "runs": [{"name": "a", "method": "a", "seed": 0, "metrics": "m", "alphas": null},'
            '{"name": "b", "method": "a", "seed": 0, "metrics": "m", "alphas": null}]}',
            "names a, b; expected runs of different names, each of another method or seed",
        ),
    ],
)
def test_a_damaged_record_says_what_is_wrong(document: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(document, encoding="utf-8")
    with pytest.raises(FormatError, match=re.escape(message)) as raised:
        read_training(tmp_path)
    assert "training.json" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.csv", "epoch,loss\n1,0.5\n2", "is damaged"),
        ("metrics.csv", "epoch,loss\n", "is damaged"),
        ("metrics.csv", "epoch,los\n1,0.5\n", "'loss'"),
        ("metrics.csv", "epoch,loss\n1,half\n", "half"),
        ("metrics.csv", "epoch,loss\n1,0.5\n1,0.4\n", "has the epochs 1, 1"),
        ("alphas.csv", "name,alpha,loss\na,-0.5,0.1\n", "has the alphas -0.5 to -0.5; expected numbers from 0"),
        ("alphas.csv", "name,alpha,loss\na,,0.1\n", "expected numbers from 0"),
    ],
)
def test_a_damaged_table_is_named(name: str, text: str, message: str, trained: Path) -> None:
    path = trained / "aslp-mc" / "seed-1" / name
    path.write_text(text, encoding="utf-8")
    record = record_of(THREE, trained)
    with pytest.raises(FormatError, match=re.escape(message)) as raised:
        _ = learning_curves(record, ("loss",)) if name == "metrics.csv" else final_alphas(record)
    assert str(path) in str(raised.value)


# --- figures ----------------------------------------------------------------------------------------------------------------


def test_curves_are_drawn_as_they_are(trained: Path) -> None:
    curves = learning_curves(record_of(THREE, trained), ("loss", "validation_ece"))
    ax = learning_curve(curves["loss"], looks(THREE), new_figure().subplots())
    assert [line.get_label() for line in ax.get_lines()] == ["bce", "aslp-mc"]
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata()[:, 1], curves["loss"]["bce"].mean)
    shade = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (shade.min(), shade.max()) == pytest.approx((0.25, 1.2))
    del curves["validation_ece"]["bce"]
    figure = learning_curves_figure("Learning", curves, looks(THREE))
    assert [panel.get_ylabel() for panel in figure.axes] == ["loss", "validation_ece"]
    assert "not drawn, no value: bce" in figure.axes[1].get_xlabel()
    assert rendered(figure, ("png",))["png"].startswith(b"\x89PNG")


def test_one_epoch_is_a_point() -> None:
    band = learning_curves(TrainingRecord(()), ("loss",))
    assert band == {"loss": {}}
    from calbench.seeds import Band

    one = Band(*(np.array([x]) for x in (1, 0.5, 0.4, 0.6)))
    ax = learning_curve({"bce": one}, looks(["bce"]), new_figure().subplots())
    assert ax.get_lines()[0].get_marker() == looks(["bce"])["bce"].marker


def test_alphas_of_which_all_are_zero_fill_the_first_bin() -> None:
    rng = np.random.default_rng(0)
    loss = rng.uniform(0, 1, 50)
    zero = Alphas(np.zeros(50), loss, math.nan)
    ax = alpha_histogram(zero, looks(["x"])["x"], new_figure().subplots(), top=1.0)
    heights = ax.patches[0].get_data().values
    assert heights.tolist() == [1.0, *[0.0] * 19]
    figure = alpha_figure("α", {"aslp-mc": zero}, looks(["aslp-mc"]))
    left, right = figure.axes
    assert left.get_xlim() == (0, 1)
    assert right.get_title(loc="left") == "ρ undefined"
    some = Alphas(loss / 10, loss, 1.0)
    figure = alpha_figure("α", {"aslp-mc": zero, "aslp-mei": some}, looks(["aslp-mc", "aslp-mei"]))
    assert figure.axes[0].get_xlim() == figure.axes[2].get_xlim() == (0, pytest.approx(loss.max() / 10))
    assert figure.axes[3].get_title(loc="left") == "ρ = 1.00"
    np.testing.assert_allclose(figure.axes[3].collections[0].get_offsets(), np.stack([loss, loss / 10], axis=1))
    assert rendered(figure, ("svg",))["svg"]


def test_plots_of_training_are_there_only_where_there_is_something_to_draw(trained: Path) -> None:
    results, record = results_of(THREE, outside=False), record_of(THREE, trained)
    without = {plot.name for plot in plots_of(results)}
    assert {plot.name for plot in plots_of(results, record)} - without == {"training_curves", "training_alphas"}
    plain = TrainingRecord(tuple(replace(run, alphas=None) for run in record.runs))
    assert {plot.name for plot in plots_of(results, plain)} - without == {"training_curves"}
    assert {plot.name for plot in plots_of(results, record_of(THREE))} == without, "no file is at hand"


# --- the report -------------------------------------------------------------------------------------------------------------

QUICK = ReportOptions(formats=("svg",), gallery=0)


def chapters(page: str) -> list[str]:
    return re.findall(r'<section id="([^"]+)" class="chapter"', page)


def read_page(report: Path) -> str:
    return (report / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("written")
    write_runs(home, record_of(THREE, home))
    results_of(THREE, n_boot=40).write(home / "results")
    return home


@pytest.fixture
def study(written: Path, tmp_path: Path) -> Path:
    """Results and runs, to be changed."""
    return Path(shutil.copytree(written, tmp_path / "study"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without plots, which take nearly all their time."""
    monkeypatch.setattr("calbench.report.build.plots_of", lambda *_: [])


def test_the_report_has_tables_over_seeds_and_figures_of_training(study: Path) -> None:
    out = study / "report"
    written = write_report(study / "results", out, QUICK, jobs=1)
    assert {path.name for path in out.iterdir()} == {*FILES, *SEED_FILES, "plots"}
    assert {*SEED_FILES, "report.html"} <= {path.name for path in written if path.parent == out}
    assert written[-1].name == "report.html"
    assert {"training_curves.svg", "training_alphas.svg"} <= {path.name for path in (out / "plots").iterdir()}
    page = read_page(out)
    assert chapters(page) == ["training", "c1", "outside", "definitions", "made"]
    record = read_training(study / "results")
    assert record is not None
    with (out / "seeds.csv").open(newline="", encoding="utf-8") as file:
        header, *table = csv.reader(file)
    assert header == list(SeedRow._fields)
    expected = over_seeds(results_of(THREE, n_boot=40), record, ci=0.95)
    assert len(table) == len(expected) == 8
    for given, row in zip(table, expected, strict=True):
        assert given == ["" if isinstance(x, float) and math.isnan(x) else str(x) for x in row], "to the last digit"
    training = page[page.index('<section id="training"') : page.index('<section id="c1"')]
    for row in expected:
        assert f'data-value="{row.mean!r}" data-low="{row.low!r}" data-high="{row.high!r}"' in training
    assert training.count("data-plot=") == 2
    assert "covers the randomness of training, not that of images" in training
    # without the record nothing speaks of training, and what it left is cleared
    (out / "mine.csv").write_text("mine", encoding="utf-8")
    (study / "results" / "training.json").unlink()
    write_report(study / "results", out, QUICK, jobs=1)
    assert {path.name for path in out.iterdir()} == {*FILES, "plots", "mine.csv"}
    assert not list((out / "plots").glob("training*"))
    assert "training" not in chapters(read_page(out))
    assert "over seeds" not in read_page(out)
    assert list(json.loads((out / "report.json").read_text(encoding="utf-8"))) == ["calbench", "command", "plots"]


@pytest.mark.usefixtures("undrawn")
def test_a_table_of_that_name_that_no_report_wrote_stays(study: Path, calbench: Callable[..., Result]) -> None:
    out = study / "report"
    out.mkdir()
    (out / "seeds.csv").write_text("mine", encoding="utf-8")
    done = calbench("report", study / "results", "-o", out, "--formats", "svg", "--gallery", 0, "-q")
    assert (done.exit_code, "already holds seeds.csv" in done.stderr) == (1, True)
    (study / "results" / "training.json").unlink()
    write_report(study / "results", out, QUICK, jobs=1)
    assert (out / "seeds.csv").read_text(encoding="utf-8") == "mine"


def test_files_of_training_that_are_gone_leave_a_note(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calbench.report.build.plots_of", lambda *of: [p for p in plots_of(*of) if p.dataset == ""])
    lost = study / "aslp-mc" / "seed-1" / "alphas.csv"
    lost.unlink()
    said: list[str] = []
    write_report(study / "results", study / "report", QUICK, jobs=1, announce=said.append)
    [note] = said
    assert "seed-1/alphas.csv, which is not at hand" in note
    assert "seed-1/alphas.csv, which is not at hand" in read_page(study / "report")
    assert "10 values" in (study / "report" / "plots" / "training_alphas.svg").read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_several_folders_use_the_one_record_whose_runs_are_all_there(study: Path) -> None:
    other = {"focal": (0,)}
    results_of(other, n_boot=40).write(study / "other")
    write_report([study / "other", study / "results"], study / "one", QUICK, jobs=1)
    table = pd.read_csv(study / "one" / "seeds.csv")
    assert set(table["method"]) == set(THREE), "methods of other folders have no seeds"
    write_runs(study / "second", record_of(other, study / "second"))
    results_of(other, n_boot=40).write(study / "second" / "results")
    said: list[str] = []
    write_report([study / "second" / "results", study / "results"], study / "two", QUICK, jobs=1, announce=said.append)
    assert "each hold a training.json; report them apart" in said[0]
    assert not (study / "two" / "seeds.csv").exists()
    results_of({"bce": (0, 1, 2)}, n_boot=40).write(study / "results")
    said.clear()
    write_report(study / "results", study / "three", QUICK, jobs=1, announce=said.append)
    assert "names aslp-mc-s0, aslp-mc-s1, aslp-mc-s2, which the results lack" in said[0]
    assert "training" not in chapters(read_page(study / "three"))


def test_a_damaged_file_stops_before_the_earlier_report_is_touched(study: Path) -> None:
    (study / "report").mkdir()
    (study / "report" / "report.html").write_text("earlier", encoding="utf-8")
    (study / "bce" / "seed-0" / "metrics.csv").write_text("epoch\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"metrics\.csv is damaged"):
        write_report(study / "results", study / "report", QUICK, jobs=1)
    assert read_page(study / "report") == "earlier"


@pytest.mark.usefixtures("undrawn")
def test_the_csv_holds_all_metrics_where_the_tables_show_those_asked_for(study: Path) -> None:
    write_report(study / "results", study / "report", replace(QUICK, metrics=("accuracy",)), jobs=1)
    assert set(pd.read_csv(study / "report" / "seeds.csv")["metric"]) == set(METRICS)
    assert "ece" not in (study / "report" / "seeds.md").read_text(encoding="utf-8").split("| method")[1]
    assert list(seed_frame(results_of(THREE), record_of(THREE)).columns) == list(SeedRow._fields)
