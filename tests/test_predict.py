"""Predictions on disk: against the network by hand, in every format, interrupted, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from scipy.special import softmax
from torch import nn
from torch.nn import functional as F  # noqa: N812

from calbench.errors import CalbenchError, FormatError, InputError, OptionError, PairingError, RangeError, UnknownName
from calbench.io.maps import Rounding
from calbench.training.checkpoint import Checkpoint, save_checkpoint
from calbench.training.config import TrainingConfig
from calbench.training.image_sets import image_set
from calbench.training.models import AslpResNet50, build_model
from calbench.training.predict import PREDICTED, Predicted, PredictOptions, predict_folder, predict_set

Run = Callable[..., Result]

SIZE = 48
SIZES = {"a": (40, 27), "b": (23, 64), "bäume": (48, 48), "d": (31, 70), "e": (97, 33)}
"""Height and width of the pictures."""
MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
TOLERANCE = {"npz": 2**-12, "png16": 0.5 / 65535, "png8": 0.5 / 255}
"""Half the distance of two numbers that the format can store, at most."""
FLOAT32 = 2e-6
"""By how much probabilities may differ when float32 sums are made in another order."""


def spread_network(classes: int = 1, seed: int = 0) -> nn.Module:
    """The small network, with random weights that give logits of both signs, some of them large."""
    network = build_model("small", seed=seed, classes=classes).eval()
    with torch.no_grad():
        network.head.weight.mul_(8)
    return network


def checkpoint_of(network: nn.Module, path: Path, **config: Any) -> Path:
    settings = TrainingConfig(**{"size": SIZE, **config})
    save_checkpoint(Checkpoint(settings, {}, network.state_dict(), {}), path)
    return path


def write_picture(path: Path, size: tuple[int, int], seed: int, **options: Any) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path, **options)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "toy" / "images"
    for seed, (name, size) in enumerate(SIZES.items()):
        write_picture(folder / f"{name}.png", size, seed)
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return checkpoint_of(spread_network(), tmp_path / "run" / "best.pt")


def by_hand(network: nn.Module, path: Path, *, size: int = SIZE, flip: bool = False) -> np.ndarray:
    """Probabilities from the file of a picture, `(H, W)` or `(C, H, W)`."""
    picture = Image.open(path).convert("RGB")
    resized = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)) / 255
    x = torch.from_numpy(((resized - MEAN) / SPREAD).transpose(2, 0, 1).astype(np.float32))[None]
    with torch.no_grad():
        logits = network(x)
        if flip:
            logits = (logits + torch.flip(network(torch.flip(x, [3])), [3])) / 2
        z = (
            F.interpolate(logits, (picture.height, picture.width), mode="bilinear", align_corners=False)[0]
            .double()
            .numpy()
        )
    return 1 / (1 + np.exp(-z[0])) if len(z) == 1 else softmax(z, axis=0)


def read(path: Path) -> np.ndarray:
    """Probabilities as `calbench evaluate` takes them."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            assert file["probabilities"].dtype == np.float16
            return file["probabilities"].astype(np.float64)
    levels = np.asarray(Image.open(path))
    return levels / (65535 if levels.dtype == np.uint16 else 255)


def predicted(checkpoint: Path, images: Path, output: Path, **options: Any) -> Predicted:
    running = {key: options.pop(key) for key in ("resume", "force", "announce") if key in options}
    return predict_folder(PredictOptions(str(checkpoint), str(images), str(output), **options), **running)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["npz", "png16", "png8"])
