"""Whether two sets of rows are about the same ground truth: its conventions, its images, its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from calbench.errors import MergeError, listing
from calbench.statistics import Statistics
from calbench.statistics.rows import MEMBER, owner

_TRUTH = (
    "classes", "mask_coding", "gt_threshold", "void_values", "ignore_index", "reduce_zero_label", "label_map",
    "field_of_view", "samples",
)  # fmt: skip
"""Conventions of the ground truth: what two sides both state must be the same."""
_ROWS = ("table", "volumes")
"""Conventions of what rows are; stated only where it is so."""


def refuse_other_ground_truth(dataset: str, sides: Sequence[tuple[str, Statistics]]) -> tuple[str, ...]:
    """Hold the conventions of the ground truth, and on the images that all have the masks themselves, against each other.

    Args:
        dataset: name, for messages.
        sides: name and rows of each method.
    Returns:
        The images that all have.
    Raises:
        MergeError: other conventions, other classes, or masks that do not agree.
    """
    (label, ours), *others = sides
    names = tuple(sorted(set.intersection(*(set(rows.names) for _, rows in sides))))
    for other, theirs in others:
        _refuse_other_conventions(dataset, (label, other), (ours.conventions, theirs.conventions))
        if names:
            _refuse_other_masks(dataset, (label, other), (selected(ours, names), selected(theirs, names)))
    return names


def named_alike(rows: Statistics) -> Statistics:
    """The rows of a table, which are groups of its samples by their place, without the name of its file."""
    if "table" not in rows.conventions or len({owner(name) for name in rows.names}) > 1:
        return rows
    names = tuple(name.rpartition(MEMBER)[2] for name in rows.names)
    parts: dict[str, Any] = {kind: replace(part, names=names) for kind, part in rows.parts.items()}
    return replace(rows, **parts)


def selected(rows: Statistics, names: Sequence[str]) -> Statistics:
    """The rows of these names, in their order."""
    if rows.names == tuple(names):
        return rows
    place = {name: row for row, name in enumerate(rows.names)}
    return rows.select([place[name] for name in names])


def _refuse_other_conventions(
    dataset: str, labels: tuple[str, str], conventions: tuple[Mapping[str, Any], Mapping[str, Any]]
) -> None:
    """Both state the same of the ground truth: what only one states, as of images in memory, tells nothing apart."""
    ours, theirs = conventions
    differing = [key for key in _TRUTH if key in ours and key in theirs and ours[key] != theirs[key]]
    differing += [key for key in _ROWS if ours.get(key) != theirs.get(key)]
    if differing:
        lines = [f"{key}: {ours.get(key)} of {labels[0]}, {theirs.get(key)} of {labels[1]}" for key in differing]
        raise MergeError(
            f"{labels[0]} and {labels[1]} were measured on {dataset} under other conventions of the ground truth:\n"
            f"{listing(lines)}\nevaluate both with the same masks and options"
        )


def _refuse_other_masks(dataset: str, labels: tuple[str, str], rows: tuple[Statistics, Statistics]) -> None:
    """The same pixels are valid in each image, by number, and as many are of each class."""
    ours, theirs = rows
    unsure = [part.uncertainty() for part in rows]
    if unsure[0] is not None and unsure[1] is not None and unsure[0].classes != unsure[1].classes:
        raise MergeError(
            f"{labels[0]} and {labels[1]} were scored over {unsure[0].classes} and {unsure[1].classes} classes on {dataset}; "
            "expected the same classes"
        )
    other = ours.n_pixels != theirs.n_pixels
    counts = [part.class_counts() for part in rows]
    if counts[0] is not None and counts[1] is not None:
        # tables of decisions have the classes that occur
        targets = [count.target for count in counts if count is not None]
        widest = max(target.shape[1] for target in targets)
        one, two = (np.pad(target, ((0, 0), (0, widest - target.shape[1]))) for target in targets)
        other |= (one != two).any(1)
    if other.any():
        names = [f"{ours.names[i]}: {ours.n_pixels[i]:,} and {theirs.n_pixels[i]:,} valid pixels"
                 for i in np.flatnonzero(other)]  # fmt: skip
        raise MergeError(
            f"{labels[0]} and {labels[1]} were measured against other masks on {dataset}: {len(names):,} of "
            f"{len(other):,} images have other valid pixels, or other pixels of the classes:\n{listing(names)}\n"
            "evaluate both with the same ground truth, fields of view and void labels"
        )
