"""`calbench train-aslp` end to end: comparisons, signals, several processes, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from test_train import (
    SIZE,
    VOID,
    alphas_of,
    assert_same_run,
    contents,
    damage,
    differences,
    draw,
    logits_by_hand,
    rows,
    weights_apart,
    write_set,
)

from calbench.cli import main
from calbench.io.files import digest
from calbench.results import Results
from calbench.training import experiment
from calbench.training.checkpoint import load_checkpoint, trained_network
from calbench.training.draws import rng
from calbench.training.image_sets import image_set
from calbench.training.run import Run

Command = Callable[..., Result]
Start = Callable[..., subprocess.Popen[str]]

OWN = '''
"""Networks of a user's own, one of which sends a signal in its n-th training step."""

import os, signal, sys
from torch import nn


class Plain(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, classes, 5, padding=2))
        self.steps = 0

    def forward(self, images):
        self.steps += self.training
        if self.training and self.steps == int(os.environ.get("SIGNAL_AT", 0)) and os.environ.get("RANK", "0") == "0":
            if os.environ["SIGNAL"] == "SIGINT":
                os.killpg(0, signal.SIGINT)
            else:
                os.kill(os.getpid(), signal.SIGTERM)
        return self.body(images) * (float("nan") if self.steps == int(os.environ.get("NAN_AT", -1)) else 1)


class Named(Plain):
    def forward(self, images):
        return {"out": self.body(images)}


def of_one_class_more(classes):
    return Plain(classes + 1)


def frozen(classes):
    return Plain(classes).requires_grad_(False)


def note_replaced(event, arguments):
    if event == "os.rename":
        with open(os.environ["REPLACED"] + os.environ["RANK"], "a") as file:
            print(arguments[1], file=file)


if "REPLACED" in os.environ:
    sys.addaudithook(note_replaced)
