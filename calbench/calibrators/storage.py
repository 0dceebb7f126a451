"""A calibrator as one file: safetensors, with a JSON header; never a pickle."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from calbench.calibrators.calibrator import Calibrator
from calbench.errors import FormatError
from calbench.io.files import atomic
from calbench.statistics.rows import Array

FORMAT = "calbench calibrator"
SCHEMA = 1
KEY = "calbench"
"""Where the JSON header lies in the metadata of the safetensors file."""


def save_calibrator(calibrator: Calibrator, path: str | Path) -> None:
    """Write a fitted calibrator: what it learned, how it was made, and the images it was fitted on.

    Raises:
        NotFitted: it was not.
    """
    calibrator._refuse_unfitted()
    header = {
        "format": FORMAT,
        "schema": SCHEMA,
        "version": version("calbench"),
        "calibrator": calibrator.name,
        "parameters": calibrator.get_params(),
        "n_classes": calibrator.n_classes_,
        "summary": calibrator.summary_,
        "notes": calibrator.notes_,
        "origin": calibrator.origin_,
    }
    arrays = {name: np.array(array, order="C") for name, array in calibrator.state().items()}
    with atomic(path) as temporary:
        temporary.write_bytes(save(arrays, metadata={KEY: json.dumps(header, ensure_ascii=False)}))


def load_calibrator(path: str | Path) -> Calibrator:
    """Read a calibrator written by `save_calibrator`.

    Raises:
        FormatError: not such a file, a damaged one, or one of a newer schema.
    """
    from calbench.calibrators import CALIBRATORS

    header, arrays = _read(Path(path))
    try:
        if header["schema"] > SCHEMA:
            raise FormatError(
                f"{path} has schema {header['schema']}, this calbench reads up to {SCHEMA}; update calbench "
                f"(the file was written by {header.get('version')})"
            )
        kind = CALIBRATORS.get(header["calibrator"])
        if kind is None:
            raise FormatError(
                f"{path} holds the calibrator {header['calibrator']!r}, which this calbench does not know; it was written by "
                f"calbench {header['version']}: update"
            )
        broken = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if broken:
            raise ValueError(f"{broken[0]} holds NaN or infinite numbers")
        parameters = header["parameters"]  # JSON knows no tuples
        calibrator = kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in parameters.items()})
        calibrator.n_classes_ = int(header["n_classes"])
        calibrator.summary_, calibrator.notes_ = header["summary"], header["notes"]
        calibrator.origin_ = header["origin"]
        calibrator.restore(arrays)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path} is damaged: {error}; fit the calibrator again") from error
    return calibrator


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    expected = "expected a calibrator that calbench calibrate wrote (.safetensors)"
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(KEY, "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise FormatError(f"there is no file {path}; {expected}") from error
    except (OSError, SafetensorError, ValueError) as error:
        raise FormatError(f"{path} is damaged, or no calibrator; {expected}") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise FormatError(f"{path} is a safetensors file of something else; {expected}")
    return header, arrays
