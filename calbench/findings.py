"""What the rows of a run say about the files they came from: detectors, each a function and one line in `DETECTORS`."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, groupby
from typing import Literal

import numpy as np

from calbench.errors import plural
from calbench.intervals import FEW_UNITS
from calbench.metrics.ranking import auroc
from calbench.statistics import Run, Statistics
from calbench.statistics.bundle import UNCALIBRATED
from calbench.statistics.rows import Array, owner

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something a person should know about a folder.

    Attributes:
        code: stable identifier, kebab-case.
        severity: "error" makes the numbers wrong, "warning" may, "note" helps to read them.
        where: method and data set, data set, or folder.
        message: what was found.
        count, total: images (or files) concerned, out of how many.
        example: name of one of them, or "".
        remedy: what to do.
    """

    code: str
    severity: Severity
    where: str
    message: str
    count: int
    total: int
    example: str
    remedy: str


def report_lines(found: Iterable[Finding], width: int = 100) -> list[str]:
    """Plain text for people: grouped by place, errors first."""
    lines: list[str] = []
    for where, group in groupby(worst_first(found), key=lambda finding: finding.where):
        lines.append(where)
        for item in group:
            few = f" ({item.count} of {item.total}, e.g. {item.example})" if item.count < item.total else ""
            share = f" (all {item.total}, e.g. {item.example})" if item.total and not few else few
            lines.append(f"  {item.severity:<8}{item.code}{share}")
            for lead, text in (("", item.message), ("-> ", item.remedy)):
                indent = " " * 10
                lines += textwrap.wrap(text, width, initial_indent=indent + lead,
                                       subsequent_indent=indent + " " * len(lead), break_on_hyphens=False)  # fmt: skip
    return lines


def brief_lines(found: Sequence[Finding], width: int = 100) -> list[str]:
    """One short paragraph a finding, without remedies, and where to read those."""
    lines: list[str] = []
    for item in worst_first(found):
        share = f"all {item.total}" if item.count == item.total else f"{item.count} of {item.total}"
        text = f"{item.severity}: {item.where}: {item.message} [{item.code}, {share}]"
        lines += textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False)
    return [*lines, "what to do about these: calbench check, with the same folders"] if lines else []


def worst_first(found: Iterable[Finding]) -> list[Finding]:
    """By place, the worst place first; within it errors, warnings, notes."""
    found = list(found)
    rank = {severity: number for number, severity in enumerate(SEVERITIES)}
    worst: dict[str, int] = {}
    for item in found:
        worst[item.where] = min(worst.get(item.where, len(rank)), rank[item.severity])
    return sorted(found, key=lambda item: (worst[item.where], item.where, rank[item.severity]))


RARE_OUTCOME = 0.15
"""Where fewer pixels than this are foreground (or background), the common outcome decides a pooled number."""
MIN_MAPS = 5
"""A folder of fewer maps shows no habit of the program that wrote them."""
LONE_PEAK_PIXELS, LONE_PEAK_FOREGROUND = 1e-3, 0.05
"""A map peaks alone if at most such a share of its pixels (or one pixel), and less of its predicted foreground, is at the
top level. A network that saturates fills its objects with 255 (a third of the predicted foreground, in real sets), and its
unsure maps stay below; a stretched unsure map reaches 255 all the same, in a few pixels."""
LONE_PEAK_SHARE, LONE_PEAKS = 0.01, 3
"""So many of them prove a stretch when no map at all falls short; in honest folders most such maps do."""
HARD_SHARE, NEARLY_HARD_SHARE = 0.01, 0.20
"""Soft pixels (0.02 < p < 0.98) among themselves and the rarer end. Real network maps: 0.33 to 0.87; after a CRF: 0.16."""
INVERTED_AUROC, INVERTED_IMAGE_AUROC, INVERTED_IMAGES = 0.4, 0.3, 0.05
"""No better than chance is 0.5. Failed images of good networks lie between 0.3 and 0.5, and are under 3 % of a folder."""
GREY_SHARE = 0.05
"""Anti-aliased edges are a few per cent of a mask; more is a grey mask, whose foreground the threshold decides."""
RARE_MASKS = 0.05
"""Empty or full masks this rare may be mistakes of the data set; more of them are its design."""
SHIFT = 0.02
"""Differences of a mean probability worth a note."""

