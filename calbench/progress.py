"""Progress with the time that is left, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Moves a bar by one."""

    def __call__(self, note: str = "") -> None:
        """Move it, and show a few words of how things stand."""


LINE_SECONDS = 30.0
"""Without a terminal, a line this often; shorter work stays silent."""


@contextmanager
def progress_bar(description: str, total: int, *, enabled: bool) -> Iterator[Advance]:
    """A bar that its `advance()` moves by one, or a line every 30 seconds when stderr is no terminal."""
    if not enabled:
        yield _silent
        return
    if not sys.stderr.isatty():
        yield _line_writer(description, total)
        return
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Noted(Progress):
        """A bar with a line below it, which would squeeze it beside it."""

        note = ""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield from super().get_renderables()
            if self.note:
                yield Text(self.note, style="dim")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Noted(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)

        def advance(note: str = "") -> None:
            bar.note = note
            bar.advance(task)

        yield advance


def _silent(note: str = "") -> None:
    """Where no progress is shown."""


def _line_writer(description: str, total: int) -> Advance:
    started = written = time.monotonic()
    done = 0

    def advance(note: str = "") -> None:
        nonlocal done, written
        done += 1
        now = time.monotonic()
        if now - written >= LINE_SECONDS:
            left = (now - started) * (total - done) / done
            print(
                f"{description}: {done} of {total}, about {left:.0f} s left" + (f"; {note}" if note else ""),
                file=sys.stderr,
                flush=True,
            )
            written = now

    return advance
