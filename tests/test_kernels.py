"""The kernels of float and multi-class predictions, and regions, held to textbook code that loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from calbench.errors import OptionError, RangeError, ShapeError
from calbench.kernels import (
    added,
    floats,
    measure,
    measure_class_rows,
    measure_classes,
    measure_float_map,
    multiclass,
    region_codes,
    regions,
    saliency_levels,
)
from calbench.metrics import METRICS
from calbench.statistics import JointHistogram
from calbench.statistics.reliability import CLASS_GRID, SCORE_GRID

EXTRAS = ("mbls", "selectivecal", "torchmetrics")
FLOATS = (np.float16, np.float32, np.float64)
DIVISORS = [n for n in range(1, 1001) if 600 % n == 0]


# textbook code


def tolerance_of(dtype, kind):
    """float32 scores, and those computed from float16, are binned with a tolerance of four float32 units."""
    return 2.0**-21 if dtype == np.float32 or (dtype == np.float16 and kind == "logits") else 1e-12


def eps_of(dtype):
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else None


def cell_of(score, grid, tolerance, complement=None):
    """The equal cell by ceiling, less the tolerance; within the outermost ones, the number of edges below the score.

    Next to 1 scores round to it, and what is left of them tells how near they are.
    """
    complement = 1 - float(score) if complement is None else float(complement)
    score = float(score)
    equal = min(max(math.ceil((score - tolerance) * grid.n_equal) - 1, 0), grid.n_equal - 1)
    if equal == 0:
        return sum(score > edge for edge in grid.first)
    halved = sum(complement < 0.5**k / grid.n_equal for k in range(1, grid.halvings + 1))
    return len(grid.first) + equal + (halved if equal == grid.n_equal - 1 else 0)


def cells(scores, correct, region, n_regions, grid, tolerance, complements=None):
    out = {name: np.zeros((n_regions, grid.size)) for name in ("count", "confidence", "correct")}
    left = complements if complements is not None else [None] * len(scores)
    for score, right, code, complement in zip(scores, correct, region, left, strict=True):
        cell = cell_of(score, grid, tolerance, complement)
        out["count"][code, cell] += 1
        out["confidence"][code, cell] += score
        out["correct"][code, cell] += right
    return out


def left_closed_cells(scores, correct, region, n_regions):
    out = {name: np.zeros((n_regions, 601)) for name in ("count", "confidence", "correct")}
    lower = np.array([np.float32(i / 600) for i in range(601)])
    for score, right, code in zip(scores, correct, region, strict=True):
        cell = max(i for i in range(601) if np.float32(score) >= lower[i])
        out["count"][code, cell] += 1
        out["confidence"][code, cell] += score
        out["correct"][code, cell] += right
    return out


def by_region(values, region, n_regions):
    return np.array(
        [sum(float(v) for v, code in zip(values, region, strict=True) if code == r) for r in range(n_regions)]
    )


def softmax(z):
    """In the type of z, the classes but the first largest one after another; and what they have of the whole."""
    e = np.exp(z - z.max())
    others = e.dtype.type(0)
    for k, value in enumerate(e):
        others = others + (value if k != np.argmax(z) else e.dtype.type(0))
    return e / (1 + others), others / (1 + others)


def plain_entropy(p):
    return -sum(float(x) * math.log(x) for x in p if x > 0)


def class_oracle(scores, kind, y, region, n_regions, clip):
    """Every part of `(N, C)` scores and `(N,)` classes, as {part: {field: (regions, ...)}}."""
    classes, tolerance = scores.shape[1], tolerance_of(scores.dtype, kind)
    wide = scores.astype(np.float64 if scores.dtype == np.float64 else np.float32)
    p, left = wide, None
    if kind == "logits" and len(wide):
        p, left = (np.array(part) for part in zip(*map(softmax, wide), strict=True))
    winner = [int(np.argmax(row)) for row in scores]
    right = [int(w == t) for w, t in zip(winner, y, strict=True)]
    confidence = [row.max() for row in p]
    p64 = p.astype(np.float64)
    if kind == "logits":
        z64 = scores.astype(np.float64)
        loss = [math.log(sum(math.exp(v - row[t]) for v in row)) for row, t in zip(z64, y, strict=True)]
    else:
        loss = [-math.log(min(max(row[t], clip), 1 - clip)) for row, t in zip(p64, y, strict=True)]
    one_hot = np.eye(classes)[y]

    def total(values):
        return by_region(values, region, n_regions)

    def top_label(correct, chosen=slice(None)):
        at = np.arange(len(y))[chosen]
        picked = ([values[i] for i in at] for values in (confidence, correct, region))
        return cells(*picked, n_regions, SCORE_GRID, tolerance, None if left is None else [left[i] for i in at])

    count = total(np.ones(len(y)))
    expected = {
        "top_label": top_label(right),
        "sums": {
            "count": count,
            "log_loss": total(loss),
            "squared_error": total(((p64 - one_hot) ** 2).sum(1)),
            "squared_score": total((p64**2).sum(1)),
            "entropy": total([plain_entropy(row) for row in p64]),
        },
        "counts": {
            "target": np.stack([total(np.equal(y, k)) for k in range(classes)], 1),
            "predicted": np.stack([total(np.equal(winner, k)) for k in range(classes)], 1),
            "hit": np.stack([total(np.equal(winner, k) & np.equal(y, k)) for k in range(classes)], 1),
        },
        "unsure": {
            "count": count,
            "entropy_sum": total([plain_entropy(row) for row in p64]),
            "confidence_sum": total(confidence),
            "confidence": top_label(right)["count"],
        },
        "uniform": {
            "count": count,
            "divergence": total([np.mean(math.log(1 / classes) - np.log(row + 1e-10)) for row in p64]),
            "absolute": total([np.mean(np.abs(1 / classes - row)) for row in p64]),
        },
        "objects": top_label(right, np.not_equal(y, 0)),
        "rechosen": top_label(
            right
            if kind == "probabilities"
            else [int(np.argmax(np.float32(q)) == t) for q, t in zip(p, y, strict=True)]
        ),
        "left_closed": left_closed_cells(confidence, right, region, n_regions),
    }
    per_class = [
        cells([row[k] for row in p], [int(t == k) for t in y], region, n_regions, CLASS_GRID, tolerance)
        for k in range(classes)
    ]
    expected["classes"] = {name: np.stack([one[name] for one in per_class], 1) for name in per_class[0]}
    if kind == "logits":
        ordered = np.sort(scores.astype(np.float64), axis=1)
        expected["logits"] = {
            "count": count,
            "mean_distance": total([sum(row[-1] - row) / (classes - 1) for row in ordered]),
            "max_distance": total(ordered[:, -1] - ordered[:, 0]),
            "margin": total(ordered[:, -1] - ordered[:, -2]),
        }
    return expected, np.array([plain_entropy(row) for row in p64])


def binary_oracle(scores, kind, y, region, n_regions, clip, top):
    """Every part of `(N,)` scores of binary maps."""
    tolerance = tolerance_of(scores.dtype, kind)
    if kind == "levels":
        p = np.array([int(v) / top for v in scores])
    elif kind == "probabilities":
        p = scores.astype(np.float64)
    else:
        z = scores.astype(np.float64)
        p = np.array([expit(v) for v in scores], np.float64)
    outcome = [q if t else 1 - q for q, t in zip(p, y, strict=True)]
    if kind == "logits":
        loss = [math.log1p(math.exp(-v if t else v)) for v, t in zip(z, y, strict=True)]
    else:
        loss = [-math.log(min(max(q, clip), 1 - clip)) for q in outcome]
    decided = p >= 0.5

    def total(values):
        return by_region(values, region, n_regions)

    confidence = np.maximum(p, 1 - p)
    entropy = np.array([plain_entropy((q, 1 - q)) for q in p])
    left = None if kind != "logits" else np.array([expit(-v) for v in scores], np.float64)
    least = None if left is None else np.minimum(left, p)
    top_label = cells(confidence, decided == y, region, n_regions, SCORE_GRID, tolerance, least)
    histogram = np.zeros((n_regions, 2, 256))
    for q, t, code in zip(p, y, region, strict=True):
        histogram[code, int(t), round(255 * q)] += 1
    return {
        "top_label": top_label,
        "foreground": cells(p, y, region, n_regions, SCORE_GRID, tolerance, left),
        "sums": {
            "count": total(np.ones(len(y))),
            "log_loss": total(loss),
            "squared_error": total((p - y) ** 2),
            "squared_score": total(p**2),
            "entropy": total(entropy),
        },
        "counts": {
            "target": np.stack([total(~y), total(y)], 1),
            "predicted": np.stack([total(~decided), total(decided)], 1),
            "hit": np.stack([total(~decided & ~y), total(decided & y)], 1),
        },
        "unsure": {
            "count": total(np.ones(len(y))),
            "entropy_sum": total(entropy),
            "confidence_sum": total(confidence),
            "confidence": top_label["count"],
        },
        "histogram": {"counts": histogram},
        "left_closed": left_closed_cells(p, y, region, n_regions),
    }, entropy


def boundary_oracle(target, valid, width):
    """Whether a valid pixel of another class lies within `width`, by looking at all pairs of pixels."""
    positions = [p for p in np.ndindex(target.shape) if valid[p]]
    out = np.zeros(target.shape, bool)
    for y, x in positions:
        out[y, x] = any(target[v, u] != target[y, x] and (v - y) ** 2 + (u - x) ** 2 <= width**2 for v, u in positions)
    return out


# comparisons


def assert_equal(bundles, expected, rtol):
    """Integers exactly, sums relative to the pixels they are over; every field that the oracle knows."""
    for part, arrays_ in expected.items():
        for field, array in arrays_.items():
            found = np.concatenate([getattr(getattr(bundle, part), field) for bundle in bundles])
            if found.dtype.kind == "i":
                np.testing.assert_array_equal(found, array, err_msg=f"{part}.{field}")
            else:
                atol = rtol * max(1.0, np.abs(array).max(initial=0))
                np.testing.assert_allclose(found, array, rtol=rtol, atol=atol, err_msg=f"{part}.{field}")


def assert_entropy_cells(bundles, normalised, region):
    """Each pixel is in the cell of an entropy within 1e-5 of its own: cumulated counts lie between those of the two."""
    for code, bundle in enumerate(bundles):
        found = bundle.unsure.entropy[0].cumsum()
        inside = normalised[np.equal(region, code)]
        low, high = ((inside + shift)[:, None] <= SCORE_GRID.edges[1:] for shift in (1e-5, -1e-5))
        assert (low.sum(0)[:-1] <= found[:-1]).all()
        assert (found <= high.sum(0)).all()
        assert found[-1] == len(inside)


def row_fields(bundle):
    """{(part, field): array} of a bundle."""
    return {(name, f): getattr(part, f) for name, part in bundle.parts.items() for f in part.row_fields()}


def assert_same(a, b, *, rtol=1e-12):
    """Two bundles with the same integers, and sums that agree to rounding."""
    first, second = row_fields(a), row_fields(b)
    assert first.keys() == second.keys()
    for key, array in first.items():
        if array.dtype.kind == "i":
            np.testing.assert_array_equal(array, second[key], err_msg=str(key))
        else:
            scale = np.abs(array).max(initial=0)
            np.testing.assert_allclose(array, second[key], rtol=rtol, atol=rtol * scale, err_msg=str(key))


# what is drawn

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5)).filter(lambda shape: shape[0] != shape[1])


@st.composite
def class_images(draw):
    """(scores `(C, H, W)`, kind, target, valid, region, n_regions): ties, exact zeros and ones, edges, void, any type."""
    classes, shape = draw(st.integers(3, 6)), draw(SHAPES)
    kind, dtype = draw(st.sampled_from(["logits", "probabilities"])), draw(st.sampled_from(FLOATS))
    if kind == "logits":
        raw = draw(arrays(np.int8, (classes, *shape), elements=st.integers(-40, 40)))
        scores = (raw / draw(st.sampled_from([1, 4, 7]))).astype(dtype)
    else:
        weights = draw(arrays(np.int8, (classes, *shape), elements=st.integers(0, 20))).astype(float)
        weights[0] += weights.sum(0) == 0
        scores = (weights / weights.sum(0)).astype(dtype)
    target = draw(arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))
    return scores, kind, target, *draw(masks(shape))


@st.composite
def masks(draw, shape):
    """(valid, region, n_regions) of an image."""
    valid = draw(st.none() | arrays(np.bool_, shape))
    n_regions = draw(st.integers(1, 3))
    region = draw(arrays(np.uint8, shape, elements=st.integers(0, n_regions - 1))) if n_regions > 1 else None
    return valid, region, n_regions


def flat_region(valid, region, shape):
    inside = np.ones(shape, bool) if valid is None else valid
    return inside, (np.zeros(shape, int) if region is None else region)[inside]


def scene(classes=19, shape=(37, 53), *, seed=0, dtype=np.float32):
    """Logits `(C, H, W)`, and a target that is mostly their argmax."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(classes, *shape), scale=4)
    target = (logits + generator.gumbel(size=logits.shape)).argmax(0)
    return logits.astype(dtype), target


