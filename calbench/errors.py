"""Every error calbench raises on purpose, on one screen.

Messages follow one pattern: what was found, where, what was expected, what to do. Library code raises; only the command
line turns an error into text, and the class (never the call site) knows the exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CalbenchError(Exception):
    """Base of all calbench errors; the command line shows it as one message and exits with `exit_code`."""

    exit_code = 1


class InputError(CalbenchError, ValueError):
    """The data cannot give right numbers as it is."""


class OptionError(InputError):
    """An option whose value is out of its range, or that does not go with another."""

    exit_code = 2


class PairingError(InputError):
    """Predictions without a mask, masks without a prediction, or two files with one name."""


class ShapeError(InputError):
    """A prediction and its mask (or field of view) have different sizes."""


class RangeError(InputError):
    """Values outside the range that the declared or inferred coding allows."""


class FormatError(CalbenchError, ValueError):
    """A file that cannot be read, is of a kind calbench does not read, or has a newer schema."""


class WorkerError(CalbenchError, RuntimeError):
    """A worker process died."""


class DivergedError(CalbenchError, RuntimeError):
    """Training whose loss or weights are no longer numbers."""


class MergeError(CalbenchError, ValueError):
    """Statistics that must not be added: the same image twice, or other conventions."""


class UnknownName(CalbenchError, ValueError):
    """A metric, profile or option value that does not exist, with the nearest name that does."""

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"there is no {kind} {name!r}; {hint}")


def plural(number: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "image"), plural(2, "image")
    ('1 image', '2 images')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listing(offenders: Iterable[str], limit: int = 5) -> str:
    """The first few offenders, one per line, and how many more there are."""
    items = list(offenders)
    lines = [f"  {item}" for item in items[:limit]]
    if len(items) > limit:
        lines.append(f"  ... and {len(items) - limit} more")
    return "\n".join(lines)
