"""One map over images: in this process, or in joblib worker processes (a Dask cluster by joblib's own backend)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from typing import TypeVar

from joblib import Parallel, cpu_count, delayed

from calbench.errors import OptionError, WorkerError

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_WORKER = 64
"""A worker process takes about a second to start: fewer tasks are done sooner without it."""


def default_jobs(n_tasks: int) -> int:
    """As many processes as cores, but none that would have fewer than 64 tasks."""
    return max(1, min(cpu_count(), n_tasks // TASKS_PER_WORKER))


def check_jobs(jobs: int | None) -> None:
    """Refuse a number of processes below 1.

    Raises:
        OptionError: it is.
    """
    if jobs is not None and jobs < 1:
        raise OptionError(f"jobs is {jobs}; it is a number of processes, at least 1")


def parallel_map(
    function: Callable[[Task], Result], tasks: Sequence[Task], jobs: int | None = None
) -> Iterator[Result]:
    """Results as they finish, in any order; the caller sorts by name.

    Args:
        jobs: worker processes; None chooses by `default_jobs`.
    Raises:
        OptionError: jobs below 1.
    """
    check_jobs(jobs)
    jobs = default_jobs(len(tasks)) if jobs is None else jobs
    if jobs == 1:
        yield from map(function, tasks)
    else:
        with _interrupts_deferred():
            results = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(function)(task) for task in tasks)
        try:
            yield from results
        except BrokenExecutor as error:
            raise WorkerError(
                "a worker process was killed, most likely for lack of memory; continue with --resume and a smaller -j"
            ) from error


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Start worker processes that ignore Ctrl-C, which the shell sends to all: this process alone ends the run."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
