"""Write the generated pages: docs/metrics.md, docs/calibrators.md, docs/losses.md, docs/cli.md and, where the data is,
docs/real-data.md and docs/worked-example.md.

python docs/generate.py                          # rewrite metrics.md, calibrators.md, losses.md and cli.md
python docs/generate.py --check                  # fail if they are out of date
python docs/generate.py --readme                 # redraw docs/images/reliability.png, which the README shows
python docs/generate.py --real-data PATH/data    # run the real sets and rewrite real-data.md
python docs/generate.py --worked-example PATH/data    # report on real sets, rewrite worked-example.md and its pictures
"""

from __future__ import annotations

import argparse
import inspect
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from calbench import CALIBRATORS, METRICS, PROFILES, Calibrator, Metric, Results, Settings, Statistics, collect
from calbench.cli import main
from calbench.evaluate import Evaluator
from calbench.io.sample import Sample
from calbench.kernels import measure_aslp
from calbench.losses import LOSSES, LabelPerturbation, mixup
from calbench.losses.perturbation import KINDS, NOISE
from calbench.measure import Request, measure_sample
from calbench.synthetic import samples
from calbench.training.adaptive import AdaptiveRule
from calbench.training.methods import METHODS

DOCS = Path(__file__).parent
FAMILIES = (
    ("Calibration errors", "ece", "quantisation_bound"),
    ("Scoring rules, entropy, accuracy", "brier", "accuracy"),
    ("Ranking: foreground, mispredictions, selective prediction", "auroc", "augrc"),
    ("Classes and their overlap", "pixel_accuracy", "class_changed"),
    ("Logits", "logit_mean_distance", "logit_margin"),
    ("Out-of-distribution sets", "ood_auroc", "ood_oe"),
    ("Saliency and overlap of binary maps", "mae", "adp_dice"),
    ("The official ASLP numbers (`--profile aslp`)", "aslp_ece", "aslp_s_measure"),
    ("The numbers of MbLS (`--profile mbls`)", "mbls_aece", "mbls_l1"),
    (
        "The numbers of selectivecal (`--profile selectivecal`)",
        "selectivecal_ece_rechosen",
        "selectivecal_accuracy_rechosen",
    ),
    ("The numbers of torchmetrics (`--profile torchmetrics`)", "torchmetrics_ece", "torchmetrics_class_accuracy"),
)
REAL_COMMANDS = (
    ("SOD: four saliency methods, 150 images, 1-bit masks", [
        "calbench check --pred 'data/sod/pred/{method}' --gt data/sod/gt",
        "calbench evaluate --pred 'data/sod/pred/{method}' --gt data/sod/gt -o results/sod",
        "calbench evaluate --pred 'data/sod/pred/{method}' --gt data/sod/gt --profile pysodmetrics",
        "calbench evaluate --pred 'data/sod/pred/{method}' --gt data/sod/gt --profile aslp",
    ]),
    ("DRIVE: two vessel networks, 20 images, inside the field of view", [
        "calbench check --pred 'data/drive/pred/{method}' --gt data/drive/gt --mask data/drive/fov",
        "calbench evaluate --pred 'data/drive/pred/{method}' --gt data/drive/gt --mask data/drive/fov -o results/drive",
        "calbench evaluate --pred 'data/drive/pred/{method}' --gt data/drive/gt",
    ]),
    ("RGBT-VT21: grey three-channel masks, one method of another size", [
        "calbench check --pred 'data/rgbt-vt21/pred/{method}' --gt data/rgbt-vt21/gt",
        "calbench evaluate --pred 'data/rgbt-vt21/pred/{method}' --gt data/rgbt-vt21/gt",
        "calbench evaluate --pred 'data/rgbt-vt21/pred/{method}' --gt data/rgbt-vt21/gt --on-mismatch resize-pred"
        " -o results/rgbt-vt21",
    ]),
    ("DRIVE by region: boundaries, interiors, and images by share of vessels", [
        "calbench evaluate --pred 'data/drive/pred/{method}' --gt data/drive/gt --mask data/drive/fov --regions -q",
    ]),
    ("CamVid: float16 logits of 11 classes and their labels in one .npz each", [
        "calbench evaluate --pred data/camvid-logits --num-classes 11",
        "calbench check --pred data/camvid-logits --ignore-index 11",
        "calbench evaluate --pred data/camvid-logits --ignore-index 11 --regions -o results/camvid",
        "calbench evaluate --pred data/camvid-logits --ignore-index 11 --profile mbls --batch 4",
    ]),
    ("CIFAR: soft-max tables of three classifiers", [
        "calbench evaluate --pred 'data/cifar-softmax/{method}.npz' -o results/cifar",
    ]),
    ("Calibrators on SOD: four methods, 8-bit maps, five folds", [
        "calbench calibrate all --pred 'data/sod/pred/{method}' --gt data/sod/gt --cv 5 -o fits/sod",
    ]),
    ("Calibrators on DRIVE: two vessel networks, inside the field of view", [
        "calbench calibrate all --pred 'data/drive/pred/{method}' --gt data/drive/gt --mask data/drive/fov --cv 5"
        " -o fits/drive",
    ]),
    ("Calibrators on RGBT-VT21: 21 images", [
        "calbench calibrate all --pred 'data/rgbt-vt21/pred/{method}' --gt data/rgbt-vt21/gt --method fused --method modality1"
        " --method modality2 --cv 5 -o fits/rgbt-vt21",
    ]),
    ("Calibrators on CamVid: logits of 11 classes and the photographs, three folds", [
        "calbench calibrate all --pred data/camvid-logits --ignore-index 11 --images data/camvid/val/image --resize-images"
        " --cv 3 --set calibration_net.epochs=10 -o fits/camvid",
    ]),
    ("Calibrators on CIFAR: soft-max tables of 10 and 100 classes", [
        "calbench calibrate all --pred 'data/cifar-softmax/{method}.npz' --cv 5 -o fits/cifar",
    ]),
    ("Top-label tables: true class, predicted class and confidence as CSV", [
        "calbench evaluate --pred 'data/toplabel-csv/{method}.csv' -o results/toplabel",
    ]),
)  # fmt: skip