# several classes


@settings(max_examples=80, deadline=None)
@given(class_images(), st.sampled_from(["CHW", "HWC"]))
def test_multiclass_equals_textbook(image, layout):
    scores, kind, target, valid, region, n_regions = image
    inside, codes = flat_region(valid, region, target.shape)
    given_scores = scores if layout == "CHW" else np.ascontiguousarray(np.moveaxis(scores, 0, -1))
    if valid is not None:  # void pixels enter nothing, not even checks
        given_scores = given_scores.copy()
        np.moveaxis(given_scores, -1 if layout == "HWC" else 0, 0)[:, ~valid] = np.nan
    bundles = measure_classes(
        "a", given_scores, kind, target, valid, layout=layout, region=region, n_regions=n_regions, extras=EXTRAS
    )
    assert [bundle.names for bundle in bundles] == [("a",)] * n_regions
    pixels, y = np.moveaxis(scores, 0, -1)[inside], target[inside]
    clip = eps_of(scores.dtype)
    expected, entropy = class_oracle(pixels, kind, y, codes, n_regions, clip)
    assert_equal(bundles, expected, 1e-12 if scores.dtype == np.float64 else 3e-6)
    assert_entropy_cells(bundles, entropy / math.log(len(scores)), codes)
    for code, bundle in enumerate(bundles):
        assert ("logits" in bundle.parts) == (kind == "logits")
        assert bundle.sums.clip == (0 if kind == "logits" else clip)
        assert (bundle.sums.classes, bundle.sums.binary, bundle.unsure.exact) == (len(scores), False, False)
        assert bundle.kept.length.tolist() == [np.equal(codes, code).sum()] == [len(bundle.kept.confidence)]
        assert np.allclose(bundle.kept.confidence.sum(), bundle.top_label.confidence.sum(), rtol=1e-6)
        assert bundle.kept.correct.sum() == bundle.top_label.correct.sum()


