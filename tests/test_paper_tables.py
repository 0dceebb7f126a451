"""Tables for papers: every number is one of summary.json, every name survives every format, and LaTeX takes them."""

from __future__ import annotations

import html
import io
import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from calbench import Results, Run, Settings, collect
from calbench.errors import InputError, UnknownName
from calbench.evaluate import Value
from calbench.metrics import METRICS
from calbench.profiles import PROFILES
from calbench.report.paper import SPREADS, Column, WideTable, latex, markdown, wide_frame, wide_tables
from calbench.results import Key
from calbench.statistics import Statistics
from calbench.synthetic import SyntheticScene, samples

HOSTILE = r"a_b & 50% $x$ | <i> \ {}"
NAMES = (HOSTILE, "[2pt] `c` **d**", "*~^#--'e' f_é")
SCENE = SyntheticScene(height=18, width=24)
SIX = ("ece", "ece_fg", "brier", "aece", "max_f", "accuracy")


def maps(n_images: int, sharpness: float, seed: int = 0, scores: tuple[str, ...] = ()) -> Statistics:
    return next(
        iter(
            collect(
                samples(n_images, sharpness, seed=seed, scene=SCENE), scores=scores, regions=True
            ).combinations.values()
        )
    )


def after_calibration(n_images: int, calibrator: str) -> Statistics:
    """Float maps, which say that they went through a calibrator and that their saliency metrics are of the map before."""
    floats = [
        replace(sample, scores=np.asarray(sample.scores, np.float32) / 255, kind="probabilities")
        for sample in samples(n_images, 1.0, scene=SCENE)
    ]
    rows = next(iter(collect(floats, scores=()).combinations.values()))
    return rows.under({**rows.conventions, "calibrator": calibrator, "saliency": "uncalibrated"})


@pytest.fixture(scope="module")
def run() -> Run:
    """Three methods on one data set, one of them calibrated and one without S, and a set without objects."""
    sharpness = dict(zip(NAMES, (2.5, 1.0, 0.4), strict=True))
    return Run(
        {("data_1", name): maps(12, s, scores=("s_measure",) * (name != NAMES[1])) for name, s in sharpness.items()},
        ood={("far", name): maps(11, s, seed=9) for name, s in sharpness.items()},
        calibrated={("data_1", HOSTILE, "platt_x"): after_calibration(12, "platt_x")},
    )


@pytest.fixture(scope="module")
def results(run: Run) -> Results:
    return Results(run, Settings(n_boot=60))


@pytest.fixture(scope="module")
def two_sets(run: Run) -> Results:
    """The second method is on another data set, too."""
    combinations = {**run.combinations, ("more", NAMES[1]): maps(10, 1.0, seed=3)}
    return Results(replace(run, combinations=combinations), Settings(n_boot=60))


def records(results: Results, table: WideTable) -> list[list[dict[str, Any] | None]]:
    """What summary.json holds of each cell, looked up without the code under test."""
    found = []
    document = results.to_json()["results"]
    for key in table.keys:
        rows = [
            row
            for row in document
            if (row["dataset"], row["method"], row["calibrator"], row["region"]) == (*key[:2], key.calibrator, "all")
        ]
        cells: list[dict[str, Any] | None] = []
        for column in table.columns:
            metric = column.metric
            matching = [row for row in rows if row["metric"] == metric.name and "class=" not in row["options"]]
            matching = [row for row in matching if row["average"] == metric.average]
            if metric.scope == "id-ood":
                matching = [row for row in matching if "level=pixel;score=entropy" in row["options"]]
                labelled = any("id=" in row["options"] for row in matching)
                wanted = f"id={column.against};level=pixel;score=entropy" if labelled else "level=pixel;score=entropy"
                matching = [row for row in matching if row["options"] == wanted]
                if column.against and (column.against, key.method) not in results.run.combinations:
                    matching = []
            assert len(matching) <= 1
            cells.append(matching[0] if matching else None)
        found.append(cells)
    return found


def renamed(results: Results, names: Mapping[str, str], metrics: tuple[str, ...]) -> Results:
    """The same rows of methods of other names, with these metrics alone."""
    run = results.run
    return Results(
        replace(
            run,
            combinations={(d, names[m]): rows for (d, m), rows in run.combinations.items()},
            ood={(d, names[m]): rows for (d, m), rows in run.ood.items()},
            calibrated={(d, names[m], c): rows for (d, m, c), rows in run.calibrated.items()},
        ),
        replace(results.settings, metrics=metrics),
    )


