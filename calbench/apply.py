"""Calibrated maps on disk: predictions through a calibrator, an image at a time, resumable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from calbench.errors import FormatError, InputError, OptionError, RangeError, ShapeError, UnknownName, plural
from calbench.io.arrays import VOLUMES, extension, member_of, read_array, read_header
from calbench.io.files import APPLIED, digest, read_bytes
from calbench.io.maps import FORMATS, TOPS, Rounding, map_file, quantised, write_map
from calbench.io.pairing import Folders, Pair, match_files, refuse_mixing, with_pictures
from calbench.io.predictions import (
    SUM_TOLERANCE,
    Kind,
    Layout,
    ScoreCoding,
    Shape,
    eps_of,
    flat_shape,
    infer_scores,
    kind_of_table,
    looks_normalised,
)
from calbench.io.sample import Sample
from calbench.io.tables import TEXT, is_table, read_table
from calbench.io.written import Record, Written
from calbench.kernels.floats import probabilities
from calbench.measure import Request, Task, calibrator_of, picture_of, read_images
from calbench.parallel import check_jobs, parallel_map
from calbench.plan import CollectOptions
from calbench.progress import progress_bar
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from calbench.calibrators import Calibrator

SCHEMA = 1


@dataclass(frozen=True)
class ApplyOptions:
    """What is calibrated, and how it is written.

    Attributes:
        calibrator: file of a calibrator.
        pred: folder of predictions, or one file.
        output: folder to write to: a file for each prediction, of its stem, in its sub-folder.
        images: folder of the pictures that predictions were made from; only calibrators that look at them read it.
        resize_images: whether a picture of another size than its prediction is resized to it.
        pred_suffix: only predictions whose stem ends in this; it stays in the names, and is no part of those of pictures.
        input: "levels", "probabilities" or "logits"; None infers it once for all files.
        layout: "CHW" or "HWC" of several classes; None takes the axis with as many numbers as the calibrator has classes.
        npz_key: array to read from `.npz` files.
        format: "npz": float16 `probabilities`, `(H, W)` of binary maps, `(C, H, W)` of several classes, `(N, C)` of tables,
            beside the labels of an `.npz` prediction that holds them; "png16", "png8": grey levels of binary maps.
    """

    calibrator: str
    pred: str
    output: str
    images: str | None = None
    resize_images: bool = False
    pred_suffix: str = ""
    input: Kind | None = None
    layout: Layout | None = None
    npz_key: str | None = None
    format: str = "npz"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UnknownName("format", self.format, FORMATS)

    @property
    def reading(self) -> CollectOptions:
        """How predictions are read."""
        shared = ("pred", "images", "resize_images", "pred_suffix", "input", "layout", "npz_key")
        return CollectOptions(**{name: getattr(self, name) for name in shared}, scores=())


@dataclass(frozen=True)
class Applied:
    """What was written.

    Attributes:
        calibrator: its name.
        output: the folder.
        format: see `ApplyOptions`.
        input: what the predictions were found to hold.
        files: paths below the folder, sorted.
        skipped: how many of them an earlier run had written.
        fitted_on: how many have a name of an image that the calibrator was fitted on.
        rounding: of all files together.
    """

    calibrator: str
    output: Path
    format: str
    input: str
    files: tuple[str, ...]
    skipped: int
    fitted_on: int
    rounding: Rounding

    @property
    def text(self) -> str:
        """For people: what was written, and what storing it cost."""
        earlier = f" ({self.skipped:,} of them before)" * bool(self.skipped)
        return (
            f"{plural(len(self.files), 'file')} in {self.output}{earlier}, calibrated by {self.calibrator}\n"
            f"{self.rounding.text(self.format)}"
        )

    def to_json(self) -> dict[str, Any]:
        """One document of plain values."""
        return {
            "calibrator": self.calibrator,
            "output": str(self.output),
            "format": self.format,
            "input": self.input,
            "images": len(self.files),
            "skipped": self.skipped,
            "fitted_on": self.fitted_on,
            "quantisation": self.rounding.to_json(),
            "files": list(self.files),
        }


@dataclass(frozen=True)
class _Work:
    """Everything a worker needs for one file: names and rules, a few hundred bytes."""

    task: Task
    file: str
    options: ApplyOptions
    earlier: Written | None


def apply_folder(
    options: ApplyOptions,
    *,
    jobs: int | None = None,
    resume: bool = False,
    force: bool = False,
    progress: bool = False,
    announce: Callable[[str], None] = lambda _: None,
) -> Applied:
    """Pass predictions through a calibrator and write what comes out, one image at a time.

    Every pixel keeps the class of its calibrated probabilities, whatever storing rounds: see `quantised`. Numbers measured
    on what is written are those of the calibrated probabilities up to rounding, but NLL is clipped by the unit of the stored
    type, 2^-10 of float16. A record of what was written from what, `apply.json`, stays in the folder.

    Args:
        jobs: worker processes; None chooses.
        resume: keep files that the same calibrator wrote with the same options from the same predictions.
        force: replace what the folder holds; what an earlier run wrote there, and this one does not, is removed.
        progress: draw a bar on stderr.
        announce: receives what was inferred, for people.
    Raises:
        FormatError: no calibrator, or a file that cannot be read.
        ShapeError, RangeError: predictions of another number of classes, or not of the kind that all seemed to be; NaN.
        PairingError, InputError: predictions that share a name, or have no picture; volumes; a folder that is in use.
        OptionError: options that do not go together.
    """
    from calbench.calibrators import load_calibrator
    from calbench.calibrators.origin import shared_names
    from calbench.calibrators.samples import refuse_calibrated, refuse_mismatch

    check_jobs(jobs)
    calibrator = load_calibrator(options.calibrator)
    pred, output = Path(options.pred), Path(options.output)
    refuse_mixing(output, {"predictions": options.pred, "pictures": options.images}, around=True)
    refuse_calibrated(pred)
    matching = match_files(Folders("", "", pred, None), pred_suffix=options.pred_suffix)
    matching.raise_on_problems(Folders("", "", pred, None), skip_missing=False)
    table = _holds_tables(matching.pairs, options)
    _refuse_kind_of_file(matching.pairs, calibrator, options, table=table)
    coding = _coding(matching.pairs, calibrator, options, table=table)
    refuse_mismatch(calibrator, coding.classes, coding.kind, pred)
    pairs = with_pictures(matching.pairs, Path(str(options.images))) if calibrator.needs_images else matching.pairs

    described = coding.text if not table else f"tables, {coding.stored} {coding.kind} of {coding.classes} classes"
    announce(f"{plural(len(pairs), 'table' if table else 'image')} in {pred}, {described}")
    shared = shared_names(calibrator, {pair.name.rsplit("/", 1)[-1] for pair in pairs})
    if shared:
        announce(
            f"{len(shared)} of {plural(len(pairs), 'image')} have names of images that {calibrator.name} was fitted on; "
            "numbers on those would flatter it"
        )
    file_of = {pair.name: map_file(pair.pred, pred, options.format) for pair in pairs}
    calibrator_digest = digest(read_bytes(Path(options.calibrator)))
    head = _head(options, calibrator, calibrator_digest, described)
    record = Record(output / APPLIED, head, holds="calibrated maps", by="calibrator", source="predictions")
    done = record.earlier(set(file_of.values()), resume=resume, force=force)
    reading = options.reading
    works = [
        _Work(
            Task(pair, None if table else coding, None, None, reading, Request(scores=()), coding.kind),
            file_of[pair.name], options, done.get(file_of[pair.name]),
        )
        for pair in pairs
    ]  # fmt: skip
    skipped = 0
    with (
        record.kept(done) as keep,
        progress_bar("images", len(works), enabled=progress) as advance,
    ):
        for file, written, new in parallel_map(_written, works, jobs):
            keep(file, written)
            skipped += not new
            advance()
    files = tuple(sorted(done))
    rounding = Rounding.merged([done[file].rounding for file in files])
    return Applied(calibrator.name, output, options.format, described, files, skipped, len(shared), rounding)


def _written(work: _Work) -> tuple[str, Written, bool]:
    """Calibrate one file and write it, unless it was written before; its name, its record, and whether it is new."""
    task, options = work.task, work.options
    sample, prediction = _read_table(task) if task.scores is None else _read_map(task)
    image = 0 if task.pair.image is None else digest(read_bytes(task.pair.image))
    origin, earlier = {"prediction": prediction, "image": image}, work.earlier
    if earlier is not None and earlier.origin == origin:
        return work.file, earlier, False
    _verify(sample, declared=options.input is not None)
    calibrator = calibrator_of(options.calibrator)
    stored, rounding = quantised(_calibrated(sample, calibrator, picture_of(task, sample.size)), options.format)
    if task.scores is None:
        stored = stored[:, 0].T
    labels = {} if options.format in TOPS else _labels(task.pair.pred, options.npz_key)
    write_map(Path(options.output, work.file), stored, **labels)
    return work.file, Written(origin, rounding), True


def _read_map(task: Task) -> tuple[Sample, int]:
    """The prediction of an image, and its digest."""
    [reading] = read_images(task)
    return reading.sample, reading.facts["pred_digest"]


def _read_table(task: Task) -> tuple[Sample, int]:
    """The scores of a table as those of an image of one line, and its digest."""
    path = task.pair.pred
    table = read_table(path, task.options.npz_key)
    assert table.scores is not None
    kind: Kind = "logits" if task.table == "logits" else "probabilities"
    sample = Sample(task.pair.name, table.scores[None], None, None, kind, "HWC", eps_of(table.stored), source=str(path))
    return sample, table.digest


def _verify(sample: Sample, *, declared: bool) -> None:
    """Hold one file against what all of them were found to hold.

    Raises:
        RangeError: NaN, no probabilities, or probabilities among logits.
    """
    scores, where = sample.scores, sample.source
    axis = None if scores.ndim == 2 else 0 if sample.layout == "CHW" else 2
    low, high = scores.min(), scores.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RangeError(f"{where} holds NaN or infinite values; expected finite {sample.kind}; repair it")
    if sample.kind == "logits" and not declared and looks_normalised(scores, axis):
        raise RangeError(
            f"{where} holds probabilities, but the others were taken for logits; save them all in one way, or, if these are "
            "logits, say --input logits"
        )
    if sample.kind != "probabilities":
        return
    if not (low >= 0 and high <= 1 + 1e-3):
        raise RangeError(
            f"{where} has values from {low:.4g} to {high:.4g}; expected probabilities in [0, 1]; if these are logits, save "
            "them all in one way, or say --input logits"
        )
    if axis is not None:
        sums = scores.sum(axis, dtype=np.float64)
        if np.abs(sums - 1).max() > SUM_TOLERANCE:
            raise RangeError(
                f"{where} has probabilities whose sum over the classes runs from {sums.min():.4g} to {sums.max():.4g}; "
                "expected 1; normalise them, or, if these are logits, say --input logits"
            )


def _calibrated(sample: Sample, calibrator: Calibrator, picture: Array | None) -> Array:
    """Calibrated probabilities, float64, `(H, W)` or `(C, H, W)`."""
    from calbench.calibrators.samples import calibrated

    if calibrator.name != "identity" or sample.kind == "logits":
        return calibrated(sample, calibrator, picture)[0].scores
    # doing nothing leaves 0 and 1, whose logits are cut off, as they are
    if sample.scores.ndim == 3:
        return np.moveaxis(sample.scores, 0 if sample.layout == "CHW" else 2, 0).astype(np.float64)
    top = int(np.iinfo(sample.scores.dtype).max) if sample.kind == "levels" else 1
    return probabilities(sample.scores, sample.kind or "levels", top)


def _labels(path: Path, key: str | None) -> dict[str, Array]:
    """The labels that an `.npz` file holds beside its predictions, by the name under which they are looked for first."""
    if extension(path) != ".npz":
        return {}
    try:
        name = member_of(path, "mask")
    except FormatError:  # they are elsewhere
        return {}
    return {} if name == member_of(path, "prediction", key) else {"label": read_array(path, "mask").array}


def _holds_tables(pairs: Sequence[Pair], options: ApplyOptions) -> bool:
    """Whether the predictions are classification tables.

    Raises:
        InputError: tables beside maps.
    """
    tables = [is_table(pair.pred, options.npz_key) for pair in pairs]
    if any(tables) and not all(tables):
        raise InputError(f"{options.pred} holds tables and maps; put them into folders of their own")
    return all(tables)


def _refuse_kind_of_file(pairs: Sequence[Pair], calibrator: Calibrator, options: ApplyOptions, *, table: bool) -> None:
    """Refuse what cannot be read or written.

    Raises:
        InputError: volumes, tables of decisions, and tables for a calibrator that looks at pictures.
        OptionError: levels of several classes, or no pictures.
    """
    from calbench.calibrators.maps import needs_images

    first = pairs[0].pred
    volume = next((pair.pred for pair in pairs if extension(pair.pred) in VOLUMES), None)
    if volume is not None:
        raise InputError(
            f"{volume} is a volume; calbench apply writes maps of images and tables; save its slices as .npz, or measure it "
            "without writing it: calbench evaluate --calibrator"
        )
    text = next((pair.pred for pair in pairs if extension(pair.pred) in TEXT), None)
    if text is not None:
        raise InputError(
            f"{text} holds decisions and their confidence; a calibrator needs the scores of all classes, as .npz"
        )
    if options.format in TOPS and calibrator.n_classes_ > 1:
        raise OptionError(
            f"--format {options.format} holds binary maps, but {options.calibrator} is a calibrator of "
            f"{calibrator.n_classes_} classes; leave it out: --format npz holds several"
        )
    if calibrator.needs_images and table:
        raise InputError(
            f"{first} is a table, which has no pictures, but {calibrator.name} looks at them; choose another"
        )
    if calibrator.needs_images and options.images is None:
        raise OptionError(needs_images(calibrator.name))


def _coding(pairs: Sequence[Pair], calibrator: Calibrator, options: ApplyOptions, *, table: bool) -> ScoreCoding:
    """How the predictions are stored; the calibrator's number of classes tells where their axis is."""
    from calbench.calibrators.calibrator import described_classes

    classes = calibrator.n_classes_
    headers: dict[Path, tuple[Shape, str]] = {}
    for pair in pairs:
        shape, stored = read_header(pair.pred, "prediction", options.npz_key)
        headers[pair.pred] = (shape if table else flat_shape(pair.pred, shape)), stored
    axes = (1,) if table else {"CHW": (0,), "HWC": (2,), None: (0, 2)}[options.layout]
    dimensions = 2 if table or classes == 1 else 3
    for path, (shape, _) in headers.items():
        binary = classes == 1 and not table
        if len(shape) != dimensions or not (binary or any(shape[axis] == classes for axis in axes)):
            raise ShapeError(
                f"{path} has shape {shape}, but the calibrator {calibrator.name!r} was fitted on "
                f"{described_classes(classes)}; fit one on predictions like these"
            )
    if table:
        first = pairs[0].pred
        if options.input == "levels" or options.layout is not None:
            given = "--input levels" if options.input == "levels" else "--layout"
            raise OptionError(f"{first} is a table of scores; leave out {given}")
        scores = read_table(first, options.npz_key).scores
        assert scores is not None
        kind = options.input or kind_of_table(first, scores)
        return ScoreCoding(kind, classes, "HWC", headers[first][1], options.input is not None)
    return infer_scores(
        headers,
        dict.fromkeys(headers),
        kind=options.input,
        layout=options.layout,
        num_classes=classes if classes > 1 else None,
        key=options.npz_key,
    )


def _head(options: ApplyOptions, calibrator: Calibrator, calibrator_digest: int, described: str) -> dict[str, Any]:
    """What a manifest says besides its files, and what has to be so for it to be continued."""
    kept = ("format", "pred_suffix", "input", "layout", "npz_key", "resize_images")
    return {
        "schema": SCHEMA,
        "calibrator": calibrator.name,
        "calibrator_digest": calibrator_digest,
        "predictions": described,
        **{name: getattr(options, name) for name in kept},
    }