def test_kept_scores_are_in_the_order_of_pixels():
    logits, target = scene()
    region = target % 2
    confidence = torch.softmax(torch.from_numpy(logits), 0).numpy().max(0)
    for code, part in enumerate(
        measure_classes("a", logits, "logits", target, region=region, n_regions=2, extras=("mbls",))
    ):
        np.testing.assert_allclose(part.kept.confidence, confidence[region == code], rtol=1e-6)
        np.testing.assert_array_equal(part.kept.correct, (logits.argmax(0) == target)[region == code])


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", ["CHW", "HWC"])
def test_softmax_equals_torch(dtype, layout):
    logits, target = scene(dtype=dtype)
    given_logits = logits if layout == "CHW" else np.moveaxis(logits, 0, -1)  # a view: layouts need not be contiguous
    [whole] = measure_classes("a", given_logits, "logits", target, layout=layout)
    wide = torch.from_numpy(logits.astype(np.float64 if dtype == np.float64 else np.float32))
    p = torch.softmax(wide, 0).numpy().astype(np.float64)
    loss = torch.nn.functional.cross_entropy(wide[None].double(), torch.from_numpy(target)[None], reduction="sum")
    rtol = 1e-12 if dtype == np.float64 else 1e-6
    assert whole.sums.log_loss[0] == pytest.approx(float(loss), rel=rtol)
    assert whole.sums.squared_score[0] == pytest.approx((p**2).sum(), rel=rtol)
    assert whole.unsure.confidence_sum[0] == pytest.approx(p.max(0).sum(), rel=rtol)
    np.testing.assert_allclose(whole.classes.confidence[0].sum(-1), p.sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS)