def parsed_spread(text: str) -> tuple[float, ...]:
    return tuple(map(float, re.findall(r"-?\d*\.\d+", text)))


def check_cell(value: str, spread: str, record: dict[str, Any] | None, kind: str) -> None:
    if record is None:
        assert value == "–"
        return
    assert re.fullmatch(r"-?\d+\.\d{4}", value)
    assert float(value) == pytest.approx(record["value"], abs=0.50001e-4)
    limits = (record["low"], record["high"])
    if kind == "none" or limits[0] is None:
        assert spread == ""
    elif kind == "interval":
        assert parsed_spread(spread) == pytest.approx(limits, abs=0.50001e-4)
    else:
        assert parsed_spread(spread) == pytest.approx([(limits[1] - limits[0]) / 2], abs=0.50001e-4)


def test_one_table_a_data_set_of_whole_images_with_calibrated_rows_after_their_method(results: Results) -> None:
    assert {key.region for key in results.evaluators} > {"all", "boundary"}
    inside, outside = wide_tables(results)
    assert (inside.dataset, inside.outside, outside.dataset, outside.outside) == ("data_1", False, "far", True)
    assert list(inside.keys) == [
        Key("data_1", HOSTILE),
        Key("data_1", HOSTILE, calibrator="platt_x"),
        Key("data_1", NAMES[1]),
        Key("data_1", NAMES[2]),
    ]
    assert [metric.name for metric in inside.metrics] == ["ece", "ece_fg", "brier", "mae", "max_f", "s_measure"]
    assert set(inside.metrics[:4]) <= {METRICS[name] for name in PROFILES["calbench"].headline}
    assert inside.values[2][5] is None
    assert inside.values[0][5] is not None
    assert [key.method for key in outside.keys] == list(NAMES)
    assert {metric.scope for metric in outside.metrics} == {"ood", "id-ood"}
    assert all(column.name == column.metric.name for column in outside.columns)


def test_named_metrics_are_the_columns_in_their_order(results: Results) -> None:
    inside, outside = wide_tables(results, ["nll", "ood_fpr95", "max_f", "ood_entropy", "nll"])
    assert [column.heading for column in inside.columns] == ["nll ↓", "max_f ↑"]
    assert [column.heading for column in outside.columns] == ["ood_fpr95 ↓", "ood_entropy"]
    assert [table.dataset for table in wide_tables(results, ["nll"])] == ["data_1"]


def test_a_metric_that_is_not_there_is_refused(results: Results) -> None:
    with pytest.raises(UnknownName, match="did you mean 'brier'"):
        wide_tables(results, ["brierr"])
    with pytest.raises(InputError, match="these results hold no ece_classwise, tace; name metrics"):
        wide_tables(results, ["ece", "ece_classwise", "tace"])


@pytest.mark.parametrize("fixture", ["results", "two_sets"])
def test_the_csv_holds_the_numbers_to_the_last_digit(fixture: str, request: pytest.FixtureRequest) -> None:
    results = request.getfixturevalue(fixture)
    tables = wide_tables(results)
    text = wide_frame(tables, spread="interval").to_csv(index=False)
    frame = pd.read_csv(io.StringIO(text), keep_default_na=False, na_values={}, dtype=str)
    plain = wide_frame(tables)
    assert [name for name in frame if not name.endswith(("_low", "_high"))] == list(plain)
    assert len(frame) == len(plain) == sum(len(table.keys) for table in tables)
    rows = iter(frame.to_dict("records"))
    n_numbers = 0
    for table in tables:
        for key, cells in zip(table.keys, records(results, table), strict=True):
            row = next(rows)
            assert (row["dataset"], row["method"], row["calibrator"]) == (key.dataset, key.method, key.calibrator)
            for column, record in zip(table.columns, cells, strict=True):
                for suffix, name in (("", "value"), ("_low", "low"), ("_high", "high")):
                    shown = row[column.name + suffix]
                    expected = None if record is None else record[name]
                    assert (float(shown) if shown else None) == expected
                    n_numbers += expected is not None
    assert n_numbers > 60