_SOFT = slice(6, 250)  # levels with 0.02 < p < 0.98


@dataclass(frozen=True)
class Evidence:
    """What detectors read: the rows of one method on one data set, and the sums they share."""

    statistics: Statistics
    where: str

    @cached_property
    def counts(self) -> Array:
        """Pixels by image, outcome and level, `(rows, 2, 256)`; float maps are rounded to 8 bits for this."""
        assert self.statistics.histogram is not None, "a detector of binary maps"
        return self.statistics.histogram.counts

    @cached_property
    def levels(self) -> Array:
        """Pixels by image and level, `(rows, 256)`."""
        return np.asarray(self.counts.sum(1))

    @cached_property
    def share(self) -> Array:
        """Share of all pixels at each level, `(256,)`; 0 without pixels."""
        total = self.levels.sum(0)
        return np.asarray(total / max(int(total.sum()), 1))

    @cached_property
    def n_pixels(self) -> Array:
        """Valid pixels of each image."""
        return self.statistics.n_pixels

    @cached_property
    def n_foreground(self) -> Array:
        """Foreground pixels of each image."""
        return np.asarray(self.counts[:, 1].sum(1))

    @cached_property
    def extremes(self) -> tuple[Array, Array]:
        """Lowest and highest level of each map."""
        assert self.statistics.histogram is not None, "a detector of binary maps"
        return self.statistics.histogram.extremes()

    @cached_property
    def varied(self) -> Array:
        """Maps with more than one level."""
        return np.asarray(self.extremes[0] < self.extremes[1])

    @cached_property
    def soft_share(self) -> float:
        """Soft pixels among themselves and the rarer of the two ends: independent of how small the objects are."""
        soft = float(self.share[_SOFT].sum())
        rarer = min(float(self.share[: _SOFT.start].sum()), float(self.share[_SOFT.stop :].sum()))
        return soft / (soft + rarer) if soft + rarer else 1.0

    def fact(self, column: str) -> Array:
        """A column of the facts about the files; zeros where it was not looked at, or there never were files."""
        facts = self.statistics.facts
        return facts[column] if facts is not None and column in facts else np.zeros(len(self.n_pixels), np.int64)

    def report(
        self, code: str, severity: Severity, rows: Array, message: str, remedy: str, example: Array | None = None
    ) -> Iterator[Finding]:
        """A finding about the images where `rows` is true, none where there is no such image; `example` picks among them."""
        if rows.any():
            name = self.statistics.names[int(np.argmax(rows if example is None else example))]
            yield Finding(code, severity, self.where, message, int(rows.sum()), len(rows), name, remedy)


