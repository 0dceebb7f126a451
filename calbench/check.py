"""The doctor: examine folders as far as they can be read, and say what is wrong before any number is printed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from calbench.errors import CalbenchError, FormatError, InputError, plural
from calbench.findings import (
    DETECTORS,
    PREDICTION_DETECTORS,
    SEVERITIES,
    Finding,
    Severity,
    copied_predictions,
    findings,
    merged,
    place,
    worst_first,
)
from calbench.io.arrays import extension
from calbench.io.coding import MaskCoding, read_mask
from calbench.io.labels import LabelCoding
from calbench.io.pairing import Folders, Matching, Pair, find_folders, match_files
from calbench.io.predictions import ScoreCoding
from calbench.io.tables import TEXT
from calbench.measure import Task, measure_pair, tasks_of
from calbench.parallel import parallel_map
from calbench.plan import CollectOptions, Plan, Survey, verify_codings
from calbench.progress import progress_bar
from calbench.statistics import Statistics

SCHEMA = 1
LOSSY = {".jpg", ".jpeg"}


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
        found = ", ".join(plural(counts[severity], severity) for severity in SEVERITIES)
        read = f"{sum(self.readable.values())} of {plural(sum(self.pairs.values()), 'pair')} read"
        return f"{read}, {plural(len(self.pairs), 'combination')} of method and data set: {found}"

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


BINARY = ScoreCoding("levels", 1, None, "uint8")
UNKNOWN_CODING = MaskCoding("0/1", 0, (255,))
"""Lets predictions be examined where the masks' coding is in doubt; the masks are not judged by it."""


@dataclass
class _Examined:
    """One method on one data set while it is examined."""

    folders: Folders
    n_pairs: int = 0
    pairs: tuple[Pair, ...] = ()
    table: str | None = None
    scores: ScoreCoding | None = None
    truth: MaskCoding | LabelCoding | None = None
    fov: MaskCoding | None = None
    found: list[Finding] = field(default_factory=list)
    failures: list[tuple[str, CalbenchError]] = field(default_factory=list)
    rows: list[Statistics] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        return self.folders.dataset, self.folders.method

    @property
    def plan(self) -> Plan:
        """What can be read; masks whose coding is in doubt are read so that predictions can be examined."""
        truth = None if self.table else self.truth or UNKNOWN_CODING
        return Plan(self.folders, self.pairs, self.scores, truth, self.fov, table=self.table)

    def add(self, code: str, severity: Severity, names: Sequence[str], message: str, remedy: str) -> None:
        """A finding about these files, if there are any."""
        if names:
            total = max(self.n_pairs, len(names))
            self.found.append(Finding(code, severity, place(*self.key), message, len(names), total, names[0], remedy))

    def add_error(self, code: str, error: CalbenchError) -> None:
        """A finding about the whole folder."""
        self.found.append(_from_error(code, place(*self.key), error))


def check_folders(options: CollectOptions, *, jobs: int | None = None, progress: bool = False) -> Diagnosis:
    """Examine the folders that the options name as far as they can be read, whatever is wrong with some of the files.

    Args:
        options: as for `collect_folders`; positional scores are not computed.
        jobs: worker processes; None chooses.
        progress: draw a bar on stderr.
    """
    try:
        combined, notes = find_folders(
            options.pred, options.gt, options.mask, methods=options.methods, datasets=options.datasets
        )
    except InputError as error:
        return Diagnosis((_from_error("no-folders", options.pred, error),))
    survey = Survey(options)
    examined = [_examine(survey, folders) for folders in combined]
    tasks = [
        (number, task)
        for number, one in enumerate(examined)
        if one.table or (one.scores is not None and (one.truth is not None or one.scores.binary))
        for task in tasks_of(one.plan, replace(options, scores=(), extras=()))
    ]
    with progress_bar("images", len(tasks), enabled=progress) as advance:
        for number, name, outcome in parallel_map(_attempt, tasks, jobs):
            if isinstance(outcome, Statistics):
                examined[number].rows.append(outcome)
            else:
                examined[number].failures.append((name, outcome))
            advance()
    for one in examined:
        _explain_failures(one)
    measured = {one.key: _explain_rows(one) for one in examined if one.rows}
    incomplete = [
        Finding("incomplete", "warning", options.pred, note, 0, 0, "", "add what is missing") for note in notes
    ]
    found = [*incomplete, *merged({one.key: one.found for one in examined}), *copied_predictions(measured)]
    return Diagnosis(
        tuple(worst_first(found)),
        {one.key: one.n_pairs for one in examined},
        {one.key: len(one.rows) for one in examined},
    )


