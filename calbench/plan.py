"""Before the first pixel: find the folders, pair the files, compare sizes, infer how masks are coded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calbench.errors import OptionError, ShapeError, UnknownName, listing, plural
from calbench.io.coding import CodedFiles, MaskCoding, infer_coding, verify_coding
from calbench.io.images import read_size
from calbench.io.pairing import Folders, Pair, find_folders, match_files
from calbench.kernels import IMAGE_SCORES
from calbench.statistics import Statistics

PRED_THRESHOLD = 128
"""Predictions are foreground where p >= 0.5: byte >= 128."""


@dataclass(frozen=True)
class CollectOptions:
    """What is read and how; recorded with the statistics.

    Attributes:
        pred, gt, mask: folders or templates, see `io.pairing.find_folders`.
        pred_suffix, gt_suffix: endings of the stems, removed before names are matched.
        methods, datasets: names, or filters on what a template finds.
        gt_threshold: foreground is mask byte > this; None infers it a folder.
        void_values: mask bytes that mean "does not count".
        on_mismatch: "error", "resize-pred" or "skip" where a prediction and its mask differ in size.
        on_missing: "error" or "skip" where a partner is missing.
        scores: positional scores to compute (`s_measure`, `weighted_f`).
        raw_bytes: also collect what the ASLP profile needs.
    """

    pred: str
    gt: str
    mask: str | None = None
    pred_suffix: str = ""
    gt_suffix: str = ""
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    gt_threshold: int | None = None
    void_values: tuple[int, ...] = ()
    on_mismatch: str = "error"
    on_missing: str = "error"
    scores: tuple[str, ...] = IMAGE_SCORES
    raw_bytes: bool = False

    def __post_init__(self) -> None:
        for name in ("methods", "datasets", "scores"):  # one name stands for a tuple of one
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        for score in self.scores:
            if score not in IMAGE_SCORES:
                raise UnknownName("score", score, IMAGE_SCORES)
        if not isinstance(self.void_values, tuple | list):
            raise OptionError(f"void_values is {self.void_values!r}; it is a tuple of mask bytes")
        for name in ("pred", "gt", "mask"):  # ./a, a/ and a are one folder
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(Path(getattr(self, name))))
        for kind, value, known in (
            ("on-mismatch choice", self.on_mismatch, ("error", "resize-pred", "skip")),
            ("on-missing choice", self.on_missing, ("error", "skip")),
        ):
            if value not in known:
                raise UnknownName(kind, value, known)


@dataclass(frozen=True)
class Plan:
    """One combination, ready to be read: its pairs and the rules inferred for its folders."""

    folders: Folders
    pairs: tuple[Pair, ...]
    coding: MaskCoding
    fov: MaskCoding | None
    notes: tuple[str, ...]

    @property
    def conventions(self) -> dict[str, Any]:
        """What was inferred or declared for these folders, as recorded with the rows."""
        return {
            "input": "levels",
            "pred_threshold": PRED_THRESHOLD,
            "mask_coding": self.coding.kind,
            "gt_threshold": self.coding.threshold,
            "gt_threshold_declared": self.coding.declared,
            "void_values": list(self.coding.void_values),
            "field_of_view": None if self.fov is None else self.fov.kind,
        }


def plan_run(options: CollectOptions) -> tuple[list[Plan], list[str]]:
    """Find, pair and check all folders, and infer their codings; no pixel is counted yet."""
    combinations, notes = find_folders(
        options.pred, options.gt, options.mask, methods=options.methods, datasets=options.datasets
    )
    codings: dict[tuple[Path, bool], MaskCoding] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    plans = []
    for folders in combinations:
        matching = match_files(folders, pred_suffix=options.pred_suffix, gt_suffix=options.gt_suffix)
        matching.raise_on_problems(folders, skip_missing=options.on_missing == "skip")
        left_out = len(matching.without_gt) + len(matching.without_pred) + len(matching.without_mask)
        plan_notes = [
            f"{folders.method} on {folders.dataset}: {plural(left_out, 'file')} without partner skipped"
        ] * bool(left_out)
        mismatched = [pair for pair in matching.pairs if _size(pair.pred, sizes) != _size(pair.gt, sizes)]
        pairs = _resolve_mismatches(folders, matching.pairs, mismatched, options.on_mismatch, sizes)
        if mismatched:
            verb = "resized to their mask (bilinear)" if options.on_mismatch == "resize-pred" else "skipped"
            plan_notes.append(
                f"{folders.method} on {folders.dataset}: {plural(len(mismatched), 'prediction')} of another size {verb}"
            )
        wrong_fov = [pair for pair in pairs if pair.mask and _size(pair.mask, sizes) != _size(pair.gt, sizes)]
        if wrong_fov:
            raise ShapeError(
                f"{len(wrong_fov)} fields of view in {folders.mask} differ in size from their mask:\n"
                + listing(f"{pair.mask} {_size_text(pair.mask, sizes)}, mask {_size_text(pair.gt, sizes)}"
                          for pair in wrong_fov if pair.mask)
            )  # fmt: skip
        if (folders.gt, True) not in codings:
            gts = [pair.gt for pair in matching.pairs]
            codings[folders.gt, True] = infer_coding(
                gts, threshold=options.gt_threshold, void_values=options.void_values
            )
        if folders.mask is not None and (folders.mask, False) not in codings:
            codings[folders.mask, False] = infer_coding(
                [pair.mask for pair in pairs if pair.mask], role="fields of view"
            )
        fov = codings[folders.mask, False] if folders.mask is not None else None
        plans.append(Plan(folders, pairs, codings[folders.gt, True], fov, tuple(plan_notes)))
    return plans, notes


def describe(plans: Sequence[Plan]) -> list[str]:
    """What was inferred for the combinations, one line for all methods that share it."""
    methods: dict[tuple[str, str], list[str]] = {}
    for plan in plans:
        coding = plan.coding
        how = "given" if coding.declared else "inferred"
        void = f", void {'/'.join(map(str, coding.void_values))}" if coding.void_values else ""
        fov = f", field of view {plan.fov.kind}" if plan.fov else ""
        text = f"{plural(len(plan.pairs), 'image')}, masks {coding.kind} (foreground > {coding.threshold}, {how}){void}{fov}"
        methods.setdefault((plan.folders.dataset, text), []).append(plan.folders.method)
    return [f"{', '.join(names)} on {dataset}: {text}" for (dataset, text), names in methods.items()]


def fingerprint(plans: Sequence[Plan]) -> dict[str, str]:
    """Number and digest of the image names of each combination."""
    return {
        f"{plan.folders.dataset}/{plan.folders.method}": f"{len(plan.pairs)} images, "
        + hashlib.blake2b("\n".join(pair.name for pair in plan.pairs).encode(), digest_size=8).hexdigest()
        for plan in plans
    }


def verify_codings(plan: Plan, statistics: Statistics) -> None:
    """Hold the codings of a combination, decided on samples, against every mask and field of view that was read.

    Raises:
        RangeError: see `io.coding.verify_coding`.
    """
    facts = statistics.facts
    if facts is None:
        return
    pixels = np.maximum(facts["height"] * facts["width"], 1)
    masks = CodedFiles(facts.names, facts["gt_bits"], facts["gt_max"], facts["gt_one"] / pixels, facts["gt_between"])
    verify_coding(plan.coding, plan.folders.gt, masks, "masks")
    if plan.fov is not None and plan.folders.mask is not None:
        nothing = np.zeros(len(facts))
        fovs = CodedFiles(facts.names, facts["fov_bits"], facts["fov_max"], nothing, nothing)
        verify_coding(plan.fov, plan.folders.mask, fovs, "fields of view")


def _size(path: Path, known: dict[Path, tuple[int, int]]) -> tuple[int, int]:
    if path not in known:
        known[path] = read_size(path)
    return known[path]


def _size_text(path: Path, known: dict[Path, tuple[int, int]]) -> str:
    height, width = _size(path, known)
    return f"{width}x{height}"


def _resolve_mismatches(
    folders: Folders,
    pairs: Sequence[Pair],
    mismatched: Sequence[Pair],
    on_mismatch: str,
    sizes: dict[Path, tuple[int, int]],
) -> tuple[Pair, ...]:
    """The pairs to read; sizes that differ are an error, unless the prediction is resized or the pair skipped."""
    if mismatched and on_mismatch == "error":
        lines = (f"{p.pred} {_size_text(p.pred, sizes)}, mask {_size_text(p.gt, sizes)} (WxH)" for p in mismatched)
        raise ShapeError(
            f"{len(mismatched)} of {len(pairs)} predictions of {folders.method} on {folders.dataset} differ in size from "
            f"their mask:\n{listing(lines)}\n"
            "save them at the mask's size, or choose --on-mismatch resize-pred (bilinear, recorded) or --on-mismatch skip"
        )
    kept = [pair for pair in pairs if on_mismatch == "resize-pred" or pair not in set(mismatched)]
    if not kept:
        raise ShapeError(
            f"all {len(pairs)} predictions of {folders.method} on {folders.dataset} differ in size from their mask; "
            "nothing is left after --on-mismatch skip; --on-mismatch resize-pred would keep them"
        )
    return tuple(kept)
