"""The doctor: what is wrong with these folders, before any number is printed.

Two layers. `findings` is a pure function of the rows that `evaluate` has anyway; `check_folders` looks at the files as
well and does not stop at the first problem. A new detector is one function and one line in `DETECTORS`.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations, groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from calbench.collect import Task, measure_pair
from calbench.errors import CalbenchError, InputError
from calbench.io.coding import MaskCoding, infer_coding, read_mask
from calbench.io.images import read_size
from calbench.io.pairing import Folders, Matching, Pair, find_folders, match_files
from calbench.metrics.ranking import auroc
from calbench.parallel import parallel_map
from calbench.plan import CollectOptions, Plan, verify_coding
from calbench.progress import progress_bar
from calbench.statistics import Run, Statistics
from calbench.statistics.rows import Array

SCHEMA = 1

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


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and how many pairs of each (dataset, method) were found and could be read."""

    findings: tuple[Finding, ...]
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    readable: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """1 if something makes the numbers wrong, else 0."""
        return int(any(finding.severity == "error" for finding in self.findings))

    @property
    def summary(self) -> str:
        """One line: what was looked at, how much was found."""
        counts = Counter(finding.severity for finding in self.findings)
        found = ", ".join(f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}" for severity in SEVERITIES)
        read = f"{sum(self.readable.values())} of {sum(self.pairs.values())} pairs read"
        return f"{read} in {len(self.pairs)} combinations of method and data set: {found}"

    def to_json(self) -> dict[str, Any]:
        """The document of `calbench check --json`."""
        return {
            "schema": SCHEMA,
            "exit_code": self.exit_code,
            "summary": self.summary,
            "combinations": [
                {"dataset": dataset, "method": method, "pairs": n, "readable": self.readable.get((dataset, method), 0)}
                for (dataset, method), n in self.pairs.items()
            ],
            "findings": [asdict(finding) for finding in self.findings],
        }


def report_lines(found: Iterable[Finding], width: int = 100) -> list[str]:
    """Plain text for people: grouped by place, errors first."""
    lines: list[str] = []
    for where, group in groupby(_sorted(found), key=lambda finding: finding.where):
        lines.append(where)
        for item in group:
            share = f" ({item.count} of {item.total}" + (f", e.g. {item.example})" if item.example else ")")
            lines.append(f"  {item.severity:<8}{item.code}" + share * bool(item.total))
            for lead, text in (("", item.message), ("-> ", item.remedy)):
                indent = " " * 10
                lines += textwrap.wrap(text, width, initial_indent=indent + lead,
                                       subsequent_indent=indent + " " * len(lead), break_on_hyphens=False)  # fmt: skip
    return lines


def _sorted(found: Iterable[Finding]) -> list[Finding]:
    """By place, the worst place first; within it errors, warnings, notes."""
    found = list(found)
    rank = {severity: number for number, severity in enumerate(SEVERITIES)}
    worst: dict[str, int] = {}
    for item in found:
        worst[item.where] = min(worst.get(item.where, len(rank)), rank[item.severity])
    return sorted(found, key=lambda item: (worst[item.where], item.where, rank[item.severity]))


# ---- what the rows say ------------------------------------------------------------------------------------------------

FEW_IMAGES = 30
"""Below this, intervals that resample images are rough."""
RARE_OUTCOME = 0.15
"""Where fewer pixels than this are foreground (or background), the common outcome decides a pooled number."""
MIN_MAPS = 5
"""A folder of fewer maps shows no habit of the program that wrote them."""
LONE_PEAK_PIXELS, LONE_PEAK_FOREGROUND = 1e-3, 0.05
"""A map peaks alone if fewer of its pixels, and of its predicted foreground, are at 254 or 255. A network that saturates
fills its objects with 255 (20 % to 60 % of the predicted foreground in real sets), and its unsure maps stay below; a
stretched unsure map reaches 255 in a few pixels."""
LONE_PEAK_SHARE, LONE_PEAKS = 0.01, 3
"""Share of such maps, and at least how many, that prove stretching when no map at all falls short of 255."""
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
        """Pixels by image, outcome and level, `(rows, 2, 256)`."""
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
        return np.asarray(self.levels.sum(1))

    @cached_property
    def n_foreground(self) -> Array:
        """Foreground pixels of each image."""
        return np.asarray(self.counts[:, 1].sum(1))

    @cached_property
    def extremes(self) -> tuple[Array, Array]:
        """Lowest and highest level of each map."""
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
        """A column of the facts about the files; zeros for images that never were files."""
        facts = self.statistics.facts
        return np.zeros(len(self.levels), np.int64) if facts is None else facts[column]

    def finding(self, code: str, severity: Severity, rows: Array, message: str, remedy: str) -> Finding:
        """A finding about the images where `rows` is true."""
        hit = np.flatnonzero(rows)
        example = self.statistics.names[hit[0]] if len(hit) else ""
        return Finding(code, severity, self.where, message, len(hit), len(rows), example, remedy)