def _examine(survey: Survey, folders: Folders) -> _Examined:
    """Pair the files, compare their sizes and infer how they are coded; few predictions are decoded yet."""
    options = survey.options
    one = _Examined(folders)
    try:
        matching = match_files(folders, pred_suffix=options.pred_suffix, gt_suffix=options.gt_suffix)
    except InputError as error:
        one.add_error("no-files", error)
        return one
    one.n_pairs = len(matching.pairs)
    _explain_matching(one, matching, "warning" if options.on_missing == "skip" else "error")
    if not matching.pairs:
        return one
    lossy_preds = [pair.pred.name for pair in matching.pairs if pair.pred.suffix.lower() in LOSSY]
    lossy_masks = [pair.gt.name for pair in matching.pairs if pair.gt and pair.gt.suffix.lower() in LOSSY]
    lossy = "saved as JPEG, which moves levels by a few, most at edges"
    one.add("jpeg-predictions", "warning", lossy_preds, f"predictions {lossy}", "save PNG files")
    one.add("jpeg-masks", "note", lossy_masks, f"masks {lossy}", "save PNG files")
    readable = list(_with_headers(one, survey, matching.pairs))
    if not readable:
        return one
    try:
        if survey.holds_tables(folders, readable):
            one.table, one.pairs = survey.table_kind(readable[0].pred), tuple(readable)
            return one
        one.scores = survey.scores(readable)
    except CalbenchError as error:
        one.add_error("mixed-predictions", error)
        return one
    one.pairs = tuple(_of_one_size(one, survey, readable))
    gts = [pair.gt for pair in readable if pair.gt]
    one.truth = _coding(one, gts, lambda paths: survey.truth(folders, paths, one.scores or BINARY))
    fovs = [pair.mask for pair in one.pairs if pair.mask is not None]
    if fovs and folders.mask is not None:
        fov = _coding(one, fovs, lambda paths: survey.fov(folders.mask or Path(), paths))
        one.fov = fov if isinstance(fov, MaskCoding) else None
    return one


