"""In-training calibration on ECSSD: seven methods, three seeds, a small network on a CPU; writes docs/ecssd.md.

python benchmarks/ecssd.py PATH/data -o ecssd            # train what is missing, evaluate, rewrite the page
python benchmarks/ecssd.py PATH/data -o ecssd --fast     # two epochs of two methods, one seed; no page

PATH/data holds ecssd/image, ecssd/gt and textures-dtd/image. The split is in benchmarks/ecssd/. An interrupted run is taken
up again by the same command: finished trainings are kept.
"""

from __future__ import annotations

import argparse
import csv
import math
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
LISTS = ROOT / "benchmarks" / "ecssd"
METHODS = ("bce", "ls", "slp", "aslp-mc", "aslp-mei", "focal", "margin")
COLUMNS = (
    ("ecssd", "ece"), ("ecssd", "oe"), ("ecssd", "aece"), ("ecssd", "accuracy"), ("ecssd", "mae"), ("ecssd", "max_f"),
    ("textures", "ood_entropy"), ("textures", "ood_ece"), ("textures", "ood_oe"),
)  # fmt: skip
HIGHER = {"accuracy", "max_f", "ood_entropy"}
CLAIMS = (
    ("Better calibrated in distribution", (("ecssd", "ece"), ("ecssd", "oe"), ("ecssd", "aece"))),
    ("Better calibrated, and less certain, on textures, where nothing is salient",
     (("textures", "ood_ece"), ("textures", "ood_oe"), ("textures", "ood_entropy"))),
    ("At equal accuracy", (("ecssd", "accuracy"), ("ecssd", "mae"), ("ecssd", "max_f"))),
)  # fmt: skip
PICTURES = (
    ("training_curves", "Learning curves: mean and range over the seeds"),
    ("training_alphas", "α of the training images after the last epoch, and against their loss"),
    ("overlay_top-label_ecssd", "Top-label reliability of every run, with limits that resample images"),
)
EPOCHS = (10, 30, 60, 90, 120)
WIDTH, COLOURS = 900, 128
Cells = Mapping[tuple[str, str, str], Mapping[str, str]]


def command(data: Path, output: Path, *, fast: bool) -> list[str]:
    """The comparison, as it is given to a shell."""
    methods, seeds, epochs = (METHODS[:4:3], "0", "2") if fast else (METHODS, "0,1,2", "120")
    return [
        "calbench", "train-aslp", "--methods", ",".join(methods), "--seeds", seeds, "--epochs", epochs,
        "--images", f"{data}/ecssd/image", "--masks", f"{data}/ecssd/gt",
        "--train-list", "benchmarks/ecssd/train.txt", "--val-list", "benchmarks/ecssd/validation.txt",
        "--test-list", "benchmarks/ecssd/test.txt", "--ood", f"textures={data}/textures-dtd/image",
        "--device", "cpu", "-j", "2", "--resume", "-o", str(output),
    ]  # fmt: skip


