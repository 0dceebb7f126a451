"""Which figures a report has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from calbench.evaluate import Value
from calbench.io.files import distinct_name, safe_name
from calbench.metrics import METRICS
from calbench.metrics.ranking import precision_recall_points, risk_coverage_points, roc_points
from calbench.report.figures import (
    alpha_figure,
    class_grid_figure,
    curves_figure,
    distribution_figure,
    entropy_figure,
    joint_figure,
    learning_curves_figure,
    overlay_figure,
    region_figure,
    reliability_figure,
    scatter_figure,
)
from calbench.report.figures.curves import Kind
from calbench.report.style import Look, looks
from calbench.report.tables import find_value
from calbench.results import Key, Results
from calbench.seeds import TrainingRecord, final_alphas, learning_curves
from calbench.statistics.bundle import ALL
from calbench.statistics.histogram import Event
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Section = Literal["reliability", "curves", "where", "images", "outside", "methods", "training"]
Draw = Callable[[], "Figure"]

_EVENTS: dict[Event, str] = {"top-label": "Top-label", "foreground": "Foreground"}
_MEANING: dict[Event, str] = {
    "top-label": "accuracy of the pixels in each bin of confidence, the largest probability",
    "foreground": "share of foreground among the pixels in each bin of the foreground probability",
}
_CURVES: dict[Kind, tuple[str, str, str]] = {
    "precision-recall": ("ap", "Precision and recall", "Foreground against background, pixel by pixel."),
    "roc": ("auroc", "ROC", "Foreground against background, pixel by pixel."),
    "f": ("max_f", "F-measure", "Mean over the images at each threshold on the stretched map, as the field draws it."),
    "e": ("max_e", "E-measure", "Mean over the images at each threshold on the stretched map, as the field draws it."),
    "risk-coverage": ("aurc", "Risk and coverage", "Error rate of the pixels that are kept when the least sure are left out."),
}  # fmt: skip
"""Kind of curve: the number it adds up to, its name, and what it shows."""
_QUALITY = ("mae", "aslp_mae", "accuracy")
"""What stands against the calibration error in the scatter: the first that the methods have."""
_TRAINED = {"loss": "training loss", "validation_accuracy": "validation accuracy", "validation_ece": "validation ECE"}
"""Columns of `metrics.csv` that are drawn, by their names."""


@dataclass(frozen=True)
class Plot:
    """One figure of a report.

    Attributes:
        name: stem of its files in `plots/`, unique.
        section: of the page that it belongs to.
        dataset: it is about; "" for all.
        title: one line, without formatting.
        caption: what is drawn, and how to read it.
        draw: makes the figure; can be sent to another process.
    """

    name: str
    section: Section
    dataset: str
    title: str
    caption: str
    draw: Draw


def plots_of(results: Results, record: TrainingRecord | None = None) -> list[Plot]:
    """Every figure that the results give, data set by data set; numbers are computed here, and drawn where they are sent.

    For each method on each data set its reliability diagrams and classes; for each data set the methods together: diagrams,
    joint densities, curves, regions, images, out-of-distribution sets, one error against the other. With the record of their
    training, how it went.

    Raises:
        FormatError: a file of the record is damaged; those that are not at hand are left out.
    """
    whole = [key for key in results.evaluators if key.region == ALL]
    maker = _Maker(results, looks(key.name for key in (*whole, *results.outside)))
    plots = [
        plot
        for dataset in dict.fromkeys(key.dataset for key in whole)
        for plot in maker.of_dataset(dataset, [key for key in whole if key.dataset == dataset])
    ]
    return plots if record is None else [*plots, *training_plots(record)]


def training_plots(record: TrainingRecord) -> Iterator[Plot]:
    """How training went: learning curves, and the α of the images where it adapts."""
    styles = looks(record.methods)
    curves = {_TRAINED[name]: bands for name, bands in learning_curves(record, _TRAINED).items() if bands}
    if curves:
        title = "Learning curves"
        yield Plot(
            "training_curves", "training", "", title,
            "By epoch: the mean over the seeds of a method, and shaded their range. Losses of different methods are on "
            "different scales.",
            partial(learning_curves_figure, title, curves, styles),
        )  # fmt: skip
    alphas = final_alphas(record)
    if alphas:
        title = "Perturbation of training images"
        yield Plot(
            "training_alphas", "training", "", title,
            "The probability α that the label of an image is perturbed, after training, seeds together. Left: its spread. "
            "Right: α against the loss of the image under its own label at its last visit, and their rank correlation ρ "
            "(Spearman).",
            partial(alpha_figure, title, alphas, styles),
        )  # fmt: skip


class _Maker:
    """Puts the numbers of each figure together."""

    def __init__(self, results: Results, looks: Mapping[str, Look]) -> None:
        self.results = results
        self.looks = looks
        self.level = results.settings.ci
        self.taken: set[str] = set()
        self.saliency: dict[Key, dict[str, Array]] = {}

    def of_dataset(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        yield from self._overlays(dataset, keys)
        for key in keys:
            yield from self._of_method(key)
        yield from self._joint(dataset, keys)
        yield from self._curves(dataset, keys)
        yield from self._regions(dataset, keys)
        yield from self._images(dataset, keys)
        yield from self._entropy(dataset, keys)
        yield from self._scatter(dataset, keys)

    def _plot(self, section: Section, dataset: str, title: str, caption: str, stem: str, draw: Draw) -> Plot:
        return Plot(distinct_name(safe_name(stem), self.taken), section, dataset, title, caption, draw)

    def _counted(self, key: Key) -> tuple[str, str]:
        return ("images", "pixels") if self.results.evaluators[key].has_images else ("groups", "samples")

    def _overlays(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        if len(keys) < 2:
            return
        for event, what in _EVENTS.items():
            drawn = {key.name: self.results.diagrams[key][event] for key in keys if event in self.results.diagrams[key]}
            if not drawn:
                continue
            title = f"{what} reliability on {dataset}"
            yield self._plot(
                "reliability", dataset, title,
                f"All methods: {_MEANING[event]}, with {100 * self.level:g} % limits that resample images. On the diagonal "
                "a score means what it says; below it, scores are too high.",
                f"overlay_{event}_{dataset}",
                partial(
                    overlay_figure, title, {name: bins for name, (bins, _) in drawn.items()},
                    {name: error for name, (_, error) in drawn.items()}, self.looks, self.level, self._counted(keys[0]),
                ),
            )  # fmt: skip

    def _of_method(self, key: Key) -> Iterator[Plot]:
        evaluator = self.results.evaluators[key]
        about, stem = f"{key.name} on {key.dataset}", f"{key.dataset}_{key.name}"
        for event, (bins, error) in self.results.diagrams[key].items():
            if any(b.n for b in bins):
                yield self._plot(
                    "reliability", key.dataset, f"{about}: {_EVENTS[event].lower()} reliability",
                    f"{_MEANING[event].capitalize()}. Coloured: the gap to the mean score of the bin. Below: share of the "
                    "pixels in each bin; bins without pixels are blank.",
                    f"reliability_{event}_{stem}",
                    partial(reliability_figure, about, bins, error, self.level, self._counted(key)),
                )  # fmt: skip
        classes = evaluator.class_reliability() if "ece_classwise" in self._chosen else {}
        if classes:
            values = [v for v in self.results.values()[key] if v.metric == "ece_classwise" and v.average == "pixels"]
            errors = {int(v.details["class"]): v for v in values if "class" in v.details}
            pooled = next(v for v in values if "class" not in v.details)
            yield self._plot(
                "reliability", key.dataset, f"{about}: reliability of each class",
                "The probability of each class against the share of its pixels that are of it.",
                f"classes_{stem}",
                partial(class_grid_figure, about, classes, errors, pooled, self.level, self._counted(key)),
            )  # fmt: skip

    def _joint(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        panels = {
            key.name: (self.results.evaluators[key].joint(), *self.results.diagrams[key]["top-label"])
            for key in keys
            if "top-label" in self.results.diagrams[key]
        }
        panels = {name: panel for name, panel in panels.items() if len(panel[0].weight)}
        if panels:
            title = f"Joint density of confidence and accuracy on {dataset}"
            pooled = any(points.pooled for points, *_ in panels.values())
            yield self._plot(
                "reliability", dataset, title,
                "The joint plot of the ASLP study: copies of each bin, by its share of the pixels."
                if pooled
                else "Where the bins of each image lie, weighted by pixels, and as dots the bins of all images together.",
                f"joint_{dataset}",
                partial(joint_figure, title, panels, self.level, self._counted(keys[0])),
            )  # fmt: skip

    @property
    def _chosen(self) -> set[str]:
        return {metric.name for metric in self.results.settings.chosen}

    def _values(self, keys: Sequence[Key], metric: str, average: str | None = None) -> dict[str, Value]:
        """The numbers of methods that have them, and not those of the map before calibration, which is another method."""
        found = {key.name: find_value(self.results.values()[key], METRICS[metric], average) for key in keys}
        return {
            name: value
            for name, value in found.items()
            if value is not None and math.isfinite(value.value) and not value.as_stored
        }

    def _curves(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        for kind, (metric, name, caption) in _CURVES.items():
            values = self._values(keys, metric)
            if values:
                curves = {key.name: self._points(kind, key) for key in keys if key.name in values}
                title = f"{name} on {dataset}"
                yield self._plot(
                    "curves", dataset, title, caption, f"{kind}_{dataset}",
                    partial(curves_figure, kind, title, curves, values, self.looks, self.level),
                )  # fmt: skip

    def _points(self, kind: Kind, key: Key) -> Any:
        evaluator = self.results.evaluators[key]
        if kind == "f" or kind == "e":
            if key not in self.saliency:  # one pass over the rows gives all its curves
                self.saliency[key] = evaluator.curves()
            return self.saliency[key][kind]
        cells = evaluator.pooled.reliability("top-label" if kind == "risk-coverage" else "foreground")
        assert cells is not None, "the metric that the curve adds up to was computed from them"
        if kind == "risk-coverage":
            return risk_coverage_points(cells)
        points = roc_points if kind == "roc" else precision_recall_points
        return points(cells.correct, cells.count - cells.correct)

    def _regions(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        for metric in self.results.settings.convention.diagrams.values():
            values: dict[str, dict[str, Value]] = {}
            for key in self.results.evaluators:
                value = (
                    find_value(self.results.values()[key], METRICS[metric])
                    if key._replace(region=ALL) in keys
                    else None
                )
                if value is not None:
                    values.setdefault(key.name, {})[key.region] = value
            if any(len(regions) > 1 for regions in values.values()):
                title = f"{metric} by region on {dataset}"
                sized = any(region.startswith("size_") for regions in values.values() for region in regions)
                yield self._plot(
                    "where", dataset, title,
                    "Boundary and interior of the objects"
                    + (", and images by share of foreground, quarter 1 the smallest." if sized else "."),
                    f"regions_{metric}_{dataset}",
                    partial(region_figure, title, metric, values, self.looks, self.level),
                )  # fmt: skip

    def _images(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        metric = self.results.settings.convention.diagrams["top-label"]
        means = self._values(keys, metric, "images")
        table = self.results.per_image
        if not means or metric not in table:
            return
        rows = table[(table["dataset"] == dataset) & (table["region"] == ALL)]
        values = {
            key.name: rows[(rows["method"] == key.method) & (rows["calibrator"] == key.calibrator)][metric].to_numpy()
            for key in keys
            if key.name in means
        }
        title = f"{metric} of each image of {dataset}"
        yield self._plot(
            "images", dataset, title,
            "How the error is spread over images: median and quartiles, and the mean. The error of one image is larger than "
            "that of all together, where over- and underconfidence of different images cancel.",
            f"images_{dataset}",
            partial(distribution_figure, title, values, means, self.looks, self.level),
        )  # fmt: skip

    def _entropy(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        panels = {}
        for key in keys:
            outside = {
                other.dataset: evaluator.entropy_histogram()
                for other, evaluator in self.results.outside.items()
                if (other.method, other.calibrator) == (key.method, key.calibrator)
            }
            inside = self.results.evaluators[key].entropy_histogram()
            if inside and any(outside.values()):
                panels[key.name] = (inside, outside)
        if panels:
            title = f"Predictive entropy on {dataset} and out of distribution"
            yield self._plot(
                "outside", dataset, title,
                "Share of the pixels by entropy, in nats. A network that knows what it does not know is less sure outside.",
                f"entropy_{dataset}", partial(entropy_figure, title, panels),
            )  # fmt: skip

    def _scatter(self, dataset: str, keys: Sequence[Key]) -> Iterator[Plot]:
        error = self.results.settings.convention.diagrams["top-label"]
        across = self._values(keys, error)
        other = next((name for name in _QUALITY if self._values(keys, name)), None)
        if other is None:
            return
        up = self._values(keys, other)
        points = {name: (across[name], up[name]) for name in across if name in up}
        if len(points) > 1:
            title = f"{other} against {error} on {dataset}"
            yield self._plot(
                "methods", dataset, title, "Each method with the intervals of both numbers; quality need not be calibration.",
                f"scatter_{dataset}", partial(scatter_figure, title, points, self.looks, self.level),
            )  # fmt: skip