def test_log_loss_equals_scikit_learn(dtype):
    logits, target = scene(6)
    p = np.exp(logits.astype(np.float64))
    p = (p / p.sum(0)).astype(dtype)
    p[:, 0, 0] = np.eye(6)[(target[0, 0] + 1) % 6]  # sure and wrong: the clip decides
    [whole] = measure_classes("a", p, "probabilities", target)
    pairs = p.reshape(6, -1).T.astype(np.float64)
    clipped = np.clip(pairs, whole.sums.clip, 1 - whole.sums.clip)
    expected = -np.log(clipped[np.arange(len(pairs)), target.ravel()]).mean()
    assert whole.sums.log_loss[0] / whole.sums.count[0] == pytest.approx(expected, rel=1e-12)
    if dtype != np.float16:  # whose sums scikit-learn warns of
        peer = log_loss(target.ravel(), p.reshape(6, -1).T, labels=np.arange(6))
        assert whole.sums.log_loss[0] / whole.sums.count[0] == pytest.approx(peer, rel=1e-6)


def test_every_half_precision_number_is_widened():
    bits = np.arange(1 << 16, dtype=np.uint16)
    half = bits[np.isfinite(bits.view(np.float16))].view(np.float16).reshape(4, -1)
    out = np.empty(half.shape, np.float32)
    multiclass._load(half, slice(None), out)
    np.testing.assert_array_equal(out.view(np.uint32), half.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_blocks_do_not_matter(kind, dtype, monkeypatch):
    logits, target = scene(dtype=dtype)
    scores = logits if kind == "logits" else torch.softmax(torch.from_numpy(logits).float(), 0).numpy().astype(dtype)
    valid = np.random.default_rng(1).random(target.shape) < 0.8
    region = target % 3
    settings_ = {"region": region, "n_regions": 3, "extras": EXTRAS}
    whole = measure_classes("a", scores, kind, target, valid, **settings_)
    for size in (1, 7, 640):
        monkeypatch.setattr(multiclass, "BLOCK", size)
        for a, b in zip(whole, measure_classes("a", scores, kind, target, valid, **settings_), strict=True):
            assert_same(a, b)
            np.testing.assert_array_equal(a.kept.confidence, b.kept.confidence)


def test_the_order_of_pixels_does_not_matter():
    logits, target = scene()
    order = np.random.default_rng(1).permutation(target.size)
    shuffled = logits.reshape(19, -1)[:, order].reshape(logits.shape)
    [a] = measure_classes("a", logits, "logits", target, extras=EXTRAS)
    [b] = measure_classes("a", shuffled, "logits", target.ravel()[order].reshape(target.shape), extras=EXTRAS)
    assert_same(a, b)


@settings(max_examples=40, deadline=None)
@given(class_images())
def test_regions_add_up_to_the_whole(image):
    scores, kind, target, valid, region, n_regions = image
    [whole] = measure_classes("a", scores, kind, target, valid, extras=EXTRAS)
    parts = measure_classes("a", scores, kind, target, valid, region=region, n_regions=n_regions, extras=EXTRAS)
    sums = added(parts)
    assert_same(whole, sums)
    assert sums.names == ("a",)
    np.testing.assert_array_equal(np.sort(whole.kept.confidence), np.sort(sums.kept.confidence))
    shared = {(name, f): getattr(part, f) for name, part in whole.parts.items() for f in part.shared_fields()}
    for (name, field), value in shared.items():
        if name != "kept":
            np.testing.assert_array_equal(getattr(getattr(sums, name), field), value)


def test_a_table_has_a_row_for_each_group():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 5), scale=3).astype(np.float32)
    target, group = generator.integers(0, 5, 4000), generator.integers(0, 300, 4000)
    group[group == 7] = 8
    names = tuple(f"{number:03d}" for number in range(300))
    rows = measure_class_rows(
        names, logits[None], "logits", target[None], layout="HWC", region=group[None], extras=("torchmetrics",)
    )
    assert rows.names == names
    assert rows.sums.count[7] == 0
    for code in (0, 8, 299):
        chosen = group == code
        one = measure_class_rows(
            ("x",), logits[None, chosen], "logits", target[None, chosen], layout="HWC", extras=("torchmetrics",)
        )
        assert_same(rows.select([code]), one)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_without_truth_there_is_only_uncertainty(kind):
    logits, target = scene(dtype=np.float64)
    scores = logits if kind == "logits" else torch.softmax(torch.from_numpy(logits), 0).numpy()
    [known] = measure_classes("a", scores, kind, target)
    [unknown] = measure_classes("a", scores, kind, None, extras=EXTRAS)
    parts = ("unsure", "logits") if kind == "logits" else ("unsure",)
    assert set(unknown.parts) == set(parts)
    assert_same(known.only(parts), unknown)


