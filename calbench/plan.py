"""Before the first pixel: find the folders, pair the files, compare sizes, infer how masks are coded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from calbench.errors import InputError, OptionError, RangeError, ShapeError, UnknownName, listing, plural
from calbench.io.arrays import VOLUMES, extension, member_of, read_array, read_header
from calbench.io.arrays import Role as ArrayRole
from calbench.io.coding import CodedFiles, MaskCoding, Role, infer_coding, verify_coding
from calbench.io.labels import LabelCoding, read_label_map
from calbench.io.pairing import Folders, Pair, find_folders, find_outside, match_files, with_pictures
from calbench.io.pictures import picture_size
from calbench.io.predictions import Kind, Layout, ScoreCoding, Shape, Size, flat_shape, infer_scores, kind_of_table
from calbench.io.tables import TEXT, is_table, read_table
from calbench.kernels import IMAGE_SCORES
from calbench.statistics import Statistics

PRED_THRESHOLD = 128
"""Predictions are foreground where p >= 0.5: byte >= 128."""


@dataclass(frozen=True)
class CollectOptions:
    """What is read and how; recorded with the statistics.

    Attributes:
        pred, gt, mask: folders, files or templates, see `io.pairing.find_folders`; no `gt` where files hold both.
        pred_suffix, gt_suffix: endings of the stems, removed before names are matched.
        methods, datasets: names, or filters on what a template finds.
        gt_threshold: foreground is mask byte > this; None infers it a folder.
        void_values: mask bytes that mean "does not count".
        on_mismatch: "error", "resize-pred" or "skip" where a prediction and its mask differ in size.
        on_missing: "error" or "skip" where a partner is missing.
        scores: positional scores to compute (`s_measure`, `weighted_f`).
        extras: profiles that need more than is always collected ("aslp", "mbls", "selectivecal", "torchmetrics").
        input: "levels", "probabilities" or "logits"; None infers it a folder.
        layout: "CHW" or "HWC" of several classes; None infers it a folder.
        num_classes: of the predictions, to be held against them; None takes theirs.
        ignore_index: values of masks that mean "does not count", as `void_values`, of any size and sign.
        reduce_zero_label: 0 of the masks is void, and all other values count from 1.
        label_map: file that maps values of the masks to classes.
        npz_key, gt_npz_key: arrays to read from `.npz` files.
        regions: whether to tell boundaries from interiors, too.
        boundary_width: pixels within this distance of another class are boundary.
        images: folder or template of the pictures that predictions were made from, for calibrators that look at them.
        resize_images: whether a picture of another size than its prediction is resized to it.
        calibrator: file of a calibrator that predictions pass through before they are measured.
        allow_overlap: whether that may be measured on the images it was fitted on.
        ood: out-of-distribution sets, "NAME=FOLDER" each.
        ood_gt: masks of some of them, "NAME=FOLDER" each.
    """

    pred: str
    gt: str | None = None
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
    extras: tuple[str, ...] = ()
    input: Kind | None = None
    layout: Layout | None = None
    num_classes: int | None = None
    ignore_index: tuple[int, ...] = ()
    reduce_zero_label: bool = False
    label_map: str | None = None
    npz_key: str | None = None
    gt_npz_key: str | None = None
    regions: bool = False
    boundary_width: float = 5.0
    images: str | None = None
    resize_images: bool = False
    calibrator: str | None = None
    allow_overlap: bool = False
    ood: tuple[str, ...] = ()
    ood_gt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("methods", "datasets", "scores", "extras", "ood", "ood_gt"):  # one name stands for a tuple of one
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, (getattr(self, name),))
        for score in self.scores:
            if score not in IMAGE_SCORES:
                raise UnknownName("score", score, IMAGE_SCORES)
        for name, values in (("void_values", self.void_values), ("ignore_index", self.ignore_index)):
            if not isinstance(values, tuple | list):
                raise OptionError(f"{name} is {values!r}; it is a tuple of mask values")
        if self.num_classes is not None and self.num_classes < 2:
            raise OptionError(f"--num-classes is {self.num_classes}; predictions have at least 2 classes")
        if not 0 <= self.boundary_width < np.inf:
            raise OptionError(f"--boundary-width is {self.boundary_width}; it is a distance in pixels, at least 0")
        if self.label_map is not None and self.reduce_zero_label:
            raise OptionError(
                "--label-map and --reduce-zero-label both say what the values of masks mean: give one of them"
            )
        for name in ("pred", "gt", "mask", "images"):  # ./a, a/ and a are one folder
            if getattr(self, name) is not None:
                object.__setattr__(self, name, str(Path(getattr(self, name))))
        for kind, value, known in (
            ("on-mismatch choice", self.on_mismatch, ("error", "resize-pred", "skip")),
            ("on-missing choice", self.on_missing, ("error", "skip")),
            ("kind of input", self.input, ("levels", "probabilities", "logits", None)),
            ("layout", self.layout, ("CHW", "HWC", None)),
        ):
            if value not in known:
                raise UnknownName(kind, str(value), [name for name in known if name])
        self.outside()

    def outside(self) -> dict[str, tuple[str, str | None]]:
        """Folders of predictions, and of masks if any, of each out-of-distribution set.

        Raises:
            OptionError: one that is not NAME=FOLDER, twice the same name, or masks of an unknown set.
        """
        found: dict[str, dict[str, str]] = {"--ood": {}, "--ood-gt": {}}
        for option, texts in (("--ood", self.ood), ("--ood-gt", self.ood_gt)):
            for text in texts:
                name, equals, folder = text.partition("=")
                if not (name and equals and folder):
                    raise OptionError(
                        f"{option} {text!r} is not NAME=FOLDER, such as textures=preds/{{method}}/textures"
                    )
                if name in found[option]:
                    raise OptionError(f"{option} names the set {name!r} twice; give each its own name")
                found[option][name] = folder
        unknown = found["--ood-gt"].keys() - found["--ood"].keys()
        if unknown:
            raise OptionError(f"--ood-gt names the set {min(unknown)!r}, which no --ood names")
        return {name: (pred, found["--ood-gt"].get(name)) for name, pred in found["--ood"].items()}


@dataclass(frozen=True)
class Plan:
    """One combination, ready to be read: its pairs and the rules inferred for its folders.

    Attributes:
        folders, pairs: what belongs together.
        scores: how predictions are stored; None for classification tables.
        truth: how masks code foreground or classes; None where there are none.
        fov: how fields of view are coded.
        notes: what was skipped or resized.
        table: what a classification table holds: "decisions", "probabilities" or "logits".
        calibration: conventions of what predictions pass through before they are measured.
    """

    folders: Folders
    pairs: tuple[Pair, ...]
    scores: ScoreCoding | None
    truth: MaskCoding | LabelCoding | None
    fov: MaskCoding | None
    notes: tuple[str, ...] = ()
    table: str | None = None
    calibration: Mapping[str, Any] = field(default_factory=dict)

    @property
    def many_rows(self) -> bool:
        """Whether a file gives several rows: the groups of a table, or the slices of a volume."""
        return self.scores is None or any(extension(pair.pred) in VOLUMES for pair in self.pairs)

    @property
    def conventions(self) -> dict[str, Any]:
        """What was inferred or declared for these folders, as recorded with the rows."""
        if self.scores is None:
            return {"input": self.table, "table": True, **self.calibration}
        found: dict[str, Any] = {"input": self.scores.kind, "input_declared": self.scores.declared}
        found |= self.calibration
        found |= {"stored": self.scores.stored, "classes": max(self.scores.classes, 2), "layout": self.scores.layout}
        found["layout_declared"] = self.scores.layout_declared
        if self.scores.binary:
            found["pred_threshold"] = PRED_THRESHOLD if self.scores.eight_bit else "p >= 0.5"
        if isinstance(self.truth, MaskCoding):
            found |= {
                "mask_coding": self.truth.kind,
                "gt_threshold": self.truth.threshold,
                "gt_threshold_declared": self.truth.declared,
                "void_values": list(self.truth.void_values),
            }
        elif self.truth is not None:
            mapping = self.truth.mapping
            found |= {
                "ignore_index": list(self.truth.ignore),
                "reduce_zero_label": self.truth.reduce_zero,
                "label_map": None if mapping is None else {str(raw): label for raw, label in sorted(mapping.items())},
            }
        if self.many_rows:
            found["volumes"] = "slices along the third axis"
        return found | {"field_of_view": None if self.fov is None else self.fov.kind}

    def sealed(self, statistics: Statistics) -> Statistics:
        """The rows under the conventions of these folders; of tables, with their numbers of samples and of hash groups."""
        if self.scores is not None:
            return statistics.under(self.conventions)
        sizes = {"samples": int(statistics.n_pixels.sum()), "groups": len(statistics.names)}
        return statistics.under(self.conventions | sizes)


def plan_run(options: CollectOptions) -> tuple[list[Plan], list[str]]:
    """Find, pair and check all folders, and infer their codings; no pixel is counted yet."""
    combinations, notes = find_folders(
        options.pred, options.gt, options.mask, options.images, methods=options.methods, datasets=options.datasets
    )
    survey = Survey(options)
    plans = [survey.plan(folders) for folders in combinations]
    like = {plan.folders.method: plan.scores for plan in plans}
    methods = sorted(like)
    for name, (pred, gt) in options.outside().items():
        if any(plan.folders.dataset == name for plan in plans):
            raise OptionError(f"--ood {name}: a data set has this name, too; choose another")
        outside, more = find_outside(name, pred, gt, methods)
        notes += more
        plans += [survey.plan(folders, like[folders.method]) for folders in outside]
    return (plans if options.calibrator is None else _calibrating(plans, options)), notes


def _calibrating(plans: Sequence[Plan], options: CollectOptions) -> list[Plan]:
    """The plans for predictions that pass through a calibrator.

    Raises:
        FormatError: no such file.
        ShapeError, InputError: a calibrator of other predictions, without its pictures, or fitted on the same images.
    """
    from calbench.calibrators import load_calibrator
    from calbench.calibrators.maps import needs_images
    from calbench.calibrators.origin import refuse_overlap, shared_names
    from calbench.calibrators.samples import refuse_calibrated, refuse_mismatch

    assert options.calibrator is not None
    calibrator = load_calibrator(options.calibrator)
    if calibrator.needs_images and options.images is None:
        raise OptionError(needs_images(calibrator.name))
    if "aslp" in options.extras:
        raise OptionError(
            "the ASLP numbers are of the bytes on disk; leave out --calibrator, or choose another --profile"
        )
    calibration = {"calibrator": calibrator.name, "calibrator_origin": {
        key: value for key, value in calibrator.origin_.items() if key != "images"}}  # fmt: skip
    found = []
    for plan in plans:
        refuse_calibrated(plan.folders.pred)
        if plan.scores is not None:
            refuse_mismatch(calibrator, plan.scores.classes, plan.scores.kind, plan.folders.pred)
        if not options.allow_overlap:
            names = shared_names(calibrator, {pair.name for pair in plan.pairs})
            masks = {pair.name: pair.gt for pair in plan.pairs if pair.gt is not None and pair.name in names}
            digests = {name: digest_of(mask, "mask", options) for name, mask in masks.items()}
            refuse_overlap(calibrator, digests, f"{plan.folders.method} on {plan.folders.dataset}")
        levels = (
            plan.scores is not None and plan.scores.eight_bit and not calibrator.needs_images and not options.extras
        )
        saliency = {"saliency": "uncalibrated"} if levels and calibrator.name != "identity" else {}
        found.append(replace(plan, calibration=calibration | saliency))
    return found


def digest_of(path: Path, role: ArrayRole, options: CollectOptions) -> int:
    """The digest of a file as it is now, as rows of statistics hold it."""
    if is_table(path, options.npz_key, options.gt_npz_key):
        return read_table(path, options.npz_key, options.gt_npz_key).digest
    return read_array(path, role, options.npz_key if role == "prediction" else options.gt_npz_key).digest


class Survey:
    """What is looked up only once, although several methods share a folder of masks."""

    def __init__(self, options: CollectOptions) -> None:
        self.options = options
        self._codings: dict[tuple[Path, Role, int], MaskCoding | LabelCoding] = {}
        self._headers: dict[tuple[Path, ArrayRole], tuple[Shape, str]] = {}

    def plan(self, folders: Folders, like: ScoreCoding | None = None) -> Plan:
        """Pair the files of a combination, compare their sizes, and infer how they are coded.

        Args:
            folders: the combination.
            like: of an out-of-distribution set, how the same method's other predictions are stored.
        """
        options = self.options
        matching = match_files(folders, pred_suffix=options.pred_suffix, gt_suffix=options.gt_suffix)
        matching.raise_on_problems(folders, skip_missing=options.on_missing == "skip")
        if self.holds_tables(folders, matching.pairs):
            return Plan(folders, matching.pairs, None, None, None, table=self.table_kind(matching.pairs[0].pred))
        scores = self.scores(matching.pairs, like)
        left_out = len(matching.without_gt) + len(matching.without_pred) + len(matching.without_mask)
        where = f"{folders.method} on {folders.dataset}"
        notes = [f"{where}: {plural(left_out, 'file')} without partner skipped"] * bool(left_out)
        mismatched = [pair for pair in matching.pairs if pair.gt and self.pred_size(pair, scores) != self.size(pair.gt)]
        pairs = self._of_one_size(folders, matching.pairs, mismatched, scores)
        if folders.images is not None:
            pairs = with_pictures(pairs, folders.images)
            self.refuse_other_pictures(pairs, scores)
        if mismatched:
            verb = "resized to their mask (bilinear)" if options.on_mismatch == "resize-pred" else "skipped"
            notes.append(f"{where}: {plural(len(mismatched), 'prediction')} of another size {verb}")
        wrong_fov = [pair for pair in pairs if pair.mask and pair.gt and self.size(pair.mask) != self.size(pair.gt)]
        if wrong_fov:
            raise ShapeError(
                f"{len(wrong_fov)} fields of view in {folders.mask} differ in size from their mask:\n"
                + listing(f"{pair.mask} {_text(self.size(pair.mask))}, mask {_text(self.size(pair.gt))}"
                          for pair in wrong_fov if pair.mask and pair.gt)
            )  # fmt: skip
        truth = None if folders.gt is None else self.truth(folders, [p.gt for p in matching.pairs if p.gt], scores)
        fov = None if folders.mask is None else self.fov(folders.mask, [pair.mask for pair in pairs if pair.mask])
        return Plan(folders, pairs, scores, truth, fov, tuple(notes))

    def refuse_other_pictures(self, pairs: Sequence[Pair], scores: ScoreCoding) -> None:
        """Hold the sizes of the pictures against those of the predictions, unless they are to be resized.

        Raises:
            ShapeError: some differ.
        """
        if self.options.resize_images:
            return
        sizes = {pair.image: picture_size(pair.image) for pair in pairs if pair.image is not None}
        wrong = [
            f"{pair.image} {_text(sizes[pair.image])}, prediction {_text(self.pred_size(pair, scores))} (WxH)"
            for pair in pairs
            if pair.image is not None and sizes[pair.image] != self.pred_size(pair, scores)
        ]
        if wrong:
            raise ShapeError(
                f"{len(wrong)} of {len(pairs)} pictures differ in size from their prediction:\n{listing(wrong)}\n"
                "resize one of them, or say --resize-images"
            )

    def holds_tables(self, folders: Folders, pairs: Sequence[Pair]) -> bool:
        """Whether the predictions are classification tables.

        Raises:
            InputError: tables beside maps, or maps without masks.
        """
        options = self.options
        tables = [is_table(pair.pred, options.npz_key, options.gt_npz_key) for pair in pairs]
        if not any(tables):
            for pair in pairs:
                self.refuse_one_array_twice(pair)
            alone = [pair.pred for pair in pairs if pair.gt == pair.pred and extension(pair.pred) != ".npz"]
            if alone and options.gt is None:
                raise OptionError(
                    f"{alone[0]} holds predictions only; say where the masks are: --gt DIR (only .npz files and tables hold "
                    "both)"
                )
            return False
        if not all(tables):
            raise InputError(f"{folders.pred} holds tables and maps; put them into folders of their own")
        if folders.ood:
            raise OptionError(f"{pairs[0].pred} is a classification table; --ood takes predictions of images")
        given = {"--gt": folders.gt != folders.pred, "--mask": options.mask, "--regions": options.regions,
                 "--layout": options.layout, "--images": options.images,
                 "--gt-threshold": options.gt_threshold is not None}  # fmt: skip
        for option in (name for name, value in given.items() if value):
            why = "which holds its labels" if option == "--gt" else "which has no pixels"
            raise OptionError(f"{pairs[0].pred} is a classification table, {why}; leave out {option}")
        if len(pairs) > 1:
            raise InputError(
                f"{folders.pred} holds {len(pairs)} classification tables; each is one method's: name them by "
                f"--pred '{folders.pred}/{{method}}{extension(pairs[0].pred)}', or one of them by --pred FILE"
            )
        return True

    def refuse_one_array_twice(self, pair: Pair) -> None:
        """A file that is to hold both must have an array for each.

        Raises:
            InputError: one array would be taken for prediction and mask.
            ShapeError: the labels of a table are of another number than its scores.
        """
        if pair.gt != pair.pred or extension(pair.pred) != ".npz":
            return
        options = self.options
        roles: tuple[tuple[ArrayRole, str | None], ...] = (
            ("prediction", options.npz_key),
            ("mask", options.gt_npz_key),
        )
        names = [member_of(pair.pred, role, key) for role, key in roles]
        if names[0] == names[1]:
            raise InputError(
                f"{pair.pred} has no labels beside the predictions {names[0]!r}; say where they are: --gt DIR, or, if another "
                "array of the file holds them, --gt-npz-key KEY"
            )
        shapes = [self.header(pair.pred)[0], self.header(pair.pred, "mask")[0]]
        if len(shapes[0]) == 2 and (len(shapes[1]) == 1 or (shapes[1][1:] == (1,) and shapes[0][1:] != (1,))):
            raise ShapeError(
                f"{pair.pred} holds scores of shape {shapes[0]} and labels of shape {shapes[1]}; of a table expected (N, C) "
                "and (N,)"
            )

    def table_kind(self, path: Path) -> str:
        """What a table holds: decisions (a class and its confidence), probabilities or logits."""
        if extension(path) in TEXT:
            return "decisions"
        if self.options.input == "levels":
            raise OptionError(f"--input levels, but {path} is a table of scores")
        if self.options.input is not None:
            return self.options.input
        scores = read_table(path, self.options.npz_key, self.options.gt_npz_key).scores
        assert scores is not None, "only text holds decisions"
        return kind_of_table(path, scores)

    def scores(self, pairs: Sequence[Pair], like: ScoreCoding | None = None) -> ScoreCoding:
        """How the predictions of a folder are stored."""
        options = self.options
        headers = {pair.pred: self.header(pair.pred) for pair in pairs}
        sizes = {pair.pred: None if pair.gt is None else self.size(pair.gt) for pair in pairs}
        several = any(len(shape) > 2 for shape, _ in headers.values())
        found = "several classes" if several else "binary maps"
        if like is None or like.binary != several:
            coding = infer_scores(
                headers,
                sizes,
                kind=options.input or (like.kind if like and like.declared else None),
                layout=options.layout,
                num_classes=options.num_classes,
                like=like,
                key=options.npz_key,
            )
            found = coding.text
            if like is None or (coding.kind, coding.classes) == (like.kind, like.classes):
                return coding
        raise RangeError(
            f"the out-of-distribution predictions in {pairs[0].pred.parent} are {found}, those in distribution {like.text}; "
            "save both in the same way"
        )

    def truth(self, folders: Folders, gts: Sequence[Path], scores: ScoreCoding) -> MaskCoding | LabelCoding:
        """How the masks of a folder are coded."""
        options = self.options
        assert folders.gt is not None
        key: tuple[Path, Role, int] = (folders.gt, "masks", scores.classes)
        if key not in self._codings:
            ignored = tuple(dict.fromkeys((*options.void_values, *options.ignore_index)))
            if scores.binary:
                if options.label_map or options.reduce_zero_label:
                    given = "--label-map" if options.label_map else "--reduce-zero-label"
                    raise OptionError(f"{given}, but the predictions in {folders.pred} are binary maps")
                self._codings[key] = infer_coding(
                    gts, threshold=options.gt_threshold, void_values=ignored, key=options.gt_npz_key
                )
            else:
                if options.gt_threshold is not None:
                    raise OptionError(
                        f"--gt-threshold, but the predictions in {folders.pred} have {scores.classes} classes"
                    )
                mapping = None if options.label_map is None else read_label_map(Path(options.label_map))
                self._codings[key] = LabelCoding(scores.classes, ignored, options.reduce_zero_label, mapping)
        return self._codings[key]

    def fov(self, folder: Path, paths: Sequence[Path]) -> MaskCoding:
        """How the fields of view of a folder are coded."""
        key: tuple[Path, Role, int] = (folder, "fields of view", 1)
        if key not in self._codings:
            self._codings[key] = infer_coding(paths, role="fields of view")
        coding = self._codings[key]
        assert isinstance(coding, MaskCoding)
        return coding

    def size(self, path: Path) -> Size:
        """Height and width of a mask, from its header."""
        shape, _ = self.header(path, "mask")
        if len(shape) != 2:
            raise ShapeError(f"the mask {path} has shape {shape}; expected (H, W)")
        return shape[0], shape[1]

    def pred_size(self, pair: Pair, scores: ScoreCoding) -> Size:
        """Height and width of a prediction, from its header."""
        return scores.size(self.header(pair.pred)[0])

    def header(self, path: Path, role: ArrayRole = "prediction") -> tuple[Shape, str]:
        """Shape of one image (of one slice of a volume), and stored type, without reading values."""
        if (path, role) not in self._headers:
            key = self.options.npz_key if role == "prediction" else self.options.gt_npz_key
            shape, stored = read_header(path, role, key)
            self._headers[path, role] = flat_shape(path, shape), stored
        return self._headers[path, role]

    def _of_one_size(
        self, folders: Folders, pairs: Sequence[Pair], mismatched: Sequence[Pair], scores: ScoreCoding
    ) -> tuple[Pair, ...]:
        """The pairs to read; sizes that differ are an error, unless the prediction is resized or the pair skipped."""
        where = f"of {folders.method} on {folders.dataset} differ in size from their mask"
        if mismatched and self.options.on_mismatch == "error":
            lines = (
                f"{p.pred} {_text(self.pred_size(p, scores))}, mask {_text(self.size(p.gt))} (WxH)"
                for p in mismatched
                if p.gt
            )
            raise ShapeError(
                f"{len(mismatched)} of {len(pairs)} predictions {where}:\n{listing(lines)}\n"
                "save them at the mask's size, or choose --on-mismatch resize-pred (bilinear, recorded) or --on-mismatch skip"
            )
        kept = [pair for pair in pairs if self.options.on_mismatch == "resize-pred" or pair not in set(mismatched)]
        if not kept:
            raise ShapeError(
                f"all {len(pairs)} predictions {where}; nothing is left after --on-mismatch skip; --on-mismatch resize-pred "
                "would keep them"
            )
        return tuple(kept)


def _text(size: Size) -> str:
    return f"{size[1]}x{size[0]}"


def describe(plans: Sequence[Plan]) -> list[str]:
    """What was inferred for the combinations, one line for all methods that share it."""
    methods: dict[tuple[str, str], list[str]] = {}
    for plan in plans:
        what = "table" if plan.scores is None else "volume" if plan.many_rows else "image"
        text = f"{plural(len(plan.pairs), what)}, {_described(plan)}"
        methods.setdefault((plan.folders.dataset, text), []).append(plan.folders.method)
    return [f"{', '.join(names)} on {dataset}: {text}" for (dataset, text), names in methods.items()]


def _described(plan: Plan) -> str:
    if plan.scores is None:
        return f"{plan.table}; samples are resampled, in at most 1000 hash groups"
    parts = [] if plan.scores.eight_bit else [plan.scores.text]
    if isinstance(plan.truth, MaskCoding):
        how = "given" if plan.truth.declared else "inferred"
        parts.append(f"masks {plan.truth.kind} (foreground > {plan.truth.threshold}, {how})")
        ignored = plan.truth.void_values
    else:
        ignored = plan.truth.ignore if plan.truth else ()
        if plan.truth is not None and plan.truth.mapping is not None:
            parts.append(f"a label map of {len(plan.truth.mapping)} values")
        if plan.truth is not None and plan.truth.reduce_zero:
            parts.append("labels from 1, 0 void" + (", 255 void" if plan.truth.classes < 255 else ""))
    if plan.folders.ood:
        parts.append("out of distribution")
    if ignored:
        parts.append(f"void {'/'.join(map(str, ignored))}")
    if plan.scores.binary and not plan.scores.eight_bit and not plan.folders.ood:
        parts.append("saliency metrics from the map rounded to 8 bits")
    if plan.fov:
        parts.append(f"field of view {plan.fov.kind}")
    if plan.calibration:
        parts.append(f"calibrated by {plan.calibration['calibrator']}")
    if "volumes" in plan.conventions:
        parts.append("measured by slices, each volume one resampling unit")
    return ", ".join(parts)


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
    if plan.scores is not None and plan.scores.kind == "logits" and not plan.scores.declared:
        normalised = facts["normalised"] > 0
        if normalised.any() and not normalised.all():
            names = [name for name, odd in zip(facts.names, normalised, strict=True) if odd]
            raise RangeError(
                f"{plan.folders.pred} was taken for logits, but {plural(len(names), 'file')} of {len(facts)} hold "
                f"probabilities:\n{listing(names)}\nsave them all in one way, or, if these are logits, say --input logits"
            )
    if plan.folders.ood and facts["gt_foreground"].any():
        found = facts["gt_foreground"] > 0
        raise RangeError(
            f"{plural(int(found.sum()), 'mask')} of the out-of-distribution set {plan.folders.dataset} have foreground, e.g. "
            f"{facts.names[int(found.argmax())]!r}; its images have nothing to find: leave --ood-gt out, or take them for data"
        )
    if isinstance(plan.truth, MaskCoding) and plan.folders.gt is not None:
        pixels = np.maximum(facts["height"] * facts["width"], 1)
        masks = CodedFiles(
            facts.names, facts["gt_bits"], facts["gt_max"], facts["gt_one"] / pixels, facts["gt_between"]
        )
        verify_coding(plan.truth, plan.folders.gt, masks, "masks")
    if plan.fov is not None and plan.folders.mask is not None:
        nothing = np.zeros(len(facts))
        fovs = CodedFiles(facts.names, facts["fov_bits"], facts["fov_max"], nothing, nothing)
        verify_coding(plan.fov, plan.folders.mask, fovs, "fields of view")