def min_max_stretched(evidence: Evidence) -> Iterator[Finding]:
    """Every map of the folder spans the whole range: stretched map by map when saved, unless honestly saturated."""
    rows, (low, high) = evidence.varied, evidence.extremes
    if rows.sum() < MIN_MAPS or evidence.soft_share < HARD_SHARE:
        return
    # truncation or interpolation after the stretch may take one level from either end
    spans = bool(((low <= 1) & (high >= 254))[rows].all())
    exact = bool(((low == 0) & (high == 255))[rows].all())
    peak, predicted = evidence.levels[:, 254:].sum(1), evidence.levels[:, 128:].sum(1)
    lone = rows & (peak < LONE_PEAK_PIXELS * evidence.n_pixels) & (peak < LONE_PEAK_FOREGROUND * predicted)
    if spans and lone.sum() >= max(LONE_PEAKS, LONE_PEAK_SHARE * rows.sum()):
        yield evidence.finding(
            "min-max-stretched", "error", lone,
            f"every map spans {int(low[rows].max())} to {int(high[rows].min())} or more, even these, which reach the top in "
            "fewer than 0.1 % of their pixels: each map was min-max stretched when saved, which destroys its calibration",
            "save round(255 * p) without rescaling; of these maps trust rank and saliency metrics only",
        )  # fmt: skip
    elif exact:
        yield evidence.finding(
            "min-max-stretched", "warning", rows,
            "every map hits 0 and 255: min-max stretched when saved, or so sure that every image saturates; with so many "
            "pixels at 255 the maps alone do not tell. If stretched, calibration was destroyed",
            "look into the code that saved them for (x - min) / (max - min); save round(255 * p) without it",
        )  # fmt: skip


def hard_maps(evidence: Evidence) -> Iterator[Finding]:
    """Masks passed as probabilities: thresholded, refined by a CRF, or coded 0/1."""
    rows, top = evidence.n_pixels > 0, int(evidence.extremes[1].max(initial=0))
    soft = evidence.share[_SOFT].sum()
    if top == 1:
        yield evidence.finding(
            "zero-one-maps", "error", rows & (evidence.extremes[1] == 1),
            "no map has a level above 1: 0/1 masks, read as probabilities of at most 1/255",
            "save probabilities as round(255 * p); for hard masks at least 0 and 255",
        )  # fmt: skip
    elif 1 < top < 128 and evidence.n_foreground.any():
        yield evidence.finding(
            "low-maximum", "warning", rows & (evidence.extremes[1] == top),
            f"the highest level of the folder is {top}: no pixel is ever predicted foreground; is this another scale, such "
            "as 0 to 100?",
            "save probabilities as round(255 * p)",
        )  # fmt: skip
    elif top >= 128 and evidence.soft_share < HARD_SHARE:
        yield evidence.finding(
            "hard-maps", "warning", rows,
            f"hard masks passed as probabilities: {soft:.2%} of the pixels lie between p = 0.02 and 0.98; the calibration "
            "error of a hard mask is only its error rate",
            "save the network's probabilities before they are thresholded",
        )  # fmt: skip
    elif top >= 128 and evidence.soft_share < NEARLY_HARD_SHARE:
        yield evidence.finding(
            "nearly-binary", "warning", rows,
            f"nearly binary maps: only {soft:.1%} of the pixels lie between p = 0.02 and 0.98; refined by a CRF, sharpened, "
            "or from a network that is almost always certain",
            "if maps were refined, their calibration is that of the refinement: evaluate the network's own output, too",
        )  # fmt: skip


