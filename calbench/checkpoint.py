"""Finished rows survive an interruption: kept in a file beside the results, taken up again by `--resume`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calbench.errors import FormatError, InputError, listing, plural
from calbench.io.arrays import Role
from calbench.plan import Plan
from calbench.statistics import Run, Statistics
from calbench.statistics.rows import owner
from calbench.statistics.storage import load_run, save_run

Done = dict[tuple[int, str], Statistics]


def assembled(done: Done, plans: Sequence[Plan], options: Mapping[str, Any], notes: Sequence[str]) -> Run:
    """The rows of each combination, sorted by name, with its conventions."""
    combinations: dict[tuple[str, str], Statistics] = {}
    ood: dict[tuple[str, str], Statistics] = {}
    for number, plan in enumerate(plans):
        rows = [row for (combination, _), row in done.items() if combination == number]
        if rows:
            merged = Statistics.concat(rows)
            target = ood if plan.folders.ood else combinations
            target[plan.folders.dataset, plan.folders.method] = plan.sealed(merged)
    return Run(combinations, dict(options), tuple(notes), ood)


@contextmanager
def kept(
    done: Done, checkpoint: Path | None, options: Mapping[str, Any], plans: Sequence[Plan]
) -> Iterator[Callable[[], None]]:
    """Save finished rows on request, and whenever the block does not end well."""

    def save() -> None:
        if checkpoint is not None and done:
            save_run(assembled(done, plans, options, ()), checkpoint)

    try:
        yield save
    except BaseException:
        save()
        raise


def resumed(
    checkpoint: Path, options: Mapping[str, Any], plans: Sequence[Plan], current: Callable[[Path, Role], int]
) -> Done:
    """Finished rows of an interrupted run.

    Args:
        current: digest of a file of predictions or masks as it is now.
    Raises:
        InputError: other options, or files that have changed since.
    """
    try:
        earlier = load_run(checkpoint)
    except FormatError as error:
        raise FormatError(f"{error}; start afresh with --force, or delete that file") from error
    options = _as_saved(options)
    changed = sorted(
        key for key in options.keys() | earlier.options.keys() if options.get(key) != earlier.options.get(key)
    )
    if changed:
        lines = [f"{_option(key)}: {earlier.options.get(key)} -> {options.get(key)}" for key in changed]
        raise InputError(
            f"cannot resume from {checkpoint}: options or files have changed since:\n{listing(lines)}\n"
            "repeat the earlier options, or start afresh with --force"
        )
    done: Done = {}
    stale: list[str] = []
    for number, plan in enumerate(plans):
        held = earlier.ood if plan.folders.ood else earlier.combinations
        statistics = held.get((plan.folders.dataset, plan.folders.method))
        if statistics is None or statistics.facts is None:
            continue
        expected = _as_saved(plan.conventions)
        if {key: statistics.conventions.get(key) for key in expected} != expected:
            stale.append(f"{plan.folders.gt}: the masks are coded differently now")
        pair_of = {pair.name: pair for pair in plan.pairs}
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(statistics.names):
            rows_of[owner(name) if plan.many_rows else name].append(row)
        for name, rows in rows_of.items():
            pair = pair_of[name]
            files: list[tuple[Path | None, Role, str]] = [
                (pair.pred, "prediction", "pred_digest"),
                (pair.gt, "mask", "gt_digest"),
                (pair.mask, "mask", "fov_digest"),
            ]
            stale += [
                str(path) for path, role, column in files
                if path is not None and current(path, role) != int(statistics.facts[column][rows[0]])
            ]  # fmt: skip
            done[number, name] = statistics.select(rows).under({})
    stale = list(dict.fromkeys(stale))
    if stale:
        raise InputError(
            f"cannot resume from {checkpoint}: {plural(len(stale), 'file')} have changed since they were read:\n"
            f"{listing(stale)}\n"
            "start afresh with --force"
        )
    return done


def _as_saved(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they come back from JSON."""
    return dict(json.loads(json.dumps(options)))


def _option(key: str) -> str:
    """The name on the command line of a recorded option."""
    names = {"methods": "method", "datasets": "dataset", "void_values": "void-value", "extras": "profile",
             "scores": "metrics, --exclude", "options": "bins, --ties, --debias-bins, --batch",
             "pictures": "images"}  # fmt: skip
    return "images found" if key == "images" else "--" + names.get(key, key).replace("_", "-")
