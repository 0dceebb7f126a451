"""What a contest of calibrators found: contenders ranked and compared, and the files it is written to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calbench.calibrators import Calibrator, save_calibrator
from calbench.contenders import FitOptions
from calbench.differences import Difference
from calbench.errors import UnknownName
from calbench.io.files import atomic, safe_name, write_text
from calbench.results import Results
from calbench.splits import Split
from calbench.statistics import Statistics
from calbench.statistics.bundle import UNCALIBRATED
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    import pandas as pd

COMPARISON_COLUMNS = (
    "dataset", "method", "calibrator", "rank", "metric", "options", "before", "after", "difference", "low", "high",
    "interval", "p_value", "n_images",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Contender:
    """A calibrator on one method and data set.

    Attributes:
        calibrator: the one to keep.
        statistics: rows of the common held-out images.
        differences: to doing nothing.
        rank: 1 is best; None until ranked.
        to_best: difference of the ranking metric to the best contender.
    """

    calibrator: Calibrator
    statistics: Statistics
    differences: tuple[Difference, ...] = ()
    rank: int = 0
    to_best: Difference | None = None

    @property
    def name(self) -> str:
        """The calibrator's."""
        return self.calibrator.name

    @property
    def column(self) -> str:
        """What stands in the `calibrator` column of the results."""
        return self.column_of(self.name)

    @staticmethod
    def column_of(name: str) -> str:
        """What stands there for a calibrator: doing nothing is none."""
        return UNCALIBRATED if name == "identity" else name


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """The contenders of one method on one data set, best first.

    Attributes:
        dataset, method: which.
        contenders: ranked.
        splits: of each contender.
        names: of the images (rows) that were read.
        held_out: rows that all contenders are measured on, `(rows,)` bool.
        notes: about the fits, for people.
        unit: what is resampled.
    """

    dataset: str
    method: str
    contenders: tuple[Contender, ...]
    splits: Mapping[str, Split]
    names: tuple[str, ...]
    held_out: Array
    notes: tuple[str, ...]
    unit: str

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows of `comparison.csv`."""
        for contender in self.contenders:
            for difference in contender.differences:
                yield {
                    "dataset": self.dataset,
                    "method": self.method,
                    "calibrator": contender.name,
                    "rank": contender.rank,
                    "n_images": len(contender.statistics.names),
                    **asdict(difference),
                }

    def split_json(self) -> dict[str, Any]:
        """Which images each fit learned from and was measured on, by name."""

        def chosen(rows: Array) -> list[str]:
            return [name for name, is_in in zip(self.names, rows, strict=True) if is_in]

        by_split: dict[int, dict[str, Any]] = {}
        for name, split in self.splits.items():
            entry = by_split.setdefault(
                id(split),
                {
                    "calibrators": [],
                    "how": split.how,
                    "fits": [
                        {"fit": chosen(fit), "held_out": chosen(out)}
                        for fit, out in zip(split.fitting, split.held_out, strict=True)
                    ],
                    "saved_calibrator_fitted_on": chosen(split.final),
                },
            )
            entry["calibrators"].append(name)
        return {
            "dataset": self.dataset,
            "method": self.method,
            "measured_on": chosen(self.held_out),
            "splits": list(by_split.values()),
        }


@dataclass(frozen=True, eq=False)
class Calibration:
    """What `calbench calibrate` found.

    Attributes:
        leaderboards: one for each method on each data set.
        results: all numbers of the held-out images, before and after calibration.
        options: of the fits.
    """

    leaderboards: tuple[Leaderboard, ...]
    results: Results
    options: FitOptions

    @cached_property
    def comparison(self) -> pd.DataFrame:
        """One row a calibrator and metric: before, after, and the paired difference with its interval."""
        import pandas as pd

        records = [record for board in self.leaderboards for record in board.records()]
        return pd.DataFrame(records, columns=list(COMPARISON_COLUMNS))

    def calibrator(self, name: str, dataset: str | None = None, method: str | None = None) -> Calibrator:
        """A fitted calibrator by name; of several methods or data sets, say which.

        Raises:
            UnknownName: there is none.
        """
        for board in self.leaderboards:
            if dataset in (None, board.dataset) and method in (None, board.method):
                for contender in board.contenders:
                    if contender.name == name:
                        return contender.calibrator
        raise UnknownName("contender", name, {c.name for board in self.leaderboards for c in board.contenders})

    def write(self, folder: Path, advance: Callable[[], None] = lambda: None) -> list[Path]:
        """Write the calibrators, the split, the comparison and all result files, and return their paths."""
        paths = []
        for board in self.leaderboards:
            for contender in board.contenders:
                path = folder / "calibrators" / self._stem(board) / f"{contender.name}.safetensors"
                save_calibrator(contender.calibrator, path)
                paths.append(path)
        splits = [board.split_json() for board in self.leaderboards]
        write_text(folder / "split.json", json.dumps(splits, indent=1, ensure_ascii=False) + "\n")
        with atomic(folder / "comparison.csv") as temporary:
            self.comparison.to_csv(temporary, index=False, lineterminator="\n")
        return [*paths, folder / "split.json", folder / "comparison.csv", *self.results.write(folder, advance)]

    def _stem(self, board: Leaderboard) -> str:
        """The folder of a board's calibrators; none where there is one board."""
        return "" if len(self.leaderboards) == 1 else f"{safe_name(board.dataset)}_{safe_name(board.method)}"

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`."""
        return {
            "leaderboards": [
                {
                    "dataset": board.dataset,
                    "method": board.method,
                    "images": len(board.names),
                    "measured_on": int(board.held_out.sum()),
                    "notes": list(board.notes),
                    "contenders": [
                        {
                            "calibrator": contender.name,
                            "rank": contender.rank,
                            "parameters": contender.calibrator.get_params(),
                            "summary": contender.calibrator.summary_,
                            "notes": contender.calibrator.notes_,
                            "differences": [asdict(difference) for difference in contender.differences],
                        }
                        for contender in board.contenders
                    ],
                }
                for board in self.leaderboards
            ],
            "results": self.results.to_json(),
        }