def min_max_stretched(evidence: Evidence) -> Iterator[Finding]:
    """Every map spans the same full range: stretched one by one when saved, unless every image honestly saturates."""
    rows, (low, high) = evidence.varied, evidence.extremes
    top = int(high.max(initial=0))  # 254 where maps were truncated, after a stretch or not
    spans = bool((low[rows] == 0).all() and (high[rows] == top).all())
    if rows.sum() < MIN_MAPS or top < 254 or not spans or evidence.soft_share < HARD_SHARE:
        return
    peak, predicted = evidence.levels[:, top], evidence.levels[:, 128:].sum(1)
    few = np.maximum(1, LONE_PEAK_PIXELS * evidence.n_pixels)
    lone = rows & (peak <= few) & (peak < LONE_PEAK_FOREGROUND * predicted)
    if lone.sum() >= max(LONE_PEAKS, LONE_PEAK_SHARE * rows.sum()):
        yield from evidence.report(
            "min-max-stretched", "error", rows,
            f"every map hits 0 and {top}, {lone.sum()} of them in a few pixels only, where an unsure network stays below: "
            "each map was most likely min-max stretched when it was saved, which destroys its calibration",
            "save np.round(255 * p) without rescaling; of these maps, trust rank and saliency metrics only", example=lone,
        )  # fmt: skip
    elif top == 255:
        yield from evidence.report(
            "min-max-stretched", "warning", rows,
            "every map hits 0 and 255: min-max stretched when it was saved, which destroys calibration, or from a network "
            "that is sure of something in every image; with so many pixels at 255 the maps alone do not tell",
            "look for (x - min) / (max - min) in the code that saved them; save np.round(255 * p) without it",
        )  # fmt: skip


def hard_maps(evidence: Evidence) -> Iterator[Finding]:
    """Masks passed as probabilities: thresholded, refined by a CRF, or coded 0/1."""
    rows, top = evidence.n_pixels > 0, int(evidence.extremes[1].max(initial=0))
    soft = evidence.share[_SOFT].sum()
    if top == 1:
        yield from evidence.report(
            "zero-one-maps", "error", rows & (evidence.extremes[1] == 1),
            "no map has a level above 1: 0/1 masks, read as probabilities of at most 1/255",
            "save probabilities as round(255 * p); for hard masks at least 0 and 255",
        )  # fmt: skip
    elif 1 < top < 128 and evidence.n_foreground.any():
        yield from evidence.report(
            "low-maximum", "error" if top == 100 else "warning", rows,
            f"no map has a level above {top}: nothing is ever predicted foreground; another scale, such as 0 to 100?",
            "save probabilities as round(255 * p)",
        )  # fmt: skip
    elif top >= 128 and evidence.soft_share < HARD_SHARE:
        yield from evidence.report(
            "hard-maps", "warning", rows,
            f"hard masks passed as probabilities: {soft:.2%} of the pixels lie between p = 0.02 and 0.98; the calibration "
            "error of a hard mask is only its error rate",
            "save the network's probabilities before they are thresholded",
        )  # fmt: skip
    elif top >= 128 and evidence.soft_share < NEARLY_HARD_SHARE:
        yield from evidence.report(
            "nearly-binary", "warning", rows,
            f"nearly binary maps: only {soft:.1%} of the pixels lie between p = 0.02 and 0.98; refined by a CRF, sharpened, "
            "or from a network that is almost always certain",
            "if maps were refined, their calibration is that of the refinement: evaluate the network's own output, too",
        )  # fmt: skip


def inverted_maps(evidence: Evidence) -> Iterator[Finding]:
    """High where the mask is background."""
    both = (evidence.n_foreground > 0) & (evidence.n_foreground < evidence.n_pixels)
    cells = evidence.statistics.reliability("foreground")
    assert cells is not None, "a detector of binary maps"
    per_image = auroc(cells)
    pooled = float(auroc(cells.total()))
    worse = both & (np.nan_to_num(per_image, nan=1.0) < 0.5)
    wrong = both & (np.nan_to_num(per_image, nan=1.0) < INVERTED_IMAGE_AUROC)
    if pooled < INVERTED_AUROC and worse.sum() > both.sum() / 2:
        yield from evidence.report(
            "inverted-maps", "error", worse,
            f"predictions are higher on background than on foreground (AUROC {pooled:.2f}): inverted maps or masks",
            "save 255 - map, or check which class the masks mark with their high value",
        )  # fmt: skip
    elif wrong.sum() > INVERTED_IMAGES * len(both):
        yield from evidence.report(
            "inverted-images", "warning", wrong,
            "single maps rank background far above foreground (AUROC below 0.3), in a folder that does not",
            "look at these images: inverted, or paired with the wrong mask?",
        )  # fmt: skip


