"""The options that commands share, and the TOML file that may set them."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from calbench.evaluate import TIES
from calbench.profiles import PROFILES

Command = Callable[..., Any]

NAMES = "A,B,..."
"""Metavar of options that take names between commas."""


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take defaults from a TOML file whose keys are option names; the command line wins."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"cannot read {path}: {error}") from error
    known = {name.lstrip("-"): p for p in ctx.command.params if isinstance(p, click.Option) for name in p.opts}
    del known["config"]
    defaults = {}
    for key, value in values.items():
        option = known.get(key.replace("_", "-"))
        if option is None and key.replace("_", "-") in _names_of_all(ctx):
            continue  # of another command: one file may serve several
        if option is None:
            raise click.BadParameter(f"{path} sets {key!r}; keys are option names, such as pred, gt, n-boot")
        defaults[str(option.name)] = _config_value(path, key, option, value)
    ctx.default_map = defaults


def _names_of_all(ctx: click.Context) -> set[str]:
    """Names of the options of all commands."""
    group = ctx.find_root().command
    commands = group.commands.values() if isinstance(group, click.Group) else [ctx.command]
    return {
        name.lstrip("-")
        for command in commands
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
        if name != "--config"
    }


def _config_value(path: Path, key: str, option: click.Option, value: Any) -> Any:
    """A value of the type that the option takes; one value stands for a list of one, a list of names for `a,b`."""
    if option.multiple and not isinstance(value, list):
        value = [value]
    elif isinstance(value, list) and option.metavar == NAMES:
        value = ",".join(map(str, value))
    kinds: dict[str, tuple[type, ...]] = {
        "integer": (int,),
        "integer range": (int,),
        "float": (int, float),
        "boolean": (bool,),
    }
    wanted = kinds.get(option.type.name, (str,))
    for item in value if option.multiple else [value]:
        if not isinstance(item, wanted) or (isinstance(item, bool) and bool not in wanted):
            raise click.BadParameter(f"{path} sets {key} = {value!r}; expected {option.type.name}")
    return value


def with_options(*groups: list[Command]) -> Callable[[Command], Command]:
    """Several lists of option decorators, in order of appearance."""

    def decorate(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


CONFIG = [
    click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), is_eager=True,
                 expose_value=False, callback=_read_config,
                 help="TOML file of options (keys are option names); the command line wins."),
]  # fmt: skip
MASK_VALUES = [
    click.option("--gt-threshold", type=int, metavar="N",
                 help="Foreground is mask byte > N. Default: 128, or 0 where masks hold only 0 and 1."),
    click.option("--void-value", "void_values", type=int, multiple=True, metavar="N",
                 help="Mask byte that means void (repeatable); such pixels enter no metric."),
    click.option("--ignore-index", "ignore_index", type=int, multiple=True, metavar="N",
                 help="Label that means void (repeatable), as stored in the masks; 0 and -1 are legal."),
    click.option("--reduce-zero-label", is_flag=True, help="Label 0 is void (255, too, below 255 classes); 1 is class 0."),
    click.option("--label-map", type=click.Path(dir_okay=False), metavar="FILE",
                 help="JSON or two-column text: stored label -> class, or ignore."),
]  # fmt: skip
INPUT = [
    click.option("--pred", metavar="DIR",
                 help="Predictions: a folder or file, or a template with {method} and {dataset}."),
    click.option("--gt", metavar="DIR",
                 help="Ground truth: a folder, or a template with {dataset}; none for tables and .npz files that hold both."),
    click.option("--mask", metavar="DIR", help="Field of view (folder or template): pixels outside are void."),
    click.option("--pred-suffix", default="", help="Ending of the prediction stems, removed before matching."),
    click.option("--gt-suffix", default="", help="Ending of the mask stems, removed before matching."),
    click.option("--method", "methods", multiple=True, metavar="NAME",
                 help="Name of the method; with {method} in --pred, keep only this one (repeatable)."),
    click.option("--dataset", "datasets", multiple=True, metavar="NAME",
                 help="Name of the data set; with {dataset} in --pred, keep only this one (repeatable)."),
    *MASK_VALUES,
    click.option("--input", type=click.Choice(["levels", "probabilities", "logits"]),
                 help="What predictions hold. Default: inferred once a folder, and printed."),
    click.option("--layout", type=click.Choice(["CHW", "HWC"], case_sensitive=False),
                 help="Axes of predictions of several classes. Default: inferred once a folder."),
    click.option("--num-classes", type=int, metavar="C", help="Classes of the predictions. Default: theirs."),
    click.option("--npz-key", metavar="KEY", help="Array of .npz predictions. Default: data, probabilities, logits, ..."),
    click.option("--gt-npz-key", metavar="KEY", help="Array of .npz masks. Default: label, ground_truth, gt, ..."),
    click.option("--on-mismatch", type=click.Choice(["error", "resize-pred", "skip"]), default="error", show_default=True,
                 help="When a prediction and its mask differ in size."),
    click.option("--on-missing", type=click.Choice(["error", "skip"]), default="error", show_default=True,
                 help="When a prediction or a mask has no partner."),
]  # fmt: skip
PARTS = [
    click.option("--regions", is_flag=True,
                 help="Also boundary and interior of the objects, and quarters of the images by object size."),
    click.option("--boundary-width", type=float, default=5.0, show_default=True, metavar="PX",
                 help="Pixels this near to another class are boundary."),
    click.option("--ood", multiple=True, metavar="NAME=DIR",
                 help="Predictions on images with nothing to find, a folder or template with {method} (repeatable)."),
    click.option("--ood-gt", multiple=True, metavar="NAME=DIR", help="Masks of such a set, for their void pixels only."),
]  # fmt: skip
IMAGES = [
    click.option("--images", metavar="DIR",
                 help="Pictures the predictions were made from (folder or template), for calibrators that look at them."),
    click.option("--resize-images", is_flag=True, help="Resize pictures of another size than their prediction (bilinear)."),
]  # fmt: skip
CALIBRATED = [
    click.option("--calibrator", type=click.Path(dir_okay=False), metavar="FILE",
                 help="Measure the predictions after this calibrator (of `calbench calibrate`), without writing them."),
    click.option("--allow-overlap", is_flag=True, help="Even on images that the calibrator was fitted on."),
]  # fmt: skip
INTERVALS = [
    click.option("--ci", type=float, default=0.95, show_default=True, help="Level of the intervals."),
    click.option("--n-boot", type=int, default=1000, show_default=True, help="Bootstrap replicates; 0 for no intervals."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap, and of fits and splits."),
    click.option("--group-by", metavar="REGEX",
                 help="Keep images whose names match alike (first group, if any) together: patients, videos."),
]  # fmt: skip
NUMBERS = [
    click.option("--profile", type=click.Choice(list(PROFILES)), default="calbench", show_default=True,
                 help="Set of metrics and conventions."),
    click.option("--metrics", metavar=NAMES, help="Only these metrics (see `calbench metrics`)."),
    click.option("--exclude", metavar=NAMES, help="All of the profile but these, e.g. weighted_f, the slow one."),
    click.option("--bins", type=int, metavar="B", help="Equal-width or equal-mass bins. Default: the profile's (15)."),
    click.option("--ties", type=click.Choice(TIES), help="Tied pixels in equal-mass bins. Default: split in proportion."),
    click.option("--debias-bins", type=int, metavar="B", help="Cells of aslp_debias. Default: 100, as in the scripts."),
    click.option("--batch", type=int, metavar="N", help="Images a batch of mbls_segmentation_ece. Default: 1."),
    *INTERVALS,
]  # fmt: skip
JOBS = [click.option("-j", "--jobs", type=int, metavar="N", help="Processes. Default: cores, fewer for small sets.")]
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
QUIET = [
    JSON,
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but results and errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say also what the doctor notes without need of action."),
]
OUTPUT = [
    click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), metavar="OUT",
                 help="Folder for summary.json, the CSV files, stats.npz and the diagrams."),
    click.option("--force", is_flag=True, help="Replace results that OUT already holds."),
]  # fmt: skip


def announcer(quiet: bool) -> Callable[[str], None]:
    """What takes lines for people: stderr, or nothing."""
    return (lambda _: None) if quiet else (lambda message: click.echo(message, err=True))


def command_line() -> str:
    """The command that was given, with what a configuration file added, for a shell."""
    context = click.get_current_context()
    words = ["calbench", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(parameter.name))
        if source not in (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP):
            continue
        if parameter.name == "force" or not parameter.expose_value:
            continue
        many = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            words += map(str, many)
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words += [parameter.opts[-1]] * bool(value)
        else:
            words += [word for item in many for word in (parameter.opts[-1], str(item))]
    return shlex.join(words)


def split_names(text: str | None) -> tuple[str, ...] | None:
    """The names in a text, between commas."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def parsed_parameters(texts: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Parameters of calibrators or methods by name; values are JSON, or text where they are none."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        name, dot, key = target.partition(".")
        if not (equals and dot and name and key):
            raise click.UsageError(f"--set {text!r} is not NAME.KEY=VALUE, such as selective.t_wrong=2")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        found.setdefault(name.replace("-", "_"), {})[key.replace("-", "_")] = parsed
    return found