def test_an_image_without_a_valid_pixel_counts_nothing():
    logits, target = scene(4, (3, 5))
    for bundle in measure_classes(
        "a", logits, "logits", target, np.zeros((3, 5), bool), region=target, n_regions=4, extras=EXTRAS
    ):
        assert all(not array.any() for array in row_fields(bundle).values())


def test_files_are_mapped_not_read(tmp_path):
    logits, target = scene(dtype=np.float16)
    np.save(tmp_path / "a.npy", logits)
    [mapped] = measure_classes("a", np.load(tmp_path / "a.npy", mmap_mode="r"), "logits", target)
    [held] = measure_classes("a", logits, "logits", target)
    assert_same(mapped, held, rtol=0)


def test_rechosen_takes_class_0_where_float32_cannot_tell_logits_apart():
    logits, target = scene(5)
    [whole] = measure_classes("a", logits / np.float32(1e10), "logits", target, extras=("selectivecal",))
    assert whole.rechosen.correct.sum() == (target == 0).sum()
    assert whole.top_label.correct.sum() == (logits.argmax(0) == target).sum()
    double = np.array([0.0, 1e-9, -1.0]).reshape(3, 1, 1)
    [whole] = measure_classes("a", double, "logits", np.array([[1]]), extras=("selectivecal",))
    assert (whole.top_label.correct.sum(), whole.rechosen.correct.sum()) == (1, 0)


