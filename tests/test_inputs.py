"""Arrays, tables, volumes, regions and out-of-distribution sets through the command line.

Every number is computed again from the arrays, in plain NumPy and with the truth in hand; the files are small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, jaccard_score, log_loss, roc_auc_score

from calbench.io.tables import sample_groups
from calbench.metrics import METRICS

Run = Callable[..., Result]
Arrays = Mapping[str, np.ndarray]

CLASSES = 4
NAMES = tuple("abcdef")
SHAPES = [(12 + number % 2, 17) for number in range(len(NAMES))]
N_SLICES = 3
OF_WHOLE_IMAGES = {"mae", "max_f", "max_e", "s_measure", "weighted_f", "miou", "mdice", "fw_iou"}
SALIENCY = {name for name, metric in METRICS.items() if metric.average == "images"}
CSV = ("summary.csv", "per_image.csv", "per_class.csv", "reliability.csv", "curves.csv", "entropy.csv")
SHOWN = "ece,nll,brier,accuracy,miou,entropy,ece_classwise"


# --- data ---------------------------------------------------------------------------------------------------------------


def draw_logits(
    seed: int = 0, *, names: Sequence[str] = NAMES, shapes: Sequence[tuple[int, int]] = SHAPES, classes: int = CLASSES
) -> tuple[Arrays, Arrays]:
    """Logits `(C, H, W)` float16 of a network that is often right, and labels `(H, W)` uint8."""
    rng = np.random.default_rng(seed)
    logits, labels = {}, {}
    for name, shape in zip(names, shapes, strict=True):
        labels[name] = rng.integers(0, classes, shape, np.uint8)
        truth = labels[name] == np.arange(classes)[:, None, None]
        logits[name] = (2.0 * rng.normal(size=truth.shape) + 2.0 * truth).astype(np.float16)
    return logits, labels


def draw_maps(seed: int = 0, *, names: Sequence[str] = NAMES, size: float = 0.0) -> tuple[Arrays, Arrays]:
    """Log-odds `(H, W)` float64 around a blob of foreground, and its masks `(H, W)` of 0 and 255."""
    rng = np.random.default_rng(seed)
    maps, masks = {}, {}
    for number, name in enumerate(names):
        terrain = gaussian_filter(rng.normal(size=SHAPES[number % len(SHAPES)]), 3) * 8 + size
        maps[name] = 4 * (terrain + 0.5 * rng.normal(size=terrain.shape))
        masks[name] = np.where(terrain > 0, 255, 0).astype(np.uint8)
    return maps, masks


LOGITS, LABELS = draw_logits()
MAPS, MASKS = draw_maps()


def softmax(logits: np.ndarray, axis: int = 0) -> np.ndarray:
    z = np.exp(np.asarray(logits, np.float64) - np.asarray(logits, np.float64).max(axis, keepdims=True))
    return z / z.sum(axis, keepdims=True)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(z, np.float64)))


def changed(arrays: Arrays, change: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    return {name: change(array) for name, array in arrays.items()}


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Float32 numbers without their lower halves."""
    return (np.asarray(values, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def as_two_bytes(values: np.ndarray) -> np.ndarray:
    """bfloat16 as the .npy format holds it: two bytes of anything."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype("<u2").view("V2")


def write(folder: Path, arrays: Mapping[str, Any], extension: str = ".npy") -> Path:
    """One file an array; mappings become the members of an .npz file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        path = folder / f"{name}{extension}"
        if extension == ".npy":
            np.save(path, array)
        elif extension == ".npz":
            np.savez_compressed(path, **(array if isinstance(array, Mapping) else {"data": array}))
        else:
            Image.fromarray(array).save(path)
    return folder


def pair(folder: Path, preds: Mapping[str, Any], gts: Arrays, extension: str = ".npy") -> tuple[object, ...]:
    """The options of a folder of predictions of a method called net, and a folder of PNG masks of a set called toy."""
    return "--pred", write(folder / "net", preds, extension), "--gt", write(folder / "toy" / "gt", gts, ".png")


# --- what calbench says -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """The JSON document of a run, and what it printed beside it."""

    document: dict[str, Any]
    said: str

    def rows(self, metric: str | None = None, **where: Any) -> list[dict[str, Any]]:
        """The results of a metric that agree with `where`; those of single classes only if asked for."""
        where = {"region": "all"} | where
        found = [row for row in self.document["results"] if metric in (None, row["metric"])]
        found = [row for row in found if all(row[key] == value for key, value in where.items())]
        return found if "options" in where else [row for row in found if "class=" not in row["options"]]

    def row(self, metric: str, **where: Any) -> dict[str, Any]:
        [row] = self.rows(metric, **({"average": "pixels"} | where))
        return row

    def value(self, metric: str, **where: Any) -> float:
        value = self.row(metric, **where)["value"]
        return np.nan if value is None else value

    @property
    def metrics(self) -> set[str]:
        return {row["metric"] for row in self.rows()}

    @property
    def conventions(self) -> dict[str, Any]:
        """Those of the first combination."""
        return self.document["combinations"][0]["conventions"]

    @property
    def said_in_one_line(self) -> str:
        return " ".join(self.said.split())


@pytest.fixture
def evaluate(calbench: Run) -> Callable[..., Report]:
    """`calbench evaluate --json`, which is expected to succeed; no bootstrap unless asked for."""

    def run(*arguments: object) -> Report:
        result = calbench("evaluate", "--json", "--n-boot", 0, *arguments)
        assert result.exit_code == 0, result.output
        return Report(json.loads(result.stdout), result.stderr)

    return run


@pytest.fixture
def refusal(calbench: Run) -> Callable[..., str]:
    """What `calbench evaluate` says as it refuses."""

    def run(*arguments: object, code: int = 1) -> str:
        result = calbench("evaluate", "--json", "--n-boot", 0, *arguments)
        assert result.exit_code == code, result.output
        assert isinstance(result.exception, SystemExit), repr(result.exception)  # not one that nobody expected
        assert not result.stdout
        return result.stderr

    return run


Evaluate = Callable[..., Report]
Refusal = Callable[..., str]
Interrupt = Callable[[int], AbstractContextManager[None]]


# --- the textbook -------------------------------------------------------------------------------------------------------


def flat(p: np.ndarray, axis: int = 0) -> np.ndarray:
    """Probabilities `(pixels, classes)`."""
    return np.moveaxis(p, axis, -1).reshape(-1, p.shape[axis])


def both(p: np.ndarray) -> np.ndarray:
    """A binary map as probabilities of two classes, `(pixels, 2)`."""
    return np.stack([1 - p.ravel(), p.ravel()], -1)


def pooled(arrays: Arrays, change: Callable[[np.ndarray], np.ndarray] = lambda array: array) -> np.ndarray:
    """The pixels of all images, one after another."""
    return np.concatenate([change(arrays[name]) for name in arrays])


def bin_of(score: np.ndarray, bins: int) -> np.ndarray:
    """Right-closed bins; what is written in another way than the edge, by a rounding error, lies on the edge."""
    return np.maximum(np.ceil((score - 2.0**-21) * bins).astype(int) - 1, 0)


def ece(score: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    index = bin_of(score, bins)
    return sum(abs((score - correct)[index == b].sum()) for b in range(bins)) / len(score)


def oe(score: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    index = bin_of(score, bins)
    of_bins = [(score[index == b], correct[index == b]) for b in np.unique(index)]
    return sum(len(s) * s.mean() * max(s.mean() - c.mean(), 0) for s, c in of_bins) / len(score)


def aece(score: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Equal mass: sums below N b / B pixels of the sorted scores, a pixel on an edge shared in proportion."""
    order = np.argsort(score)
    below = np.concatenate([[0], np.cumsum((score - correct)[order])])
    return np.abs(np.diff(np.interp(np.linspace(0, len(score), bins + 1), np.arange(len(below)), below))).sum() / len(
        score
    )


def fpr95(score: np.ndarray, positive: np.ndarray) -> float:
    """False positive rate at the first threshold, tie groups whole, that finds 95 % of the positives."""
    for threshold in np.unique(score)[::-1]:
        if (score[positive] >= threshold).sum() >= 0.95 * positive.sum():
            return (score[~positive] >= threshold).mean()
    raise AssertionError


def entropy(p: np.ndarray) -> np.ndarray:
    """Of each pixel of `(pixels, classes)`, nats."""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def textbook(p: np.ndarray, y: np.ndarray, clip: float = 0.0) -> dict[str, float]:
    """The numbers of `SHOWN` from probabilities `(pixels, classes)` and labels `(pixels,)`; two classes tie for the second."""
    classes = p.shape[1]
    truth = y[:, None] == np.arange(classes)
    decided, confidence = p.argmax(1) if classes > 2 else (p[:, 1] >= 0.5).astype(int), p.max(1)
    p_y = p[truth]
    return {
        "ece": ece(confidence, decided == y),
        "nll": -np.log(np.clip(p_y, clip, 1 - clip)).mean(),
        "brier": ((p - truth) ** 2).sum(1).mean(),
        "accuracy": (decided == y).mean(),
        "miou": jaccard_score(y, decided, average="macro"),
        "entropy": entropy(p).mean(),
        "ece_classwise": np.mean([ece(p[:, k], truth[:, k]) for k in range(classes)]),
    }


def assert_textbook(report: Report, p: np.ndarray, y: np.ndarray, *, clip: float = 0.0, **where: Any) -> None:
    for metric, expected in textbook(p, y, clip).items():
        if metric == "miou" and "region" in where:  # a region cuts objects, and with them their overlap
            assert not report.rows(metric, **where)
            continue
        assert report.value(metric, **where) == pytest.approx(expected, abs=2e-6), metric
    assert report.row("ece", **where)["n_pixels"] == len(y)


# --- logits and probabilities of several classes ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("extension", [".npy", ".npz"])
def test_logits_of_several_classes(evaluate: Evaluate, tmp_path: Path, extension: str, layout: str) -> None:
    stored = LOGITS if layout == "CHW" else changed(LOGITS, lambda z: np.moveaxis(z, 0, -1))
    report = evaluate(*pair(tmp_path, stored, LABELS, extension), "--metrics", SHOWN)
    p = changed(LOGITS, lambda z: flat(softmax(z)))
    assert_textbook(report, pooled(p), pooled(LABELS, np.ravel))
    images = [textbook(p[name], LABELS[name].ravel()) for name in NAMES]
    for metric in images[0]:
        mean = np.mean([image[metric] for image in images])
        assert report.value(metric, average="images") == pytest.approx(mean, abs=2e-6), metric
    assert f"float16 logits of 4 classes, {layout} (inferred)" in report.said
    found = {key: report.conventions[key] for key in ("input", "input_declared", "stored", "classes", "layout")}
    assert found == {"input": "logits", "input_declared": False, "stored": "float16", "classes": 4, "layout": layout}
    assert "form=multiclass" in report.row("brier")["options"]
    assert report.row("nll")["options"] == "clip=none"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_types_of_numbers(evaluate: Evaluate, tmp_path: Path, kind: str, dtype: str) -> None:
    """Files are read as they are stored; the probability of a label is clipped by the unit of the stored type."""
    scores = LOGITS if kind == "logits" else changed(LOGITS, lambda z: softmax(3 * np.float64(z)))
    if kind == "probabilities":  # one pixel is sure and wrong
        scores["a"][:, 2, 3] = np.arange(CLASSES) == (LABELS["a"][2, 3] + 1) % CLASSES
    stored = changed(scores, bfloat16 if dtype == "bfloat16" else lambda z: z.astype(dtype))
    files = changed(stored, as_two_bytes) if dtype == "bfloat16" else stored
    report = evaluate(*pair(tmp_path, files, LABELS), "--metrics", SHOWN)
    assert report.conventions["stored"] == dtype
    assert f"{dtype} {kind} of 4 classes" in report.said
    eps = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52, "bfloat16": 2.0**-7}[dtype]
    p = pooled(stored, lambda z: flat(softmax(z) if kind == "logits" else np.float64(z)))
    assert_textbook(report, p, pooled(LABELS, np.ravel), clip=0 if kind == "logits" else eps)
    if kind == "probabilities":
        assert float(report.row("nll")["options"].removeprefix("clip=")) == pytest.approx(eps, rel=1e-2)
    if (kind, dtype) == ("probabilities", "float64"):
        expected = log_loss(pooled(LABELS, np.ravel), p)
        assert report.value("nll") == pytest.approx(expected, rel=1e-12)


def test_an_ambiguous_layout_is_refused(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    logits, labels = draw_logits(1, names="ab", shapes=[(4, 4), (4, 4)])
    options = pair(tmp_path, logits, labels)
    said = refusal(*options)
    for expected in ("a.npy", "(4, 4, 4)", "--layout CHW or --layout HWC"):
        assert expected in said
    for layout, axis in (("CHW", 0), ("hwc", 2)):
        report = evaluate(*options, "--layout", layout, "--metrics", SHOWN)
        p = pooled(logits, lambda z, axis=axis: flat(softmax(z, axis), axis))
        assert_textbook(report, p, pooled(labels, np.ravel))
        assert report.conventions["layout"] == layout.upper()


def test_one_image_settles_the_layout_of_its_folder(evaluate: Evaluate, tmp_path: Path) -> None:
    logits, labels = draw_logits(1, names="ab", shapes=[(4, 4), (4, 7)])
    stored = changed(logits, lambda z: np.moveaxis(z, 0, -1))
    report = evaluate(*pair(tmp_path, stored, labels), "--metrics", SHOWN)
    assert_textbook(report, pooled(logits, lambda z: flat(softmax(z))), pooled(labels, np.ravel))


def test_the_number_of_classes_is_held_against_the_files(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    options = pair(tmp_path, LOGITS, LABELS)
    assert evaluate(*options, "--num-classes", 4, "--metrics", "ece").conventions["classes"] == 4
    said = refusal(*options, "--num-classes", 5)
    for expected in ("4 classes", "--num-classes is 5", str(tmp_path / "net")):
        assert expected in said
    assert "at least 2" in refusal(*options, "--num-classes", 1, code=2)
    said = refusal(*pair(tmp_path / "differ", {**LOGITS, "c": LOGITS["c"][:3]}, LABELS))
    assert "a.npy has 4, c.npy 3" in said


def test_one_file_may_hold_prediction_and_labels(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    p, y = pooled(LOGITS, lambda z: flat(softmax(z))), pooled(LABELS, np.ravel)
    for number, (pred, gt) in enumerate((("logits", "label"), ("predictions", "gt"), ("arr_0", "ground_truth"))):
        members = {name: {pred: LOGITS[name], gt: LABELS[name]} for name in NAMES}
        folder = write(tmp_path / f"toy{number}" / "net", members, ".npz")
        report = evaluate("--pred", folder, "--metrics", SHOWN)
        assert_textbook(report, p, y)
        assert (report.row("ece")["method"], report.row("ece")["n_images"]) == ("net", len(NAMES))
        assert_textbook(evaluate("--pred", folder, "--gt", folder, "--metrics", SHOWN), p, y)
    decoy = np.zeros((CLASSES, 5, 5), np.float16)
    members = {name: {"data": decoy, "head2": LOGITS[name], "label": decoy, "fine": LABELS[name]} for name in NAMES}
    folder = write(tmp_path / "keys" / "net", members, ".npz")
    assert_textbook(evaluate("--pred", folder, "--npz-key", "head2", "--gt-npz-key", "fine", "--metrics", SHOWN), p, y)
    said = refusal("--pred", folder, "--npz-key", "head3", "--gt-npz-key", "fine")
    for expected in ("a.npz", "'head3'", "'head2'", "--npz-key"):
        assert expected in said
    assert "--gt DIR" in refusal("--pred", write(tmp_path / "alone", LOGITS), code=2)


def test_input_may_be_declared(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    """Logits that happen to lie in [0, 1] cannot be told from probabilities that were not normalised."""
    stored = changed(LOGITS, lambda z: (z - z.min()) / np.ptp(z))
    options = pair(tmp_path, stored, LABELS)
    said = refusal(*options)
    for expected in ("a.npy", "in [0, 1]", "not 1", "--input logits"):
        assert expected in said
    report = evaluate(*options, "--input", "logits", "--metrics", SHOWN)
    assert_textbook(report, pooled(stored, lambda z: flat(softmax(z))), pooled(LABELS, np.ravel))
    assert (report.conventions["input"], report.conventions["input_declared"]) == ("logits", True)
    assert "logits (given) of 4 classes, CHW (inferred)" in report.said
    assert "--input logits" in refusal(*options, "--input", "probabilities")
    assert "4 classes" in refusal(*options, "--input", "levels", code=2)


def test_integers_of_several_classes_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    said = refusal(*pair(tmp_path, changed(LOGITS, lambda z: (10 * z).astype(np.int16)), LABELS))
    assert "int16 of 4 classes" in said
    assert "floats" in said


# --- what is wrong with a single file -----------------------------------------------------------------------------------

EVERYWHERE = pytest.mark.parametrize("odd", ["a", "e", "f"], ids=["first", "never looked at before it is read", "last"])


@EVERYWHERE
@pytest.mark.parametrize("usual", ["logits", "probabilities"])
def test_a_mixture_is_refused_wherever_it_is(refusal: Refusal, tmp_path: Path, usual: str, odd: str) -> None:
    probabilities = changed(LOGITS, lambda z: softmax(z).astype(np.float32))
    logits = changed(LOGITS, lambda z: z.astype(np.float32))
    stored, other = (logits, probabilities) if usual == "logits" else (probabilities, logits)
    said = refusal(*pair(tmp_path, {**stored, odd: other[odd]}, LABELS))
    assert f"{odd}.npy" in said or f"  {odd}\n" in said
    assert "--input logits" in said


@EVERYWHERE
def test_a_mixture_of_binary_maps_is_refused_wherever_it_is(refusal: Refusal, tmp_path: Path, odd: str) -> None:
    for number, (usual, other) in enumerate(((MAPS, changed(MAPS, sigmoid)), (changed(MAPS, sigmoid), MAPS))):
        said = refusal(*pair(tmp_path / str(number), {**usual, odd: other[odd]}, MASKS))
        assert f"{odd}.npy" in said or f"  {odd}\n" in said
        assert "--input logits" in said


def test_integers_and_floats_are_a_mixture(refusal: Refusal, tmp_path: Path) -> None:
    levels = np.round(255 * sigmoid(MAPS["e"])).astype(np.uint8)
    said = refusal(*pair(tmp_path, {**changed(MAPS, sigmoid), "e": levels}, MASKS))
    for expected in ("a.npy (float64)", "e.npy (uint8)"):
        assert expected in said


def spoilt(p: np.ndarray, value: float) -> np.ndarray:
    p = p.copy()
    p.flat[40] = value
    return p


@EVERYWHERE
@pytest.mark.parametrize(
    ("value", "found"), [(1.25, "1.25"), (np.nan, "NaN"), (np.inf, "infinite")], ids=["too high", "NaN", "Inf"]
)
@pytest.mark.parametrize("declared", [False, True], ids=["inferred", "declared"])
def test_values_that_are_no_probabilities(
    refusal: Refusal, tmp_path: Path, value: float, found: str, odd: str, declared: bool
) -> None:
    """Every error names the file, what was found in it, and the option that helps."""
    given = ("--input", "probabilities") if declared else ()
    binary, several = changed(MAPS, sigmoid), changed(LOGITS, softmax)
    for number, (preds, gts) in enumerate(((binary, MASKS), (several, LABELS))):
        said = refusal(*pair(tmp_path / str(number), {**preds, odd: spoilt(preds[odd], value)}, gts), *given)
        for expected in (f"{odd}.npy", found, *["--input logits"] * int(np.isfinite(value))):
            assert expected in said


@EVERYWHERE
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_must_be_finite(refusal: Refusal, tmp_path: Path, value: float, odd: str) -> None:
    for number, (preds, gts) in enumerate(((MAPS, MASKS), (LOGITS, LABELS))):
        said = refusal(*pair(tmp_path / str(number), {**preds, odd: spoilt(preds[odd], value)}, gts))
        for expected in (f"{odd}.npy", "NaN or infinite"):
            assert expected in said


@EVERYWHERE
def test_probabilities_that_do_not_sum_to_1(refusal: Refusal, tmp_path: Path, odd: str) -> None:
    p = changed(LOGITS, softmax)
    said = refusal(*pair(tmp_path, {**p, odd: p[odd] * 0.9}, LABELS))
    for expected in (f"{odd}.npy", "0.9", "--input logits"):
        assert expected in said


@EVERYWHERE
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_void_pixels_may_hold_anything(evaluate: Evaluate, tmp_path: Path, value: float, odd: str) -> None:
    """Following the advice of the error, to declare such pixels void, gives right numbers, whichever file has them."""
    for number, (preds, gts) in enumerate(
        ((MAPS, MASKS), (changed(MAPS, sigmoid), MASKS), (changed(LOGITS, softmax), LABELS))
    ):
        masks = changed(gts, lambda mask: np.where(mask == 255, 1, mask).astype(np.uint8))
        masks[odd].flat[40] = 255
        files = {**preds, odd: spoilt(preds[odd], value)}
        options = (*pair(tmp_path / str(number), files, masks), "--ignore-index", 255)
        clean = (*pair(tmp_path / f"{number}-clean", preds, masks), "--ignore-index", 255)
        for metric in ("ece", "brier"):
            found, expected = (evaluate(*given, "--metrics", metric).value(metric) for given in (options, clean))
            assert found == pytest.approx(expected, abs=1e-12)


def test_floats_of_two_types_in_one_folder(refusal: Refusal, tmp_path: Path) -> None:
    """One type decides how the probabilities of all images are clipped; another one would change their NLL."""
    p = changed(LOGITS, lambda z: softmax(3 * np.float64(z)).astype(np.float32))
    p["c"] = p["c"].astype(np.float16)
    said = refusal(*pair(tmp_path, p, LABELS))
    for expected in ("mix types", "c.npy (float16)", "a.npy (float32)"):
        assert expected in said


def test_percentages_and_0_to_255_floats(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    p = changed(MAPS, sigmoid)
    options = pair(tmp_path, changed(p, lambda p: 255 * p), MASKS)
    said = refusal(*options)
    for expected in ("a.npy", "to 255", "--input levels", "--input logits"):
        assert expected in said
    report = evaluate(*options, "--input", "levels", "--metrics", "ece,brier,nll")
    expected = textbook(pooled(p, both), pooled(MASKS, np.ravel) // 255, 1 / 510)
    assert report.value("ece") == pytest.approx(expected["ece"], abs=1e-9)
    assert report.value("brier") == pytest.approx(expected["brier"] / 2, abs=1e-9)
    assert report.value("nll") == pytest.approx(expected["nll"], abs=1e-9)
    said = refusal(*pair(tmp_path / "high", changed(p, lambda p: 300 * p), MASKS), "--input", "levels")
    for expected in ("a.npy", "0 to 255"):
        assert expected in said


def test_files_saved_again_are_read_again(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    """In one session, as in a notebook: what was wrong with a file is forgotten once the file is another."""
    options = pair(tmp_path, {**LOGITS, "c": LOGITS["c"][:3]}, LABELS)
    assert "c.npy 3" in refusal(*options)
    pair(tmp_path, LOGITS, LABELS)
    assert_textbook(
        evaluate(*options, "--metrics", SHOWN), pooled(LOGITS, lambda z: flat(softmax(z))), pooled(LABELS, np.ravel)
    )


# --- binary maps that are finer than 8 bits -----------------------------------------------------------------------------

FLOAT_MAPS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray], float]] = {
    # extension, log-odds -> file, file -> p, clip of the log loss
    "float16": (".npy", lambda z: sigmoid(z).astype(np.float16), np.float64, 2.0**-10),
    "float32": (".npy", lambda z: sigmoid(z).astype(np.float32), np.float64, 2.0**-23),
    "float64": (".npz", sigmoid, np.float64, 2.0**-52),
    "bfloat16": (".npy", lambda z: as_two_bytes(sigmoid(z)), lambda v: np.float64(from_two_bytes(v)), 2.0**-7),
    "16-bit PNG": (".png", lambda z: np.round(65535 * sigmoid(z)).astype(np.uint16), lambda v: v / 65535, 1 / 131070),
    "float TIFF": (".tif", lambda z: sigmoid(z).astype(np.float32), np.float64, 2.0**-23),
    "logits": (".npy", lambda z: z.astype(np.float32), sigmoid, 0.0),
    "one class": (".npy", lambda z: sigmoid(z)[None], lambda v: v[0], 2.0**-52),
}


def from_two_bytes(values: np.ndarray) -> np.ndarray:
    return (values.view("<u2").astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("kind", FLOAT_MAPS)
def test_fine_binary_maps(evaluate: Evaluate, tmp_path: Path, kind: str) -> None:
    """Exact where sums of cells are, within the reported bound where the order inside cells matters."""
    extension, to_file, to_p, clip = FLOAT_MAPS[kind]
    files = changed(MAPS, to_file)
    metrics = "ece,ece_fg,aece,aece_fg,brier,nll,accuracy,entropy,auroc,ap,miou"
    report = evaluate(*pair(tmp_path, files, MASKS, extension), "--metrics", metrics)
    p, y = pooled(files, lambda v: to_p(v).ravel()), pooled(MASKS, np.ravel) > 0
    expected = textbook(both(p), y.astype(int), clip) | {"ece_fg": ece(p, y)}
    expected["brier"] /= 2
    expected["accuracy"] = ((p >= 0.5) == y).mean()
    for metric in ("ece", "ece_fg", "brier", "nll", "accuracy", "entropy", "miou"):
        assert report.value(metric) == pytest.approx(expected[metric], abs=1e-6), metric
    bounded = {
        "aece": aece(both(p).max(1), (p >= 0.5) == y),
        "aece_fg": aece(p, y),
        "auroc": roc_auc_score(y, p),
        "ap": average_precision_score(y, p),
    }
    for metric, value in bounded.items():
        row = report.row(metric)
        assert abs(row["value"] - value) <= row["details"]["error_bound"] + 1e-6, metric
        assert row["details"]["error_bound"] < 0.05, metric
    assert report.row("brier")["options"] == "form=binary"
    stored = {"16-bit PNG": "uint16", "float TIFF": "float32", "logits": "float32", "one class": "float64"}
    assert report.conventions["stored"] == stored.get(kind, kind)
    assert report.conventions["input"] == {"logits": "logits", "16-bit PNG": "levels"}.get(kind, "probabilities")
    assert f"{report.conventions['stored']} binary {report.conventions['input']} (inferred)" in report.said


def test_saliency_metrics_of_floats_are_those_of_the_rounded_map(evaluate: Evaluate, tmp_path: Path) -> None:
    """Rounding to 8 bits may cost the saliency metrics their last digits, but never calibration."""
    p = changed(MAPS, lambda z: np.where(sigmoid(z) > 0.5, 0.7037, 0.2963) + 1e-4 * sigmoid(z))  # 0.3 levels off
    options = pair(tmp_path, p, MASKS)
    rounded = pair(tmp_path / "rounded", changed(p, lambda p: np.round(255 * p).astype(np.uint8)), MASKS, ".png")
    report, eight_bit = evaluate(*options), evaluate(*rounded)
    assert SALIENCY & report.metrics == SALIENCY & eight_bit.metrics >= {"mae", "max_f", "s_measure", "weighted_f"}
    for metric in SALIENCY & report.metrics:
        where = {"average": "images"}
        assert report.value(metric, **where) == eight_bit.value(metric, **where), metric
    y = pooled(MASKS, np.ravel) > 0
    exact = textbook(pooled(p, both), y.astype(int))
    assert report.value("ece") == pytest.approx(exact["ece"], abs=1e-9)
    assert report.value("brier") == pytest.approx(exact["brier"] / 2, abs=1e-9)
    assert abs(eight_bit.value("ece") - exact["ece"]) > 1e-3
    assert "quantisation_bound" not in report.metrics


def test_results_say_that_saliency_metrics_read_a_rounded_map(evaluate: Evaluate, tmp_path: Path) -> None:
    for kind, rounded in (("float32", True), ("16-bit PNG", True), ("8-bit", False)):
        extension, to_file = (
            FLOAT_MAPS[kind][:2] if rounded else (".png", lambda z: np.round(255 * sigmoid(z)).astype("u1"))
        )
        report = evaluate(
            *pair(tmp_path / kind, changed(MAPS, to_file), MASKS, extension), "--metrics", "mae,max_f,ece,brier"
        )
        assert ("saliency metrics from the map rounded to 8 bits" in report.said) == rounded
        told = {row["metric"] for row in report.document["results"] if "rounded" in row["options"]}
        assert told == ({"mae", "max_f"} if rounded else set())


def test_a_png_folder_and_its_float_copy_give_the_same_numbers(calbench: Run, tmp_path: Path) -> None:
    levels = changed(MAPS, lambda z: np.round(255 * sigmoid(2 * z)).astype(np.uint8))
    write(tmp_path / "preds" / "png", levels, ".png")
    write(tmp_path / "preds" / "npy", changed(levels, lambda v: (v / 255).astype(np.float32)))
    write(tmp_path / "preds" / "npy of bytes", levels)
    gt, out = write(tmp_path / "gt", MASKS, ".png"), tmp_path / "out"
    given = ("--pred", f"{tmp_path}/preds/{{method}}", "--gt", gt, "-o", out, "--n-boot", 0, "--json")
    result = calbench("evaluate", *given, "--dataset", "toy")
    assert result.exit_code == 0, result.output
    report = Report(json.loads(result.stdout), result.stderr)
    for metric, tolerance in {
        "ece": 1e-7,
        "ece_fg": 1e-7,
        "brier": 1e-7,
        "accuracy": 0,
        "miou": 0,
        "entropy": 1e-6,
    }.items():
        png, npy = (report.value(metric, method=method) for method in ("png", "npy"))
        assert npy == pytest.approx(png, abs=tolerance), metric
    for metric in ("aece", "aece_fg", "auroc", "ap", "auroc_error", "aupr_error", "fpr95_error", "aurc"):
        bound = report.row(metric, method="npy")["details"]["error_bound"] + 1e-7
        png, npy = (report.value(metric, method=method) for method in ("png", "npy"))
        assert abs(npy - png) <= bound, metric
    as_bytes, as_png = (report.rows(method=method) for method in ("npy of bytes", "png"))
    assert [row["value"] for row in as_bytes] == [row["value"] for row in as_png]
    bins = pd.read_csv(out / "reliability.csv").set_index(["event", "bin"])
    png, npy = (bins[bins.method == method] for method in ("png", "npy"))
    assert len(png) == len(npy) == 30
    pd.testing.assert_series_equal(png.n, npy.n)
    for column in ("confidence", "accuracy"):
        np.testing.assert_allclose(png[column], npy[column], atol=1e-7)


# --- label masks --------------------------------------------------------------------------------------------------------


def palette_png(folder: Path, labels: Arrays) -> Path:
    """The labels as indices of a palette of colours."""
    folder.mkdir(parents=True)
    for name, array in labels.items():
        image = Image.fromarray(array)
        image.putpalette([(37 * i) % 256 for i in range(768)])
        image.save(folder / f"{name}.png")
    return folder


def test_label_masks_of_every_kind(evaluate: Evaluate, tmp_path: Path) -> None:
    pred = write(tmp_path / "net", LOGITS)
    masks = [
        write(tmp_path / "grey" / "gt", LABELS, ".png"),
        palette_png(tmp_path / "palette" / "gt", LABELS),
        write(tmp_path / "npy" / "gt", changed(LABELS, np.int64)),
        write(tmp_path / "npz" / "gt", changed(LABELS, lambda y: {"label": y}), ".npz"),
        write(tmp_path / "one" / "gt", changed(LABELS, lambda y: y[None].astype(np.float32))),
    ]
    p, y = pooled(LOGITS, lambda z: flat(softmax(z))), pooled(LABELS, np.ravel)
    for gt in masks:
        assert_textbook(evaluate("--pred", pred, "--gt", gt, "--metrics", SHOWN), p, y)


def test_ignored_labels(evaluate: Evaluate, tmp_path: Path) -> None:
    """0 and -1 are legal, the option repeats, and ignored pixels enter nothing."""
    raw = changed(LABELS, np.int64)
    raw["b"][3:6] = -1
    raw["c"][:, 4:6] = 9
    raw["f"][:] = -1
    pred, gt = write(tmp_path / "net", LOGITS), write(tmp_path / "toy" / "gt", raw)
    ignored = ("--ignore-index", -1, "--ignore-index", 9)
    for given, void in ((ignored, (-1, 9)), ((*ignored, "--ignore-index", 0), (-1, 9, 0))):
        report = evaluate("--pred", pred, "--gt", gt, *given, "--metrics", SHOWN)
        y = pooled(raw, np.ravel)
        kept = ~np.isin(y, void)
        if 0 not in void:
            assert_textbook(report, pooled(LOGITS, lambda z: flat(softmax(z)))[kept], y[kept])
        p = pooled(LOGITS, lambda z: flat(softmax(z)))[kept]
        assert report.row("ece")["n_pixels"] == kept.sum()
        assert report.row("ece", average="images")["n_undefined"] == 1
        assert report.value("ece") == pytest.approx(ece(p.max(1), p.argmax(1) == y[kept]), abs=1e-6)
        assert report.conventions["ignore_index"] == list(void)
        assert f"void {'/'.join(map(str, void))}" in report.said


def test_ignored_labels_of_binary_masks(evaluate: Evaluate, tmp_path: Path) -> None:
    raw = changed(MASKS, lambda m: m // 255)
    raw["b"][3:6] = 255
    p = changed(MAPS, sigmoid)
    report = evaluate(*pair(tmp_path, p, raw), "--ignore-index", 255, "--metrics", "ece,brier")
    y = pooled(raw, np.ravel)
    kept = y != 255
    assert report.value("brier") == pytest.approx(((pooled(p, np.ravel) - y)[kept] ** 2).mean(), abs=1e-12)
    assert report.row("brier")["n_pixels"] == kept.sum()
    assert report.conventions["void_values"] == [255]


def test_fields_of_view(evaluate: Evaluate, tmp_path: Path) -> None:
    """Pixels outside are void, as ignored labels are."""
    inside = changed(LABELS, lambda y: np.where(np.arange(17) < 11, 255, 0).astype(np.uint8) + np.zeros_like(y))
    raw = changed(LABELS, np.copy)
    raw["b"][3:6] = 9
    options = (*pair(tmp_path, LOGITS, raw), "--mask", write(tmp_path / "fov", inside, ".png"), "--ignore-index", 9)
    report = evaluate(*options, "--metrics", SHOWN)
    kept = (pooled(inside, np.ravel) > 0) & (pooled(raw, np.ravel) != 9)
    assert_textbook(report, pooled(LOGITS, lambda z: flat(softmax(z)))[kept], pooled(raw, np.ravel)[kept])
    assert report.conventions["field_of_view"] == "0/255"


def test_labels_from_1(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    raw = changed(LABELS, lambda y: y + 1)
    raw["a"][2:4] = 0
    raw["d"][:, 9] = 255
    options = pair(tmp_path, LOGITS, raw)
    report = evaluate(*options, "--reduce-zero-label", "--metrics", SHOWN)
    y = pooled(raw, np.ravel)
    kept = (y > 0) & (y < 255)
    assert_textbook(report, pooled(LOGITS, lambda z: flat(softmax(z)))[kept], y[kept] - 1)
    assert report.conventions["reduce_zero_label"] is True
    assert "labels from 1, 0 void" in report.said
    assert "--label-map" in refusal(*options, "--reduce-zero-label", "--label-map", tmp_path / "map.json", code=2)
    binary = pair(tmp_path / "binary", changed(MAPS, sigmoid), MASKS)
    assert "binary maps" in refusal(*binary, "--reduce-zero-label", code=2)


def test_label_maps(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    to_raw = np.array([7, 26, 8, 200], np.uint8)
    raw = changed(LABELS, lambda y: to_raw[y])
    raw["e"][5] = 3
    options = pair(tmp_path, LOGITS, raw)
    (tmp_path / "map.json").write_text('{"7": 0, "26": 1, "8": 2, "200": 3, "3": "ignore"}', "utf-8")
    (tmp_path / "map.csv").write_text("id,class\n7,0\n26,1\n8,2\n200,3\n3,-1\n", "utf-8")
    y = pooled(LABELS, np.ravel)
    kept = pooled(raw, np.ravel) != 3
    for file in ("map.json", "map.csv"):
        report = evaluate(*options, "--label-map", tmp_path / file, "--metrics", SHOWN)
        assert_textbook(report, pooled(LOGITS, lambda z: flat(softmax(z)))[kept], y[kept])
        assert report.conventions["label_map"] == {"3": -1, "7": 0, "8": 2, "26": 1, "200": 3}
        assert "a label map of 5 values" in report.said
    (tmp_path / "short.csv").write_text("7,0\n26,1\n8,2\n200,3\n", "utf-8")
    said = refusal(*options, "--label-map", tmp_path / "short.csv")
    for expected in ("e.png", "3", "--label-map", "--ignore-index"):
        assert expected in said


def test_labels_out_of_range_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    raw = dict(LABELS)
    raw["d"] = np.where(np.arange(17) == 5, 255, raw["d"]).astype(np.uint8)
    said = refusal(*pair(tmp_path, LOGITS, raw))
    for expected in (
        "d.png", "255", "0..3 for 4 classes", "--ignore-index", "--label-map", "--reduce-zero-label", "--num-classes",
    ):  # fmt: skip
        assert expected in said


# --- another resolution -------------------------------------------------------------------------------------------------


def resized(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Each plane interpolated by Pillow's bilinear filter, as float32."""
    images = [Image.fromarray(np.asarray(plane, np.float32)) for plane in planes]
    return np.stack([np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)) for image in images])


@pytest.mark.parametrize("layout", ["CHW", "HWC"])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_predictions_of_another_resolution(
    evaluate: Evaluate, refusal: Refusal, tmp_path: Path, kind: str, layout: str
) -> None:
    """Logits or probabilities are interpolated, never labels; it is an error by default, and recorded."""
    low, _ = draw_logits(5, shapes=[(7, 9)] * len(NAMES))
    scores = low if kind == "logits" else changed(low, lambda z: softmax(z).astype(np.float32))
    stored = scores if layout == "CHW" else changed(scores, lambda z: np.moveaxis(z, 0, -1))
    options = (*pair(tmp_path, stored, LABELS), "--layout", layout)
    said = refusal(*options)
    for expected in ("6 of 6 predictions", "a.npy 9x7, mask 17x12", "--on-mismatch resize-pred"):
        assert expected in said
    report = evaluate(*options, "--on-mismatch", "resize-pred", "--metrics", SHOWN)
    grown = {name: resized(scores[name], LABELS[name].shape) for name in NAMES}
    p = pooled(grown, lambda z: flat(softmax(z) if kind == "logits" else np.float64(z)))
    assert_textbook(report, p, pooled(LABELS, np.ravel), clip=0 if kind == "logits" else 2.0**-23)
    assert "6 predictions of another size resized to their mask (bilinear)" in " ".join(report.document["notes"])
    assert report.document["collected"]["on_mismatch"] == "resize-pred"
    assert "nothing is left" in refusal(*options, "--on-mismatch", "skip")


def test_one_prediction_of_another_resolution(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    """The others tell the layout; the message is about the one that is odd."""
    stored = {**LOGITS, "d": draw_logits(5, names="d", shapes=[(7, 9)])[0]["d"]}
    options = pair(tmp_path, stored, LABELS)
    said = refusal(*options)
    for expected in ("1 of 6 predictions", "d.npy 9x7, mask 17x13", "--on-mismatch"):
        assert expected in said
    p = {name: flat(softmax(resized(z, LABELS[name].shape) if name == "d" else z)) for name, z in stored.items()}
    report = evaluate(*options, "--on-mismatch", "resize-pred", "--metrics", SHOWN)
    assert_textbook(report, pooled(p), pooled(LABELS, np.ravel))
    report = evaluate(*options, "--on-mismatch", "skip", "--metrics", SHOWN)
    others = [name for name in NAMES if name != "d"]
    y = np.concatenate([LABELS[name].ravel() for name in others])
    assert_textbook(report, np.concatenate([p[name] for name in others]), y)
    assert "1 prediction of another size skipped" in " ".join(report.document["notes"])


@pytest.mark.parametrize("odd", [NAMES, ("c",)], ids=["all", "one"])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "16-bit PNG", "logits"])
def test_fine_binary_maps_of_another_resolution(
    evaluate: Evaluate, tmp_path: Path, kind: str, odd: Sequence[str]
) -> None:
    extension, to_file, to_p, clip = FLOAT_MAPS[kind]
    stored = {name: z[::2, ::2].copy() if name in odd else z for name, z in MAPS.items()}
    files = changed(stored, to_file)
    options = pair(tmp_path, files, MASKS, extension)
    report = evaluate(*options, "--on-mismatch", "resize-pred", "--metrics", "ece,brier,nll")
    p = {}
    for name, values in files.items():
        if kind == "logits":
            p[name] = sigmoid(resized(values[None], MASKS[name].shape)[0] if name in odd else values)
        else:
            p[name] = resized(to_p(values)[None], MASKS[name].shape)[0] if name in odd else to_p(values)
    expected = textbook(pooled(changed(p, np.float64), both), pooled(MASKS, np.ravel) // 255, clip)
    assert report.value("ece") == pytest.approx(expected["ece"], abs=1e-6)
    assert report.value("brier") == pytest.approx(expected["brier"] / 2, abs=1e-6)
    assert report.value("nll") == pytest.approx(expected["nll"], abs=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_coarse_probabilities_of_another_resolution(evaluate: Evaluate, tmp_path: Path, dtype: str) -> None:
    """Interpolated in float32, they still add up to 1 no closer than they were stored."""
    p = changed(draw_logits(5, shapes=[(7, 9)] * len(NAMES), classes=12)[0], softmax)
    stored = changed(p, bfloat16 if dtype == "bfloat16" else lambda p: p.astype(np.float16))
    labels = draw_logits(5, classes=12)[1]
    files = changed(stored, as_two_bytes) if dtype == "bfloat16" else stored
    options = (*pair(tmp_path, files, labels), "--layout", "CHW", "--on-mismatch", "resize-pred")
    report = evaluate(*options, "--metrics", SHOWN)
    grown = {name: resized(stored[name], labels[name].shape) for name in NAMES}
    assert_textbook(
        report,
        pooled(grown, lambda p: flat(np.float64(p))),
        pooled(labels, np.ravel),
        clip=2.0**-7 if dtype == "bfloat16" else 2.0**-10,
    )


# --- classification tables ----------------------------------------------------------------------------------------------

NOT_OF_TABLES = SALIENCY | {"ece_fg", "aece_fg", "auroc", "ap", "quantisation_bound"}
NOT_OF_DECISIONS = NOT_OF_TABLES | {"nll", "brier", "entropy", "ece_classwise", "tace", "corp_miscalibration"}


def draw_volumes(seed: int, cases: Sequence[str], shift: float = 0.0) -> tuple[Arrays, Arrays]:
    """Probabilities and masks `(H, W, slices)` of volumes whose slices are alike."""
    rng = np.random.default_rng(seed)
    p, masks = {}, {}
    for case in cases:
        terrain = gaussian_filter(rng.normal(size=(12, 17, N_SLICES)), (3, 3, 1)) * 12 + shift
        p[case] = sigmoid(4 * terrain + rng.normal(size=terrain.shape))
        masks[case] = np.where(terrain > 0, 255, 0).astype(np.uint8)
    return p, masks


def draw_table(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(n, C)` float32 and labels `(n,)`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, n)
    return (2 * rng.normal(size=(n, CLASSES)) + 2 * np.eye(CLASSES)[labels]).astype(np.float32), labels


def write_csv(path: Path, p: np.ndarray, labels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame({"true_label": labels, "pred_label": p.argmax(1), "confidence": p.max(1)})
    frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("n", [40, 3000])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_tables_of_scores(evaluate: Evaluate, tmp_path: Path, kind: str, n: int) -> None:
    logits, labels = draw_table(n)
    p = softmax(logits, 1)
    members = {"logits": logits} if kind == "logits" else {"probabilities": p}
    folder = write(tmp_path / "toy", {"net": members | {"label": labels}}, ".npz")
    report = evaluate("--pred", folder / "net.npz", "--n-boot", 40)
    assert_textbook(report, p, labels, clip=0 if kind == "logits" else 2.0**-52)
    row = report.row("nll")
    assert (row["dataset"], row["method"], row["n_pixels"]) == ("toy", "net", n)
    assert row["n_images"] == len(np.unique(sample_groups(n)))
    assert row["low"] < row["value"] < row["high"]
    assert report.conventions == {"input": "table", "samples": "hash groups"} | report.conventions
    assert "hash groups" in report.said
    assert not NOT_OF_TABLES & report.metrics
    assert {row["average"] for row in report.rows()} == {"pixels"}
    assert all(row["value"] is not None for row in report.document["results"])


@pytest.mark.parametrize("n", [40, 3000])
def test_tables_of_decisions(evaluate: Evaluate, refusal: Refusal, tmp_path: Path, n: int) -> None:
    logits, labels = draw_table(n)
    p = softmax(logits, 1)
    path = write_csv(tmp_path / "toy" / "net.csv", p, labels)
    report = evaluate("--pred", path)
    expected = textbook(p, labels)
    for metric in ("ece", "accuracy", "miou"):
        assert report.value(metric) == pytest.approx(expected[metric], abs=1e-12), metric
    assert report.row("ece")["n_images"] == len(np.unique(sample_groups(n)))
    assert report.row("ece")["n_pixels"] == n
    assert not NOT_OF_DECISIONS & report.metrics
    assert all(row["value"] is not None for row in report.document["results"])
    said = refusal("--pred", path, "--metrics", "nll,ece")
    assert "nll cannot be computed" in said


def test_tables_of_several_methods(calbench: Run, tmp_path: Path) -> None:
    expected = {}
    for seed, method in enumerate(("net", "résnet")):
        logits, labels = draw_table(60, seed)
        p = softmax(logits, 1)
        write_csv(tmp_path / "toy" / f"{method}.csv", p, labels)
        expected[method] = ece(p.max(1), p.argmax(1) == labels)
    (tmp_path / "toy" / "notes.txt").write_text("not a table", "utf-8")
    out = tmp_path / "out"
    result = calbench("evaluate", "--pred", f"{tmp_path}/toy/{{method}}.csv", "-o", out, "--n-boot", 40)
    assert result.exit_code == 0, result.output
    assert "toy: 60 samples, resampled in 60 groups" in result.stdout
    assert "…" not in result.stdout
    table = pd.read_csv(out / "summary.csv")
    assert set(table.dataset) == {"toy"}
    assert not table.value.isna().any()
    found = table[table.metric == "ece"].set_index("method").value
    assert dict(found) == pytest.approx(expected, abs=1e-12)
    per_class = pd.read_csv(out / "per_class.csv")
    assert list(per_class.columns[:5]) == ["dataset", "method", "calibrator", "region", "class"]
    assert len(per_class) == 2 * CLASSES
    assert pd.read_csv(out / "per_image.csv").empty, "samples are no images"


def test_what_does_not_go_with_tables(refusal: Refusal, tmp_path: Path) -> None:
    logits, labels = draw_table(40)
    path = write_csv(tmp_path / "toy" / "net.csv", softmax(logits, 1), labels)
    gt = write(tmp_path / "gt", {"net": np.zeros((3, 5), np.uint8)}, ".png")
    assert "leave out --gt" in refusal("--pred", path, "--gt", gt, code=2)
    mixed = write(tmp_path / "mixed", {"a": {"logits": LOGITS["a"], "label": LABELS["a"]}}, ".npz")
    write_csv(mixed / "b.csv", softmax(logits, 1), labels)
    assert "tables and maps" in refusal("--pred", mixed)
    bad = {"net": {"logits": np.where(logits == logits[7, 1], np.nan, logits), "label": labels}}
    write(tmp_path / "nan", bad, ".npz")
    said = refusal("--pred", tmp_path / "nan" / "net.npz")
    for expected in ("net.npz", "NaN"):
        assert expected in said
    write(tmp_path / "labels", {"net": {"logits": logits, "label": np.where(np.arange(40) == 4, 9, labels)}}, ".npz")
    said = refusal("--pred", tmp_path / "labels" / "net.npz")
    for expected in ("net.npz", "label values 9", "--ignore-index"):
        assert expected in said


def test_ignored_labels_of_tables(evaluate: Evaluate, tmp_path: Path) -> None:
    logits, labels = draw_table(40)
    p, raw = softmax(logits, 1), np.where(np.arange(40) < 3, 9, labels)
    path = write(tmp_path / "toy", {"net": {"logits": logits, "label": raw}}, ".npz") / "net.npz"
    assert_textbook(evaluate("--pred", path, "--ignore-index", 9, "--metrics", SHOWN), p[3:], labels[3:])
    path = write_csv(tmp_path / "toy" / "net.csv", p, raw)
    report = evaluate("--pred", path, "--ignore-index", 9, "--metrics", "ece,accuracy")
    assert report.value("ece") == pytest.approx(textbook(p[3:], labels[3:])["ece"], abs=1e-12)
    assert report.row("ece")["n_pixels"] == 37


# --- volumes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def save_volume() -> Callable[[Path, np.ndarray], None]:
    nibabel = pytest.importorskip("nibabel")

    def save(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.Nifti1Image(array, np.eye(4), dtype=array.dtype).to_filename(path)

    return save


SaveVolume = Callable[[Path, np.ndarray], None]
CASES = [f"case{number}" for number in range(6)]


def numbers(report: Report, *columns: str) -> dict[tuple[str, ...], tuple[Any, ...]]:
    keys = ("dataset", "metric", "average", "options", "region")
    return {tuple(row[key] for key in keys): tuple(row[c] for c in columns) for row in report.document["results"]}


def slices_of(volumes: Arrays) -> Arrays:
    return {f"{case}_{z}": volume[..., z] for case, volume in volumes.items() for z in range(volume.shape[2])}


@pytest.mark.parametrize("regions", [False, True], ids=["whole", "regions"])
@pytest.mark.parametrize("stored", ["uint8", "float32"])
def test_slices_of_a_volume_are_resampled_together(
    evaluate: Evaluate, tmp_path: Path, save_volume: SaveVolume, stored: str, regions: bool
) -> None:
    """The same numbers and limits as a folder of slices with `--group-by`."""
    p, masks = draw_volumes(3, CASES)
    preds = changed(p, lambda p: np.round(255 * p).astype(np.uint8) if stored == "uint8" else p.astype(np.float32))
    volumes = tmp_path / "volumes"
    for case in CASES:
        save_volume(volumes / "net" / f"{case}.nii.gz", preds[case])
        save_volume(volumes / "toy" / "gt" / f"{case}.nii.gz", masks[case])
    extension = ".png" if stored == "uint8" else ".npy"
    slices = pair(tmp_path / "slices", slices_of(preds), slices_of(masks), extension)
    given = ("--n-boot", 40, "--metrics", "ece,brier,nll,auroc,mae,s_measure")
    given += ("--regions", "--boundary-width", 2) if regions else ()
    report = evaluate("--pred", volumes / "net", "--gt", volumes / "toy" / "gt", *given)
    expected = evaluate(*slices, "--group-by", "^(case.)", *given)
    columns = ("value", "low", "high", "n_images", "n_pixels")
    assert numbers(report, *columns) == numbers(expected, *columns)
    assert report.row("brier")["low"] is not None
    assert report.row("brier")["n_images"] == len(CASES) * N_SLICES
    assert "each volume one resampling unit" in report.said
    assert "slices" in report.conventions["volumes"]
    alone = evaluate(*slices, *given)
    assert numbers(alone, "low") != numbers(expected, "low"), "slices are not independent"


def test_volumes_with_nothing_to_find(evaluate: Evaluate, tmp_path: Path, save_volume: SaveVolume) -> None:
    """They stay whole, whatever groups the data set has."""
    p, masks = draw_volumes(3, CASES)
    outside = draw_volumes(4, CASES[:5], shift=-1.0)[0]
    for case in CASES:
        save_volume(tmp_path / "net" / f"{case}.nii", p[case])
        save_volume(tmp_path / "toy" / "gt" / f"{case}.nii", masks[case])
    for case, volume in outside.items():
        save_volume(tmp_path / "tex" / f"{case}.nii", volume)
    options = ("--pred", tmp_path / "net", "--gt", tmp_path / "toy" / "gt", "--ood", f"tex={tmp_path / 'tex'}")
    given = ("--n-boot", 40, "--metrics", "ood_entropy,ood_ece,ood_auroc,ece")
    report = evaluate(*options, *given)
    pixels = {case: both(volume) for case, volume in outside.items()}
    assert report.value("ood_entropy", dataset="tex") == pytest.approx(entropy(pooled(pixels)).mean(), abs=1e-9)
    assert report.row("ood_entropy", dataset="tex")["n_images"] == 5 * N_SLICES
    grouped = evaluate(*options, *given, "--group-by", "^(case.)")
    assert numbers(report, "value", "low", "high") == numbers(grouped, "value", "low", "high")


def test_volumes_of_several_classes(evaluate: Evaluate, tmp_path: Path, save_volume: SaveVolume) -> None:
    preds, gts = {}, {}
    for case in range(2):
        logits, labels = draw_logits(case, names="abc", shapes=[(12, 17)] * 3)
        volume = np.stack([np.moveaxis(z, 0, -1) for z in logits.values()], 2).astype(np.float32)
        save_volume(tmp_path / "net" / f"case{case}.nii", volume)
        save_volume(tmp_path / "toy" / "gt" / f"case{case}.nii", np.stack(list(labels.values()), -1))
        preds |= {f"{case}{name}": z for name, z in logits.items()}
        gts |= {f"{case}{name}": y for name, y in labels.items()}
    report = evaluate("--pred", tmp_path / "net", "--gt", tmp_path / "toy" / "gt", "--metrics", SHOWN)
    assert_textbook(report, pooled(preds, lambda z: flat(softmax(z))), pooled(gts, np.ravel))
    assert report.row("ece")["n_images"] == 6


# --- regions ------------------------------------------------------------------------------------------------------------


def near_another_class(target: np.ndarray, valid: np.ndarray, width: float) -> np.ndarray:
    """Every pair of valid pixels: is there one of another class within `width` pixels?"""
    at = np.argwhere(valid)
    labels = target[valid]
    squared = ((at[:, None] - at[None]) ** 2).sum(-1)
    out = np.zeros(target.shape, bool)
    out[valid] = ((squared <= width**2) & (labels[:, None] != labels[None])).any(1)
    return out


def region_masks(target: np.ndarray, valid: np.ndarray, width: float, *, binary: bool) -> dict[str, np.ndarray]:
    boundary = near_another_class(target, valid, width)
    inside = valid & ~boundary
    if not binary:
        return {"boundary": boundary, "interior": inside}
    return {"boundary": boundary, "interior_fg": inside & (target > 0), "interior_bg": inside & (target == 0)}


REGION_SETS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "8-bit": lambda z: np.round(255 * sigmoid(z)).astype(np.uint8),
    "16-bit": lambda z: np.round(65535 * sigmoid(z)).astype(np.uint16),
    "float": sigmoid,
}
TOP = {"8-bit": 255, "16-bit": 65535, "float": 1}


@pytest.mark.parametrize("kind", REGION_SETS)
@pytest.mark.parametrize("width", [1, 2.5])
def test_regions_of_binary_maps(evaluate: Evaluate, tmp_path: Path, kind: str, width: float) -> None:
    """Disjoint, adding up to the whole; void pixels are in none, and make no boundary."""
    masks = changed(MASKS, np.copy)
    masks["b"][2:5, 3:9] = 7
    files = changed(MAPS, REGION_SETS[kind])
    options = pair(tmp_path, files, masks, ".npy" if kind == "float" else ".png")
    given = ("--void-value", 7, "--regions", "--boundary-width", width, "--metrics", "ece,brier,accuracy,auroc,mae")
    report = evaluate(*options, *given)
    p, y = changed(files, lambda v: v / TOP[kind]), changed(masks, lambda m: m == 255)
    inside = {name: region_masks(y[name], masks[name] != 7, width, binary=True) for name in NAMES}
    share = total = 0.0
    for region in ("boundary", "interior_fg", "interior_bg"):
        chosen = np.concatenate([inside[name][region].ravel() for name in NAMES])
        p_in, y_in = pooled(p, np.ravel)[chosen], pooled(y, np.ravel)[chosen]
        row = report.row("brier", region=region)
        assert row["n_pixels"] == chosen.sum() > 0
        assert row["value"] == pytest.approx(((p_in - y_in) ** 2).mean(), abs=1e-9)
        expected = ece(both(p_in).max(1), (p_in >= 0.5) == y_in)
        assert report.value("ece", region=region) == pytest.approx(expected, abs=1e-9)
        total, share = total + row["n_pixels"], share + row["n_pixels"] * row["value"]
    assert total == report.row("brier")["n_pixels"] == sum((m != 7).sum() for m in masks.values())
    assert share / total == pytest.approx(report.value("brier"), abs=1e-12)
    both_outcomes = roc_auc_score(
        np.concatenate([y[name][inside[name]["boundary"]] for name in NAMES]),
        np.concatenate([p[name][inside[name]["boundary"]] for name in NAMES]),
    )
    row = report.row("auroc", region="boundary")
    assert row["value"] == pytest.approx(both_outcomes, abs=row["details"].get("error_bound", 0) + 1e-12)
    assert np.isnan(report.value("auroc", region="interior_fg"))
    assert not report.rows("mae", region="boundary")
    assert report.document["collected"]["boundary_width"] == width


def test_regions_of_several_classes(evaluate: Evaluate, tmp_path: Path) -> None:
    """The void value leaves holes; a boundary is where any two classes meet."""
    rng = np.random.default_rng(4)
    labels = {name: np.digitize(gaussian_filter(rng.normal(size=s), 3), [-0.08, 0, 0.08]).astype(np.uint8)
              for name, s in zip(NAMES, SHAPES, strict=True)}  # fmt: skip
    raw = changed(labels, np.copy)
    raw["c"][4:8, 5:9] = 255
    options = pair(tmp_path, LOGITS, raw)
    report = evaluate(*options, "--ignore-index", 255, "--regions", "--boundary-width", 2, "--metrics", SHOWN)
    inside = {name: region_masks(raw[name], raw[name] != 255, 2, binary=False) for name in NAMES}
    counted = []
    for region in ("boundary", "interior"):
        p = np.concatenate([flat(softmax(LOGITS[name]))[inside[name][region].ravel()] for name in NAMES])
        y = np.concatenate([raw[name][inside[name][region]] for name in NAMES])
        assert_textbook(report, p, y, region=region)
        counted.append((len(y), report.value("brier", region=region)))
    assert np.average([b for _, b in counted], weights=[n for n, _ in counted]) == pytest.approx(report.value("brier"))
    assert sum(n for n, _ in counted) == report.row("ece")["n_pixels"]
    assert {row["region"] for row in report.document["results"]} == {"all", "boundary", "interior"}


def test_quarters_by_size_are_selections_of_images(evaluate: Evaluate, tmp_path: Path) -> None:
    """A quarter has the numbers of a folder of its images alone; images without foreground are in none."""
    names = "abcdefghij"
    maps, masks = {}, {}
    for number, name in enumerate(names):
        one = draw_maps(number, names=[name], size=0.35 * (number - 4))
        maps |= one[0]
        masks |= one[1]
    masks["a"][:] = 0
    p = changed(maps, sigmoid)
    report = evaluate(*pair(tmp_path, p, masks), "--regions", "--metrics", "ece,brier,nll,auroc,mae,max_f")
    share = {name: (mask > 0).mean() for name, mask in masks.items() if mask.any()}
    edges = np.quantile(list(share.values()), (0.25, 0.5, 0.75))
    seen: list[str] = []
    for quarter in range(4):
        chosen = [name for name in share if (share[name] > edges).sum() == quarter]
        region = f"size_q{quarter + 1}"
        part = {name: p[name] for name in chosen}
        alone = evaluate(*pair(tmp_path / region, part, {name: masks[name] for name in chosen}),
                         "--metrics", "ece,brier,nll,auroc")  # fmt: skip
        for metric in ("ece", "brier", "nll", "auroc"):
            for average in ("pixels", "images"):
                here, there = (
                    r.row(metric, average=average, region=where) for r, where in ((report, region), (alone, "all"))
                )
                assert here["value"] == pytest.approx(there["value"], rel=1e-12), (metric, average)
                for column in ("n_images", "n_undefined", "n_pixels"):
                    assert here[column] == there[column], (metric, average, column)
        assert not report.rows("max_f", region=region)
        seen += chosen
    assert sorted(seen) == sorted(share)
    assert "a" not in seen


def test_every_table_says_which_region_it_is_about(calbench: Run, tmp_path: Path) -> None:
    options = pair(tmp_path, changed(MAPS, sigmoid), MASKS)
    out = tmp_path / "out"
    result = calbench("evaluate", *options, "--regions", "--boundary-width", 2, "-o", out, "--n-boot", 40)
    assert result.exit_code == 0, result.output
    regions = {"boundary", "interior_fg", "interior_bg", "size_q1", "size_q2", "size_q3", "size_q4"}
    for file in CSV:
        table = pd.read_csv(out / file)
        assert set(table.region) == ({"all"} if file == "curves.csv" else {"all", *regions}), file
    table = pd.read_csv(out / "summary.csv")
    assert set(table[table.metric.isin(SALIENCY | OF_WHOLE_IMAGES)].region) == {"all"}
    assert set(table.metric) >= OF_WHOLE_IMAGES
    assert set(table[table.metric.isin(["ece", "nll", "accuracy", "auroc"])].region) == {"all", *regions}
    per_image = pd.read_csv(out / "per_image.csv")
    assert per_image[per_image.region == "boundary"].mae.isna().all()
    parts = per_image[per_image.region.isin(["boundary", "interior_fg", "interior_bg"])].groupby("image").n_pixels.sum()
    assert dict(parts) == {name: mask.size for name, mask in MASKS.items()}
    assert "toy by region" in result.stdout
    assert "net boundary" in result.stdout


def test_the_boundary_width_is_checked(refusal: Refusal, tmp_path: Path) -> None:
    options = pair(tmp_path, changed(MAPS, sigmoid), MASKS)
    assert "--boundary-width is -1" in refusal(*options, "--regions", "--boundary-width", -1, code=2)


# --- out-of-distribution sets -------------------------------------------------------------------------------------------

SCORES, LEVELS = ("entropy", "maxprob"), ("pixel", "image")
DETECTION = ("ood_auroc", "ood_aupr_in", "ood_aupr_out", "ood_fpr95")
OUTSIDE = dict(zip("uvwxy", [z - 1.5 for z in draw_maps(7, names="uvwxy")[0].values()], strict=True))
OUTSIDE_LOGITS = changed(draw_logits(8, names="uvwxy", shapes=SHAPES[:5])[0], lambda z: z * np.float16(0.6))


def option(row: Mapping[str, Any], name: str) -> str | None:
    return dict(part.split("=", 1) for part in row["options"].split(";") if part).get(name)


def detection(report: Report, dataset: str, level: str, score: str, **where: Any) -> dict[str, dict[str, Any]]:
    """The rows of the four detection metrics."""
    rows = [row for metric in DETECTION for row in report.rows(metric, dataset=dataset, **where)]
    return {row["metric"]: row for row in rows if (option(row, "level"), option(row, "score")) == (level, score)}


def unsureness(p: Mapping[str, np.ndarray], level: str, score: str) -> np.ndarray:
    """The score of each pixel, or its mean over each image; `p` are `(pixels, classes)`."""
    values = changed(p, entropy if score == "entropy" else lambda p: -p.max(1))
    return pooled(values) if level == "pixel" else np.array([value.mean() for value in values.values()])


def assert_detection(
    report: Report, inside: Mapping[str, np.ndarray], outside: Mapping[str, np.ndarray], *, dataset: str = "textures",
    exact: bool = False, **where: Any,
) -> None:  # fmt: skip
    """The four metrics against scikit-learn, of both scores on both levels; out of distribution is positive."""
    for level in LEVELS:
        for score in SCORES:
            rows = detection(report, dataset, level, score, **where)
            out, inn = (unsureness(p, level, score) for p in (outside, inside))
            if exact:  # p and 1 - p are equally unsure, but for a rounding error
                out, inn = out.round(12), inn.round(12)
            values, positive = np.concatenate([out, inn]), np.arange(len(out) + len(inn)) < len(out)
            expected = {
                "ood_auroc": roc_auc_score(positive, values),
                "ood_aupr_in": average_precision_score(~positive, -values),
                "ood_aupr_out": average_precision_score(positive, values),
                "ood_fpr95": fpr95(values, positive),
            }
            assert rows.keys() == expected.keys()
            for metric, value in expected.items():
                details = rows[metric]["details"]
                assert ("error_bound" in details) == (level == "pixel" and not exact), metric
                bound = details.get("error_bound", 0)
                assert rows[metric]["value"] == pytest.approx(value, abs=bound + 1e-6), (metric, level, score)
                assert rows[metric]["average"] == {"pixel": "pixels", "image": "images"}[level]


@pytest.mark.parametrize("kind", REGION_SETS)
def test_binary_maps_with_nothing_to_find(evaluate: Evaluate, tmp_path: Path, kind: str) -> None:
    extension = ".npy" if kind == "float" else ".png"
    inside, outside = changed(MAPS, REGION_SETS[kind]), changed(OUTSIDE, REGION_SETS[kind])
    textures = write(tmp_path / "textures", outside, extension)
    report = evaluate(*pair(tmp_path, inside, MASKS, extension), "--ood", f"textures={textures}")
    p = changed(outside, lambda v: both(v / TOP[kind]))
    all_p = pooled(p)
    where = {"dataset": "textures"}
    right = all_p[:, 1] < 0.5
    assert report.value("ood_entropy", **where) == pytest.approx(entropy(all_p).mean(), abs=1e-9)
    assert report.value("ood_ece", **where) == pytest.approx(ece(all_p.max(1), right), abs=1e-9)
    assert report.value("ood_oe", **where) == pytest.approx(oe(all_p.max(1), right), abs=1e-9)
    row = report.row("ood_entropy", **where)
    assert (row["method"], row["n_images"], row["n_pixels"]) == ("net", 5, len(all_p))
    per_image = [entropy(image).mean() for image in p.values()]
    assert report.value("ood_entropy", average="images", **where) == pytest.approx(np.mean(per_image), abs=1e-9)
    assert_detection(report, changed(inside, lambda v: both(v / TOP[kind])), p, exact=kind == "8-bit")
    assert {row["metric"] for row in report.rows(**where)} == {"ood_entropy", "ood_ece", "ood_oe", *DETECTION}
    assert not {name for name in report.metrics if name.startswith("ood_")} & {
        r["metric"] for r in report.rows(dataset="toy")
    }
    assert "out of distribution" in report.said


def test_several_classes_with_nothing_to_find(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    """No class is the right answer there, so only uncertainty is measured."""
    textures = write(tmp_path / "textures", OUTSIDE_LOGITS, ".npz")
    options = (*pair(tmp_path, LOGITS, LABELS, ".npz"), "--ood", f"textures={textures}")
    report = evaluate(*options)
    outside = changed(OUTSIDE_LOGITS, lambda z: flat(softmax(z)))
    where = {"dataset": "textures"}
    assert report.value("ood_entropy", **where) == pytest.approx(entropy(pooled(outside)).mean(), abs=1e-6)
    assert_detection(report, changed(LOGITS, lambda z: flat(softmax(z))), outside)
    assert {row["metric"] for row in report.rows(**where)} == {"ood_entropy", *DETECTION}
    assert "ood_ece cannot be computed" in refusal(*options, "--metrics", "ood_ece")


def test_intervals_of_detection_resample_images_of_both_sides(evaluate: Evaluate, tmp_path: Path) -> None:
    textures = write(tmp_path / "textures", changed(OUTSIDE, sigmoid))
    options = pair(tmp_path, changed(MAPS, sigmoid), MASKS)
    report = evaluate(*options, "--ood", f"textures={textures}", "--n-boot", 40, "--metrics", "ood_auroc,ood_fpr95")
    for row in report.rows(dataset="textures"):
        assert 0 <= row["low"] <= row["high"] <= 1, row
    assert any(row["low"] < row["high"] for row in report.rows(dataset="textures"))


def test_methods_of_out_of_distribution_sets(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    """`{method}` in the template compares each method with itself; a method may lack the set."""
    preds = {"sharp": 2.0, "plain": 1.0, "without": 1.0}
    for method, factor in preds.items():
        write(tmp_path / "preds" / method / "toy", changed(MAPS, lambda z, f=factor: sigmoid(f * z)))
        if method != "without":
            write(tmp_path / "preds" / method / "dtd", changed(OUTSIDE, lambda z, f=factor: sigmoid(f * z)))
    gt = write(tmp_path / "gt", MASKS, ".png")
    options = ("--pred", f"{tmp_path}/preds/{{method}}/toy", "--gt", gt, "--dataset", "toy")
    report = evaluate(*options, "--ood", f"textures={tmp_path}/preds/{{method}}/dtd")
    for method in ("sharp", "plain"):
        factor = preds[method]
        inside, outside = (changed(z, lambda z, f=factor: both(sigmoid(f * z))) for z in (MAPS, OUTSIDE))
        assert_detection(report, inside, outside, method=method)
        found = report.value("ood_entropy", dataset="textures", method=method)
        assert found == pytest.approx(entropy(pooled(outside)).mean(), abs=1e-9)
    assert not report.rows(dataset="textures", method="without")
    assert "without has no predictions for textures" in report.said_in_one_line
    one_folder = f"textures={tmp_path}/preds/plain/dtd"
    said = refusal(*options, "--ood", one_folder, code=2)
    for expected in ("3 methods", "{method}"):
        assert expected in said
    assert evaluate(*options, "--method", "plain", "--ood", one_folder).value(
        "ood_entropy", dataset="textures"
    ) == report.value("ood_entropy", dataset="textures", method="plain")


def test_several_data_sets_and_several_out_of_distribution_sets(evaluate: Evaluate, tmp_path: Path) -> None:
    other, other_masks = draw_maps(21)
    for dataset, (maps, masks) in {"one": (MAPS, MASKS), "two": (other, other_masks)}.items():
        write(tmp_path / "preds" / "net" / dataset, changed(maps, sigmoid))
        write(tmp_path / "data" / dataset / "gt", masks, ".png")
    noise = changed(OUTSIDE, lambda z: 0.3 * z)
    write(tmp_path / "preds" / "net" / "dtd", changed(OUTSIDE, sigmoid))
    write(tmp_path / "preds" / "net" / "noise", changed(noise, sigmoid))
    options = ("--pred", f"{tmp_path}/preds/{{method}}/{{dataset}}", "--gt", f"{tmp_path}/data/{{dataset}}/gt")
    sets = ("--ood", f"dtd={tmp_path}/preds/{{method}}/dtd", "--ood", f"noise={tmp_path}/preds/{{method}}/noise")
    report = evaluate(*options, *sets)
    for name, outside in (("dtd", OUTSIDE), ("noise", noise)):
        rows = [row for metric in DETECTION for row in report.rows(metric, dataset=name)]
        assert {option(row, "id") for row in rows} == {"one", "two"}
        for dataset, maps in (("one", MAPS), ("two", other)):
            mine = [row for row in report.document["results"] if option(row, "id") in (None, dataset)]
            part = Report({"results": mine}, "")
            inside = changed(maps, lambda z: both(sigmoid(z)))
            assert_detection(part, inside, changed(outside, lambda z: both(sigmoid(z))), dataset=name)


@pytest.mark.parametrize("kind", ["binary", "several classes"])
def test_masks_of_out_of_distribution_images_say_what_is_void(evaluate: Evaluate, tmp_path: Path, kind: str) -> None:
    binary = kind == "binary"
    raw = changed(OUTSIDE, lambda z: np.zeros(z.shape, np.uint8))
    raw["v"][3:7, 2:11] = 255
    masks = write(tmp_path / "dtd-gt", raw, ".png")
    inside = changed(MAPS, sigmoid) if binary else LOGITS
    outside = changed(OUTSIDE, sigmoid) if binary else OUTSIDE_LOGITS
    truth = changed(MASKS, lambda m: m // 255) if binary else LABELS
    options = (*pair(tmp_path, inside, truth), "--ood", f"textures={write(tmp_path / 'dtd', outside)}")
    report = evaluate(*options, "--ood-gt", f"textures={masks}", "--ignore-index", 255)
    to_p: Callable[[np.ndarray], np.ndarray] = both if binary else (lambda z: flat(softmax(z)))
    p = {name: to_p(outside[name])[raw[name].ravel() == 0] for name in outside}
    assert report.value("ood_entropy", dataset="textures") == pytest.approx(entropy(pooled(p)).mean(), abs=1e-6)
    assert report.row("ood_entropy", dataset="textures")["n_pixels"] == sum((m == 0).sum() for m in raw.values())
    assert_detection(report, changed(inside, to_p), p)


def test_masks_with_foreground_are_no_out_of_distribution_set(refusal: Refusal, tmp_path: Path) -> None:
    raw = changed(OUTSIDE, lambda z: np.zeros(z.shape, np.uint8))
    raw["x"][5, 5:9] = 255
    options = (
        *pair(tmp_path, changed(MAPS, sigmoid), MASKS),
        "--ood",
        f"tex={write(tmp_path / 'tex', changed(OUTSIDE, sigmoid))}",
    )
    said = refusal(*options, "--ood-gt", f"tex={write(tmp_path / 'gt', raw, '.png')}")
    for expected in ("1 mask", "tex", "'x'", "--ood-gt"):
        assert expected in said


@pytest.mark.parametrize(
    ("usual", "other"),
    [("float", "logits"), ("float", "8-bit"), ("float", "16-bit"), ("8-bit", "float"), ("8-bit", "16-bit")],
)
def test_predictions_saved_in_another_way_are_refused(refusal: Refusal, tmp_path: Path, usual: str, other: str) -> None:
    """Their uncertainty cannot be ranked together."""
    to_file = REGION_SETS | {"logits": lambda z: z}
    extension = {"8-bit": ".png", "16-bit": ".png"}
    textures = write(tmp_path / "tex", changed(OUTSIDE, to_file[other]), extension.get(other, ".npy"))
    options = pair(tmp_path, changed(MAPS, to_file[usual]), MASKS, extension.get(usual, ".npy"))
    said = refusal(*options, "--ood", f"tex={textures}")
    for expected in ("out-of-distribution", "in the same way"):
        assert expected in said


def test_predictions_of_other_classes_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    """The message is about the two sets, not about an option that nobody gave."""
    binary, several = pair(tmp_path / "binary", MAPS, MASKS), pair(tmp_path / "several", LOGITS, LABELS)
    five = write(tmp_path / "five", draw_logits(9, names="uv", shapes=SHAPES[:2], classes=5)[0])
    for options, textures in ((several, five), (several, write(tmp_path / "maps", OUTSIDE)), (binary, five)):
        said = refusal(*options, "--ood", f"tex={textures}")
        for expected in ("out-of-distribution", str(textures), "in the same way"):
            assert expected in said


def test_out_of_distribution_sets_need_names_of_their_own(refusal: Refusal, tmp_path: Path) -> None:
    options = pair(tmp_path, changed(MAPS, sigmoid), MASKS)
    tex = write(tmp_path / "tex", changed(OUTSIDE, sigmoid))
    assert "--ood toy: a data set has this name" in refusal(*options, "--ood", f"toy={tex}", code=2)
    assert "names the set 'tex' twice" in refusal(*options, "--ood", f"tex={tex}", "--ood", f"tex={tex}", code=2)
    assert "not NAME=FOLDER" in refusal(*options, "--ood", tex, code=2)
    said = refusal(*options, "--ood", f"tex={tex}", "--ood-gt", f"other={tex}", code=2)
    assert "'other', which no --ood names" in said
    assert "matches --ood tex=" in refusal(*options, "--ood", f"tex={tmp_path}/nowhere")
    assert "{dataset}" in refusal(*options, "--ood", f"tex={tmp_path}/{{dataset}}/tex", code=2)
    said = refusal(*options, "--metrics", "ood_auroc")
    assert "--ood NAME=FOLDER" in said


def test_out_of_distribution_sets_are_in_the_files(calbench: Run, tmp_path: Path) -> None:
    tex, out = write(tmp_path / "tex", changed(OUTSIDE, sigmoid)), tmp_path / "out"
    options = pair(tmp_path, changed(MAPS, sigmoid), MASKS)
    result = calbench("evaluate", *options, "--ood", f"textures={tex}", "-o", out, "--n-boot", 40)
    assert result.exit_code == 0, result.output
    assert "textures: out of distribution, 5 images" in result.stdout
    table = pd.read_csv(out / "summary.csv")
    assert set(table[table.metric.str.startswith("ood_")].dataset) == {"textures"}
    assert set(table[~table.metric.str.startswith("ood_")].dataset) == {"toy"}
    per_image = pd.read_csv(out / "per_image.csv")
    rows = per_image[per_image.dataset == "textures"].set_index("image")
    assert dict(rows.ood_entropy) == pytest.approx(
        changed(OUTSIDE, lambda z: entropy(both(sigmoid(z))).mean()), abs=1e-9
    )
    assert rows.ece.isna().all()
    counts = pd.read_csv(out / "entropy.csv").groupby("dataset").n.sum()
    assert dict(counts) == {
        "toy": sum(m.size for m in MASKS.values()),
        "textures": sum(z.size for z in OUTSIDE.values()),
    }


# --- statistics, resumption, processes ----------------------------------------------------------------------------------


def sets_of(kind: str, folder: Path) -> tuple[object, ...]:
    """The options of a run of one kind of input."""
    if kind == "multi-class":
        tex = write(folder / "tex", OUTSIDE_LOGITS, ".npz")
        return (*pair(folder, LOGITS, LABELS, ".npz"), "--regions", "--boundary-width", 1, "--ood", f"textures={tex}")
    if kind == "one file for both":
        members = {name: {"logits": LOGITS[name], "label": LABELS[name]} for name in NAMES}
        return "--pred", write(folder / "toy" / "net", members, ".npz"), "--ignore-index", 0
    if kind == "float":
        tex = write(folder / "tex", changed(OUTSIDE, sigmoid))
        masks = write(folder / "tex-gt", changed(OUTSIDE, lambda z: np.zeros(z.shape, np.uint8)), ".png")
        maps = pair(folder, changed(MAPS, sigmoid), MASKS)
        return (*maps, "--regions", "--boundary-width", 2, "--ood", f"textures={tex}", "--ood-gt", f"textures={masks}")
    if kind == "8-bit":
        tex = write(folder / "tex", changed(OUTSIDE, REGION_SETS["8-bit"]), ".png")
        maps = pair(folder, changed(MAPS, REGION_SETS["8-bit"]), MASKS, ".png")
        return (*maps, "--regions", "--boundary-width", 2, "--ood", f"textures={tex}")
    if kind == "volumes":
        nibabel = pytest.importorskip("nibabel")
        for name, arrays in zip(("net", "toy"), draw_volumes(3, CASES), strict=True):
            (folder / name).mkdir()
            for case, array in arrays.items():
                nibabel.Nifti1Image(array, np.eye(4)).to_filename(folder / name / f"{case}.nii.gz")
        return "--pred", folder / "net", "--gt", folder / "toy", "--regions", "--boundary-width", 2
    for seed, method in enumerate("mn"):
        logits, labels = draw_table(60 if kind == "table" else 1200, seed)
        if kind == "table":
            write(folder / "toy", {method: {"logits": logits, "label": labels}}, ".npz")
        else:
            write_csv(folder / "toy" / f"{method}.csv", softmax(logits, 1), labels)
    return "--pred", f"{folder}/toy/{{method}}{'.npz' if kind == 'table' else '.csv'}"


KINDS = ("multi-class", "one file for both", "float", "8-bit", "volumes", "table", "csv")


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_all_that_numbers_need(calbench: Run, tmp_path: Path, kind: str) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    result = calbench("evaluate", *sets_of(kind, tmp_path), "-o", first, "--n-boot", 40)
    assert result.exit_code == 0, result.output
    result = calbench("evaluate", "--stats", first / "stats.npz", "-o", again, "--n-boot", 40)
    assert result.exit_code == 0, result.output
    for file in CSV:
        assert (again / file).read_bytes() == (first / file).read_bytes(), file
    documents = [json.loads((folder / "summary.json").read_text("utf-8")) for folder in (first, again)]
    assert documents[0]["combinations"] == documents[1]["combinations"]
    assert documents[0]["results"] == documents[1]["results"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_resumes(calbench: Run, tmp_path: Path, interrupt_after: Interrupt, kind: str) -> None:
    options = (*sets_of(kind, tmp_path), "--n-boot", 0)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert calbench("evaluate", *options, "-o", whole).exit_code == 0
    n_done = {"table": 1, "csv": 1, "one file for both": 3, "volumes": 3}.get(
        kind, 8
    )  # 8: two of them out of distribution
    with interrupt_after(n_done):
        assert calbench("evaluate", *options, "-o", out).exit_code == 130
    result = calbench("evaluate", *options, "-o", out, "--resume")
    assert result.exit_code == 0, result.output
    assert f"resuming: {n_done} of " in result.stderr
    for file in (*CSV, "stats.npz"):
        assert (out / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_finished_run_resumes_without_a_pixel(calbench: Run, tmp_path: Path) -> None:
    options = (*sets_of("multi-class", tmp_path), "-o", tmp_path / "out", "--n-boot", 0)
    assert calbench("evaluate", *options).exit_code == 0
    result = calbench("evaluate", *options, "--resume")
    assert (result.exit_code, "11 of 11 images are done" in result.stderr) == (0, True), result.output


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("float", "net/a.npy"),
        ("float", "toy/gt/a.png"),
        ("float", "tex/u.npy"),
        ("float", "tex-gt/u.png"),
        ("multi-class", "net/b.npz"),
        ("one file for both", "toy/net/a.npz"),
        ("table", "toy/m.npz"),
        ("csv", "toy/m.csv"),
    ],
)
def test_a_changed_file_is_noticed(calbench: Run, tmp_path: Path, kind: str, file: str) -> None:
    """Changed in a single number, and nothing about its size."""
    options = (*sets_of(kind, tmp_path), "-o", tmp_path / "out", "--n-boot", 0)
    assert calbench("evaluate", *options).exit_code == 0
    path = tmp_path / file
    if path.suffix == ".npy":
        array = np.load(path)
        array[0, 0] = 0.123
        np.save(path, array)
    elif path.suffix == ".npz":
        with np.load(path) as archive:
            members = dict(archive)
        array = members["label" if "label" in members else "data"]
        array.flat[3] = 1 if array.flat[3] != 1 else 2
        np.savez_compressed(path, **members)
    elif path.suffix == ".png":
        array = np.array(Image.open(path))
        array[0, 0] = 254 if array[0, 0] == 255 else 2
        Image.fromarray(array).save(path)
    else:
        path.write_text(path.read_text("utf-8").replace("0.9", "0.8", 1), "utf-8")
    result = calbench("evaluate", *options, "--resume")
    assert result.exit_code == 1, result.output
    for expected in ("changed", path.name, "--force"):
        assert expected in result.stderr
    changed_files = [line for line in result.stderr.splitlines() if line.startswith("  ")]
    assert changed_files == [f"  {path}"], "the others are as they were"


def test_resuming_with_another_reading_is_refused(calbench: Run, tmp_path: Path) -> None:
    options = sets_of("multi-class", tmp_path)
    finished = (*options, "-o", tmp_path / "out", "--n-boot", 0, "--resume")
    assert calbench("evaluate", *options, "-o", tmp_path / "out", "--n-boot", 0).exit_code == 0
    tex = write(tmp_path / "tex2", OUTSIDE_LOGITS, ".npz")
    (tmp_path / "map.json").write_text('{"0": 0, "1": 1, "2": 2, "3": 3}', "utf-8")
    for given in (("--ignore-index", 0), ("--boundary-width", 3), ("--input", "logits"), ("--ood", f"other={tex}"),
                  ("--layout", "CHW"), ("--label-map", tmp_path / "map.json"), ("--num-classes", 4)):  # fmt: skip
        result = calbench("evaluate", *finished, *given)
        assert (result.exit_code, given[0] in result.stderr) == (1, True), given


def test_another_label_map_under_the_same_name_is_noticed(calbench: Run, tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("0,0\n1,1\n2,2\n3,3\n", "utf-8")
    options = (
        *pair(tmp_path, LOGITS, LABELS),
        "--label-map",
        tmp_path / "map.csv",
        "-o",
        tmp_path / "out",
        "--n-boot",
        0,
    )
    assert calbench("evaluate", *options).exit_code == 0
    (tmp_path / "map.csv").write_text("0,0\n1,1\n2,3\n3,2\n", "utf-8")
    result = calbench("evaluate", *options, "--resume")
    assert (result.exit_code, "coded differently" in result.stderr) == (1, True), result.output


@pytest.mark.parametrize("kind", ["multi-class", "float"])
def test_processes_do_not_matter(calbench: Run, tmp_path: Path, kind: str) -> None:
    options = sets_of(kind, tmp_path)
    for jobs in (1, 2):
        result = calbench("evaluate", *options, "-o", tmp_path / str(jobs), "-j", jobs, "--n-boot", 40)
        assert result.exit_code == 0, result.output
    for file in (*CSV, "stats.npz"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes(), file


# --- the doctor ---------------------------------------------------------------------------------------------------------


def check(calbench: Run, *options: object) -> tuple[int, dict[str, Any]]:
    result = calbench("check", "--json", *options)
    assert "Traceback" not in result.output
    return result.exit_code, json.loads(result.stdout)


def healthy(kind: str, folder: Path) -> tuple[object, ...]:
    if kind == "table":
        logits, labels = draw_table(80)
        return "--pred", write(folder / "toy", {"net": {"logits": logits, "label": labels}}, ".npz") / "net.npz"
    if kind == "csv":
        logits, labels = draw_table(80)
        return "--pred", write_csv(folder / "toy" / "net.csv", softmax(logits, 1), labels)
    if kind == "one file for both":
        members = {name: {"logits": LOGITS[name], "label": LABELS[name]} for name in NAMES}
        return "--pred", write(folder / "toy" / "net", members, ".npz")
    if kind == "logits":
        return pair(folder, LOGITS, LABELS)
    if kind == "probabilities":
        return pair(folder, changed(LOGITS, softmax), LABELS, ".npz")
    extension, to_file, *_ = FLOAT_MAPS[kind]
    return pair(folder, changed(MAPS, to_file), MASKS, extension)


@pytest.mark.parametrize(
    "kind", ["logits", "probabilities", "one file for both", "table", "csv", "float32", "16-bit PNG", "float TIFF"]
)
def test_the_doctor_finds_healthy_folders_healthy(calbench: Run, tmp_path: Path, kind: str) -> None:
    code, diagnosis = check(calbench, *healthy(kind, tmp_path))
    assert code == 0, diagnosis
    assert not [finding for finding in diagnosis["findings"] if finding["severity"] != "note"], diagnosis
    [combination] = diagnosis["combinations"]
    assert combination["pairs"] == combination["readable"] == (1 if kind in ("table", "csv") else len(NAMES))


@pytest.mark.parametrize("odd", ["a", "e"], ids=["looked at first", "read later"])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "float32"])
def test_the_doctor_finds_a_file_with_nan(calbench: Run, tmp_path: Path, kind: str, odd: str) -> None:
    options = healthy(kind, tmp_path)
    path = next((tmp_path / "net").glob(f"{odd}.*"))
    sound = {"logits": LOGITS, "probabilities": changed(LOGITS, softmax), "float32": changed(MAPS, sigmoid)}[kind]
    bad = spoilt(sound[odd], np.nan)
    write(tmp_path / "net", {odd: bad.astype(np.float32) if kind == "float32" else bad}, path.suffix)
    code, diagnosis = check(calbench, *options)
    assert code == 1
    errors = [finding for finding in diagnosis["findings"] if finding["severity"] == "error"]
    assert any("NaN" in finding["message"] and path.name in finding["message"] for finding in errors), diagnosis


def test_the_doctor_explains_labels_and_sizes(calbench: Run, tmp_path: Path) -> None:
    raw: dict[str, np.ndarray] = {**LABELS, "d": np.full_like(LABELS["d"], 9)}
    code, diagnosis = check(calbench, *pair(tmp_path / "labels", LOGITS, raw))
    assert code == 1
    assert any("d.png" in f["message"] and "label values 9" in f["message"] for f in diagnosis["findings"])
    low = draw_logits(5, shapes=[(7, 9)] * len(NAMES))[0]
    options = (*pair(tmp_path / "sizes", {**LOGITS, "c": low["c"]}, LABELS), "--layout", "CHW")
    code, diagnosis = check(calbench, *options)
    assert code == 1
    assert any(f["code"] == "size-mismatch" and f["example"] == "c" for f in diagnosis["findings"]), diagnosis
    code, diagnosis = check(calbench, *options, "--on-mismatch", "resize-pred")
    assert code == 0, diagnosis


def test_axes_of_one_batch_or_one_slice_do_not_matter(evaluate: Evaluate, refusal: Refusal, tmp_path: Path) -> None:
    """As PyTorch saves a batch of one, and nnU-Net a slice; two of them are two files."""
    expected = numbers(evaluate(*pair(tmp_path / "plain", LOGITS, LABELS), "--metrics", SHOWN), "value", "n_pixels")
    for name, axis in (("batch", 0), ("slice", 1)):
        wrapped = {key: np.expand_dims(array, axis) for key, array in LOGITS.items()}
        found = evaluate(*pair(tmp_path / name, wrapped, LABELS), "--metrics", SHOWN)
        assert numbers(found, "value", "n_pixels") == expected
    several = {key: np.stack([array, array]) for key, array in LOGITS.items()}
    assert "(H, W), (C, H, W) or (H, W, C)" in refusal(*pair(tmp_path / "two", several, LABELS))


# --- what is told apart, and what is said of it ---------------------------------------------------------------------------


def test_a_folder_of_tables_is_several_methods(refusal: Refusal, evaluate: Evaluate, tmp_path: Path) -> None:
    logits, labels = draw_table(30)
    for name in ("m", "n"):
        write(tmp_path / "tables", {name: {"logits": logits, "label": labels}}, ".npz")
    said = refusal("--pred", tmp_path / "tables")
    for expected in ("2 classification tables", "{method}.npz"):
        assert expected in said
    report = evaluate("--pred", f"{tmp_path}/tables/{{method}}.npz", "--metrics", "ece")
    assert {row["method"] for row in report.rows()} == {"m", "n"}
    assert report.conventions["input"] == "logits"
    assert (report.conventions["samples"], report.conventions["groups"]) == (30, 30)


def test_one_array_is_never_prediction_and_mask(refusal: Refusal, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", MAPS["a"] > 0, MASKS["a"])
    said = refusal("--pred", tmp_path / "a.npz")
    for expected in ("no labels", "'arr_0'", "--gt-npz-key"):
        assert expected in said


def test_labels_of_another_number_than_samples(refusal: Refusal, tmp_path: Path) -> None:
    logits, labels = draw_table(30)
    write(tmp_path, {"m": {"logits": logits, "label": labels[:29]}}, ".npz")
    assert "(N, C) and (N,)" in refusal("--pred", tmp_path / "m.npz")


def test_a_profile_says_what_it_has_to_leave_out(calbench: Run, tmp_path: Path) -> None:
    """Rows that were collected for another profile lack what this one reads."""
    out = tmp_path / "out"
    arguments = ("evaluate", *pair(tmp_path, LOGITS, LABELS), "--n-boot", 0, "-o", out)
    assert calbench(*arguments).exit_code == 0
    for profile, name in (("torchmetrics", "torchmetrics_ece"), ("mbls", "mbls_aece")):
        said = calbench("evaluate", "--stats", out / "stats.npz", "--n-boot", 0, "--profile", profile).stderr
        assert "left out" in said
        assert name in said
        assert f"--profile {profile}" in said


def test_what_must_fail_fails_before_the_pixels(calbench: Run, tmp_path: Path) -> None:
    """So that no half-finished run stands in the way of the corrected command."""
    options = pair(tmp_path, LOGITS, LABELS)
    for wrong in (("--group-by", "("), ("--group-by", "zzz"), ("-j", 0), ("--metrics", "max_f"), ("--profile", "aslp")):
        result = calbench("evaluate", *options, "-o", tmp_path / "out", *wrong)
        assert result.exit_code in (1, 2), wrong
        assert not (tmp_path / "out" / "partial.npz").exists(), wrong
    assert calbench("evaluate", *options, "-o", tmp_path / "out", "--n-boot", 0).exit_code == 0


def test_a_method_that_is_not_there_is_refused(refusal: Refusal, tmp_path: Path) -> None:
    options = pair(tmp_path, LOGITS, LABELS)
    said = refusal("--pred", f"{tmp_path}/{{method}}", *options[2:], "--method", "net", "--method", "xx")
    for expected in ("--method xx", "net"):
        assert expected in said


def test_binary_masks_as_floats_and_with_negative_void(evaluate: Evaluate, tmp_path: Path) -> None:
    p = changed(MAPS, sigmoid)
    masks = changed(MASKS, lambda mask: (mask > 128).astype(np.float64))
    expected = numbers(evaluate(*pair(tmp_path / "bytes", p, MASKS), "--metrics", "ece,brier"), "value", "n_pixels")

    def arrays(folder: Path, gts: Arrays) -> tuple[object, ...]:
        return "--pred", write(folder / "net", p, ".npy"), "--gt", write(folder / "toy" / "gt", gts, ".npy")

    found = evaluate(*arrays(tmp_path / "floats", masks), "--metrics", "ece,brier")
    assert numbers(found, "value", "n_pixels") == expected
    void = {name: mask.astype(np.int16) for name, mask in masks.items()}
    for mask in void.values():
        mask[:3] = -1
    report = evaluate(*arrays(tmp_path / "void", void), "--ignore-index", -1, "--metrics", "brier")
    pixels = [(p[name][3:] - masks[name][3:]).ravel() ** 2 for name in p]
    assert report.value("brier") == pytest.approx(np.concatenate(pixels).mean(), abs=1e-12)


def test_probabilities_declared_to_be_logits_are_noticed(calbench: Run, tmp_path: Path) -> None:
    for sound, masks in ((changed(LOGITS, softmax), LABELS), (changed(MAPS, sigmoid), MASKS)):
        options = pair(tmp_path / str(len(masks["a"].shape) + len(sound["a"].shape)), sound, masks)
        result = calbench("evaluate", *options, "--input", "logits", "--n-boot", 0)
        assert result.exit_code == 0
        assert "probabilities-as-logits" in " ".join(result.stderr.split())


def test_groups_of_volumes_are_named_by_the_volumes(
    evaluate: Evaluate, tmp_path: Path, save_volume: SaveVolume
) -> None:
    generator = np.random.default_rng(4)
    for number in range(6):
        name = f"pat{number // 2}_s{number}.nii.gz"
        save_volume(tmp_path / "net" / name, generator.random((9, 8, 3)).astype(np.float32))
        save_volume(tmp_path / "gt" / name, (generator.random((9, 8, 3)) > 0.5).astype(np.uint8))
    options = ("--pred", tmp_path / "net", "--gt", tmp_path / "gt", "--metrics", "brier", "--n-boot", 40)
    report = evaluate(*options, "--group-by", r"_s(\d)$")
    assert "duplicate" not in report.said
    assert report.row("brier")["n_images"] == 18


def test_negative_values_of_binary_masks_have_to_be_named(refusal: Refusal, tmp_path: Path) -> None:
    masks = changed(MASKS, lambda mask: (mask > 128).astype(np.int16))
    masks["d"][2] = -1
    preds = write(tmp_path / "net", changed(MAPS, sigmoid), ".npy")
    said = refusal("--pred", preds, "--gt", write(tmp_path / "toy", masks, ".npy"))
    for expected in ("d.npy", "-1", "--ignore-index -1"):
        assert expected in said


def test_fields_of_view_of_volumes(evaluate: Evaluate, tmp_path: Path, save_volume: SaveVolume) -> None:
    generator = np.random.default_rng(2)
    squares = []
    for case in CASES:
        p, y = generator.random((7, 8, 3)).astype(np.float32), generator.random((7, 8, 3)) > 0.5
        inside = generator.random((7, 8, 3)) > 0.3
        for side, volume in (("net", p), ("gt", y.astype(np.uint8)), ("fov", inside.astype(np.uint8))):
            save_volume(tmp_path / side / f"{case}.nii.gz", volume)
        squares.append((p - y)[inside] ** 2)
    folders = ("--pred", tmp_path / "net", "--gt", tmp_path / "gt", "--mask", tmp_path / "fov")
    row = evaluate(*folders, "--metrics", "brier").row("brier")
    assert row["value"] == pytest.approx(np.concatenate(squares).mean(), abs=1e-7)
    assert row["n_pixels"] == sum(map(len, squares))


def test_groups_of_one_image_each_are_the_images(evaluate: Evaluate, tmp_path: Path) -> None:
    """Also where the groups sort in another order than the images."""
    maps = {f"{name}_{9 - number}": array[:12] for number, (name, array) in enumerate(MAPS.items())}
    masks = {f"{name}_{9 - number}": array[:12] for number, (name, array) in enumerate(MASKS.items())}
    options = (*pair(tmp_path, changed(maps, sigmoid), masks), "--n-boot", 60, "--metrics", "ece,brier")
    columns = ("value", "n_images")
    grouped, alone = evaluate(*options, "--group-by", r"_(\d)$"), evaluate(*options)
    assert numbers(grouped, *columns) == numbers(alone, *columns)
    pooled_row, mean_row = (grouped.row("brier", average=average) for average in ("pixels", "images"))
    # of images of one size the mean is the pooled number, and both are resampled alike
    assert (pooled_row["low"], pooled_row["high"]) == pytest.approx((mean_row["low"], mean_row["high"]), abs=1e-12)
