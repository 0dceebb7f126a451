"""Files written whole or not at all, and the digest that tells whether a file changed."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calbench.errors import FormatError

APPLIED = "apply.json"
"""The record that `calbench apply` leaves in a folder of calibrated maps: which were written, by what and from what."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends, and vanishes when it fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_bytes(path: Path) -> bytes:
    """The file's bytes, or a FormatError that names it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error


def digest(data: bytes) -> int:
    """63-bit digest of file contents; equal contents, equal digest."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") >> 1


def safe_name(text: str) -> str:
    """A name usable in a file name on every system: letters, digits, dot, dash and underscore stay; at most 60 of them."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._")[:60] or "_"


def distinct_name(stem: str, taken: set[str]) -> str:
    """The stem, numbered if it is taken on a system that does not tell upper from lower case; takes what it returns."""
    name, number = stem, 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.lower())
    return name