def test_equal_logits_lie_on_bin_edges():
    for classes in (3, 4, 5, 6, 10):
        for dtype in FLOATS:
            [whole] = measure_classes("a", np.zeros((classes, 1, 2), dtype), "logits", np.zeros((1, 2), int))
            assert whole.top_label.binned(60).count[0, 60 // classes - 1] == 2
            assert whole.classes.count[0, :, : CLASS_GRID.index(np.array([1 / classes]))[0] + 1].sum() == 2 * classes


def test_many_classes():
    logits, target = scene(300, (5, 7))
    [whole] = measure_classes("a", logits, "logits", target)
    assert whole.counts.hit.sum() == (logits.argmax(0) == target).sum()
    assert (whole.classes.count.sum(-1) == 35).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_numbers_that_are_not_finite_are_refused(bad, dtype, kind):
    scores = np.full((4, 3, 5), 0.25, dtype)
    scores[2, 1, 3] = bad
    valid = np.ones((3, 5), bool)
    with pytest.raises(RangeError, match=r"map\.npy holds NaN or infinite"):
        measure_classes("a", scores, kind, np.zeros((3, 5), int), valid, where="map.npy")
    valid[1, 3] = False
    [whole] = measure_classes("a", scores, kind, np.zeros((3, 5), int), valid)
    assert whole.sums.count.tolist() == [14]


def test_what_are_no_probabilities_is_refused():
    target = np.zeros((2, 3), int)
    with pytest.raises(RangeError, match=r"map\.npy holds values from -3 to 2; .*--input logits"):
        measure_classes(
            "a", np.full((3, 2, 3), 2.0) * [[[1]], [[1]], [[-1.5]]], "probabilities", target, where="map.npy"
        )
    with pytest.raises(RangeError, match=r"a holds a pixel whose probabilities add up to 1\.5; .*--input logits"):
        measure_classes("a", np.full((3, 2, 3), 0.5), "probabilities", target)


def test_probabilities_of_two_bytes_may_miss_1_by_more():
    off = np.full((4, 2, 3), 0.25 * 1.005)
    target = np.zeros((2, 3), int)
    measure_classes("a", off.astype(np.float16), "probabilities", target)
    bfloat16 = torch.from_numpy(off).bfloat16().float().numpy()
    assert bfloat16.sum(0)[0, 0] > 1.003
    measure_classes("a", bfloat16, "probabilities", target)
    with pytest.raises(RangeError, match="add up to"):
        measure_classes("a", off.astype(np.float32), "probabilities", target)


def test_the_wrong_layout_is_refused():
    with pytest.raises(ShapeError, match=r"\(3, 4, 5\) and its ground truth \(3, 4\); .* is it --layout HWC\?"):
        measure_classes("a", np.zeros((3, 4, 5)), "logits", np.zeros((3, 4), int))


# binary maps


@st.composite
def float_maps(draw):
    """(scores `(H, W)`, kind, top, target, valid, region, n_regions)."""
    shape = draw(SHAPES)
    kind = draw(st.sampled_from(["levels", "logits", "probabilities"]))
    dtype = np.uint16 if kind == "levels" else draw(st.sampled_from(FLOATS))
    if kind == "logits":
        scores = (draw(arrays(np.int8, shape, elements=st.integers(-40, 40))) / draw(st.sampled_from([3, 4]))).astype(
            dtype
        )
    else:
        levels = draw(
            arrays(np.uint16, shape, elements=st.sampled_from([0, 65535, 32767, 32768]) | st.integers(0, 65535))
        )
        scores = levels if kind == "levels" else (levels / 65535).astype(dtype)
    return scores, kind, draw(arrays(np.bool_, shape)), *draw(masks(shape))


@settings(max_examples=80, deadline=None)
@given(float_maps())
def test_float_maps_equal_textbook(image):
    scores, kind, target, valid, region, n_regions = image
    inside, codes = flat_region(valid, region, target.shape)
    given_scores = scores.copy()
    if valid is not None and kind != "levels":
        given_scores[~valid] = np.nan
    bundles = measure_float_map(
        "a", given_scores, kind, target, valid, top=65535, region=region, n_regions=n_regions, extras=("torchmetrics",)
    )
    clip = {"levels": 1 / 131070, "logits": 0.0, "probabilities": eps_of(scores.dtype)}[kind]
    expected, entropy = binary_oracle(scores[inside], kind, target[inside], codes, n_regions, clip, 65535)
    assert_equal(bundles, expected, 1e-12)
    assert_entropy_cells(bundles, entropy / math.log(2), codes)
    assert all(bundle.sums.clip == clip and bundle.sums.binary for bundle in bundles)


def eight_bit_copies():
    """Every level with either outcome, as uint8, as float32 v / 255, as float64, and as 16-bit levels."""
    levels = np.tile(np.arange(256, dtype=np.uint8), (2, 3))
    target = np.zeros(levels.shape, bool)
    target[1] = True
    target[0, 300:400] = True  # so that no error vanishes by symmetry
    histogram = JointHistogram(("a",), measure(levels, target, scores=()).counts[None])
    copies = {
        "float32": ((levels / 255).astype(np.float32), "probabilities", 255),
        "float64": (levels / 255, "probabilities", 255),
        "uint8": (levels, "levels", 255),
        "uint16": (levels.astype(np.uint16) * 257, "levels", 65535),
    }
    return histogram, {
        name: measure_float_map("a", scores, kind, target, top=top)[0] for name, (scores, kind, top) in copies.items()
    }


@pytest.mark.parametrize("copy", ["float32", "float64", "uint8", "uint16"])
def test_a_float_copy_of_a_map_fills_the_same_bins(copy):
    histogram, copies = eight_bit_copies()
    for event, cells_ in (("top-label", copies[copy].top_label), ("foreground", copies[copy].foreground)):
        exact = histogram.reliability(event)
        for bins in DIVISORS:
            a, b = exact.binned(bins), cells_.binned(bins)
            np.testing.assert_array_equal(a.count, b.count)
            np.testing.assert_array_equal(a.correct, b.correct)
    np.testing.assert_array_equal(copies[copy].histogram.counts, histogram.counts)
    for field in ("target", "predicted", "hit"):
        np.testing.assert_array_equal(getattr(copies[copy].counts, field), getattr(histogram.class_counts(), field))


@pytest.mark.parametrize("copy", ["float64", "uint8", "uint16"])
def test_a_float_copy_of_a_map_has_the_same_error(copy):
    histogram, copies = eight_bit_copies()
    for event, cells_ in (("top-label", copies[copy].top_label), ("foreground", copies[copy].foreground)):
        for bins in (10, 12, 15, 20, 25, 30, 50, 100):
            a, b = (np.abs(c.binned(bins).residual).sum() / 1536 for c in (histogram.reliability(event), cells_))
            assert a == pytest.approx(b, abs=1e-12)
            assert a > 0.01


def test_half_precision_probabilities_are_binned_as_stored():
    p = np.arange(np.float16(1).view(np.uint16) + 1, dtype=np.uint16).view(np.float16)
    [whole] = measure_float_map("a", p[None], "probabilities", p[None] > 0.5)
    index = SCORE_GRID.index(p)
    assert (index != SCORE_GRID.index(p, 2.0**-21)).any()
    np.testing.assert_array_equal(whole.foreground.count[0], np.bincount(index, minlength=SCORE_GRID.size))
    [close] = p[index != SCORE_GRID.index(p, 2.0**-21)]  # just above 1 / 600: the top label of as many classes
    [whole] = measure_classes("a", np.full((600, 1, 2), close), "probabilities", np.zeros((1, 2), int))
    assert whole.top_label.count[0, SCORE_GRID.index(close[None])] == [2]


def test_sigmoids_are_binned_with_the_tolerance_of_its_type():
    z = np.linspace(-8, 8, 20001)
    for dtype, tolerance in ((np.float16, 2.0**-21), (np.float32, 2.0**-21), (np.float64, 1e-12)):
        logits = z.astype(dtype)[None]
        p = expit(logits)[0]
        assert (SCORE_GRID.index(p, 2.0**-21) != SCORE_GRID.index(p, 1e-12)).any()
        expected = np.bincount(SCORE_GRID.index(p, tolerance), minlength=SCORE_GRID.size)
        [whole] = measure_float_map("a", logits, "logits", logits > 1)
        np.testing.assert_array_equal(whole.foreground.count[0], expected)


def test_sixteen_bits_are_not_rounded_to_eight():
    fine = np.array([[32767, 32768, 65535]], np.uint16)
    [whole] = measure_float_map("a", fine, "levels", np.array([[True, True, True]]), top=65535)
    assert whole.counts.predicted.tolist() == [[1, 2]]
    assert whole.sums.squared_score[0] == pytest.approx(((fine / 65535) ** 2).sum(), rel=1e-15)
    assert whole.sums.clip == 1 / 131070


def test_float_maps_in_blocks_and_without_truth(monkeypatch):
    generator = np.random.default_rng(0)
    logits, target = generator.normal(size=(23, 31), scale=4).astype(np.float32), generator.random((23, 31)) < 0.4
    region = generator.integers(0, 3, target.shape)
    whole = measure_float_map("a", logits, "logits", target, region=region, n_regions=3, extras=EXTRAS)
    [all_] = measure_float_map("a", logits, "logits", target, extras=EXTRAS)
    assert_same(added(whole), all_)
    monkeypatch.setattr(floats, "BLOCK", 7)
    for a, b in zip(
        whole, measure_float_map("a", logits, "logits", target, region=region, n_regions=3, extras=EXTRAS), strict=True
    ):
        assert_same(a, b)
    [none], [empty] = (measure_float_map("a", logits, "logits", t) for t in (None, np.zeros_like(target)))
    assert_same(none, empty)


def test_saturated_logits_have_a_finite_loss():
    [whole] = measure_float_map("a", np.array([[200.0, -200.0]], np.float32), "logits", np.array([[False, False]]))
    assert whole.sums.log_loss.tolist() == [200.0]
    assert whole.sums.entropy.tolist() == [0.0]


@pytest.mark.parametrize(
    ("scores", "kind", "message"),
    [
        ([[0.5, np.nan]], "probabilities", "NaN or infinite"),
        ([[0.5, -np.inf]], "logits", "NaN or infinite"),
        ([[-0.5, 3.0]], "probabilities", r"from -0\.5 to 3; .*--input logits"),
        ([[3, 700]], "levels", "levels from 3 to 700; expected 0 to 255"),
    ],
)
def test_float_maps_out_of_range_are_refused(scores, kind, message):
    with pytest.raises(RangeError, match=message):
        measure_float_map("a", np.array(scores), kind, np.array([[True, False]]))
    if kind != "levels":
        measure_float_map("a", np.array(scores), kind, np.array([[True, False]]), np.zeros((1, 2), bool))


def test_saliency_levels():
    levels = np.arange(256, dtype=np.uint8)[None]
    for dtype in FLOATS:
        np.testing.assert_array_equal(saliency_levels((levels / 255).astype(dtype), "probabilities"), levels)
    np.testing.assert_array_equal(saliency_levels(levels.astype(np.uint16) * 257, "levels", 65535), levels)
    void = np.array([[np.nan, np.inf, -np.inf, 0.0]])
    assert saliency_levels(void, "logits").tolist() == [[0, 255, 0, 128]]
    assert saliency_levels(void, "probabilities").tolist() == [[0, 255, 0, 0]]


# regions


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([0, 0.9, 1, 1.5, 2, 2.9, 5, 40]), st.booleans())
def test_regions_equal_textbook(data, width, binary):
    shape = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    target = data.draw(arrays(np.int64, shape, elements=st.integers(0, 1 if binary else 3)))
    valid = data.draw(st.none() | arrays(np.bool_, shape))
    inside = np.ones(shape, bool) if valid is None else valid
    marked = np.where(inside, target, 255)  # what void pixels hold must not matter
    codes, names = region_codes(marked > 0 if binary else marked, valid, width=width, binary=binary)
    assert codes.dtype == np.uint8
    boundary = boundary_oracle(target, inside, width)
    if binary:
        expected = np.where(boundary, 0, np.where(target == 1, 1, 2))
        assert names == ("boundary", "interior_fg", "interior_bg")
    else:
        expected = np.where(boundary, 0, 1)
        assert names == ("boundary", "interior")
    np.testing.assert_array_equal(codes[inside], expected[inside])


