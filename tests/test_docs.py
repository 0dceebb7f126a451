"""The documentation holds: its code runs, its pages are up to date, its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from calbench.calibrators import CALIBRATORS
from calbench.cli import main
from calbench.metrics import METRICS

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize(
    ("page", "most_lines"), [("README.md", 10), ("docs/calibration.md", 15), ("docs/report.md", 12)]
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
    elsewhere = {
        "--check",
        "--readme",
        "--real-data",
        "--worked-example",
        "--work",
        "--seeds",
        "--images",
        "--quick",
        "--fix",
    }
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text("utf-8")))
        assert not named - options - elsewhere, page.name