def truncated_levels(evidence: Evidence) -> Iterator[Finding]:
    """Probability mass piles up at 254 and 255 never occurs: int(255 p) instead of round(255 p)."""
    total = evidence.levels.sum(0)
    exact = evidence.statistics.exact_histogram is not None
    if exact and total[255] == 0 and total[254] > total[253] and evidence.soft_share >= HARD_SHARE:
        yield from evidence.report(
            "truncated-levels", "warning", evidence.extremes[1] == 254,
            "the maximum is 254, never 255, although pixels pile up there: p * 255 was truncated, not rounded, so every p is "
            "about 0.002 (half a level) too low",
            "save np.round(255 * p); differences of calibration errors below 0.002 mean nothing here",
        )  # fmt: skip


def constant_maps(evidence: Evidence) -> Iterator[Finding]:
    """Maps of one level; an all-zero map of an empty mask is a right answer, not a fault."""
    right = (evidence.extremes[1] == 0) & (evidence.n_foreground == 0)
    rows = (evidence.n_pixels > 0) & ~evidence.varied & ~right
    yield from evidence.report(
        "constant-maps", "error" if rows.all() else "warning", rows,
        "maps with one level everywhere",
        "look at these files: did the network fail, or was the map written wrongly?",
    )  # fmt: skip


def void_images(evidence: Evidence) -> Iterator[Finding]:
    """Images where no pixel counts."""
    rows = evidence.n_pixels == 0
    yield from evidence.report(
        "void-images", "error" if rows.all() else "warning", rows,
        "images without a single valid pixel: nothing can be measured on them",
        "check the void value and the field of view",
    )  # fmt: skip


def duplicates(evidence: Evidence) -> Iterator[Finding]:
    """The same file under several names, and masks handed in as predictions."""
    if evidence.statistics.facts is None:
        return
    pred, gt = (_once_a_file(evidence, column) for column in ("pred_digest", "gt_digest"))
    binary = evidence.statistics.histogram is not None
    varied = evidence.varied if binary else np.ones(len(pred), bool)
    plain = (evidence.n_foreground == 0) | (evidence.n_foreground == evidence.n_pixels) if binary else gt == 0
    for code, what, rows in (
        ("duplicate-predictions", "predictions", _repeated(pred) & varied),
        ("duplicate-masks", "masks", _repeated(gt) & ~plain),
    ):
        yield from evidence.report(
            code, "warning", rows, f"the same file under several names among the {what}",
            "keep one of each, or find out which of them is wrong: images that repeat make intervals too narrow",
        )  # fmt: skip
    yield from evidence.report(
        "mask-as-prediction", "error", (pred == gt) & binary, "the prediction is the file of its own mask, byte for byte",
        "point --pred at the network's maps",
    )  # fmt: skip


def prediction_files(evidence: Evidence) -> Iterator[Finding]:
    """Predictions that were changed on the way to a grey map of the mask's size."""
    resized, channels = evidence.fact("resized") > 0, evidence.fact("pred_channels") > 1
    spread = int(evidence.fact("pred_spread").max(initial=0))
    yield from evidence.report(
        "resized-predictions", "note", resized, "predictions of another size than their mask, resized (bilinear)",
        "save maps at the mask's size; interpolation softens them, which moves calibration",
    )  # fmt: skip
    differ = f"; the channels differ by up to {spread} levels, their luma is read" if spread else ""
    yield from evidence.report(
        "colour-predictions", "warning" if spread else "note", channels,
        f"grey predictions saved with several channels{differ}", "save one 8-bit channel",
    )  # fmt: skip


def probabilities_as_logits(evidence: Evidence) -> Iterator[Finding]:
    """Values that look like probabilities, declared to be logits."""
    looks = evidence.fact("normalised") > 0
    if evidence.statistics.conventions.get("input") == "logits" and looks.all():
        yield from evidence.report(
            "probabilities-as-logits", "warning", looks,
            "read as logits, but all values lie in [0, 1], like probabilities (and, of several classes, add up to 1): "
            "soft-max of probabilities is nearly uniform",
            "say --input probabilities, unless these are logits",
        )  # fmt: skip


