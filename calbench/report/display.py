"""`ReliabilityDisplay`: a reliability diagram in one line, in the manner of scikit-learn's displays."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from calbench.collect import collect
from calbench.errors import OptionError, RangeError, ShapeError, UnknownName, listing
from calbench.evaluate import Evaluator, ReliabilityBin, Settings, Value
from calbench.io.sample import Sample
from calbench.io.tables import sample_groups
from calbench.report.figures.reliability import PIXELS, draw_panel
from calbench.report.style import COLUMN, DPI, new_figure
from calbench.results import Key, Results
from calbench.saved import load_results
from calbench.statistics.bundle import ALL, UNCALIBRATED
from calbench.statistics.histogram import Event
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


class ReliabilityDisplay:
    """A reliability diagram with its calibration error; in a notebook it shows itself.

    Args:
        bins: of the diagram.
        error: what they add up to, with its interval.
        name: of the method, the first line of the heading; None for none.
        level: of the intervals.
        counted: what rows are, and what is in the bins.

    Attributes:
        ax_: axes of the diagram, once plotted.
        histogram_ax_: axes of the histogram of scores, None where there are none.
        figure_: the figure that they are in.

    >>> import numpy as np
    >>> label = np.array([[0, 1, 1, 0]])
    >>> display = ReliabilityDisplay.from_predictions(label, np.array([[0.1, 0.9, 0.9, 0.9]]), n_bins=10)
    >>> round(display.error.value, 4)
    0.15
    >>> display.plot().figure_.axes == [display.ax_, display.histogram_ax_]
    True
    """

    ax_: Axes
    histogram_ax_: Axes | None
    figure_: Figure | SubFigure
    _own: Figure | None

    def __init__(
        self,
        bins: Sequence[ReliabilityBin],
        error: Value,
        *,
        name: str | None = None,
        level: float = 0.95,
        counted: tuple[str, str] = PIXELS,
    ) -> None:
        self.bins = bins
        self.error = error
        self.name = name
        self.level = level
        self.counted = counted

    @classmethod
    def from_results(
        cls,
        results: Results | Evaluator | str | Path,
        *,
        dataset: str | None = None,
        method: str | None = None,
        calibrator: str = UNCALIBRATED,
        event: Event = "top-label",
    ) -> Self:
        """The diagram of one method on one data set: the bins of `reliability.csv` and the error of `summary.json`.

        Args:
            results: of `calbench.Results`, the folder they were written to, or one of their evaluators.
            dataset, method: which; may be left out where there is one.
            calibrator: what the predictions passed through.
            event: "top-label" or "foreground".
        Raises:
            UnknownName: there is no such data set, method, calibrator or event.
            OptionError: there are several to choose from.
            FormatError: no results folder.
        """
        if isinstance(results, Evaluator):
            return cls._of(results, results.diagrams(), event, None)
        if isinstance(results, str | Path):
            results = load_results(results)
        key = _chosen(results, dataset, method, calibrator)
        return cls._of(results.evaluators[key], results.diagrams[key], event, f"{key.name} on {key.dataset}")

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_prob: Any,
        *,
        n_bins: int = 15,
        event: Event = "top-label",
        ignore_index: int | None = None,
        n_boot: int = 1000,
        seed: int = 0,
        name: str | None = None,
    ) -> Self:
        """The diagram of predictions in memory, with the numbers that `calbench.evaluate` gives for them.

        Images are the resampling units of the intervals. Samples without images are resampled as those of a classification
        table: one by one up to 1000, in 1000 groups beyond; they are taken as independent.

        Args:
            y_true: labels, integers: `(H, W)` of one image, `(N, H, W)` or a list of images; `(N,)` of samples.
            y_prob: probabilities, floats: of the foreground, shaped as the labels; of C classes `(C, H, W)`,
                `(N, C, H, W)` or a list of images; `(N, C)` of samples.
            n_bins: equal-width bins on [0, 1].
            event: "top-label": the largest probability against being right; "foreground": p against being foreground.
            ignore_index: label that enters nothing.
            n_boot: bootstrap replicates, 0 for no intervals.
            seed: of the bootstrap.
            name: of the method, for the heading.
        Raises:
            ShapeError: labels and probabilities that do not go together.
            RangeError: values that are no probabilities, or labels out of range.
            UnknownName: no such event, for these predictions.
        """
        settings = Settings(metrics=("ece", "ece_fg"), options={"bins": n_bins}, n_boot=n_boot, seed=seed)
        labels, probs, layout = _in_images(y_true, y_prob, ignore_index)
        for what, arrays in (("y_true", labels), ("y_prob", probs)):
            if any(array.dtype.kind not in "biuf" for array in arrays):
                raise RangeError(f"{what} holds {arrays[0].dtype}; expected numbers: classes from 0, and probabilities")
        images = (
            Sample(
                f"{i:06d}",
                prob,
                label,
                None if ignore_index is None else label != ignore_index,
                "probabilities",
                layout,
            )
            for i, (label, prob) in enumerate(zip(labels, probs, strict=True))
        )
        [statistics] = collect(images, scores=()).combinations.values()
        if layout == "HWC":
            sizes = {"samples": int(statistics.n_pixels.sum()), "groups": len(labels)}
            statistics = statistics.under({**statistics.conventions, **sizes})
        evaluator = Evaluator(statistics, settings)
        return cls._of(evaluator, evaluator.diagrams(), event, name)

    @classmethod
    def _of(cls, evaluator: Evaluator, diagrams: Any, event: Event, name: str | None) -> Self:
        if event not in diagrams:
            raise UnknownName("reliability diagram of these predictions", event, diagrams)
        counted = PIXELS if evaluator.has_images else ("groups", "samples")
        return cls(*diagrams[event], name=name, level=evaluator.settings.ci, counted=counted)

    def plot(self, ax: Axes | Sequence[Axes] | Array | None = None, *, name: str | None = None) -> Self:
        """Draw the diagram, and beneath it the histogram of scores.

        Args:
            ax: axes of the diagram, which is then drawn without histogram; or axes of both; None for a new figure.
            name: of the method, instead of the display's.
        Returns:
            The display itself, with `ax_`, `histogram_ax_` and `figure_`.
        """
        self._own = new_figure(COLUMN, 4.1) if ax is None else None
        axes: Any = ax if self._own is None else self._own.subplots(2, 1, height_ratios=(3.2, 1))
        self.ax_, self.histogram_ax_ = (axes, None) if hasattr(axes, "plot") else axes
        self.figure_ = self.ax_.figure
        heading = (self.name if name is None else name) or ""
        draw_panel(self.bins, self.error, self.level, self.counted, self.ax_, self.histogram_ax_, heading)
        return self

    def _repr_png_(self) -> bytes | None:
        """The picture for notebooks; none where it was drawn into the axes of another figure, which shows itself."""
        if not hasattr(self, "figure_"):
            self.plot()
        if self._own is None:
            return None
        picture = io.BytesIO()
        self._own.savefig(picture, format="png", dpi=DPI)
        return picture.getvalue()


def _chosen(results: Results, dataset: str | None, method: str | None, calibrator: str) -> Key:
    """The one key of whole images under these names."""
    keys = [key for key in results.evaluators if key.region == ALL]
    asked = {"dataset": dataset, "method": method, "calibrator": calibrator}
    for field, name in asked.items():
        known = {getattr(key, field) for key in keys}
        if name is not None and name not in known:
            raise UnknownName(field, name, known)
        keys = [key for key in keys if name in (None, getattr(key, field))]
    if len(keys) > 1:
        field = "dataset" if len({key.dataset for key in keys}) > 1 else "method"
        names = sorted({getattr(key, field) for key in keys})
        raise OptionError(f"the results hold {len(names)} {field}s:\n{listing(names)}\nsay which by {field}=")
    return keys[0]


def _in_images(
    y_true: Any, y_prob: Any, ignore_index: int | None
) -> tuple[list[Array], list[Array], Literal["CHW", "HWC"]]:
    """Labels and probabilities of each image, and their layout.

    Samples come as images one pixel high, one for each resampling unit, with the classes last; ignored ones are in none.

    Raises:
        ShapeError: arrays that do not go together; those of one image are for `Sample` to check.
    """
    if isinstance(y_true, list | tuple) and y_true and np.ndim(y_true[0]) == 2:  # images may differ in size
        labels, probs = [np.asarray(label) for label in y_true], [np.asarray(prob) for prob in y_prob]
    else:
        label, prob = np.asarray(y_true), np.asarray(y_prob)
        if label.ndim == 2:
            return [label], [prob], "CHW"
        if label.ndim == 1 and prob.ndim in (1, 2) and len(label) == len(prob):
            if ignore_index is not None:
                label, prob = label[label != ignore_index], prob[label != ignore_index]
            group = sample_groups(len(label))
            starts = np.cumsum(np.bincount(group))[:-1]
            rows = [row for row in np.split(np.argsort(group, kind="stable"), starts) if len(row)]
            return [label[row][None] for row in rows], [prob[row][None] for row in rows], "HWC"
        if label.ndim != 3 or prob.ndim not in (3, 4):
            raise ShapeError(
                f"y_true has shape {label.shape} and y_prob {prob.shape}; expected labels (H, W), (N, H, W) or (N,), and "
                "probabilities of the same shape, or of C classes: (C, H, W), (N, C, H, W) or (N, C)"
            )
        labels, probs = list(label), list(prob)
    if len(labels) != len(probs):
        raise ShapeError(f"y_true holds {len(labels):,} images, y_prob {len(probs):,}; expected as many of both")
    return labels, probs, "CHW"
