"""Networks: the study's against functional calls and its table of weights, the small one, and how they are built."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from calbench.errors import FormatError, InputError, OptionError, UnknownName
from calbench.training.models import MODELS, AslpResNet50, SmallUNet, build_model, load_imagenet, load_official

Shapes = dict[str, tuple[int, ...]]

STAGES = {"layer1": (3, 64, 64), "layer2": (4, 128, 256), "layer3_1": (6, 256, 512), "layer4_1": (3, 512, 1024)}
"""Blocks, width, channels into the first block."""
COPIES = {"layer3_2": STAGES["layer3_1"], "layer4_2": STAGES["layer4_1"]}
UNUSED = ("resnet.layer3_2.", "resnet.layer4_2.", "path4.resConfUnit1.")


def batch_norm(name: str, width: int) -> Shapes:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def convolution(name: str, outputs: int, inputs: int, side: int = 3) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def resnet_shapes(stages: dict[str, tuple[int, int, int]]) -> Shapes:
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | batch_norm("bn1", 64)
    for stage, (blocks, width, first) in stages.items():
        for block in range(blocks):
            at, inputs = f"{stage}.{block}", first if block == 0 else 4 * width
            for number, size in enumerate([(width, inputs, 1), (width, width, 3), (4 * width, width, 1)], 1):
                outputs, channels, side = size
                shapes[f"{at}.conv{number}.weight"] = (outputs, channels, side, side)
                shapes |= batch_norm(f"{at}.bn{number}", outputs)
            if block == 0:
                shapes[f"{at}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                shapes |= batch_norm(f"{at}.downsample.1", 4 * width)
    return shapes


def official_shapes() -> Shapes:
    """Names and shapes of `Model_30_Gen.pth`, by the rules of its table."""
    shapes = {f"resnet.{name}": shape for name, shape in resnet_shapes(STAGES | COPIES).items()}
    for level, inputs in ((4, 2048), (3, 1024), (2, 512), (1, 256)):
        for branch in range(4):
            shapes |= convolution(f"conv{level}.conv2d_list.{branch}", 256, inputs)
        for unit in (1, 2):
            for number in (1, 2):
                shapes |= convolution(f"path{level}.resConfUnit{unit}.conv{number}", 256, 256)
    shapes |= convolution("output_conv.0", 128, 256) | convolution("output_conv.2", 32, 128)
    return shapes | convolution("output_conv.4", 1, 32, side=1)


def executed(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(UNUSED)}


def shapes_of(module: nn.Module) -> Shapes:
    return {name: tuple(weight.shape) for name, weight in module.state_dict().items()}


def blank(**options: Any) -> AslpResNet50:
    """The study's network, all weights 0."""
    with torch.device("meta"):
        network = AslpResNet50(**options)
    network.to_empty(device="cpu")
    for weight in network.state_dict().values():
        weight.zero_()
    return network


