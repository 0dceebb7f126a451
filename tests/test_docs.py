"""The documentation holds: its code runs, its pages are up to date, its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from torch.distributed.run import get_args_parser

from calbench.calibrators import CALIBRATORS
from calbench.cli import main
from calbench.losses import LOSSES
from calbench.losses.perturbation import KINDS
from calbench.metrics import METRICS
from calbench.training.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize(
    ("page", "most_lines"),
    [("README.md", 10), ("docs/calibration.md", 15), ("docs/report.md", 12), ("docs/training.md", 14)],
)
def test_the_code_of_a_page_prints_what_it_says(page: str, most_lines: int) -> None:
    text = (ROOT / page).read_text("utf-8")
    code, output = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL).groups()  # type: ignore[union-attr]
    assert len([line for line in code.splitlines() if line.strip()]) <= most_lines
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), {})
    assert printed.getvalue() == output


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_calibrator_and_command_is_documented() -> None:
    metrics, calibrators, cli = (
        (ROOT / "docs" / name).read_text("utf-8") for name in ("metrics.md", "calibrators.md", "cli.md")
    )
    assert not [name for name in METRICS if f"| `{name}` |" not in metrics]
    assert not [name for name in CALIBRATORS if f"| [`{name}`](#{name}) |" not in calibrators]
    assert not [name for name in main.commands if f"## calbench {name}" not in cli]


def test_every_method_with_its_parameters_and_every_loss_is_documented() -> None:
    page = (ROOT / "docs" / "losses.md").read_text("utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(METHODS) | set(KINDS) == set(rows)  # `ls` is both
    for name, method in METHODS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` | {method.summary} |"))
        assert LOSSES[method.loss].definition.replace("|", "\\|") in row
        assert method.source in row
        for key, value in method.parameters.items():
            assert f"`{key}`" in row if value is None else f"`{key}={value}`" in row
    for loss in LOSSES.values():
        _, _, said = page.partition(f"\n### {loss.name}\n")
        assert said.lstrip().startswith(f"`{loss.__module__}.{loss.__name__}`")


@pytest.fixture
def in_folder_with_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands of docs/training.md name: tiny pictures, masks, lists, a network."""
    rng = np.random.default_rng(0)

    def draw(folder: Path, *, masks: str = "", n: int = 8) -> None:
        for where in (folder, folder.parent / masks):
            where.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            target = np.zeros((40, 56), np.uint8)
            target[10 + i : 25 + i, 15:40] = 255
            pixels = (rng.integers(0, 120, (40, 56, 3)) + target[..., None] // 2).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
            if masks:
                Image.fromarray(target).save(folder.parent / masks / f"{i}.png")

    draw(tmp_path / "data/image", masks="gt")
    draw(tmp_path / "data/ECSSD/image", masks="gt", n=2)
    draw(tmp_path / "data/DTD", n=2)
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n\n\ndef tiny(*, classes=1, width=8):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1))\n"
    )
    toml = re.search(r"```toml\n(.*?)```", (ROOT / "docs/training.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "study.toml").write_text(toml.group(1))  # type: ignore[union-attr]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def _commands(page: str) -> Iterator[list[str]]:
    """The commands of the indented blocks of a page, without the name of the program."""
    text = (ROOT / page).read_text("utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ {4}((?:torchrun|calbench) .*)$", text, re.MULTILINE):
        program, *arguments = shlex.split(line)
        if program == "torchrun":
            launched = get_args_parser().parse_args(arguments)
            assert launched.module
            assert launched.training_script == "calbench"
            arguments = launched.training_script_args
        yield arguments


@pytest.mark.usefixtures("in_folder_with_images")
@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_the_training_commands_of_a_page_are_understood(page: str) -> None:
    commands = [command for command in _commands(page) if command[0] in ("train-aslp", "predict")]
    assert {name for name, *_ in commands} == {"train-aslp", "predict"}
    for name, *arguments in commands:
        main.commands[name].make_context(name, arguments)


def test_the_training_commands_without_test_images_run(in_folder_with_images: Path) -> None:
    """Those with test images end in a report, which takes long; tests of the command have them."""
    ran = []
    for name, *arguments in _commands("docs/training.md"):
        needed = [text for text in arguments if text.startswith(("Model_30", "imagenet", "Dataset", "camvid"))]
        if needed or "--test-list" in arguments or "--config" in arguments:
            continue
        if name == "train-aslp":
            arguments += ["--size", "32", "--epochs", "1"]
        done = CliRunner().invoke(main, [name, *arguments, *(["-q"] if name != "evaluate" else [])])
        assert done.exit_code == 0, (arguments, done.output)
        ran.append(arguments)
    assert len(ran) >= 9
    folder = in_folder_with_images
    assert {path.name for path in (folder / "first/runs/aslp-mc/seed-0").iterdir()} == {
        "last.pt",
        "best.pt",
        "metrics.csv",
        "alphas.csv",
    }
    assert len(list((folder / "again/runs").glob("*/seed-2/last.pt"))) == 2
    assert {path.name for path in (folder / "maps/aslp/DTD").iterdir()} == {"0.npz", "1.npz", "predict.json"}
    assert {path.name for path in (folder / "maps/best/ECSSD").iterdir()} == {"0.png", "1.png", "predict.json"}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{page.name} links to {target}"


def test_every_option_named_in_a_page_exists() -> None:
    options = {name for command in main.commands.values() for p in command.params for name in p.opts}
    options |= {name for p in main.params for name in p.opts} | {"--help"}
    scripts = [ROOT / "docs" / "generate.py", *(ROOT / "benchmarks").glob("*.py")]
    for script in scripts:
        options |= set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', script.read_text("utf-8")))
    elsewhere = {"--fix"} | set(re.findall(r"--[a-z-]+", get_args_parser().format_help()))
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text("utf-8")))
        assert not named - options - elsewhere, page.name