def page(cells: Cells, shown: Sequence[str], output: Path) -> str:
    """The page: command, table, and what holds of the study's claim, all from seeds.csv."""
    lines = [
        "# In-training calibration on ECSSD",
        "",
        "Written by `python benchmarks/ecssd.py PATH/data -o ecssd` from one command, which took "
        f"{_minutes(output)} on two cores:",
        "",
        "```sh",
        *shown,
        "```",
        "",
        "70 images to train on, 20 to validate with, 40 to test with ([the split](../benchmarks/ecssd)), and 40 textures of",
        "DTD, where nothing is salient. The network is `small` (425,729 parameters, from scratch, 128 × 128 pixels, 120",
        "epochs, every other option its default); all runs end after the same number of epochs, and the last weights predict.",
        "Strengths are the defaults, not tuned to each other (slp moves the confidence of labels to 0.95, ls to 0.975).",
        "At this size the task is hard: the numbers compare methods, and say nothing of what a large pretrained network would",
        "reach.",
        "",
        "Mean over seeds 0, 1, 2, and below it the 95 % Student t interval of that mean, which covers the randomness of",
        "training and not that of images. `*`: the paired difference to bce has an interval without 0. ↓ lower is better, ↑",
        "higher.",
        "",
        "| method | " + " | ".join(f"{name} {'↑' if name in HIGHER else '↓'}" for _, name in COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for method in METHODS:
        lines.append(f"| {method} | " + " | ".join(_cell(cells[at[0], method, at[1]]) for at in COLUMNS) + " |")
    lines += ["", "## What holds of the study's claim at this size", ""]
    lines += [
        "The study claims that ASLP, by maximum calibration above all, is better calibrated in and out of distribution at",
        "equal accuracy. Paired differences to bce over the three seeds, method − bce, with their 95 % t intervals:",
        "",
    ]
    for claim, columns in CLAIMS:
        lines += [f"**{claim}.**", ""]
        for dataset, name in columns:
            lines.append(f"- `{name}`: " + "; ".join(_verdicts(cells, dataset, name)) + ".")
        lines.append("")
    lines += ["## What became of α", "", *_alphas(output), ""]
    for name, caption in PICTURES:
        lines += [f"![{caption}](images/ecssd_{name}.png)", "", f"*{caption}.*", ""]
    return "\n".join(lines).rstrip() + "\n"


def _cell(row: Mapping[str, str]) -> str:
    mark = "*" if row["delta_low"] and float(row["delta_low"]) * float(row["delta_high"]) > 0 else ""
    return f"{float(row['mean']):.4f}{mark}<br>[{float(row['low']):.4f}, {float(row['high']):.4f}]"


def _verdicts(cells: Cells, dataset: str, name: str) -> list[str]:
    """Which methods are told from bce, to which side, and which are not."""
    sides: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    for method in METHODS[1:]:
        row = cells[dataset, method, name]
        delta, low, high = (float(row[key]) for key in ("delta", "delta_low", "delta_high"))
        side = "not told apart"
        if low * high > 0:
            side = "better" if (delta > 0) == (name in HIGHER) else "worse"
        sides[side].append(f"{method} ({delta:+.4f} [{low:+.4f}, {high:+.4f}])")
    return [f"{side}: {', '.join(found)}" for side, found in sides.items() if found]


def _alphas(output: Path) -> list[str]:
    """The mean α of the training images along the epochs, over the seeds, and whether it ever changed a label."""
    lines = [
        "| method | " + " | ".join(f"epoch {epoch}" for epoch in EPOCHS) + " |",
        "| --- |" + " ---: |" * len(EPOCHS),
    ]
    unmoved = []
    for method in METHODS:
        runs = [_rows(path) for path in sorted(output.glob(f"runs/{method}/seed-*/metrics.csv"))]
        if not runs[0][-1]["alpha_mean"]:
            continue
        means = [sum(float(rows[epoch - 1]["alpha_mean"]) for rows in runs) / len(runs) for epoch in EPOCHS]
        lines.append(f"| {method} | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")
        bce = [_rows(path) for path in sorted(output.glob("runs/bce/seed-*/metrics.csv"))]
        same = sum(a[-1]["loss"] == b[-1]["loss"] for a, b in zip(runs, bce, strict=True))
        if same:
            unmoved.append(
                f"{same} of the {len(runs)} runs of {method} end as those of bce do, to the last bit: no label was perturbed."
            )
    reason = (
        "α of aslp-mei rises only while validation accuracy is not below its best so far; on so few validation images it "
        "varies from epoch to epoch more than it grows."
    )
    return [*lines, "", *unmoved, *[reason] * bool(unmoved)]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _minutes(output: Path) -> str:
    """Time of the trainings, two side by side."""
    total = 0.0
    for path in sorted(output.glob("runs/*/seed-*/metrics.csv")):
        total += sum(float(row["seconds"]) for row in _rows(path))
    return f"{math.ceil(total / 60 / 2)} minutes of training"


def _small(source: Path, target: Path) -> None:
    image = Image.open(source).convert("RGB")
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    image.quantize(COLOURS).save(target, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--fast", action="store_true")
    given = parser.parse_args()
    words = command(given.data.resolve(), given.output.resolve(), fast=given.fast)
    subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True)
    if given.fast:
        return
    with (given.output / "report" / "seeds.csv").open(newline="", encoding="utf-8") as file:
        cells = {(row["dataset"], row["method"], row["metric"]): row for row in csv.DictReader(file)}
    shown = shlex.join(command(Path("data"), Path("ecssd"), fast=False)).replace(" --", " \\\n    --").splitlines()
    for name, _ in PICTURES:
        _small(given.output / "report" / "plots" / f"{name}.png", ROOT / "docs" / "images" / f"ecssd_{name}.png")
    (ROOT / "docs" / "ecssd.md").write_text(page(cells, shown, given.output), encoding="utf-8")


if __name__ == "__main__":
    main()