def few_images(evidence: Evidence) -> Iterator[Finding]:
    """Too few images to resample."""
    volumes = "volumes" in evidence.statistics.conventions
    n = len({owner(name) if volumes else name for name in evidence.statistics.names})
    if n < FEW_UNITS:
        units = "volumes" if volumes else "images"
        yield from evidence.report(
            "few-images", "note", evidence.n_pixels >= 0,
            f"{plural(n, units[:-1])}: intervals that resample {units} are rough below 30",
            "read the intervals as a rough guide; add images if there are more",
        )  # fmt: skip


def grey_masks(evidence: Evidence) -> Iterator[Finding]:
    """Mask bytes between black and white."""
    between = evidence.fact("gt_between")
    share = between.sum() / max(int((evidence.fact("height") * evidence.fact("width")).sum()), 1)
    rule = evidence.statistics.conventions.get("gt_threshold")
    many = share > GREY_SHARE
    yield from evidence.report(
        "grey-masks" if many else "anti-aliased-masks", "warning" if many else "note", between > 0,
        f"{share:.2%} of the mask pixels are neither 0, 1 nor 255; foreground is "
        + ("what exceeds the threshold" if rule is None else f"byte > {rule}"),
        "compare the numbers under another --gt-threshold" + (", or use the original binary masks" if many else ""),
    )  # fmt: skip


def mask_files(evidence: Evidence) -> Iterator[Finding]:
    """How masks are stored, where it is not plain 8-bit grey."""
    channels, spread = evidence.fact("gt_channels") > 1, evidence.fact("gt_spread")
    for code, rows, message, remedy in (
        ("one-bit-masks", evidence.fact("gt_bits") == 1, "1-bit masks, read as 0 and 255",
         "nothing to do; other tools may read True as 1/255"),
        ("zero-one-masks", (evidence.fact("gt_max") == 1), "masks coded 0 and 1, not 0 and 255",
         "nothing to do; other tools may divide them by 255"),
        ("palette-masks", evidence.fact("gt_palette") > 0, "masks with a coloured palette: their indices are read",
         "check that the indices mean background, foreground (and void)"),
        ("colour-masks", channels, f"grey masks saved with {int(evidence.fact('gt_channels').max(initial=0))} channels",
         "nothing to do; one channel would be smaller"),
        ("channels-differ", spread > 0, f"the channels of masks differ by up to {int(spread.max(initial=0))} levels: their "
         "luma is read", "use the original masks if there are any"),
    ):  # fmt: skip
        yield from evidence.report(code, "note", rows, message, remedy)


def plain_masks(evidence: Evidence) -> Iterator[Finding]:
    """Masks without foreground, or without background."""
    some = evidence.n_pixels > 0
    for code, rows, what, effect in (
        ("empty-masks", some & (evidence.n_foreground == 0), "foreground", "F, AP and AUROC are"),
        ("full-masks", some & (evidence.n_foreground == evidence.n_pixels), "background", "AUROC is"),
    ):
        severity: Severity = "error" if rows.all() else "warning" if rows.mean() <= RARE_MASKS else "note"
        yield from evidence.report(
            code, severity, rows, f"masks without {what}; {effect} undefined or 0 there",
            "look at these masks: so few are often mistakes" if severity == "warning" else
            "check --gt-threshold and how the masks are coded" if severity == "error" else
            "if that is meant so, watch n_undefined and compare pooled numbers",
        )  # fmt: skip


