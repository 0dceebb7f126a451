"""Progress with the time that is left, on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[], None]


LINE_SECONDS = 30.0
"""Without a terminal, a line this often; shorter work stays silent."""


@contextmanager
def progress_bar(description: str, total: int, *, enabled: bool) -> Iterator[Advance]:
    """A bar that its `advance()` moves by one, or a line every 30 seconds when stderr is no terminal."""
    if not enabled:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        yield _line_writer(description, total)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


def _line_writer(description: str, total: int) -> Advance:
    started = written = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, written
        done += 1
        now = time.monotonic()
        if now - written >= LINE_SECONDS:
            left = (now - started) * (total - done) / done
            print(f"{description}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)
            written = now

    return advance