'''
PLAIN = ("--model", "own_networks:Plain")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`toy`: 8 images to train on, 3 to validate and 3 to test with; `holed`: 9 and 3 with void pixels; textures."""
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "toy", range(14))
    write_set(folder / "holed", range(12), void=True)
    for part, numbers in (("val", range(8, 11)), ("test", range(11, 14)), ("holed-val", range(9, 12))):
        (folder / f"{part}.txt").write_text("".join(f"im{number:02}\n" for number in numbers))
    (folder / "textures").mkdir()
    for number in range(3):
        noise = np.random.default_rng(100 + number).integers(0, 256, (30, 44, 3), np.uint8)
        Image.fromarray(noise).save(folder / "textures" / f"t{number}.png")
    (folder / "own").mkdir()
    (folder / "own" / "own_networks.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "own")
        yield folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No diagrams and no report, which take longer than all the rest."""
    monkeypatch.setattr(Results, "_write_diagrams", lambda *_: [])
    monkeypatch.setattr(experiment, "write_report", lambda _, output, *__, **___: [output / "report.html"])


RECIPE = ("--size", SIZE, "--epochs", 2, "--batch", 4, "--lr", 2e-3)
ADAPTING = ("--set", "aslp-mc.start=1", "--set", "aslp-mc.eta=0.1")


def toy(data: Path, *more: object) -> tuple[object, ...]:
    """Options that train on `toy`."""
    where = ("--images", data / "toy/image", "--masks", data / "toy/gt", "--val-list", data / "val.txt")
    return ("train-aslp", *where, *RECIPE, *more)


def holed(data: Path, *more: object) -> tuple[object, ...]:
    where = ("--images", data / "holed/image", "--masks", data / "holed/gt", "--val-list", data / "holed-val.txt")
    return ("train-aslp", *where, "--void-value", VOID, *RECIPE, *more)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Contents and time of every file below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def values(document: dict[str, Any]) -> list[dict[str, Any]]:
    return document["results"]


@pytest.fixture
def start(data: Path) -> Iterator[Start]:
    """Start the command line in a process group of its own, with one thread."""
    processes = []

    def started(*arguments: object, by: tuple[str, ...] = (), **environment: object) -> subprocess.Popen[str]:
        variables = {"PYTHONPATH": data / "own", "OMP_NUM_THREADS": 1, **environment}
        process = subprocess.Popen(
            [sys.executable, *by, "-m", "calbench", *map(str, arguments)], text=True, start_new_session=True,
            env={**os.environ, **{name: str(value) for name, value in variables.items()}},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        processes.append(process)
        return process

    yield started
    for process in processes:
        with process:
            process.terminate()


# --- a comparison -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(data: Path) -> tuple[Path, Result]:
    """Two methods, three epochs, a test set and textures: everything that the command leaves, and what it said."""
    result = CliRunner().invoke(main, [str(word) for word in comparison(data, "bce,aslp-mc", data / "out")])
    assert result.exit_code == 0, result.output
    return data / "out", result


def comparison(data: Path, methods: str, output: Path, *more: object) -> tuple[object, ...]:
    tested = ("--test-list", data / "test.txt", "--ood", f"noise={data / 'textures'}", "--n-boot", 40)
    perturbing = (*PLAIN, "--lr", 1e-2, "--epochs", 3, *ADAPTING, "--set", "aslp-mc.eta=0.5")
    return toy(data, "--methods", methods, *perturbing, *tested, "-o", output, *more)


def test_a_comparison_leaves_runs_predictions_results_and_a_report(compared: tuple[Path, Result]) -> None:
    out, result = compared
    assert sorted(path.name for path in out.iterdir()) == ["predictions", "report", "results", "runs", "test-sets"]
    for method, left in (("bce", set()), ("aslp-mc", {"alphas.csv"})):
        run = out / "runs" / method / "seed-0"
        assert {path.name for path in run.iterdir()} == {"last.pt", "best.pt", "metrics.csv"} | left
        for name, stems in (("toy", ("im11", "im12", "im13")), ("noise", ("t0", "t1", "t2"))):
            maps = out / "predictions" / f"{method}-s0" / name
            assert {path.name for path in maps.iterdir()} == {f"{stem}.npz" for stem in stems} | {"predict.json"}
            record = json.loads((maps / "predict.json").read_text())
            assert record["checkpoint_digest"] == digest((run / "last.pt").read_bytes())
    assert "8 images to train on, 3 to validate with, 3 of toy, 3 of noise" in result.stderr
    assert "run 1 of 2: bce-s0" in result.stderr
    assert result.stdout.splitlines()[-1] == str(out / "report" / "report.html")
    assert "aslp-mc" in (out / "report" / "report.html").read_text(encoding="utf-8")
    assert json.loads((out / "results" / "training.json").read_text())["runs"][1] == {
        "name": "aslp-mc-s0",
        "method": "aslp-mc",
        "seed": 0,
        "metrics": "../runs/aslp-mc/seed-0/metrics.csv",
        "alphas": "../runs/aslp-mc/seed-0/alphas.csv",
    }


def test_the_numbers_of_a_comparison_are_those_of_evaluate(compared: tuple[Path, Result], calbench: Command) -> None:
    out, _ = compared
    result = calbench(
        "evaluate", "--pred", f"{out}/predictions/{{method}}/{{dataset}}", "--gt", f"{out}/test-sets/{{dataset}}/gt",
        "--method", "bce-s0", "--method", "aslp-mc-s0", "--dataset", "toy",
        "--ood", f"noise={out}/predictions/{{method}}/noise", "--n-boot", 40, "--json", "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = values(json.loads((out / "results" / "summary.json").read_text()))
    assert differences(found, values(json.loads(result.stdout))) == []
    ece = {
        row["method"]: row["value"]
        for row in found
        if (row["dataset"], row["metric"], row["average"]) == ("toy", "ece", "pixels")
    }
    assert ece["bce-s0"] != ece["aslp-mc-s0"]
    seeds = rows(out / "report", "seeds.csv")
    means = {row["method"]: row["mean"] for row in seeds if (row["dataset"], row["metric"]) == ("toy", "ece")}
    assert {method: float(mean) for method, mean in means.items()} == {
        "bce": ece["bce-s0"],
        "aslp-mc": ece["aslp-mc-s0"],
    }
    assert {row["n_seeds"] for row in seeds if row["metric"] == "ood_ece"} == {"1"}


@pytest.mark.usefixtures("undrawn")
def test_a_method_is_added_and_what_is_finished_stays(
    compared: tuple[Path, Result], data: Path, tmp_path: Path, calbench: Command
) -> None:
    out = tmp_path / "out"
    shutil.copytree(compared[0], out, symlinks=True)
    before = {part: files(out / part) for part in ("runs", "predictions")}
    rows_before = values(json.loads((out / "results" / "summary.json").read_text()))

    refused = calbench(*comparison(data, "bce,aslp-mc,ls", out))
    assert refused.exit_code == 1
    assert f"{out} already holds runs/; continue it with --resume, replace it with --force" in refused.stderr

    added = calbench(*comparison(data, "bce,aslp-mc,ls", out, "--resume", "--json", "-q"))
    assert (added.exit_code, added.stderr) == (0, "")
    for part, held in before.items():
        now = files(out / part)
        if part == "predictions":  # their records are written again, with the same contents
            assert {name: held[name][0] for name in held} == {name: now[name][0] for name in held}
            held = {name: at for name, at in held.items() if not name.endswith("predict.json")}
        assert {name: now[name] for name in held} == held
        assert any("ls" in name for name in now.keys() - held.keys())
    document = json.loads(added.stdout)
    assert (document["output"], document["page"]) == (str(out), str(out / "report" / "report.html"))
    assert {row["method"] for row in document["seeds"]} == {"bce", "aslp-mc", "ls"}
    found = values(json.loads((out / "results" / "summary.json").read_text()))
    plain = {"dataset", "method", "metric", "average", "region", "value", "low", "high", "n_images", "n_pixels"}
    old = [{name: row[name] for name in plain} for row in found if row["method"] != "ls-s0"]
    assert differences(old, [{name: row[name] for name in plain} for row in rows_before]) == []
    assert any(row["method"] == "ls-s0" for row in found)


def test_a_test_set_that_moved_is_not_taken_for_the_old_one(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "toy", tmp_path / "other")
    for source in (data / "toy", tmp_path / "other"):
        experiment._link(image_set("toy", source / "image", source / "gt"), tmp_path / "links")
        targets = {path.resolve().parent.parent for path in (tmp_path / "links").rglob("im*.*")}
        assert targets == {source.resolve()}
    assert len(list((tmp_path / "links").rglob("im*.*"))) == 28


@pytest.mark.usefixtures("undrawn")
def test_use_best_predicts_with_the_best_epoch(data: Path, tmp_path: Path, calbench: Command) -> None:
    tested = ("--test-list", data / "test.txt", "--n-boot", 0)
    options = toy(data, "--method", "bce", "--seed", 2, "--lr", 1, *PLAIN, *tested, "--best-by", "nll", "--use", "best")
    assert calbench(*options, "-o", tmp_path / "out", "-q").exit_code == 0
    run = tmp_path / "out/runs/bce/seed-2"
    losses = [float(row["validation_nll"]) for row in rows(run, "metrics.csv")]
    record = json.loads((tmp_path / "out/predictions/bce-s2/toy/predict.json").read_text())
    assert record["checkpoint_digest"] == digest((run / "best.pt").read_bytes())
    assert losses[0] < losses[1], "or best.pt is last.pt"


def test_one_run_without_test_set_is_plain_training(data: Path, tmp_path: Path, calbench: Command) -> None:
    words = toy(data, *PLAIN, *ADAPTING, "--seeds", "3")
    spoken = calbench(*words, "-o", tmp_path / "a")
    assert (spoken.exit_code, spoken.stdout) == (0, f"{tmp_path / 'a' / 'runs'}\n")
    assert "no test set: --test-list or --test names one" in spoken.stderr
    as_json = calbench(*words, "-o", tmp_path / "b", "--json", "-q")
    assert json.loads(as_json.stdout) == {"output": str(tmp_path / "b"), "page": None, "seeds": []}
    assert as_json.stderr == ""
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["report", "runs"]
    assert sorted(path.name for path in (tmp_path / "b/report").rglob("*.svg")) == [
        "training_alphas.svg", "training_curves.svg",
    ]  # fmt: skip

    toml = tmp_path / "train.toml"
    shown = [str(word) for word in words[1:]]
    given = dict(zip(shown[::2], shown[1::2], strict=True))
    numbers = "".join(f"{name} = {given['--' + name]}\n" for name in ("size", "epochs", "batch", "lr"))
    folders = "".join(f'{name} = "{given["--" + name]}"\n' for name in ("images", "masks", "val-list", "model"))
    toml.write_text(
        f'methods = ["aslp-mc"]\nseeds = [1, 2]\nset = ["aslp-mc.start=1", "aslp-mc.eta=0.1"]\n{numbers}{folders}'
    )
    result = calbench("train-aslp", "--config", toml, "--seeds", 3, "-o", tmp_path / "c", "-q")
    assert result.exit_code == 0, result.output
    for other in "bc":
        assert_same_run(tmp_path / "a/runs/aslp-mc/seed-3", tmp_path / other / "runs/aslp-mc/seed-3")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("Named", "the network returned a dict for images (4, 3, 32, 32); expected logits, one tensor (4, 1, 32, 32)"),
        (
            "of_one_class_more",
            "the network returned a tensor (4, 2, 32, 32) for images (4, 3, 32, 32); expected logits",
        ),
        ("frozen", "model 'own_networks:frozen' has no weights to train"),
    ],
)
def test_networks_that_return_something_else_are_refused(
    network: str, message: str, data: Path, tmp_path: Path, calbench: Command
) -> None:
    result = calbench(*toy(data, "--method", "bce", "--model", f"own_networks:{network}", "-o", tmp_path / "out"))
    assert (result.exit_code, isinstance(result.exception, SystemExit)) == (2, True)
    assert message in result.stderr


def test_runs_are_held_against_the_options_before_the_first_step(data: Path, tmp_path: Path, calbench: Command) -> None:
    words = toy(data, *PLAIN, "-o", tmp_path, "-q")
    assert calbench(*words, "--methods", "bce,ls").exit_code == 0
    refused = calbench(*words, "--methods", "l1,ls", "--set", "ls.alpha=0.2", "--resume")
    assert refused.exit_code == 1
    assert "cannot resume" in refused.stderr
    assert "options: {} -> {'alpha': 0.2}" in refused.stderr
    assert not (tmp_path / "runs/l1").exists()
    named = calbench(*[word for word in words if word != "-q"], "--methods", "ls", "--resume")
    assert named.exit_code == 0
    assert f"1 run of earlier commands, not named now, left out:\n  {tmp_path}/runs/bce/seed-0" in named.stderr


def test_force_replaces_a_comparison_and_nothing_else(data: Path, tmp_path: Path, calbench: Command) -> None:
    out = tmp_path / "out"
    words = toy(data, *PLAIN, "-o", out, "-q")
    assert calbench(*words, "--methods", "ls,bce").exit_code == 0
    (out / "notes.txt").write_text("mine")
    before = files(out)
    for bad, code in (
        (("--force", "--method", "absent"), 2),
        (("--force", "--images", tmp_path / "absent"), 1),
        (("--force", "--resume"), 2),
        ((), 1),
    ):
        assert calbench(*words, *bad).exit_code == code
        assert files(out) == before
    assert calbench(*words, "--force", "--methods", "bce").exit_code == 0
    now = files(out)
    assert now["notes.txt"] == before["notes.txt"]
    assert now.keys() == {name for name in before if "/ls/" not in name}
    assert now["runs/bce/seed-0/last.pt"][1] > before["runs/bce/seed-0/last.pt"][1]


@pytest.mark.parametrize("part", ["runs", "test-sets", "predictions", "results", "report"])
def test_a_folder_of_something_else_is_refused(part: str, data: Path, tmp_path: Path, calbench: Command) -> None:
    (tmp_path / part / "x").mkdir(parents=True)
    (tmp_path / part / "x" / "mine.txt").write_text("mine")
    for options in ((), ("--force",), ("--resume",)):
        result = calbench(*toy(data, *PLAIN, "-o", tmp_path, *options))
        assert result.exit_code == 1
        assert f"{tmp_path} already holds {part}/, which train-aslp did not write; choose another -o" in result.stderr
        assert set(files(tmp_path)) == {f"{part}/x/mine.txt"}


def test_runs_side_by_side_are_the_runs_one_by_one_and_name_what_they_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calbench: Command
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")  # a thread each
    images, masks = write_set(tmp_path / "damaged", range(10))
    damage(images / "im03.jpg")
    (tmp_path / "val.txt").write_text("im08\nim09\n")
    where = ("--images", images, "--masks", masks, "--val-list", tmp_path / "val.txt", "--on-damaged", "skip")
    skipping = ("train-aslp", *where, *RECIPE, "--method", "aslp-mc", *ADAPTING, "--seeds", "0,1")
    for jobs in (1, 2):
        result = calbench(*skipping, "-j", jobs, "-o", tmp_path / str(jobs))
        assert result.exit_code == 0, result.output
        assert result.stderr.count("left out training image 'im03': ") == 2
    for seed in (0, 1):
        assert_same_run(*(tmp_path / jobs / f"runs/aslp-mc/seed-{seed}" for jobs in "12"))
    assert calbench(*skipping, "-j", 0, "-o", tmp_path / "0").exit_code == 2


@pytest.mark.usefixtures("undrawn")
def test_a_damaged_test_picture_is_an_error_or_left_out_by_name(tmp_path: Path, calbench: Command) -> None:
    images, masks = write_set(tmp_path / "toy", range(10))
    for part, numbers in (("val", (6, 7)), ("test", (4, 8, 9))):
        (tmp_path / f"{part}.txt").write_text("".join(f"im{number:02}\n" for number in numbers))
    damage(images / "im08.jpg")
    lists = ("--val-list", tmp_path / "val.txt", "--test-list", tmp_path / "test.txt")
    words = (
        "train-aslp",
        "--images",
        images,
        "--masks",
        masks,
        *lists,
        *RECIPE,
        *PLAIN,
        "--methods",
        "bce,ls",
        "--n-boot",
        0,
    )
    refused = calbench(*words, "-o", tmp_path / "refused")
    assert refused.exit_code == 1
    assert "picture 'im08': " in refused.stderr
    assert (tmp_path / "refused/runs/ls/seed-0/last.pt").exists(), "training is not lost"
    skipped = calbench(*words, "-o", tmp_path / "skipped", "--on-damaged", "skip")
    assert skipped.exit_code == 0, skipped.output
    assert skipped.stderr.count("left out test picture of toy: im08: ") == 1
    found = values(json.loads((tmp_path / "skipped/results/summary.json").read_text()))
    assert {row["n_images"] for row in found if (row["metric"], row["region"]) == ("ece", "all")} == {2}


# --- other data ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_three_classes_with_void_pixels(tmp_path: Path, calbench: Command) -> None:
    images, masks = write_set(tmp_path / "three", range(12), void=True, classes=3)
    (tmp_path / "test.txt").write_text("im09\nim10\nim11\n")
    out = tmp_path / "out"
    result = calbench(
        "train-aslp", "--images", images, "--masks", masks, "--test-list", tmp_path / "test.txt", "--val-share", 0.3,
        "--methods", "bce,aslp-mc,margin", "--num-classes", 3, "--ignore-index", 255, *RECIPE, "--lr", 5e-3, *ADAPTING,
        "--epochs", 3, "--n-boot", 0, "-o", out, "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = values(json.loads((out / "results" / "summary.json").read_text()))
    for method in ("bce", "aslp-mc", "margin"):
        checkpoint = load_checkpoint(out / f"runs/{method}/seed-0/last.pt")
        network = trained_network(checkpoint)
        right = total = 0
        for number in (9, 10, 11):
            target = draw(number, void=True, classes=3)[1]
            p = logits_by_hand(network, images / f"im{number:02}.jpg").softmax(0)
            stored = np.load(out / f"predictions/{method}-s0/three/im{number:02}.npz")["probabilities"]
            np.testing.assert_allclose(stored, p, atol=2**-11)
            right += int((stored.argmax(0) == target)[target != 255].sum())
            total += int((target != 255).sum())
        accuracy = [
            row["value"] for row in found if (row["method"], row["metric"]) == (f"{method}-s0", "pixel_accuracy")
            and row["average"] == "pixels"
        ]  # fmt: skip
        assert accuracy == [pytest.approx(right / total, abs=1e-12)]
    assert alphas_of(out / "runs/aslp-mc/seed-0").max() > 0


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The official layout, with grey edges in its masks."""
    root = tmp_path / "Dataset"
    for place, numbers in (("Train/DUTS-TR", range(9)), ("Test/ECSSD", range(20, 23))):
        (root / place).mkdir(parents=True)
        images, masks = write_set(tmp_path / place.replace("/", "-"), numbers)
        images.rename(root / place / "Image")
        masks.rename(root / place / "GT")
        for mask in (root / place / "GT").iterdir():
            grey = np.asarray(Image.open(mask)).copy()
            grey[0, :9] = 100
            Image.fromarray(grey).save(mask)
    (root / "Test/DTD_Texture_500/Image").mkdir(parents=True)
    Image.fromarray(draw(50)[0]).save(root / "Test/DTD_Texture_500/Image/bumpy_0001.jpg")
    (root / "DUTS-TR-Train.txt").write_text("im03\nim00\nim01\nim05\nim04\nim02\n")
    (root / "DUTS-TR-Validation.txt").write_text("im08\nim07\nim06\n")
    return root


@pytest.mark.usefixtures("undrawn")
def test_the_official_layout_under_the_official_profile(official: Path, tmp_path: Path, calbench: Command) -> None:
    out = tmp_path / "out"
    result = calbench(
        "train-aslp", "--official", official, "--profile", "aslp", "--methods", "bce,aslp-mc", "--model", "small",
        *RECIPE, "--set", "aslp-mc.start=1", "--n-boot", 0, "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "6 images to train on, 3 to validate with, 3 of ECSSD, 1 of DTD_Texture_500" in result.stderr
    assert "eta x lambda x b is 8" in result.stderr, "2000 x 0.002 x 2, the released setting"
    checkpoint = load_checkpoint(out / "runs/aslp-mc/seed-0/last.pt")
    assert (checkpoint.config.schedule, checkpoint.config.profile) == ("aslp", "aslp")
    network = trained_network(checkpoint)
    for stem in ("im20", "im21", "im22"):
        p = logits_by_hand(network, official / f"Test/ECSSD/Image/{stem}.jpg")[0].double().sigmoid().numpy()
        level = np.asarray(Image.open(out / f"predictions/aslp-mc-s0/ECSSD/{stem}.png"))
        assert (level.min(), level.max()) == (0, 255)
        np.testing.assert_allclose(level, 255 * (p - p.min()) / (p.max() - p.min() + 1e-8), atol=0.51)
    evaluated = calbench(
        "evaluate", "--pred", f"{out}/predictions/{{method}}/ECSSD", "--gt", official / "Test/ECSSD/GT", "--profile", "aslp",
        "--dataset", "ECSSD", "--n-boot", 0, "--json", "-q",
    )  # fmt: skip
    keyed = [
        {(row["method"], row["metric"], row["average"]): row["value"] for row in document if row["dataset"] == "ECSSD"}
        for document in (
            values(json.loads((out / "results" / "summary.json").read_text())),
            values(json.loads(evaluated.stdout)),
        )
    ]
    assert differences(*keyed) == []
    assert ("aslp-mc-s0", "aslp_ece", "pixels") in keyed[0]
    summary = values(json.loads((out / "results" / "summary.json").read_text()))
    outside = {row["metric"] for row in summary if row["dataset"] == "DTD_Texture_500"}
    assert {"ood_ece", "ood_oe", "ood_entropy"} <= outside, "the profile itself has no metric of these sets"


# --- signals, processes, disks ------------------------------------------------------------------------------------------


def test_a_signal_saves_and_resume_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calbench: Command, start: Start
) -> None:
    """Ctrl-C reaches all processes of a terminal, those that read pictures, too."""
    words = holed(data, *PLAIN, *ADAPTING, "--epochs", 3, "--workers", 2)
    assert calbench(*words, "-o", tmp_path / "whole", "-q").exit_code == 0
    interrupted = start(*words, "-o", tmp_path / "interrupted", SIGNAL="SIGINT", SIGNAL_AT=5)
    printed, said = interrupted.communicate(timeout=120)
    with monkeypatch.context() as patch:
        patch.setenv("SIGNAL", "SIGTERM")
        patch.setenv("SIGNAL_AT", "5")
        terminated = calbench(*words, "-o", tmp_path / "terminated")
    assert (interrupted.returncode, terminated.exit_code) == (130, 130), said
    assert (printed, terminated.stdout) == ("", "")
    for name, errors in (("interrupted", said), ("terminated", terminated.stderr)):
        run = tmp_path / name / "runs/aslp-mc/seed-0"
        expected = f"{run / 'last.pt'} holds epoch 2, step 2 of 3; continue with --resume\ncalbench: interrupted\n"
        assert errors.endswith(expected)
        assert "Traceback" not in errors
        assert load_checkpoint(run / "last.pt").state["step"] == 2
        assert calbench(*words, "-o", tmp_path / name, "--resume", "-q").exit_code == 0
        assert_same_run(run, tmp_path / "whole/runs/aslp-mc/seed-0")


TORCHRUN = (
    "-m",
    "torch.distributed.run",
    "--nproc-per-node",
    "2",
    "--rdzv-backend",
    "c10d",
    "--rdzv-endpoint",
    "localhost:0",
)


def test_two_processes_train_as_one_does(data: Path, tmp_path: Path, calbench: Command, start: Start) -> None:
    """The last step has one image, all void under this seed in epoch 2: a step that neither one nor two processes take."""
    seed = next(s for s in count() if rng(s, 2, "order").permutation(9)[8] == 3)
    words = holed(data, *PLAIN, *ADAPTING, "--epochs", 3, "--seed", seed, "--lr", 1e-2)
    assert calbench(*words, "-o", tmp_path / "one", "-q").exit_code == 0
    runs = {name: tmp_path / name / f"runs/aslp-mc/seed-{seed}" for name in ("one", "two", "stopped")}

    # the signal comes to the first process alone, in the middle of the second epoch
    stopped = start(*words, "-o", tmp_path / "stopped", by=TORCHRUN, SIGNAL="SIGTERM", SIGNAL_AT=5)
    both = start(*words, "-o", tmp_path / "two", by=TORCHRUN, REPLACED=tmp_path / "replaced-")
    printed, said = both.communicate(timeout=120)
    assert both.returncode == 0, said
    assert (said.count("9 images to train on"), said.count("no test set")) == (1, 1)
    assert printed == f"{tmp_path / 'two' / 'runs'}\n"
    one, two = (contents(runs[name]) for name in ("one", "two"))
    for mine, theirs in zip(one["metrics.csv"], two["metrics.csv"], strict=True):
        assert {k: float(v) for k, v in theirs.items()} == pytest.approx(
            {k: float(v) for k, v in mine.items()}, abs=1e-6
        )
    for mine, theirs in zip(one["alphas.csv"], two["alphas.csv"], strict=True):
        assert (mine.pop("name"), mine["visits"]) == (theirs.pop("name"), theirs["visits"])
        assert [float(v or -1) for v in theirs.values()] == pytest.approx(
            [float(v or -1) for v in mine.values()], abs=1e-6
        )
    assert len(set(alphas_of(runs["one"]))) > 5
    assert weights_apart(runs["one"], runs["two"]) < 1e-5
    replaced = [Path(line) for line in (tmp_path / "replaced-0").read_text().splitlines()]
    kept = {path.name for path in replaced if "runs" in path.parts}
    assert kept == {"last.pt", "best.pt", "metrics.csv", "alphas.csv"}
    assert not (tmp_path / "replaced-1").exists(), "the second process wrote something"

    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode != 0
    assert f"{runs['stopped'] / 'last.pt'} holds epoch 2, step 2 of 3; continue with --resume" in said
    assert load_checkpoint(runs["stopped"] / "last.pt").state["step"] == 2
    resumed = calbench(*words, "-o", tmp_path / "stopped", "--resume", "-q")
    assert resumed.exit_code == 0, resumed.output
    assert weights_apart(runs["one"], runs["stopped"]) < 1e-5
    np.testing.assert_allclose(alphas_of(runs["stopped"]), alphas_of(runs["one"]), atol=1e-6)
    assert rows(runs["stopped"], "metrics.csv")[1]["loss"][:8] == rows(runs["one"], "metrics.csv")[1]["loss"][:8]


def test_a_full_disk_keeps_the_checkpoint_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calbench: Command
) -> None:
    out = tmp_path / "out"
    words = toy(data, "--method", "bce", "-o", out)
    begin = Run.begin

    def dying(run: Run, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt
        begin(run, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "begin", dying)
        assert calbench(*words).exit_code == 130
    last = out / "runs/bce/seed-0/last.pt"
    before = last.read_bytes()
    limited = (
        "import resource, sys; from calbench.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))\n"
        "main(sys.argv[1:])"
    )
    result = subprocess.run(
        [sys.executable, "-c", limited, *map(str, words), "--resume"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    best = last.with_name("best.pt")
    found = rf"calbench: cannot write {re.escape(str(best))}, 5\.\d MB: File too large; the checkpoint before it is intact; "
    assert re.search(found + "make room, and continue with --resume", result.stderr), result.stderr
    assert last.read_bytes() == before
    assert sorted(path.name for path in last.parent.iterdir()) == ["best.pt", "last.pt", "metrics.csv"]
    assert calbench(*words, "--resume").exit_code == 0
    assert len(load_checkpoint(last).state["history"]) == 2


def test_a_loss_that_is_no_number_says_what_is_left(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calbench: Command
) -> None:
    monkeypatch.setenv("NAN_AT", "4")
    result = calbench(*toy(data, *PLAIN, "--method", "bce", "-o", tmp_path))
    last = tmp_path / "runs/bce/seed-0/last.pt"
    assert result.exit_code == 1
    assert f"calbench: the loss is nan in epoch 2 at step 1; {last} holds the last good state; start" in result.stderr
    held = load_checkpoint(last)
    assert all(bool(value.isfinite().all()) for value in held.model.values())
    assert held.state["epoch"] == 2


# --- what is refused ----------------------------------------------------------------------------------------------------


BAD = [
    (("--masks", "{tmp}/absent"), 1, "absent is not a folder"),
    (("--val-list", "{tmp}/empty.txt"), 1, "empty.txt holds no name; expected file names"),
    (("--val-list", "{tmp}/twice.txt"), 1, "1 name more than once in {tmp}/twice.txt:\n  im08\nkeep each of them once"),
    (("--val-list", "{tmp}/other.txt"), 1, "1 of 2 names in {tmp}/other.txt not found in toy, which has 14 pictures"),
    (("--test-list", "{data}/val.txt"), 1, "3 pictures would be validated with and tested with, in toy, which flatters"),
    (("--train-list", "{data}/val.txt"), 1, "3 pictures would be trained on and validated with, which flatters"),
    (("--test", "x={data}/toy/image", "--test-masks", "x={data}/toy/gt"), 1,
     "11 pictures would be trained on and tested with, in x"),
    (("--ood", "x={data}/textures"), 2, "--ood names 'x', but no test set is named"),
    (("--ood", "textures"), 2, "--ood 'textures' is not NAME=FOLDER"),
    (("--test", "t={data}/toy/image"), 2, "the test set 't' needs both --test t=IMAGES and --test-masks t=MASKS"),
    (("--official", "{data}"), 2, "--official says which images are for what, and how masks are read: it does not go with"),
    (("--method", "aslp_mc"), 2, "there is no method 'aslp_mc'; did you mean 'aslp-mc'?"),
    (("--methods", "bce,bce"), 2, "bce-s0 is named twice"),
    (("--methods", ","), 2, "name at least one method and one seed"),
    (("--set", "focal.gamma=2"), 2, "--set names 'focal', which is not trained; --methods are bce"),
    (("--method", "focal", "--set", "focal.gama=2"), 2, "there is no parameter of 'focal' 'gama'; did you mean 'gamma'?"),
    (("--method", "focal", "--set", "focal.gamma=much"), 2, "parameter gamma of 'focal' is 'much'; expected a finite number"),
    (("--set", "gamma=2"), 2, "--set 'gamma=2' is not NAME.KEY=VALUE"),
    (("--set", "model.depth=3"), 2, "model 'small': got an unexpected keyword argument 'depth'"),
    (("--seeds", "one"), 2, "--seeds is 'one'; expected whole numbers between commas"),
    (("--seeds", ""), 2, "name at least one method and one seed"),
    (("--model", "resnet50"), 2, "there is no model 'resnet50'; did you mean 'aslp-resnet50'?"),
    (("--weights", "{tmp}/absent.pth"), 1, "absent.pth"),
    (("--epochs", 0), 2, "epochs is 0; expected 1 or more"),
    (("--lr", -1), 2, "lr is -1.0; expected a number above 0"),
    (("--val-list", "{tmp}/absent.txt"), 1, "cannot read {tmp}/absent.txt"),
    (("--num-classes", 2, "--gt-threshold", 3), 2, "--gt-threshold is for binary masks, but --num-classes is 2"),
    (("--format", "jpg"), 2, "'jpg' is not one of 'npz', 'png16', 'png8'"),
    pytest.param(("--device", "cuda"), 2, "the device is cuda, and torch finds no GPU; say --device cpu",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")),
]  # fmt: skip


@pytest.mark.parametrize(("options", "code", "message"), BAD)
def test_bad_options_are_refused_before_anything_is_written(
    options: tuple[object, ...], code: int, message: str, data: Path, tmp_path: Path, calbench: Command
) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "twice.txt").write_text("im08\nim09\nim08.jpg\n")
    (tmp_path / "other.txt").write_text("im08\nim99\n")
    words = [str(word).format(tmp=tmp_path, data=data) for word in options]
    result = calbench(*toy(data, "--method", "bce", "-o", tmp_path / "out", *words))
    assert result.exit_code == code, result.output
    assert message.format(tmp=tmp_path, data=data) in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_no_masks_and_no_output_are_refused(data: Path, tmp_path: Path, calbench: Command) -> None:
    result = calbench("train-aslp", "--images", data / "toy/image", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "say where the images and masks are: --images DIR --masks DIR, or --official DIR" in result.stderr
    result = calbench("train-aslp", "--images", data / "toy/image", "--masks", data / "toy/gt")
    assert result.exit_code == 2
    assert "Missing option '-o'" in result.stderr


def test_pictures_and_masks_that_do_not_go_together_are_refused(tmp_path: Path, calbench: Command) -> None:
    images, masks = write_set(tmp_path, range(4))
    words = ("train-aslp", "--images", images, "--masks", masks, *RECIPE, "-o", tmp_path / "out")
    mask = masks / "im02.png"
    held = mask.read_bytes()
    mask.unlink()
    result = calbench(*words)
    assert result.exit_code == 1
    assert f"1 picture without a mask in {images} and {masks}:\n  {images / 'im02.jpg'}\n" in result.stderr

    Image.fromarray(np.zeros((20, 28), np.uint8)).save(mask)
    result = calbench(*words)
    assert result.exit_code == 1
    assert f"1 of 4 masks of {tmp_path.name} differ in size" in result.stderr
    assert f"{images / 'im02.jpg'} 56x40, mask 28x20 (WxH)" in result.stderr

    mask.write_bytes(held)
    Image.fromarray(draw(2)[0]).save(images / "im02.png")
    result = calbench(*words)
    assert result.exit_code == 1
    assert "share their name with another" in result.stderr
    (images / "im02.png").unlink()

    damage(images / "im00.jpg")
    result = calbench(*words, "--val-share", 0.25, "--split-seed", 1)
    assert result.exit_code == 1
    assert "image 'im00': " in result.stderr
    assert not (tmp_path / "out").exists()