def field_of_view(evidence: Evidence) -> Iterator[Finding]:
    """What lies outside the field of view (or under a void value) and therefore does not count."""
    lost, predicted = evidence.fact("void_foreground"), evidence.fact("void_nonzero")
    yield from evidence.report(
        "foreground-outside", "note", lost > 0,
        f"{int(lost.sum())} foreground pixels of the masks lie outside the field of view and do not count",
        "nothing to do if the field of view is the right one",
    )  # fmt: skip
    yield from evidence.report(
        "predictions-outside", "note", predicted > 0,
        f"{predicted.sum() / max(int(evidence.fact('void').sum()), 1):.1%} of the pixels that do not count have a prediction "
        "above 0; it is ignored", "nothing to do; tools that know no field of view count them",
    )  # fmt: skip


def imbalance(evidence: Evidence) -> Iterator[Finding]:
    """One outcome is rare."""
    share = evidence.n_foreground.sum() / max(int(evidence.n_pixels.sum()), 1)
    what = "foreground" if share < 0.5 else "background"
    if 0 < min(share, 1 - share) < RARE_OUTCOME:
        yield from evidence.report(
            "class-imbalance", "note", evidence.n_pixels > 0,
            f"{min(share, 1 - share):.1%} of the pixels are {what}: the other outcome decides ece, accuracy and Brier score",
            "read ece_fg and ap as well",
        )  # fmt: skip


def mean_shift(evidence: Evidence) -> Iterator[Finding]:
    """The mean probability misses the foreground share, or the mean confidence the accuracy."""
    rows = evidence.n_pixels > 0
    pooled = evidence.statistics.total()
    n = max(int(evidence.n_pixels.sum()), 1)
    foreground, top_label = pooled.reliability("foreground"), pooled.reliability("top-label")
    if foreground is not None:
        p, y = float(foreground.confidence.sum()) / n, float(foreground.correct.sum()) / n
        if abs(p - y) > SHIFT:
            side = "under" if p < y else "over"
            yield from evidence.report(
                f"foreground-{side}-predicted", "note", rows,
                f"foreground is {side}-predicted on average: mean p {p:.3f}, foreground share {y:.3f}",
                "read ece_fg and the reliability diagram of foreground; a calibrator with a shift may help",
            )  # fmt: skip
    if top_label is None:
        return
    confidence, accuracy = float(top_label.confidence.sum()) / n, float(top_label.correct.sum()) / n
    if abs(confidence - accuracy) > SHIFT:
        side = "under" if confidence < accuracy else "over"
        yield from evidence.report(
            f"{side}-confident", "note", rows,
            f"decisions are {side}-confident on average: mean confidence {confidence:.3f}, accuracy {accuracy:.3f}",
            "read ece and the reliability diagram; a calibrator fitted on other images may help",
        )  # fmt: skip


def absent_classes(evidence: Evidence) -> Iterator[Finding]:
    """Classes that no mask holds, or that are never predicted."""
    counts = evidence.statistics.class_counts()
    if counts is None:
        return
    target, predicted = counts.target.sum(0), counts.predicted.sum(0)
    for code, absent, what in (
        ("absent-classes", target == 0, "occur in no mask"),
        ("unpredicted-classes", (predicted == 0) & (target > 0), "are in the masks, but never predicted"),
    ):
        if absent.any():
            names = ", ".join(map(str, np.flatnonzero(absent)[:8])) + (", ..." if absent.sum() > 8 else "")
            yield from evidence.report(
                code, "note", evidence.n_pixels > 0, f"{absent.sum()} of {len(target)} classes {what}: {names}",
                "means over classes leave out what is undefined; their details count it",
            )  # fmt: skip


Detector = Callable[[Evidence], Iterator[Finding]]

PREDICTION_DETECTORS: tuple[Detector, ...] = (
    min_max_stretched,
    hard_maps,
    truncated_levels,
    constant_maps,
    void_images,
    duplicates,
    prediction_files,
    probabilities_as_logits,
    few_images,
)
"""Detectors that hold whatever the masks mean."""