def test_a_boundary_has_the_width_asked_for_on_either_side():
    target = np.zeros((40, 41), int)
    target[:, 20:] = 7
    codes, _ = region_codes(target, width=5, binary=False)
    np.testing.assert_array_equal(np.flatnonzero(codes[0] == 0), np.arange(15, 25))
    with pytest.raises(OptionError, match="expected 0 or more pixels"):
        region_codes(target, width=-1, binary=False)


def test_blocks_cover_every_valid_pixel_once():
    generator = np.random.default_rng(0)
    valid, region = generator.random(100) < 0.7, generator.integers(0, 5, 100)
    found = list(regions.blocks(100, 8, valid, region))
    at = np.concatenate([block.at for block in found])
    np.testing.assert_array_equal(np.sort(at), np.flatnonzero(valid))
    for block in found:
        np.testing.assert_array_equal(region[block.at], block.row + block.rows.start)


# --- blocks in which something does not occur ---------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
def test_a_block_of_label_0_alone_has_no_objects(monkeypatch, first):
    """As the sky on top of a street: sums over no pixel are zeros, not integers."""
    monkeypatch.setattr(multiclass, "BLOCK", 6)
    logits = np.random.default_rng(0).normal(size=(4, 4, 6))
    target = np.zeros((4, 6), int)
    target[first::2] = np.arange(6) % 4
    [whole] = measure_classes("a", logits, "logits", target, extras=EXTRAS)
    monkeypatch.undo()
    [at_once] = measure_classes("a", logits, "logits", target, extras=EXTRAS)
    assert_same(whole, at_once)
    assert whole.objects.confidence.dtype == np.float64