WORKED_EXAMPLE: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]], ...] = (
    ("Evaluate, with the regions of the objects", (
        "calbench evaluate --pred 'data/sod/pred/{method}' --gt data/sod/gt --regions -q -o results/sod",
        "calbench evaluate --pred 'data/drive/pred/{method}' --gt data/drive/gt --mask data/drive/fov -q -o results/drive",
        "calbench evaluate --pred data/camvid-logits --ignore-index 11 --dataset camvid --method unet -q -o results/camvid",
    ), ()),
    ("See what a calibrator would gain", (
        "calbench calibrate temperature isotonic --pred 'data/sod/pred/{method}' --method PiCANet --gt data/sod/gt"
        " -q -o fits/sod",
    ), ()),
    ("Write the report", (
        "calbench report results/sod results/drive results/camvid fits/sod -o report --images 'data/{dataset}/image'",
    ), (
        ("page", "The page, wide and on a phone"),
        ("overlay_top-label_sod", "Top-label reliability of the methods on SOD, with intervals that resample images"),
        ("reliability_foreground_sod_PiCANet", "Foreground reliability of one method"),
        ("regions_ece_sod", "Where the error lives: boundaries, interiors, small and large objects"),
        ("joint_sod", "Joint density of confidence and accuracy, image by image"),
        ("images_sod", "The error of each image"),
        ("risk-coverage_drive", "Risk and coverage on DRIVE"),
        ("classes_camvid_unet", "The classes of CamVid"),
    )),
    ("Compare two methods, then all", (
        "calbench compare results/sod:Amulet results/sod:PiCANet",
        "calbench compare results/sod --n-boot 2000 --metrics ece,nll,mae",
    ), ()),
    ("Stop a pipeline where calibration got worse", (
        "calbench compare results/sod:PiCANet results/sod:Amulet --metrics ece --fail-if 'delta(ece)>0.002'",
    ), ()),
)  # fmt: skip
"""Chapter, its commands, and the plots that they drew, with what is said below each."""
PICTURE_WIDTH = 900
PICTURE_COLOURS = 128