def inverted_maps(evidence: Evidence) -> Iterator[Finding]:
    """High where the mask is background."""
    both = (evidence.n_foreground > 0) & (evidence.n_foreground < evidence.n_pixels)
    per_image = auroc(evidence.statistics.histogram)
    pooled = float(auroc(evidence.statistics.histogram.total()))
    worse = both & (np.nan_to_num(per_image, nan=1.0) < 0.5)
    wrong = both & (np.nan_to_num(per_image, nan=1.0) < INVERTED_IMAGE_AUROC)
    if pooled < INVERTED_AUROC and worse.sum() > both.sum() / 2:
        yield evidence.finding(
            "inverted-maps", "error", worse,
            f"predictions are higher on background than on foreground (AUROC {pooled:.2f}): inverted maps or masks",
            "save 255 - map, or check which class the masks mark with their high value",
        )  # fmt: skip
    elif wrong.sum() > INVERTED_IMAGES * len(both):
        yield evidence.finding(
            "inverted-images", "warning", wrong,
            "single maps rank background far above foreground (AUROC below 0.3), in a folder that does not",
            "look at these images: inverted, or paired with the wrong mask?",
        )  # fmt: skip


def truncated_levels(evidence: Evidence) -> Iterator[Finding]:
    """Probability mass piles up at 254 and 255 never occurs: int(255 p) instead of round(255 p)."""
    total = evidence.levels.sum(0)
    if total[255] == 0 and total[254] > total[253] and evidence.soft_share >= HARD_SHARE:
        yield evidence.finding(
            "truncated-levels", "warning", evidence.extremes[1] == 254,
            "the maximum is 254, never 255, although pixels pile up there: p * 255 was truncated, not rounded, so every p is "
            "about 0.002 (half a level) too low",
            "save np.round(255 * p); differences of calibration errors below 0.002 mean nothing here",
        )  # fmt: skip


def constant_maps(evidence: Evidence) -> Iterator[Finding]:
    """Maps of one level; an all-zero map of an empty mask is a right answer, not a fault."""
    right = (evidence.extremes[1] == 0) & (evidence.n_foreground == 0)
    rows = (evidence.n_pixels > 0) & ~evidence.varied & ~right
    if rows.any():
        yield evidence.finding(
            "constant-maps", "error" if rows.all() else "warning", rows,
            "maps with one level everywhere",
            "look at these files: did the network fail, or was the map written wrongly?",
        )  # fmt: skip


def void_images(evidence: Evidence) -> Iterator[Finding]:
    """Images where no pixel counts."""
    rows = evidence.n_pixels == 0
    if rows.any():
        yield evidence.finding(
            "void-images", "error" if rows.all() else "warning", rows,
            "images without a single valid pixel: nothing can be measured on them",
            "check the void value and the field of view",
        )  # fmt: skip


def duplicates(evidence: Evidence) -> Iterator[Finding]:
    """The same file under several names, and masks handed in as predictions."""
    if evidence.statistics.facts is None:
        return
    pred, gt = evidence.fact("pred_digest"), evidence.fact("gt_digest")
    plain = (evidence.n_foreground == 0) | (evidence.n_foreground == evidence.n_pixels)
    for code, what, rows in (
        ("duplicate-predictions", "predictions", _repeated(pred) & evidence.varied),
        ("duplicate-masks", "masks", _repeated(gt) & ~plain),
    ):
        if rows.any():
            yield evidence.finding(
                code, "warning", rows, f"the same file under several names among the {what}",
                "keep one of each, or find out which of them is wrong: images that repeat make intervals too narrow",
            )  # fmt: skip
    if (pred == gt).any():
        yield evidence.finding(
            "mask-as-prediction", "error", pred == gt, "the prediction is the file of its own mask, byte for byte",
            "point --pred at the network's maps",
        )  # fmt: skip


def prediction_files(evidence: Evidence) -> Iterator[Finding]:
    """Predictions that were changed on the way to a grey map of the mask's size."""
    resized, channels = evidence.fact("resized") > 0, evidence.fact("pred_channels") > 1
    spread = int(evidence.fact("pred_spread").max(initial=0))
    if resized.any():
        yield evidence.finding(
            "resized-predictions", "note", resized, "predictions of another size than their mask, resized (bilinear)",
            "save maps at the mask's size; interpolation softens them, which moves calibration",
        )  # fmt: skip
    if channels.any():
        differ = f"; the channels differ by up to {spread} levels, their luma is read" if spread else ""
        yield evidence.finding(
            "colour-predictions", "warning" if spread else "note", channels,
            f"grey predictions saved with several channels{differ}", "save one 8-bit channel",
        )  # fmt: skip


def few_images(evidence: Evidence) -> Iterator[Finding]:
    """Too few images to resample."""
    n = len(evidence.levels)
    if n < FEW_IMAGES:
        yield evidence.finding(
            "few-images", "note", np.ones(n, bool), f"{n} images: intervals that resample images are rough below 30",
            "read the intervals as a rough guide; add images if there are more",
        )  # fmt: skip


