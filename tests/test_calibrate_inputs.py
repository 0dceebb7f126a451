"""Calibration met with wrong files, wrong options and wrong places: what is said, and what is left alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

import calbench as package
from calbench.calibrators import load_calibrator, training
from calbench.calibrators.meta_cal import MetaCal
from calbench.errors import FormatError
from calbench.kernels import measure_levels
from calbench.statistics.storage import load_run
from calbench.synthetic import SyntheticScene, samples
from calbench.synthetic_classes import ClassScene, class_samples

Run = Callable[..., Result]
Maps = tuple[Path, Path]
SMALL = SyntheticScene(height=18, width=24)
FOUR = ClassScene(height=10, width=16, classes=4)


def png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def binary(tmp_path: Path) -> Maps:
    pred, gt = tmp_path / "net", tmp_path / "toy" / "gt"
    for sample in samples(12, sharpness=2.5, scene=SMALL):
        assert sample.target is not None
        png(pred / f"{sample.name}.png", sample.scores)
        png(gt / f"{sample.name}.png", np.where(sample.target, 255, 0).astype(np.uint8))
    return pred, gt


@pytest.fixture
def several(tmp_path: Path) -> Maps:
    pred, gt = tmp_path / "logits", tmp_path / "street" / "gt"
    pred.mkdir(parents=True)
    for name, logits, labels in class_samples(8, 2.0, scene=FOUR):
        np.savez(pred / f"{name}.npz", logits=logits.astype(np.float32))
        png(gt / f"{name}.png", labels)
    return pred, gt


def fitted(calbench: Run, maps: Maps, out: Path, *names: object) -> Result:
    return calbench("calibrate", *names, "--pred", maps[0], "--gt", maps[1], "-o", out, "--n-boot", 0)


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "NaN or infinite"), (0.0, "temperature is positive"), (-2.0, "temperature is positive")],
)
def test_a_file_with_an_impossible_temperature_is_damaged(
    calbench: Run, binary: Maps, tmp_path: Path, value: float, words: str
) -> None:
    fitted(calbench, binary, tmp_path / "fits", "temperature")
    path = tmp_path / "fits" / "calibrators" / "temperature.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file({"temperature_": np.array(value)}, path, metadata=metadata)
    with pytest.raises(FormatError, match=words):
        load_calibrator(path)
    result = calbench("apply", path, "--pred", binary[0], "-o", tmp_path / "maps")
    assert (result.exit_code, "damaged" in result.stderr) == (1, True)
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("temperature", "temperature.bounds=1", "a list such as"),
        ("temperature", "temperature.bounds=(2,5)", "a list such as"),
        ("histogram_binning", "histogram_binning.bins=1.5", "a whole number"),
        ("histogram_binning", "histogram_binning.bins=abc", "a whole number"),
        ("meta_cal", "meta_cal.keep_class=maybe", "true or false"),
        ("selective", "selective.lr=fast", "a number"),
        ("temperature", "platt.x=1", "not among the calibrators"),
    ],
)
def test_a_parameter_of_another_type_is_a_usage_error(
    calbench: Run, binary: Maps, tmp_path: Path, name: str, given: str, words: str
) -> None:
    result = fitted(calbench, binary, tmp_path / "fits", name, "--set", given)
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "fits" / "partial.npz").exists()


def test_parameters_are_taken_as_json(calbench: Run, binary: Maps, tmp_path: Path) -> None:
    out = tmp_path / "fits"
    assert fitted(calbench, binary, out, "temperature", "--set", "temperature.bounds=[0.5, 1.5]").exit_code == 0
    found = load_calibrator(out / "calibrators" / "temperature.safetensors")
    assert found.get_params()["bounds"] == (0.5, 1.5)
    assert found.temperature_ == pytest.approx(1.5)
    assert found.summary_["at_bound"]


@pytest.mark.parametrize("command", ["calibrate", "evaluate"])
def test_results_are_not_written_among_predictions(calbench: Run, binary: Maps, command: str) -> None:
    pred, gt = binary
    names = ["temperature"] if command == "calibrate" else []
    for place in (pred, pred / "below", gt):
        result = calbench(command, *names, "--pred", pred, "--gt", gt, "-o", place)
        assert (result.exit_code, "would mix" in result.stderr) == (1, True)
    assert {path.suffix for path in pred.rglob("*")} == {".png"}
    template = pred.parent / "{method}"
    result = calbench(command, *names, "--pred", template, "--gt", gt, "--method", "net", "-o", pred)
    assert "would mix" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cv", 99], "99 folds"),
        (["--fit-list", "LIST"], "no image that was read"),
        (["--group-by", "^x(\\d)"], "do not match"),
    ],
)
def test_a_split_that_is_not_possible_is_said_before_any_pixel(
    calbench: Run, binary: Maps, tmp_path: Path, options: list[object], words: str
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("unknown\n")
    out = tmp_path / "fits"
    given = [listed if option == "LIST" else option for option in options]
    result = fitted(calbench, binary, out, "temperature", *given)
    assert (result.exit_code, words in result.stderr) == (1, True), result.stderr
    assert not list(out.glob("*"))


def test_a_list_may_start_with_a_byte_order_mark(calbench: Run, binary: Maps, tmp_path: Path) -> None:
    names = sorted(path.stem for path in binary[0].iterdir())[:6]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names), encoding="utf-8-sig")
    result = fitted(calbench, binary, tmp_path / "fits", "temperature", "--fit-list", listed)
    assert result.exit_code == 0, result.stderr


def test_pictures_of_another_size_are_refused_before_any_fit(calbench: Run, several: Maps, tmp_path: Path) -> None:
    for path in several[0].iterdir():
        png(tmp_path / "photos" / f"{path.stem}.png", np.zeros((10, 16, 3), np.uint8))
    odd = next(iter(sorted((tmp_path / "photos").iterdir())))
    png(odd, np.zeros((20, 16, 3), np.uint8))
    out = tmp_path / "fits"
    result = fitted(calbench, several, out, "local_temperature", "--images", tmp_path / "photos")
    assert (result.exit_code, odd.name in result.stderr, "--resize-images" in result.stderr) == (1, True, True)
    assert not list(out.glob("*"))


def test_probabilities_declared_logits_name_the_data(calbench: Run, several: Maps, tmp_path: Path) -> None:
    for path in several[0].iterdir():
        z = np.load(path)["logits"].astype(np.float64)
        p = np.exp(z - z.max(0)) / np.exp(z - z.max(0)).sum(0)
        np.savez(path, logits=p)
    result = fitted(calbench, several, tmp_path / "fits", "temperature", "--input", "logits")
    assert (result.exit_code, "logits on " in result.stderr, "these are probabilities" in result.stderr) == (
        1,
        True,
        True,
    )


def test_calibrated_maps_are_not_calibrated_again(calbench: Run, binary: Maps, tmp_path: Path) -> None:
    fitted(calbench, binary, tmp_path / "fits", "temperature")
    path = tmp_path / "fits" / "calibrators" / "temperature.safetensors"
    maps = tmp_path / "maps"
    assert calbench("apply", path, "--pred", binary[0], "-o", maps).exit_code == 0
    assert calbench("evaluate", "--pred", maps, "--gt", binary[1], "--n-boot", 0).exit_code == 0
    for arguments in (
        ("apply", path, "--pred", maps, "-o", tmp_path / "twice"),
        ("evaluate", "--calibrator", path, "--pred", maps, "--gt", binary[1], "--allow-overlap"),
        ("calibrate", "temperature", "--pred", maps, "--gt", binary[1], "-o", tmp_path / "more"),
    ):
        result = calbench(*arguments)
        assert (result.exit_code, "apply.json" in result.stderr) == (1, True), result.stderr


def test_the_identity_may_be_measured_anywhere(calbench: Run, binary: Maps, tmp_path: Path) -> None:
    fitted(calbench, binary, tmp_path / "fits", "temperature")
    folder = tmp_path / "fits" / "calibrators"
    given = ("--pred", binary[0], "--gt", binary[1], "--n-boot", 0)
    assert calbench("evaluate", *given, "--calibrator", folder / "temperature.safetensors").exit_code == 1
    assert calbench("evaluate", *given, "--calibrator", folder / "identity.safetensors").exit_code == 0


def test_what_the_ends_alone_change_is_said(calbench: Run, binary: Maps, tmp_path: Path) -> None:
    result = calbench(
        "calibrate", "temperature", "--set", "temperature.bounds=[0.9999999,1.0000001]",
        "--pred", binary[0], "--gt", binary[1], "-o", tmp_path / "fits", "--n-boot", 0, "--json",
    )  # fmt: skip
    [board] = json.loads(result.stdout)["leaderboards"]
    [note] = [note for note in board["notes"] if "half a level" in note]
    after = {
        difference["metric"]: difference
        for contender in board["contenders"]
        if contender["calibrator"] == "temperature"
        for difference in contender["differences"]
    }
    for metric in ("ece", "brier"):  # a temperature of 1 does nothing else
        assert f"from {after[metric]['before']:.4f} to {after[metric]['after']:.4f}" in note


def test_pixels_are_counted_as_pixels(binary: Maps) -> None:
    found = package.calibrate(["temperature", "isotonic"], pred=binary[0], gt=binary[1], n_boot=0, holdout=0.25)
    for name in ("temperature", "isotonic"):
        assert found.calibrator(name).summary_["pixels"] == 9 * 18 * 24


def test_meta_cal_of_8_bit_maps_sees_pixels_not_levels(binary: Maps) -> None:
    """The half of the right pixels that T is fitted to is a run of pixels."""
    found = package.calibrate("meta_cal", pred=binary[0], gt=binary[1], n_boot=0, holdout=0.25)
    calibrator = found.calibrator("meta_cal")
    drawn = list(samples(12, sharpness=2.5, scene=SMALL))
    listed = set(calibrator.origin_["images"])
    logits = np.concatenate([
        np.log(p / (1 - p)) for s in drawn if s.name in listed
        for p in [np.clip(s.scores.ravel() / 255, 1 / 510, 1 - 1 / 510)]
    ])  # fmt: skip
    target = np.concatenate([s.target.ravel() for s in drawn if s.name in listed and s.target is not None]).astype(int)
    order = np.random.default_rng(0).permutation(len(logits))
    pixels = MetaCal().fit(logits[order], target[order])
    assert calibrator.threshold_ == pytest.approx(pixels.threshold_)
    assert calibrator.temperature_ == pytest.approx(pixels.temperature_, rel=0.06)


def test_a_streamed_temperature_reports_the_nll_of_all_its_pixels(several: Maps) -> None:
    few = package.calibrate("temperature", pred=several[0], gt=several[1], n_boot=0, max_pixels=160)
    whole = package.calibrate("temperature", pred=several[0], gt=several[1], n_boot=0)
    a, b = few.calibrator("temperature"), whole.calibrator("temperature")
    assert a.summary_["pixels"] == b.summary_["pixels"] == 8 * 160
    for name in ("nll_before", "nll_after"):
        assert a.summary_[name] == pytest.approx(b.summary_[name], rel=1e-9)
    assert a.summary_["nll_after"] <= a.summary_["nll_before"]


def test_statistics_of_a_leaderboard_hold_what_came_before_and_after(
    calbench: Run, binary: Maps, tmp_path: Path
) -> None:
    out = tmp_path / "fits"
    fitted(calbench, binary, out, "temperature")
    run = load_run(out / "stats.npz")
    assert list(run.combinations) == [("toy", "net")]
    assert list(run.calibrated) == [("toy", "net", "temperature")]
    before, after = run.combinations["toy", "net"], run.calibrated["toy", "net", "temperature"]
    assert before.names == after.names
    assert after.calibrator == "temperature"
    again = measure_levels(before, np.arange(256) / 255)
    assert again.changes is not None
    assert not again.changes.changed.any()
    result = calbench("evaluate", "--stats", out / "stats.npz", "--n-boot", 0)
    assert (result.exit_code, "net + temperature" in result.stdout) == (0, True)
    assert "left out: weighted_f, s_measure: pixels that were read for it" in result.stderr
    result = calbench("evaluate", "--stats", out / "stats.npz", "--metrics", "s_measure")
    assert (result.exit_code, "pixels that were read for it" in result.stderr) == (1, True)


def test_files_of_an_older_schema_still_load(calbench: Run, binary: Maps, tmp_path: Path) -> None:
    """Rows of before calibrators existed have no `calibrator` key."""
    out = tmp_path / "out"
    calbench("evaluate", "--pred", binary[0], "--gt", binary[1], "-o", out, "--n-boot", 0)
    with np.load(out / "stats.npz") as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    header["schema"] = 2
    arrays["header"] = np.array(json.dumps(header))
    old = tmp_path / "old.npz"
    np.savez_compressed(old, **arrays)
    assert (
        load_run(old).combinations["toy", "net"].names == load_run(out / "stats.npz").combinations["toy", "net"].names
    )
    shutil.rmtree(out)


def test_public_names_are_there_before_they_are_loaded() -> None:
    assert {"calibrate", "load_calibrator", "CALIBRATORS"} <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'calibrat'"):
        package.calibrat  # noqa: B018


def test_samples_in_memory_are_written_like_folders(tmp_path: Path) -> None:
    out = tmp_path / "fits"
    found = package.calibrate("temperature", samples(12, scene=SMALL), n_boot=0, output=out)
    saved = load_calibrator(out / "calibrators" / "temperature.safetensors")
    assert saved.temperature_ == found.calibrator("temperature").temperature_
    assert {"split.json", "comparison.csv", "summary.csv", "stats.npz"} <= {path.name for path in out.iterdir()}


def test_a_leaderboard_leaves_nothing_but_its_files(calbench: Run, several: Maps, tmp_path: Path) -> None:
    out = tmp_path / "fits"
    assert fitted(calbench, several, out, "temperature", "--max-pixels", 400).exit_code == 0
    assert {path.name for path in (out / "folds").rglob("*.safetensors")} == {
        f"{name}-fit{k}.safetensors" for name in ("identity", "temperature") for k in range(6)
    }


@pytest.mark.parametrize(("group_by", "n_units"), [(None, 6), ("^patient.", 3)])
def test_networks_validate_on_whole_groups(
    several: Maps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_by: str | None, n_units: int
) -> None:
    """With groups, a patient's images do not both train a network and choose its best epoch."""
    for folder in several:
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"patient{number // 2}-{path.name}")
    for path in several[0].iterdir():
        png(tmp_path / "photos" / f"{path.stem}.png", np.zeros((10, 16, 3), np.uint8))
    seen: list[int] = []
    original = training.split_groups

    def recorded(groups: np.ndarray, share: float, seed: int) -> np.ndarray:
        seen.append(len(np.unique(groups)))
        return original(groups, share, seed)

    monkeypatch.setattr(training, "split_groups", recorded)
    package.calibrate(
        ["selective", "local_temperature"], pred=several[0], gt=several[1], images=str(tmp_path / "photos"),
        parameters={"selective": {"epochs": 1}, "local_temperature": {"epochs": 1, "crop": 10}},
        n_boot=0, holdout=0.25, group_by=group_by,
    )  # fmt: skip
    assert seen == [n_units, n_units]
