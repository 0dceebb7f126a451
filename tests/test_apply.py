"""Calibrated maps on disk: what is written, what rounding costs, interruption, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from scipy.special import expit, softmax

from calbench.apply import Applied, ApplyOptions, apply_folder, quantised
from calbench.calibrators import Calibrator, save_calibrator
from calbench.calibrators.identity import Identity
from calbench.calibrators.local_temperature import LocalTemperature
from calbench.calibrators.samples import calibrated, level_logits
from calbench.calibrators.temperature import Temperature
from calbench.errors import InputError, OptionError, RangeError, ShapeError, UnknownName
from calbench.io.files import APPLIED
from calbench.io.sample import Sample
from calbench.synthetic import SyntheticScene, samples
from calbench.synthetic_classes import ClassScene, class_samples

Run = Callable[..., Result]

N_IMAGES = 5
SMALL = SyntheticScene(height=30, width=44)
FIVE = ClassScene(height=20, width=32, classes=5)
METRICS = "ece,brier,nll,accuracy,miou"


def with_temperature(temperature: float, n_classes: int = 1, **origin: Any) -> Temperature:
    fitted = Temperature()
    fitted.n_classes_, fitted.temperature_ = n_classes, temperature
    fitted.summary_, fitted.notes_, fitted.origin_ = {}, [], origin
    return fitted


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Calibrator], Path]:
    """Write a calibrator to a file."""

    def save(calibrator: Calibrator, name: str = "fitted") -> Path:
        path = tmp_path / "fits" / f"{name}.safetensors"
        save_calibrator(calibrator, path)
        return path

    return save


@pytest.fixture
def binary(tmp_path: Path) -> tuple[Path, Path]:
    """8-bit maps, over-confident, and their masks."""
    pred, gt = tmp_path / "net", tmp_path / "toy" / "gt"
    for sample in samples(N_IMAGES, 2.5, scene=SMALL):
        write_png(pred / f"{sample.name}.png", sample.scores)
        write_png(gt / f"{sample.name}.png", np.where(sample.target, 255, 0).astype(np.uint8))
    return pred, gt


@pytest.fixture
def classes(tmp_path: Path) -> tuple[Path, Path]:
    """Logits of five classes, over-confident, and their labels."""
    pred, gt = tmp_path / "logits", tmp_path / "street" / "gt"
    pred.mkdir()
    for name, logits, labels in class_samples(N_IMAGES, 2.0, scene=FIVE):
        np.savez_compressed(pred / f"{name}.npz", logits=logits.astype(np.float16))
        write_png(gt / f"{name}.png", labels)
    return pred, gt


def write_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def stored(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["probabilities"]


def applied(calibrator: Path, pred: Path, output: Path, **options: Any) -> Applied:
    running = {key: options.pop(key) for key in ("jobs", "resume", "force", "announce") if key in options}
    return apply_folder(ApplyOptions(str(calibrator), str(pred), str(output), **options), **running)


def numbers(calbench: Run, *arguments: object) -> dict[str, float]:
    result = calbench("evaluate", *arguments, "--n-boot", 0, "--metrics", METRICS, "--json", "-q")
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)["results"]
    return {record["metric"]: record["value"] for record in records if record["average"] == "pixels"}


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "tolerance"), [("npz", 3e-4), ("png16", 2e-5), ("png8", 3e-3)])
def test_evaluate_reads_binary_maps_as_they_are_written(
    calbench: Run, binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path], format: str, tolerance: float
) -> None:
    pred, gt = binary
    drawn = list(samples(40, 2.5, seed=1, scene=SMALL))
    levels, target = (
        np.concatenate([getattr(sample, part).ravel() for sample in drawn]) for part in ("scores", "target")
    )
    fitted = saved(Temperature().fit(level_logits()[levels], target.astype(int)))
    out = tmp_path / "calibrated"
    result = calbench("apply", fitted, "--pred", pred, "-o", out, "--format", format)
    assert result.exit_code == 0, result.output
    assert "5 images" in result.stderr
    assert "uint8 binary levels (inferred)" in result.stderr
    extension = "npz" if format == "npz" else "png"
    assert {path.name for path in out.iterdir()} == {f"{i:06d}.{extension}" for i in range(N_IMAGES)} | {APPLIED}
    written = numbers(calbench, "--pred", out, "--gt", gt)
    measured = numbers(calbench, "--pred", pred, "--gt", gt, "--calibrator", fitted)
    uncalibrated = numbers(calbench, "--pred", pred, "--gt", gt)
    assert written["accuracy"] == measured["accuracy"]
    assert written["miou"] == measured["miou"]
    assert written == pytest.approx(measured, abs=tolerance)
    assert abs(written["ece"] - uncalibrated["ece"]) > 0.02


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_evaluate_reads_several_classes_as_they_are_written(
    calbench: Run, classes: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path], kind: str
) -> None:
    logits, gt = classes
    pred = logits
    if kind == "probabilities":
        pred = tmp_path / "softmax"
        pred.mkdir()
        for path in logits.iterdir():
            z = np.load(path)["logits"].astype(np.float32)
            np.save(pred / f"{path.stem}.npy", np.moveaxis(softmax(z, axis=0), 0, 2))  # (H, W, C)
    fitted, out = saved(with_temperature(2.0, 5, input=kind)), tmp_path / "calibrated"
    result = calbench("apply", fitted, "--pred", pred, "-o", out)
    assert result.exit_code == 0, result.output
    assert f"{kind} of 5 classes" in result.stderr
    first = stored(out / "000000.npz")
    assert (first.shape, first.dtype) == ((5, 20, 32), np.float16)
    written = numbers(calbench, "--pred", out, "--gt", gt)
    measured = numbers(calbench, "--pred", pred, "--gt", gt, "--calibrator", fitted)
    assert written["accuracy"] == measured["accuracy"]
    assert written == pytest.approx(measured, abs=3e-4)


@pytest.mark.parametrize("format", ["npz", "png16", "png8"])
def test_doing_nothing_writes_the_maps_back(
    binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path], format: str
) -> None:
    pred, _ = binary
    fitted = saved(Identity().fit(np.array([-1.0, 1.0]), np.array([0, 1])))
    lost = applied(fitted, pred, tmp_path / "out", format=format).rounding
    for path in pred.iterdir():
        levels = np.asarray(Image.open(path))
        assert levels.max() > 240
        assert levels.min() == 0
        if format == "npz":
            written = stored(tmp_path / "out" / f"{path.stem}.npz")
            assert (np.rint(written.astype(float) * 255) == levels).all()
        else:
            written = np.asarray(Image.open(tmp_path / "out" / path.name)).astype(int)
            assert (written == levels.astype(int) * (257 if format == "png16" else 1)).all()
    assert lost.largest == 0 if format != "npz" else 0 < lost.largest < 3e-4


def test_doing_nothing_keeps_float16_probabilities_of_several_classes(
    tmp_path: Path, saved: Callable[..., Path]
) -> None:
    pred, out = tmp_path / "pred", tmp_path / "out"
    pred.mkdir()
    p = softmax(np.random.default_rng(0).normal(0, 5, (3, 7, 9)), axis=0).astype(np.float16)
    p[:, 0, 0] = 0, 1, 0
    p[:, 0, 1] = 0.25, 0.375, 0.375  # a tie of its own
    np.savez(pred / "a.npz", softmax=p)
    fitted = saved(Identity().fit(4 * np.eye(3), np.arange(3)))
    assert applied(fitted, pred, out).rounding.largest == 0
    assert (stored(out / "a.npz") == p).all()


def test_every_pixel_keeps_its_class(tmp_path: Path, saved: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    several, one = rng.normal(0, 3, (5, 20, 30)), rng.normal(0, 3, (20, 30))
    for name, logits in (("several", several), ("one", one)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", logits)
        fitted = saved(with_temperature(1000.0, logits.shape[0] if logits.ndim == 3 else 1), name)
        done = applied(fitted, tmp_path / name, tmp_path / f"{name}-out")
        assert done.rounding.class_kept > 20
        assert done.rounding.pixels == 600
    p = stored(tmp_path / "several-out" / "a.npz")
    assert (p.argmax(0) == several.argmax(0)).all()
    assert np.abs(p.sum(0, dtype=float) - 1).max() < 1e-3
    assert ((stored(tmp_path / "one-out" / "a.npz") >= 0.5) == (one >= 0)).all()
    for format, half in (("png16", 32768), ("png8", 128)):
        applied(tmp_path / "fits" / "one.safetensors", tmp_path / "one", tmp_path / format, format=format)
        levels = np.asarray(Image.open(tmp_path / format / "a.png"))
        assert ((levels >= half) == (one >= 0)).all()


def test_the_rounding_is_what_is_on_disk(
    classes: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    pred, _ = classes
    fitted = with_temperature(1.7, 5)
    done = applied(saved(fitted), pred, tmp_path / "out")
    errors = []
    for path in sorted(pred.iterdir()):
        sample = Sample(path.stem, np.load(path)["logits"], None, kind="logits")
        p = calibrated(sample, fitted)[0].scores
        errors.append(np.abs(stored(tmp_path / "out" / path.name).astype(float) - p))
    assert done.rounding.largest == np.max(errors)
    assert done.rounding.mean == pytest.approx(np.mean(errors), rel=1e-12)
    assert done.rounding.numbers == np.size(errors)


def test_levels_are_foreground_where_the_probability_is() -> None:
    p = np.concatenate([np.linspace(0, 1, 100_001), np.nextafter(0.5, [0, 1])])[None]
    for format, half in (("png8", 128), ("png16", 32768), ("npz", 0.5)):
        written, lost = quantised(p, format)
        assert ((written >= half) == (p >= 0.5)).all()
        assert lost.largest <= {"png8": 1 / 510, "png16": 1 / 131070, "npz": 5e-4}[format] * (1 + 1e-9)


def test_sub_folders_suffixes_and_single_files(tmp_path: Path, saved: Callable[..., Path]) -> None:
    pred, out = tmp_path / "pred", tmp_path / "out"
    for number, name in enumerate(("x/v1.2_p", "y/v1.2_p", "y/other")):
        write_png(pred / f"{name}.png", np.full((4, 5), 100 + number, np.uint8))
    fitted = saved(with_temperature(1.0))
    assert applied(fitted, pred, out, pred_suffix="_p").files == ("x/v1.2_p.npz", "y/v1.2_p.npz")
    assert stored(out / "y" / "v1.2_p.npz") == pytest.approx(101 / 255, abs=3e-4)
    assert applied(fitted, pred / "y" / "other.png", tmp_path / "one").files == ("other.npz",)


def test_tables_and_maps_keep_their_labels(calbench: Run, tmp_path: Path, saved: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 4, (300, 4)), rng.integers(0, 4, 300)
    z[np.arange(300), y] += 2
    np.savez(tmp_path / "table.npz", logits=z.astype(np.float32), ground_truth=y)
    fitted = saved(with_temperature(2.0, 4))
    result = calbench("apply", fitted, "--pred", tmp_path / "table.npz", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "1 table" in result.stderr
    assert stored(tmp_path / "out" / "table.npz").shape == (300, 4)
    written = numbers(calbench, "--pred", tmp_path / "out" / "table.npz")
    measured = numbers(calbench, "--pred", tmp_path / "table.npz", "--calibrator", fitted)
    assert written["nll"] == pytest.approx(measured["nll"], abs=5e-3)  # clipped by the unit of float16
    assert written | {"nll": 0} == pytest.approx(measured | {"nll": 0}, abs=3e-4)
    (tmp_path / "maps").mkdir()
    np.savez(tmp_path / "maps" / "a.npz", logits=z.T.reshape(4, 15, 20), label=y.reshape(15, 20))
    applied(fitted, tmp_path / "maps", tmp_path / "maps-out")
    written = numbers(calbench, "--pred", tmp_path / "maps-out")
    measured = numbers(calbench, "--pred", tmp_path / "maps", "--calibrator", fitted)
    assert written | {"nll": 0} == pytest.approx(measured | {"nll": 0}, abs=3e-4)


def test_pictures_reach_calibrators_that_look_at_them(tmp_path: Path, saved: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    z, y = rng.normal(0, 4, (4, 2, 16, 18)), rng.integers(0, 2, (4, 16, 18))
    images = rng.integers(0, 256, (4, 16, 18, 3)).astype(np.uint8)
    pictures = np.moveaxis(images, 3, 1).astype(np.float32) / np.float32(255)
    fitted = LocalTemperature(epochs=1, crop=10).fit(z, y, np.full(y.shape, 10.0), images=pictures)
    pred, out = tmp_path / "pred", tmp_path / "out"
    pred.mkdir()
    for i in range(4):
        np.save(pred / f"{i}.npy", z[i])
        write_png(tmp_path / "images" / f"{i}.png", images[i])
    path = saved(fitted)
    with pytest.raises(OptionError, match="--images DIR"):
        applied(path, pred, out)
    applied(path, pred, out, images=str(tmp_path / "images"))
    assert stored(out / "2.npz") == pytest.approx(fitted.transform_map(z[2], pictures[2]), abs=5e-4)
    write_png(tmp_path / "images" / "2.png", images[1])
    assert applied(path, pred, out, images=str(tmp_path / "images"), resume=True).skipped == 3
    write_png(tmp_path / "images" / "3.png", images[3, :12])
    with pytest.raises(ShapeError, match=r"3\.png"):
        applied(path, pred, out, images=str(tmp_path / "images"), force=True)
    applied(path, pred, out, images=str(tmp_path / "images"), force=True, resize_images=True)
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(InputError, match="without a picture"):
        applied(path, pred, out, images=str(tmp_path / "images"), force=True)


def test_json_prints_one_document(
    calbench: Run, binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    fitted = saved(with_temperature(2.0, images={"000001": 1, "000003": 2, "elsewhere": 3}))
    result = calbench("apply", fitted, "--pred", binary[0], "-o", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["calibrator"], document["images"], document["fitted_on"]) == ("temperature", N_IMAGES, 2)
    assert document["files"] == [f"{i:06d}.npz" for i in range(N_IMAGES)]
    assert 0 < document["quantisation"]["mean"] < document["quantisation"]["largest"] < 3e-4
    assert document["quantisation"]["pixels"] == N_IMAGES * 30 * 44
    assert "2 of 5 images have names of images that temperature was fitted on" in result.stderr
    quiet = calbench("apply", fitted, "--pred", binary[0], "-o", tmp_path / "out", "-q", "--force")
    assert quiet.stderr == ""
    assert "rounding to float16 moved probabilities by" in quiet.stdout


# --- interruption and resumption -----------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def interrupt_after(n_files: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes after that many files."""
    module = sys.modules["calbench.apply"]
    original = module.parallel_map

    def interrupted(function: Any, tasks: Any, jobs: Any) -> Iterator[Any]:
        for number, result in enumerate(original(function, tasks, jobs)):
            if number == n_files:
                raise KeyboardInterrupt
            yield result

    patch.setattr(module, "parallel_map", interrupted)


