"""Calibrators fitted from disk: what is held out, honest numbers, exact temperatures, paired differences, interruption."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from scipy.special import expit, softmax

from calbench.calibration import MEASURED, calibrate, calibrate_folders
from calbench.calibrators import CALIBRATORS, Calibrator, load_calibrator
from calbench.calibrators.histogram_binning import HistogramBinning
from calbench.calibrators.identity import Identity
from calbench.calibrators.isotonic import Isotonic
from calbench.calibrators.samples import level_logits
from calbench.calibrators.temperature import Temperature
from calbench.collect import collect
from calbench.contenders import FitOptions
from calbench.differences import Difference, paired_difference
from calbench.errors import InputError, OptionError, UnknownName
from calbench.evaluate import Evaluator, Settings
from calbench.fitting import ImageSource, LevelSource
from calbench.io.sample import Sample
from calbench.metrics import METRICS
from calbench.plan import CollectOptions
from calbench.splits import Split, folds, listed, one_holdout
from calbench.statistics import JointHistogram, Statistics
from calbench.synthetic import SyntheticScene, samples
from calbench.synthetic_classes import ClassScene, class_samples

Run = Callable[..., Result]
Maps = tuple[Path, Path]

SMALL = SyntheticScene(height=18, width=24)
FOUR = ClassScene(height=10, width=16, classes=4)
MODULE = sys.modules["calbench.calibration"]


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_levels(folder: Path, drawn: Sequence[Sample]) -> Maps:
    """8-bit maps and their masks."""
    pred, gt = folder / "net", folder / "toy" / "gt"
    for sample in drawn:
        assert sample.target is not None
        write_png(pred / f"{sample.name}.png", sample.scores)
        write_png(gt / f"{sample.name}.png", np.where(sample.target, 255, 0).astype(np.uint8))
    return pred, gt


def write_classes(folder: Path, n_images: int, sharpness: float = 2.0, dtype: type = np.float32) -> Maps:
    """Logits of four classes, and their labels."""
    pred, gt = folder / "logits", folder / "street" / "gt"
    pred.mkdir(parents=True)
    for name, logits, labels in class_samples(n_images, sharpness, scene=FOUR):
        np.savez(pred / f"{name}.npz", logits=logits.astype(dtype))
        write_png(gt / f"{name}.png", labels)
    return pred, gt


def write_table(folder: Path, n_samples: int = 400) -> Path:
    """A classification table: over-confident logits of three classes, and labels."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 1.5, (n_samples, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "net.npz", logits=(2.5 * logits).astype(np.float32), label=labels)
    return folder / "net.npz"


