"""Results folders read back: the numbers that were written, beside the rows they came from. Nothing is computed again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calbench.agreement import named_alike, refuse_other_ground_truth
from calbench.errors import FormatError, MergeError
from calbench.evaluate import ReliabilityBin, Settings, Value
from calbench.metrics import METRICS
from calbench.results import RELIABILITY_COLUMNS, SCHEMA, Key, Results
from calbench.statistics import Run, Statistics
from calbench.statistics.bundle import ALL, UNCALIBRATED
from calbench.statistics.storage import load_run

if TYPE_CHECKING:
    import pandas as pd

_IDENTITY = ("dataset", "method", "calibrator", "region")
_KINDS: Mapping[str, type] = dict.fromkeys((*_IDENTITY, "image", "event"), str) | dict.fromkeys(
    ("bin", "n", "n_pixels"), int
)
"""Columns of the CSV files that are no floating-point numbers."""


def load_results(folder: str | Path) -> Results:
    """The results that `calbench evaluate -o` or `calbench calibrate -o` wrote to a folder.

    Values, reliability bins and values of images are those of the files, number for number; what the files do not hold is
    computed from the rows in `stats.npz` when it is asked for.

    Raises:
        FormatError: no such folder, an unfinished one, files of different runs, or of a newer schema.
    """
    folder = Path(folder)
    document = _summary(folder)
    run = load_run(folder / "stats.npz")
    try:
        results = Results(run, _settings(document["settings"]))
        values: dict[Key, list[Value]] = {key: [] for key in (*results.evaluators, *results.outside)}
        for record in document["results"]:
            values[Key(**{name: record[name] for name in Key._fields})].append(_value(record))
    except (KeyError, TypeError) as error:
        raise FormatError(
            f"{folder}: summary.json and stats.npz are of different runs, or damaged ({error}); evaluate again"
        ) from error
    results.remember(values)
    _vet(folder, results)
    table = folder / "per_image.csv"
    if table.exists():
        results.per_image = _images(table, results)
    table = folder / "reliability.csv"
    if table.exists():
        results.remember_bins(_bins(table, results))
    return results


def merged(parts: Mapping[str, Results]) -> Results:
    """The results of several folders as one.

    A method on a data set may be in more than one folder if its numbers are the same there, as those of uncalibrated
    predictions in what `evaluate` and `calibrate` write. Where folders hold other metrics, those that one lacks are computed
    from its rows.

    Args:
        parts: results by the name of their folder.
    Raises:
        MergeError: other settings, another ground truth of a data set, or the same method on it with other numbers.
    """
    if len(parts) == 1:
        return next(iter(parts.values()))
    settings = _common_settings(parts)
    _refuse_other_masks(parts)
    home = _homes(parts)
    inside: dict[tuple[str, str], Statistics] = {}
    outside: dict[tuple[str, str], Statistics] = {}
    calibrated: dict[tuple[str, str, str], Statistics] = {}
    for name, part in parts.items():
        for (dataset, method, *_), rows in [*part.run.combinations.items(), *part.run.calibrated.items()]:
            key = Key(dataset, method, calibrator=rows.calibrator)
            if home[key] == name and key.calibrator == UNCALIBRATED:
                inside[dataset, method] = rows
            elif home[key] == name:
                calibrated[dataset, method, key.calibrator] = rows
        for (dataset, method), rows in part.run.ood.items():
            if home[Key(dataset, method, calibrator=rows.calibrator)] == name:
                if (dataset, method) in outside:
                    raise MergeError(
                        f"{method} on the out-of-distribution set {dataset} is there under two calibrators; report the "
                        "folders apart"
                    )
                outside[dataset, method] = rows
    notes = tuple(dict.fromkeys(note for part in parts.values() for note in part.run.notes))
    results = Results(Run(inside, _shared(parts), notes, outside, calibrated), settings)
    home |= {key: home[key._replace(region=ALL)] for key in results.evaluators}  # regions go with their images
    whole = {name for name, part in parts.items() if len(part.settings.chosen) == len(settings.chosen)}
    results.remember({key: parts[name].values()[key] for key, name in home.items() if name in whole})
    results.remember_bins(
        {key: [b for bins, _ in parts[home[key]].diagrams[key].values() for b in bins] for key in results.evaluators}
    )
    if len(whole) == len(parts):
        results.per_image = _stacked(parts, home)
    return results


def _homes(parts: Mapping[str, Results]) -> dict[Key, str]:
    """The folder that each method on each data set is taken from: of equal ones that which knows most of it, regions too.

    Raises:
        MergeError: they are not equal.
    """
    home: dict[Key, str] = {}
    for name, part in parts.items():
        for key, values in part.values().items():
            if key.region != ALL:
                continue
            if key not in home:
                home[key] = name
                continue
            if not _agree(parts[home[key]].values()[key], values):
                raise MergeError(
                    f"{key.name} on {key.dataset} is in {home[key]} and in {name} with other numbers; evaluate one of them "
                    "under another name (--method, --dataset), or leave it out"
                )
            if _known_of(key, part) > _known_of(key, parts[home[key]]):
                home[key] = name
    return home


def _known_of(key: Key, part: Results) -> int:
    """How many numbers a folder has of a method on a data set and its regions."""
    return sum(len(values) for other, values in part.values().items() if other._replace(region=ALL) == key)


def _refuse_other_masks(parts: Mapping[str, Results]) -> None:
    """Methods on one data set, in whatever folder, were held against the same ground truth.

    Raises:
        MergeError: they were not; their numbers would not belong in one table.
    """
    first: dict[str, tuple[str, Statistics]] = {}
    for name, part in parts.items():
        for key, evaluator in part.evaluators.items():
            if key.region == ALL:
                label = f"{key.name} in {name}"
                rows = named_alike(replace(evaluator.statistics, regions={}))
                known, theirs = first.setdefault(key.dataset, (label, rows))
                if known != label:
                    refuse_other_ground_truth(key.dataset, [(known, theirs), (label, rows)])


def _agree(first: Sequence[Value], second: Sequence[Value]) -> bool:
    """Whether all numbers that two have in common are equal, and those of images and pixels."""
    known = {(v.metric, v.options, v.average): v for v in first}
    common = [(known[key], v) for v in second if (key := (v.metric, v.options, v.average)) in known]
    return bool(common) and all(
        (a.n_images, a.n_pixels) == (b.n_images, b.n_pixels)
        and (a.value == b.value or (math.isnan(a.value) and math.isnan(b.value)))
        for a, b in common
    )


def _common_settings(parts: Mapping[str, Results]) -> Settings:
    """The settings of all, with every metric that any of them chose.

    Raises:
        MergeError: they shape numbers in other ways.
    """
    (first_name, first), *others = ((name, part.settings) for name, part in parts.items())
    for name, settings in others:
        for field in fields(Settings):
            ours, theirs = getattr(first, field.name), getattr(settings, field.name)
            if field.name not in ("metrics", "exclude") and ours != theirs:
                raise MergeError(
                    f"{first_name} was evaluated with {field.name} {ours!r}, {name} with {theirs!r}; numbers of one report "
                    "need the same settings: evaluate one of them again (--stats needs no pixels)"
                )
    chosen = dict.fromkeys(metric.name for part in parts.values() for metric in part.settings.chosen)
    whole = next((part.settings for part in parts.values() if len(part.settings.chosen) == len(chosen)), None)
    return whole or replace(first, metrics=tuple(chosen), exclude=())


def _shared(parts: Mapping[str, Results]) -> dict[str, Any]:
    """The options of the runs that are the same in all."""
    first, *others = (part.run.options for part in parts.values())
    missing = object()
    return {key: value for key, value in first.items() if all(o.get(key, missing) == value for o in others)}


def _stacked(parts: Mapping[str, Results], home: Mapping[Key, str]) -> pd.DataFrame:
    """The values of images of all folders, each from the folder that its method is taken from."""
    import pandas as pd

    tables = []
    for name, part in parts.items():
        table = part.per_image
        keys = [Key(*row) for row in zip(*(table[column] for column in Key._fields), strict=True)]
        tables.append(table[[home.get(key) == name for key in keys]])
    return pd.concat(tables, ignore_index=True)


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    if not path.is_file():
        raise FormatError(
            f"{folder} holds no finished results (no summary.json); expected the folder that `calbench evaluate -o` or "
            "`calbench calibrate -o` wrote"
        )
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        schema = document["schema"]
        newer = schema > SCHEMA
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is damaged ({error}); evaluate again") from error
    if newer:
        raise FormatError(f"{path} has schema {schema}, this calbench reads up to {SCHEMA}; update calbench")
    return dict(document)


def _settings(given: Mapping[str, Any]) -> Settings:
    arguments: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in given.items()}
    return Settings(**arguments)


def _value(record: Mapping[str, Any]) -> Value:
    """One number as it was; null, which stands for what JSON cannot hold, is NaN."""
    return Value(**{field.name: _nan(record[field.name]) for field in fields(Value)})


def _nan(value: Any) -> Any:
    return math.nan if value is None else value


def _vet(folder: Path, results: Results) -> None:
    """Hold the numbers against the rows they should come from."""
    for key, evaluator in (results.evaluators | results.outside).items():
        rows = (len(evaluator.statistics.names), int(evaluator.n_pixels.sum()))
        values = results.values()[key]
        if any((v.n_images, v.n_pixels) != rows for v in values if METRICS[v.metric].scope != "id-ood"):
            raise FormatError(
                f"{folder}: summary.json and stats.npz are of different runs: they count other images or pixels for "
                f"{key.name} on {key.dataset}; evaluate again"
            )


def _table(path: Path) -> pd.DataFrame:
    """A CSV file of results; names stay text, whatever they look like, and numbers are read to the last digit."""
    import pandas as pd

    try:
        kinds = {name: _KINDS.get(name, _float) for name in pd.read_csv(path, nrows=0).columns}
        return pd.read_csv(path, converters=kinds, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} is damaged ({error}); evaluate again") from error


def _float(text: str) -> float:
    """A number to its last digit, which readers of tables round; nothing stands for NaN."""
    return float(text) if text else math.nan


def _images(path: Path, results: Results) -> pd.DataFrame:
    """The values of images, if they are of the images that rows are of."""
    table = _table(path)
    evaluators = {k: e for k, e in (results.evaluators | results.outside).items() if e.has_images}
    expected = [
        (*(getattr(key, n) for n in _IDENTITY), name) for key, e in evaluators.items() for name in e.statistics.names
    ]
    columns = [*_IDENTITY, "image"]
    if not {*columns} <= {*table.columns} or list(zip(*(table[name] for name in columns), strict=True)) != expected:
        raise FormatError(_other_run(path))
    return table


def _bins(path: Path, results: Results) -> dict[Key, list[ReliabilityBin]]:
    """The bins of each method on each data set, all events together, if they hold the pixels that rows hold."""
    table = _table(path)
    if tuple(table.columns) != RELIABILITY_COLUMNS:
        raise FormatError(_other_run(path))
    found: dict[Key, list[ReliabilityBin]] = {}
    for record in table.to_dict("records"):
        key = Key(**{name: str(record.pop(name)) for name in _IDENTITY})
        found.setdefault(key, []).append(ReliabilityBin(**{str(name): value for name, value in record.items()}))
    for key, evaluator in results.evaluators.items():
        for event in evaluator.errors():
            if sum(b.n for b in found.get(key, ()) if b.event == event) != int(evaluator.n_pixels.sum()):
                raise FormatError(_other_run(path))
    return found


def _other_run(path: Path) -> str:
    return f"{path} is damaged, or of another run than stats.npz beside it; delete it, which has it computed again"
