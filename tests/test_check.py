"""The doctor: every finding on a folder that has it, none on a healthy one, and what the real sets' notes say is odd."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calbench.check import Diagnosis, check_folders
from calbench.collect import collect, collect_folders
from calbench.findings import DETECTORS, SEVERITIES, Finding, check_run, findings, report_lines
from calbench.io.sample import Sample
from calbench.plan import CollectOptions
from calbench.statistics import Statistics

SHAPE = (24, 40)
N_IMAGES = 32


def logits(rng: np.random.Generator) -> np.ndarray:
    """A field of log-odds with an object; how sure it is differs from image to image."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    distance = np.hypot(rows - rng.uniform(8, 16), columns - rng.uniform(12, 28))
    return (9 - distance) * rng.uniform(0.2, 0.9) + rng.normal(0, 0.3, SHAPE)


def to_levels(p: np.ndarray) -> np.ndarray:
    return np.round(255 * p).astype(np.uint8)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@dataclass
class Maps:
    """A data set in memory, to be spoilt by a test and written."""

    pred: dict[str, np.ndarray] = field(default_factory=dict)
    gt: dict[str, np.ndarray] = field(default_factory=dict)
    fov: dict[str, np.ndarray] = field(default_factory=dict)

    def each(self, change: Callable[[np.ndarray], np.ndarray], side: str = "pred") -> None:
        maps = getattr(self, side)
        for name in maps:
            maps[name] = change(maps[name])

    def write(self, folder: Path, extension: str = ".png") -> Path:
        for side in ("pred", "gt", "fov"):
            for name, values in getattr(self, side).items():
                path = folder / side / "set" / f"{name}{extension if side == 'pred' else '.png'}"
                if side == "pred":
                    path = folder / side / "net" / "set" / path.name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
        return folder


def healthy(n: int = N_IMAGES, scale: float = 1.0) -> Maps:
    """Calibrated maps: each mask is drawn from the probabilities that its map stores."""
    rng = np.random.default_rng(5)
    maps = Maps()
    for number in range(n):
        p = sigmoid(scale * logits(rng))
        maps.pred[f"im{number:03d}"] = to_levels(p)
        maps.gt[f"im{number:03d}"] = np.where(rng.random(SHAPE) < p, 255, 0).astype(np.uint8)
    return maps


def options_of(folder: Path, **more: object) -> CollectOptions:
    mask = f"{folder}/fov/{{dataset}}" if (folder / "fov").exists() else None
    pred, gt = f"{folder}/pred/{{method}}/{{dataset}}", f"{folder}/gt/{{dataset}}"
    return CollectOptions(pred, gt, mask, **more)  # type: ignore[arg-type]


def diagnose(maps: Maps, folder: Path, **more: object) -> Diagnosis:
    return check_folders(options_of(maps.write(folder), **more), jobs=1)


def named(found: tuple[Finding, ...] | list[Finding], code: str) -> Finding:
    hits = [finding for finding in found if finding.code == code]
    assert len(hits) == 1, [finding.code for finding in found]
    return hits[0]


def codes(found: tuple[Finding, ...] | list[Finding]) -> set[str]:
    return {finding.code for finding in found}


def sharpen(factor: float, write: Callable[[np.ndarray], np.ndarray] = np.round) -> Callable[[np.ndarray], np.ndarray]:
    """Log-odds times a factor, written by rounding or truncating."""

    def change(levels: np.ndarray) -> np.ndarray:
        p = np.clip(levels / 255, 1 / 510, 1 - 1 / 510)
        return write(255 * sigmoid(factor * np.log(p / (1 - p)))).astype(np.uint8)

    return change


def stretch(levels: np.ndarray) -> np.ndarray:
    low, high = int(levels.min()), int(levels.max())
    return to_levels((levels.astype(float) - low) / (high - low)) if high > low else levels


def with_first(maps: Maps, values: np.ndarray, side: str = "pred", n: int = 1) -> None:
    for name in sorted(getattr(maps, side))[:n]:
        getattr(maps, side)[name] = values


