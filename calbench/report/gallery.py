"""The gallery: the images on which a method is calibrated best and worst, as small pictures inside the page.

The only part of a report that reads pixels, and only where the files are still at hand. An image is read and measured as it
was for its row of statistics; one that no longer has the value of its row is left out.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageOps

from calbench.errors import CalbenchError, OptionError, UnknownName, plural
from calbench.evaluate import Evaluator, Settings
from calbench.io.coding import DEFAULT_THRESHOLD, MaskCoding
from calbench.io.labels import LabelCoding
from calbench.io.pairing import Folders, Pair, match_files, with_pictures
from calbench.io.pictures import read_picture
from calbench.io.predictions import ScoreCoding
from calbench.io.sample import Sample
from calbench.kernels.floats import probabilities
from calbench.measure import Task, measure_reading, read_images, tasks_of
from calbench.metrics import METRICS, Metric
from calbench.parallel import parallel_map
from calbench.plan import CollectOptions, Plan
from calbench.report.style import GREY, METHOD_COLOURS, OVER, PAPER, UNDER
from calbench.results import Key, Results
from calbench.statistics import Statistics
from calbench.statistics.bundle import ALL, UNCALIBRATED
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array, owner

if TYPE_CHECKING:
    import pandas as pd

End = Literal["worst", "best"]
Size = tuple[int, int]

LONGEST = 220
"""Most pixels of the longer side of a picture."""
SAME = 1e-9
"""Two values of an image that are this close are the same."""
FOREGROUND = "#E3E8ED"
"""What is rightly foreground, in pictures of errors."""
STRIPES = ("#98A2AD", "#D5DAE0")
"""What does not count is hatched in these."""

CAPTIONS: Mapping[str, str] = {
    "photo": "the photograph",
    "mask": "the ground truth; hatched pixels do not count",
    "prediction": (
        "the probability of foreground, from black, 0, to white, 1; of several classes, the predicted one in the colours of "
        "the mask"
    ),
    "error": (
        "wrong pixels: false positives vermilion, false negatives blue; of several classes, all that are wrong vermilion. The "
        "colour is as strong as the square root of their share in a point, so that thin ones stay visible. Hatched pixels do "
        "not count"
    ),
    "confidence": "the largest probability, from dark, 1 / classes (½ of binary maps), to bright, 1",
}
"""What the pictures show, by heading."""


@dataclass(frozen=True)
class GalleryRow:
    """One image of one method.

    Attributes:
        key: data set and method.
        image: its name.
        end: whether it is among the worst or the best.
        metric, value: what images are ranked by, and its value on this one.
        pictures: heading -> data URI: photo (if known), mask, prediction, error, confidence; see `CAPTIONS`.
        size: of the pictures, (width, height) in pixels.
    """

    key: Key
    image: str
    end: End
    metric: str
    value: float
    pictures: Mapping[str, str]
    size: Size


def gallery(
    results: Results,
    options: Mapping[Key, Mapping[str, Any]],
    *,
    images: str | None = None,
    by: str | None = None,
    each: int = 3,
    limit: int = 240,
    advance: Callable[[], None] = lambda: None,
    jobs: int | None = None,
) -> tuple[list[GalleryRow], list[str]]:
    """The worst and the best images of each method on each data set, and notes on what could not be shown.

    Images are ranked by their values in `Results.per_image`; of equal ones the first by name comes first, and none is shown
    twice. Out-of-distribution sets, classification tables and calibrated predictions have no gallery.

    Args:
        results: whose images.
        options: `run.options` of the results that hold a combination: where its files were, and how they were read.
        images: folder of photographs, or a template with `{dataset}`; None for those that a calibrator looked at, if any.
        by: metric to rank by; None for the error of the profile's top-label diagram or, where images have no values of it,
            for the first metric that they have.
        each: images at either end.
        limit: most rows; beyond, fewer images of each method are shown, then only the best methods.
        advance: called after each image that was looked for in its files.
        jobs: worker processes; None chooses.
    Returns:
        Rows by combination, the worst images first, then the best, from the extreme inwards; and notes for people.
    Raises:
        OptionError: a metric that images cannot be ranked by, or too small a number of images.
        UnknownName: there is no such metric.

    >>> from calbench import Sample, collect
    >>> run = collect([Sample("a", np.array([[0, 255]], np.uint8), np.array([[0, 1]]))])
    >>> gallery(Results(run, Settings(n_boot=0)), {})
    ([], ['dataset, method: no gallery, its files were not recorded'])
    """
    if each < 1 or limit < 2:
        raise OptionError(
            f"a gallery of {each} images at either end and {limit} in all; expected at least 1, and 2 in all"
        )
    metric = _ranking(results, by)
    if metric is None:
        return [], ["no gallery: images have no value that they could be ranked by"]
    alone = replace(results.settings, metrics=(metric.name,), exclude=())
    sources, lacks = _sources(results, options, alone)
    tables = _values(results, metric)
    lacks += [_Lack(key, "value", f"no image has a value of {metric.name}") for key in sources.keys() - tables.keys()]
    kept, each, notes = _limited(results, metric, {key: tables[key] for key in sources if key in tables}, each, limit)
    picks = {key: _picked(key, table, metric, each) for key, table in kept.items()}
    works: list[_Work] = []
    for key, chosen in picks.items():
        found, absent = _works(sources[key], chosen, images or sources[key].photos)
        works += found
        lacks += absent
    shown: dict[tuple[Key, str], GalleryRow] = {}
    for work, look in parallel_map(_looked, works, jobs):
        for pick in work.picks:
            row = _row(pick, look, alone)
            if isinstance(row, _Lack):
                lacks.append(row)
            else:
                shown[pick.key, pick.image] = row
                lacks += [_Lack(pick.key, "photograph", look.no_photo, pick.image)] * bool(look.no_photo)
            advance()
    order = [(key, pick.image) for key, chosen in picks.items() for pick in chosen]
    return [shown[name] for name in order if name in shown], [*notes, *_lines(lacks)]


# --- which images -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pick:
    """An image to show, with its value and its valid pixels as the results have them."""

    key: Key
    image: str
    end: End
    metric: str
    value: float
    n_pixels: int


def _ranking(results: Results, by: str | None) -> Metric | None:
    """The metric to rank images by; None where they have no values."""
    names = [name for name in results.per_image if name in METRICS and METRICS[name].better != "none"]
    if by is None:
        error = results.settings.convention.diagrams["top-label"]
        return METRICS[error if error in names else names[0]] if names else None
    if by not in names:
        if by not in METRICS:
            raise UnknownName("metric", by, METRICS)
        raise OptionError(
            f"images cannot be ranked by {by}: they have no values of it, or none that is better; expected one of "
            f"{', '.join(names) or 'the metrics of images, of which there are none'}"
        )
    return METRICS[by]


def _values(results: Results, metric: Metric) -> dict[Key, pd.DataFrame]:
    """The images of each method on each data set that have a value: their names, numbers of pixels, and values."""
    defined = results.per_image[np.isfinite(results.per_image[metric.name])]
    return {Key(*map(str, names)): part for names, part in defined.groupby(list(Key._fields), sort=False)}


def _badness(values: Array, metric: Metric) -> Array:
    """Larger where worse."""
    return {"lower": values, "higher": -values, "zero": np.abs(values)}[metric.better]


def _picked(key: Key, table: pd.DataFrame, metric: Metric, each: int) -> list[_Pick]:
    """The worst images, then the best; of few images, half."""
    names, values, n_pixels = (np.array(table[column]) for column in ("image", metric.name, "n_pixels"))
    bad = _badness(values, metric)
    worst = np.lexsort((names, -bad))[: min(each, (len(names) + 1) // 2)]
    best = np.lexsort((names, bad))
    best = best[~np.isin(best, worst)][:each]
    ends: tuple[tuple[End, Array], ...] = (("worst", worst), ("best", best))
    return [
        _Pick(key, str(names[row]), end, metric.name, float(values[row]), int(n_pixels[row]))
        for end, rows in ends
        for row in rows
    ]


def _limited(
    results: Results, metric: Metric, tables: dict[Key, pd.DataFrame], each: int, limit: int
) -> tuple[dict[Key, pd.DataFrame], int, list[str]]:
    """What to show of so many combinations: which of them, how many images at either end, and what is left out."""

    def n_rows(number: int) -> int:
        return sum(min(2 * number, len(table)) for table in tables.values())

    fewer = next((number for number in range(each, 1, -1) if n_rows(number) <= limit), 1)
    notes = []
    if fewer < each:
        notes.append(
            f"the gallery shows {fewer} of the {each} worst and of the {each} best images of each method: it has at most "
            f"{limit} rows"
        )
    if n_rows(fewer) <= limit:
        return tables, fewer, notes
    datasets = list(dict.fromkeys(key.dataset for key in tables))
    places = [
        (place, number, key)
        for number, dataset in enumerate(datasets)
        for place, key in enumerate(_best_first(results, metric, [key for key in tables if key.dataset == dataset]))
    ]
    kept = {key for _, _, key in sorted(places)[: limit // 2]}
    for dataset in datasets:
        left = [key.method for key in tables if key.dataset == dataset and key not in kept]
        if left:
            notes.append(
                f"{dataset}: the gallery shows the methods that are best by {metric.name}, not {', '.join(left)}"
            )
    return {key: table for key, table in tables.items() if key in kept}, fewer, notes


def _best_first(results: Results, metric: Metric, keys: Sequence[Key]) -> list[Key]:
    """The methods on a data set by their value in tables, undefined ones last."""
    found = [
        next(v.value for v in results.values()[key] if (v.metric, v.average) == (metric.name, metric.average))
        for key in keys
    ]
    return [keys[number] for number in np.argsort(_badness(np.array(found), metric), kind="stable")]


# --- which files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lack:
    """What cannot be shown, and why: a combination or, with a name, one image."""

    key: Key
    reason: Literal[
        "value", "unrecorded", "table", "calibrated", "folder", "file", "unreadable", "changed", "photograph"
    ]
    why: str
    image: str | None = None


@dataclass(frozen=True)
class _Source:
    """How the files of a combination were read, and where its photographs were; the plan has no pairs yet."""

    plan: Plan
    options: CollectOptions
    photos: str | None


@dataclass(frozen=True)
class _Work:
    """The files of one image or volume, what is wanted of them, and why a photograph that was asked for is not there."""

    task: Task
    picks: tuple[_Pick, ...]
    no_photo: str


def _lines(lacks: Sequence[_Lack]) -> Iterator[str]:
    """One line for each data set and reason."""
    groups: dict[tuple[str, str], list[_Lack]] = {}
    for lack in sorted(lacks, key=lambda lack: (lack.key, lack.image or "")):
        groups.setdefault((lack.key.dataset, lack.reason), []).append(lack)
    for (dataset, reason), group in groups.items():
        where = f"{dataset}, {', '.join(dict.fromkeys(lack.key.name for lack in group))}"
        if group[0].image is None:
            yield f"{where}: no gallery, {group[0].why}"
        else:
            what = "without a photograph" if reason == "photograph" else "left out of the gallery"
            yield f"{where}: {plural(len(group), 'image')} {what}, e.g. {group[0].image!r}: {group[0].why}"


def _sources(
    results: Results, options: Mapping[Key, Mapping[str, Any]], alone: Settings
) -> tuple[dict[Key, _Source], list[_Lack]]:
    """Where the files of each combination are, and the combinations whose files cannot be read."""
    sources: dict[Key, _Source] = {}
    lacks = []
    for key, evaluator in results.evaluators.items():
        stored = key._replace(calibrator=UNCALIBRATED)
        if key.region != ALL or (key != stored and stored in results.evaluators):
            continue
        recorded, conventions = options.get(key, {}), evaluator.statistics.conventions
        if key != stored:
            lacks.append(_Lack(key, "calibrated", "these predictions were calibrated after they were read"))
        elif not evaluator.has_images:
            lacks.append(_Lack(key, "table", "a classification table holds no images"))
        elif "pred" not in recorded or "stored" not in conventions:
            lacks.append(_Lack(key, "unrecorded", "its files were not recorded"))
        else:
            source = _Source(
                Plan(_folders(key, recorded), (), *_codings(conventions)),
                _reading(recorded, alone),
                recorded.get("pictures"),
            )
            at = source.plan.folders
            gone = [path for path in (at.pred, at.gt, at.mask) if path is not None and not path.exists()]
            if gone:
                below = "" if gone[0].is_absolute() else f" in {Path.cwd()}"
                lacks.append(_Lack(key, "folder", f"{gone[0]} is not at hand{below}"))
            else:
                sources[key] = source
    return sources, lacks


def _folders(key: Key, recorded: Mapping[str, Any]) -> Folders:
    """The folders, or files, that the recorded templates name for a combination."""
    pred, gt, mask = (
        None if template is None else _named(template, key) for template in map(recorded.get, ("pred", "gt", "mask"))
    )
    assert pred is not None
    return Folders(key.dataset, key.method, pred, pred if gt is None else gt, mask)


def _named(template: str, key: Key) -> Path:
    return Path(template.replace("{method}", key.method).replace("{dataset}", key.dataset))


def _reading(recorded: Mapping[str, Any], alone: Settings) -> CollectOptions:
    """The options that pixels were read under, to measure no more than what images are ranked by."""
    known = {field.name for field in fields(CollectOptions)} - {"images"}  # there, runs record which images they found
    given: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in recorded.items() if name in known
    }
    given |= {"regions": False, "scores": alone.positional_scores, "extras": alone.extras}
    return CollectOptions(**given)


def _codings(conventions: Mapping[str, Any]) -> tuple[ScoreCoding, MaskCoding | LabelCoding, MaskCoding | None]:
    """How predictions, masks and fields of view are coded, as was inferred from all files (see `Plan.conventions`)."""
    layout = conventions["layout"]
    classes = 1 if layout is None else conventions["classes"]
    scores = ScoreCoding(conventions["input"], classes, layout, conventions["stored"])
    truth: MaskCoding | LabelCoding
    if scores.binary:
        truth = MaskCoding(conventions["mask_coding"], conventions["gt_threshold"], tuple(conventions["void_values"]))
    else:
        mapping = conventions["label_map"]
        truth = LabelCoding(
            classes,
            tuple(conventions["ignore_index"]),
            conventions["reduce_zero_label"],
            None if mapping is None else {int(raw): label for raw, label in mapping.items()},
        )
    kind = conventions["field_of_view"]
    return scores, truth, None if kind is None else MaskCoding(kind, 0 if kind == "0/1" else DEFAULT_THRESHOLD)


def _works(source: _Source, picks: Sequence[_Pick], images: str | None) -> tuple[list[_Work], list[_Lack]]:
    """The files of the images to show, and the images that have none."""
    folders, options = source.plan.folders, source.options
    try:
        pairs = match_files(folders, pred_suffix=options.pred_suffix, gt_suffix=options.gt_suffix).pairs
    except CalbenchError as error:
        return [], [_Lack(picks[0].key, "folder", _first_line(error))]
    pair_of = {pair.name: pair for pair in pairs}
    many = replace(source.plan, pairs=pairs).many_rows
    wanted: dict[str, list[_Pick]] = {}
    for pick in picks:
        wanted.setdefault(owner(pick.image) if many else pick.image, []).append(pick)
    absent = [
        _Lack(pick.key, "file", f"no file of this name {folders.text}", pick.image)
        for name in wanted.keys() - pair_of.keys()
        for pick in wanted[name]
    ]
    there, no_photo = tuple(pair_of[name] for name in wanted if name in pair_of), ""
    if images is not None:
        there, no_photo = _with_photos(there, _named(images, picks[0].key))
    tasks = tasks_of(replace(source.plan, pairs=there), options)
    return [
        _Work(task, tuple(wanted[task.pair.name]), no_photo if task.pair.image is None else "") for task in tasks
    ], absent


def _with_photos(pairs: tuple[Pair, ...], folder: Path) -> tuple[tuple[Pair, ...], str]:
    """The pairs with the photographs that there are, and why others have none."""
    try:
        return with_pictures(pairs, folder, partial=True), f"no picture of this name in {folder}"
    except CalbenchError as error:
        return pairs, _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


# --- looking at them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Look:
    """What the files of a piece of work gave.

    Attributes:
        images: row of statistics, pictures and their size, by name.
        no_photo: why there is no photograph, where one was asked for.
        error: why the files could not be read.
    """

    images: Mapping[str, tuple[Statistics, Mapping[str, str], Size]]
    no_photo: str = ""
    error: str = ""


def _looked(work: _Work) -> tuple[_Work, _Look]:
    """Read the files of one image, or of one volume."""
    task, names, photo, no_photo = work.task, {pick.image for pick in work.picks}, None, work.no_photo
    try:
        readings = [reading for reading in read_images(task) if reading.sample.name in names]
        rows = [measure_reading(reading, task) for reading in readings]
    except (CalbenchError, OSError) as error:
        return work, _Look({}, error=_first_line(error))
    except ValueError:  # arrays of another number of axes than when the folder was looked at whole
        return work, _Look({})
    try:
        photo = None if task.pair.image is None else read_picture(task.pair.image)
    except CalbenchError as error:
        no_photo = _first_line(error)
    looks = {
        reading.sample.name: (row, pictures(reading.sample, photo), _size(*reading.sample.size))
        for reading, row in zip(readings, rows, strict=True)
    }
    return work, _Look(looks, no_photo)


def _row(pick: _Pick, look: _Look, alone: Settings) -> GalleryRow | _Lack:
    """The row of an image, unless its files are not what they were."""
    if look.error:
        return _Lack(pick.key, "unreadable", look.error, pick.image)
    if pick.image in look.images:
        row, shown, size = look.images[pick.image]
        value = Evaluator(row, alone).per_image().get(pick.metric, np.full(1, np.nan))[0]
        if int(row.n_pixels[0]) == pick.n_pixels and abs(value - pick.value) <= SAME:
            return GalleryRow(pick.key, pick.image, pick.end, pick.metric, pick.value, shown, size)
    return _Lack(pick.key, "changed", "changed since the statistics were collected", pick.image)


def pictures(sample: Sample, photo: Array | None = None) -> dict[str, str]:
    """The pictures of an image with a ground truth, as data URIs by heading: see `CAPTIONS`.

    At most 220 pixels on the longer side; where they are smaller than the maps, a point shows the mean of its area. The
    decision is that of the metrics: p >= 0.5 of binary maps, of several classes the first of the largest scores.

    Args:
        sample: prediction, ground truth and void.
        photo: `(3, H, W)` in [0, 1], of any size: it is fitted into that of the others, its aspect kept.

    >>> sorted(pictures(Sample("a", np.array([[0, 255]], np.uint8), np.array([[0, 1]]))))
    ['confidence', 'error', 'mask', 'prediction']
    """
    from matplotlib import colormaps

    assert sample.target is not None
    size, valid, truth = _size(*sample.size), sample.valid, sample.target
    decided, confidence, p = _decided(sample)
    counted = np.ones(truth.shape, bool) if valid is None else valid
    if p is None:
        colours = class_colours(sample.classes)
        mask, prediction = colours[truth], colours[decided]
        wrong, right = np.stack([decided != truth, np.zeros_like(counted)], -1), np.zeros_like(counted)
    else:
        mask, prediction = 255.0 * truth[..., None], 255 * p[..., None]
        wrong, right = np.stack([decided & ~truth, ~decided & truth], -1), decided & truth
    known = np.isfinite(confidence)  # void pixels may hold anything
    lowest = 1 / max(sample.classes, 2)
    sureness = _area_means((confidence[..., None] - lowest) / (1 - lowest), size, known)
    steps = np.rint(255 * np.nan_to_num(sureness[..., 0]).clip(0, 1)).astype(np.uint8)
    found = {} if photo is None else {"photo": _uri(_fitted(photo, size), lossless=False)}
    return found | {
        "mask": _uri(_hatched(_area_means(mask, size, counted)), lossless=True),
        "prediction": _uri(_hatched(_area_means(prediction, size, known)), lossless=p is None),
        "error": _uri(_hatched(_errors(_area_means(np.dstack([wrong, right]), size, counted))), lossless=True),
        "confidence": _uri(
            _hatched(np.where(np.isnan(sureness), np.nan, colormaps["cividis"](steps)[..., :3] * 255)), lossless=False
        ),
    }


def class_colours(n: int) -> Array:
    """Colours of classes, `(n, 3)` uint8: those of methods, then lighter and darker ones of each; after 24 they repeat.

    >>> class_colours(3).tolist()
    [[0, 114, 178], [213, 94, 0], [0, 158, 115]]
    """
    base = np.array([ImageColor.getrgb(colour) for colour in METHOD_COLOURS], float)
    shades = np.concatenate([base, 255 - 0.45 * (255 - base), 0.5 * base])
    return np.rint(shades[np.arange(n) % len(shades)]).astype(np.uint8)


def _decided(sample: Sample) -> tuple[Array, Array, Array | None]:
    """Of each pixel, the decision, its confidence, float, and of binary maps p of foreground; NaN only at void pixels."""
    if sample.classes == 1:
        assert sample.kind is not None
        p = probabilities(
            sample.scores, sample.kind, np.iinfo(sample.scores.dtype).max if sample.kind == "levels" else 1
        )
        return p >= 0.5, np.maximum(p, 1 - p), p
    planes = sample.scores if sample.layout == "CHW" else np.moveaxis(sample.scores, 2, 0)
    with np.errstate(invalid="ignore"):
        decided, confidence = planes.argmax(0), planes.max(0).astype(np.float32)
        if sample.kind == "logits":
            confidence = 1 / sum(np.exp(np.subtract(plane, confidence, dtype=np.float32)) for plane in planes)
    return decided, confidence, None


def _size(height: int, width: int) -> Size:
    """Width and height of the pictures of a map."""
    scale = min(1.0, LONGEST / max(height, width))
    return max(1, round(scale * width)), max(1, round(scale * height))


def _area_means(planes: Array, size: Size, counted: Array) -> Array:
    """Means over the pixels that count in the area of each point, `(H, W, n)` to `(h, w, n)`; NaN where under half count."""

    def shrunk(plane: Array) -> Array:
        image = Image.fromarray(np.asarray(plane, np.float32))
        return np.asarray(image.resize(size, Image.Resampling.BOX), np.float64)

    share = shrunk(counted)
    sums = [shrunk(np.where(counted, plane, 0)) for plane in np.moveaxis(planes, -1, 0)]
    return divide(np.stack(sums, -1), np.where(share < 0.5, 0, share)[..., None])


def _errors(shares: Array) -> Array:
    """Colours `(h, w, 3)` of the shares `(h, w, 3)` of false positives, false negatives, and true foreground."""
    over, under, light, paper = (np.array(ImageColor.getrgb(c), float) for c in (OVER, UNDER, FOREGROUND, PAPER))
    wrong = shares[..., :2].sum(-1, keepdims=True)
    hue = divide(shares[..., :2] @ np.stack([over, under]), wrong)
    strength = np.sqrt(wrong)
    right = paper + shares[..., 2:] * (light - paper)
    return np.where(wrong == 0, right, strength * hue + (1 - strength) * right)


def _hatched(colours: Array) -> Array:
    """Bytes `(h, w, 3)` of colours or greys `(h, w, 1 or 3)` from 0 to 255, hatched where they are NaN."""
    row, column = np.indices(colours.shape[:2])
    stripes = np.array([ImageColor.getrgb(colour) for colour in STRIPES])[(row + column) // 3 % 2]
    return np.where(np.isnan(colours), stripes, np.rint(np.nan_to_num(colours).clip(0, 255))).astype(np.uint8)


def _fitted(photo: Array, size: Size) -> Array:
    """A photograph `(3, H, W)` as bytes `(h, w, 3)`, with grey bars where its aspect is another."""
    image = Image.fromarray(np.rint(255 * np.moveaxis(photo, 0, -1)).astype(np.uint8))
    return np.asarray(ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=GREY))


def _uri(colours: Array, *, lossless: bool) -> str:
    """A picture inside the page, as WebP: without loss where colours mean something, at quality 65 where shades do."""
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "WEBP", lossless=lossless, quality=65, method=2)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
