"""`stats.npz`: a run's rows on disk, arrays beside one JSON header, never a pickle."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from calbench.errors import FormatError
from calbench.io.files import atomic
from calbench.statistics.bundle import ALL, PARTS, Run, Statistics
from calbench.statistics.rows import Array, Rows

SCHEMA = 3


def save_run(run: Run, path: str | Path) -> None:
    """Write a run as one `.npz`; counts take the smallest unsigned type that holds them."""
    header: dict[str, Any] = {
        "schema": SCHEMA,
        "options": run.options,
        "notes": list(run.notes),
        "combinations": [],
    }
    arrays: dict[str, Array] = {}
    for number, (key, statistics) in enumerate(_entries(run)):
        entry: dict[str, Any] = {**key, "conventions": statistics.conventions, "parts": {}}
        arrays[f"{number}/names"] = np.array(statistics.names, dtype=np.str_)
        for part, rows in statistics.parts.items():
            shared = {name: getattr(rows, name) for name in rows.shared_fields()}
            entry["parts"][part] = {k: v for k, v in shared.items() if not isinstance(v, np.ndarray)}
            arrays |= {f"{number}/{part}.{k}": v for k, v in shared.items() if isinstance(v, np.ndarray)}
            arrays |= {f"{number}/{part}.{k}": _compact(getattr(rows, k)) for k in rows.row_fields()}
        header["combinations"].append(entry)
    arrays["header"] = np.array(json.dumps(header, sort_keys=True))
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_run(path: str | Path) -> Run:
    """Read a run written by `save_run`.

    Raises:
        FormatError: not such a file, a damaged one, or one of a newer schema.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["schema"] > SCHEMA:
                raise FormatError(
                    f"{path} has schema {header['schema']}, this calbench reads up to {SCHEMA}; update calbench"
                )
            entries = list(enumerate(header["combinations"]))
            regions: dict[tuple[bool, tuple[str, ...]], dict[str, Statistics]] = {}
            for number, entry in entries:
                of = [entry["dataset"], entry["method"], *([entry["calibrator"]] if "calibrator" in entry else [])]
                key = (bool(entry.get("ood")), tuple(of))
                region = entry.get("region", ALL)  # schema 1 had neither regions nor out-of-distribution sets
                regions.setdefault(key, {})[region] = replace(_statistics(file, str(number), entry), region=region)
    except FileNotFoundError as error:
        raise FormatError(f"there is no file {path}; expected the stats.npz of an earlier run") from error
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{path} is damaged, or no statistics file; expected the stats.npz of an earlier run"
        ) from error
    inside: dict[tuple[str, str], Statistics] = {}
    outside: dict[tuple[str, str], Statistics] = {}
    calibrated: dict[tuple[str, str, str], Statistics] = {}
    for (ood, (dataset, method, *calibrator)), parts in regions.items():
        whole = replace(parts.pop(ALL), regions=parts)
        if calibrator:
            calibrated[dataset, method, calibrator[0]] = whole
        else:
            (outside if ood else inside)[dataset, method] = whole
    return Run(inside, header["options"], tuple(header["notes"]), outside, calibrated)


def _entries(run: Run) -> Iterator[tuple[dict[str, Any], Statistics]]:
    """Every set of rows that a run holds, with what tells it apart."""
    for kind, combinations in (("id", run.combinations), ("ood", run.ood), ("calibrated", run.calibrated)):
        for of, whole in combinations.items():
            for region, statistics in {ALL: whole, **whole.regions}.items():
                key = {"dataset": of[0], "method": of[1], "region": region, "ood": kind == "ood"}
                yield key | ({"calibrator": of[2]} if len(of) == 3 else {}), statistics


def _statistics(file: Mapping[str, Array], number: str, entry: Mapping[str, Any]) -> Statistics:
    names = tuple(str(name) for name in file[f"{number}/names"])
    parts: dict[str, Any] = {}
    for part, shared in entry["parts"].items():
        kind: type[Rows] = PARTS[part]
        values: dict[str, Any] = {}
        for name in (*kind.row_fields(), *kind.shared_fields()):
            key = f"{number}/{part}.{name}"
            if name in shared:
                values[name] = tuple(shared[name]) if isinstance(shared[name], list) else shared[name]
            else:
                array = file[key]
                values[name] = array.astype(np.int64) if array.dtype.kind in "iu" else array
        parts[part] = kind(names, **values)
    return Statistics(**parts, conventions=entry["conventions"])


def _compact(array: Array) -> Array:
    """Counts in the smallest unsigned type that holds them; floats and signed values as they are."""
    if array.dtype.kind == "i" and array.size and array.min() >= 0:
        return array.astype(np.min_scalar_type(int(array.max())))
    return array