def grey_masks(evidence: Evidence) -> Iterator[Finding]:
    """Mask bytes between black and white."""
    between = evidence.fact("gt_between")
    if not between.any():
        return
    total = int(evidence.n_pixels.sum() + evidence.fact("void").sum())
    share = int(between.sum()) / total
    rule = evidence.statistics.conventions.get("gt_threshold")
    many = share > GREY_SHARE
    yield evidence.finding(
        "grey-masks" if many else "anti-aliased-masks", "warning" if many else "note", between > 0,
        f"{share:.2%} of the mask pixels are neither 0, 1 nor 255; foreground is " + (
            "byte > the threshold" if rule is None else f"byte > {rule}"),
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
        if rows.any():
            yield evidence.finding(code, "note", rows, message, remedy)


def plain_masks(evidence: Evidence) -> Iterator[Finding]:
    """Masks without foreground, or without background."""
    some = evidence.n_pixels > 0
    for code, rows, what, effect in (
        ("empty-masks", some & (evidence.n_foreground == 0), "foreground", "F, AP and AUROC are"),
        ("full-masks", some & (evidence.n_foreground == evidence.n_pixels), "background", "AUROC is"),
    ):
        if rows.any():
            severity: Severity = "error" if rows.all() else "warning" if rows.mean() <= RARE_MASKS else "note"
            yield evidence.finding(
                code, severity, rows, f"masks without {what}; {effect} undefined or 0 there",
                "look at these masks: so few are often mistakes" if severity == "warning" else
                "check --gt-threshold and how the masks are coded" if severity == "error" else
                "if that is meant so, watch n_undefined and compare pooled numbers",
            )  # fmt: skip


def field_of_view(evidence: Evidence) -> Iterator[Finding]:
    """What lies outside the field of view (or under a void value) and therefore does not count."""
    lost, predicted = evidence.fact("void_foreground"), evidence.fact("void_nonzero")
    if lost.any():
        yield evidence.finding(
            "foreground-outside", "note", lost > 0,
            f"{int(lost.sum())} foreground pixels of the masks lie outside the field of view and do not count",
            "nothing to do if the field of view is the right one",
        )  # fmt: skip
    if predicted.any():
        yield evidence.finding(
            "predictions-outside", "note", predicted > 0,
            f"{predicted.sum() / evidence.fact('void').sum():.1%} of the pixels that do not count have a prediction above 0; "
            "it is ignored", "nothing to do; tools that know no field of view count them",
        )  # fmt: skip


def imbalance(evidence: Evidence) -> Iterator[Finding]:
    """One outcome is rare."""
    share = evidence.n_foreground.sum() / max(int(evidence.n_pixels.sum()), 1)
    what = "foreground" if share < 0.5 else "background"
    if 0 < min(share, 1 - share) < RARE_OUTCOME:
        yield evidence.finding(
            "class-imbalance", "note", evidence.n_pixels > 0,
            f"{min(share, 1 - share):.1%} of the pixels are {what}: the other outcome decides ece, accuracy and Brier score",
            "read ece_fg and ap as well",
        )  # fmt: skip


def mean_shift(evidence: Evidence) -> Iterator[Finding]:
    """The mean probability misses the foreground share, or the mean confidence the accuracy."""
    rows = evidence.n_pixels > 0
    pooled = evidence.statistics.histogram.total()
    n = max(int(evidence.n_pixels.sum()), 1)
    p, y = float(evidence.share @ pooled.probs), float(evidence.n_foreground.sum()) / n
    if abs(p - y) > SHIFT:
        side = "under" if p < y else "over"
        yield evidence.finding(
            f"foreground-{side}-predicted", "note", rows,
            f"{side}-confident about foreground on average: the mean p is {p:.3f}, the foreground share {y:.3f}",
            "read ece_fg and the reliability diagram of foreground; a calibrator with a shift may help",
        )  # fmt: skip
    cells = pooled.reliability("top-label")
    confidence, accuracy = float(cells.confidence.sum()) / n, float(cells.correct.sum()) / n
    if abs(confidence - accuracy) > SHIFT:
        side = "under" if confidence < accuracy else "over"
        yield evidence.finding(
            f"{side}-confident", "note", rows,
            f"{side}-confident decisions on average: mean confidence {confidence:.3f}, accuracy {accuracy:.3f}",
            "read ece and the reliability diagram; a calibrator fitted on other images may help",
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


def findings(statistics: Statistics, where: str, detectors: Sequence[Detector] = DETECTORS) -> list[Finding]:
    """What the rows of one method on one data set say."""
    evidence = Evidence(statistics, where)
    return [finding for detector in detectors for finding in detector(evidence)]
