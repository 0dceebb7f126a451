"""Which images calibrators are fitted on, and which they are measured on: folds, one hold-out, or a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from calbench.errors import InputError, listing, plural
from calbench.statistics.rows import Array, owner


@dataclass(frozen=True, eq=False)
class Split:
    """Which rows each fit learns from, and which it is measured on.

    Attributes:
        how: in words.
        fitting: `(fits, rows)` bool.
        held_out: `(fits, rows)` bool: no row is in two of them.
        final: rows that the saved calibrator is fitted on, `(rows,)` bool.
    """

    how: str
    fitting: Array
    held_out: Array
    final: Array

    @property
    def is_refitted(self) -> bool:
        """Whether the saved calibrator is fitted on other rows than those of the one fit that is measured."""
        return len(self.fitting) > 1 or not np.array_equal(self.fitting[0], self.final)


def folds(unit_of_row: Array, n_folds: int, seed: int) -> Split:
    """K-fold by resampling unit: each unit is held out once; the saved calibrator learns from all.

    Raises:
        InputError: fewer units than folds.
    """
    n_units = int(unit_of_row.max()) + 1
    if n_units < n_folds:
        raise InputError(
            f"{n_units} images or groups cannot be split into {n_folds} folds; say --cv {n_units}, or give more images"
            if n_units > 1
            else "there is 1 image or group; fitting and measuring need at least 2: give more, or say --fit-list and "
            "--allow-overlap"
        )
    order = np.random.default_rng(seed).permutation(n_units)
    fold = np.empty(n_units, np.intp)
    fold[order] = np.arange(n_units) % n_folds
    held_out = fold[unit_of_row] == np.arange(n_folds)[:, None]
    return Split(f"{n_folds} folds", ~held_out, held_out, np.ones(len(unit_of_row), bool))


def one_holdout(unit_of_row: Array, share: float, seed: int) -> Split:
    """One split by resampling unit: the saved calibrator learns from what is not held out.

    Raises:
        InputError: fewer than two units.
    """
    n_units = int(unit_of_row.max()) + 1
    if n_units < 2:
        raise InputError("there is 1 image or group; holding some out needs at least 2")
    n_out = min(max(1, round(share * n_units)), n_units - 1)
    out = np.isin(unit_of_row, np.random.default_rng(seed).permutation(n_units)[:n_out])
    return Split(f"{100 * share:g} % held out", ~out[None], out[None], ~out)


def listed(names: Sequence[str], unit_of_row: Array, to_fit: Iterable[str], allow_overlap: bool) -> Split:
    """The named images to fit on, all others held out.

    Raises:
        InputError: names that are not there, nothing held out, or a group on both sides.
    """
    wanted = set(to_fit)
    files = [owner(name) if name not in wanted else name for name in names]
    missing = sorted(wanted - set(files))
    if missing:
        raise InputError(
            f"{plural(len(missing), 'name')} of --fit-list {'is' if len(missing) == 1 else 'are'} no image that was read:\n"
            f"{listing(missing)}\nnames are file names without extension, one a line"
        )
    fit = np.isin(files, sorted(wanted))
    if fit.all():
        if not allow_overlap:
            raise InputError(
                "--fit-list names every image, so that none is held out; name fewer, or say --allow-overlap to measure on the "
                "images fitted on"
            )
        return Split("measured on the images fitted on", fit[None], fit[None], fit)
    split_units = np.intersect1d(unit_of_row[fit], unit_of_row[~fit])
    if len(split_units) and not allow_overlap:
        examples = [names[int(np.flatnonzero(unit_of_row == unit)[0])] for unit in split_units]
        raise InputError(
            f"--fit-list splits {plural(len(split_units), 'group')} of images between fitting and measuring:\n"
            f"{listing(examples)}\nlist whole groups, or say --allow-overlap"
        )
    return Split("fitted on the images of a list", fit[None], ~fit[None], fit)