def test_maps_are_the_sigmoid_of_logits_brought_to_the_size_of_the_picture(
    calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / "out"
    result = calbench("predict", "--checkpoint", checkpoint, "--images", pictures, "-o", out, "--format", format)
    assert result.exit_code == 0, result.output
    assert "5 pictures" in result.stderr
    assert "at 48 x 48 pixels by small, trained by bce" in result.stderr
    assert "5 files in" in result.stdout
    extension = "npz" if format == "npz" else "png"
    assert {path.name for path in out.iterdir()} == {f"{name}.{extension}" for name in SIZES} | {PREDICTED}
    network = spread_network()
    for name, size in SIZES.items():
        p, expected = read(out / f"{name}.{extension}"), by_hand(network, pictures / f"{name}.png")
        assert p.shape == size
        assert np.abs(p - expected).max() < TOLERANCE[format] + FLOAT32
        assert np.ptp(expected) > 0.5
        assert ((p >= 0.5) == (expected >= 0.5))[np.abs(expected - 0.5) > FLOAT32].all()


def test_the_rounding_is_what_is_on_disk(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    done = predicted(checkpoint, pictures, tmp_path / "out", format="png8")
    network, errors = spread_network(), []
    for name in SIZES:
        errors.append(
            np.abs(read(tmp_path / "out" / f"{name}.png") - by_hand(network, pictures / f"{name}.png")).ravel()
        )
    assert done.rounding.largest == pytest.approx(np.concatenate(errors).max(), abs=FLOAT32)
    assert done.rounding.mean == pytest.approx(np.concatenate(errors).mean(), abs=FLOAT32)
    assert done.rounding.pixels == sum(height * width for height, width in SIZES.values())
    assert "rounding to 8 bits moved probabilities by 0.002" in done.text


@pytest.mark.parametrize("format", ["npz", "png16", "png8"])
def test_evaluate_measures_what_was_predicted(
    calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path, format: str
) -> None:
    predicted(checkpoint, pictures, tmp_path / "out", format=format)
    network, exact, gt = spread_network(), tmp_path / "exact", tmp_path / "toy" / "gt"
    exact.mkdir()
    gt.mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        np.save(exact / f"{name}.npy", by_hand(network, pictures / f"{name}.png"))
        Image.fromarray(np.random.default_rng(seed).integers(0, 2, size).astype(np.uint8) * 255).save(
            gt / f"{name}.png"
        )

    def numbers(pred: Path) -> dict[str, float]:
        measured = ("--n-boot", 0, "--metrics", "ece,brier,accuracy,miou", "--json", "-q")
        result = calbench("evaluate", "--pred", pred, "--gt", gt, *measured)
        assert result.exit_code == 0, result.output
        records = json.loads(result.stdout)["results"]
        return {record["metric"]: record["value"] for record in records if record["average"] == "pixels"}

    found = numbers(tmp_path / "out")
    assert len(found) == 4
    assert found == pytest.approx(numbers(exact), abs={"npz": 3e-4, "png16": 2e-5, "png8": 3e-3}[format])


@pytest.mark.parametrize("classes", [2, 4])
def test_several_classes_are_softmax(calbench: Run, pictures: Path, tmp_path: Path, classes: int) -> None:
    network, out = spread_network(classes), tmp_path / "out"
    checkpoint = checkpoint_of(network, tmp_path / "last.pt", classes=classes)
    predicted(checkpoint, pictures, out)
    for name, size in SIZES.items():
        p, expected = read(out / f"{name}.npz"), by_hand(network, pictures / f"{name}.png")
        assert p.shape == (classes, *size)
        first, second = np.sort(expected, axis=0)[:-3:-1]
        assert (p.argmax(0) == expected.argmax(0))[first - second > FLOAT32].all()
        untied = first - second > 2**-10  # the class of a tie is kept by a step of float16
        assert np.abs(p - expected)[:, untied].max() < TOLERANCE["npz"] + FLOAT32
        assert untied.mean() > 0.9
    for option, message in ((("--format", "png8"), "--format png8"), (("--profile", "aslp"), "--profile aslp")):
        result = calbench("predict", "--checkpoint", checkpoint, "--images", pictures, "-o", tmp_path / "no", *option)
        assert (result.exit_code, f"{message} holds binary maps" in result.stderr) == (2, True)
        assert f"has {classes} classes" in result.stderr
    assert not (tmp_path / "no").exists()


def test_flip_averages_logits(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    network = spread_network()
    announced: list[str] = []
    predicted(checkpoint, pictures, tmp_path / "out", flip=True, announce=announced.append)
    assert "with their mirror images" in announced[0]
    for name in SIZES:
        path, p = pictures / f"{name}.png", read(tmp_path / "out" / f"{name}.npz")
        assert np.abs(p - by_hand(network, path, flip=True)).max() < TOLERANCE["npz"] + FLOAT32
        assert np.abs(p - by_hand(network, path)).max() > 0.02


def test_another_size_and_bf16(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    network, path = spread_network(), pictures / "d.png"
    predicted(checkpoint, path, tmp_path / "large", size=80, format="png16")
    p = read(tmp_path / "large" / "d.png")
    assert np.abs(p - by_hand(network, path, size=80)).max() < TOLERANCE["png16"] + FLOAT32
    assert np.abs(p - by_hand(network, path)).max() > 0.02
    predicted(checkpoint, path, tmp_path / "bf16", precision="bf16", format="png16")
    moved = np.abs(read(tmp_path / "bf16" / "d.png") - by_hand(network, path))
    assert 1e-4 < moved.max() < 0.1


def test_the_official_profile_stretches_each_map(calbench: Run, pictures: Path, tmp_path: Path) -> None:
    network, out = build_model("small"), tmp_path / "out"
    checkpoint = checkpoint_of(network, tmp_path / "last.pt")
    run = ("predict", "--checkpoint", checkpoint, "--images", pictures, "-o", out, "--profile", "aslp")
    result = calbench(*run)
    assert result.exit_code == 0, result.output
    assert "each map is stretched to the levels 0 to 255" in result.stderr
    assert "8 bits moved stretched maps" in result.stdout
    for name in SIZES:
        levels, p = np.asarray(Image.open(out / f"{name}.png")), by_hand(network, pictures / f"{name}.png")
        assert levels.dtype == np.uint8
        assert (levels.min(), levels.max()) == (0, 255)
        expected = np.clip(np.rint(255 * (p - p.min()) / (p.max() - p.min() + 1e-8)), 0, 255)
        assert np.abs(levels - expected).max() <= 1  # float32 sums decide between two levels
        assert (levels == expected).mean() > 0.99
        assert np.abs(levels - np.rint(255 * p)).max() > 10
    assert calbench(*run, "--format", "png8", "--resume").exit_code == 0
    refused = calbench(*run, "--format", "npz")
    assert (refused.exit_code, "--format png8 alone, not npz" in refused.stderr) == (2, True)


def test_a_plain_state_dict_needs_its_network(calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    network, plain = spread_network(3), tmp_path / "weights.pth"
    torch.save({f"module.{name}": weight for name, weight in network.state_dict().items()}, plain)
    run = ("predict", "--images", pictures, "-o", tmp_path / "out", "--checkpoint")
    without = calbench(*run, plain)
    assert (without.exit_code, "holds weights alone; say of which network" in without.stderr) == (2, True)
    binary = calbench(*run, plain, "--model", "small")
    assert binary.exit_code == 1
    assert "does not hold the weights of small with 1 channel of logits" in binary.stderr
    own = calbench(*run, plain, "--model", "calbench.training.models:SmallUNet", "--classes", 3)
    assert (own.exit_code, "say so by --size N" in own.stderr) == (2, True)
    for extra in (("--model", "small"), ("--classes", 1)):
        given = calbench(*run, checkpoint, *extra)
        assert given.exit_code == 2
        assert "leave out --model" in given.stderr if extra[0] == "--model" else "say of which network" in given.stderr
    assert not (tmp_path / "out").exists()
    result = calbench(*run, plain, "--model", "small", "--classes", 3)
    assert result.exit_code == 0, result.output
    assert "at 128 x 128 pixels by small" in result.stderr
    expected = by_hand(network, pictures / "b.png", size=128)
    assert np.abs(read(tmp_path / "out" / "b.npz") - expected).max() < TOLERANCE["npz"] + FLOAT32


def test_official_weights_are_read(pictures: Path, tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {name: w.shape for name, w in AslpResNet50(official_layout=True).state_dict().items()}
    weights = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}  # one number on disk each
    weights["output_conv.4.bias"] = torch.tensor([1.0])
    torch.save(weights, tmp_path / "Model_30_Gen.pth")
    announced: list[str] = []
    predicted(
        tmp_path / "Model_30_Gen.pth", pictures / "a.png", tmp_path / "out", model="aslp-resnet50", size=64,
        announce=announced.append,
    )  # fmt: skip
    assert read(tmp_path / "out" / "a.npz") == pytest.approx(1 / (1 + np.exp(-1)), abs=TOLERANCE["npz"])
    assert "at 64 x 64 pixels by aslp-resnet50" in announced[0]


def test_batches_and_workers_change_nothing(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    predicted(checkpoint, pictures, tmp_path / "one", batch=2)
    predicted(checkpoint, pictures, tmp_path / "two", batch=2, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    predicted(checkpoint, pictures, tmp_path / "single", batch=1)
    for name in SIZES:
        single, pair = (read(tmp_path / folder / f"{name}.npz") for folder in ("single", "one"))
        assert np.abs(single - pair).max() <= 2 * TOLERANCE["npz"]
        assert (single == pair).mean() > 0.99


def test_sub_folders_and_name_lists(checkpoint: Path, tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for seed, name in enumerate(("x/v1.2.png", "y/v1.2.jpg", "y/other.png")):
        write_picture(images / name, (20, 30), seed)
    (images / "notes.csv").write_text("name,weather\n")
    assert predicted(checkpoint, images, out).files == ("x/v1.2.npz", "y/other.npz", "y/v1.2.npz")
    expected = by_hand(spread_network(), images / "y" / "other.png")
    assert np.abs(read(out / "y" / "other.npz") - expected).max() < TOLERANCE["npz"] + FLOAT32
    names = tmp_path / "names.txt"
    names.write_bytes(b"\xef\xbb\xbfy/other.jpg\r\nx/v1.2\r\n")
    done = predicted(checkpoint, images, tmp_path / "some", names=str(names))
    assert done.files == ("x/v1.2.npz", "y/other.npz")
    names.write_text("x/v1.2\nx/nothing\n")
    with pytest.raises(PairingError, match=r"names\.txt.*\n  x/nothing"):
        predicted(checkpoint, images, tmp_path / "none", names=str(names))


def test_json_prints_one_document(calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    run = ("predict", "--checkpoint", checkpoint, "--images", pictures, "-o", tmp_path / "out")
    result = calbench(*run, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["model"], document["size"], document["images"], document["skipped"]) == ("small", SIZE, 5, 0)
    assert document["files"] == sorted(f"{name}.npz" for name in SIZES)
    assert 0 < document["quantisation"]["mean"] < document["quantisation"]["largest"] < TOLERANCE["npz"] * 1.001
    assert document["damaged"] == []
    quiet = calbench(*run, "-q", "--force")
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    assert "rounding to float16 moved probabilities by" in quiet.stdout


def test_predict_set_writes_the_files_it_is_told_to(pictures: Path, tmp_path: Path) -> None:
    network = spread_network().train()
    images, device = image_set("toy", pictures, None), torch.device("cpu")
    files = {"b": "x/one.png", "e": "two.png"}
    found = dict(predict_set(network, images, tmp_path, files=files, size=SIZE, format="png16", device=device, batch=2))
    assert list(found) == ["x/one.png", "two.png"]
    assert not network.training
    for name, file in files.items():
        expected = by_hand(network, pictures / f"{name}.png")
        assert np.abs(read(tmp_path / file) - expected).max() < TOLERANCE["png16"] + FLOAT32
        rounding = found[file].rounding
        assert isinstance(rounding, Rounding)
        assert rounding.pixels == expected.size


# --- interruption and resumption ----------------------------------------------------------------------------------------


def interrupt_after(n_files: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes after that many files."""
    module = sys.modules["calbench.training.predict"]
    original, written = module.write_map, []

    def interrupted(path: Path, stored: np.ndarray) -> None:
        if len(written) == n_files:
            raise KeyboardInterrupt
        written.append(path)
        original(path, stored)

    patch.setattr(module, "write_map", interrupted)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    run = ("predict", "--checkpoint", checkpoint, "--images", pictures, "--batch", 2, "--workers", workers, "-o")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert calbench(*run, whole).exit_code == 0
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        assert calbench(*run, out).exit_code == 130
    assert list(json.loads((out / PREDICTED).read_text("utf-8"))["files"]) == ["a.npz", "b.npz", "bäume.npz"]
    refused = calbench(*run, out)
    assert (refused.exit_code, "--resume" in refused.stderr) == (1, True)
    before = (out / "bäume.npz").stat().st_mtime_ns
    result = calbench(*run, out, "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["skipped"] == 3
    assert (out / "bäume.npz").stat().st_mtime_ns == before
    assert contents(out) == contents(whole)


def test_the_record_is_kept_while_maps_are_written(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, known = sys.modules["calbench.training.predict"], []
    original = module.write_map

    def watched(path: Path, stored: np.ndarray) -> None:
        known.append(len(json.loads((path.parent / PREDICTED).read_text("utf-8"))["files"]))
        original(path, stored)

    monkeypatch.setattr(module, "write_map", watched)
    monkeypatch.setattr("calbench.io.written.CHECKPOINT_SECONDS", -1.0)
    predicted(checkpoint, pictures, tmp_path / "out")
    assert known == [0, 1, 2, 3, 4]


def test_a_map_is_never_older_than_its_picture(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    predicted(checkpoint, pictures, out)
    write_picture(pictures / "b.png", (25, 31), 9)
    interrupt_after(0, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        predicted(checkpoint, pictures, out, resume=True)
    assert {path.stem for path in out.glob("*.npz")} == SIZES.keys() - {"b"}


def test_a_map_that_was_kept_is_not_computed_again(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted(checkpoint, pictures, tmp_path / "out")
    monkeypatch.setattr("calbench.training.predict.logits_of", None)
    assert predicted(checkpoint, pictures, tmp_path / "out", resume=True).skipped == 5


def test_resume_predicts_again_what_has_changed(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predicted(checkpoint, pictures, out)
    write_picture(pictures / "b.png", (25, 31), 9)
    write_picture(pictures / "more.png", (25, 31), 10)
    (out / "d.npz").unlink()
    done = predicted(checkpoint, pictures, out, resume=True)
    assert (done.skipped, len(done.files)) == (3, 6)
    for name in ("b", "d", "more"):
        expected = by_hand(spread_network(), pictures / f"{name}.png")
        assert np.abs(read(out / f"{name}.npz") - expected).max() < TOLERANCE["npz"] + FLOAT32
    (pictures / "more.png").unlink()
    with pytest.raises(InputError, match=r"pictures are gone:\n  more\.npz"):
        predicted(checkpoint, pictures, out, resume=True)
    predicted(checkpoint, pictures, out, force=True)
    assert not (out / "more.npz").exists()


def test_resume_refuses_another_checkpoint_and_other_options(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predicted(checkpoint, pictures, out)
    other = checkpoint_of(spread_network(seed=1), tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"checkpoint_digest: \d+ -> \d+"):
        predicted(other, pictures, out, resume=True)
    for options, message in (
        ({"format": "png8"}, "format: npz -> png8"),
        ({"size": 32}, "size: 48 -> 32"),
        ({"flip": True}, "flip: False -> True"),
        ({"precision": "bf16"}, "precision: fp32 -> bf16"),
        ({"profile": "aslp"}, "profile: calbench -> aslp"),
    ):
        with pytest.raises(InputError, match=message):
            predicted(checkpoint, pictures, out, resume=True, **options)
    with pytest.raises(OptionError, match="give one of them"):
        predicted(checkpoint, pictures, out, resume=True, force=True)


def test_force_removes_what_an_earlier_run_wrote(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predicted(checkpoint, pictures, out, format="png8")
    (out / "notes.txt").write_text("mine")
    predicted(checkpoint, pictures, out, force=True)
    assert {path.suffix for path in out.iterdir()} == {".npz", ".txt", ".json"}
    (out / PREDICTED).unlink()
    with pytest.raises(InputError, match="5 files that would be replaced"):
        predicted(checkpoint, pictures, out)


# --- what is refused ------------------------------------------------------------------------------------------------------


def test_damaged_pictures_are_named(calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_picture(pictures / "c.jpg", (200, 300), 7, quality=95)
    run = ("predict", "--checkpoint", checkpoint, "--images", pictures, "-o", out, "--batch", 2)
    assert calbench(*run).exit_code == 0
    whole = contents(out)
    (pictures / "c.jpg").write_bytes((pictures / "c.jpg").read_bytes()[:2000])
    stopped = calbench(*run, "--resume")
    assert stopped.exit_code == 1
    assert "c.jpg" in stopped.stderr
    assert "--on-damaged skip" in stopped.stderr
    skipped = calbench(*run, "--on-damaged", "skip", "--force", "--json")
    assert skipped.exit_code == 0, skipped.output
    document = json.loads(skipped.stdout)
    assert [damaged["name"] for damaged in document["damaged"]] == ["c"]
    assert "c.jpg" in document["damaged"][0]["message"]
    assert (document["images"], "c.npz" in document["files"]) == (5, False)
    assert contents(out).keys() == whole.keys() - {"c.npz"}  # no map is left that is not of its picture
    again = calbench(*run, "--on-damaged", "skip", "--resume")
    assert again.exit_code == 0
    assert "1 picture could not be read:\n  c: " in again.stdout
    with pytest.raises(InputError, match=r"none of the pictures in .*c\.jpg"):
        predicted(checkpoint, pictures / "c.jpg", tmp_path / "none", skip_damaged=True)


def test_logits_that_are_not_finite_are_refused(pictures: Path, tmp_path: Path) -> None:
    network = spread_network()
    with torch.no_grad():
        network.head.bias.fill_(float("nan"))
    checkpoint = checkpoint_of(network, tmp_path / "last.pt")
    with pytest.raises(RangeError, match=r"infinite logits for .*a\.png"):
        predicted(checkpoint, pictures, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / PREDICTED]


def test_too_little_memory_is_said(pictures: Path, tmp_path: Path) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError

    network = nn.Identity()
    network.register_forward_pre_hook(full)
    images, files = image_set("toy", pictures, None), {"a": "a.npz"}
    with pytest.raises(CalbenchError, match=r"too little memory for 8 pictures of 48 x 48 pixels.*\s--batch smaller"):
        list(predict_set(network, images, tmp_path, files=files, size=SIZE, device=torch.device("cpu")))


def test_pictures_are_never_written_over(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    before = contents(pictures)
    for out in (pictures, pictures / "maps", pictures.parent):
        with pytest.raises(InputError, match="would mix"):
            predicted(checkpoint, pictures, out, force=True, format="png8")
    write_picture(pictures / "a.jpg", (10, 12), 0)
    with pytest.raises(PairingError, match=r"a\.jpg\n.*a\.png"):
        predicted(checkpoint, pictures, tmp_path / "out")
    (pictures / "a.jpg").unlink()
    assert contents(pictures) == before


def test_files_that_are_no_checkpoint_are_refused(
    calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "no.pt").write_bytes(b"nothing")
    for path, options, message in (
        (tmp_path / "no.pt", (), "expected last.pt or best.pt of calbench train-aslp"),
        (tmp_path / "no.pt", ("--model", "small"), "expected a torch file with a plain state_dict"),
        (tmp_path / "none.pt", (), "cannot read"),
    ):
        result = calbench("predict", "--checkpoint", path, "--images", pictures, "-o", tmp_path / "out", *options)
        assert (result.exit_code, message in result.stderr) == (1, True), result.output
    torch.save(spread_network().state_dict(), tmp_path / "small.pth")
    with pytest.raises(FormatError, match="Model_30_Gen"):
        predicted(tmp_path / "small.pth", pictures, tmp_path / "out", model="aslp-resnet50")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"batch": 0}, OptionError, "batch is 0; expected 1 or more"),
        ({"workers": -1}, OptionError, "workers is -1; expected 0 or more"),
        ({"size": 0}, OptionError, "size is 0; expected 1 or more"),
        ({"format": "png61"}, UnknownName, "png16"),
        ({"profile": "asp"}, UnknownName, "aslp"),
        ({"precision": "fp16"}, UnknownName, "fp32|bf16"),
    ],
)
def test_options_are_checked(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PredictOptions("best.pt", "images", "out", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(calbench: Run, checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    run = ("predict", "--checkpoint", checkpoint, "--images", pictures, "-o", tmp_path / "out", "--device")
    refused = calbench(*run, "cuda")
    assert (refused.exit_code, "finds no GPU" in refused.stderr) == (2, True)
    assert calbench(*run, "auto").exit_code == 0