def _with_headers(one: _Examined, survey: Survey, pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Pairs whose headers can be read; the others are explained."""
    for pair in pairs:
        try:
            if extension(pair.pred) not in TEXT:
                survey.header(pair.pred)
            if pair.gt is not None and pair.gt != pair.pred:
                survey.header(pair.gt, "mask")
            if pair.mask is not None:
                survey.header(pair.mask, "mask")
        except CalbenchError as error:
            one.failures.append((pair.name, error))
        else:
            yield pair


def _explain_matching(one: _Examined, matching: Matching, severity: Severity) -> None:
    remedy = "complete the folders, or name the endings by --pred-suffix/--gt-suffix"
    one.add("doubled-names", "error", [str(path) for path in matching.doubled], "files that share their name with another",
            "keep one file a name, or tell them apart by --pred-suffix/--gt-suffix")  # fmt: skip
    for code, files, message in (
        ("missing-masks", matching.without_gt, "predictions without a mask"),
        ("missing-predictions", matching.without_pred, "masks without a prediction"),
        ("missing-fields-of-view", matching.without_mask, "images without a field of view"),
    ):
        one.add(code, severity, [path.name for path in files], message, remedy)
    if not matching.pairs:
        error = InputError(f"no prediction in {one.folders.pred} matches a mask in {one.folders.gt}; {remedy}")
        one.add_error("no-pairs", error)


def _of_one_size(one: _Examined, survey: Survey, pairs: Sequence[Pair]) -> Iterator[Pair]:
    """Pairs whose sizes allow to measure them; the others are explained."""
    on_mismatch = survey.options.on_mismatch
    other: dict[str, list[str]] = {"prediction": [], "field of view": []}
    shown: dict[str, str] = {}
    assert one.scores is not None
    for pair in pairs:
        sizes = {} if pair.gt is None else {"mask": survey.size(pair.gt)}
        sizes["prediction"] = survey.pred_size(pair, one.scores)
        if pair.mask is not None:
            sizes["field of view"] = survey.size(pair.mask)
        differ = [what for what, size in sizes.items() if size != next(iter(sizes.values()))]
        for what in differ:
            shown.setdefault(what, ", ".join(f"{side} {width}x{height}" for side, (height, width) in sizes.items()))
            other[what].append(pair.name)
        if not differ or (differ == ["prediction"] and on_mismatch == "resize-pred"):
            yield pair
    if on_mismatch != "resize-pred":
        one.add("size-mismatch", "warning" if on_mismatch == "skip" else "error", other["prediction"],
                f"predictions of another size than their mask: {shown.get('prediction')} (WxH)",
                "save them at the mask's size, or choose --on-mismatch resize-pred (bilinear, recorded)")  # fmt: skip
    one.add("field-of-view-size", "error", other["field of view"],
            f"fields of view of another size than the mask: {shown.get('field of view')} (WxH)",
            "save them at the mask's size")  # fmt: skip


def _coding(
    one: _Examined, paths: Sequence[Path], infer: Callable[[Sequence[Path]], MaskCoding | LabelCoding]
) -> MaskCoding | LabelCoding | None:
    """The coding of the masks that can be decoded; None, explained, where it cannot be decided."""
    try:
        try:
            return infer(paths)
        except CalbenchError:
            readable = [path for path in paths if _decodes(path)]
            return infer(readable or paths)
    except CalbenchError as error:
        one.add_error("mask-coding", error)
        return None


def _decodes(path: Path) -> bool:
    try:
        read_mask(path)
    except CalbenchError:
        return False
    return True


def _attempt(numbered: tuple[int, Task]) -> tuple[int, str, Statistics | CalbenchError]:
    number, task = numbered
    try:
        return number, task.pair.name, measure_pair(task)
    except CalbenchError as error:
        return number, task.pair.name, error


def _explain_failures(one: _Examined) -> None:
    """One finding for each kind of failure: remedies, which name no file, tell the kinds apart."""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for name, error in sorted(one.failures, key=lambda failure: failure[0]):
        code = "unreadable" if isinstance(error, FormatError) else "wrong-values"
        message, remedy = _split(error)
        kinds[code, remedy].append((name, message))
    for (code, remedy), offenders in kinds.items():
        one.add(code, "error", [name for name, _ in offenders], offenders[0][1], remedy)


def _explain_rows(one: _Examined) -> Statistics:
    """The rows of a combination; they are held against the inferred coding, then examined."""
    statistics = one.plan.sealed(Statistics.concat(one.rows))
    known = one.truth is not None or one.table is not None
    if known:
        try:
            verify_codings(one.plan, statistics)
        except CalbenchError as error:
            one.add_error("mask-coding", error)
            known = False
    one.found += findings(statistics, place(*one.key), DETECTORS if known else PREDICTION_DETECTORS)
    return statistics


def _from_error(code: str, where: str, error: CalbenchError) -> Finding:
    message, remedy = _split(error)
    return Finding(code, "error", where, message, 0, 0, "", remedy)


def _split(error: CalbenchError) -> tuple[str, str]:
    """What was found, and what to do: the two halves of an error message."""
    text = str(error)
    mark = "; " if "; " in text else "? "
    message, _, remedy = text.partition(mark)
    return (message + mark.strip(" ;"), remedy) if remedy else (text, "check the paths and options")
