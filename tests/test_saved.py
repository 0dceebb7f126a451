"""Results folders read back and merged: the same numbers, or an error that says why not."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from calbench import Results, Settings, collect
from calbench.errors import FormatError, MergeError
from calbench.evaluate import Evaluator
from calbench.results import Key
from calbench.saved import load_results, merged
from calbench.statistics import Run
from calbench.statistics.bundle import Statistics
from calbench.synthetic import samples, write_demo

FAST: dict[str, Any] = {"n_boot": 50, "metrics": ("ece", "ece_fg", "nll", "mae", "max_f")}


def rows(sharpness: float = 2.5, n: int = 8, **options: Any) -> Statistics:
    run = collect(samples(n, sharpness), scores=(), **options)
    return next(iter(run.combinations.values()))


def written(folder: Path, *methods: tuple[str, Statistics], dataset: str = "set", **settings: Any) -> Results:
    results = Results(Run({(dataset, name): part for name, part in methods}), Settings(**FAST | settings))
    results.write(folder)
    return results


@pytest.fixture(scope="module")
def sharp() -> Statistics:
    return rows(regions=True)


@pytest.fixture(scope="module")
def commands_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the commands: `evaluate` with an OOD set, `calibrate`."""
    from click.testing import CliRunner

    from calbench.cli import main

    root = write_demo(tmp_path_factory.mktemp("saved"), n_images=10)
    pred, gt = f"{root}/preds/{{method}}/{{dataset}}", f"{root}/data/{{dataset}}/gt"
    for words in (
        ["evaluate", "--ood", f"dark={root}/preds/{{method}}/synthetic", "-o", root / "results"],
        ["calibrate", "temperature", "--method", "overconfident", "--cv", "2", "-o", root / "fits"],
    ):
        done = CliRunner().invoke(main, [*map(str, words), "--pred", pred, "--gt", gt, "--n-boot", "50", "-q"])
        assert done.exit_code == 0, done.output
    return root


