"""`calbench evaluate --calibrator`: calibrated predictions measured from pixels and from statistics, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from scipy.special import expit, softmax

import calbench as package
from calbench.calibrators import Calibrator, save_calibrator
from calbench.calibrators.identity import Identity
from calbench.calibrators.isotonic import Isotonic
from calbench.calibrators.local_temperature import LocalTemperature
from calbench.calibrators.maps import Scene
from calbench.calibrators.platt import Platt
from calbench.calibrators.samples import level_logits
from calbench.calibrators.temperature import Temperature
from calbench.calibrators.vector import Vector
from calbench.io.sample import Sample
from calbench.kernels import measure_levels
from calbench.metrics import METRICS
from calbench.synthetic import SyntheticScene, samples
from calbench.synthetic_classes import ClassScene, class_samples

Run = Callable[..., Result]
Maps = tuple[Path, Path]
Save = Callable[..., Path]

SMALL = SyntheticScene(height=18, width=24)
FOUR = ClassScene(height=10, width=16, classes=4)
N_IMAGES = 6
KEYS = ["metric", "options", "average", "region"]


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_levels(folder: Path, sharpness: float = 2.5, seed: int = 0, n_images: int = N_IMAGES) -> Maps:
    pred, gt = folder / "net", folder / "toy" / "gt"
    for sample in samples(n_images, sharpness, seed=seed, scene=SMALL):
        assert sample.target is not None
        write_png(pred / f"{sample.name}.png", sample.scores)
        write_png(gt / f"{sample.name}.png", np.where(sample.target, 255, 0).astype(np.uint8))
    return pred, gt


@pytest.fixture
def levels(tmp_path: Path) -> Maps:
    """Over-confident 8-bit maps."""
    return write_levels(tmp_path)


@pytest.fixture
def classes(tmp_path: Path) -> Maps:
    """Over-confident float32 logits of four classes."""
    pred, gt = tmp_path / "logits", tmp_path / "street" / "gt"
    pred.mkdir()
    for name, logits, labels in class_samples(N_IMAGES, 2.0, scene=FOUR):
        np.savez(pred / f"{name}.npz", logits=logits.astype(np.float32))
        write_png(gt / f"{name}.png", labels)
    return pred, gt


@pytest.fixture
def saved(tmp_path: Path) -> Save:
    """Write a calibrator to a file."""

    def save(calibrator: Calibrator, name: str = "fitted", **origin: Any) -> Path:
        calibrator.origin_ = origin
        path = tmp_path / "fits" / f"{name}.safetensors"
        save_calibrator(calibrator, path)
        return path

    return save


def binary_pixels(seed: int = 9, sharpness: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    drawn = list(samples(8, sharpness, seed=seed, scene=SMALL))
    scores, target = (np.concatenate([getattr(s, part).ravel() for s in drawn]) for part in ("scores", "target"))
    return level_logits()[scores], target.astype(int)


def class_pixels(seed: int = 9) -> tuple[np.ndarray, np.ndarray]:
    drawn = list(class_samples(8, 2.0, seed=seed, scene=FOUR))
    return (
        np.concatenate([logits.reshape(4, -1).T for _, logits, _ in drawn]),
        np.concatenate([labels.ravel() for *_, labels in drawn]).astype(int),
    )


def summary(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "summary.csv", keep_default_na=False, na_values=[""]).fillna({"options": ""})


def numbers(calbench: Run, *arguments: object) -> dict[str, float]:
    result = calbench("evaluate", *arguments, "--n-boot", 0, "--json", "-q")
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)["results"]
    return {
        f"{r['metric']} {r['options']} {r['average']} {r.get('region')}": np.nan if r["value"] is None else r["value"]
        for r in records
    }


def pooled(calbench: Run, metric: str, *arguments: object) -> float:
    """One metric over all pixels."""
    found = numbers(calbench, *arguments, "--metrics", metric)
    [value] = [value for key, value in found.items() if " pixels all" in key]
    return value


def refused(calbench: Run, *arguments: object, code: int = 1) -> str:
    result = calbench("evaluate", *arguments, "--n-boot", 0)
    assert result.exit_code == code, result.output
    return result.stderr


# --- 8-bit maps: the same numbers from pixels and from statistics -----------------------------------------------------


@pytest.mark.parametrize("make", [Temperature, Isotonic, Identity])
def test_pixels_and_statistics_give_the_same_numbers(
    calbench: Run, levels: Maps, tmp_path: Path, saved: Save, make: Callable[[], Calibrator]
) -> None:
    pred, gt = levels
    fitted = saved(make().fit(*binary_pixels()))
    arguments = "--pred", pred, "--gt", gt, "--n-boot", 40, "--regions"
    assert calbench("evaluate", *arguments, "-o", tmp_path / "plain").exit_code == 0
    by_pixels = calbench("evaluate", *arguments, "-o", tmp_path / "a", "--calibrator", fitted)
    assert by_pixels.exit_code == 0, by_pixels.output
    stats = tmp_path / "plain" / "stats.npz"
    by_rows = calbench("evaluate", "--stats", stats, "--n-boot", 40, "-o", tmp_path / "b", "--calibrator", fitted)
    assert by_rows.exit_code == 0, by_rows.output
    a, b, plain = (summary(tmp_path / folder) for folder in ("a", "b", "plain"))
    assert set(a.calibrator) == set(b.calibrator) == {make.name}  # type: ignore[attr-defined]
    pd.testing.assert_frame_equal(a.set_index(KEYS), b.set_index(KEYS), rtol=1e-10, atol=1e-12)
    assert {"all", "boundary", "size_q1"} <= set(a.region)
    per_image = [pd.read_csv(tmp_path / folder / "per_image.csv") for folder in ("a", "b")]
    pd.testing.assert_frame_equal(*per_image, rtol=1e-10, atol=1e-12)
    if make is Identity:
        values = a.set_index(KEYS).value
        assert values.loc[plain.set_index(KEYS).index].equals(plain.set_index(KEYS).value)


@pytest.mark.parametrize("make", [Temperature, Isotonic])
def test_8_bit_maps_are_measured_as_the_floats_they_become(
    calbench: Run, levels: Maps, saved: Save, make: Callable[[], Calibrator]
) -> None:
    pred, gt = levels
    calibrator = make().fit(*binary_pixels())
    found = numbers(calbench, "--pred", pred, "--gt", gt, "--calibrator", saved(calibrator))
    floats = []
    for path in sorted(pred.iterdir()):
        z = level_logits()[np.asarray(Image.open(path))]
        mask = np.asarray(Image.open(gt / path.name)) > 128
        floats.append(Sample(path.stem, calibrator.transform_map(z), mask, kind="probabilities"))
    table = package.evaluate(package.collect(floats), n_boot=0)
    compared = 0
    for row in table.itertuples():
        if METRICS[row.metric].average == "images":
            continue
        key = f"{row.metric} {row.options} {row.average} all"
        assert found[key] == pytest.approx(row.value, abs=1e-9, nan_ok=True), key
        compared += 1
    assert compared > 20


def test_saliency_is_marked_as_that_of_the_uncalibrated_map(
    calbench: Run, levels: Maps, tmp_path: Path, saved: Save
) -> None:
    pred, gt = levels
    fitted = saved(Platt().fit(*binary_pixels()))
    arguments = "--pred", pred, "--gt", gt, "--n-boot", 0
    calbench("evaluate", *arguments, "-o", tmp_path / "plain")
    calbench("evaluate", *arguments, "-o", tmp_path / "after", "--calibrator", fitted)
    plain, after = (summary(tmp_path / folder) for folder in ("plain", "after"))
    marked = after.options.str.contains("levels=uncalibrated")
    assert {"max_f", "mae", "s_measure", "weighted_f"} <= set(after[marked].metric)
    assert not {"ece", "nll", "brier", "accuracy", "auroc"} & set(after[marked].metric)
    for metric in ("max_f", "mae", "s_measure"):
        assert after[after.metric == metric].value.iloc[0] == plain[plain.metric == metric].value.iloc[0]
    assert not plain.options.str.contains("uncalibrated").any()


def test_every_file_names_the_calibrator(calbench: Run, levels: Maps, tmp_path: Path, saved: Save) -> None:
    pred, gt = levels
    fitted = saved(Temperature().fit(*binary_pixels()), dataset="other", method="net")
    result = calbench(
        "evaluate", "--pred", pred, "--gt", gt, "--n-boot", 0, "-o", tmp_path / "out", "--calibrator", fitted
    )
    assert "net + temperature" in result.stdout
    assert "calibrated by temperature" in result.stderr
    for name in ("summary", "per_image", "per_class", "reliability", "curves", "entropy"):
        table = pd.read_csv(tmp_path / "out" / f"{name}.csv", keep_default_na=False)
        assert set(table.calibrator) == {"temperature"}, name
    document = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    conventions = document["combinations"][0]["conventions"]
    assert conventions["calibrator"] == "temperature"
    assert conventions["calibrator_origin"] == {"dataset": "other", "method": "net"}
    run = package.load_run(tmp_path / "out" / "stats.npz")
    assert {rows.calibrator for rows in run.combinations.values()} == {"temperature"}
    again = numbers(calbench, "--stats", tmp_path / "out" / "stats.npz")
    assert again == pytest.approx(
        numbers(calbench, "--pred", pred, "--gt", gt, "--calibrator", fitted), abs=0, nan_ok=True
    )


def test_changed_classes_are_counted(calbench: Run, levels: Maps, saved: Save) -> None:
    pred, gt = levels
    platt = Platt().fit(*binary_pixels())
    platt.intercept_ = platt.intercept_ + 1.0  # a clear shift of the threshold
    found = pooled(calbench, "class_changed", "--pred", pred, "--gt", gt, "--calibrator", saved(platt))
    z = np.concatenate([level_logits()[np.asarray(Image.open(path)).ravel()] for path in pred.iterdir()])
    expected = ((platt.transform(z) >= 0.5) != (z >= 0)).mean()
    assert expected > 0
    assert found == pytest.approx(expected, abs=1e-15)


# --- floats -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "jobs"), [(Temperature, 2), (Vector, 1), (Isotonic, 1)])
def test_logits_are_measured_as_the_probabilities_they_become(
    calbench: Run, classes: Maps, saved: Save, make: Callable[[], Calibrator], jobs: int
) -> None:
    pred, gt = classes
    calibrator = make().fit(*class_pixels())
    found = numbers(calbench, "--pred", pred, "--gt", gt, "--calibrator", saved(calibrator, input="logits"), "-j", jobs)
    floats, changed = [], []
    for path in sorted(pred.iterdir()):
        z, labels = np.load(path)["logits"], np.asarray(Image.open(gt / f"{path.stem}.png")).astype(int)
        p = calibrator.transform_map(z)
        changed.append(p.argmax(0) != z.argmax(0))
        floats.append(Sample(path.stem, p, labels, kind="probabilities"))
    table = package.evaluate(package.collect(floats), n_boot=0)
    for row in table.itertuples():
        key = f"{row.metric} {row.options} {row.average} all"
        assert found[key] == pytest.approx(row.value, abs=0, nan_ok=True), key
    assert found["class_changed  pixels all"] == np.mean(changed)


def test_void_pixels_stay_void(calbench: Run, classes: Maps, saved: Save) -> None:
    pred, gt = classes
    fitted = saved(Vector().fit(*class_pixels()))
    arguments = "--pred", pred, "--gt", gt, "--calibrator", fitted, "--ignore-index", 255
    for path in gt.iterdir():
        labels = np.asarray(Image.open(path)).copy()
        labels[:4] = 255
        write_png(path, labels)
    before = numbers(calbench, *arguments)
    for path in pred.iterdir():
        z = np.load(path)["logits"].copy()
        z[:, :4] = 50 * np.random.default_rng(0).normal(size=z[:, :4].shape)
        np.savez(path, logits=z)
    assert numbers(calbench, *arguments) == pytest.approx(before, abs=0, nan_ok=True)


def test_a_table_is_calibrated(calbench: Run, tmp_path: Path, saved: Save) -> None:
    z, y = class_pixels()
    np.savez(tmp_path / "net.npz", logits=z[:500].astype(np.float32), label=y[:500])
    calibrator = Temperature().fit(z, y)
    arguments = "--pred", tmp_path / "net.npz", "--calibrator", saved(calibrator)
    p = calibrator.transform(z[:500].astype(np.float32))
    expected = -np.log(p[np.arange(500), y[:500]]).mean()
    assert pooled(calbench, "nll", *arguments) == pytest.approx(expected, abs=1e-12)
    assert pooled(calbench, "class_changed", *arguments) == 0
    (tmp_path / "net.csv").write_text("label,prediction,confidence\n0,1,0.7\n1,1,0.9\n")
    message = refused(calbench, "--pred", tmp_path / "net.csv", "--calibrator", saved(calibrator))
    assert "decisions" in message


def test_other_profiles_measure_calibrated_floats(calbench: Run, levels: Maps, saved: Save) -> None:
    """Their rows need pixels: 8-bit maps are measured as the floats they become."""
    pred, gt = levels
    calibrator = Temperature().fit(*binary_pixels())
    arguments = "--pred", pred, "--gt", gt, "--calibrator", saved(calibrator), "--profile", "torchmetrics"
    result = calbench("evaluate", *arguments, "--n-boot", 0, "--json", "-q")
    assert result.exit_code == 0, result.output
    assert {record["calibrator"] for record in json.loads(result.stdout)["results"]} == {"temperature"}


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_calibrators_that_look_at_pictures(calbench: Run, classes: Maps, tmp_path: Path, saved: Save) -> None:
    pred, gt = classes
    rng = np.random.default_rng(0)
    pictures = {path.stem: rng.integers(0, 256, (10, 16, 3)).astype(np.uint8) for path in pred.iterdir()}
    for name, picture in pictures.items():
        write_png(tmp_path / "photos" / f"{name}.png", picture)
    scenes = [
        Scene(logits.astype(np.float32), labels.astype(np.int64), np.ones(labels.shape),
              rng.uniform(size=(3, 10, 16)).astype(np.float32))
        for _, logits, labels in class_samples(4, 2.0, seed=5, scene=FOUR)
    ]  # fmt: skip
    calibrator = LocalTemperature(epochs=1, crop=8).fit_scenes(scenes)
    fitted = saved(calibrator)
    arguments = "--pred", pred, "--gt", gt, "--calibrator", fitted
    found = pooled(calbench, "nll", *arguments, "--images", tmp_path / "photos", "-j", 1)
    total = 0.0
    for name, picture in pictures.items():
        labels = np.asarray(Image.open(gt / f"{name}.png")).astype(int)
        image = np.moveaxis(picture, 2, 0).astype(np.float32) / 255
        p = calibrator.transform_map(np.load(pred / f"{name}.npz")["logits"], image)
        total -= np.log(np.take_along_axis(p, labels[None], 0)).mean()
    assert found == pytest.approx(total / N_IMAGES, abs=1e-9)
    assert "--images" in refused(calbench, *arguments, code=2)
    (tmp_path / "photos" / f"{min(pictures)}.png").unlink()
    assert min(pictures) in refused(calbench, *arguments, "--images", tmp_path / "photos")


# --- overlap ----------------------------------------------------------------------------------------------------------


def test_images_that_were_fitted_on_are_refused(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    arguments = "--pred", pred, "--gt", gt
    assert calbench("calibrate", "temperature", *arguments, "-o", tmp_path / "fits", "--n-boot", 0).exit_code == 0
    fitted = tmp_path / "fits" / "calibrators" / "temperature.safetensors"
    message = refused(calbench, *arguments, "--calibrator", fitted)
    assert f"{N_IMAGES} images of {N_IMAGES} of net on toy are among those" in message
    assert "--allow-overlap" in message
    assert numbers(calbench, *arguments, "--calibrator", fitted, "--allow-overlap")
    calbench("evaluate", *arguments, "--n-boot", 0, "-o", tmp_path / "plain")
    stats = tmp_path / "plain" / "stats.npz"
    assert "--allow-overlap" in refused(calbench, "--stats", stats, "--calibrator", fitted)
    assert numbers(calbench, "--stats", stats, "--calibrator", fitted, "--allow-overlap")


def test_other_images_of_the_same_names_are_measured(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    calbench("calibrate", "temperature", "--pred", pred, "--gt", gt, "-o", tmp_path / "fits", "--n-boot", 0)
    fitted = tmp_path / "fits" / "calibrators" / "temperature.safetensors"
    other = write_levels(tmp_path / "other", seed=1)
    assert numbers(calbench, "--pred", other[0], "--gt", other[1], "--calibrator", fitted)
    name = sorted(path.name for path in gt.iterdir())[2]
    (other[1] / name).write_bytes((gt / name).read_bytes())
    message = refused(calbench, "--pred", other[0], "--gt", other[1], "--calibrator", fitted)
    assert f"1 image of {N_IMAGES}" in message
    assert Path(name).stem in message


def test_images_that_were_held_out_are_measured(calbench: Run, classes: Maps, tmp_path: Path) -> None:
    """The calibrator of a hold-out gives the numbers that calibrate printed, on the images it held out."""
    pred, gt = classes
    out = tmp_path / "fits"
    calbench("calibrate", "vector", "--pred", pred, "--gt", gt, "-o", out, "--n-boot", 0, "--holdout", 0.5, "-j", 1)
    [board] = json.loads((out / "split.json").read_text("utf-8"))
    for name in board["splits"][0]["saved_calibrator_fitted_on"]:
        (pred / f"{name}.npz").unlink()
    fitted = out / "calibrators" / "vector.safetensors"
    found = numbers(calbench, "--pred", pred, "--gt", gt, "--calibrator", fitted, "--on-missing", "skip")
    table = summary(out)
    for row in table[table.calibrator == "vector"].itertuples():
        key = f"{row.metric} {row.options} {row.average} all"
        assert found[key] == pytest.approx(row.value, abs=0, nan_ok=True), key


# --- what is refused --------------------------------------------------------------------------------------------------


def test_other_predictions_than_those_fitted_on_are_refused(
    calbench: Run, levels: Maps, classes: Maps, tmp_path: Path, saved: Save
) -> None:
    binary = saved(Temperature().fit(*binary_pixels()), "binary", input="levels")
    four = saved(Temperature().fit(*class_pixels()), "four", input="logits")
    on_levels, on_classes = (("--pred", pred, "--gt", gt) for pred, gt in (levels, classes))
    message = refused(calbench, *on_classes, "--calibrator", binary)
    assert "4 classes" in message
    assert "was fitted on binary maps" in message
    assert "was fitted on 4 classes" in refused(calbench, *on_levels, "--calibrator", four)
    for path in classes[0].iterdir():
        z = np.load(path)["logits"]
        path.unlink()
        np.savez(path, probabilities=softmax(z.astype(np.float32), axis=0))
    message = refused(calbench, *on_classes, "--calibrator", four)
    assert "these are probabilities" in message
    assert "was fitted on logits" in message


def test_binary_logits_and_levels_share_calibrators(calbench: Run, levels: Maps, tmp_path: Path, saved: Save) -> None:
    """One logit a pixel says the same however it is stored."""
    pred, gt = levels
    fitted = saved(Platt().fit(*binary_pixels()), input="levels")
    floats = tmp_path / "floats"
    floats.mkdir()
    for path in pred.iterdir():
        np.savez(floats / f"{path.stem}.npz", probabilities=expit(level_logits()[np.asarray(Image.open(path))]))
    metrics = "--metrics", "nll,brier,ece,accuracy"
    by_levels = numbers(calbench, "--pred", pred, "--gt", gt, "--calibrator", fitted, *metrics)
    by_floats = numbers(calbench, "--pred", floats, "--gt", gt, "--calibrator", fitted, *metrics)
    assert by_floats == pytest.approx(by_levels, abs=1e-9)


def test_statistics_that_cannot_be_calibrated(
    calbench: Run, levels: Maps, classes: Maps, tmp_path: Path, saved: Save
) -> None:
    binary = saved(Temperature().fit(*binary_pixels()), "binary")
    four = saved(Temperature().fit(*class_pixels()), "four")
    for name, (pred, gt) in (("levels", levels), ("classes", classes)):
        calbench("evaluate", "--pred", pred, "--gt", gt, "--n-boot", 0, "-o", tmp_path / name)
    on_levels, on_classes = (("--stats", tmp_path / name / "stats.npz") for name in ("levels", "classes"))
    assert "only 8-bit binary maps" in refused(calbench, *on_classes, "--calibrator", four)
    assert "only 8-bit binary maps" in refused(calbench, *on_levels, "--calibrator", four)
    assert "--pred and --gt instead of --stats" in refused(calbench, *on_classes, "--calibrator", binary)
    calbench(
        "evaluate",
        "--pred",
        levels[0],
        "--gt",
        levels[1],
        "--n-boot",
        0,
        "-o",
        tmp_path / "after",
        "--calibrator",
        binary,
    )
    twice = refused(calbench, "--stats", tmp_path / "after" / "stats.npz", "--calibrator", binary)
    assert "were calibrated by temperature before" in twice
    rng = np.random.default_rng(0)
    scenes = [
        Scene(rng.normal(size=(12, 12)).astype(np.float32), rng.integers(0, 2, (12, 12)), np.ones((12, 12)),
              rng.uniform(size=(3, 12, 12)).astype(np.float32))
        for _ in range(3)
    ]  # fmt: skip
    local = saved(LocalTemperature(epochs=1, crop=8).fit_scenes(scenes), "local")
    message = refused(calbench, *on_levels, "--calibrator", local)
    assert "--images" in message
    assert "instead of --stats" in message


def test_aslp_numbers_are_of_the_bytes_on_disk(calbench: Run, levels: Maps, tmp_path: Path, saved: Save) -> None:
    pred, gt = levels
    fitted = saved(Temperature().fit(*binary_pixels()))
    aslp = "--profile", "aslp"
    message = refused(calbench, "--pred", pred, "--gt", gt, "--calibrator", fitted, *aslp, code=2)
    assert "bytes on disk" in message
    assert calbench("evaluate", "--pred", pred, "--gt", gt, "--n-boot", 0, *aslp, "-o", tmp_path / "a").exit_code == 0
    stats = "--stats", tmp_path / "a" / "stats.npz", "--calibrator", fitted
    message = refused(calbench, *stats, *aslp)
    assert "aslp_ece" in message
    assert "cannot be computed" in message
    assert pooled(calbench, "nll", *stats) > 0


def test_options_without_a_calibrator_are_refused(calbench: Run, levels: Maps, tmp_path: Path) -> None:
    pred, gt = levels
    assert "--allow-overlap" in refused(calbench, "--pred", pred, "--gt", gt, "--allow-overlap", code=2)
    assert "--images" in refused(calbench, "--pred", pred, "--gt", gt, "--images", tmp_path, code=2)
    message = refused(calbench, "--pred", pred, "--gt", gt, "--calibrator", tmp_path / "nothing.safetensors")
    assert "there is no file" in message
    (tmp_path / "text.safetensors").write_text("hello")
    message = refused(calbench, "--pred", pred, "--gt", gt, "--calibrator", tmp_path / "text.safetensors")
    assert "no calibrator" in message


def test_an_interrupted_run_resumes_with_the_same_calibrator_only(
    calbench: Run, levels: Maps, tmp_path: Path, saved: Save, interrupt_after: Callable[[int], Any]
) -> None:
    pred, gt = levels
    fitted = saved(Temperature().fit(*binary_pixels()))
    command = "evaluate", "--pred", pred, "--gt", gt, "--n-boot", 0, "-j", 1
    out = tmp_path / "out"
    with interrupt_after(3):
        assert calbench(*command, "-o", out, "--calibrator", fitted).exit_code == 130
    other = saved(Temperature().fit(*binary_pixels(sharpness=1.0)), "other")
    for changed in (("--calibrator", other), ()):
        result = calbench(*command, "-o", out, *changed, "--resume")
        assert result.exit_code == 1
        assert "cannot resume" in result.stderr
        assert "calibrator" in result.stderr
    original = fitted.read_bytes()
    fitted.write_bytes(other.read_bytes())  # the same path, another calibrator
    assert "cannot resume" in calbench(*command, "-o", out, "--calibrator", fitted, "--resume").stderr
    fitted.write_bytes(original)
    result = calbench(*command, "-o", out, "--calibrator", fitted, "--resume")
    assert result.exit_code == 0, result.output
    assert "3 of 6 images are done" in result.stderr
    calbench(*command, "-o", tmp_path / "whole", "--calibrator", fitted)
    assert (out / "summary.csv").read_bytes() == (tmp_path / "whole" / "summary.csv").read_bytes()


def test_a_calibrator_that_was_fitted_again_is_read_again(calbench: Run, levels: Maps, saved: Save) -> None:
    pred, gt = levels
    found = [
        pooled(calbench, "nll", "--pred", pred, "--gt", gt, "--calibrator",
               saved(Temperature().fit(*binary_pixels(sharpness=sharpness))))
        for sharpness in (2.5, 0.5)
    ]  # fmt: skip
    assert abs(found[0] - found[1]) > 0.01


# --- out of distribution ----------------------------------------------------------------------------------------------


def test_images_with_nothing_to_find_pass_through_the_calibrator_too(
    calbench: Run, levels: Maps, tmp_path: Path, saved: Save
) -> None:
    pred, gt = levels
    calibrator = Temperature().fit(*binary_pixels())
    fitted = saved(calibrator)
    for number, sample in enumerate(samples(4, 2.5, seed=4, scene=SMALL)):
        write_png(tmp_path / "textures" / f"t{number}.png", sample.scores)
    arguments = "--pred", pred, "--gt", gt, "--ood", f"textures={tmp_path / 'textures'}", "--n-boot", 0
    result = calbench("evaluate", *arguments, "--calibrator", fitted, "-o", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert calbench("evaluate", *arguments, "-o", tmp_path / "plain").exit_code == 0
    result = calbench(
        "evaluate",
        "--stats",
        tmp_path / "plain" / "stats.npz",
        "--n-boot",
        0,
        "--calibrator",
        fitted,
        "-o",
        tmp_path / "b",
    )
    assert result.exit_code == 0, result.output
    a, b, plain = (summary(tmp_path / folder) for folder in ("a", "b", "plain"))
    keys = ["dataset", *KEYS]
    pd.testing.assert_frame_equal(a.set_index(keys), b.set_index(keys), rtol=1e-10, atol=1e-12)
    outside, before = (
        table[
            (table.dataset == "textures") & (table.metric == "ood_entropy") & (table.average == "pixels")
        ].value.item()
        for table in (a, plain)
    )
    z = np.concatenate([level_logits()[np.asarray(Image.open(p)).ravel()] for p in (tmp_path / "textures").iterdir()])
    p = calibrator.transform(z)
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    assert outside == pytest.approx(entropy, abs=1e-9)
    assert outside > before


# --- the kernel -------------------------------------------------------------------------------------------------------


def test_levels_that_mean_what_they_did_change_nothing() -> None:
    rows = next(iter(package.collect(samples(5, 2.0, scene=SMALL)).combinations.values()))
    same = measure_levels(rows, np.arange(256) / 255)
    run = {("d", "m"): rows}, {("d", "m"): same}
    names = ["ece", "nll", "brier", "accuracy", "miou", "auroc"]
    before, after = (package.evaluate(package.Run(part), metrics=names, n_boot=0) for part in run)
    for name in names:
        values = [t[(t.metric == name) & (t.average == "pixels")].value.iloc[0] for t in (before, after)]
        tolerance = 1e-12 if name != "nll" else 1.0  # clipped by half a level before, by float64 after
        assert values[1] == pytest.approx(values[0], abs=tolerance), name
    assert same.changes is not None
    assert same.changes.changed.sum() == 0