def test_many_equal_classes_keep_their_sums():
    """Of 150 equal probabilities none exceeds 0.01, so that no pixel is looked at class by class."""
    for pixels in (40, 41):
        [whole] = measure_classes("a", np.zeros((150, 1, pixels)), "logits", np.zeros((1, pixels), int))
        np.testing.assert_allclose(whole.classes.confidence[0].sum(-1), pixels / 150, rtol=1e-12)
        np.testing.assert_array_equal(whole.classes.count[0].sum(-1), pixels)


@pytest.mark.parametrize("scale", [5, 15, 30])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_saturated_logits_keep_their_order(scale, dtype):
    """Probabilities round to 1 from a logit of 17 on; the cells go on to 35, and the bound tells of the rest."""
    generator = np.random.default_rng(scale)
    z = (generator.normal(size=(60, 70)) * scale).astype(dtype)
    y = generator.random(z.shape) < expit(2 * z.astype(np.float64) / scale)
    [binary] = measure_float_map("a", z, "logits", y)
    [several] = measure_classes("a", np.stack([np.zeros_like(z), z, z - dtype(90)]), "logits", y.astype(int))
    right = (z >= 0) == y
    for cells, exact, name in (
        (binary.foreground, roc_auc_score(y.ravel(), z.ravel()), "auroc"),
        (binary.top_label, roc_auc_score(right.ravel(), np.abs(z).ravel()), "auroc_error"),
        (several.top_label, roc_auc_score(((z > 0) == y).ravel(), np.abs(z).ravel()), "auroc_error"),
    ):
        pooled = cells.total()
        found, bound = float(METRICS[name].function(pooled)), METRICS[name].details(pooled)["error_bound"]
        assert abs(found - exact) <= bound + 1e-12
        assert bound < 0.02
