"""The commands of training: parse, call one function, print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calbench.options import (
    CONFIG,
    INTERVALS,
    JSON,
    MASK_VALUES,
    NAMES,
    announcer,
    command_line,
    parsed_parameters,
    split_names,
    with_options,
)

if TYPE_CHECKING:
    from calbench.training.config import TrainingConfig

GPU_WORKERS = 4
OOD_METRICS = ("ood_entropy", "ood_ece", "ood_oe")
"""What is measured of out-of-distribution sets whatever the profile."""
MODEL = "model"
"""What `--set model.KEY=VALUE` sets is for the network."""


@click.command("train-aslp")
@with_options(
    [
        click.option("--method", "--methods", "methods", default="aslp-mc", show_default=True, metavar=NAMES,
                     help="How to train (see `calbench losses`); the first is what others are compared with."),
        click.option("--seed", "--seeds", "seeds", default="0", show_default=True, metavar=NAMES,
                     help="Of weights, order and draws; each method is trained once a seed."),
        click.option("--images", metavar="DIR", help="Pictures to train on and to validate with."),
        click.option("--masks", metavar="DIR", help="Their masks, matched by stem."),
        click.option("--official", metavar="DIR",
                     help="In place of these: a Dataset/ folder laid out as the official code of ASLP has it."),
        click.option("--mask-suffix", default="", help="Ending of the mask stems, removed before names are matched."),
        click.option("--train-list", metavar="FILE", type=click.Path(dir_okay=False),
                     help="Names to train on, one a line. Default: all that no other list names."),
        click.option("--val-list", metavar="FILE", type=click.Path(dir_okay=False),
                     help="Names to validate with. Default: drawn from those to train on."),
        click.option("--test-list", metavar="FILE", type=click.Path(dir_okay=False), help="Names to test with."),
        click.option("--val-share", type=float, help="Share of images drawn to validate. Default: 0.1."),
        click.option("--split-seed", type=int, help="Of that draw, the same for all runs. Default: 0."),
        click.option("--test", "tests", multiple=True, metavar="NAME=DIR", help="Pictures of a test set (repeatable)."),
        click.option("--test-masks", multiple=True, metavar="NAME=DIR", help="Masks of that test set (repeatable)."),
        click.option("--ood", multiple=True, metavar="NAME=DIR",
                     help="Pictures with nothing to find: an out-of-distribution set (repeatable)."),
        click.option("--num-classes", type=click.IntRange(min=2), metavar="C",
                     help="Classes of label masks. Default: binary masks."),
    ],
    MASK_VALUES,
    [
        click.option("--model", default="small", show_default=True, metavar="NAME",
                     help="Network: small, aslp-resnet50, or package.module:function of your own."),
        click.option("--weights", metavar="FILE",
                     help="To start from: imagenet (downloaded), or a file of ImageNet's, ASLP's or calbench's."),
        click.option("--size", type=int, metavar="N", help="Side that pictures are resized to. Default: the network's."),
        click.option("--epochs", type=int, metavar="N", help="Passes over the images. Default: the network's."),
        click.option("--batch", type=int, metavar="N",
                     help="Images a step, over all processes and parts together. Default: 10."),
        click.option("--accumulate", type=int, default=1, show_default=True, metavar="N",
                     help="Parts that a step's images go through the network in, to save memory."),
        click.option("--lr", type=float, help="Learning rate of Adam. Default: the network's."),
        click.option("--schedule", type=click.Choice(["step", "constant", "aslp"]),
                     help="Of the learning rate. Default: step; aslp compounds, as the official code."),
        click.option("--decay", type=float, help="Factor of the schedule. Default: 0.95."),
        click.option("--decay-epochs", type=int, metavar="N", help="Epochs between two factors. Default: 10."),
        click.option("--no-augment", is_flag=True, help="Do not flip, crop and turn pictures."),
        click.option("--set", "parameters", multiple=True, metavar="METHOD.KEY=VALUE",
                     help="Parameter of a method, such as aslp-mc.beta=1.5, or of the network: model.KEY (repeatable)."),
        click.option("--profile", type=click.Choice(["calbench", "aslp"]), default="calbench", show_default=True,
                     help="aslp: train, predict and evaluate as the official code does."),
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
                     help="Where to train; under torchrun each process has its own GPU."),
        click.option("--precision", type=click.Choice(["fp32", "bf16"]),
                     help="Numbers of the forward pass. Default: bf16 on a GPU, fp32 on a CPU."),
        click.option("--compile", is_flag=True, help="Compile the network, which pays on long runs."),
        click.option("--workers", type=click.IntRange(min=0), metavar="N",
                     help="Processes that read pictures; 0 for none but the one that trains. Default: 4 on a GPU, else 0."),
        click.option("-j", "--jobs", type=int, default=1, show_default=True, metavar="N",
                     help="Runs side by side, each with its share of the cores; for CPUs."),
        click.option("--on-damaged", type=click.Choice(["error", "skip"]), default="error", show_default=True,
                     help="When a picture to train on cannot be read; skipped ones are named."),
        click.option("--best-by", type=click.Choice(["nll", "accuracy", "ece"]), default="nll", show_default=True,
                     help="Validation number that says which epoch best.pt is of."),
        click.option("--use", type=click.Choice(["last", "best"]), default="last", show_default=True,
                     help="Which checkpoint predicts the test sets."),
        click.option("--format", type=click.Choice(["npz", "png16", "png8"]), help="Of the predictions. Default: npz."),
        click.option("--tensorboard", is_flag=True, help="Write events for TensorBoard, too."),
        click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="OUT",
                     help="Folder for runs/, predictions/, results/ and report/."),
        click.option("--resume", is_flag=True, help="Continue what was interrupted in OUT; the report is of the runs named."),
        click.option("--force", is_flag=True, help="Remove the folders of an earlier comparison in OUT with all they hold."),
        *INTERVALS[:2],
        click.option("--group-by", metavar="REGEX", help="Keep test images whose names match alike together."),
        JSON,
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors."),
    ],
    CONFIG,
)  # fmt: skip
def train_aslp(output: Path, resume: bool, force: bool, as_json: bool, quiet: bool, **given: Any) -> None:
    """Train with calibration methods, and compare them on test sets.

    Every method is trained once a seed, on the same images, and predicts the test sets; all are evaluated together, in and
    out of distribution, with intervals over seeds. One method and one seed is a plain training run. Checkpoints are written
    after each epoch; Ctrl-C saves, and --resume continues as if nothing had happened.

    \b
    Examples:
      calbench train-aslp --images data/image --masks data/gt -o runs
      calbench train-aslp --methods bce,ls,aslp-mc --seeds 0,1,2 --images data/image --masks data/gt \\
          --val-list val.txt --test-list test.txt --ood textures=data/DTD -o comparison
      calbench train-aslp --methods bce,slp --set slp.kind=si --set slp.alpha=0.03 --images data/image --masks data/gt -o si
      calbench train-aslp --official Dataset --model aslp-resnet50 --weights imagenet --profile aslp -o aslp
      torchrun --nproc-per-node 4 -m calbench train-aslp --official Dataset --model aslp-resnet50 -o ddp
    """
    from calbench.errors import plural
    from calbench.evaluate import Settings
    from calbench.io.coding import MaskCoding
    from calbench.profiles import PROFILES
    from calbench.report.seeds import seed_tables
    from calbench.report.tables import console
    from calbench.results import jsonable
    from calbench.seeds import over_seeds
    from calbench.training.distributed import in_first_process
    from calbench.training.experiment import Comparison, How, refuse_output, train_and_compare
    from calbench.training.sets import SetOptions, find_sets

    classes = given["num_classes"] or 1
    official = given["profile"] == "aslp"
    values = {
        name: given[name] for name in ("gt_threshold", "void_values", "ignore_index", "reduce_zero_label", "label_map")
    }
    if in_first_process():
        refuse_output(output, resume=resume, force=force)
    configs = _configs(given)
    sets = find_sets(
        SetOptions(
            images=given["images"], masks=given["masks"], official=given["official"], train_list=given["train_list"],
            validation_list=given["val_list"], test_list=given["test_list"], validation_share=given["val_share"],
            split_seed=given["split_seed"], tests=given["tests"], test_masks=given["test_masks"], ood=given["ood"],
            mask_suffix=given["mask_suffix"], classes=classes, raw=official, coding=values,
        )
    )  # fmt: skip
    common = {name: given[name] for name in ("profile", "ci", "n_boot", "group_by")}
    of_profile = PROFILES[given["profile"]].metrics
    lacking = tuple(name for name in OOD_METRICS if sets.ood and name not in of_profile)
    settings = Settings(metrics=(*of_profile, *lacking) if lacking else None, **common)
    comparison = Comparison(configs, sets, values, settings, given["use"], given["format"])
    say = announcer(quiet)
    coding = sets.training.coding
    for line in sets.copies() if in_first_process() else ():
        say(line)
    tests = (f", {len(images):,} of {images.name}" for images in (*sets.tests, *sets.ood))
    if in_first_process():
        coded = f"; masks {coding.kind} (foreground > {coding.threshold})" if isinstance(coding, MaskCoding) else ""
        if official:
            coded = "; masks as grey values / 255"
        say(
            f"{plural(len(sets.training), 'image')} to train on, {len(sets.validation):,} to validate with"
            f"{''.join(tests)}{coded}"
        )
    how = How(
        device=given["device"], workers=GPU_WORKERS * _on_gpu(given) if given["workers"] is None else given["workers"],
        jobs=given["jobs"], resume=resume, force=force, tensorboard=given["tensorboard"], progress=not quiet, announce=say,
        command=command_line(),
    )  # fmt: skip
    found = train_and_compare(comparison, output, how)
    if found is None:
        return
    if found.results is None or found.record is None:
        click.echo(json.dumps({"output": str(output), "page": None, "seeds": []}) if as_json else str(output / "runs"))
        return
    if as_json:
        rows = [jsonable(row._asdict()) for row in over_seeds(found.results, found.record, ci=settings.ci)]
        click.echo(
            json.dumps({"output": str(output), "page": str(found.page), "seeds": rows}, indent=2, ensure_ascii=False)
        )
        return
    screen = console()
    for table in seed_tables(found.results, found.record):
        screen.print(table)
    click.echo(found.page)


def _configs(given: dict[str, Any]) -> tuple[TrainingConfig, ...]:
    """A configuration for each method and seed: all methods of a seed before the next seed."""
    from calbench.errors import OptionError
    from calbench.training.config import TrainingConfig
    from calbench.training.methods import method_named

    methods, seeds = split_names(given["methods"]) or (), split_names(given["seeds"]) or ()
    try:
        numbers = [int(seed) for seed in seeds]
    except ValueError as error:
        raise OptionError(
            f"--seeds is {given['seeds']!r}; expected whole numbers between commas, such as 0,1,2"
        ) from error
    if not methods or not numbers:
        raise OptionError("name at least one method and one seed")
    options = {name.replace("_", "-"): values for name, values in parsed_parameters(given["parameters"]).items()}
    model_options = options.pop(MODEL, {})
    for name in options:
        if name not in methods:
            raise OptionError(f"--set names {name!r}, which is not trained; --methods are {', '.join(methods)}")
    on_gpu = _on_gpu(given)
    shared = {name: given[name] for name in (
        "profile", "weights", "size", "epochs", "batch", "accumulate", "lr", "schedule", "decay", "decay_epochs", "compile",
        "best_by",
    )}  # fmt: skip
    shared |= {
        "model_options": model_options,
        "classes": given["num_classes"] or 1,
        "augment": not given["no_augment"],
        "precision": given["precision"] or ("bf16" if on_gpu else "fp32"),
        "channels_last": on_gpu,
        "skip_damaged": given["on_damaged"] == "skip",
    }
    configs = []
    for seed in numbers:
        for name in methods:
            method = method_named(name)
            config = TrainingConfig.of(
                given["model"], {**shared, "method": name, "seed": seed, "options": options.get(name, {})}
            )
            method.build(config.options, classes=config.classes, official=config.profile == "aslp")
            configs.append(config)
    return tuple(configs)


def _on_gpu(given: dict[str, Any]) -> bool:
    from calbench.training.distributed import device_named

    return device_named(given["device"]).type == "cuda"


@click.command("losses")
@JSON
def losses(as_json: bool) -> None:
    """List every training method, and the losses behind them: formula, source, parameters.

    \b
    Examples:
      calbench losses
      calbench losses --json
    """
    from calbench.losses import LOSSES
    from calbench.training.methods import METHODS

    entries: list[dict[str, Any]] = [
        {
            "name": method.name,
            "summary": method.summary,
            "loss": LOSSES[method.loss].definition,
            "source": method.source,
            "parameters": method.parameters,
            "binary": LOSSES[method.loss].binary,
        }
        for method in METHODS.values()
    ]
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    for entry in entries:
        click.echo(entry["name"] + ("" if entry["binary"] else "  (several classes only)"))
        click.echo(f"    {entry['summary']}\n    {entry['loss']}\n    {entry['source']}")
        if entry["parameters"]:
            shown = (f"{key}={json.dumps(value)}" for key, value in entry["parameters"].items())
            click.echo(f"    parameters: {', '.join(shown)}")


@click.command("predict")
@with_options(
    [
        click.option("--checkpoint", required=True, type=click.Path(dir_okay=False), metavar="FILE",
                     help="last.pt or best.pt of `calbench train-aslp`, or a torch file with a plain state_dict."),
        click.option("--images", required=True, metavar="DIR", help="Folder of the pictures; no ground truth is read."),
        click.option("-o", "--output", required=True, type=click.Path(file_okay=False), metavar="OUT",
                     help="Folder for the maps: one a picture, of its stem, in its sub-folder."),
        click.option("--names", type=click.Path(dir_okay=False), metavar="FILE",
                     help="Stems of the pictures to predict, one a line. Default: all."),
        click.option("--model", metavar="NAME",
                     help="Network of a plain state_dict: aslp-resnet50, small or package.module:function."),
        click.option("--classes", type=click.IntRange(min=1), metavar="C",
                     help="Classes of a plain state_dict. Default: 1, of binary maps."),
        click.option("--size", type=click.IntRange(min=1), metavar="N",
                     help="Side that pictures are resized to for the network, pixels. Default: that of its training."),
        click.option("--flip", is_flag=True, help="Average the logits with those of the mirrored picture."),
        click.option("--format", type=click.Choice(["npz", "png16", "png8"]),
                     help="float16 arrays, or grey levels of 16 or 8 bits for binary maps. Default: npz."),
        click.option("--profile", type=click.Choice(["calbench", "aslp"]), default="calbench", show_default=True,
                     help="aslp: stretch each map to 0 ... 255, 8-bit PNG, as in the official test code."),
        click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="cpu", show_default=True,
                     help="Where the network runs; auto: on the GPU where there is one."),
        click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True, metavar="N",
                     help="Pictures at once."),
        click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
                     help="Processes that read pictures; 0 for none but this one."),
        click.option("--precision", type=click.Choice(["fp32", "bf16"]),
                     help="Numbers of the forward pass. Default: those of the training, fp32 of a plain state_dict."),
        click.option("--on-damaged", type=click.Choice(["error", "skip"]), default="error", show_default=True,
                     help="When a picture cannot be read; skipped ones are named."),
        click.option("--resume", is_flag=True, help="Keep what this checkpoint wrote from the same pictures before."),
        click.option("--force", is_flag=True, help="Replace what the folder holds."),
    ],
    [JSON, click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors.")],
    CONFIG,
)  # fmt: skip
def predict(on_damaged: str, resume: bool, force: bool, as_json: bool, quiet: bool, **given: Any) -> None:
    """Write the prediction of every picture of a folder.

    Pictures are resized for the network, logits back to the size of each picture. Files hold probabilities, rounded: every
    pixel keeps its class, and what else rounding costs is printed. `calbench evaluate` reads the folder as it is.

    \b
    Examples:
      calbench predict --checkpoint last.pt --images data/SOD/images -o preds/mynet/SOD
      calbench predict --checkpoint last.pt --images data/SOD/images -o preds/mynet/SOD --format png16 --flip
      calbench predict --checkpoint Model_30_Gen.pth --model aslp-resnet50 --images data/SOD/images -o preds/aslp/SOD
    """
    from calbench.training.predict import PredictOptions, predict_folder

    options = PredictOptions(**given, skip_damaged=on_damaged == "skip")
    predicted = predict_folder(options, resume=resume, force=force, progress=not quiet, announce=announcer(quiet))
    click.echo(json.dumps(predicted.to_json(), indent=2, ensure_ascii=False) if as_json else predicted.text)