DETECTORS: tuple[Detector, ...] = (
    *PREDICTION_DETECTORS,
    inverted_maps,
    grey_masks,
    mask_files,
    plain_masks,
    field_of_view,
    imbalance,
    mean_shift,
)


CLASS_DETECTORS: tuple[Detector, ...] = (
    void_images,
    duplicates,
    prediction_files,
    probabilities_as_logits,
    few_images,
    absent_classes,
    mean_shift,
)
"""Detectors of predictions of several classes."""

TABLE_DETECTORS: tuple[Detector, ...] = (absent_classes, mean_shift)
"""Detectors of classification tables, whose rows are no images."""


def findings(statistics: Statistics, where: str, detectors: Sequence[Detector] = DETECTORS) -> list[Finding]:
    """What the rows of one method on one data set say; `detectors` are those of binary maps."""
    if "samples" in statistics.conventions:
        detectors = TABLE_DETECTORS
    elif statistics.histogram is None:
        detectors = [detector for detector in CLASS_DETECTORS if detectors is DETECTORS or detector in detectors]
    evidence = Evidence(statistics, where)
    return [finding for detector in detectors for finding in detector(evidence)]


def check_run(run: Run) -> list[Finding]:
    """What the rows of all methods and data sets say: `findings` of each, and copies between methods."""
    as_stored = {key: rows for key, rows in run.combinations.items() if rows.calibrator == UNCALIBRATED}
    found = {key: findings(statistics, place(*key)) for key, statistics in as_stored.items()}
    found |= {
        key: findings(statistics, place(*key), PREDICTION_DETECTORS)
        for key, statistics in run.ood.items()
        if statistics.histogram is not None and statistics.calibrator == UNCALIBRATED
    }
    return worst_first([*merged(found), *copied_predictions(as_stored)])


def place(dataset: str, method: str) -> str:
    """How findings name a method on a data set."""
    return f"{method} on {dataset}"


def merged(found: Mapping[tuple[str, str], Sequence[Finding]]) -> list[Finding]:
    """What several methods on a data set have in common (its masks, mostly), said once."""
    holders: dict[tuple[str, Finding], list[str]] = defaultdict(list)
    for (dataset, method), items in found.items():
        for item in items:
            holders[dataset, replace(item, where="")].append(method)
    n_methods = Counter(dataset for dataset, _ in found)
    return [
        replace(
            item, where=place(dataset, "all methods" if 1 < len(methods) == n_methods[dataset] else ", ".join(methods))
        )
        for (dataset, item), methods in holders.items()
    ]


def copied_predictions(measured: Mapping[tuple[str, str], Statistics]) -> Iterator[Finding]:
    """Files that two methods share on one data set."""
    for ((dataset, first), a), ((other, second), b) in combinations(measured.items(), 2):
        if dataset == other and a.facts is not None and b.facts is not None:
            evidence = Evidence(b, place(dataset, second))
            varied = evidence.varied if b.histogram is not None else np.ones(len(b.names), bool)
            yield from evidence.report(
                "copied-predictions", "warning", np.isin(b.facts["pred_digest"], a.facts["pred_digest"]) & varied,
                f"the very files that {first} has", "find out whose maps they are, and save the other method's again",
            )  # fmt: skip


def _repeated(digests: Array) -> Array:
    _, inverse, counts = np.unique(digests, return_inverse=True, return_counts=True)
    return np.asarray((counts[inverse] > 1) & (digests >= 0))


def _once_a_file(evidence: Evidence, column: str) -> Array:
    """A digest of each file: of a volume's slices the first has it, the others have negative numbers, all different."""
    digests = evidence.fact(column)
    if "volumes" not in evidence.statistics.conventions:
        return digests
    files = [owner(name) for name in evidence.statistics.names]
    first = np.unique(files, return_index=True)[1]
    return np.where(np.isin(np.arange(len(files)), first), digests, -1 - np.arange(len(files)))
