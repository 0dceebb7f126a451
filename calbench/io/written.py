"""The record that a command leaves in a folder it fills file by file: which it wrote, by what and from what."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calbench.errors import FormatError, InputError, OptionError, listing, plural
from calbench.io.files import read_bytes, write_text
from calbench.io.maps import Rounding

CHECKPOINT_SECONDS = 20.0
"""How often the record is written while files are."""


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        origin: digests of what it was made from, by what that is; 0 where there was none.
        rounding: what its numbers lost when they were stored.
    """

    origin: Mapping[str, int]
    rounding: Rounding


@dataclass(frozen=True)
class Record:
    """Which files a folder holds, so that a run can go on where one before it was interrupted.

    Attributes:
        path: of the JSON file, in the folder of the files.
        head: all else it says, "schema" first: what has to be the same for the files to be continued.
        holds, by, source: how messages name the files, what makes them, and what they are made from.
    """

    path: Path
    head: Mapping[str, Any]
    holds: str
    by: str
    source: str

    @property
    def folder(self) -> Path:
        """The folder of the files."""
        return self.path.parent

    def earlier(self, files: set[str], *, resume: bool, force: bool) -> dict[str, Written]:
        """The files that an earlier run wrote, to be kept if what they were made from is the same.

        Args:
            files: what this run is to write, paths below the folder.
            resume: keep what the same run wrote before.
            force: replace what the folder holds; what an earlier run wrote, and this one does not, is removed.
        Raises:
            OptionError: both.
            InputError: a folder that is in use, or was written by something else or with other options.
            FormatError: a record that cannot be read.
        """
        if resume and force:
            raise OptionError("--resume continues what --force would replace: give one of them")
        if not self.path.exists():
            taken = [file for file in sorted(files) if (self.folder / file).exists() and not force]
            if taken:
                raise InputError(
                    f"{self.folder} holds {plural(len(taken), 'file')} that would be replaced:\n{listing(taken)}\n"
                    "replace them with --force, or choose another -o"
                )
            return {}
        if force:
            _, there = self._read()
            self.remove(there.keys() - files)
            return {}
        if not resume:
            raise InputError(
                f"{self.folder} already holds {self.holds} ({self.path.name}); continue with --resume, replace them with "
                "--force, or choose another -o"
            )
        then, there = self._read()
        changed = [f"{key}: {then.get(key)} -> {now}" for key, now in self.head.items() if then.get(key) != now]
        if changed:
            raise InputError(
                f"cannot resume from {self.path}: the {self.by}, the {self.source} or options have changed since:\n"
                f"{listing(changed)}\nrepeat the earlier ones, or start afresh with --force"
            )
        gone = sorted(there.keys() - files)
        if gone:
            raise InputError(
                f"{self.folder} holds {plural(len(gone), 'file')} whose {self.source} are gone:\n{listing(gone)}\n"
                f"complete the {self.source}, or start afresh with --force"
            )
        return {file: written for file, written in there.items() if (self.folder / file).exists()}

    @contextmanager
    def kept(self, done: dict[str, Written]) -> Iterator[Callable[[str, Written], None]]:
        """Take down each file that is written; the record is on disk now and then, and however the block ends.

        Args:
            done: files that are there; those that are written are added.
        """

        def save() -> None:
            files = {file: {**done[file].origin, "rounding": asdict(done[file].rounding)} for file in sorted(done)}
            write_text(self.path, json.dumps({**self.head, "files": files}, indent=1, ensure_ascii=False))

        save()
        saved = time.monotonic()

        def keep(file: str, written: Written) -> None:
            nonlocal saved
            done[file] = written
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()

        try:
            yield keep
        finally:
            save()

    def remove(self, files: Iterable[str]) -> None:
        """Remove files that a run wrote; a name that leads out of the folder is none of them."""
        for path in [(self.folder / file).resolve() for file in files]:
            if self.folder.resolve() in path.parents:
                path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], dict[str, Written]]:
        """What the record on disk says, and its files."""
        try:
            found = json.loads(read_bytes(self.path))
            if found["schema"] > self.head["schema"]:
                raise FormatError(
                    f"{self.path} has schema {found['schema']}, this calbench reads up to {self.head['schema']}; update "
                    "calbench"
                )
            return found, {
                file: Written(
                    {name: number for name, number in entry.items() if name != "rounding"},
                    Rounding(**entry["rounding"]),
                )
                for file, entry in found["files"].items()
            }
        except FormatError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"{self.path} is damaged ({error!r}); delete its folder, or choose another -o") from error