def maps_of(pred: Path, gt: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Logits `(n,)` or `(n, C)` and target `(n,)` of each image, read without calbench."""
    found = {}
    for path in sorted(pred.iterdir()):
        labels = np.asarray(Image.open(gt / f"{path.stem}.png")).ravel()
        if path.suffix == ".png":
            found[path.stem] = level_logits()[np.asarray(Image.open(path)).ravel()], (labels > 128).astype(int)
        else:
            z = np.load(path)["logits"]
            found[path.stem] = z.reshape(len(z), -1).T, labels.astype(int)
    return found


def by_hand(p: np.ndarray, target: np.ndarray, before: np.ndarray) -> dict[str, float]:
    """Metrics in plain numpy, of probabilities and of the logits before."""
    binary = p.ndim == 1
    decided = (p >= 0.5).astype(int) if binary else p.argmax(1)
    confidence = np.maximum(p, 1 - p) if binary else p.max(1)
    chosen = np.where(target == 1, p, 1 - p) if binary else p[np.arange(len(p)), target]
    error = (p - target) ** 2 if binary else ((p - np.eye(p.shape[1])[target]) ** 2).sum(1)
    bins = np.ceil(np.round(confidence * 15, 9)).astype(int)
    gaps = np.bincount(bins, confidence - (decided == target))
    decided_before = (before >= 0).astype(int) if binary else before.argmax(1)
    return {
        "nll": float(-np.log(np.clip(chosen, np.finfo(float).eps, 1)).mean()),
        "brier": float(error.mean()),
        "ece": float(np.abs(gaps).sum() / len(target)),
        "accuracy": float((decided == target).mean()),
        "class_changed": float((decided != decided_before).mean()),
    }


def difference(found: Any, calibrator: str, metric: str) -> Difference:
    [board] = found.leaderboards
    [contender] = [c for c in board.contenders if c.name == calibrator]
    return next(d for d in contender.differences if d.metric == metric)


def values(found: Any, calibrator: str) -> dict[str, float]:
    table = found.results.summary
    rows = table[(table.calibrator == calibrator) & (table.average == "pixels") & ~table.options.str.contains("class=")]
    return dict(zip(rows.metric, rows.value, strict=True))


def split_of(out: Path, calibrator: str) -> dict[str, Any]:
    [board] = json.loads((out / "split.json").read_text("utf-8"))
    return next(split for split in board["splits"] if calibrator in split["calibrators"])


def comparison(out: Path, calibrator: str) -> dict[str, float]:
    table = pd.read_csv(out / "comparison.csv")
    rows = table[table.calibrator == calibrator]
    return dict(zip(rows.metric, rows.after, strict=True))


@pytest.fixture
def levels(tmp_path: Path) -> Maps:
    """Ten over-confident 8-bit maps."""
    return write_levels(tmp_path, list(samples(10, 2.5, scene=SMALL)))


@pytest.fixture
def classes(tmp_path: Path) -> Maps:
    """Ten over-confident maps of four classes."""
    return write_classes(tmp_path, 10)


# --- splits ---------------------------------------------------------------------------------------------------------


def test_folds_hold_every_image_out_once_and_never_split_a_group() -> None:
    groups = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 6])
    split = folds(groups, 3, seed=0)
    assert (split.held_out.sum(0) == 1).all()
    assert (split.fitting == ~split.held_out).all()
    assert split.final.all()
    assert split.is_refitted
    for out in split.held_out:
        assert not set(groups[out]) & set(groups[~out])
    sizes = [len(set(groups[out])) for out in split.held_out]
    assert max(sizes) - min(sizes) <= 1
    assert np.array_equal(folds(groups, 3, seed=0).held_out, split.held_out)
    assert not np.array_equal(folds(np.arange(40), 3, seed=1).held_out, folds(np.arange(40), 3, seed=0).held_out)


def test_a_holdout_keeps_groups_together_and_is_what_the_saved_calibrator_learned_from() -> None:
    groups = np.repeat(np.arange(10), 3)
    split = one_holdout(groups, 0.3, seed=2)
    assert len(set(groups[split.held_out[0]])) == 3
    assert split.held_out.sum() == 9
    assert (split.fitting[0] == split.final).all()
    assert not split.is_refitted
    assert one_holdout(np.arange(2), 0.01, 0).held_out.sum() == 1
    assert one_holdout(np.arange(2), 0.99, 0).held_out.sum() == 1
    with pytest.raises(InputError, match="at least 2"):
        one_holdout(np.zeros(4, int), 0.5, 0)


def test_a_list_names_what_is_fitted_on() -> None:
    names, alone = ("a", "b", "c"), np.arange(3)
    split = listed(names, alone, ["a", "c"], allow_overlap=False)
    assert split.fitting.tolist() == [[True, False, True]]
    assert split.held_out.tolist() == [[False, True, False]]
    with pytest.raises(InputError, match=r"2 names of --fit-list are no image that was read:\n  x\n  y"):
        listed(names, alone, ["a", "y", "x"], allow_overlap=False)
    with pytest.raises(InputError, match="names every image"):
        listed(names, alone, names, allow_overlap=False)
    whole = listed(names, alone, names, allow_overlap=True)
    assert whole.fitting.all()
    assert whole.held_out.all()
    patients = np.array([0, 0, 1])
    with pytest.raises(InputError, match=r"splits 1 group .*\n  a\n.*--allow-overlap"):
        listed(names, patients, ["a"], allow_overlap=False)
    assert listed(names, patients, ["a"], allow_overlap=True).held_out.tolist() == [[False, True, True]]
    volumes = listed(("p#0", "p#1", "q#0"), np.array([0, 0, 1]), ["p"], allow_overlap=False)
    assert volumes.final.tolist() == [True, True, False]


def test_too_few_images_say_how_many_folds_there_can_be() -> None:
    with pytest.raises(InputError, match="say --cv 3"):
        folds(np.arange(3), 5, 0)
    with pytest.raises(InputError, match="there is 1 image"):
        folds(np.zeros(7, int), 5, 0)
    with pytest.raises(InputError, match="say --cv 3"):
        calibrate("temperature", samples(3, scene=SMALL))


def test_the_split_is_written_by_name(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    result = calbench("calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--n-boot", 0)
    assert result.exit_code == 0, result.output
    split = split_of(tmp_path / "out", "temperature")
    names = {path.stem for path in pred.iterdir()}
    assert split["how"] == "5 folds"
    assert sorted(name for fit in split["fits"] for name in fit["held_out"]) == sorted(names)
    assert all(set(fit["fit"]) == names - set(fit["held_out"]) for fit in split["fits"])
    assert set(split["saved_calibrator_fitted_on"]) == names
    fitted = load_calibrator(tmp_path / "out" / "calibrators" / "temperature.safetensors")
    assert set(fitted.origin_["images"]) == names


@pytest.mark.parametrize("how", [("--cv", 2), ("--holdout", 0.4)])
def test_groups_are_on_one_side(calbench: Run, tmp_path: Path, how: tuple[str, float]) -> None:
    drawn = [
        Sample(f"p{number // 3}_{number}", sample.scores, sample.target)
        for number, sample in enumerate(samples(12, 2.5, scene=SMALL))
    ]
    pred, gt = write_levels(tmp_path, drawn)
    out = tmp_path / "out"
    result = calbench(
        "calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", out, "--group-by", r"^(p\d+)", "--n-boot", 0, *how
    )
    assert result.exit_code == 0, result.output
    for fit in split_of(out, "temperature")["fits"]:
        assert fit["held_out"]
        assert not {name.split("_")[0] for name in fit["fit"]} & {name.split("_")[0] for name in fit["held_out"]}
    assert len(split_of(out, "temperature")["fits"]) == (2 if how[0] == "--cv" else 1)


def test_slices_of_a_volume_are_on_one_side(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for name in "abcd":
        p = rng.uniform(0.01, 0.99, (8, 6, 3))
        mask = (rng.uniform(size=p.shape) < p).astype(np.uint8)
        for folder, array in (("net", p.astype(np.float32)), ("gt", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / folder / f"{name}.nii.gz")
    found = calibrate("temperature", pred=tmp_path / "net", gt=tmp_path / "gt", cv=2, n_boot=0, jobs=1)
    [board] = found.leaderboards
    assert len(board.names) == 12
    for out in board.splits["temperature"].held_out:
        held = {name.split("#")[0] for name, is_out in zip(board.names, out, strict=True) if is_out}
        assert len(held) == 2
        assert out.sum() == 6
    assert found.calibrator("temperature").origin_["images"].keys() == set("abcd")


def test_samples_of_a_table_in_one_hash_group_are_on_one_side(tmp_path: Path) -> None:
    path = write_table(tmp_path, 1500)
    found = calibrate("temperature", pred=path, cv=2, n_boot=0)
    [board] = found.leaderboards
    split = board.splits["temperature"]
    assert len(board.names) == split.held_out.shape[1] < 1000
    assert (split.held_out.sum(0) == 1).all()
    assert values(found, "temperature")["nll"] < values(found, "none")["nll"]


def test_networks_have_one_holdout_on_which_all_are_compared(classes: Maps, tmp_path: Path) -> None:
    pred, gt = classes
    notes: list[str] = []
    short = {"selective": {"epochs": 1}}
    found = calibrate(["temperature", "selective"], pred=pred, gt=gt, parameters=short, n_boot=0, jobs=1)
    [board] = found.leaderboards
    notes += board.notes
    assert any("one hold-out of 30 %" in note for note in notes)
    assert board.held_out.sum() == 3
    assert {len(contender.statistics.names) for contender in board.contenders} == {3}
    assert len(board.splits["temperature"].fitting) == 5
    assert len(board.splits["selective"].fitting) == 1
    assert len(found.calibrator("selective").origin_["images"]) == 7
    assert len(found.calibrator("temperature").origin_["images"]) == 10
    by_folds = calibrate(["temperature", "selective"], pred=pred, gt=gt, parameters=short, n_boot=0, jobs=1, cv=2)
    [board] = by_folds.leaderboards
    assert board.held_out.all()
    assert len(board.splits["selective"].fitting) == 2
    assert not any("hold-out" in note for note in board.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": 3, "holdout": 0.2}, "both say what is held out"),
        ({"cv": 1}, "at least 2"),
        ({"holdout": 1.0}, "between 0 and 1"),
        ({"max_pixels": 0}, "at least 1"),
        ({"rank_by": "ecee"}, "did you mean 'ece'"),
        ({"names": ("temperatur",)}, "did you mean 'temperature'"),
        ({"names": ()}, "name the calibrators"),
        ({"parameters": {"temperature": {"bound": 1}}}, "did you mean 'bounds'"),
        ({"parameters": {"isotonik": {"x": 1}}}, "did you mean 'isotonic'"),
    ],
)
def test_options_are_checked_before_any_file(options: dict[str, Any], message: str) -> None:
    with pytest.raises((OptionError, UnknownName), match=message):
        FitOptions(**({"names": ("temperature",)} | options))


# --- honest numbers -------------------------------------------------------------------------------------------------


def out_of_fold(
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]], fits: Sequence[Mapping[str, Any]], make: Callable[[], Calibrator]
) -> dict[str, float]:
    """Metrics of every image by the calibrator that did not see it, from the pixels."""
    p, target, before = [], [], []
    for fit in fits:
        z, y = (np.concatenate([maps[name][part] for name in fit["fit"]]) for part in (0, 1))
        fitted = make().fit(z, y)
        for name in fit["held_out"]:
            p.append(fitted.transform(maps[name][0]))
            target.append(maps[name][1])
            before.append(maps[name][0])
    return by_hand(np.concatenate(p), np.concatenate(target), np.concatenate(before))


@pytest.mark.parametrize("kind", ["levels", "classes"])
@pytest.mark.parametrize("make", [Temperature, HistogramBinning, Isotonic])
def test_numbers_are_those_of_images_that_the_fit_has_not_seen(
    tmp_path: Path, kind: str, make: Callable[[], Calibrator]
) -> None:
    if kind == "levels":
        pred, gt = write_levels(tmp_path, list(samples(7, 2.5, scene=SMALL)))
    else:
        pred, gt = write_classes(tmp_path, 7)
    maps, name = maps_of(pred, gt), make().name
    found = calibrate(name, pred=pred, gt=gt, output=tmp_path / "out", cv=3, n_boot=0, jobs=1)
    expected = out_of_fold(maps, split_of(tmp_path / "out", name)["fits"], make)
    measured = values(found, name)
    assert {key: measured[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    z, y = (np.concatenate([image[part] for image in maps.values()]) for part in (0, 1))
    on_all = make().fit(z, y)
    seen = by_hand(on_all.transform(z), y, z)
    assert seen["nll"] < measured["nll"]
    saved = load_calibrator(tmp_path / "out" / "calibrators" / f"{name}.safetensors")
    assert saved.transform(z) == pytest.approx(on_all.transform(z), abs=1e-12)
    assert set(saved.origin_["images"]) == set(maps)


def test_the_numbers_of_a_table_are_out_of_fold(tmp_path: Path) -> None:
    path = write_table(tmp_path, 300)
    found = calibrate("isotonic", pred=path, output=tmp_path / "out", cv=3, n_boot=0)
    with np.load(path) as file:
        maps = {f"net#{i:03d}": (file["logits"][[i]], file["label"][[i]]) for i in range(300)}
    expected = out_of_fold(maps, split_of(tmp_path / "out", "isotonic")["fits"], Isotonic)
    measured = values(found, "isotonic")
    assert {key: measured[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    assert expected["class_changed"] > 0


def test_memorised_noise_does_not_look_calibrated() -> None:
    rng = np.random.default_rng(0)
    noise = [
        Sample(f"{i}", rng.integers(0, 256, (8, 8)).astype(np.uint8), rng.integers(0, 2, (8, 8))) for i in range(10)
    ]
    found = calibrate("histogram_binning", noise, parameters={"histogram_binning": {"bins": 250}}, n_boot=0, cv=5)
    fitted = found.calibrator("histogram_binning")
    z, y = (
        np.concatenate([part.ravel() for part in parts])
        for parts in ([level_logits()[s.scores] for s in noise], [s.target.astype(int) for s in noise])
    )
    assert by_hand(fitted.transform(z), y, z)["ece"] < 0.02
    assert values(found, "histogram_binning")["ece"] > 0.2
    assert difference(found, "histogram_binning", "nll").after > np.log(2)


def test_before_is_what_evaluate_says_of_the_same_images(calbench: Run, classes: Maps, tmp_path: Path) -> None:
    pred, gt = classes
    arguments = "--pred", pred, "--gt", gt, "--n-boot", 40
    calbench("calibrate", "temperature", *arguments, "-o", tmp_path / "fits")
    calbench("evaluate", *arguments, "-o", tmp_path / "plain")
    keys = ["metric", "options", "average", "value", "low", "high"]
    tables = [pd.read_csv(tmp_path / folder / "summary.csv") for folder in ("fits", "plain")]
    before, plain = (table[table.calibrator == "none"][keys].set_index(keys[:3]) for table in tables)
    assert len(before)
    pd.testing.assert_frame_equal(before, plain.loc[before.index], check_exact=True)


def test_a_holdout_saves_the_calibrator_that_was_measured(classes: Maps, tmp_path: Path) -> None:
    pred, gt = classes
    found = calibrate("vector", pred=pred, gt=gt, output=tmp_path / "out", holdout=0.3, n_boot=0, jobs=1)
    fit = split_of(tmp_path / "out", "vector")["fits"][0]
    saved, maps = load_calibrator(tmp_path / "out" / "calibrators" / "vector.safetensors"), maps_of(pred, gt)
    assert set(saved.origin_["images"]) == set(fit["fit"])
    z, y = (np.concatenate([maps[name][part] for name in fit["held_out"]]) for part in (0, 1))
    expected = by_hand(saved.transform(z), y, z)
    measured = values(found, "vector")
    assert {key: measured[key] for key in expected} == pytest.approx(expected, abs=1e-9)


def test_void_pixels_count_nowhere(tmp_path: Path) -> None:
    pred, gt = write_classes(tmp_path, 6)
    clean = calibrate(["temperature", "isotonic"], pred=pred, gt=gt, cv=2, n_boot=0, jobs=1)
    for path in pred.iterdir():
        z, labels = np.load(path)["logits"], np.asarray(Image.open(gt / f"{path.stem}.png"))
        junk = np.full((4, 3, 16), np.nan, z.dtype)
        np.savez(path, logits=np.concatenate([z, junk], axis=1))
        write_png(gt / f"{path.stem}.png", np.concatenate([labels, np.full((3, 16), 255, np.uint8)]))
    void = calibrate(
        ["temperature", "isotonic"], pred=pred, gt=gt, cv=2, n_boot=0, jobs=1, ignore_index=(255,), input="logits"
    )
    for name in ("none", "temperature", "isotonic"):
        assert values(void, name) == pytest.approx(values(clean, name), abs=1e-12, nan_ok=True)


# --- temperature ----------------------------------------------------------------------------------------------------


def test_the_temperature_of_8_bit_maps_is_that_of_all_pixels(levels: Maps) -> None:
    found = calibrate("temperature", pred=levels[0], gt=levels[1], max_pixels=10, n_boot=0)
    z, y = (np.concatenate([image[part] for image in maps_of(*levels).values()]) for part in (0, 1))
    fitted = found.calibrator("temperature")
    assert fitted.temperature_ == pytest.approx(Temperature().fit(z, y).temperature_, rel=1e-10)
    assert fitted.summary_["weight"] == len(z)
    assert any("8-bit maps" in note for note in found.leaderboards[0].notes)


def test_temperatures_out_of_core_are_those_of_all_pixels_in_memory(tmp_path: Path) -> None:
    pred, gt = write_classes(tmp_path, 8, 2.0, np.float16)
    maps = maps_of(pred, gt)
    found = [
        calibrate("temperature", pred=pred, gt=gt, cv=4, n_boot=0, jobs=jobs, max_pixels=most, output=tmp_path / folder)
        for jobs, most, folder in ((1, 80, "one"), (2, 80, "two"), (1, 500_000, "memory"))
    ]
    fits = split_of(tmp_path / "one", "temperature")["fits"]
    for number, fit in enumerate([*fits, {"fit": list(maps)}]):
        z, y = (np.concatenate([maps[name][part] for name in fit["fit"]]) for part in (0, 1))
        whole = Temperature().fit(z.astype(np.float64), y)
        one, two, memory = (
            load_calibrator(next((tmp_path / folder / "folds").glob(f"*/temperature-fit{number}.safetensors")))
            for folder in ("one", "two", "memory")
        )
        assert one.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)
        assert memory.temperature_ == pytest.approx(whole.temperature_, rel=1e-8)
        assert one.temperature_ == two.temperature_
        assert one.summary_["pixels"] == len(z)
        assert one.summary_["converged"]
    assert values(found[0], "temperature") == values(found[1], "temperature")
    assert values(found[0], "temperature") == pytest.approx(values(found[2], "temperature"), abs=1e-8, nan_ok=True)


def test_the_order_of_samples_does_not_matter() -> None:
    drawn = [
        Sample(name, logits, labels.astype(int), kind="logits")
        for name, logits, labels in class_samples(6, 2.0, scene=FOUR)
    ]
    one, other = (
        calibrate(["temperature", "isotonic"], order, cv=3, n_boot=0, max_pixels=300) for order in (drawn, drawn[::-1])
    )
    pd.testing.assert_frame_equal(one.comparison, other.comparison, check_exact=True)
    assert one.calibrator("temperature").temperature_ == other.calibrator("temperature").temperature_


# --- the draw of pixels ---------------------------------------------------------------------------------------------


def class_source(n_images: int, max_pixels: int, seed: int) -> ImageSource:
    drawn = [
        Sample(name, logits, labels.astype(int), kind="logits")
        for name, logits, labels in class_samples(n_images, scene=FOUR)
    ]
    rows = next(iter(collect(drawn, scores=()).combinations.values()))
    return ImageSource(rows, drawn, max_pixels, seed, jobs=1)


def test_pixels_are_drawn_alike_from_each_image_and_by_the_seed(tmp_path: Path) -> None:
    everything = np.ones(6, bool)
    first, again, other = (class_source(6, 120, seed).pixels(everything, by_image=True) for seed in (0, 0, 1))
    assert first.row is not None
    assert np.bincount(first.row).tolist() == [20] * 6
    assert np.array_equal(first.logits, again.logits)
    assert not np.array_equal(first.logits, other.logits)
    some = class_source(6, 120, 0).pixels(np.arange(6) < 2, by_image=True)
    assert np.array_equal(some.logits, first.logits[:40])
    whole = class_source(6, 10**6, 0).pixels(everything, by_image=False)
    assert len(whole.target) == 6 * 160
    pixels = {tuple(z) for z in whole.logits}
    assert all(tuple(z) in pixels for z in first.logits)


def test_pixels_of_8_bit_maps_are_drawn_from_their_histograms() -> None:
    drawn = list(samples(5, 2.0, scene=SMALL))
    rows = next(iter(collect(drawn, scores=()).combinations.values()))
    every = np.ones(5, bool)
    pooled = LevelSource(rows, 50, 0).pixels(every, by_image=False)
    assert pooled.weight is not None
    assert len(pooled.target) == 512
    assert pooled.weight.sum() == 5 * 18 * 24
    single, again = (LevelSource(rows, 50, 0).pixels(every, by_image=True) for _ in range(2))
    assert single.weight is None
    assert single.row is not None
    assert np.bincount(single.row).tolist() == [10] * 5
    assert np.array_equal(single.logits, again.logits)
    whole = LevelSource(rows, 10**6, 0).pixels(np.arange(5) == 3, by_image=True)
    assert np.array_equal(np.sort(whole.logits), np.sort(level_logits()[drawn[3].scores.ravel()]))
    assert whole.target.sum() == drawn[3].target.sum()


# --- paired differences ---------------------------------------------------------------------------------------------


def histogram_rows(p: np.ndarray, target: np.ndarray) -> Statistics:
    """Rows of 8-bit maps `(images, pixels)`."""
    level = np.clip(np.round(255 * p), 0, 255).astype(int)
    counts = np.zeros((len(p), 2, 256), np.int64)
    np.add.at(counts, (np.arange(len(p))[:, None], target, level), 1)
    return Statistics(JointHistogram(tuple(f"{i:03d}" for i in range(len(p))), counts))


def test_identical_predictions_are_not_told_apart() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, (30, 40))
    rows = histogram_rows(p, (rng.uniform(size=p.shape) < p).astype(int))
    settings = Settings(metrics=("nll", "ece", "brier", "accuracy"), n_boot=100)
    for metric in settings.chosen:
        found = paired_difference(Evaluator(rows, settings), Evaluator(rows, settings), metric)
        assert found.difference == 0
        assert found.p_value == 1
        assert not found.differs
        assert found.low <= 0 <= found.high
        assert found.interval == ("box" if metric.norm else "percentile")


def test_intervals_of_differences_hold_them_and_boxes_are_made_of_the_two() -> None:
    found = calibrate("temperature", samples(40, 2.5, scene=SMALL), n_boot=200)
    table = found.results.summary
    table = table[table.average == "pixels"].set_index(["calibrator", "metric"])
    for metric in ("nll", "brier", "accuracy", "miou"):
        d = difference(found, "temperature", metric)
        assert d.interval == "percentile"
        assert d.low <= d.difference <= d.high
        assert d.difference == d.after - d.before
    for metric in ("ece", "aece"):
        d = difference(found, "temperature", metric)
        before, after = (table.loc[(name, metric)] for name in ("none", "temperature"))
        assert d.interval == "box"
        assert (d.low, d.high) == (after.low - before.high, after.high - before.low)
        assert d.low <= d.difference <= d.high
    assert difference(found, "temperature", "nll").p_value <= 0.02
    assert difference(found, "temperature", "accuracy").p_value == 1
    assert difference(found, "identity", "nll").p_value == 1


def test_other_images_cannot_be_compared() -> None:
    p = np.full((12, 5), 0.5)
    rows = histogram_rows(p, (p > 1).astype(int))
    settings = Settings(metrics=("nll",), n_boot=0)
    one, other = (Evaluator(rows.select(slice(k, k + 11)), settings) for k in (0, 1))
    with pytest.raises(InputError, match="measured on other images"):
        paired_difference(one, other, METRICS["nll"])


def test_few_images_have_no_interval() -> None:
    found = calibrate("temperature", samples(4, 2.5, scene=SMALL), cv=2, n_boot=50)
    d = difference(found, "temperature", "nll")
    assert d.interval == "none"
    assert np.isnan([d.low, d.high, d.p_value]).all()
    assert d.after < d.before


def test_no_difference_is_found_in_about_one_of_twenty_sets() -> None:
    """Two methods err by as much, each on images of its own: the paired test rejects at its level."""
    rng = np.random.default_rng(7)
    settings = Settings(metrics=("nll",), n_boot=200)
    rejected = 0
    n_sets = 200
    for _ in range(n_sets):
        z = rng.normal(0, 1.5, (30, 1)) + rng.normal(0, 1, (30, 24))
        target = (rng.uniform(size=z.shape) < expit(z)).astype(int)
        one, other = (
            Evaluator(histogram_rows(np.clip(expit(z + rng.normal(0, 0.8, (30, 1))), 0.01, 0.99), target), settings)
            for _ in range(2)
        )
        rejected += paired_difference(one, other, METRICS["nll"]).differs
    assert 0.01 <= rejected / n_sets <= 0.12


# --- ranking --------------------------------------------------------------------------------------------------------


def test_the_temperature_of_sharpened_maps_is_found_and_wins() -> None:
    drawn = [
        Sample(sample.name, 2.5 * z, y, kind="logits")
        for sample, z, y in ((s, *logit_and_target(s)) for s in samples(40, scene=SMALL))
    ]
    found = calibrate("temperature", drawn, n_boot=200)
    [board] = found.leaderboards
    assert [contender.name for contender in board.contenders] == ["temperature", "identity"]
    assert [contender.rank for contender in board.contenders] == [1, 2]
    assert found.calibrator("temperature").temperature_ == pytest.approx(2.5, rel=0.1)
    assert difference(found, "temperature", "nll").p_value < 0.05
    assert board.contenders[1].to_best is not None
    assert board.contenders[1].to_best.differs


def logit_and_target(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    assert sample.target is not None
    return level_logits()[sample.scores], sample.target


def test_calibrated_maps_need_no_calibrator() -> None:
    found = calibrate(["temperature", "platt", "beta"], samples(60, 1.0, seed=3, scene=SMALL), n_boot=200)
    [board] = found.leaderboards
    assert board.contenders[0].calibrator is not None
    for contender in board.contenders:
        gain = next(d for d in contender.differences if d.metric == "nll")
        assert gain.low <= 0 or gain.low < 0.002
        assert abs(gain.difference) < 0.01
    assert found.calibrator("temperature").temperature_ == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("by", ["ece", "accuracy"])
def test_contenders_are_ranked_by_what_is_asked_for(by: str) -> None:
    found = calibrate(["isotonic", "temperature", "platt"], samples(12, 2.5, scene=SMALL), rank_by=by, n_boot=0)
    table = found.comparison[found.comparison.metric == by].sort_values("rank")
    assert list(table["rank"]) == [1, 2, 3, 4]
    after = table.after if METRICS[by].better == "lower" else -table.after
    assert after.is_monotonic_increasing
    assert "identity" in set(table.calibrator)


# --- interruption ---------------------------------------------------------------------------------------------------


@pytest.fixture
def count_fits(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[str]]:
    """Names of the calibrators that are fitted from now on; Ctrl-C comes before fit number `stop`."""
    original = MODULE.clone

    def start(stop: int | None = None) -> list[str]:
        fitted: list[str] = []

        def counting(calibrator: Calibrator) -> Calibrator:
            if len(fitted) == stop:
                raise KeyboardInterrupt
            fitted.append(calibrator.name)
            return original(calibrator)

        monkeypatch.setattr(MODULE, "clone", counting)
        return fitted

    return start


def test_an_interrupted_run_takes_up_finished_fits(
    calbench: Run, classes: Maps, tmp_path: Path, count_fits: Callable[..., list[str]]
) -> None:
    pred, gt = classes
    command = "calibrate", "temperature", "isotonic", "--pred", pred, "--gt", gt, "--cv", 2, "--n-boot", 40, "-j", 1
    whole = count_fits()
    assert calbench(*command, "-o", tmp_path / "whole").exit_code == 0
    assert whole == ["identity"] * 3 + ["temperature"] * 3 + ["isotonic"] * 3
    out = tmp_path / "out"
    count_fits(7)
    stopped = calbench(*command, "-o", out)
    assert stopped.exit_code == 130
    assert "interrupted" in stopped.stderr
    refused = calbench(*command, "-o", out)
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr
    rest = count_fits()
    result = calbench(*command, "-o", out, "--resume")
    assert result.exit_code == 0, result.output
    assert rest == ["isotonic"] * 2
    for name in ("comparison.csv", "split.json", "summary.csv", "calibrators/isotonic.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not (out / "partial.npz").exists()
    assert calbench(*command, "-o", out).exit_code == 1
    again = count_fits()
    assert calbench(*command, "-o", out, "--force").exit_code == 0
    assert again == whole


@pytest.mark.parametrize(
    "changed",
    [{"seed": 5}, {"max_pixels": 100}, {"parameters": {"histogram_binning": {"bins": 3}}}, {"gt_threshold": 40}],
)
def test_fits_under_other_options_are_not_taken_up(
    tmp_path: Path, count_fits: Callable[..., list[str]], changed: dict[str, Any]
) -> None:
    pred, gt = write_levels(tmp_path, list(samples(6, 2.5, scene=SMALL)))
    for path in gt.iterdir():  # grey outlines, which the threshold decides about
        mask = np.asarray(Image.open(path)).copy()
        mask[:, 4] = 100
        write_png(path, mask)

    def run(folder: str, resume: bool, given: dict[str, Any]) -> pd.DataFrame:
        given = {"seed": 0, "gt_threshold": 128} | given
        fit = {key: given[key] for key in ("max_pixels", "parameters") if key in given}
        return calibrate_folders(
            CollectOptions(str(pred), str(gt), scores=(), gt_threshold=given["gt_threshold"]),
            FitOptions(("histogram_binning",), holdout=0.5, **fit),
            Settings(metrics=MEASURED, n_boot=0, seed=given["seed"]),
            output=tmp_path / folder,
            resume=resume,
            jobs=1,
        ).comparison

    first = run("out", False, {})
    (tmp_path / "out" / "partial.npz").unlink()  # as after a run that was finished
    same = count_fits()
    pd.testing.assert_frame_equal(run("out", True, {}), first, check_exact=True)
    assert same == []
    (tmp_path / "out" / "partial.npz").unlink()
    fitted = count_fits()
    found = run("out", True, changed)
    assert "histogram_binning" in fitted
    pd.testing.assert_frame_equal(found, run("fresh", False, changed), check_exact=True)


def test_a_second_run_into_the_same_folder_measures_its_own_calibrators(tmp_path: Path) -> None:
    found = []
    for sharpness in (2.0, 0.5):
        pred, gt = write_classes(tmp_path / str(sharpness), 6, sharpness)
        found.append(calibrate("temperature", pred=pred, gt=gt, cv=2, n_boot=0, jobs=1, output=tmp_path / "out",
                               dataset="d", method="m"))  # fmt: skip
    assert values(found[0], "temperature")["nll"] == pytest.approx(values(found[1], "temperature")["nll"], abs=1e-5)


# --- all ------------------------------------------------------------------------------------------------------------


def with_pictures(folder: Path, pred: Path, shape: tuple[int, int]) -> Path:
    rng = np.random.default_rng(0)
    for path in pred.iterdir():
        write_png(folder / f"{path.stem}.png", rng.integers(0, 256, (*shape, 3)).astype(np.uint8))
    return folder


QUICK = ("--set", "selective.epochs=1", "--set", "meta_cal.threshold=0.8")
QUICK_IMAGES = tuple(
    part for name, kind in CALIBRATORS.items() if kind.needs_images for part in ("--set", f"{name}.epochs=1")
)


def test_all_without_pictures_leaves_out_what_looks_at_them(calbench: Run, classes: Maps, tmp_path: Path) -> None:
    pred, gt = classes
    out = tmp_path / "out"
    result = calbench("calibrate", "all", "--pred", pred, "--gt", gt, "-o", out, "--n-boot", 0, *QUICK)
    assert result.exit_code == 0, result.output
    expected = {name for name, kind in CALIBRATORS.items() if not kind.needs_images}
    notes = [line for line in result.stderr.splitlines() if "is left out" in line]
    left_out = {name for name in expected if any(f" {name} is left out" in line for line in notes)}
    assert set(pd.read_csv(out / "comparison.csv").calibrator) == expected - left_out
    assert left_out <= {"platt", "selective"}
    assert {path.stem for path in (out / "calibrators").iterdir()} == expected - left_out
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 100


def test_all_with_pictures_has_everything(calbench: Run, tmp_path: Path) -> None:
    pred, gt = write_classes(tmp_path, 5)
    pictures = with_pictures(tmp_path / "photos", pred, (10, 16))
    named = [name for name, kind in CALIBRATORS.items() if kind.needs_images]
    result = calbench(
        "calibrate", "all", "--pred", pred, "--gt", gt, "--images", pictures, "-o", tmp_path / "out",
        "--n-boot", 0, "--holdout", 0.4, *QUICK, *QUICK_IMAGES,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert set(named) <= set(pd.read_csv(tmp_path / "out" / "comparison.csv").calibrator)


def test_a_calibrator_that_needs_pictures_says_so(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    result = calbench("calibrate", "local_temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--images" in result.stderr
    with pytest.raises(OptionError, match="--images"):
        calibrate("local_temperature", samples(6, scene=SMALL))


def test_pictures_of_binary_maps_are_read(calbench: Run, tmp_path: Path) -> None:
    pred, gt = write_levels(tmp_path, list(samples(5, 2.5, scene=SMALL)))
    pictures = with_pictures(tmp_path / "photos", pred, (18, 24))
    result = calbench(
        "calibrate", "local-temperature", "temperature", "--pred", pred, "--gt", gt, "--images", pictures,
        "-o", tmp_path / "out", "--n-boot", 0, "--set", "local_temperature.epochs=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert set(table.calibrator) == {"identity", "temperature", "local_temperature"}
    assert set(table.n_images) == {2}
    assert table.after.notna().all()


def test_all_on_binary_maps_leaves_out_what_is_platt(levels: Maps) -> None:
    names = {c.name for c in FitOptions(("all",)).contenders(binary=True, images=False)}
    assert {"platt", "isotonic"} <= names
    assert not {"vector", "matrix"} & names
    assert {"vector", "matrix"} <= {c.name for c in FitOptions(("all",)).contenders(binary=False, images=False)}
    assert "vector" in {c.name for c in FitOptions(("vector",)).contenders(binary=True, images=False)}


def all_right(n_images: int) -> list[Sample]:
    return [
        Sample(name, logits, logits.argmax(0), kind="logits") for name, logits, _ in class_samples(n_images, scene=FOUR)
    ]


def test_what_cannot_be_fitted_is_left_out_of_all_and_an_error_by_name() -> None:
    found = calibrate("all", all_right(6), holdout=0.5, n_boot=0)
    [board] = found.leaderboards
    assert "selective" not in {contender.name for contender in board.contenders}
    assert any(note.startswith("selective is left out: ") for note in board.notes)
    assert np.isfinite(found.comparison.after).all()
    assert any("at its bound" in note for note in board.notes)
    with pytest.raises(InputError, match="selective"):
        calibrate("selective", all_right(6), n_boot=0)


# --- options on the command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature.gird=nll", "there is no parameter of temperature 'gird'; did you mean 'grid'?"),
        ("temprature.grid=nll", "did you mean 'temperature'?"),
        ("temperature=2", "not NAME.KEY=VALUE"),
        (".grid=2", "not NAME.KEY=VALUE"),
        ("temperature.grid", "not NAME.KEY=VALUE"),
        ("temperature.grid=foo", "expected nll or ece"),
        ("temperature.bounds=[2, 1]", "0 < low < high"),
    ],
)
def test_a_parameter_that_is_wrong_is_refused(
    calbench: Run, levels: Maps, tmp_path: Path, text: str, message: str
) -> None:
    pred, gt = levels
    result = calbench(
        "calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--set", text, "--n-boot", 0
    )
    assert result.exit_code == 2
    assert message in result.stderr


def test_options_of_all_are_not_swallowed(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    result = calbench(
        "calibrate", "all", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--set", "temperature.grid=foo"
    )
    assert result.exit_code == 2
    assert "expected nll or ece" in result.stderr


def test_parameters_reach_the_calibrator_and_its_file(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    result = calbench(
        "calibrate", "histogram-binning", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--n-boot", 0,
        "--set", "histogram-binning.bins=4", "--set", "histogram_binning.binning=mass", "--set", "temperature.grid=nll",
        "--json", "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    binned = load_calibrator(tmp_path / "out" / "calibrators" / "histogram_binning.safetensors")
    assert binned.get_params() == {"bins": 4, "binning": "mass"}
    grid = load_calibrator(tmp_path / "out" / "calibrators" / "temperature.safetensors")
    assert round(10 * grid.temperature_) / 10 == pytest.approx(grid.temperature_, abs=1e-12)
    document = json.loads(result.stdout)
    [board] = document["leaderboards"]
    assert {c["calibrator"] for c in board["contenders"]} == {"identity", "temperature", "histogram_binning"}
    assert {c["rank"] for c in board["contenders"]} == {1, 2, 3}
    assert document["results"]["results"]
    assert result.stderr == ""


def test_cuda_without_a_gpu_matters_to_networks_only(
    calbench: Run, levels: Maps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pred, gt = levels
    command = "--pred", pred, "--gt", gt, "--n-boot", 0, "--device", "cuda"
    assert calbench("calibrate", "temperature", *command, "-o", tmp_path / "a").exit_code == 0
    for names in (("selective",), ("all",)):
        result = calbench("calibrate", *names, *command, "-o", tmp_path / names[0])
        assert result.exit_code == 2
        assert "no CUDA device; use --device cpu" in result.stderr


def test_the_list_of_images_is_a_text_file(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    names = sorted(path.stem for path in pred.iterdir())
    listed_names = tmp_path / "names.txt"
    command = "calibrate", "temperature", "--pred", pred, "--gt", gt, "--n-boot", 0, "--fit-list", listed_names
    listed_names.write_text("\n".join(names[:6]) + "\n\n")
    assert calbench(*command, "-o", tmp_path / "a").exit_code == 0
    split = split_of(tmp_path / "a", "temperature")
    assert split["fits"] == [{"fit": names[:6], "held_out": names[6:]}]
    listed_names.write_text("\n".join(names))
    refused = calbench(*command, "-o", tmp_path / "b")
    assert refused.exit_code == 1
    assert "--allow-overlap" in refused.stderr
    allowed = calbench(*command, "-o", tmp_path / "b", "--allow-overlap", "--force")
    assert allowed.exit_code == 0, allowed.output
    assert split_of(tmp_path / "b", "temperature")["how"] == "measured on the images fitted on"
    assert "no fit has seen" not in allowed.stdout
    for content, message in ((b"", "is empty"), (b"\xff\xfe\x00", "no text file"), (b"nobody\n", "nobody")):
        listed_names.write_bytes(content)
        result = calbench(*command, "-o", tmp_path / "c", "--force")
        assert result.exit_code in (1, 2)
        assert message in result.stderr


def test_the_table_says_what_was_held_out(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    result = calbench("calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--n-boot", 50)
    assert "10 images; 5 folds (whole images); measured on 10 that no fit has seen" in result.stdout
    assert "1 temperature" in result.stdout
    assert "2 identity" in result.stdout
    assert "ranked by nll" in result.stdout
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert list(table[table["rank"] == 1].calibrator.unique()) == ["temperature"]
    shown = f"{comparison(tmp_path / 'out', 'temperature')['nll']:.4f}"
    assert shown in result.stdout


def test_calibrators_are_listed(calbench: Run) -> None:
    result = calbench("calibrators")
    assert result.exit_code == 0
    entries = json.loads(calbench("calibrators", "--json").stdout)
    assert [entry["name"] for entry in entries] == list(CALIBRATORS)
    for entry in entries:
        assert entry["name"] in result.stdout
        assert entry["definition"] in result.stdout
        assert entry["parameters"] == json.loads(json.dumps(CALIBRATORS[entry["name"]]().get_params()))
        assert entry["needs_images"] == CALIBRATORS[entry["name"]].needs_images


# --- bad input ------------------------------------------------------------------------------------------------------


def test_nan_logits_are_refused(calbench: Run, classes: Maps, tmp_path: Path) -> None:
    pred, gt = classes
    path = sorted(pred.iterdir())[3]
    z = np.load(path)["logits"].copy()
    z[1, 2, 3] = np.nan
    np.savez(path, logits=z)
    result = calbench("calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert path.name in result.stderr
    assert "NaN" in result.stderr or "not finite" in result.stderr


def test_probabilities_given_as_logits_are_refused(calbench: Run, classes: Maps, tmp_path: Path) -> None:
    pred, gt = classes
    for path in pred.iterdir():
        np.savez(path, logits=softmax(np.load(path)["logits"], axis=0))
    result = calbench(
        "calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--input", "logits"
    )
    assert result.exit_code == 1
    assert "these are probabilities" in result.stderr


def test_one_class_only_is_refused(calbench: Run, classes: Maps, tmp_path: Path) -> None:
    pred, gt = classes
    for path in gt.iterdir():
        write_png(path, np.full((10, 16), 2, np.uint8))
    result = calbench("calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "are of class 2" in result.stderr
    empty = [Sample(s.name, s.scores, np.zeros_like(s.target)) for s in samples(6, scene=SMALL)]
    with pytest.raises(InputError, match="are of class 0"):
        calibrate("temperature", empty, n_boot=0)


def test_a_class_that_few_images_show_leaves_no_nan(tmp_path: Path) -> None:
    drawn = []
    for number, (name, logits, labels) in enumerate(class_samples(6, 2.0, scene=FOUR)):
        target = labels.astype(int)
        target[target == 3] = 0
        target[0, 0] = 3 if number == 2 else target[0, 0]
        drawn.append(Sample(name, logits, target, kind="logits"))
    found = calibrate(["temperature", "vector", "isotonic", "histogram_binning", "dirichlet"], drawn, cv=6, n_boot=0)
    assert np.isfinite(found.comparison.after).all()


def test_decisions_cannot_be_calibrated(calbench: Run, tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text("label,prediction,confidence\n" + "0,1,0.7\n1,1,0.9\n" * 5)
    result = calbench("calibrate", "temperature", "--pred", path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "decisions" in result.stderr
    assert ".npz" in result.stderr


def test_missing_ground_truth_is_named(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    result = calbench("calibrate", "temperature", "--pred", pred, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "--gt" in result.stderr
    next(gt.iterdir()).unlink()
    result = calbench("calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--force")
    assert result.exit_code == 1
    assert "without ground truth" in result.stderr


def test_samples_need_their_ground_truth() -> None:
    blind = [Sample(s.name, s.scores, None) for s in samples(6, scene=SMALL)]
    with pytest.raises(InputError, match="6 of 6 samples have no target"):
        calibrate("temperature", blind, n_boot=0)
    with pytest.raises(OptionError, match="either samples, or folders"):
        calibrate("temperature", samples(6, scene=SMALL), pred="somewhere")
    with pytest.raises(OptionError, match="either samples"):
        calibrate("temperature")
    with pytest.raises(UnknownName, match="did you mean 'ignore_index'"):
        calibrate("temperature", pred="somewhere", ignore_indx=(0,))


def test_unknown_contenders_are_named() -> None:
    found = calibrate("temperature", samples(6, 2.0, scene=SMALL), n_boot=0)
    assert isinstance(found.calibrator("identity"), Identity)
    with pytest.raises(UnknownName, match="known: identity, temperature"):
        found.calibrator("isotonic-regression-of-mine")


def test_several_methods_have_a_leaderboard_each(calbench: Run, tmp_path: Path) -> None:
    for method, sharpness in (("sharp", 2.5), ("soft", 0.4)):
        for sample in samples(6, sharpness, scene=SMALL):
            write_png(tmp_path / "preds" / method / f"{sample.name}.png", sample.scores)
            write_png(tmp_path / "toy" / "gt" / f"{sample.name}.png", np.where(sample.target, 255, 0).astype(np.uint8))
    result = calbench(
        "calibrate", "temperature", "--pred", f"{tmp_path}/preds/{{method}}", "--gt", tmp_path / "toy" / "gt",
        "-o", tmp_path / "out", "--n-boot", 0,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    temperatures = {
        path.parent.name: load_calibrator(path).temperature_
        for path in (tmp_path / "out" / "calibrators").glob("*/temperature.safetensors")
    }
    assert temperatures.keys() == {"toy_sharp", "toy_soft"}
    assert temperatures["toy_sharp"] > 1.5
    assert temperatures["toy_soft"] < 0.8
    assert set(pd.read_csv(tmp_path / "out" / "comparison.csv").method) == {"sharp", "soft"}


def test_a_split_is_a_value() -> None:
    rows = np.array([True, False])
    assert not Split("x", rows[None], ~rows[None], rows).is_refitted
    assert Split("x", rows[None], ~rows[None], np.ones(2, bool)).is_refitted
