"""The gallery: the right images, pictures whose pixels say what the numbers count, and notes instead of errors."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from calbench.collect import collect, collect_folders
from calbench.errors import OptionError, UnknownName
from calbench.evaluate import Settings
from calbench.io.sample import Sample
from calbench.plan import CollectOptions
from calbench.report.gallery import CAPTIONS, FOREGROUND, STRIPES, GalleryRow, class_colours, gallery, pictures
from calbench.report.style import GREY, OVER, PAPER, UNDER
from calbench.results import Key, Results
from calbench.statistics import Run
from calbench.statistics.storage import load_run, save_run

QUICK = Settings(n_boot=0)
SHADE = 12
"""How far lossy pictures of plain areas may be from their colours."""
RED, BLUE, HIT, WHITE, BAR = (ImageColor.getrgb(colour) for colour in (OVER, UNDER, FOREGROUND, PAPER, GREY))
HATCH = {ImageColor.getrgb(colour) for colour in STRIPES}


def decoded(uri: str) -> np.ndarray:
    """The pixels `(h, w, 3)` of a picture."""
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        assert image.format == "WEBP"
        return np.array(image.convert("RGB"))


def colours(picture: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(map(int, colour)) for colour in picture.reshape(-1, 3)}


def write(folder: Path, arrays: Mapping[str, np.ndarray], ending: str = ".png") -> Path:
    """One file an array."""
    for name, array in arrays.items():
        path = folder / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".npy":
            np.save(path, array)
        else:
            Image.fromarray(array).save(path)
    return folder


def shown(options: CollectOptions, *, settings: Settings = QUICK, **how: Any):
    """Results of these folders, and their gallery."""
    run = collect_folders(options)
    return gallery_of(run, settings, **how)


def gallery_of(run: Run, settings: Settings = QUICK, **how: Any):
    results = Results(run, settings)
    rows, notes = gallery(results, dict.fromkeys(results.evaluators, run.options), **how)
    return results, rows, notes


def names(rows: Sequence[GalleryRow], end: str) -> list[str]:
    return [row.image for row in rows if row.end == end]


def planted(wrong: Mapping[str, int], *, size: tuple[int, int] = (10, 14)) -> tuple[dict[str, Any], dict[str, Any]]:
    """Maps that are sure of everything, p = 0 or 1, and wrong in so many pixels: their ECE is the share of those."""
    rng = np.random.default_rng(0)
    preds, gts = {}, {}
    for name, number in wrong.items():
        truth = rng.random(size) < 0.5
        wrongly = np.zeros(truth.size, bool)
        wrongly[rng.permutation(truth.size)[:number]] = True
        gts[name] = np.where(truth, 255, 0).astype(np.uint8)
        preds[name] = np.where(truth ^ wrongly.reshape(size), 255, 0).astype(np.uint8)
    return preds, gts


def test_the_planted_images_are_the_worst_and_the_best(folders):
    wrong = {"a": 30, "b": 70, "c": 0, "d": 20, "é ü": 69, "f<b>{method}": 1, "g": 40}
    pred, gt = folders(*planted(wrong))
    calls: list[int] = []
    results, rows, notes = shown(CollectOptions(str(pred), str(gt)), each=2, advance=lambda: calls.append(1))
    assert names(rows, "worst") == ["b", "é ü"]
    assert names(rows, "best") == ["c", "f<b>{method}"]
    assert notes == []
    assert len(calls) == 4
    table = results.per_image.set_index("image")["ece"]
    for row in rows:
        assert (row.key, row.metric) == (Key("toy", "net"), "ece")
        assert row.value == table[row.image] == pytest.approx(wrong[row.image] / 140)
        assert row.pictures.keys() == CAPTIONS.keys() - {"photo"}


def test_few_images_are_shown_once_and_ties_are_by_name(folders):
    pred, gt = folders(*planted({"c": 5, "a": 5, "e": 5, "b": 5, "d": 5}))
    _, rows, _ = shown(CollectOptions(str(pred), str(gt)), each=3)
    assert (names(rows, "worst"), names(rows, "best")) == (["a", "b", "c"], ["d", "e"])
    _, rows, _ = shown(CollectOptions(str(pred), str(gt)), each=1)
    assert (names(rows, "worst"), names(rows, "best")) == (["a"], ["b"])
    (pred / "c.png").unlink()
    (gt / "c.png").unlink()
    _, rows, _ = shown(CollectOptions(str(pred), str(gt)), each=3)
    assert (names(rows, "worst"), names(rows, "best")) == (["a", "b"], ["d", "e"])


def test_direction_follows_the_metric(folders):
    pred, gt = folders(*planted({"a": 30, "b": 70, "c": 0, "d": 20}))
    options = CollectOptions(str(pred), str(gt))
    _, rows, _ = shown(options, by="pixel_accuracy", each=1)
    assert [(row.image, row.end, row.metric) for row in rows] == [
        ("b", "worst", "pixel_accuracy"), ("c", "best", "pixel_accuracy")
    ]  # fmt: skip
    with pytest.raises(UnknownName, match="did you mean 'brier'"):
        shown(options, by="brie")
    with pytest.raises(OptionError, match="cannot be ranked by mean_confidence"):
        shown(options, by="mean_confidence")
    with pytest.raises(OptionError, match="at least 1"):
        shown(options, each=0)


def test_the_worst_of_a_signed_error_is_the_farthest_from_zero(folders):
    preds, gts = planted({"over": 30, "under": 0, "right": 0})
    preds["under"] = np.where(gts["under"] > 0, 153, 102).astype(np.uint8)  # 0.6 sure, and never wrong
    pred, gt = folders(preds, gts)
    _, rows, _ = shown(CollectOptions(str(pred), str(gt)), by="gap", each=2)
    assert [(row.image, row.end) for row in rows] == [("under", "worst"), ("over", "worst"), ("right", "best")]
    assert [row.value for row in rows] == pytest.approx([-0.4, 30 / 140, 0])


def test_without_values_of_the_error_the_first_metric_that_images_have_ranks_them(folders):
    pred, gt = folders(*planted({"a": 30, "b": 70}))
    _, rows, _ = shown(
        CollectOptions(str(pred), str(gt)), settings=Settings(metrics=("entropy", "nll", "brier"), n_boot=0)
    )
    assert {row.metric for row in rows} == {"nll"}


# --- what the pictures say ----------------------------------------------------------------------------------------------


def quarters(size: tuple[int, int] = (32, 48)) -> tuple[np.ndarray, np.ndarray]:
    """Foreground on the left, predicted above: hits, false positives, misses and background in the four quarters."""
    height, width = size
    truth, decided = np.zeros(size, bool), np.zeros(size, bool)
    truth[:, : width // 2], decided[: height // 2] = True, True
    return truth, decided


CORNERS = {"hit": (slice(0, 16), slice(0, 24)), "over": (slice(0, 16), slice(24, 48)),
           "under": (slice(16, 32), slice(0, 24)), "background": (slice(16, 32), slice(24, 48))}  # fmt: skip
ERRORS = {"hit": HIT, "over": RED, "under": BLUE, "background": WHITE}


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("levels", lambda p: np.rint(255 * p).astype(np.uint8)),
        ("levels", lambda p: np.rint(65535 * p).astype(np.uint16)),
        ("probabilities", lambda p: p.astype(np.float32)),
        ("logits", lambda p: logit(p).astype(np.float16)),
    ],
)
def test_binary_pictures_say_where_it_is_wrong_and_how_sure(kind, scores):
    truth, decided = quarters()
    found = {
        name: decoded(uri)
        for name, uri in pictures(Sample("a", scores(np.where(decided, 0.502, 0.2)), truth, kind=kind)).items()
    }
    assert all(picture.shape == (32, 48, 3) for picture in found.values())
    for corner, at in CORNERS.items():
        assert colours(found["error"][at]) == {ERRORS[corner]}
    np.testing.assert_array_equal(found["mask"], np.where(truth, 255, 0)[..., None].repeat(3, 2))
    inside = found["prediction"][2:14, 2:46], found["prediction"][18:30, 2:46]  # away from the blur of an edge
    assert inside[0].mean() == pytest.approx(255 * 0.502, abs=SHADE)
    assert inside[1].mean() == pytest.approx(255 * 0.2, abs=SHADE)
    from matplotlib import colormaps

    sure = np.array(colormaps["cividis"]([0.004, 0.6]))[:, :3] * 255  # (0.8 − ½) / ½ = 0.6
    assert np.abs(found["confidence"][2:14, 2:46].mean((0, 1)) - sure[0]).max() < SHADE
    assert np.abs(found["confidence"][18:30, 2:46].mean((0, 1)) - sure[1]).max() < SHADE


def test_one_half_is_foreground_and_byte_127_is_not():
    for scores, kind, colour in (
        (np.full((8, 8), 127, np.uint8), "levels", WHITE),
        (np.full((8, 8), 128, np.uint8), "levels", RED),
        (np.full((8, 8), 0.5), "probabilities", RED),
        (np.zeros((8, 8), np.float32), "logits", RED),
    ):
        found = pictures(Sample("a", scores, np.zeros((8, 8), bool), kind=kind))
        assert colours(decoded(found["error"])) == {colour}


def test_void_is_hatched_in_mask_and_error_and_may_hold_anything():
    truth, decided = quarters()
    valid = np.ones(truth.shape, bool)
    valid[:16, :24] = False
    p = np.where(decided, 0.9, 0.1)
    found = pictures(Sample("a", p, truth, valid, kind="probabilities"))
    for name in ("mask", "error"):
        picture = decoded(found[name])
        assert colours(picture[:16, :24]) == HATCH
        assert not colours(picture[:, 24:]) & HATCH
    assert decoded(found["prediction"])[2:14, 2:46].mean() == pytest.approx(255 * 0.9, abs=SHADE)  # there as elsewhere
    p[:16, :24] = np.nan
    found = pictures(Sample("a", p, truth, valid, kind="probabilities"))
    assert colours(decoded(found["error"])[:16, :24]) == HATCH
    assert np.ptp(decoded(found["prediction"])[4:12, 4:20]) > 20  # hatched


def class_logits(decided: np.ndarray, classes: int, sure: float = 2.0) -> np.ndarray:
    return (sure * (decided == np.arange(classes)[:, None, None]) - 1).astype(np.float16)


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_several_classes_share_their_colours_and_wrong_ones_are_vermilion(layout):
    truth = np.repeat(np.arange(4), 12)[None].repeat(20, 0)
    decided = truth.copy()
    decided[10:, 12:24] = 3
    valid = np.ones(truth.shape, bool)
    valid[:, 44:] = False
    logits = class_logits(decided, 4)
    logits = logits if layout == "CHW" else np.moveaxis(logits, 0, 2)
    found = pictures(Sample("a", logits, truth, valid, "logits", layout))
    palette = [tuple(map(int, colour)) for colour in class_colours(4)]
    mask, prediction, error = (decoded(found[name]) for name in ("mask", "prediction", "error"))
    assert [colours(mask[:, 12 * k : 12 * k + 8]) for k in range(4)] == [{colour} for colour in palette]
    assert colours(prediction[:10, 12:24]) == {palette[1]}
    assert colours(prediction[10:, 12:24]) == {palette[3]} == colours(prediction[:, 36:])
    assert colours(error[10:, 12:24]) == {RED}
    assert colours(error[:10, :44]) == {WHITE}
    assert colours(error[:, 44:]) == HATCH == colours(mask[:, 44:])
    from matplotlib import colormaps

    p = np.exp(2) / (np.exp(2) + 3)
    expected = np.array(colormaps["cividis"]((p - 1 / 4) / (3 / 4)))[:3] * 255
    assert np.abs(decoded(found["confidence"])[2:18, 2:46].mean((0, 1)) - expected).max() < SHADE


def test_of_equal_scores_the_first_class_is_decided():
    truth = np.zeros((6, 9), int)
    p = np.full((3, 6, 9), 1 / 3)
    assert colours(decoded(pictures(Sample("a", p, truth, kind="probabilities"))["error"])) == {WHITE}
    assert colours(decoded(pictures(Sample("a", p, truth + 1, kind="probabilities"))["error"])) == {RED}


def test_class_colours_differ():
    assert len(colours(class_colours(24))) == 24


def test_large_maps_shrink_to_means_and_thin_errors_stay_visible():
    truth = np.zeros((399, 660), bool)
    truth[:, 330:] = True
    levels = np.where(truth, 255, 0).astype(np.uint8)
    levels[:, 100] = 255  # a line one pixel wide, a third of a point
    levels[::2, 331:] = 0  # half of all that is foreground
    found = pictures(Sample("a", levels, truth))
    error = decoded(found["error"]).astype(float)
    assert error.shape == (133, 220, 3)

    def expected(colour: tuple[int, ...], wrong: float, foreground: float) -> np.ndarray:
        right = np.array(WHITE) + foreground * (np.array(HIT) - WHITE)
        return np.sqrt(wrong) * np.array(colour) + (1 - np.sqrt(wrong)) * right

    np.testing.assert_allclose(error[60, 33], expected(RED, 1 / 3, 0), atol=1)
    assert colours(decoded(found["error"])[:, :30]) == {WHITE}
    # of three rows every second one is wrong: two, then one
    np.testing.assert_allclose(error[60, 200], expected(BLUE, 2 / 3, 1 / 3), atol=1)
    np.testing.assert_allclose(error[61, 200], expected(BLUE, 1 / 3, 2 / 3), atol=1)
    assert decoded(found["prediction"])[60:62, 200, 0].astype(int).sum() == pytest.approx(255, abs=2 * SHADE)


def test_points_are_means_of_what_counts_and_hatched_where_that_is_under_half():
    truth, valid = np.zeros((440, 440), bool), np.ones((440, 440), bool)
    truth[::2, ::2] = True  # one pixel of four
    valid[1::2, :100] = False  # two of four, of which one is foreground
    valid[1::2, 100:200] = valid[::2, 100:200:2] = False  # one of four
    mask = decoded(pictures(Sample("a", np.zeros((440, 440), np.uint8), truth, valid))["mask"])
    assert mask.shape == (220, 220, 3)
    assert colours(mask[:, :50]) == {(128, 128, 128)}
    assert colours(mask[:, 50:100]) == HATCH
    assert colours(mask[:, 100:]) == {(64, 64, 64)}


def test_photographs_of_another_size_keep_their_aspect():
    sample = Sample("a", np.zeros((40, 80), np.uint8), np.zeros((40, 80), bool))
    square = np.zeros((3, 100, 100), np.float32)
    square[2] = 1
    picture = decoded(pictures(sample, square)["photo"]).astype(int)
    assert picture.shape == (40, 80, 3)
    assert np.abs(picture[:, :17] - BAR).max() < SHADE
    assert np.abs(picture[:, -17:] - BAR).max() < SHADE
    assert np.abs(picture[4:-4, 26:54] - (0, 0, 255)).max() < SHADE
    wide = decoded(pictures(sample, square[:, :50])["photo"]).astype(int)
    assert np.abs(wide - (0, 0, 255)).max() < SHADE


# --- from folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [(0, 1), (100, 255)])
def test_recorded_options_survive_their_file(tmp_path, inside):
    """Suffixes, void bytes, fields of view, thresholds and templates, from a saved run."""
    preds, gts = planted({"a": 10, "b": 60, "c": 30})
    gts = {name: np.where(np.arange(14) < 4, 77, mask).astype(np.uint8) for name, mask in gts.items()}
    fov = np.full((10, 14), inside[1], np.uint8)
    fov[:3] = inside[0]
    write(tmp_path / "maps" / "net" / "set one", {f"{name}_p": levels for name, levels in preds.items()})
    write(tmp_path / "data" / "set one" / "gt", {f"{name}_m": mask for name, mask in gts.items()})
    write(tmp_path / "data" / "set one" / "fov", dict.fromkeys(gts, fov))
    options = CollectOptions(
        f"{tmp_path}/maps/{{method}}/{{dataset}}", f"{tmp_path}/data/{{dataset}}/gt", f"{tmp_path}/data/{{dataset}}/fov",
        pred_suffix="_p", gt_suffix="_m", void_values=(77,), gt_threshold=100, regions=True,
    )  # fmt: skip
    save_run(collect_folders(options), tmp_path / "stats.npz")
    results, rows, notes = gallery_of(load_run(tmp_path / "stats.npz"))
    assert notes == []
    assert [(row.key, row.image) for row in rows[:1]] == [
        (Key("set one", "net"), results.per_image.set_index("image")["ece"].idxmax())
    ]
    error = decoded(rows[0].pictures["error"])
    counted = (np.arange(14) >= 4) & (np.arange(10) >= 3)[:, None]
    truth, decided = gts[rows[0].image] > 100, preds[rows[0].image] > 127
    expected = np.select([truth & decided, decided, truth], [np.full((10, 14), k) for k in range(3)], 3)
    seen = np.array([HIT, RED, BLUE, WHITE])[expected]
    np.testing.assert_array_equal(error[counted], seen[counted])
    assert colours(error[~counted]) <= HATCH


def write_classes(tmp_path: Path, errors: Mapping[str, int]) -> CollectOptions:
    """Logits of 3 classes beside their labels, 9 void, as .npz."""
    folder = tmp_path / "street"
    folder.mkdir()
    for name, number in errors.items():
        truth = np.random.default_rng(1).integers(0, 3, (11, 13)).astype(np.uint8)
        decided = truth.copy()
        decided.flat[:number] = (decided.flat[:number] + 1) % 3
        truth[-2:] = 9
        np.savez(folder / f"{name}.npz", logits=class_logits(decided, 3, 6.0), label=truth)
    return CollectOptions(str(folder), ignore_index=(9,))


def test_npz_files_of_logits_and_labels(tmp_path):
    _, rows, notes = shown(write_classes(tmp_path, {"a": 3, "b": 40, "c": 20}), each=1)
    assert notes == []
    assert [(row.image, row.end) for row in rows] == [("b", "worst"), ("a", "best")]
    error = decoded(rows[0].pictures["error"])
    assert (error[:9] == RED).all(-1).sum() == 40
    assert colours(error[9:]) == HATCH


def test_label_maps_are_read_as_they_were(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (9, 12))
    pred = write(tmp_path / "net", {"a": class_logits(truth, 3).astype(np.float32)}, ".npy")
    gt = write(tmp_path / "toy" / "gt", {"a": np.array([7, 11, 24], np.uint8)[truth]})
    table = tmp_path / "ids.csv"
    table.write_text("7,0\n11,1\n24,2\n")
    save_run(collect_folders(CollectOptions(str(pred), str(gt), label_map=str(table))), tmp_path / "stats.npz")
    table.unlink()  # it was recorded
    _, rows, notes = gallery_of(load_run(tmp_path / "stats.npz"))
    assert (len(rows), notes) == (1, [])
    assert colours(decoded(rows[0].pictures["error"])) == {WHITE}


def test_float_maps_and_photographs(tmp_path):
    preds, gts = planted({"a": 10, "b": 60, "c": 30})
    pred = write(tmp_path / "net", {n: np.where(v, 0.9, 0.1).astype(np.float32) for n, v in preds.items()}, ".npy")
    gt = write(tmp_path / "toy" / "gt", gts)
    photos = write(tmp_path / "photos" / "toy", {n: np.full((20, 28, 3), (0, 200, 0), np.uint8) for n in "ab"}, ".jpg")
    options = CollectOptions(str(pred), str(gt))
    _, rows, notes = shown(options, images=str(tmp_path / "photos" / "{dataset}"))
    assert notes == [f"toy, net: 1 image without a photograph, e.g. 'c': no picture of this name in {photos}"]
    assert {row.image for row in rows if "photo" in row.pictures} == {"a", "b"}
    assert np.abs(decoded(rows[0].pictures["photo"]).astype(int) - (0, 200, 0)).max() < SHADE
    (photos / "a.jpg").write_bytes(b"no picture")
    _, rows, notes = shown(options, images=str(photos))
    assert "2 images without a photograph, e.g. 'a': cannot read" in notes[0]
    assert [row.image for row in rows if "photo" in row.pictures] == ["b"]
    _, rows, notes = shown(options, images=str(tmp_path / "nowhere"))
    assert len(rows) == 3
    assert notes == [
        f"toy, net: 3 images without a photograph, e.g. 'a': {tmp_path}/nowhere is not a folder; check the path"
    ]


def test_the_photographs_that_a_run_was_given_are_remembered(tmp_path):
    preds, gts = planted({"a": 10, "b": 60})
    pred, gt = write(tmp_path / "net", preds), write(tmp_path / "toy" / "gt", gts)
    photos = write(tmp_path / "photos", {n: np.full((10, 14, 3), (0, 200, 0), np.uint8) for n in "ab"})
    _, rows, notes = shown(CollectOptions(str(pred), str(gt), images=str(photos)))
    assert (["photo" in row.pictures for row in rows], notes) == ([True, True], [])
    _, rows, _ = shown(CollectOptions(str(pred), str(gt)))
    assert ["photo" in row.pictures for row in rows] == [False, False]


def test_slices_of_volumes_are_rows(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    truth, wrong = np.zeros((9, 12, 4), np.uint8), np.zeros((9, 12, 4), bool)
    truth[2:6, 3:9] = 1
    wrong.reshape(-1, 4)[:50, 2] = True
    for folder, volume in (("net", np.where((truth > 0) ^ wrong, 0.99, 0.01).astype(np.float32)), ("toy", truth)):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / folder / "case.nii.gz")
    _, rows, notes = shown(CollectOptions(str(tmp_path / "net"), str(tmp_path / "toy")), each=1)
    assert notes == []
    assert [(row.image, row.size) for row in rows] == [("case#2", (12, 9)), ("case#0", (12, 9))]
    error = decoded(rows[0].pictures["error"])
    assert ((error == RED) | (error == BLUE)).all(-1).sum() == 50


def test_the_profile_decides_by_which_error_images_are_ranked(folders):
    pred, gt = folders(*planted({"a": 10, "b": 60, "c": 30}))
    settings = Settings("aslp", n_boot=0)
    options = CollectOptions(str(pred), str(gt), scores=settings.positional_scores, extras=settings.extras)
    _, rows, notes = shown(options, settings=settings, each=1)
    assert (notes, {row.metric for row in rows}) == ([], {"aslp_ece"})
    assert [row.image for row in rows] == ["b", "a"]


def test_worker_processes_change_nothing(folders):
    pred, gt = folders(*planted({"a": 10, "b": 60, "c": 30}))
    options = CollectOptions(str(pred), str(gt))
    assert shown(options, jobs=1)[1:] == shown(options, jobs=2)[1:]


# --- what is missing ----------------------------------------------------------------------------------------------------


def test_files_that_changed_are_left_out_and_said(folders):
    preds, gts = planted({"a": 10, "b": 60, "c": 30, "d": 20})
    pred, gt = folders(preds, gts)
    run = collect_folders(CollectOptions(str(pred), str(gt)))
    preds["b"][0, 0] ^= 255
    write(pred, {"b": preds["b"]})
    write(gt, {"d": np.zeros((5, 5), np.uint8)})
    (pred / "a.png").write_bytes((pred / "a.png").read_bytes()[:60])
    (pred / "c.png").unlink()
    _, rows, notes = gallery_of(run)
    assert rows == []
    assert len(notes) == 3
    assert f"toy, net: 1 image left out of the gallery, e.g. 'c': no file of this name in {pred} against {gt}" in notes
    assert "toy, net: 1 image left out of the gallery, e.g. 'b': changed since the statistics were collected" in notes
    [unreadable] = [note for note in notes if "2 images left out" in note]
    assert f"e.g. 'a': cannot read {pred / 'a.png'}" in unreadable


def test_other_pixels_of_the_same_value_count_as_changed_only_where_their_number_is(tmp_path, folders):
    preds, gts = planted({"a": 10, "b": 60})
    pred, gt = folders(preds, gts)
    run = collect_folders(CollectOptions(str(pred), str(gt)))
    write(pred, {"a": np.vstack([preds["a"]] * 2)})  # the same shares, twice as many pixels
    write(gt, {"a": np.vstack([gts["a"]] * 2)})
    _, rows, notes = gallery_of(run)
    assert [row.image for row in rows] == ["b"]
    assert notes == ["toy, net: 1 image left out of the gallery, e.g. 'a': changed since the statistics were collected"]


def test_arrays_of_other_axes_have_changed(tmp_path):
    preds, gts = planted({"a": 10, "b": 60})
    pred = write(tmp_path / "net", {n: np.where(v, 0.9, 0.1) for n, v in preds.items()}, ".npy")
    gt = write(tmp_path / "toy" / "gt", gts)
    run = collect_folders(CollectOptions(str(pred), str(gt)))
    np.save(pred / "a.npy", np.full((3, 10, 14), 0.5))
    _, rows, notes = gallery_of(run)
    assert [row.image for row in rows] == ["b"]
    assert notes == ["toy, net: 1 image left out of the gallery, e.g. 'a': changed since the statistics were collected"]


def test_folders_that_are_gone_are_one_line(tmp_path, monkeypatch):
    preds, gts = planted({"a": 10, "b": 60})
    for method in ("x", "y", "z"):
        write(tmp_path / "preds" / method, preds)
    write(tmp_path / "toy" / "gt", gts)
    monkeypatch.chdir(tmp_path)
    run = collect_folders(CollectOptions("preds/{method}", "toy/gt"))
    for method in ("x", "z"):
        (tmp_path / "preds" / method).rename(tmp_path / method)
    _, rows, notes = gallery_of(run)
    assert {row.key.method for row in rows} == {"y"}
    assert notes == [f"toy, x, z: no gallery, preds/x is not at hand in {tmp_path}"]
    for path in (tmp_path / "preds" / "y").iterdir():
        path.unlink()
    _, rows, notes = gallery_of(run)
    assert rows == []
    assert notes == ["toy, x, y, z: no gallery, preds/x is not at hand in " + str(tmp_path)]


def test_what_has_no_files_to_show_is_said(tmp_path):
    truth, decided = quarters()
    memory = collect([Sample("a", np.where(decided, 255, 0).astype(np.uint8), truth)])
    assert gallery_of(memory)[1:] == ([], ["dataset, method: no gallery, its files were not recorded"])
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "net.npz", probabilities=rng.dirichlet(np.ones(3), 50), label=rng.integers(0, 3, 50))
    table = collect_folders(CollectOptions(str(tmp_path / "net.npz"), datasets=("words",)))
    assert gallery_of(table)[1:] == ([], ["no gallery: images have no value that they could be ranked by"])
    street = collect_folders(write_classes(tmp_path, {"a": 3, "b": 40}))
    parts = (memory, table, street)
    results = Results(Run({key: rows for part in parts for key, rows in part.combinations.items()}), QUICK)
    options = {Key(*key): part.options for part in parts for key in part.combinations}
    rows, notes = gallery(results, options)
    assert [row.image for row in rows] == ["b", "a"]
    assert notes == [
        "dataset, method: no gallery, its files were not recorded",
        "words, net: no gallery, a classification table holds no images",
    ]
    rows, notes = gallery(results, options, by="max_f")
    assert rows == []
    assert "street, street: no gallery, no image has a value of max_f" in notes


def test_calibrated_predictions_have_no_gallery(folders):
    pred, gt = folders(*planted({"a": 10, "b": 60}))
    run = collect_folders(CollectOptions(str(pred), str(gt)))
    rows = run.combinations["toy", "net"]
    calibrated = rows.under({**rows.conventions, "calibrator": "platt"})
    _, found, notes = gallery_of(Run({("toy", "net"): calibrated}, run.options))
    assert found == []
    assert notes == ["toy, net + platt: no gallery, these predictions were calibrated after they were read"]
    both = Run(run.combinations, run.options, calibrated={("toy", "net", "platt"): calibrated})
    _, found, notes = gallery_of(both)
    assert [(row.key.calibrator, row.image) for row in found] == [("none", "b"), ("none", "a")]
    assert notes == []


# --- limits -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path: Path) -> Run:
    """Three methods, of 10, 20 and 30 errors more, on two sets of eight images."""
    for dataset in ("s", "t"):
        for more, method in ((20, "mid"), (10, "good"), (30, "bad")):
            preds, gts = planted({f"i{number}": more + number for number in range(8)})
            write(tmp_path / "preds" / method / dataset, preds)
        write(tmp_path / "data" / dataset / "gt", gts)
    return collect_folders(
        CollectOptions(f"{tmp_path}/preds/{{method}}/{{dataset}}", f"{tmp_path}/data/{{dataset}}/gt")
    )


@pytest.mark.parametrize(("limit", "each"), [(36, 3), (35, 2), (24, 2), (23, 1), (12, 1)])
def test_with_many_methods_fewer_images_of_each_are_shown(several: Run, limit: int, each: int):
    _, rows, notes = gallery_of(several, limit=limit)
    assert len(rows) == 12 * each
    assert [note.partition(" images of each")[0] for note in notes] == (
        [f"the gallery shows {each} of the 3 worst and of the 3 best"] * (each < 3)
    )


def test_with_very_many_methods_only_the_best_are_shown(several: Run):
    _, rows, notes = gallery_of(several, limit=11)
    shown_of = [("s", "bad"), ("s", "good"), ("s", "mid"), ("t", "good"), ("t", "mid")]
    assert [(row.key.dataset, row.key.method) for row in rows[::2]] == shown_of
    assert notes[1:] == ["t: the gallery shows the methods that are best by ece, not bad"]
    _, rows, notes = gallery_of(several, limit=4, by="pixel_accuracy")
    assert [(row.key.dataset, row.key.method) for row in rows[::2]] == [("s", "good"), ("t", "good")]
    assert notes[1:] == [
        f"{dataset}: the gallery shows the methods that are best by pixel_accuracy, not bad, mid" for dataset in "st"
    ]


def test_real_saliency_maps(real_data: Path):
    folder = real_data / "sod"
    options = CollectOptions(f"{folder}/pred/{{method}}", f"{folder}/gt", methods=("PiCANet",), scores=())
    results, rows, notes = shown(options, images=str(folder / "image"))
    assert notes == []
    table = results.per_image.set_index("image")["ece"].sort_values()
    assert names(rows, "worst") == list(table.index[:-4:-1])
    assert names(rows, "best") == list(table.index[:3])
    assert all(max(row.size) == 220 and row.pictures.keys() == CAPTIONS.keys() for row in rows)
    sizes = [len(uri) * 3 / 4 for row in rows for uri in row.pictures.values()]
    assert np.mean(sizes) < 5000
    for row in rows:  # the share of wrong pixels, from the picture, is that of the statistics
        error = decoded(row.pictures["error"]).astype(float)
        wrong = ((np.abs(error - RED).max(-1) < 90) | (np.abs(error - BLUE).max(-1) < 90)).mean()
        accuracy = float(results.per_image.set_index("image").loc[row.image, "pixel_accuracy"])
        assert wrong == pytest.approx(1 - accuracy, abs=0.02)