@pytest.mark.parametrize("command", ["results", "fits"])
def test_a_folder_is_read_back_number_for_number(
    commands_folder: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = commands_folder / command
    document = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(Evaluator, "_computed", lambda *_: pytest.fail("a number was computed again"))
    results = load_results(folder)
    again = results.to_json()
    assert len(document["results"]) > 10
    for part in ("results", "settings", "definitions", "combinations", "findings"):
        assert again[part] == document[part], part
    for name, table in (("per_image.csv", results.per_image), ("reliability.csv", results.reliability)):
        table.to_csv(commands_folder / "again.csv", index=False, lineterminator="\n")
        assert (commands_folder / "again.csv").read_bytes() == (folder / name).read_bytes(), name


def test_what_the_files_lack_is_computed_from_the_rows(sharp: Statistics, tmp_path: Path) -> None:
    fresh = written(tmp_path, ("net", sharp))
    (tmp_path / "per_image.csv").unlink()
    (tmp_path / "reliability.csv").unlink()
    results = load_results(tmp_path)
    np.testing.assert_allclose(
        results.per_image["ece"].to_numpy(), fresh.per_image["ece"].to_numpy(), rtol=1e-13, atol=0
    )
    for kind, (bins, error) in results.diagrams[Key("set", "net")].items():
        expected, value = fresh.diagrams[Key("set", "net")][kind]
        assert error == value
        np.testing.assert_allclose([b.accuracy for b in bins], [b.accuracy for b in expected], rtol=1e-13)


@pytest.mark.parametrize("name", ["007", "NA", "nan", "1e5", "x,\"y\" 'z'", "日本"])
def test_names_stay_what_they_are(name: str, sharp: Statistics, tmp_path: Path) -> None:
    written(tmp_path, (name, sharp), dataset=name)
    results = load_results(tmp_path)
    assert set(results.per_image["method"]) == set(results.reliability["dataset"]) == {name}
    assert results.diagrams[Key(name, name)]["top-label"][0], "its bins are found under its name"
    assert list(results.per_image["image"])[:2] == ["000000", "000001"]


def _damage(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "summary.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def test_a_folder_that_is_no_result_is_refused(sharp: Statistics, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no finished results .*summary.json"):
        load_results(tmp_path)
    folder = tmp_path / "a"
    written(tmp_path / "right", ("net", sharp))
    for change, message in (
        (lambda d: d.update(schema=99), "schema 99.*update calbench"),
        (lambda d: d["results"][0].update(method="other"), "different runs"),
        (lambda d: d["results"][0].update(n_pixels=1), "count other images or pixels for net on set"),
        (lambda d: d["results"][0].pop("value"), "different runs, or damaged"),
        (lambda d: d.pop("results"), "different runs, or damaged"),
    ):
        shutil.copytree(tmp_path / "right", folder, dirs_exist_ok=True)
        _damage(folder, change)
        with pytest.raises(FormatError, match=message):
            load_results(folder)
    (folder / "summary.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="damaged"):
        load_results(folder)
    (folder / "stats.npz").unlink()
    with pytest.raises(FormatError):
        load_results(folder)


def test_folders_become_one_result(sharp: Statistics, tmp_path: Path) -> None:
    soft = rows(0.4)
    parts = {
        "a": written(tmp_path / "a", ("sharp", sharp), ("soft", soft)),
        "b": written(tmp_path / "b", ("sharp", sharp), dataset="other"),
    }
    results = merged({name: load_results(tmp_path / name) for name in parts})
    values = {key: value for part in parts.values() for key, value in part.values().items()}
    assert results.values().keys() == values.keys()
    assert len(values) > 10, "regions are there"
    for key, known in values.items():
        for ours, theirs in zip(results.values()[key], known, strict=True):
            assert (ours.metric, ours.n_pixels) == (theirs.metric, theirs.n_pixels)
            assert ours.value == theirs.value or (math.isnan(ours.value) and math.isnan(theirs.value))
    images = pd.concat([part.per_image for part in parts.values()])
    assert len(results.per_image) == len(images)
    assert math.isclose(results.per_image["nll"].sum(), images["nll"].sum(), rel_tol=1e-12)
    assert results.diagrams.keys() == results.evaluators.keys()


def test_the_same_method_may_be_in_two_folders_with_the_same_numbers_only(sharp: Statistics, tmp_path: Path) -> None:
    written(tmp_path / "a", ("net", sharp))
    written(tmp_path / "b", ("net", sharp), metrics=("ece",))
    written(tmp_path / "c", ("net", rows(2.4)))
    a, b, c = (load_results(tmp_path / name) for name in "abc")
    both = merged({"a": a, "b": b})
    assert len(both.values()[Key("set", "net")]) == len(a.values()[Key("set", "net")])
    with pytest.raises(MergeError, match=r"net on set is in a and in c with other numbers; .*--method"):
        merged({"a": a, "c": c})


def test_what_one_folder_lacks_is_computed(sharp: Statistics, tmp_path: Path) -> None:
    soft = rows(0.4, regions=True)
    written(tmp_path / "a", ("sharp", sharp))
    written(tmp_path / "b", ("soft", soft), metrics=("ece",))
    results = merged({name: load_results(tmp_path / name) for name in "ab"})
    found = {v.metric: v.value for v in results.values()[Key("set", "soft")] if v.average == "pixels"}
    expected = {
        v.metric: v.value
        for v in Results(Run({("set", "soft"): soft}), Settings(**FAST)).values()[Key("set", "soft")]
        if v.average == "pixels"
    }
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert set(results.per_image["method"]) == {"sharp", "soft"}


@pytest.mark.parametrize(
    "other", [{"options": {"bins": 20}}, {"seed": 1}, {"n_boot": 60}, {"ci": 0.9}, {"profile": "pysodmetrics"}]
)
def test_other_settings_do_not_merge(other: dict[str, Any], sharp: Statistics, tmp_path: Path) -> None:
    written(tmp_path / "a", ("net", sharp))
    written(tmp_path / "b", ("net", sharp), **other)
    with pytest.raises(MergeError, match=f"a was evaluated with {next(iter(other))}"):
        merged({name: load_results(tmp_path / name) for name in "ab"})


def test_calibrated_rows_join_what_was_evaluated(commands_folder: Path) -> None:
    parts = {name: load_results(commands_folder / name) for name in ("results", "fits")}
    results = merged(parts)
    key = Key("synthetic", "overconfident", calibrator="temperature")
    assert key in results.evaluators
    assert {v.metric for v in results.values()[key]} >= {"ece", "ece_fg", "smece", "class_changed"}
    known = {(v.metric, v.average, v.options): v.value for v in parts["fits"].values()[key]}
    found = {(v.metric, v.average, v.options): v.value for v in results.values()[key]}
    assert {k: found[k] for k in known} == pytest.approx(known, rel=1e-12, nan_ok=True)


def test_evaluators_let_go_of_what_they_computed_and_compute_it_again_alike(sharp: Statistics) -> None:
    results = Results(Run({("set", "net"): sharp}), Settings(**FAST))
    evaluator = results.evaluators[Key("set", "net")]
    first = evaluator.pooled.n_pixels, evaluator.reliability("top-label"), evaluator.joint()
    results.values()
    assert not evaluator._views
    assert "_image_values" not in vars(evaluator)
    assert evaluator.pooled.n_pixels == first[0]
    assert repr(evaluator.reliability("top-label")) == repr(first[1])
    np.testing.assert_array_equal(evaluator.joint().accuracy, first[2].accuracy)
    fresh = Evaluator(sharp, results.settings)
    for name, column in evaluator.per_image().items():
        np.testing.assert_array_equal(column, fresh.per_image()[name])


def test_folders_that_were_held_against_other_masks_do_not_merge(sharp: Statistics, tmp_path: Path) -> None:
    assert sharp.histogram is not None
    counts = sharp.histogram.counts.copy()
    counts[2, 0, 10], counts[2, 1, 10] = counts[2, 1, 10], counts[2, 0, 10]  # as many pixels, of other classes
    other = Statistics(replace(sharp.histogram, counts=counts), conventions=sharp.conventions)
    written(tmp_path / "a", ("net", sharp))
    written(tmp_path / "b", ("other", other))
    with pytest.raises(
        MergeError, match=r"net in a and other in b were measured against other masks on set: 1 of 8 images"
    ):
        merged({name: load_results(tmp_path / name) for name in "ab"})
    moved = Statistics(sharp.histogram, conventions={**sharp.conventions, "gt_threshold": 7})
    lower = Statistics(sharp.histogram, conventions={**sharp.conventions, "gt_threshold": 8})
    written(tmp_path / "c", ("net", moved))
    written(tmp_path / "d", ("other", lower))
    with pytest.raises(MergeError, match="under other conventions of the ground truth"):
        merged({name: load_results(tmp_path / name) for name in "cd"})


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_regions_stay_whichever_folder_comes_first(order: str, sharp: Statistics, tmp_path: Path) -> None:
    written(tmp_path / "a", ("net", sharp))
    written(tmp_path / "b", ("net", replace(sharp, regions={})))
    results = merged({name: load_results(tmp_path / name) for name in order})
    assert {key.region for key in results.evaluators} >= {"all", "boundary", "size_q1"}
    assert set(results.per_image["region"]) == {key.region for key in results.evaluators}


@pytest.mark.parametrize("name", ["reliability.csv", "per_image.csv"])
def test_tables_that_were_cut_or_changed_are_refused(name: str, sharp: Statistics, tmp_path: Path) -> None:
    written(tmp_path, ("net", sharp))
    path = tmp_path / name
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for damaged in (lines[:-3], [lines[0].replace("method", "net"), *lines[1:]], [*lines[:-1], lines[-1][:9]]):
        path.write_text("".join(damaged), encoding="utf-8")
        with pytest.raises(FormatError, match=rf"{name} is damaged.*(delete it|evaluate again)"):
            load_results(tmp_path)
    _damage(tmp_path, lambda document: document.update(schema="one"))
    with pytest.raises(FormatError, match="damaged"):
        load_results(tmp_path)