@pytest.mark.parametrize("spread", SPREADS)
def test_markdown_shows_the_numbers_and_the_names(two_sets: Results, spread: Any) -> None:
    tables = wide_tables(two_sets)
    page = MarkdownIt("commonmark").enable("table").render(markdown(tables, results=two_sets, spread=spread))
    shown = re.findall(r"<table>.*?</table>", page, re.S)
    assert len(shown) == len(tables) == 3
    for table, text in zip(tables, shown, strict=True):
        rows = [
            re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", text, re.S)
        ]
        headings = [column.heading + f" against {column.against}" * bool(column.against) for column in table.columns]
        assert [html.unescape(cell) for cell in rows[0]] == ["method", *headings]
        for i, (row, key, cells) in enumerate(zip(rows[1:], table.keys, records(two_sets, table), strict=True)):
            assert html.unescape(row[0]) == key.name
            for j, (cell, record) in enumerate(zip(row[1:], cells, strict=True)):
                rank = 1 if cell.startswith("<strong>") else 2 if cell.startswith("<ins>") else 0
                assert rank == table.rank(i, j)
                value, _, rest = re.sub(r"</?(strong|ins)>", "", cell).partition(" ")
                check_cell(value.rstrip("*†°"), rest, record, spread)
    assert f"<h3>{tables[1].dataset}: 10 images, 4,320 valid pixels</h3>" in page
    assert ("In brackets, the 95 % interval (60 bootstrap replicates, which resample images)" in page) == (
        spread == "interval"
    )
    assert ("± half the width of the 95 % interval" in page) == (spread == "pm")