def numbered(shapes: Shapes) -> dict[str, Tensor]:
    """Weights whose every entry is the number of their name: one stored number each, so that files stay small."""
    return {
        name: torch.tensor(number if name.endswith("num_batches_tracked") else float(number)).expand(shape)
        for number, (name, shape) in enumerate(shapes.items(), 1)
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


# --- the study's network: layout ---------------------------------------------------------------------------------------


def test_official_layout_has_the_562_weights_of_the_study() -> None:
    with torch.device("meta"):
        network = AslpResNet50(official_layout=True)
    assert shapes_of(network) == official_shapes()
    assert len(official_shapes()) == 562
    assert sum(p.numel() for p in network.parameters()) == 90_737_921


def test_the_weights_that_are_never_executed_are_left_out_by_default() -> None:
    with torch.device("meta"):
        network = AslpResNet50()
    assert shapes_of(network) == executed(official_shapes())
    assert sum(p.numel() for p in network.parameters()) == 90_737_921 - 23_243_264


@pytest.mark.parametrize("model", [AslpResNet50, SmallUNet])
@pytest.mark.parametrize("classes", [0, -3])
def test_classes_below_one_are_refused(model: type[nn.Module], classes: int) -> None:
    with pytest.raises(OptionError, match=f"classes is {classes}"):
        model(classes=classes)


# --- the study's network: values ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official() -> AslpResNet50:
    """The study's network for three classes, with batch statistics as if it had been trained."""
    network = build_model("aslp-resnet50", seed=1, classes=3, official_layout=True)
    assert isinstance(network, AslpResNet50)
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in [(module.weight, 0.4, 0.7), (module.bias, -0.2, 0.2), (module.running_mean, -0.2, 0.2),
                                      (module.running_var, 0.7, 1.4)]:  # fmt: skip
                nn.init.uniform_(tensor, low, high, generator)
    return network.eval()


def reference(w: dict[str, Tensor], images: Tensor, *, past: Callable[[Tensor], Tensor] = F.relu) -> Tensor:
    """The forward pass of the study in functional calls; `past` is what the residual units carry past themselves."""

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), **options)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"])

    def bottleneck(x: Tensor, name: str, stride: int) -> Tensor:
        y = F.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1"))
        y = F.relu(norm(conv(y, f"{name}.conv2", stride=stride, padding=1), f"{name}.bn2"))
        y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in w:
            x = norm(conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
        return F.relu(y + x)

    def unit(x: Tensor, name: str) -> Tensor:
        y = conv(F.relu(x), f"{name}.conv1", padding=1)
        return conv(F.relu(y), f"{name}.conv2", padding=1) + past(x)

    def twice(x: Tensor, *, aligned: bool) -> Tensor:
        size = (2 * x.shape[2], 2 * x.shape[3])
        return F.interpolate(x, size, mode="bilinear", align_corners=aligned)

    x = F.relu(norm(conv(images, "resnet.conv1", stride=2, padding=3), "resnet.bn1"))
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    laterals = {}
    for level, (stage, (blocks, _, _)) in enumerate(STAGES.items(), 1):
        for block in range(blocks):
            x = bottleneck(x, f"resnet.{stage}.{block}", stride=2 if level > 1 and block == 0 else 1)
        laterals[level] = torch.stack(
            [
                conv(x, f"conv{level}.conv2d_list.{branch}", padding=dilation, dilation=dilation)
                for branch, dilation in enumerate((3, 6, 12, 18))
            ]
        ).sum(0)
    t = twice(unit(laterals[4], "path4.resConfUnit2"), aligned=True)
    for level in (3, 2, 1):
        t = t + unit(laterals[level], f"path{level}.resConfUnit1")
        t = twice(unit(t, f"path{level}.resConfUnit2"), aligned=True)
    t = twice(conv(t, "output_conv.0", padding=1), aligned=False)
    return conv(F.relu(conv(t, "output_conv.2", padding=1)), "output_conv.4")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference, over the spread of what is expected."""
    return float((found - expected).abs().max() / expected.std())


def test_output_is_that_of_functional_calls(official: AslpResNet50) -> None:
    images = drawn(2, 3, 64, 96)
    with torch.no_grad():
        found = official(images)
        assert found.shape == (2, 3, 64, 96)
        assert deviation(found, reference(official.state_dict(), images)) < 1e-4
        assert deviation(found, reference(official.state_dict(), images, past=lambda x: x)) > 0.1


def test_sides_that_are_no_multiples_of_32_repeat_the_border_and_are_cropped(official: AslpResNet50) -> None:
    images = drawn(1, 3, 63, 70)
    rows, columns = torch.arange(64).clamp(max=62), torch.arange(96).clamp(max=69)
    with torch.no_grad():
        found = official(images)
        whole = reference(official.state_dict(), images[:, :, rows][..., columns])
    assert found.shape == (1, 3, 63, 70)
    assert deviation(found, whole[..., :63, :70]) < 1e-4


def test_gradients_reach_every_weight_but_those_of_the_unexecuted_parts(official: AslpResNet50) -> None:
    official(drawn(1, 3, 64, 96)).square().mean().backward()
    without = {name for name, p in official.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {name for name, _ in official.named_parameters() if name.startswith(UNUSED)}
    assert sum(p.numel() for name, p in official.named_parameters() if name in without) == 23_243_264
    official.zero_grad(set_to_none=True)


def test_weights_before_training(official: AslpResNet50) -> None:
    std = {name: float(weight.std()) for name, weight in official.state_dict().items() if weight.numel() > 10_000}
    for name, inputs in (("conv4.conv2d_list.3", 2048), ("conv1.conv2d_list.0", 256)):
        assert official.state_dict()[f"{name}.weight"].shape[1] == inputs
        assert std[f"{name}.weight"] == pytest.approx(0.01, rel=0.01)
    assert std["resnet.layer3_1.2.conv2.weight"] == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert std["resnet.layer4_1.0.downsample.0.weight"] == pytest.approx((2 / 2048) ** 0.5, rel=0.01)


# --- the study's network: weights from files ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def binary() -> AslpResNet50:
    return blank()


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("layout", [False, True], ids=["executed", "all"])
def test_weights_of_the_study_are_loaded(tmp_path: Path, prefix: str, layout: bool) -> None:
    weights = numbered(official_shapes())
    torch.save({prefix + name: weight for name, weight in weights.items()}, tmp_path / "Model_30_Gen.pth")
    network = blank(official_layout=layout)
    load_official(network, tmp_path / "Model_30_Gen.pth")
    kept = weights if layout else {name: weights[name] for name in executed(official_shapes())}
    assert_same(network.state_dict(), kept)


def test_weights_without_the_unexecuted_parts_suffice_where_the_network_has_none(
    tmp_path: Path, binary: AslpResNet50
) -> None:
    weights = numbered(executed(official_shapes()))
    torch.save(weights, tmp_path / "own.pth")
    load_official(binary, tmp_path / "own.pth")
    assert_same(binary.state_dict(), weights)
    with pytest.raises(FormatError, match=r"(?s)178 differences.*resnet\.layer3_2\.0\.conv1\.weight is missing"):
        load_official(blank(official_layout=True), tmp_path / "own.pth")


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__delitem__(name)


def renamed(name: str, other: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__setitem__(other, weights.pop(name))


def shaped(name: str, *shape: int) -> Callable[[dict[str, Tensor]], None]:
    return lambda weights: weights.__setitem__(name, torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("path1.resConfUnit1.conv2.bias"), r"1 difference .*\n  path1\.resConfUnit1\.conv2\.bias is missing"),
        (
            renamed("conv4.conv2d_list.0.bias", "conv5.bias"),
            r"conv4\S+ is missing\n  conv5\.bias is of another network",
        ),
        (renamed("path4.resConfUnit1.conv1.bias", "path4.resConfUnit3.conv1.bias"), r"Unit3\S+ is of another network"),
        (
            shaped("output_conv.4.weight", 21, 32, 1, 1),
            r"is \(21, 32, 1, 1\), expected \(1, 32, 1, 1\)\ntake Model_30_Gen.pth, for 1 class",
        ),
        (dict.clear, r"384 differences in its 0 weights, 384 expected.*and 379 more"),
    ],
    ids=["missing", "renamed", "foreign", "shape", "empty"],
)
def test_other_weights_are_refused_and_the_network_is_left_alone(
    tmp_path: Path, binary: AslpResNet50, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    weights = numbered(official_shapes())
    change(weights)
    torch.save(weights, tmp_path / "other.pth")
    before = {name: weight.flatten()[0].item() for name, weight in binary.state_dict().items()}
    with pytest.raises(FormatError, match=f"(?s)other.pth does not hold this network: .*{message}"):
        load_official(binary, tmp_path / "other.pth")
    assert {name: weight.flatten()[0].item() for name, weight in binary.state_dict().items()} == before


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("load", [load_official, load_imagenet])
def test_files_that_run_code_are_refused(
    tmp_path: Path, binary: AslpResNet50, load: Callable[[nn.Module, Path], None]
) -> None:
    harm = tmp_path / "harm"
    torch.save({"conv1.weight": Harmful(harm)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"conv1.weight": Harmful(harm)}, protocol=2))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(FormatError, match="may run code and are not loaded"):
            load(binary, tmp_path / name)
    assert not harm.exists()
    torch.load(tmp_path / "zip.pth", weights_only=False)
    assert harm.exists(), "the file was harmless, so that its refusal shows nothing"


def test_files_that_are_no_weights_are_refused(tmp_path: Path, binary: AslpResNet50) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "state_dict": {"a": torch.zeros(2)}}, tmp_path / "nested.pth")
    torch.save(numbered(official_shapes()), tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    for name, message in [
        ("absent.pth", "cannot read .*absent.pth: .*No such file"),
        (".", "cannot read"),
        ("text.pth", "text.pth is damaged"),
        ("cut.pth", "cut.pth is damaged"),
        ("list.pth", "holds list; expected a torch file with a plain state_dict"),
        ("nested.pth", "holds entries epoch, state_dict; expected"),
    ]:
        with pytest.raises(FormatError, match=message):
            load_official(binary, tmp_path / name)


@pytest.mark.parametrize("load", [load_official, load_imagenet])
def test_weights_are_for_the_network_of_the_study_alone(load: Callable[[nn.Module, Path], None]) -> None:
    with pytest.raises(OptionError, match="SmallUNet; these weights are for aslp-resnet50"):
        load(SmallUNet(), Path("any.pth"))


def torchvision_weights() -> dict[str, Tensor]:
    stages = {name.removesuffix("_1"): stage for name, stage in STAGES.items()}
    return numbered(resnet_shapes(stages) | {"fc.weight": (1000, 2048), "fc.bias": (1000,)})


@pytest.mark.parametrize("counters", [True, False], ids=["counters", "early-file"])
def test_imagenet_weights_go_to_both_copies_of_a_stage(tmp_path: Path, counters: bool) -> None:
    weights = torchvision_weights()
    if not counters:
        weights = {name: weight for name, weight in weights.items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "resnet50.pth")
    network = blank(official_layout=True)
    load_imagenet(network, tmp_path / "resnet50.pth")
    for name in resnet_shapes(STAGES | COPIES):
        origin = name.replace("layer3_1.", "layer3.").replace("layer4_1.", "layer4.")
        origin = origin.replace("layer3_2.", "layer3.").replace("layer4_2.", "layer4.")
        found = network.resnet.state_dict()[name]
        assert torch.equal(found, weights.get(origin, torch.tensor(0))), name
    assert not any(w.any() for name, w in network.state_dict().items() if not name.startswith("resnet."))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layer3.5.bn3.running_var"), r"layer3\.5\.bn3\.running_var is missing"),
        (
            renamed("bn1.bias", "layer3.6.bn1.bias"),
            r"bn1\.bias is missing\n  layer3\.6\.bn1\.bias is of another network",
        ),
        (shaped("layer1.0.conv1.weight", 64, 64, 3, 3), r"is \(64, 64, 3, 3\), expected \(64, 64, 1, 1\)"),
    ],
    ids=["missing", "deeper", "shape"],
)
def test_weights_of_other_resnets_are_refused(
    tmp_path: Path, binary: AslpResNet50, change: Callable[[dict[str, Tensor]], None], message: str
) -> None:
    weights = torchvision_weights()
    change(weights)
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(FormatError, match=f"(?s)does not hold a ResNet-50: .*{message}.*take torchvision's resnet50"):
        load_imagenet(binary, tmp_path / "other.pth")


def test_imagenet_weights_come_by_url(
    tmp_path: Path, binary: AslpResNet50, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torchvision_weights(), tmp_path / "served.pth")

    def fetch(url: str, to: str, digest: str, **_: Any) -> None:
        assert (url, digest) == ("https://download.pytorch.org/models/resnet50-0676ba61.pth", "0676ba61")
        Path(to).write_bytes((tmp_path / "served.pth").read_bytes())

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    load_imagenet(binary)
    assert binary.resnet.conv1.weight.unique().tolist() == [1]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("error", [urllib.error.URLError("blocked"), TimeoutError("timed out")])
def test_a_url_out_of_reach_is_reported(
    tmp_path: Path, binary: AslpResNet50, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(InputError, match=r"cannot download https://example\.org/a\.pth: .* give its path instead"):
        load_imagenet(binary, "https://example.org/a.pth")


# --- the small network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 96), (97, 131), (33, 50), (5, 300), (1, 1)], ids=str)
@pytest.mark.parametrize("classes", [1, 4])
def test_small_network_keeps_the_size(size: tuple[int, int], classes: int) -> None:
    network = build_model("small", classes=classes)
    found = network(drawn(2, 3, *size))
    assert found.shape == (2, classes, *size)
    assert found.isfinite().all()


def test_small_network_has_about_four_hundred_thousand_parameters() -> None:
    assert sum(p.numel() for p in SmallUNet().parameters()) == 425_729


def test_small_network_treats_each_image_alone() -> None:
    network = build_model("small").train()
    images = drawn(4, 3, 40, 56)
    with torch.no_grad():
        alone = torch.cat([network(image[None]) for image in images])
        assert deviation(network(images), alone) < 1e-5
    assert not list(network.buffers())


def test_gradients_reach_every_weight_of_the_small_network() -> None:
    network = build_model("small", classes=2)
    network(drawn(2, 3, 64, 96)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_small_network_learns_a_toy_set() -> None:
    network = build_model("small", seed=3)
    images = 0.3 * drawn(8, 3, 48, 64)
    target = torch.zeros(8, 1, 48, 64)
    for number in range(8):
        target[number, :, 4 * number : 4 * number + 20, 30 - 3 * number : 54 - 3 * number] = 1
    images = images + target * torch.tensor([1.0, -1.0, 0.5]).view(1, 3, 1, 1)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = F.binary_cross_entropy_with_logits(network(images), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


# --- building ---------------------------------------------------------------------------------------------------------


OWN = """
from torch import nn

NUMBER = 7

def network(classes=1):
    return nn.Conv2d(3, classes, 3, padding=1)

def number():
    return NUMBER

def stumble(classes=1):
    return nn.Conv2d(3, classes, None)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of one's own, on the path."""
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").touch()
    (tmp_path / "own_package" / "models.py").write_text(OWN)
    (tmp_path / "own_package" / "broken.py").write_text("import a_package_that_nobody_has")
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_package.models"
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_package"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["small", "own_package.models:network"])
def test_the_seed_sets_the_weights_and_leaves_the_random_state_alone(own: str, name: str) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build_model(name, seed=0, classes=2).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert_same(build_model(name, classes=2).state_dict(), first)
    other = build_model(name, seed=1, classes=2).state_dict()
    assert not any(torch.equal(other[weight], first[weight]) for weight in first if "conv" in weight)


def test_a_function_of_ones_own_is_called_with_the_options(own: str) -> None:
    model = build_model(f"{own}:network", classes=4)
    assert isinstance(model, nn.Conv2d)
    assert model.out_channels == 4


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("smal", UnknownName, "there is no model 'smal'; did you mean 'small'?"),
        ("xyz", UnknownName, "known: aslp-resnet50, package.module:function, small"),
        ("{own}:netwrk", UnknownName, "no function of own_package.models named 'netwrk'; did you mean 'network'?"),
        ("{own}:NUMBER", UnknownName, "no function of own_package.models named 'NUMBER'"),
        ("{own}:number", InputError, "returned int; expected a torch.nn.Module"),
        ("no_such_package:f", InputError, "ModuleNotFoundError: .*installed, or lies in a folder of PYTHONPATH"),
        ("own_package.broken:f", InputError, "own_package.broken cannot be imported: .*a_package_that_nobody_has"),
        ("own/models.py:network", OptionError, "'own/models.py:network'; expected package.module:function"),
        ("{own}:", OptionError, "expected package.module:function"),
        (":network", OptionError, "expected package.module:function"),
        ("{own}:network:more", OptionError, "expected package.module:function"),
    ],
)
def test_names_that_lead_to_no_network(own: str, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.replace("?", r"\?")):
        build_model(name.format(own=own))


@pytest.mark.parametrize(
    ("name", "takes"),
    [("small", "classes"), ("aslp-resnet50", "classes, official_layout"), ("{own}:number", "no options")],
)
def test_options_that_a_network_does_not_take(own: str, name: str, takes: str) -> None:
    with pytest.raises(OptionError, match=f"unexpected keyword argument 'depth'; it takes {takes}$"):
        build_model(name.format(own=own), depth=3)


def test_errors_within_a_function_of_ones_own_are_not_disguised(own: str) -> None:
    with pytest.raises(TypeError, match="NoneType"):
        build_model(f"{own}:stumble")


@pytest.mark.parametrize("name", MODELS)
def test_every_network_maps_images_to_logits_of_each_class(name: str) -> None:
    model = MODELS[name](classes=5).eval()
    with torch.no_grad():
        assert model(drawn(1, 3, 40, 72)).shape == (1, 5, 40, 72)


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, calbench.cli, calbench.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
