"""Fixtures: small folders of maps on disk, and the real sets where they are at hand."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from calbench.cli import main
from calbench.synthetic import write_demo

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three synthetic methods on one data set, 8 images."""
    return write_demo(tmp_path_factory.mktemp("demo"), n_images=8)


@pytest.fixture
def calbench() -> Callable[..., Result]:
    """Run the command line in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def interrupt_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Within this context, Ctrl-C comes after that many files."""
    module = sys.modules["calbench.collect"]  # the package attribute of that name is the function
    original = module.parallel_map

    @contextmanager
    def interrupt(n_files: int) -> Iterator[None]:
        def interrupted(function: Any, tasks: Any, jobs: Any) -> Iterator[Any]:
            for number, result in enumerate(original(function, tasks, jobs)):
                if number == n_files:
                    raise KeyboardInterrupt
                yield result

        with monkeypatch.context() as patch:
            patch.setattr(module, "parallel_map", interrupted)
            yield

    return interrupt


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Write predictions and masks, {name: array}, as PNG into two folders of a data set called `toy`."""

    def write(preds: dict[str, np.ndarray], gts: dict[str, np.ndarray]) -> tuple[Path, Path]:
        pred, gt = tmp_path / "net", tmp_path / "toy" / "gt"
        for folder, images in ((pred, preds), (gt, gts)):
            folder.mkdir(parents=True, exist_ok=True)
            for name, array in images.items():
                Image.fromarray(array).save(folder / f"{name}.png")
        return pred, gt

    return write


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real sets: CALBENCH_DATA, or shared/data beside the repository; skips where there is none."""
    data = Path(os.environ.get("CALBENCH_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir():
        pytest.skip("the real data sets are not at hand (set CALBENCH_DATA)")
    return data