def read_tex(text: str) -> str:
    """The characters behind the LaTeX of a name, each command by what its documentation says it prints."""
    commands = {
        r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textasciigrave{}": "`",
        r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", "{[}": "[", "{*}": "*", "-{}": "-",
        r"$\downarrow$": "↓", r"$\uparrow$": "↑", r"$\rightarrow$": "→", "--": "–",
    }  # fmt: skip
    pattern = "|".join(map(re.escape, commands)) + r"|\\([#$%&_{}])"
    return re.sub(pattern, lambda match: match[1] or commands[match[0]], text)


@pytest.mark.parametrize("spread", SPREADS)
def test_latex_shows_the_numbers_and_the_names(two_sets: Results, spread: Any) -> None:
    tables = wide_tables(two_sets)
    floats = re.findall(r"\\begin{table}.*?\\end{table}", latex(tables, results=two_sets, spread=spread), re.S)
    assert len(floats) == len(tables)
    for table, text in zip(tables, floats, strict=True):
        column = 0
        expected = records(two_sets, table)
        for block in re.findall(r"\\begin{tabular}.*?\\end{tabular}", text, re.S):
            lines = [line.removesuffix(r" \\").split(" & ") for line in block.splitlines() if line.endswith(r" \\")]
            header = [read_tex(cell) for cell in lines.pop(0)]
            n = len(header) - 1
            columns = table.columns[column : column + n]
            assert header == ["method", *(c.heading for c in columns)]
            if any(c.against for c in columns):
                against = [read_tex(cell.removeprefix(r"\scriptsize ")) for cell in lines.pop(0)]
                assert against == ["", *(f"against {c.against}" if c.against else "" for c in columns)]
            step = 1 if spread == "none" else 2
            assert len(lines) == step * len(table.keys)
            for i, key in enumerate(table.keys):
                first, second = lines[step * i], lines[step * i + 1] if step == 2 else [""] * (n + 1)
                assert f"{read_tex(first[0])} {read_tex(second[0])}".strip() == key.name
                for j in range(n):
                    shown = re.sub(r"\\rlap{.*}$", "", first[1 + j])
                    rank = {r"\textb": 1, r"\under": 2}.get(shown[:6], 0)
                    assert rank == table.rank(i, column + j)
                    value = re.sub(r"\\(textbf|underline){(.*)}", r"\2", shown).replace("$-$", "-").replace("--", "–")
                    check_cell(value, second[1 + j].replace("$-$", "-"), expected[i][column + j], spread)
            column += n
        assert column == len(table.columns)


def test_each_detection_is_under_the_set_that_it_is_against(two_sets: Results) -> None:
    """Methods with one in-distribution set do not name it among the options, and still go under its heading."""
    outside = wide_tables(two_sets)[-1]
    assert outside.columns[-8:] == tuple(
        Column(METRICS[name], dataset)
        for dataset in ("data_1", "more")
        for name in ("ood_auroc", "ood_aupr_in", "ood_aupr_out", "ood_fpr95")
    )
    assert outside.columns[-1].name == "ood_fpr95 against more"
    options = {value.options for row in outside.values for value in row[-8:] if value is not None}
    assert options == {f"{of}level=pixel;score=entropy" for of in ("", "id=data_1;", "id=more;")}
    on_more = [row[-1] for row in outside.values]
    assert [value is None for value in on_more] == [True, False, True]
    assert all(row[-8] is not None for row in outside.values)
    assert outside.rank(1, len(outside.columns) - 1) == 0, "nobody to compare with"
    assert {outside.rank(row, len(outside.columns) - 8) for row in range(3)} == {0, 1, 2}


def test_merged_results_find_the_set_of_values_that_do_not_name_it(results: Results, two_sets: Results) -> None:
    key = Key("far", NAMES[1])
    joined = Results(two_sets.run, two_sets.settings)
    joined.remember(two_sets.values() | {key: results.values()[key]})
    outside = wide_tables(joined)[-1]
    assert [column.against for column in outside.columns[-4:]] == [""] * 4, "one set is left, which needs no name"
    assert outside.values[1] == wide_tables(results)[-1].values[1]
    twin = replace(two_sets.run, combinations={**two_sets.run.combinations, ("more", HOSTILE): maps(12, 1.0, seed=4)})
    unsure = Results(twin, two_sets.settings)
    unsure.remember(two_sets.values() | {Key("more", HOSTILE): []})
    outside = wide_tables(unsure)[-1]
    assert [column.against for column in outside.columns[-12:]] == [""] * 4 + ["data_1"] * 4 + ["more"] * 4
    assert [value is None for value in outside.values[0][-12:]] == [False] * 4 + [True] * 8, "both sets are as large"


def value(number: float, metric: str = "ece", **more: Any) -> Value:
    empty = {"options": "", "average": "pixels", "median_unbiased": math.nan, "p_calibrated": math.nan, "details": {}}
    counts = {"n_images": 12, "n_undefined": 0, "n_pixels": 100, "low": math.nan, "high": math.nan}
    return Value(metric=metric, value=number, **(empty | counts | more))


def column_of(*numbers: float | None, metric: str = "ece") -> WideTable:
    keys = tuple(Key("data_1", str(i)) for i in range(len(numbers)))
    values = tuple((None if number is None else value(number, metric),) for number in numbers)
    return WideTable("data_1", keys, (Column(METRICS[metric]),), values)


@pytest.mark.parametrize(
    ("metric", "numbers", "ranks"),
    [
        ("ece", (0.3, 0.1, 0.2), [0, 1, 2]),
        ("accuracy", (0.3, 0.1, 0.2), [1, 0, 2]),
        ("ece", (0.10001, 0.10004, 0.2), [1, 1, 0]),  # as printed; after two best there is no second
        ("ece", (0.1, 0.2, 0.20004, 0.3), [1, 2, 2, 0]),
        ("ece", (0.10004, 0.10006), [1, 2]),
        ("ece", (-0.00001, 0.00001, 0.1), [1, 1, 0]),
        ("ece", (math.nan, 0.2, None, 0.1), [0, 2, 0, 1]),
        ("nll", (math.inf, 0.2, 0.1), [0, 2, 1]),
        ("max_e", (math.inf, 0.2, 0.1), [0, 1, 2]),
        ("ece", (0.1,), [0]),
        ("ece", (math.nan, 0.1, None), [0, 0, 0]),
        ("gap", (-0.1, 0.0, 0.1), [0, 0, 0]),
        ("entropy", (0.1, 0.2), [0, 0]),
    ],
)
def test_rank(metric: str, numbers: tuple[float | None, ...], ranks: list[int]) -> None:
    table = column_of(*numbers, metric=metric)
    assert [table.rank(row, 0) for row in range(len(numbers))] == ranks


def test_more_digits_tell_values_apart() -> None:
    table = column_of(0.10001, 0.10004, 0.2)
    assert [table.rank(row, 0, digits=5) for row in range(3)] == [1, 2, 0]


def test_undefined_and_missing_are_told_apart_and_zero_has_no_sign(results: Results) -> None:
    tables = [replace(column_of(math.nan, None, -0.00001), keys=wide_tables(results)[0].keys[:3])]
    cells = [
        line.split(" | ")[-1].rstrip(" |") for line in markdown(tables, results=results).splitlines() if "|" in line
    ]
    assert cells[-3:] == ["undefined", "–", "0.0000"]
    frame = wide_frame(tables)
    assert frame["ece"].isna().tolist() == [True, True, False]


def test_signs_are_explained_below_the_table_where_they_are(results: Results) -> None:
    inside = wide_tables(results, ["ece", "max_f"])[:1]
    assert "levels=uncalibrated" in inside[0].values[1][1].options
    text = markdown(inside, results=results)
    rows = [line for line in text.splitlines() if "platt" in line]
    assert re.search(r"\d\**†\s*\|$", rows[0])
    assert text.count("†") == 2
    assert "† of the map before calibration" in text.splitlines()[-1]
    assert "° the interval reaches perfect calibration" in text.splitlines()[-1]
    assert "levels" not in text, "the footnote has said it"
    tex = latex(inside, results=results)
    assert r"\rlap{$^{\dagger}$}" in tex
    assert r"{\scriptsize $^{\dagger}$ of the map before calibration" in tex
    left_out = [replace(inside[0], values=((value(0.1, n_undefined=3), None),) * 4)]
    assert re.search(r"0\.1000\*\*\\\* \|", markdown(left_out, results=results))
    assert markdown(left_out, results=results).endswith("\\* images without a value are left out\n")
    assert r"\rlap{{*}}" in latex(left_out, results=results)
    assert "†" not in markdown(wide_tables(results, ["ece"]), results=results)


def test_captions_state_the_conventions(results: Results) -> None:
    text = markdown(wide_tables(results, ["ece", "nll", "aece", "mae"])[:1], results=results)
    assert "Pooled over pixels, except mae: means over images" in text
    assert "bins=15 (ece)" in text
    assert "bins=15, ties=split (aece)" in text
    assert r"↓ lower is better. Best in bold" in text
    assert "↑" not in text
    assert "bootstrap" not in text


def test_without_intervals_a_spread_shows_and_claims_none(run: Run) -> None:
    results = Results(run, Settings(metrics=SIX, n_boot=0))
    tables = wide_tables(results)
    for spread in SPREADS:
        assert latex(tables, results=results, spread=spread) == latex(tables, results=results)
        assert markdown(tables, results=results, spread=spread) == markdown(tables, results=results)
    assert "bootstrap" not in latex(tables, results=results)


def test_labels_are_distinct(results: Results) -> None:
    inside = wide_tables(results)[0]
    tables = [replace(inside, dataset=name, outside=False) for name in ("a b", "a_b", "a-b", "模型")]
    shown = [replace(table, keys=inside.keys) for table in tables]
    labels = re.findall(r"\\label{(.*?)}", latex(shown, results=results))
    assert labels == ["tab:calbench-a-b", "tab:calbench-a-b.2", "tab:calbench-a-b.3", "tab:calbench-data"]


def test_letters_beyond_latin_are_announced(results: Results) -> None:
    assert "may lack" not in latex(wide_tables(results, ["ece"]), results=results)
    other = renamed(results, dict(zip(NAMES, (HOSTILE, "b", "é模型\nλ"), strict=True)), ("ece",))
    text = latex(wide_tables(other), results=other)
    assert "may lack: λ 型 模;" in text.partition(r"\begin{table}")[0]
    assert "\né模型 λ & 0." in text, "and passed through, on one line"


WIDE = {
    "plain": ("overconfident", "U-Net", "calibrated"),
    "long": ("a-method-with-a-very-long-name_and-more", "U-Net", "calibrated"),
    "hostile": NAMES,
}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("kind", WIDE)
def test_latex_compiles_and_fits(two_sets: Results, tmp_path: Path, kind: str) -> None:
    detection = tuple(name for name, metric in METRICS.items() if metric.scope != "id")
    shown = renamed(two_sets, dict(zip(NAMES, WIDE[kind], strict=True)), SIX + detection)
    tables = wide_tables(shown)
    assert [len(table.columns) for table in tables] == [6, 6, 11]
    document = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    for spread in SPREADS:
        (tmp_path / f"{spread}.tex").write_text(latex(tables, results=shown, spread=spread), encoding="utf-8")
        document.append(rf"\input{{{spread}}}\clearpage")
    (tmp_path / "main.tex").write_text("\n".join([*document, r"\end{document}"]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    log = (tmp_path / "main.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert (tmp_path / "main.pdf").stat().st_size > 10_000
    assert "Missing character" not in log
    overfull = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)]
    assert max(overfull, default=0) < 20
    if kind == "plain":
        six = (tmp_path / "interval.tex").read_text(encoding="utf-8").partition(r"\end{table}")[0]
        assert six.count(r"\begin{tabular}") == 1, "six columns with intervals stay beside each other"