def metrics_page() -> str:
    """Every metric by family, and what each gives at the edges."""
    lines = [
        "# Metrics",
        "",
        "Generated by `make docs` from the registry `calbench.METRICS`; `calbench metrics` prints the same.",
        "p is the foreground probability, y the outcome, conf = max(p, 1 − p), b a bin of n_b of the N valid pixels, x̂ a map",
        "after the min-max of the saliency tools. Averages: *pixels* pools all pixels of the data set, and the mean over",
        "images is reported beside it; *images* is a mean over images. Intervals: *norm* and *percentile* are described in",
        "[concepts](concepts.md#intervals). Metrics whose *needs* are not met by a set of predictions are absent from its",
        "results.",
    ]
    names = list(METRICS)
    for title, first, last in FAMILIES:
        lines += [
            "",
            f"## {title}",
            "",
            "| name | better | definition | options | average | interval | needs | source |",
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [_metric_row(METRICS[name]) for name in names[names.index(first) : names.index(last) + 1]]
    lines += ["", "## Profiles", "", "| profile | what it is | options | metrics |", "|---|---|---|---|"]
    for profile in PROFILES.values():
        options = ", ".join(f"{key} {value}" for key, value in profile.options.items()) or "–"
        lines.append(f"| `{profile.name}` | {profile.description} | {options} | {len(profile.metrics)} |")
    return "\n".join([*lines, "", *edge_table()]) + "\n"


def _metric_row(metric: Metric) -> str:
    interval = "none" if not metric.interval else ("norm" if metric.norm else "percentile")
    cells = (
        f"`{metric.name}`", metric.arrow or "–", metric.definition, ", ".join(metric.options) or "–",
        metric.average if metric.average == "images" or metric.per_image else "pixels only", interval, metric.needs,
        metric.source,
    )  # fmt: skip
    return _row(cells)


def calibrators_page() -> str:
    """Every calibrator: a table, then what each one's class says of itself."""
    lines = [
        "# Calibrators",
        "",
        "Generated by `make docs` from the registry `calbench.CALIBRATORS`; `calbench calibrators` prints the same. z are the",
        "logits of a pixel, p what they stand for; of a binary map z is one number, and p = σ(z) the probability of",
        "foreground. How they are fitted, compared and applied: [calibration](calibration.md).",
        "",
        "| name | definition | keeps the class | reads | source |",
        "|---|---|---|---|---|",
    ]
    for name, kind in CALIBRATORS.items():
        cells = (
            f"[`{name}`](#{name})", kind.definition, "yes" if kind.keeps_class else "no",
            "logits and images" if kind.needs_images else "logits", kind.source,
        )  # fmt: skip
        lines.append(_row(cells))
    for name, kind in CALIBRATORS.items():
        lines += ["", f"## {name}", "", *_parameters(kind), "```text", *_described(kind), "```"]
    return "\n".join(lines) + "\n"


def _parameters(kind: type[Calibrator]) -> list[str]:
    given = kind().get_params()
    shown = ", ".join(f"`{key}={value!r}`" for key, value in given.items())
    return [f"`calbench.calibrators.{kind.__name__}`; parameters: {shown}", ""] if given else []


def losses_page() -> str:
    """Every training method, every loss, the perturbations of labels: tables, then what the code says of each."""
    lines = [
        "# Training methods and losses",
        "",
        "Generated by `make docs` from the registries `calbench.training.methods.METHODS` and `calbench.losses.LOSSES`;",
        "`calbench losses` prints the methods. p are the probabilities of a pixel, softmax(z), or (1 − σ(z), σ(z)) of binary",
        "maps; q is its target, 0 and 1 unless labels are soft; C the number of classes, 2 of binary maps. Each loss is a",
        "mean over the valid pixels of a batch. How methods are trained and compared: [training](training.md).",
        "",
        "## Methods",
        "",
        "`calbench train-aslp --methods NAME,NAME` trains with them, `--set NAME.KEY=VALUE` sets a parameter. What `kind`,",
        "`beta` and `alpha` mean is said under [label perturbation](#label-perturbation); where they have no value here, they",
        "take that of the [kind](#kinds-of-perturbation). `eta`, `lambda` (1/(ηb), b = β/2, where nothing is said) and",
        "`start` are those of [adaptive perturbation](#adaptive-perturbation), `reference` is explained in",
        "[training](training.md#adaptive-label-perturbation), `mixup` is the α of [mixup](#mixup); all others belong to the",
        "loss.",
        "",
        "| method | what it is | loss | maps | parameters | source |",
        "|---|---|---|---|---|---|",
    ]
    for method in METHODS.values():
        kind = LOSSES[method.loss]
        cells = (
            f"`{method.name}`", method.summary, f"[`{kind.name}`](#{kind.name}): {kind.definition}",
            "binary, classes" if kind.binary else "classes",
            ", ".join(_parameter(key, value) for key, value in method.parameters.items()) or "–", method.source,
        )  # fmt: skip
        lines.append(_row(cells))
    lines += ["", "## Losses"]
    for name, kind in LOSSES.items():
        lines += _section(f"### {name}", kind)
    lines += [
        "",
        "## Kinds of perturbation",
        "",
        "β is the strength on the scale of the paper, b = β/2 that on the scale of the official code. The released setting of",
        "that code, b = 2, is β = 4, and turns the labels 0 and 1 into 2 and −1: `--profile aslp` alone takes it.",
        "",
        "| kind | meaning | β | b | images | y = 0 becomes | y = 1 becomes |",
        "|---|---|---|---|---|---|---|",
        *(_perturbation_row(name) for name in KINDS),
        *_section("## Label perturbation", LabelPerturbation),
        *_section("## Adaptive perturbation", AdaptiveRule),
        *_section("## Mixup", mixup),
    ]
    return "\n".join(lines) + "\n"


def _section(heading: str, item: Callable[..., Any]) -> list[str]:
    """What a class or function says of itself, below a heading."""
    return ["", heading, "", f"`{item.__module__}.{item.__name__}`", "", "```text", *_described(item), "```"]


def _parameter(key: str, value: Any) -> str:
    return f"`{key}`" if value is None else f"`{key}={value}`"


def _perturbation_row(name: str) -> str:
    kind, perturbation = KINDS[name], LabelPerturbation(name)
    noise = f" ± {NOISE:g}" if kind.noisy else ""
    labels = (f"{float(perturbation.perturbed(torch.full((1, 1, 1, 1), y))):g}{noise}" for y in (0.0, 1.0))
    images = f"a share α, default {kind.alpha:g}" if kind.random else "all"
    return _row((f"`{name}`", kind.meaning, f"{kind.beta:g}", f"{perturbation.b:g}", images, *labels))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _described(item: object) -> list[str]:
    """The docstring of a class or function without its example."""
    return inspect.cleandoc(item.__doc__ or "").partition(">>>")[0].rstrip().splitlines()


def edge_table() -> list[str]:
    """The value of every metric on single images at the edges, computed."""
    height, width = 6, 8
    soft = (np.arange(height * width) * 5 % 256).astype(np.uint8).reshape(height, width)
    mixed = np.arange(height * width).reshape(height, width) % 3 == 0
    nothing, everything = np.zeros((height, width), bool), np.ones((height, width), bool)
    maps = {
        "empty mask, soft map": (soft, nothing, None),
        "empty mask, map all 0": (np.zeros_like(soft), nothing, None),
        "full mask, soft map": (soft, everything, None),
        "full mask, map all 255": (np.full_like(soft, 255), everything, None),
        "constant map (128)": (np.full_like(soft, 128), mixed, None),
        "no valid pixel": (soft, mixed, nothing),
    }
    columns = {}
    for case, (levels, target, valid) in maps.items():
        row = measure_sample(Sample("image", levels, target, valid))
        aslp = measure_aslp("image", levels, target * np.uint8(255), valid)
        columns[case] = _edge_values(Statistics(row.histogram, scores=row.scores, aslp=aslp), ("calbench", "aslp"))
    labels = np.arange(height * width).reshape(height, width) % 3  # of 4 classes
    right, wrong = (6.0 * np.moveaxis(np.eye(4)[shifted], -1, 0) for shifted in (labels, (labels + 1) % 4))
    volumes = {
        "all right, class 3 absent": (right, labels, None),
        "all wrong": (wrong, labels, None),
        "equal logits": (np.zeros_like(right), labels, None),
        "one class in the mask": (right, np.zeros_like(labels), None),
        "no valid pixel": (right, labels, nothing),
    }
    profiles = ("calbench", "mbls", "selectivecal", "torchmetrics")
    class_columns = {}
    for case, (logits, target, valid) in volumes.items():
        row = measure_sample(Sample("image", logits, target, valid, "logits"), Request(extras=profiles[1:]))
        class_columns[case] = _edge_values(row, profiles)
    return [
        "## Empty masks, full masks, constant maps",
        "",
        "What one such image gives; undefined values are left out of means over images and counted in `n_undefined`. Computed",
        "on a 6 x 8 image whose soft map runs through many levels.",
        "",
        *_edge_rows(columns),
        "",
        "## Absent classes, all right, all wrong",
        "",
        "The same for logits of four classes, 6 for one class and 0 for the others, on 6 x 8 pixels of three classes.",
        "",
        *_edge_rows(class_columns),
    ]


def _edge_values(rows: Statistics, profiles: Sequence[str]) -> dict[str, float]:
    """The value of every metric of these profiles, pooled where it pools."""
    values: dict[str, float] = {}
    for profile in profiles:
        for value in Evaluator(rows, Settings(profile, n_boot=0)).values():
            if value.average == METRICS[value.metric].average and "class" not in value.details:
                values[value.metric] = value.value
    return values


def _edge_rows(columns: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "| metric | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    known = next(iter(columns.values()))
    for name in METRICS:
        if name in known:
            yield f"| `{name}` | " + " | ".join(_edge(column[name]) for column in columns.values()) + " |"


def _edge(value: float) -> str:
    return f"{value + 0.0:.4f}".replace("-0.0000", "0.0000") if np.isfinite(value) else "undefined"


def cli_page() -> str:
    """The help text of every command."""
    lines = ["# Command line", "", "Generated by `make docs`; `calbench COMMAND -h` prints the same.", ""]
    lines += [
        "Exit codes: 0 done, 1 wrong data or a failed check, 2 wrong usage, 3 a gate of `--fail-if` failed, 130 interrupted.",
        "",
    ]
    commands: list[tuple[str, click.Command]] = [("calbench", main)]
    commands += [(f"calbench {name}", command) for name, command in main.commands.items()]
    for name, command in commands:
        context = click.Context(command, info_name=name, help_option_names=["-h", "--help"], terminal_width=100)
        lines += [f"## {name}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def real_data_page(data: Path) -> str:
    """Run the real sets as a user would, from the folder above the data."""
    lines = [
        "# Real prediction maps",
        "",
        "Written by `python docs/generate.py --real-data PATH/data`, which ran every command below as it stands. The sets",
        "are public and not part of calbench: SOD maps and masks from ArcherFMY/sal_eval_toolbox and JoahHe's saliency",
        "repository, DRIVE from juntang-zhuang/LadderNet and orobix/retina-unet, RGBT-VT21 from xanxuso's RGB-T repository,",
        "soft-max tables from EFS-OpenSource/calibration-framework, top-label tables from hollance/reliability-diagrams. The",
        "CamVid logits come from a small U-Net that was trained on CamVid for this page.",
    ]
    with _beside(data) as folder:
        for title, commands in REAL_COMMANDS:
            lines += _ran(title, commands, folder)
    return "\n".join(lines) + "\n"


def worked_example_page(data: Path) -> str:
    """From folders to the page and the tables of a paper, on real sets; its pictures go to docs/images."""
    lines = [
        "# A worked example: from folders to the paper",
        "",
        "Written by `python docs/generate.py --worked-example PATH/data`, which ran every command below as it stands, on the",
        "public sets that [real prediction maps](real-data.md) describes. [Report and compare](report.md) says what is in",
        "each file.",
    ]
    with _beside(data) as folder:
        for title, commands, pictures in WORKED_EXAMPLE:
            lines += _ran(title, commands, folder)
            if pictures:
                lines += [
                    "",
                    "`table.md`, which renders as:",
                    "",
                    (folder / "report" / "table.md").read_text("utf-8").strip(),
                ]
                lines += ["", "The plots, as PNG here, and beside them as PDF and SVG:"]
            for name, caption in pictures:
                source = folder / f"{name}.png" if name == "page" else folder / "report" / "plots" / f"{name}.png"
                if name == "page":
                    photograph_page(folder / "report" / "report.html", source)
                save_small(source, DOCS / "images" / f"example-{name.lower()}.png")
                lines += ["", f"![{caption}](images/example-{name.lower()}.png)", "", f"*{caption}.*"]
    return "\n".join(lines) + "\n"


def photograph_page(page: Path, target: Path) -> None:
    """The top of an HTML page as a browser shows it, on a wide screen and, dark, on a phone, side by side."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    shots = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width, scheme in ((1180, "light"), (390, "dark")):
            view = browser.new_page(viewport={"width": width, "height": 1240}, color_scheme=scheme)
            view.goto(page.resolve().as_uri())
            shot = target.with_name(f"{target.stem}-{width}.png")
            view.screenshot(path=shot)
            shots.append(Image.open(shot).convert("RGB"))
        browser.close()
    both = Image.new("RGB", (sum(shot.width for shot in shots) + 40, shots[0].height), "#888888")
    both.paste(shots[0], (0, 0))
    both.paste(shots[1], (shots[0].width + 40, 0))
    both.save(target)


def save_small(source: Path, target: Path) -> None:
    """A picture of at most 900 pixels' width and 128 colours."""
    from PIL import Image

    with Image.open(source) as picture:
        picture = picture.convert("RGB")
        if picture.width > PICTURE_WIDTH:
            height = round(picture.height * PICTURE_WIDTH / picture.width)
            picture = picture.resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
        picture.quantize(PICTURE_COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)


@contextmanager
def _beside(data: Path) -> Iterator[Path]:
    """An empty folder in which the data is called `data`."""
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "data").symlink_to(data.resolve())
        yield Path(scratch)


def _ran(title: str, commands: Sequence[str], folder: Path) -> Iterator[str]:
    """A chapter: its heading, and each command with what it printed."""
    yield from ("", f"## {title}")
    for command in commands:
        yield from ("", "```console", f"$ {command}", *_run(command, folder), "```")


def _run(command: str, folder: Path) -> Iterator[str]:
    """Output of a command, errors and notes included, and its exit code where it is not 0."""
    arguments = [sys.executable, "-m", *shlex.split(command)]
    environment = os.environ | {"COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        arguments, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    lines = (line.rstrip() for line in done.stdout.rstrip().splitlines())
    yield from (line for line in lines if not line.endswith(" s left"))  # progress, which depends on the machine
    if done.returncode:
        yield f"(exit {done.returncode})"


def draw_readme_figure() -> None:
    """The diagram of the README's own example."""
    run = collect(samples(200, sharpness=2.5), dataset="synthetic", method="overconfident", scores=())
    results = Results(run, Settings(metrics=("ece", "ece_fg")))
    with tempfile.TemporaryDirectory() as folder:
        diagram = next(path for path in results.write(Path(folder)) if path.suffix == ".png")
        (DOCS / "images").mkdir(exist_ok=True)
        (DOCS / "images" / "reliability.png").write_bytes(diagram.read_bytes())


def generate(arguments: list[str]) -> int:
    """Write or check the pages; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare, exit 1 where a page is out of date")
    parser.add_argument("--readme", action="store_true", help="redraw the README's figure")
    parser.add_argument("--real-data", type=Path, metavar="DIR", help="also run the real sets in DIR")
    parser.add_argument("--worked-example", type=Path, metavar="DIR", help="also report on the real sets in DIR")
    options = parser.parse_args(arguments)
    pages = {
        DOCS / "metrics.md": metrics_page(),
        DOCS / "calibrators.md": calibrators_page(),
        DOCS / "losses.md": losses_page(),
        DOCS / "cli.md": cli_page(),
    }
    if options.check:
        stale = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
        print("\n".join(f"{path} is out of date; run make docs" for path in stale) or "generated pages are up to date")
        return 1 if stale else 0
    if options.real_data:
        pages[DOCS / "real-data.md"] = real_data_page(options.real_data)
    if options.worked_example:
        pages[DOCS / "worked-example.md"] = worked_example_page(options.worked_example)
    if options.readme:
        draw_readme_figure()
    for path, text in pages.items():
        path.write_text(text, "utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(generate(sys.argv[1:]))