def grey(share: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(mask: np.ndarray) -> np.ndarray:
        values = mask.copy()
        values.ravel()[: round(share * mask.size)] = 60
        return values

    return change


def rgb(*offsets: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: np.stack([np.clip(values.astype(int) + o, 0, 255) for o in offsets], -1).astype(np.uint8)


def inverted_share(maps: Maps, n: int) -> None:
    for name in sorted(maps.pred)[:n]:
        maps.pred[name] = 255 - maps.pred[name]


def field_of_view(maps: Maps) -> None:
    maps.fov = {name: np.pad(np.full((20, 36), 255, np.uint8), 2) for name in maps.gt}
    maps.gt["im003"][0, :7] = 255
    maps.pred["im003"][0, :7] = 9


def same_file(maps: Maps, side: str) -> None:
    getattr(maps, side)["im001"] = getattr(maps, side)["im000"]


def rare_objects(maps: Maps) -> None:
    maps.each(lambda mask: np.where(np.arange(SHAPE[1]) < 36, np.uint8(0), mask), "gt")


BLACK, WHITE = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)

SPOILT: dict[str, tuple[str, str, int, Callable[[Maps], object]]] = {
    # case: code, severity, images concerned, what is done to the healthy folder
    "stretched": ("min-max-stretched", "error", 32, lambda m: m.each(stretch)),
    "stretched, then truncated": (
        "min-max-stretched", "error", 32, lambda m: m.each(lambda v: np.minimum(stretch(v), 254))),
    "thresholded": ("hard-maps", "warning", 32, lambda m: m.each(lambda v: np.where(v > 127, 255, 0).astype(np.uint8))),
    "nearly binary": (
        "nearly-binary", "warning", 32, lambda m: m.each(sharpen(30))),
    "0/1 maps": ("zero-one-maps", "error", 32, lambda m: m.each(lambda v: (v > 127).astype(np.uint8))),
    "percent": ("low-maximum", "error", 32, lambda m: m.each(lambda v: np.round(v / 2.55).astype(np.uint8))),
    "inverted": ("inverted-maps", "error", 32, lambda m: m.each(lambda v: 255 - v)),
    "three inverted": ("inverted-images", "warning", 3, lambda m: inverted_share(m, 3)),
    "truncated": ("truncated-levels", "warning", 21, lambda m: m.each(sharpen(1.3, np.floor))),
    "constant": ("constant-maps", "warning", 1, lambda m: with_first(m, np.full(SHAPE, 90, np.uint8))),
    "all constant": ("constant-maps", "error", 32, lambda m: with_first(m, BLACK, "pred", 32)),
    "duplicate prediction": ("duplicate-predictions", "warning", 2, lambda m: same_file(m, "pred")),
    "duplicate mask": ("duplicate-masks", "warning", 2, lambda m: same_file(m, "gt")),
    "mask as prediction": ("mask-as-prediction", "error", 32, lambda m: m.pred.update(m.gt)),
    "grey RGB maps": ("colour-predictions", "note", 32, lambda m: m.each(rgb(0, 0, 0))),
    "tinted maps": ("colour-predictions", "warning", 32, lambda m: m.each(rgb(0, 3, 1))),
    "few": ("few-images", "note", 29, lambda m: [(m.pred.pop(n), m.gt.pop(n)) for n in sorted(m.gt)[29:]]),
    "anti-aliased": ("anti-aliased-masks", "note", 32, lambda m: m.each(grey(0.02), "gt")),
    "grey masks": ("grey-masks", "warning", 32, lambda m: m.each(grey(0.2), "gt")),
    "1-bit": ("one-bit-masks", "note", 32, lambda m: m.each(lambda v: v > 0, "gt")),
    "0/1 masks": ("zero-one-masks", "note", 32, lambda m: m.each(lambda v: v // 255, "gt")),
    "RGB masks": ("colour-masks", "note", 32, lambda m: m.each(rgb(0, 0, 0), "gt")),
    "tinted masks": ("channels-differ", "note", 32, lambda m: m.each(rgb(0, 5, 0), "gt")),
    "one empty": ("empty-masks", "warning", 1, lambda m: with_first(m, BLACK, "gt")),
    "many empty": ("empty-masks", "note", 4, lambda m: with_first(m, BLACK, "gt", 4)),
    "all empty": ("empty-masks", "error", 32, lambda m: with_first(m, BLACK, "gt", 32)),
    "one full": ("full-masks", "warning", 1, lambda m: with_first(m, WHITE, "gt")),
    "foreground outside": ("foreground-outside", "note", 32, field_of_view),
    "predictions outside": ("predictions-outside", "note", 32, field_of_view),
    "rare": ("class-imbalance", "note", 32, rare_objects),
    "common": ("class-imbalance", "note", 32, lambda m: with_first(m, WHITE, "gt", 29)),
    "halved": ("foreground-under-predicted", "note", 32, lambda m: m.each(lambda v: v // 2)),
    "raised": ("foreground-over-predicted", "note", 32, lambda m: m.each(lambda v: v // 2 + 127)),
    "sharpened": ("over-confident", "note", 32, lambda m: m.each(sharpen(4))),
    "softened": ("under-confident", "note", 32, lambda m: m.each(lambda v: v // 2 + 64)),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_every_finding_is_found(case: str, tmp_path: Path) -> None:
    code, severity, count, spoil = SPOILT[case]
    maps = healthy()
    spoil(maps)
    finding = named(diagnose(maps, tmp_path).findings, code)
    assert (finding.severity, finding.count, finding.total) == (severity, count, len(maps.gt))
    assert finding.where == "net on set"
    assert finding.example in maps.gt
    assert finding.message
    assert finding.remedy


def test_a_healthy_folder_has_nothing(tmp_path: Path) -> None:
    diagnosis = diagnose(healthy(), tmp_path)
    assert diagnosis.findings == ()
    assert diagnosis.exit_code == 0
    assert diagnosis.summary.startswith("32 of 32 pairs read")
    assert report_lines(diagnosis.findings) == []


# ---- near misses: what looks ill and is not ---------------------------------------------------------------------------


def test_honest_saturation_is_at_most_a_warning(tmp_path: Path) -> None:
    sure = Maps()
    for name, levels in healthy().pred.items():
        z = (levels / 255 - 0.5) * 14  # sure in every image: many pixels at both ends, and in between
        sure.pred[name], sure.gt[name] = to_levels(sigmoid(z) * 1.004 - 0.002), np.where(z > 0, 255, 0).astype(np.uint8)
    sure.each(lambda v: np.where(np.indices(SHAPE)[1] < 14, v, np.where(v > 127, 255, 0)).astype(np.uint8))
    sure.each(lambda v: np.where(np.indices(SHAPE)[1] < 2, np.uint8(0), np.where(np.indices(SHAPE)[0] < 3, 255, v)))
    assert named(diagnose(sure, tmp_path).findings, "min-max-stretched").severity == "warning"


def test_one_map_that_falls_short_acquits_the_folder(tmp_path: Path) -> None:
    maps = healthy()
    maps.each(stretch)
    maps.pred["im007"] = np.minimum(maps.pred["im007"], 201).astype(np.uint8)
    assert "min-max-stretched" not in codes(diagnose(maps, tmp_path).findings)


def test_four_maps_show_no_habit(tmp_path: Path) -> None:
    maps = healthy(4)
    maps.each(stretch)
    assert "min-max-stretched" not in codes(diagnose(maps, tmp_path).findings)


def test_small_objects_do_not_make_a_map_binary() -> None:
    rng = np.random.default_rng(1)
    rows = []
    for number in range(6):
        levels = np.zeros((60, 80), np.uint8)
        levels[3, :12] = rng.integers(20, 230, 12)  # 0.25 % soft pixels
        levels[4, :8] = 255 - number
        rows.append(Sample(str(number), levels, levels > 127))
    run = collect(rows)
    assert not codes(check_run(run)) & {"hard-maps", "nearly-binary"}


def test_a_zero_map_of_an_empty_mask_is_right(tmp_path: Path) -> None:
    maps = healthy()
    with_first(maps, BLACK, "pred", 3)
    with_first(maps, BLACK, "gt", 3)
    found = diagnose(maps, tmp_path).findings
    assert not codes(found) & {"constant-maps", "duplicate-masks", "duplicate-predictions"}


def test_arrays_in_memory_have_no_facts() -> None:
    maps = healthy()
    statistics = collect([Sample(n, maps.pred[n], maps.gt[n] > 0) for n in maps.gt]).combinations["dataset", "method"]
    assert statistics.facts is None
    assert findings(statistics, "here") == []


def test_images_without_a_valid_pixel() -> None:
    rng = np.random.default_rng(2)
    samples = [
        Sample(str(i), to_levels(rng.random(SHAPE)), rng.random(SHAPE) < 0.4, np.full(SHAPE, i > 1)) for i in range(40)
    ]
    statistics = collect(samples).combinations["dataset", "method"]
    finding = named(findings(statistics, "here"), "void-images")
    assert (finding.severity, finding.count, finding.example) == ("warning", 2, "0")
    nothing = findings(statistics.select([0, 1]), "here")
    assert named(nothing, "void-images").severity == "error"


# ---- files ------------------------------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    diagnosis = check_folders(CollectOptions(str(tmp_path / "pred"), str(tmp_path / "gt")))
    assert codes(diagnosis.findings) == {"no-folders"}
    assert diagnosis.exit_code == 1


def test_an_empty_folder(tmp_path: Path) -> None:
    healthy(2).write(tmp_path)
    (tmp_path / "pred/empty/set").mkdir(parents=True)
    diagnosis = check_folders(options_of(tmp_path))
    finding = named(diagnosis.findings, "no-files")
    assert (finding.where, finding.severity) == ("empty on set", "error")
    assert diagnosis.readable["set", "net"] == 2


def test_incomplete_combinations(tmp_path: Path) -> None:
    healthy(2).write(tmp_path)
    (tmp_path / "pred/net/other").mkdir()
    assert named(check_folders(options_of(tmp_path)).findings, "incomplete").severity == "warning"


def test_partners_that_are_missing(tmp_path: Path) -> None:
    maps = healthy()
    field_of_view(maps)
    del maps.gt["im000"], maps.pred["im001"], maps.pred["im002"], maps.fov["im003"]
    diagnosis = diagnose(maps, tmp_path)
    found = {finding.code: (finding.severity, finding.count, finding.example) for finding in diagnosis.findings}
    assert found["missing-masks"] == ("error", 1, "im000.png")
    assert found["missing-predictions"] == ("error", 2, "im001.png")
    assert found["missing-fields-of-view"] == ("error", 1, "im003.png")
    assert diagnosis.readable["set", "net"] == 28
    skipping = check_folders(options_of(tmp_path, on_missing="skip"))
    assert named(skipping.findings, "missing-masks").severity == "warning"
    assert skipping.exit_code == 0


def test_names_that_never_match(tmp_path: Path) -> None:
    maps = healthy(3)
    maps.pred = {f"{name}_sal": levels for name, levels in maps.pred.items()}
    found = diagnose(maps, tmp_path).findings
    assert "--pred-suffix" in named(found, "no-pairs").remedy
    assert named(found, "missing-masks").count == 3


def test_doubled_names(tmp_path: Path) -> None:
    folder = healthy().write(tmp_path)
    shutil.copy(folder / "pred/net/set/im004.png", folder / "pred/net/set/im004.bmp")
    assert named(check_folders(options_of(folder)).findings, "doubled-names").count == 2


def test_sizes(tmp_path: Path) -> None:
    maps = healthy()
    maps.pred["im005"] = maps.pred["im005"][:, :-1]
    diagnosis = diagnose(maps, tmp_path)
    finding = named(diagnosis.findings, "size-mismatch")
    assert (finding.severity, finding.count, finding.example) == ("error", 1, "im005")
    assert "mask 40x24, prediction 39x24" in finding.message
    assert diagnosis.readable["set", "net"] == 31
    assert (
        named(check_folders(options_of(tmp_path, on_mismatch="skip")).findings, "size-mismatch").severity == "warning"
    )
    resized = check_folders(options_of(tmp_path, on_mismatch="resize-pred"))
    assert codes(resized.findings) == {"resized-predictions"}
    assert resized.readable["set", "net"] == 32


def test_field_of_view_of_another_size(tmp_path: Path) -> None:
    maps = healthy()
    field_of_view(maps)
    maps.fov["im009"] = maps.fov["im009"][1:]
    finding = named(diagnose(maps, tmp_path).findings, "field-of-view-size")
    assert (finding.severity, finding.example) == ("error", "im009")


def test_unreadable_files_of_all_kinds(tmp_path: Path) -> None:
    folder = healthy().write(tmp_path)
    preds = folder / "pred/net/set"
    (preds / "im000.png").write_bytes(b"no image")
    truncated = (preds / "im001.png").read_bytes()
    (preds / "im001.png").write_bytes(truncated[: len(truncated) // 2])
    Image.fromarray(rgb(0, 99, 0)(np.full(SHAPE, 50, np.uint8))).save(preds / "im002.png")
    coloured = Image.new("P", SHAPE[::-1], 1)
    coloured.putpalette([0, 0, 0, 200, 30, 30])
    coloured.save(preds / "im003.png")
    diagnosis = check_folders(options_of(folder))
    assert named(diagnosis.findings, "unreadable").count == 2
    wrong = [finding for finding in diagnosis.findings if finding.code == "wrong-values"]
    assert [finding.example for finding in wrong] == ["im002", "im003"]
    assert all(finding.severity == "error" and str(preds) in finding.message for finding in wrong)
    assert diagnosis.readable["set", "net"] == 28


def test_a_mask_that_cannot_be_decoded_hides_no_other(tmp_path: Path) -> None:
    folder = healthy().write(tmp_path)
    mask = folder / "gt/set/im000.png"
    mask.write_bytes(mask.read_bytes()[:60])
    diagnosis = check_folders(options_of(folder))
    assert codes(diagnosis.findings) == {"unreadable"}
    assert diagnosis.readable["set", "net"] == 31


def test_palette_masks(tmp_path: Path) -> None:
    folder = healthy().write(tmp_path)
    for path in (folder / "gt/set").iterdir():
        image = Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8))
        image.putpalette([0, 0, 0, 128, 0, 0])
        image.save(path)
    finding = named(check_folders(options_of(folder)).findings, "palette-masks")
    assert (finding.severity, finding.count) == ("note", 32)


@pytest.mark.parametrize(("values", "hint"), [((0, 1, 255), "--void-value 255"), ((0, 3), "--gt-threshold 0")])
def test_masks_whose_coding_is_in_doubt(values: tuple[int, ...], hint: str, tmp_path: Path) -> None:
    maps = healthy()
    rng = np.random.default_rng(0)
    maps.each(lambda mask: np.where(mask > 0, values[1], rng.choice([0, *values[2:]], SHAPE)).astype(np.uint8), "gt")
    maps.each(lambda levels: (levels > 127).astype(np.uint8))
    found = diagnose(maps, tmp_path).findings
    finding = named(found, "mask-coding")
    assert finding.severity == "error"
    assert hint in finding.remedy
    assert codes(found) == {"mask-coding", "zero-one-maps"}, "predictions are judged all the same, masks are not"


def test_jpeg(tmp_path: Path) -> None:
    diagnosis = diagnose(healthy(), tmp_path, methods=("net",))
    assert "jpeg-predictions" not in codes(diagnosis.findings)
    shutil.rmtree(tmp_path / "pred")
    maps = healthy()
    maps.write(tmp_path, extension=".jpg")
    assert named(check_folders(options_of(tmp_path)).findings, "jpeg-predictions").severity == "warning"
    for path in (tmp_path / "gt/set").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    assert named(check_folders(options_of(tmp_path)).findings, "jpeg-masks").severity == "note"


# ---- several methods --------------------------------------------------------------------------------------------------


def test_a_folder_filled_with_another_methods_maps(tmp_path: Path) -> None:
    folder = healthy().write(tmp_path)
    shutil.copytree(folder / "pred/net", folder / "pred/twin")
    finding = named(check_folders(options_of(folder)).findings, "copied-predictions")
    assert (finding.where, finding.count, finding.severity) == ("twin on set", 32, "warning")
    assert "net" in finding.message


def test_what_methods_share_is_said_once(tmp_path: Path) -> None:
    maps = healthy()
    maps.each(lambda mask: mask > 0, "gt")
    folder = maps.write(tmp_path)
    for method, scale in (("b", 0.95), ("c", 0.9)):
        maps.pred = {name: to_levels(levels / 255 * scale) for name, levels in healthy().pred.items()}
        for name, levels in maps.pred.items():
            (folder / f"pred/{method}/set").mkdir(parents=True, exist_ok=True)
            Image.fromarray(levels).save(folder / f"pred/{method}/set/{name}.png")
    found = check_folders(options_of(folder)).findings
    assert named(found, "one-bit-masks").where == "all methods on set"
    (folder / "pred/c/set/im000.png").unlink()
    assert "b, net on set" in {finding.where for finding in check_folders(options_of(folder)).findings}
    run = collect_folders(options_of(folder, methods=("b", "net")))
    assert check_run(run) == [finding for finding in found if finding.code == "one-bit-masks"]


def test_parallel_workers_find_the_same(tmp_path: Path) -> None:
    options = options_of(healthy(8).write(tmp_path))
    assert check_folders(options, jobs=2) == check_folders(options, jobs=1)


# ---- what is printed --------------------------------------------------------------------------------------------------


def ill(tmp_path: Path) -> Diagnosis:
    maps = healthy()
    maps.each(stretch)
    maps.each(lambda mask: mask > 0, "gt")
    with_first(maps, BLACK, "gt")
    return diagnose(maps, tmp_path)


def test_report_is_grouped_sorted_and_narrow(tmp_path: Path) -> None:
    found = ill(tmp_path).findings
    lines = report_lines([*found, Finding("x", "error", "a folder", "m", 0, 0, "", "r")])
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if not line.startswith(" ")] == ["a folder", "net on set"]
    heads = [line.split()[0] for line in lines if line.startswith("  ") and not line.startswith("   ")]
    assert heads[1:] == sorted(heads[1:], key=SEVERITIES.index)
    assert any(line.startswith("  error   min-max-stretched (all 32, e.g. im0") for line in lines)
    assert "  error   x" in lines


def test_json_is_one_document(tmp_path: Path) -> None:
    diagnosis = ill(tmp_path)
    document = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert document["exit_code"] == 1
    assert document["combinations"] == [{"dataset": "set", "method": "net", "pairs": 32, "readable": 32}]
    assert {finding["code"] for finding in document["findings"]} == codes(diagnosis.findings)


def test_detectors_are_listed_once() -> None:
    assert len(set(DETECTORS)) == len(DETECTORS)
    assert all(detector.__doc__ for detector in DETECTORS)


# ---- real sets --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data sets: `CALBENCH_DATA`, or `shared/data` beside the repository."""
    given = os.environ.get("CALBENCH_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "sod").is_dir():
        pytest.skip(f"no real data in {folder}; set CALBENCH_DATA")
    return folder


def examine(real: Path, name: str, mask: str | None = None, **more: object) -> Diagnosis:
    fov = f"{real}/{name}/{mask}" if mask else None
    return check_folders(CollectOptions(f"{real}/{name}/pred/{{method}}", f"{real}/{name}/gt", fov, **more))  # type: ignore[arg-type]


def summary(diagnosis: Diagnosis) -> set[tuple[str, str, str]]:
    return {(finding.where, finding.severity, finding.code) for finding in diagnosis.findings}


def test_sod(real: Path) -> None:
    diagnosis = examine(real, "sod")
    expected = {("all methods on sod", "note", "one-bit-masks")}
    expected |= {("DSS-crf on sod", "warning", "nearly-binary")}
    expected |= {(f"{method} on sod", "error", "min-max-stretched") for method in ("DSS", "DSS-crf")}
    for method in ("Amulet", "DSS", "DSS-crf", "PiCANet"):
        expected |= {(f"{method} on sod", "note", code) for code in ("foreground-under-predicted", "over-confident")}
    assert summary(diagnosis) == expected
    crf = next(finding for finding in diagnosis.findings if finding.code == "nearly-binary")
    assert "3.2%" in crf.message


def test_maps_of_real_networks_once_stretched(real: Path) -> None:
    options = CollectOptions(f"{real}/sod/pred/{{method}}", f"{real}/sod/gt", methods=("Amulet", "PiCANet"), scores=())
    for statistics in collect_folders(options).combinations.values():
        assert "min-max-stretched" not in codes(findings(statistics, ""))
        stretched = Statistics(statistics.histogram.stretched())
        assert named(findings(stretched, ""), "min-max-stretched").severity == "error"


def test_drive(real: Path) -> None:
    diagnosis = examine(real, "drive")
    where = "all methods on drive"
    frame = {
        (where, "warning", "truncated-levels"),
        (where, "note", "few-images"),
        (where, "note", "class-imbalance"),
    }
    assert summary(diagnosis) == frame
    assert "8.8%" in named(diagnosis.findings, "class-imbalance").message
    inside = examine(real, "drive", "fov")
    assert summary(inside) == frame | {(where, "note", "foreground-outside")}
    assert "12.7%" in named(inside.findings, "class-imbalance").message
    assert "296 foreground pixels" in named(inside.findings, "foreground-outside").message


def test_rgbt_vt21(real: Path) -> None:
    diagnosis = examine(real, "rgbt-vt21")
    found = summary(diagnosis)
    masks = "fused, modality1, modality2 on rgbt-vt21"
    assert {
        ("fused-quad on rgbt-vt21", "error", "size-mismatch"),
        (masks, "warning", "grey-masks"),
        (masks, "note", "colour-masks"),
        (masks, "note", "channels-differ"),
        (masks, "note", "few-images"),
    } <= found
    assert {severity for _, severity, code in found if code not in ("size-mismatch", "grey-masks")} == {"note"}
    grey_ones = named(diagnosis.findings, "grey-masks")
    assert (grey_ones.count, grey_ones.total) == (21, 21)
    assert "up to 7 levels" in named(diagnosis.findings, "channels-differ").message
    resized = examine(real, "rgbt-vt21", on_mismatch="resize-pred")
    assert ("fused-quad on rgbt-vt21", "note", "resized-predictions") in summary(resized)
    assert resized.exit_code == 0
