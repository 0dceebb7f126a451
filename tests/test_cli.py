"""The command line end to end: files, messages, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image

from calbench.cli import main
from calbench.metrics import METRICS
from calbench.profiles import PROFILES
from calbench.results import ENTROPY_COLUMNS, FILES, RELIABILITY_COLUMNS, SUMMARY_COLUMNS

Run = Callable[..., Result]
Interrupt = Callable[[int], AbstractContextManager[None]]
Folders = Callable[..., tuple[Path, Path]]

RNG = np.random.default_rng(0)
MAP = RNG.integers(0, 256, (20, 30)).astype(np.uint8)
MASK = np.where(MAP.astype(int) + RNG.integers(-90, 90, MAP.shape) > 128, 255, 0).astype(np.uint8)


def templates(folder: Path) -> tuple[str, str, str, str]:
    return "--pred", f"{folder}/preds/{{method}}/{{dataset}}", "--gt", f"{folder}/data/{{dataset}}/gt"


def value(folder: Path, metric: str, average: str = "pixels", method: str | None = None) -> float:
    table = pd.read_csv(folder / "summary.csv")
    rows = table[(table.metric == metric) & (table.average == average)]
    return float((rows if method is None else rows[rows.method == method]).value.iloc[0])


def test_evaluate_writes_every_file_with_the_promised_columns(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = calbench("evaluate", *templates(demo_set), "-o", out, "--n-boot", 50)
    assert result.exit_code == 0, result.output
    summary = pd.read_csv(out / "summary.csv")
    assert tuple(summary.columns) == SUMMARY_COLUMNS
    assert set(summary.method) == {"calibrated", "overconfident", "underconfident"}
    assert set(summary.dataset) == {"synthetic"}
    per_image = pd.read_csv(out / "per_image.csv")
    assert list(per_image.columns[:5]) == ["dataset", "method", "calibrator", "region", "image"]
    assert len(per_image) == 3 * 8
    per_class = pd.read_csv(out / "per_class.csv")
    assert list(per_class.columns) == [
        *SUMMARY_COLUMNS[:4],
        "class",
        "n_target",
        "n_predicted",
        "class_accuracy",
        "miou",
        "mdice",
    ]
    assert list(per_class["class"]) == 3 * [0, 1]
    assert tuple(pd.read_csv(out / "reliability.csv").columns) == RELIABILITY_COLUMNS
    entropy = pd.read_csv(out / "entropy.csv")
    assert tuple(entropy.columns) == ENTROPY_COLUMNS
    assert (entropy.groupby("method").n.sum() == per_image.groupby("method").n_pixels.sum()).all()
    for table in (summary, per_image, per_class, entropy):
        assert set(table.region) == {"all"}
    assert {path.name for path in out.iterdir()} == {*FILES, "plots"}
    assert sorted(path.name for path in (out / "plots").iterdir()) == [
        f"reliability_synthetic_{method}.png" for method in ("calibrated", "overconfident", "underconfident")
    ]
    document = json.loads((out / "summary.json").read_text("utf-8"))
    first = document["results"][0]
    assert first["metric"] == "ece"
    assert first["options"] == "bins=15"
    assert 0 <= first["median_unbiased"] <= 1
    assert 0 <= first["p_calibrated"] <= 1
    assert document["definitions"]["ece"]["source"]
    assert document["combinations"][0]["conventions"]["gt_threshold"] == 128


def test_the_numbers_in_all_files_agree(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    calbench("evaluate", *templates(demo_set), "-o", tmp_path / "out", "--n-boot", 0)
    document = json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert [r["value"] for r in document["results"]] == pytest.approx(table.value.tolist(), abs=0, rel=0, nan_ok=True)
    per_image = pd.read_csv(tmp_path / "out" / "per_image.csv")
    means = table[(table.average == "images") & (table.method == "calibrated")].set_index("metric").value
    for name in ("ece", "brier", "mae", "s_measure", "weighted_f", "adp_f"):
        assert per_image[per_image.method == "calibrated"][name].mean() == pytest.approx(means[name], abs=1e-12)
    bins = pd.read_csv(tmp_path / "out" / "reliability.csv")
    top = bins[(bins.method == "calibrated") & (bins.event == "top-label") & (bins.n > 0)]
    ece = (top.n * (top.confidence - top.accuracy).abs()).sum() / top.n.sum()
    assert ece == pytest.approx(value(tmp_path / "out", "ece", method="calibrated"), abs=1e-12)


def test_the_table_fits_100_columns(calbench: Run, demo_set: Path) -> None:
    result = calbench("evaluate", *templates(demo_set), "--n-boot", 50)
    assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 100
    for column in ("ece ↓", "ece_fg ↓", "brier ↓", "mae ↓", "max_f ↑", "s_measure ↑"):
        assert column in result.stdout
    assert "intervals from 8 images are somewhat short" in result.stderr


def test_json_prints_exactly_one_document(calbench: Run, demo_set: Path) -> None:
    result = calbench("evaluate", *templates(demo_set), "--json", "--metrics", "ece,mce", "--n-boot", 0)
    document = json.loads(result.stdout)
    assert {row["metric"] for row in document["results"]} == {"ece", "mce"}
    assert document["results"][0]["low"] is None


def test_jobs_and_file_order_do_not_matter_bit_for_bit(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    written = []
    for jobs in (1, 2):
        out = tmp_path / f"jobs{jobs}"
        assert calbench("evaluate", *templates(demo_set), "-o", out, "-j", jobs, "--n-boot", 50).exit_code == 0
        written.append(
            [(out / name).read_bytes() for name in ("summary.csv", "per_image.csv", "reliability.csv", "stats.npz")]
        )
    assert written[0] == written[1]


def test_jobs_do_not_matter_for_large_images_and_many_threads(tmp_path: Path) -> None:
    """A dot product over pixels would split over BLAS threads in one process, and not in workers."""
    for folder in ("pred", "gt"):
        (tmp_path / folder).mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).normal(size=(320, 480)).cumsum(0).cumsum(1)
        level = 255 * (noise - noise.min()) / np.ptp(noise)
        Image.fromarray(level.astype(np.uint8)).save(tmp_path / "pred" / f"{number}.png")
        Image.fromarray(np.where(level > 150, 255, 0).astype(np.uint8)).save(tmp_path / "gt" / f"{number}.png")
    free = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    written = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        command = ["evaluate", "--pred", f"{tmp_path}/pred", "--gt", f"{tmp_path}/gt", "-o", str(out), "-j", jobs]
        subprocess.run([sys.executable, "-m", "calbench", *command], env=free, check=True, capture_output=True)
        written.append([(out / name).read_bytes() for name in ("summary.csv", "per_image.csv", "stats.npz")])
    assert written[0] == written[1]


def test_results_do_not_depend_on_the_order_that_files_are_found(
    calbench: Run, demo_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calbench("evaluate", *templates(demo_set), "-o", tmp_path / "a", "--n-boot", 50)
    original = calbench_module().parallel_map
    monkeypatch.setattr(calbench_module(), "parallel_map", lambda f, tasks, jobs: original(f, tasks[::-1], jobs))
    calbench("evaluate", *templates(demo_set), "-o", tmp_path / "b", "--n-boot", 50)
    for name in ("summary.csv", "per_image.csv", "stats.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def calbench_module() -> Any:
    """The module of that name; the package attribute is the function."""
    return sys.modules["calbench.collect"]


# --- pairing ------------------------------------------------------------------------------------------------------------


def test_names_come_from_the_folders(calbench: Run, folders: Folders, tmp_path: Path) -> None:
    pred, gt = folders({"a": MAP}, {"a": MASK})
    calbench("evaluate", "--pred", pred, "--gt", gt, "-o", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert (table.method[0], table.dataset[0]) == ("net", "toy")
    calbench(
        "evaluate", "--pred", pred, "--gt", gt, "-o", tmp_path / "out", "--force", "--method", "m", "--dataset", "d"
    )
    table = pd.read_csv(tmp_path / "out" / "summary.csv")
    assert (table.method[0], table.dataset[0]) == ("m", "d")


def test_an_incomplete_combination_is_reported_and_the_rest_evaluated(
    calbench: Run, demo_set: Path, tmp_path: Path
) -> None:
    extra = tmp_path / "set"
    for source, target in (("preds/calibrated/synthetic", "preds/one/x"), ("preds/calibrated/synthetic", "preds/one/y"),
                           ("preds/calibrated/synthetic", "preds/two/x"), ("data/synthetic/gt", "data/x/gt"),
                           ("data/synthetic/gt", "data/y/gt")):  # fmt: skip
        (extra / target).parent.mkdir(parents=True, exist_ok=True)
        (extra / target).symlink_to(demo_set / source)
    result = calbench("evaluate", *templates(extra), "--n-boot", 0, "--metrics", "ece", "--json")
    assert "two has no predictions for y" in result.stderr
    assert {(r["dataset"], r["method"]) for r in json.loads(result.stdout)["results"]} == {
        ("x", "one"), ("x", "two"), ("y", "one"),
    }  # fmt: skip


def test_missing_partners_are_listed_and_skipped_only_on_request(calbench: Run, folders: Folders) -> None:
    pred, gt = folders({"a": MAP, "b": MAP}, {"a": MASK, "c": MASK})
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert result.exit_code == 1
    for expected in (
        "1 prediction without ground truth",
        "1 mask without prediction",
        "b.png",
        "c.png",
        "--on-missing skip",
    ):
        assert expected in result.stderr
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--on-missing", "skip", "--json", "--n-boot", 0)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["results"][0]["n_images"] == 1
    assert "2 files without partner skipped" in " ".join(json.loads(result.stdout)["notes"])


def test_doubled_names_are_an_error(calbench: Run, folders: Folders) -> None:
    pred, gt = folders({"a": MAP}, {"a": MASK})
    Image.fromarray(MAP).save(pred / "a.bmp")
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert result.exit_code == 1
    assert "a.bmp" in result.stderr
    assert "share their name" in result.stderr


def test_suffixes_and_sub_folders(calbench: Run, tmp_path: Path) -> None:
    both = tmp_path / "both"
    for video in ("v1", "v2"):
        (both / video).mkdir(parents=True)
        Image.fromarray(MAP).save(both / video / "0001_sal.png")
        Image.fromarray(MASK).save(both / video / "0001_gt.png")
    suffixes = ("--pred-suffix", "_sal", "--gt-suffix", "_gt")
    result = calbench("evaluate", "--pred", both, "--gt", both, *suffixes, "-o", tmp_path / "out", "--n-boot", 0)
    assert result.exit_code == 0, result.output
    assert sorted(pd.read_csv(tmp_path / "out" / "per_image.csv").image) == ["v1/0001", "v2/0001"]


def test_size_mismatch_is_an_error_unless_chosen(calbench: Run, folders: Folders, tmp_path: Path) -> None:
    small = MAP[:10, :15]
    pred, gt = folders({"a": MAP, "b": small}, {"a": MASK, "b": MASK})
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert result.exit_code == 1
    assert "b.png 15x10, mask 30x20" in result.stderr
    for choice, images in (("resize-pred", 2), ("skip", 1)):
        out = tmp_path / choice
        result = calbench("evaluate", "--pred", pred, "--gt", gt, "--on-mismatch", choice, "-o", out, "--n-boot", 0)
        assert result.exit_code == 0, result.output
        assert "1 prediction of another size" in result.stderr
        assert pd.read_csv(out / "summary.csv").n_images[0] == images
    expected = np.asarray(Image.fromarray(small).resize((30, 20), Image.Resampling.BILINEAR))
    mae_raw = np.mean([np.abs(p / 255 - MASK / 255).mean() for p in (MAP, expected)])
    assert value(tmp_path / "resize-pred", "mae_raw", "images") == pytest.approx(mae_raw, abs=1e-12)


# --- what files hold ----------------------------------------------------------------------------------------------------


def test_one_bit_zero_one_and_zero_255_masks_give_the_same_numbers(
    calbench: Run, folders: Folders, tmp_path: Path
) -> None:
    found = []
    for kind, mask in (("1-bit", MASK > 0), ("0/1", (MASK // 255).astype(np.uint8)), ("0/255", MASK)):
        pred, gt = folders({"a": MAP, "b": MAP.T.copy()}, {"a": mask, "b": mask.T.copy()})
        out = tmp_path / kind.replace("/", "-")
        result = calbench("evaluate", "--pred", pred, "--gt", gt, "-o", out, "--n-boot", 0)
        assert f"masks {kind}" in result.stderr
        found.append((out / "summary.csv").read_text())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("position", [0, 11], ids=["in the sample", "beyond the sample"])
def test_zero_one_255_needs_the_void_value(calbench: Run, folders: Folders, position: int) -> None:
    labels = (MASK // 255).astype(np.uint8)
    with_void = labels.copy()
    with_void[:4] = 255
    only_void = np.where(MASK > 0, 255, 0).astype(np.uint8)
    gts = {f"{i:02d}": only_void for i in range(24)}
    gts[f"{position:02d}"] = with_void
    pred, gt = folders(dict.fromkeys(gts, MAP), gts)
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert result.exit_code == 1
    assert "--void-value 255" in result.stderr
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--void-value", 255, "--json", "--n-boot", 0)
    assert json.loads(result.stdout)["results"][0]["n_pixels"] == sum(int((g != 255).sum()) for g in gts.values())


def test_labels_below_the_threshold_are_refused(calbench: Run, folders: Folders) -> None:
    pred, gt = folders({"a": MAP}, {"a": (MASK // 85).astype(np.uint8)})
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert result.exit_code == 1
    assert "--gt-threshold 0" in result.stderr
    assert calbench("evaluate", "--pred", pred, "--gt", gt, "--gt-threshold", 0).exit_code == 0


def test_the_threshold_is_strict_and_in_mask_bytes(calbench: Run, folders: Folders) -> None:
    mask = np.array([[127, 128, 129, 255, 0, 0]], np.uint8)
    pred, gt = folders({"a": np.full_like(mask, 255)}, {"a": mask})
    for threshold, foreground in ((None, 2), (127, 3), (128, 2), (254, 1)):
        given = () if threshold is None else ("--gt-threshold", threshold)
        result = calbench("evaluate", "--pred", pred, "--gt", gt, *given, "--json", "--metrics", "accuracy")
        assert json.loads(result.stdout)["results"][0]["value"] == pytest.approx(foreground / 6)


def test_grey_colour_files_are_read_and_colours_refused(calbench: Run, folders: Folders, tmp_path: Path) -> None:
    pred, gt = folders({"a": MAP}, {"a": MASK})
    calbench("evaluate", "--pred", pred, "--gt", gt, "-o", tmp_path / "grey", "--n-boot", 0)
    Image.fromarray(np.stack([MASK] * 3, -1)).save(gt / "a.png")
    calbench("evaluate", "--pred", pred, "--gt", gt, "-o", tmp_path / "rgb", "--n-boot", 0)
    assert (tmp_path / "grey" / "summary.csv").read_text() == (tmp_path / "rgb" / "summary.csv").read_text()
    Image.fromarray(np.stack([MASK, MASK, MASK // 2], -1)).save(gt / "a.png")
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert result.exit_code == 1
    assert "colour image" in result.stderr
    assert "a.png" in result.stderr


def test_field_of_view(calbench: Run, folders: Folders, tmp_path: Path) -> None:
    pred, gt = folders({"a": MAP}, {"a": MASK})
    fov = tmp_path / "fov"
    fov.mkdir()
    inside = np.zeros_like(MASK)
    inside[5:15, 4:26] = 255
    Image.fromarray(inside).save(fov / "a.png")
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--mask", fov, "--json", "--n-boot", 0)
    rows = {(r["metric"], r["average"]): r for r in json.loads(result.stdout)["results"]}
    p, y = MAP[5:15, 4:26] / 255, MASK[5:15, 4:26] > 0
    assert rows["brier", "pixels"]["value"] == pytest.approx(np.mean((p - y) ** 2), abs=1e-12)
    assert rows["brier", "pixels"]["n_pixels"] == 220
    (fov / "a.png").unlink()
    Image.fromarray(inside).save(fov / "other.png")
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--mask", fov)
    assert result.exit_code == 1
    assert "1 image without field of view" in result.stderr


@pytest.mark.parametrize("extension", ["png", "bmp", "tif", "jpg"])
def test_file_formats(calbench: Run, tmp_path: Path, extension: str) -> None:
    pred, gt = tmp_path / "nét-é", tmp_path / "gt"
    for folder, array in ((pred, MAP), (gt, MASK)):
        folder.mkdir()
        Image.fromarray(array).save(folder / f"bild ü.{extension.upper()}")
    decoded = np.asarray(Image.open(pred / f"bild ü.{extension.upper()}"))
    mask = np.asarray(Image.open(gt / f"bild ü.{extension.upper()}")) > 128
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--json", "--n-boot", 0, "--metrics", "brier")
    assert result.exit_code == 0, result.output
    expected = np.mean((decoded / 255 - mask) ** 2)
    assert json.loads(result.stdout)["results"][0]["value"] == pytest.approx(expected, abs=1e-12)


def test_unreadable_files_are_named(calbench: Run, folders: Folders, tmp_path: Path) -> None:
    pred, gt = folders({"a": MAP}, {"a": MASK})
    whole = (pred / "a.png").read_bytes()
    (pred / "a.png").write_bytes(whole[: len(whole) // 2])
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert (result.exit_code, "a.png" in result.stderr, "truncated" in result.stderr) == (1, True, True)
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", MAP)
    whole = (tmp_path / "arrays" / "a.npy").read_bytes()
    (tmp_path / "arrays" / "a.npy").write_bytes(whole[: len(whole) // 2])
    result = calbench("evaluate", "--pred", tmp_path / "arrays", "--gt", gt)
    assert (result.exit_code, "a.npy" in result.stderr) == (1, True)


@pytest.mark.parametrize("stored", [MAP.astype(np.uint16) * 257, (MAP / 255).astype(np.float32), MAP])
def test_finer_maps_and_arrays_give_the_numbers_of_the_8_bit_map(
    calbench: Run, folders: Folders, tmp_path: Path, stored: np.ndarray
) -> None:
    """The same probabilities as 16-bit PNG, as float array and as array of levels."""
    pred, gt = folders({"a": MAP}, {"a": MASK})
    calbench("evaluate", "--pred", pred, "--gt", gt, "-o", tmp_path / "levels", "--n-boot", 0)
    again = tmp_path / "again"
    again.mkdir()
    if stored.dtype == np.uint16:
        Image.fromarray(stored).save(again / "a.png")
    else:
        np.save(again / "a.npy", stored)
    result = calbench("evaluate", "--pred", again, "--gt", gt, "-o", tmp_path / "out", "--n-boot", 0)
    assert result.exit_code == 0, result.output
    for metric in ("ece", "ece_fg", "brier", "accuracy", "gap", "miou"):
        assert value(tmp_path / "out", metric) == pytest.approx(value(tmp_path / "levels", metric), rel=1e-6), metric
    for metric in ("mae", "max_f", "s_measure"):
        assert value(tmp_path / "out", metric, "images") == value(tmp_path / "levels", metric, "images"), metric


@pytest.mark.parametrize("odd", ["00", "11"], ids=["in the sample", "beyond the sample"])
@pytest.mark.parametrize("usual", [MASK > 0, MASK, (MASK // 255).astype(np.uint8)], ids=["1-bit", "0/255", "0/1"])
def test_mixed_codings_are_refused_wherever_they_are(
    calbench: Run, folders: Folders, odd: str, usual: np.ndarray
) -> None:
    """The coding is decided on eight files; the others are held against it. Following the advice gives right numbers."""
    names = [f"{i:02d}" for i in range(24)]
    other = MASK if usual.max() == 1 and usual.dtype == np.uint8 else (MASK // 255).astype(np.uint8)
    pred, gt = folders(dict.fromkeys(names, MAP), {**dict.fromkeys(names, usual), odd: other})
    result = calbench("evaluate", "--pred", pred, "--gt", gt)
    assert result.exit_code == 1
    assert "mixed codings" in result.stderr
    assert "--void-value" not in result.stderr, "255 is foreground here"
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--gt-threshold", 0, "--json", "--metrics", "accuracy")
    assert json.loads(result.stdout)["results"][0]["value"] == pytest.approx(np.mean((MAP >= 128) == (MASK > 0)))


def test_grey_masks_may_be_nearly_empty(calbench: Run, folders: Folders) -> None:
    grey = np.where(MASK > 0, 255, MAP // 4).astype(np.uint8)
    faint = np.zeros_like(MASK)
    faint[0, :3] = 1
    pred, gt = folders({"a": MAP, "b": MAP}, {"a": grey, "b": faint})
    assert calbench("evaluate", "--pred", pred, "--gt", gt).exit_code == 0


def test_a_void_value_makes_no_sense_for_one_bit_masks(calbench: Run, folders: Folders) -> None:
    pred, gt = folders({"a": MAP}, {"a": MASK > 0})
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--void-value", 255)
    assert (result.exit_code, "1 bit a pixel" in result.stderr) == (2, True)


def test_fields_of_view_are_held_against_their_coding(calbench: Run, folders: Folders, tmp_path: Path) -> None:
    names = [f"{i:02d}" for i in range(24)]
    pred, gt = folders(dict.fromkeys(names, MAP), dict.fromkeys(names, MASK))
    fov = tmp_path / "fov"
    fov.mkdir()
    inside = np.full_like(MASK, 255)
    for odd, level in (("11", 1), (None, 100)):
        for name in names:
            array = inside if odd else np.full_like(MASK, level)
            Image.fromarray(np.full_like(MASK, level) if name == odd else array).save(fov / f"{name}.png")
        result = calbench("evaluate", "--pred", pred, "--gt", gt, "--mask", fov)
        assert (result.exit_code, "fields of view" in result.stderr, "0 and 255" in result.stderr) == (1, True, True)


# --- interruption and resumption -----------------------------------------------------------------------------------------


def test_an_interrupted_run_resumes_to_the_same_bytes(
    calbench: Run, demo_set: Path, tmp_path: Path, interrupt_after: Interrupt
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    calbench("evaluate", *templates(demo_set), "-o", whole, "--n-boot", 50)
    with interrupt_after(10):
        result = calbench("evaluate", *templates(demo_set), "-o", out, "--n-boot", 50)
    assert result.exit_code == 130
    assert (out / "partial.npz").exists()
    result = calbench("evaluate", *templates(demo_set), "-o", out, "--n-boot", 50)
    assert (result.exit_code, "--resume" in result.stderr) == (1, True)
    result = calbench("evaluate", *templates(demo_set), "-o", out, "--n-boot", 50, "--resume")
    assert result.exit_code == 0, result.output
    assert "resuming: 10 of 24 images are done" in result.stderr
    for name in ("summary.csv", "per_image.csv", "reliability.csv", "stats.npz"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_resume_refuses_changed_options_and_changed_files(
    calbench: Run, folders: Folders, tmp_path: Path, interrupt_after: Interrupt
) -> None:
    pred, gt = folders({"a": MAP, "b": MAP.T.copy()}, {"a": MASK, "b": MASK.T.copy()})
    out = tmp_path / "out"
    with interrupt_after(1):
        calbench("evaluate", "--pred", pred, "--gt", gt, "-o", out)
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "-o", out, "--resume", "--gt-threshold", 100)
    assert (result.exit_code, "--gt-threshold" in result.stderr) == (1, True)
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "-o", out, "--resume", "--bins", 20)
    assert (result.exit_code, "--bins" in result.stderr) == (1, True)
    Image.fromarray(MASK).save(gt / "c.png")
    Image.fromarray(MAP).save(pred / "c.png")
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "-o", out, "--resume")
    assert (result.exit_code, "images found" in result.stderr) == (1, True)
    (pred / "c.png").unlink()
    (gt / "c.png").unlink()
    Image.fromarray(255 - MAP).save(pred / "a.png")
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "-o", out, "--resume")
    assert (result.exit_code, "a.png" in result.stderr, "changed" in result.stderr) == (1, True, True)
    assert calbench("evaluate", "--pred", pred, "--gt", gt, "-o", out, "--force").exit_code == 0


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_keeps_the_finished_rows(tmp_path: Path, jobs: int) -> None:
    pred, gt, out = tmp_path / "pred", tmp_path / "gt", tmp_path / "out"
    big = np.kron(MAP, np.ones((40, 40), np.uint8))
    for folder, array in ((pred, big), (gt, np.where(big > 128, 255, 0).astype(np.uint8))):
        folder.mkdir()
        Image.fromarray(array).save(folder / "000.png")
        for number in range(1, 60):
            (folder / f"{number:03d}.png").symlink_to(folder / "000.png")
    code = (
        "import sys; from calbench.cli import main\n"
        "sys.modules['calbench.collect'].CHECKPOINT_SECONDS = 0.0\n"
        f"main(['evaluate', '--pred', {str(pred)!r}, '--gt', {str(gt)!r}, '-o', {str(out)!r}, '-j', '{jobs}'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
    for _ in range(600):
        if (out / "partial.npz").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"interrupted" in errors
    assert b"Traceback" not in errors
    assert (out / "partial.npz").exists()


def test_rows_are_kept_when_the_evaluation_is_interrupted(
    calbench: Run, demo_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("calbench.results.Results.values", interrupted)
        assert calbench("evaluate", *templates(demo_set), "-o", tmp_path / "out").exit_code == 130
    result = calbench("evaluate", *templates(demo_set), "-o", tmp_path / "out", "--resume")
    assert (result.exit_code, "24 of 24 images are done" in result.stderr) == (0, True)


def test_a_closed_pipe_loses_nothing(demo_set: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "calbench", "evaluate", *templates(demo_set), "-o", str(tmp_path / "out"), "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)
    assert b"Traceback" not in errors
    assert (tmp_path / "out" / "summary.json").exists()


def test_an_output_that_cannot_be_written_is_said_before_any_work(calbench: Run, folders: Folders) -> None:
    pred, gt = folders({"a": MAP}, {"a": MASK})
    (pred.parent / "file").write_text("no folder")
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "-o", pred.parent / "file" / "out")
    assert (result.exit_code, "cannot write to" in result.stderr) == (1, True)
    assert "images, masks" not in result.stderr


def test_diagrams_of_similar_names_do_not_overwrite_each_other(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    for method in ("a b", "a_b"):
        (tmp_path / "preds" / method).mkdir(parents=True)
        (tmp_path / "preds" / method / "synthetic").symlink_to(demo_set / "preds" / "calibrated" / "synthetic")
    pred = f"{tmp_path}/preds/{{method}}/{{dataset}}"
    common = (
        "evaluate",
        "--pred",
        pred,
        "--gt",
        f"{demo_set}/data/{{dataset}}/gt",
        "--n-boot",
        0,
        "-o",
        tmp_path / "out",
    )
    assert calbench(*common).exit_code == 0
    plots = tmp_path / "out" / "plots"
    assert len(list(plots.iterdir())) == 2
    assert calbench(*common, "--force", "--method", "a b").exit_code == 0
    assert [path.name for path in plots.iterdir()] == ["reliability_synthetic_a_b.png"]


# --- statistics, profiles, settings --------------------------------------------------------------------------------------


def test_statistics_give_other_settings_without_pixels(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    first, again, direct = tmp_path / "first", tmp_path / "again", tmp_path / "direct"
    calbench("evaluate", *templates(demo_set), "-o", first, "--n-boot", 50)
    result = calbench("evaluate", "--stats", first / "stats.npz", "--bins", 7, "-o", again, "--n-boot", 50)
    assert result.exit_code == 0, result.output
    calbench("evaluate", *templates(demo_set), "--bins", 7, "-o", direct, "--n-boot", 50)
    assert (again / "summary.csv").read_text() == (direct / "summary.csv").read_text()
    assert value(again, "ece") != value(first, "ece")


def test_aslp_needs_its_rows(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    calbench("evaluate", *templates(demo_set), "-o", tmp_path / "plain", "--n-boot", 0)
    result = calbench("evaluate", "--stats", tmp_path / "plain" / "stats.npz", "--profile", "aslp")
    assert (result.exit_code, "--profile aslp" in result.stderr) == (1, True)
    result = calbench("evaluate", *templates(demo_set), "--profile", "aslp", "-o", tmp_path / "aslp", "--n-boot", 0)
    assert result.exit_code == 0, result.output
    assert set(pd.read_csv(tmp_path / "aslp" / "summary.csv").metric) == {n for n in METRICS if n.startswith("aslp_")}


def test_metrics_that_were_not_collected_are_refused(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    calbench("evaluate", *templates(demo_set), "-o", tmp_path / "out", "--exclude", "weighted_f", "--n-boot", 0)
    result = calbench("evaluate", "--stats", tmp_path / "out" / "stats.npz", "--metrics", "weighted_f")
    assert (result.exit_code, "weighted_f" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("profile", "metric", "bins"), [("calbench", "ece", 15), ("calbench", "ece", 7), ("aslp", "aslp_ece", 10)]
)
def test_the_bins_of_reliability_csv_add_up_to_the_error_of_the_profile(
    calbench: Run, demo_set: Path, tmp_path: Path, profile: str, metric: str, bins: int
) -> None:
    given = ("--bins", bins) if bins == 7 else ()
    out = tmp_path / "out"
    calbench("evaluate", *templates(demo_set), "-o", out, "--n-boot", 0, "--profile", profile, *given)
    table = pd.read_csv(out / "reliability.csv")
    top = table[(table.method == "overconfident") & (table.event == "top-label")]
    assert len(top) == bins
    error = (top.n * (top.confidence - top.accuracy).abs()).sum() / top.n.sum()
    assert error == pytest.approx(value(out, metric, method="overconfident"), abs=1e-9)


def test_curves_have_the_maxima_of_the_table(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    calbench("evaluate", *templates(demo_set), "-o", tmp_path / "out", "--n-boot", 0)
    curves = pd.read_csv(tmp_path / "out" / "curves.csv")
    assert list(curves.columns) == ["dataset", "method", "calibrator", "region", "curve", "threshold", "value"]
    for curve in ("f", "e", "iou", "dice"):
        rows = curves[(curves.method == "calibrated") & (curves.curve == curve)]
        assert list(rows.threshold) == list(range(256))
        for name, reduced in ((f"max_{curve}", rows.value.max()), (f"mean_{curve}", rows.value.mean())):
            assert reduced == pytest.approx(value(tmp_path / "out", name, "images", "calibrated"), abs=1e-12)


def test_metrics_that_are_asked_for_are_shown(calbench: Run, demo_set: Path) -> None:
    result = calbench("evaluate", *templates(demo_set), "--metrics", "auroc,ap,auroc", "--n-boot", 0)
    assert "auroc ↑" in result.stdout
    assert "ap ↑" in result.stdout
    assert "ece" not in result.stdout
    result = calbench("evaluate", *templates(demo_set), "--metrics", "auroc,ap,auroc", "--n-boot", 0, "--json")
    assert len(json.loads(result.stdout)["results"]) == 3 * 2 * 2, "three methods, two metrics, two averages"
    assert calbench("evaluate", *templates(demo_set), "--metrics", ",").exit_code == 2


def test_the_table_shows_as_many_columns_as_fit(calbench: Run, demo_set: Path) -> None:
    long = "brier_reliability,brier_resolution,brier_uncertainty,corp_miscalibration,corp_discrimination,ece"
    result = calbench("evaluate", *templates(demo_set), "--metrics", long, "--n-boot", 50)
    assert "…" not in result.stdout
    assert "underconfident" in result.stdout
    assert "2 more metrics with -o or --json" in " ".join(result.stdout.split())
    assert max(len(line) for line in result.stdout.splitlines()) <= 100
    for left_out, first in ((PROFILES["calbench"].headline[:7], "nll ↓"), (PROFILES["calbench"].headline, "aece ↓")):
        result = calbench("evaluate", *templates(demo_set), "--n-boot", 0, "--exclude", ",".join(left_out))
        assert result.stdout.splitlines()[2].split("method")[1].strip().startswith(first)


def test_no_number_is_cut_off_where_images_are_undefined(calbench: Run, folders: Folders) -> None:
    void = np.full_like(MASK, 7)
    pred, gt = folders({"a": MAP, "b": MAP}, {"a": MASK, "b": void})
    result = calbench("evaluate", "--pred", pred, "--gt", gt, "--void-value", 7)
    assert "…" not in result.stdout
    assert "net" in result.stdout
    assert "left out" in result.stdout


def test_options_of_folders_do_not_go_with_statistics(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    calbench("evaluate", *templates(demo_set), "-o", tmp_path / "out", "--n-boot", 0)
    result = calbench(
        "evaluate", "--stats", tmp_path / "out" / "stats.npz", "--gt-threshold", 4, "--on-missing", "skip"
    )
    assert (result.exit_code, "--gt-threshold, --on-missing" in result.stderr) == (2, True)
    result = calbench("evaluate", "--stats", tmp_path / "out" / "stats.npz", "--method", "a", "--void-value", 4)
    assert (result.exit_code, "--method, --void-value" in result.stderr) == (2, True)
    result = calbench("evaluate", "--stats", tmp_path / "nothing.npz")
    assert (result.exit_code, "there is no file" in result.stderr) == (1, True)


def test_one_name_stands_for_a_list_of_one(demo_set: Path) -> None:
    import calbench as package

    pred, gt = templates(demo_set)[1::2]
    table = package.evaluate(pred=pred, gt=gt, methods="calibrated", exclude="weighted_f", n_boot=0)
    assert set(table.method) == {"calibrated"}
    assert "weighted_f" not in set(table.metric)
    with pytest.raises(package.errors.UnknownName, match="s_measure"):
        package.collect(pred=pred, gt=gt, scores="s_measur")


def test_a_killed_worker_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures.process import BrokenProcessPool

    from calbench import parallel
    from calbench.errors import WorkerError

    def killed(*_: Any, **__: Any) -> Callable[..., Iterator[int]]:
        def results(_: Any) -> Iterator[int]:
            yield 1
            raise BrokenProcessPool

        return results

    monkeypatch.setattr(parallel, "Parallel", killed)
    with pytest.raises(WorkerError, match="--resume"):
        list(parallel.parallel_map(abs, [1, 2], jobs=2))


def test_arrays_go_in_one_at_a_time() -> None:
    import calbench as package

    held = []

    def images() -> Iterator[package.Sample]:
        for name in "abc":
            held.append(name)
            yield package.Sample(name, MAP, MASK > 0)

    table = package.evaluate(images(), metrics="brier", n_boot=0)
    assert held == ["a", "b", "c"]
    assert table.value[0] == pytest.approx(np.mean((MAP / 255 - (MASK > 0)) ** 2))
    with pytest.raises(package.errors.InputError, match=r"calbench\.Sample"):
        package.evaluate([MAP])
    with pytest.raises(package.errors.OptionError, match="void_values"):
        package.evaluate([package.Sample("a", MAP, MASK > 0)], void_values=(3,))


def test_group_by_resamples_groups(calbench: Run, demo_set: Path) -> None:
    def width(*arguments: str) -> float:
        result = calbench("evaluate", *templates(demo_set), "--json", "--metrics", "brier", *arguments)
        row = json.loads(result.stdout)["results"][0]
        return float("nan") if row["low"] is None else row["high"] - row["low"]

    assert width() > 0
    assert np.isnan(width("--group-by", "^(.)")), "one group cannot be resampled"
    result = calbench("evaluate", *templates(demo_set), "--group-by", "(")
    assert (result.exit_code, "regular expression" in result.stderr) == (2, True)
    result = calbench("evaluate", *templates(demo_set), "--group-by", "nothing-like-this")
    assert (result.exit_code, "do not match" in result.stderr) == (1, True)


def test_unknown_names_exit_2_with_a_suggestion(calbench: Run, demo_set: Path) -> None:
    result = calbench("evaluate", *templates(demo_set), "--metrics", "ecee")
    assert (result.exit_code, "did you mean 'ece'" in result.stderr) == (2, True)
    assert calbench("evaluate", "--pred", demo_set).exit_code == 2
    assert calbench("evaluate", *templates(demo_set), "--profile", "nope").exit_code == 2


@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("--bins", 0),
        ("--bins", 1001),
        ("--ci", 1.5),
        ("--n-boot", -1),
        ("--n-boot", 1),
        ("--seed", -1),
        ("-j", 0),
        ("--void-value", 300),
        ("--gt-threshold", 256),
    ],
)
def test_numbers_out_of_range_are_refused(calbench: Run, demo_set: Path, option: str, number: float) -> None:
    result = calbench("evaluate", *templates(demo_set), option, number)
    assert result.exit_code == 2
    assert str(number) in result.stderr


def test_config_file_and_the_command_line_wins(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    _, pred, _, gt = templates(demo_set)
    config.write_text(f'pred = "{pred}"\ngt = "{gt}"\nbins = 5\nn-boot = 0\nmetrics = "ece"\n', "utf-8")
    assert json.loads(calbench("evaluate", "--config", config, "--json").stdout)["results"][0]["options"] == "bins=5"
    result = calbench("evaluate", "--config", config, "--bins", 6, "--json")
    assert json.loads(result.stdout)["results"][0]["options"] == "bins=6"
    common = f'pred = "{pred}"\ngt = "{gt}"\n'
    config.write_text(common + 'metrics = ["ece", "mae"]\nvoid-value = 3\nmethod = "calibrated"\nn-boot = 0\n', "utf-8")
    rows = json.loads(calbench("evaluate", "--config", config, "--json").stdout)["results"]
    assert {(row["metric"], row["method"]) for row in rows} == {("ece", "calibrated"), ("mae", "calibrated")}
    for line in ("binz = 5", "bins = 15.7", "n-boot = true", 'config = "x"', 'void-value = "a"', "quiet = 1"):
        config.write_text(common + line + "\n", "utf-8")
        result = calbench("evaluate", "--config", config)
        assert (result.exit_code, line.split()[0] in result.stderr) == (2, True), line


def test_existing_results_are_not_overwritten(calbench: Run, demo_set: Path, tmp_path: Path) -> None:
    common = (*templates(demo_set), "-o", tmp_path / "out", "--n-boot", 0)
    assert calbench("evaluate", *common).exit_code == 0
    before = (tmp_path / "out" / "summary.csv").stat().st_mtime_ns
    result = calbench("evaluate", *common)
    assert (result.exit_code, "--force" in result.stderr) == (1, True)
    assert (tmp_path / "out" / "summary.csv").stat().st_mtime_ns == before
    assert calbench("evaluate", *common, "--force").exit_code == 0


# --- the other commands ---------------------------------------------------------------------------------------------------


def test_demo_runs_and_says_which_files_to_open(calbench: Run, tmp_path: Path) -> None:
    result = calbench("demo", "-o", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    paths = [Path(line.strip()) for line in result.stdout.split("Open these:")[1].splitlines() if line.strip()]
    assert [path.name for path in paths] == ["report.html", "table.tex", "plots", "summary.csv", "comparison.csv"]
    assert all(path.exists() for path in paths)
    assert "overconfident + temperature" in paths[0].read_text(encoding="utf-8"), "what was fitted is on the page, too"
    truth = float(result.stdout.split("overconfident    ece ")[1].split()[0])
    rows = pd.read_csv(tmp_path / "demo" / "results" / "summary.csv")
    row = rows[(rows.method == "overconfident") & (rows.metric == "ece") & (rows.average == "pixels")].iloc[0]
    assert row.low <= truth <= row.high
    assert calbench("demo", "-o", tmp_path / "demo").exit_code == 1


def test_metrics_lists_every_metric(calbench: Run) -> None:
    listed = json.loads(calbench("metrics", "--json").stdout)
    assert [entry["name"] for entry in listed] == list(METRICS)
    text = calbench("metrics").stdout
    assert all(metric.definition in text and metric.source in text for metric in METRICS.values())


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_examples(calbench: Run, command: str) -> None:
    result = calbench(command, "-h")
    assert result.exit_code == 0
    assert f"calbench {command}" in result.stdout.split("Examples:")[1]


def test_debug_shows_the_traceback(calbench: Run) -> None:
    result = calbench("--debug", "evaluate", "--pred", "nowhere", "--gt", "nowhere")
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        (["evaluate"], {"torch", "sklearn"}),
        (["check"], {"torch", "sklearn"}),
        (["demo"], {"torch"}),
        (["calibrate", "temperature", "dirichlet"], {"torch"}),
    ],
)
def test_torch_is_never_imported(demo_set: Path, tmp_path: Path, command: list[str], heavy: set[str]) -> None:
    output = ["-o", str(tmp_path / "out")] if command[0] in ("demo", "calibrate") else []
    arguments = [*command, *output, *(() if command == ["demo"] else templates(demo_set))]
    code = (
        "import sys; from calbench.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"heavy = {heavy} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