def test_an_interrupted_run_resumes_to_the_same_bytes(
    calbench: Run,
    binary: tuple[Path, Path],
    tmp_path: Path,
    saved: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted, pred = saved(with_temperature(2.0)), binary[0]
    whole, out = tmp_path / "whole", tmp_path / "out"
    calbench("apply", fitted, "--pred", pred, "-o", whole)
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        assert calbench("apply", fitted, "--pred", pred, "-o", out).exit_code == 130
    assert len(json.loads((out / APPLIED).read_text())["files"]) == 3
    refused = calbench("apply", fitted, "--pred", pred, "-o", out)
    assert (refused.exit_code, "--resume" in refused.stderr) == (1, True)
    before = (out / "000001.npz").stat().st_mtime_ns
    result = calbench("apply", fitted, "--pred", pred, "-o", out, "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["skipped"] == 3
    assert (out / "000001.npz").stat().st_mtime_ns == before
    assert contents(out) == contents(whole)


def test_processes_do_not_matter(binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]) -> None:
    fitted = saved(with_temperature(2.0))
    one, two = (applied(fitted, binary[0], tmp_path / f"out{jobs}", jobs=jobs) for jobs in (1, 2))
    assert replace(two, output=one.output) == one
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


def test_resume_writes_again_what_has_changed(
    binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    fitted, pred, out = saved(with_temperature(2.0)), binary[0], tmp_path / "out"
    applied(fitted, pred, out)
    write_png(pred / "000001.png", np.full((30, 44), 128, np.uint8))
    write_png(pred / "more.png", np.full((30, 44), 128, np.uint8))
    (out / "000002.npz").unlink()
    done = applied(fitted, pred, out, resume=True)
    assert (done.skipped, len(done.files)) == (3, N_IMAGES + 1)
    p = expit(level_logits()[128] / 2)
    assert stored(out / "000001.npz") == pytest.approx(p, abs=3e-4)
    assert (out / "000002.npz").exists()
    (pred / "more.png").unlink()
    with pytest.raises(InputError, match=r"predictions are gone:\n  more\.npz"):
        applied(fitted, pred, out, resume=True)
    applied(fitted, pred, out, force=True)
    assert not (out / "more.npz").exists()


def test_resume_refuses_another_calibrator_and_other_options(
    binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    pred, out = binary[0], tmp_path / "out"
    applied(saved(with_temperature(2.0)), pred, out)
    with pytest.raises(InputError, match="calibrator_digest"):
        applied(saved(with_temperature(3.0), "other"), pred, out, resume=True)
    with pytest.raises(InputError, match="format: npz -> png8"):
        applied(saved(with_temperature(2.0)), pred, out, resume=True, format="png8")
    with pytest.raises(OptionError, match="give one of them"):
        applied(saved(with_temperature(2.0)), pred, out, resume=True, force=True)


def test_a_calibrator_that_is_fitted_again_is_read_again(
    binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    written = []
    for temperature in (1.0, 4.0):
        applied(saved(with_temperature(temperature)), binary[0], tmp_path / "out", force=True)
        written.append(stored(tmp_path / "out" / "000000.npz").astype(float))
    assert np.abs(written[0] - written[1]).max() > 0.1


def test_force_removes_what_an_earlier_run_wrote(
    binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    fitted, out = saved(with_temperature(2.0)), tmp_path / "out"
    applied(fitted, binary[0], out, format="png8")
    (out / "notes.txt").write_text("mine")
    kept = tmp_path / "kept.txt"
    kept.write_text("mine, too")
    manifest = json.loads((out / APPLIED).read_text())
    manifest["files"]["../kept.txt"] = manifest["files"]["000000.png"]
    (out / APPLIED).write_text(json.dumps(manifest))
    applied(fitted, binary[0], out, force=True)
    assert {path.suffix for path in out.iterdir()} == {".npz", ".txt", ".json"}
    assert kept.exists()


def test_a_damaged_manifest_is_named(binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]) -> None:
    fitted, out = saved(with_temperature(2.0)), tmp_path / "out"
    out.mkdir()
    for text, message in (("{", "damaged"), ("[]", "damaged"), ('{"schema": 2}', "update calbench")):
        (out / APPLIED).write_text(text)
        with pytest.raises(ValueError, match=message):
            applied(fitted, binary[0], out, resume=True)


# --- what is refused --------------------------------------------------------------------------------------------------------


def test_predictions_are_never_written_over(
    binary: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    fitted, pred = saved(with_temperature(2.0)), binary[0]
    before = contents(pred)
    for source, out in ((pred, pred), (pred, pred / "calibrated"), (pred, pred.parent), (pred / "000000.png", pred)):
        with pytest.raises(InputError, match="would mix"):
            applied(fitted, source, out, force=True)
    write_png(tmp_path / "out" / "000003.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match=r"1 file that would be replaced:\n  000003\.png"):
        applied(fitted, pred, tmp_path / "out", format="png8")
    assert contents(pred) == before


def test_other_predictions_are_refused(
    binary: tuple[Path, Path], classes: tuple[Path, Path], tmp_path: Path, saved: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    for temperature, pred, message in (
        (with_temperature(2.0, 5), binary[0], r"shape \(30, 44\).*fitted on 5 classes"),
        (with_temperature(2.0), classes[0], r"shape \(5, 20, 32\).*fitted on binary maps"),
        (with_temperature(2.0, 7), classes[0], r"shape \(5, 20, 32\).*fitted on 7 classes"),
    ):
        with pytest.raises(ShapeError, match=message):
            applied(saved(temperature), pred, out)
    with pytest.raises(
        InputError, match="these are logits, but the calibrator 'temperature' was fitted on probabilities"
    ):
        applied(saved(with_temperature(2.0, 5, input="probabilities")), classes[0], out)
    with pytest.raises(OptionError, match="binary maps"):
        applied(saved(with_temperature(2.0, 5)), classes[0], out, format="png8")
    with pytest.raises(UnknownName, match="png16"):
        applied(saved(with_temperature(2.0)), binary[0], out, format="png61")
    assert not out.exists()


def test_every_file_is_verified(tmp_path: Path, saved: Callable[..., Path]) -> None:
    pred, fitted = tmp_path / "pred", saved(with_temperature(2.0, 3))
    pred.mkdir()
    z = np.random.default_rng(0).normal(0, 3, (3, 6, 8))
    p = softmax(z, axis=0)
    odd = {
        "NaN or infinite": (z, np.where(z > 3, np.nan, z)),
        "holds probabilities": (z, p),
        "expected probabilities": (p, z),
        "sum over the classes": (p, p / 2),
    }
    for number, (message, (usual, other)) in enumerate(odd.items()):
        for i in range(9):  # of which four are looked at to infer what they hold
            np.save(pred / f"{i}.npy", other if i == 1 else usual)
        with pytest.raises(RangeError, match=rf"1\.npy .*{message}"):
            applied(fitted, pred, tmp_path / f"out{number}")
        assert "0.npz" in json.loads((tmp_path / f"out{number}" / APPLIED).read_text())["files"]


def test_volumes_decisions_and_mixtures_are_refused(tmp_path: Path, saved: Callable[..., Path]) -> None:
    fitted = saved(with_temperature(2.0))
    pred = tmp_path / "pred"
    pred.mkdir()
    (pred / "a.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.nii\.gz is a volume"):
        applied(fitted, pred, tmp_path / "out")
    (pred / "a.nii.gz").unlink()
    (pred / "a.csv").write_text("label,pred,conf\n1,1,0.5\n")
    with pytest.raises(InputError, match="holds decisions"):
        applied(fitted, pred, tmp_path / "out")
    write_png(pred / "b.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match="tables and maps"):
        applied(fitted, pred, tmp_path / "out")


def test_the_command_line_names_what_is_wrong(calbench: Run, binary: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    for path, message in ((tmp_path / "no.safetensors", "no calibrator"), (tmp_path / "none", "there is no file")):
        result = calbench("apply", path, "--pred", binary[0], "-o", tmp_path / "out")
        assert (result.exit_code, message in result.stderr) == (1, True)
    assert calbench("apply", tmp_path / "none").exit_code == 2
