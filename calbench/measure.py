"""One sample, or the files of one image, table or volume -> rows of statistics: what a worker process does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calbench.errors import InputError, RangeError, ShapeError
from calbench.io.arrays import VOLUMES, StoredArray, extension, grey_from_array, read_array, read_header
from calbench.io.coding import MaskCoding, mask_from_array, read_mask
from calbench.io.images import FORMATS, GreyImage, read_grey, resize_bilinear
from calbench.io.labels import LabelCoding, read_label_map, read_labels
from calbench.io.pairing import Pair
from calbench.io.pictures import fit_picture, read_picture
from calbench.io.predictions import ScoreCoding, eps_of, looks_normalised, resize_scores, squeezed
from calbench.io.sample import Kind, Sample
from calbench.io.tables import Table, read_table, sample_groups
from calbench.kernels import (
    IMAGE_SCORES,
    added,
    measure,
    measure_aslp,
    measure_class_rows,
    measure_classes,
    measure_decisions,
    measure_float_map,
    measure_levels,
    region_codes,
    saliency_levels,
)
from calbench.plan import PRED_THRESHOLD, CollectOptions, Plan
from calbench.statistics import AslpRows, ClassChanges, ImageFacts, ImageScores, JointHistogram, Statistics
from calbench.statistics.rows import MEMBER, Array

if TYPE_CHECKING:
    from calbench.calibrators import Calibrator

MOST_LEVEL = 65535
"""The level of 16-bit maps that means p = 1."""
MOST_GROUPS = 1000
"""Resampling units of a table: more samples are put into so many hash groups."""


@dataclass(frozen=True)
class Request:
    """What to compute of each image beyond what is always computed.

    Attributes:
        scores: positional scores of binary maps.
        extras: profiles that need more (see `Statistics`).
        regions: whether to tell boundaries from interiors.
        boundary_width: pixels within this distance of another class are boundary.
    """

    scores: tuple[str, ...] = IMAGE_SCORES
    extras: tuple[str, ...] = ()
    regions: bool = False
    boundary_width: float = 5.0


@dataclass(frozen=True)
class Task:
    """Everything a worker needs for one pair of files: names and rules, a few hundred bytes."""

    pair: Pair
    scores: ScoreCoding | None
    truth: MaskCoding | LabelCoding | None
    fov: MaskCoding | None
    options: CollectOptions
    request: Request
    table: str | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """One image as read: the sample, what its files are like, and what only the raw mask bytes tell."""

    sample: Sample
    facts: dict[str, int]
    aslp: AslpRows | None

    @property
    def facts_row(self) -> ImageFacts:
        """The facts as a row of statistics."""
        return ImageFacts.from_records((self.sample.name,), [self.facts], np.int64)


@dataclass(frozen=True, eq=False)
class TableReading:
    """A classification table as read: `(1, N, C)` scores as one sample, in hash groups, one row of statistics each."""

    names: tuple[str, ...]
    sample: Sample
    group: Array
    facts: ImageFacts


def measure_sample(sample: Sample, request: Request = Request()) -> Statistics:
    """One row from one image in memory."""
    regions, codes = None, {}
    if request.regions and sample.target is not None:
        regions, names = region_codes(
            sample.target, sample.valid, width=request.boundary_width, binary=sample.classes == 1
        )
        codes = {name: code for code, name in enumerate(names)}
    conventions: dict[str, Any] = {"input": sample.kind, "classes": max(sample.classes, 2)}
    if sample.scores.dtype == np.uint8:
        whole, parts = _measure_levels(sample, request, regions, codes)
        conventions["pred_threshold"] = PRED_THRESHOLD
    else:
        whole, parts = _measure_floats(sample, request, regions, len(codes) or 1)
    named = {
        name: replace(parts[code], histogram=parts[code].histogram if whole.top_label is None else None,
                      region=name)
        for name, code in codes.items()
    }  # fmt: skip
    return replace(whole, regions=named).under(conventions)


def _measure_levels(
    sample: Sample, request: Request, regions: Array | None, codes: Mapping[str, int]
) -> tuple[Statistics, list[Statistics]]:
    """An 8-bit map as a whole, and by region: joint histograms."""
    names = (sample.name,)
    target = np.zeros(sample.size, bool) if sample.target is None else sample.target
    measured = measure(sample.scores, target, sample.valid, scores=() if sample.target is None else request.scores)
    scores = None if sample.target is None else ImageScores.from_records(names, [measured.scores], np.float64)
    parts = []
    for code in codes.values():
        assert regions is not None
        inside = regions == code
        valid = inside if sample.valid is None else inside & sample.valid
        parts.append(Statistics(JointHistogram(names, measure(sample.scores, target, valid, scores=()).counts[None])))
    return Statistics(JointHistogram(names, measured.counts[None]), scores=scores), parts


def _measure_floats(
    sample: Sample, request: Request, regions: Array | None, n_regions: int
) -> tuple[Statistics, list[Statistics]]:
    """Float or 16-bit scores as a whole, and by region."""
    assert sample.kind is not None
    eps = sample.eps or (float(np.finfo(sample.scores.dtype).eps) if sample.scores.dtype.kind == "f" else None)
    shared: dict[str, Any] = {
        "region": regions,
        "n_regions": n_regions,
        "extras": request.extras,
        "clip": eps,
        "where": sample.source or sample.name,
    }
    if sample.kind != "levels" and sample.classes > 1:
        parts = measure_classes(
            sample.name, sample.scores, sample.kind, sample.target, sample.valid, layout=sample.layout, **shared
        )
        return added(parts), parts
    parts = measure_float_map(
        sample.name, sample.scores, sample.kind, sample.target, sample.valid, top=MOST_LEVEL, **shared
    )
    whole = added(parts)
    if sample.target is not None:
        levels = saliency_levels(sample.scores, sample.kind, MOST_LEVEL)
        measured = measure(levels, sample.target, sample.valid, scores=request.scores)
        whole = replace(whole, scores=ImageScores.from_records((sample.name,), [measured.scores], np.float64))
    return whole, parts


def tasks_of(plan: Plan, options: CollectOptions) -> Iterator[Task]:
    """What is to be done for each pair of a combination."""
    request = Request(options.scores, options.extras, options.regions, options.boundary_width)
    for pair in plan.pairs:
        yield Task(pair, plan.scores, plan.truth, plan.fov, options, request, plan.table)


def measure_pair(task: Task) -> Statistics:
    """The rows of one pair of files: one of an image, several of a volume or a table."""
    calibrator = None if task.options.calibrator is None else calibrator_of(task.options.calibrator)
    if task.scores is None:
        return _measure_table(task, calibrator)
    rows = [measure_reading(reading, task, calibrator) for reading in read_images(task)]
    return rows[0] if len(rows) == 1 else Statistics.concat(rows)


def calibrator_of(path: str) -> Calibrator:
    """The calibrator of a file, read once a process as long as the file stays the same."""
    state = Path(path).stat()
    return _loaded(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=256)
def _loaded(path: str, *_: int) -> Calibrator:
    from calbench.calibrators import load_calibrator

    return load_calibrator(path)


def measure_reading(reading: Reading, task: Task, calibrator: Calibrator | None = None) -> Statistics:
    """The row of one image, calibrated or as it is."""
    sample = reading.sample
    if calibrator is None:
        row = measure_sample(sample, task.request)
    else:
        row = measure_calibrated(sample, calibrator, picture_of(task, sample.size), task.request)
    return replace(row.under({}), facts=reading.facts_row, aslp=reading.aslp)


def measure_calibrated(
    sample: Sample, calibrator: Calibrator, picture: Array | None = None, request: Request = Request()
) -> Statistics:
    """One row from one image in memory, its scores passed through a calibrator.

    Pixelwise calibrators of 8-bit maps replace the probabilities of 256 levels (see `kernels.levels`); all else is measured
    as float64 probabilities. Doing nothing leaves the scores as they are stored.
    """
    from calbench.calibrators.samples import calibrated, level_logits, refuse_mismatch

    if calibrator.name == "identity":
        return measure_sample(sample, request)
    if sample.scores.dtype == np.uint8 and not calibrator.needs_images and not request.extras:
        refuse_mismatch(calibrator, 1, "levels", sample.source or sample.name)
        return measure_levels(measure_sample(sample, request), calibrator.transform(level_logits()))
    new, changed = calibrated(sample, calibrator, picture)
    row = measure_sample(new, request)
    counted = changed if sample.valid is None else changed & sample.valid
    changes = ClassChanges((sample.name,), np.asarray(row.n_pixels), np.array([_count(counted)]))
    return replace(row, changes=changes)


def picture_of(task: Task, size: tuple[int, int]) -> Array | None:
    """The picture that a prediction of this height and width was made from, `(3, H, W)` in [0, 1]; None without one."""
    path = task.pair.image
    if path is None:
        return None
    return fit_picture(read_picture(path), size, resize=task.options.resize_images, where=str(path))


def read_images(task: Task) -> list[Reading]:
    """The image of one pair of files, or each slice of a volume."""
    assert task.scores is not None
    preds = _read_scores(task.pair.pred, task.scores, task.options.npz_key)
    gts = _read_truth(task)
    fovs = [None] * len(preds) if task.pair.mask is None else _read_masks(task.pair.mask, None)
    if not len(preds) == len(gts) == len(fovs):
        fov = "" if task.pair.mask is None else f", its field of view {len(fovs)}"
        raise ShapeError(f"{task.pair.pred} has {len(preds)} slices, its mask {len(gts)}{fov}; save them alike")
    digits = len(str(len(preds) - 1))
    names = (
        [task.pair.name]
        if len(preds) == 1 and extension(task.pair.pred) not in VOLUMES
        else [f"{task.pair.name}{MEMBER}{number:0{digits}d}" for number in range(len(preds))]
    )
    return [_read_image(task, *image) for image in zip(names, preds, gts, fovs, strict=True)]


@dataclass(frozen=True)
class _Labels:
    """Raw values of a label mask."""

    values: Array
    digest: int


def _read_scores(path: Path, coding: ScoreCoding, key: str | None) -> Sequence[GreyImage | StoredArray]:
    """The prediction of an image, or of each slice of a volume."""
    if coding.eight_bit and extension(path) in FORMATS:
        image = read_grey(path)
        if image.palette:
            raise RangeError(
                f"{path} has a coloured palette: its values are indices, not probabilities; save the map as 8-bit grey"
            )
        return [image]
    stored = read_array(path, "prediction", key)
    slices = [stored]
    if extension(path) in VOLUMES:
        slices = [replace(stored, array=stored.array[:, :, z]) for z in range(stored.array.shape[2])]
    slices = [replace(each, array=each.array.reshape(squeezed(each.array.shape))) for each in slices]
    return [grey_from_array(each, path) for each in slices] if coding.eight_bit else slices


def _read_truth(task: Task) -> Sequence[GreyImage | _Labels | None]:
    """The mask of an image, or of each slice of a volume; None out of distribution."""
    path, key = task.pair.gt, task.options.gt_npz_key
    if path is None or task.truth is None:
        n_slices = 1 if extension(task.pair.pred) not in VOLUMES else read_header(task.pair.pred, "prediction")[0][2]
        return [None] * n_slices
    if isinstance(task.truth, LabelCoding):
        raw, digest = read_labels(path, key)
        if extension(path) in VOLUMES:
            return [_Labels(raw[:, :, z], digest) for z in range(raw.shape[2])]
        return [_Labels(raw, digest)]
    return _read_masks(path, key)


def _read_masks(path: Path, key: str | None) -> Sequence[GreyImage]:
    """The binary mask, or the field of view, of an image, or of each slice of a volume."""
    if extension(path) not in VOLUMES:
        return [read_mask(path, key)]
    stored = read_array(path, "mask", key)
    return [mask_from_array(replace(stored, array=plane), path) for plane in np.moveaxis(stored.array, 2, 0)]


def _read_image(
    task: Task, name: str, pred: GreyImage | StoredArray, gt: GreyImage | _Labels | None, fov: GreyImage | None
) -> Reading:
    """The sample of a prediction, its mask and its field of view."""
    coding = task.scores
    assert coding is not None
    scores = pred.levels if isinstance(pred, GreyImage) else pred.array
    target, void, facts = _target(task, gt)
    size = coding.size(scores.shape) if target is None else target.shape
    resized = coding.size(scores.shape) != size
    if resized:
        if task.options.on_mismatch != "resize-pred":
            raise ShapeError(
                f"{task.pair.pred} is {coding.size(scores.shape)}, its mask {size}; did it change meanwhile?"
            )
        layout = coding.layout
        scores = resize_bilinear(scores, size) if coding.eight_bit else resize_scores(scores, size, layout)
        coding = replace(coding, layout=None if layout is None else "CHW")
    named = void  # by the mask file itself
    if fov is not None and task.fov is not None:
        outside = ~task.fov.foreground(fov.levels)
        void = outside if void is None else void | outside
    facts |= {
        "height": size[0],
        "width": size[1],
        "void": 0 if void is None else _count(void),
        "resized": int(resized),
        "pred_digest": pred.digest,
        "fov_bits": 0 if fov is None else fov.bits,
        "fov_max": 0 if fov is None else int(fov.levels.max(initial=0)),
        "fov_digest": 0 if fov is None else fov.digest,
    }
    valid = None if void is None else ~void
    if isinstance(pred, GreyImage):
        facts |= {
            "void_foreground": 0 if void is None or target is None
            else _count(target & (void if named is None else void & ~named)),
            "void_nonzero": 0 if void is None else _count(scores[void]),
            "pred_bits": pred.bits,
            "pred_channels": pred.channels,
            "pred_spread": pred.spread,
        }  # fmt: skip
    if coding.kind == "logits":
        axis = None if coding.binary else 0 if coding.layout == "CHW" else 2
        facts["normalised"] = int(looks_normalised(scores, axis))
    aslp = None
    if "aslp" in task.request.extras and isinstance(pred, GreyImage) and isinstance(gt, GreyImage):
        aslp = measure_aslp(name, scores, gt.levels, valid)
    return Reading(_sample(name, task, coding, scores, target, valid), facts, aslp)


def _sample(
    name: str, task: Task, coding: ScoreCoding, scores: Array, target: Array | None, valid: Array | None
) -> Sample:
    """The sample that the files of an image hold."""
    where = str(task.pair.pred)
    if coding.kind == "levels" and scores.dtype.kind == "f":  # declared: floats that run from 0 to 255
        low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
        if not (low >= 0 and high <= coding.top):
            raise RangeError(f"{where} has values from {low:.4g} to {high:.4g}; expected levels 0 to {coding.top}")
        probs = scores.astype(np.float64) / coding.top
        return Sample(name, probs, target, valid, "probabilities", eps=1 / (2 * coding.top), source=where)
    return Sample(name, scores, target, valid, coding.kind, coding.layout or "CHW", coding.eps, where)


def _target(task: Task, gt: GreyImage | _Labels | None) -> tuple[Array | None, Array | None, dict[str, int]]:
    """Target and void pixels of a mask, and facts about its file."""
    if gt is None:
        return None, None, {"gt_digest": 0, "gt_foreground": 0}
    if isinstance(gt, _Labels):
        assert isinstance(task.truth, LabelCoding)
        assert task.pair.gt is not None
        target, valid = task.truth.apply(gt.values, task.pair.gt)
        return target, None if valid is None else ~valid, {"gt_digest": gt.digest, "gt_foreground": 0}
    assert isinstance(task.truth, MaskCoding)
    target, void = task.truth.foreground(gt.levels), task.truth.void(gt)
    known = gt.levels if void is None else gt.levels[~void]
    if known.min(initial=0) < 0:
        raise RangeError(
            f"{task.pair.gt} holds the value {known.min()}, which is no byte; say --ignore-index {known.min()} if it is void"
        )
    return (
        target,
        void,
        {
            "gt_digest": gt.digest,
            "gt_foreground": _count(target if void is None else target & ~void),
            "gt_one": _count(known == 1),
            "gt_between": known.size - sum(_count(known == value) for value in (0, 1, 255)),
            "gt_max": int(known.max(initial=0)),
            "gt_bits": gt.bits,
            "gt_channels": gt.channels,
            "gt_spread": gt.spread,
            "gt_palette": int(gt.palette),
        },
    )


def _measure_table(task: Task, calibrator: Calibrator | None) -> Statistics:
    """The rows of a classification table: one a sample, or one a hash group of many samples."""
    reading = read_scored_table(task)
    if isinstance(reading, Statistics):
        if calibrator is not None:
            raise InputError(
                f"{task.pair.pred} holds decisions and their confidence; a calibrator needs the scores of all classes, as .npz"
            )
        return reading
    if calibrator is None or calibrator.name == "identity":
        return measure_table(reading, reading.sample, task.request)
    from calbench.calibrators.samples import calibrated

    new, changed = calibrated(reading.sample, calibrator)
    return measure_calibrated_table(reading, new, changed[0], task.request)


def measure_calibrated_table(reading: TableReading, sample: Sample, changed: Array, request: Request) -> Statistics:
    """The rows of a table after calibration: of `sample`, whose classes changed where `changed`, `(N,)` bool, says."""
    table = measure_table(reading, sample, request)
    counted = changed if sample.valid is None else changed & sample.valid[0]
    n_changed = np.bincount(reading.group, counted, len(reading.names)).astype(np.int64)
    return replace(table, changes=ClassChanges(reading.names, table.n_pixels, n_changed))


def measure_table(reading: TableReading, sample: Sample, request: Request) -> Statistics:
    """The rows of a table whose scores are those of `sample`."""
    assert sample.kind in ("logits", "probabilities")
    rows = measure_class_rows(
        reading.names, sample.scores, sample.kind, sample.target, sample.valid,
        layout=sample.layout, region=reading.group[None], extras=request.extras, clip=sample.eps,
        where=sample.source or sample.name,
    )  # fmt: skip
    return replace(rows, facts=reading.facts)


def read_scored_table(task: Task) -> TableReading | Statistics:
    """A classification table as a sample in groups; of one that holds decisions only, its rows."""
    pair, options = task.pair, task.options
    table = read_table(pair.pred, options.npz_key, options.gt_npz_key)
    used, group = np.unique(sample_groups(len(table), MOST_GROUPS), return_inverse=True)
    names = tuple(f"{pair.name}{MEMBER}{number:03d}" for number in range(len(used)))
    ignored = (*options.void_values, *options.ignore_index)
    mapping = read_label_map(Path(options.label_map)) if options.label_map else None
    n_classes = _classes_of(table, ignored, mapping)
    if options.num_classes is not None and (n_classes != options.num_classes if table.scores is not None
                                            else n_classes > options.num_classes):  # fmt: skip
        raise ShapeError(f"{pair.pred} has {n_classes} classes, but --num-classes is {options.num_classes}")
    coding = LabelCoding(options.num_classes or n_classes, ignored, options.reduce_zero_label, mapping)
    target, valid = coding.apply(table.target[None], pair.pred)
    digests = {"pred_digest": table.digest, "gt_digest": table.digest}
    facts = ImageFacts.from_records(names, [digests] * len(names), np.int64)
    if table.scores is None:
        rows = _measure_decisions(names, table, target[0], None if valid is None else valid[0], group)
        return replace(rows, facts=facts)
    kind: Kind = "logits" if task.table == "logits" else "probabilities"
    sample = Sample(
        pair.name, table.scores[None], target, valid, kind, "HWC", eps_of(table.stored), source=str(pair.pred)
    )
    return TableReading(names, sample, group, facts)


def _classes_of(table: Table, ignored: Sequence[int], mapping: Mapping[int, int] | None) -> int:
    """Classes that a table has scores of, or that occur in it."""
    if table.scores is not None:
        return int(table.scores.shape[1])
    assert table.predicted is not None
    target = table.target[~np.isin(table.target, ignored)] if mapping is None else np.array(list(mapping.values()))
    return 1 + int(max(table.predicted.max(initial=0), target.max(initial=0)))


def _measure_decisions(
    names: tuple[str, ...], table: Table, target: Array, valid: Array | None, group: Array
) -> Statistics:
    """The rows of a table without scores; samples without a class are left out."""
    assert table.predicted is not None
    assert table.confidence is not None
    kept = slice(None) if valid is None else valid
    return measure_decisions(names, target[kept], table.predicted[kept], table.confidence[kept], group[kept])


def _count(mask: Array) -> int:
    return int(np.count_nonzero(mask))
