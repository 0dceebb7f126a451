"""Classification tables: one sample a row, as scores of all classes with labels, or as CSV of top-label confidences."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calbench.errors import FormatError, RangeError, ShapeError
from calbench.io.arrays import extension, read_array, read_header
from calbench.io.files import digest, read_bytes
from calbench.io.labels import whole_numbers
from calbench.statistics.rows import Array

TRUE = ("true_label", "true", "label", "target", "y_true", "ground_truth", "gt")
PREDICTED = ("pred_label", "pred", "predicted", "prediction", "y_pred")
CONFIDENCE = ("confidence", "conf", "score", "prob", "probability", "p_max")
"""Names of the columns of a CSV file, in lower case; of several that are present, the first counts."""

TEXT = (".csv", ".tsv")


@dataclass(frozen=True, eq=False)
class Table:
    """Samples without position: either `scores`, or `predicted` and `confidence`.

    Attributes:
        scores: `(samples, classes)` logits or probabilities as stored; None in a CSV file.
        target: `(samples,)` integers, the true class.
        predicted: `(samples,)` integers, the class decided for; None where there are scores.
        confidence: `(samples,)` float64 in [0, 1], its probability; None where there are scores.
        stored: name of the dtype of the scores or confidences in the file.
        digest: 63 bits that tell whether a file changed.
    """

    scores: Array | None
    target: Array
    predicted: Array | None
    confidence: Array | None
    stored: str
    digest: int

    def __len__(self) -> int:
        return len(self.target)


def is_table(path: Path, key: str | None = None, gt_key: str | None = None) -> bool:
    """Whether a file holds a classification table: .csv, .tsv, or .npz with `(N, C)` predictions and `(N,)` labels.

    Only headers are read.

    Args:
        key, gt_key: names of the two arrays in an .npz file, where they are none of the usual ones.
    Raises:
        FormatError: an .npz file that cannot be read, or holds no predictions.
    """
    if extension(path) in TEXT:
        return True
    if extension(path) != ".npz":  # one array, hence no labels
        return False
    shape, _ = read_header(path, "prediction", key)
    try:
        return len(shape) == 2 and read_header(path, "mask", gt_key)[0] == shape[:1]
    except FormatError:  # a map, whose mask is elsewhere
        return False


def read_table(path: Path, key: str | None = None, gt_key: str | None = None) -> Table:
    """Read a classification table; the arguments are those of `is_table`.

    The columns of a CSV file are found by name, upper or lower case: one of `TRUE`, of `PREDICTED` and of `CONFIDENCE`;
    comma, semicolon or tab separate them. Whether scores are finite, and labels classes, is for the measuring to say.

    Raises:
        FormatError: unreadable, empty, a column missing, values that are not numbers, or labels that are not whole ones.
        ShapeError: arrays that are not `(N, C)` and `(N,)`.
        RangeError: a value that is missing, or a confidence outside [0, 1].

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "net.csv")
    ...     _ = path.write_text("Label,Pred,Conf\\n3,3,0.75\\n1,2,0.5\\n")
    ...     table = read_table(path)
    >>> table.target.tolist(), table.predicted.tolist(), table.confidence.tolist()
    ([3, 1], [3, 2], [0.75, 0.5])
    """
    if extension(path) in TEXT:
        return _read_text(path)
    scores, labels = read_array(path, "prediction", key), read_array(path, "mask", gt_key)
    if scores.array.ndim != 2 or labels.array.shape != scores.array.shape[:1]:
        raise ShapeError(
            f"{path} holds predictions of shape {scores.array.shape} and labels of shape {labels.array.shape}; expected "
            "(N, C) and (N,); name the right arrays by --npz-key and --gt-npz-key"
        )
    both = digest(f"{scores.digest} {labels.digest}".encode())
    return Table(scores.array, whole_numbers(labels.array, path), None, None, scores.stored, both)


def sample_groups(n: int, most: int = 1000) -> Array:
    """Resampling unit of each sample of a table, `(n,)`: its own while there are at most `most`, else one of `most`.

    The unit is the splitmix64 hash of the sample's position modulo `most`: the same on every machine and whatever the
    number of samples, and free of any structure in their order, such as sorting by class.

    Reference: Steele, Lea, Flood, OOPSLA 2014 (doi:10.1145/2660193.2660195).

    >>> sample_groups(3).tolist(), sample_groups(1001)[:3].tolist()
    ([0, 1, 2], [535, 700, 679])
    """
    if n <= most:
        return np.arange(n)
    mixed = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(most)).astype(np.intp)


def _read_text(path: Path) -> Table:
    import pandas as pd

    data = read_bytes(path)
    first = data.split(b"\n", 1)[0]
    separator = max((b",", b";", b"\t"), key=first.count).decode()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines longer than the first
            frame = pd.read_csv(
                io.BytesIO(data), sep=separator, dtype=str, encoding="utf-8-sig", index_col=False, skipinitialspace=True
            )
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors are ValueErrors
        raise FormatError(f"cannot read {path} as a table ({error}); is it another kind of file?") from error
    columns = [str(column).strip() for column in frame.columns]
    lower = [column.lower() for column in columns]
    found = []
    for wanted in (TRUE, PREDICTED, CONFIDENCE):
        name = next((name for name in wanted if name in lower), None)
        if name is None:
            raise FormatError(
                f"{path} has the columns {', '.join(map(repr, columns))}; expected one of {', '.join(wanted)}; name the "
                "columns in the first line"
            )
        found.append(_numbers(frame.iloc[:, lower.index(name)].to_numpy(object), columns[lower.index(name)], path))
    if frame.empty:
        raise FormatError(f"{path} has column names but no samples; expected one line a sample; save it again")
    target, predicted = (whole_numbers(labels, path) for labels in found[:2])
    confidence = found[2]
    outside = ~((confidence >= 0) & (confidence <= 1))
    if outside.any():
        row = int(outside.argmax())
        raise RangeError(
            f"{path} has confidences {confidence.min():g}..{confidence.max():g}, e.g. {confidence[row]:g} for sample "
            f"{row + 1}; expected probabilities in [0, 1]; are they percentages or logits?"
        )
    return Table(None, target, predicted, confidence, "float64", digest(data))


def _numbers(column: Array, name: str, path: Path) -> Array:
    """A column of text as float64; Python's own conversion is exact, that of pandas is so in some versions only."""
    missing = np.array([isinstance(value, float) for value in column], bool)  # NaN, for want of text
    if missing.any():
        raise RangeError(
            f"{path} has no value, or NaN, in column {name!r} for sample {int(missing.argmax()) + 1}; expected a number for "
            "every sample; fill it in or drop the line"
        )
    try:
        return column.astype(np.float64)
    except ValueError as error:
        raise FormatError(
            f"{path} holds text in column {name!r} ({error}); expected numbers; number the classes from 0, and write "
            "decimals with a point"
        ) from error
