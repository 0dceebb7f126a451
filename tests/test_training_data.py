"""Pictures and masks as a network is trained on them: pairing, reading, augmentation, batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from calbench.errors import FormatError, InputError, OptionError, PairingError, RangeError, ShapeError
from calbench.io.labels import LabelCoding
from calbench.io.pictures import open_picture, read_picture
from calbench.training.augment import augmented, crop_box, resized
from calbench.training.data import Batch, Damaged, Item, TrainingItems, Whole, WholeItems, collate, void_batch
from calbench.training.draws import key, rng
from calbench.training.image_sets import Example, ImageSet, image_set, official_sets, read_names, split

H, W = 40, 56
NAMES = ("Ärmel", "b", "c", "d", "猫")
MEAN, SPREAD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
Write = Callable[..., tuple[Path, Path]]


def mask_of(number: int) -> np.ndarray:
    mask = np.zeros((H, W), np.uint8)
    mask[5 + number : 30, 8 : 40 - number] = 255
    return mask


def write_set(folder: Path, masks: dict[str, np.ndarray], size: tuple[int, int] = (H, W)) -> tuple[Path, Path]:
    """A photograph in JPEG and a mask in PNG for each name."""
    images, gts = folder / "image", folder / "gt"
    for each in (images, gts):
        each.mkdir(parents=True, exist_ok=True)
    for number, (name, mask) in enumerate(masks.items()):
        picture = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(picture).save(images / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(gts / f"{name}.png")
    return images, gts


@pytest.fixture
def toy(tmp_path: Path) -> ImageSet:
    return image_set("toy", *write_set(tmp_path, {name: mask_of(i) for i, name in enumerate(NAMES)}))


def damage(path: Path) -> None:
    """Cut a file off in the middle of its pixels."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def whole(images: ImageSet, index: int = 0, size: int = 16) -> Whole:
    found = WholeItems(images, size)[index]
    assert isinstance(found, Whole), found
    return found


def item(images: ImageSet, at: tuple[int, int] = (1, 0), size: int = 16, *, augment: bool = False) -> Item:
    found = TrainingItems(images, size, 0, augment=augment)[at]
    assert isinstance(found, Item), found
    return found


# --- sets ---------------------------------------------------------------------------------------------------------------


def test_pictures_and_masks_are_paired_by_stem_and_sorted(toy: ImageSet) -> None:
    assert toy.names == ("b", "c", "d", "Ärmel", "猫")
    assert len(toy) == 5
    assert all(each.image.stem == each.name == each.mask.stem for each in toy.examples if each.mask)
    assert (toy.coding.kind, toy.coding.threshold) == ("0/255", 128)


def test_masks_may_have_a_suffix_and_be_absent(tmp_path: Path) -> None:
    images, gts = write_set(tmp_path, {"a": mask_of(0)})
    (gts / "a.png").rename(gts / "a_mask.png")
    assert image_set("toy", images, gts, mask_suffix="_mask").names == ("a",)
    alone = image_set("toy", images, None)
    assert (alone.names, alone.coding, alone.examples[0].mask) == (("a",), None, None)
    assert whole(alone).target is None
    with pytest.raises(InputError, match="toy has no masks"):
        TrainingItems(alone, 16, 0, augment=True)


def test_what_lacks_its_partner_is_named(tmp_path: Path) -> None:
    images, gts = write_set(tmp_path, {f"{i}": mask_of(0) for i in range(8)})
    for i in range(6):
        (gts / f"{i}.png").unlink()
    with pytest.raises(PairingError, match=r"^6 pictures without a mask in .*image and .*gt:") as caught:
        image_set("toy", images, gts)
    assert "0.jpg" in str(caught.value)
    assert "... and 1 more" in str(caught.value)
    for i in range(7):
        (images / f"{i}.jpg").unlink()
    (gts / "9.png").write_bytes((gts / "7.png").read_bytes())
    with pytest.raises(PairingError, match=r"2 masks without a picture(.|\n)*6.png(.|\n)*9.png(.|\n)*--mask-suffix"):
        image_set("toy", images, gts)


def test_a_name_twice_and_empty_folders_are_refused(tmp_path: Path) -> None:
    images, gts = write_set(tmp_path, {"a": mask_of(0), "b": mask_of(1)})
    Image.new("RGB", (W, H)).save(images / "a.png")
    with pytest.raises(PairingError, match=r"2 files share their name(.|\n)*a.jpg(.|\n)*a.png"):
        image_set("toy", images, gts)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="it is empty"):
        image_set("toy", tmp_path / "empty", gts)
    with pytest.raises(InputError, match="is not a folder"):
        image_set("toy", images, tmp_path / "nowhere")


def test_tables_beside_the_pictures_are_none(tmp_path: Path) -> None:
    images, gts = write_set(tmp_path, {"a": mask_of(0)})
    (images / "metadata.csv").write_text("name,age\n")
    assert image_set("toy", images, gts).names == image_set("toy", images, None).names == ("a",)
    (images / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"no picture in .*image; expected .png, .jpg"):
        image_set("toy", images, None)


def test_a_mask_of_another_size_is_refused_before_training(tmp_path: Path) -> None:
    images, gts = write_set(tmp_path, {"a": mask_of(0), "b": mask_of(0)})
    Image.fromarray(mask_of(0).T).save(gts / "b.png")
    with pytest.raises(ShapeError, match=r"1 of 2 masks of toy(.|\n)*b.jpg 56x40, mask 40x56 \(WxH\)"):
        image_set("toy", images, gts)


def test_a_file_that_changed_meanwhile_is_damaged(toy: ImageSet) -> None:
    Image.fromarray(mask_of(0).T).save(toy.examples[1].mask)
    found = TrainingItems(toy, 16, 0, augment=True)[1, 1]
    assert isinstance(found, Damaged)
    assert "40x56 pixels, its picture 56x40" in found.message


def test_a_folder_of_mixed_codings_is_refused_wherever_the_odd_mask_is(tmp_path: Path) -> None:
    masks = {f"{i:02}": mask_of(0) for i in range(20)}
    masks["02"] = masks["02"] // 255  # the coding is decided on 0, 3, 5, 8, ...
    with pytest.raises(RangeError, match=r"mixed codings: some, e.g. '02.png', mark with 1"):
        image_set("toy", *write_set(tmp_path, masks))
    declared = image_set("toy", tmp_path / "image", tmp_path / "gt", gt_threshold=0)
    assert (whole(declared, 2).target == (mask_of(0) > 0)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduce_zero_label": True}, "--reduce-zero-label, but the masks are binary"),
        ({"label_map": {0: 0}}, "--label-map, but the masks are binary"),
        ({"classes": 3, "gt_threshold": 5}, "--gt-threshold is for binary masks, but --num-classes is 3"),
        ({"classes": 3, "raw": True}, "--profile aslp is for binary masks"),
        ({"gt_threshold": 256}, "--gt-threshold is 256"),
    ],
)
def test_options_without_effect_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        image_set("toy", *write_set(tmp_path, {"a": mask_of(0)}), **options)


def test_a_subset_by_names(toy: ImageSet) -> None:
    assert toy.select(["猫", "b"], "list").names == ("b", "猫")
    with pytest.raises(
        PairingError, match=r"^2 of 3 names in list not found in toy, which has 5 pictures with a mask:"
    ) as e:
        toy.select(["b", "x", "y"], "list")
    assert "\n  x\n  y\n" in str(e.value)
    with pytest.raises(PairingError, match=r"^1 name more than once in list:\n  b\n"):
        toy.select(["b", "c", "b"], "list")
    with pytest.raises(InputError, match="list holds no name"):
        toy.select([], "list")


def test_the_digest_is_of_names_and_coding(toy: ImageSet) -> None:
    def changed(**changes: Any) -> str:
        return ImageSet(**{"name": "toy", "examples": toy.examples, "coding": toy.coding, **changes}).digest

    assert changed(examples=toy.examples[::-1], name="other") == toy.digest
    maps = [LabelCoding(2, mapping=mapping) for mapping in ({7: 0, 9: 1}, {9: 1, 7: 0}, {7: 1, 9: 0})]
    first, same, other = (changed(coding=coding) for coding in maps)
    assert first == same
    digests = {toy.digest, first, other, changed(examples=toy.examples[1:]), changed(coding=None), changed(raw=True)}
    assert len(digests) == 6


def test_name_lists(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffbumpy_0001.jpg\r\n\r\nÄrmel\r\nv1.2 b \r\ncase.nii.gz".encode())
    assert read_names(path) == ("bumpy_0001", "Ärmel", "v1.2 b", "case")
    path.write_text("b\nc\n")
    assert read_names(path) == ("b", "c")
    path.write_text(" \n\n")
    with pytest.raises(InputError, match="holds no name"):
        read_names(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="no UTF-8"):
        read_names(path)
    with pytest.raises(FormatError, match="cannot read"):
        read_names(tmp_path / "nowhere.txt")


def test_the_split_is_drawn_by_name() -> None:
    names = [f"n{i}" for i in range(11)]
    images = ImageSet("toy", tuple(Example(name, Path(name), None) for name in names), None)
    turned = ImageSet("toy", images.examples[::-1], None)
    train, validation = split(images, 0.25, seed=3)
    drawn = sorted(names, key=lambda name: key(3, name, "split"))
    assert set(validation.names) == set(drawn[:3])  # round(2.75)
    assert sorted(train.names + validation.names) == sorted(names)
    assert split(turned, 0.25, seed=3) == (train, validation)
    assert split(images, 0.25, seed=4)[1].names != validation.names
    assert [len(part) for part in split(images, 0.001, seed=0)] == [10, 1]
    assert [len(part) for part in split(images, 0.999, seed=0)] == [1, 10]
    for share in (0, 1, float("nan")):
        with pytest.raises(OptionError, match="share of validation images"):
            split(images, share, seed=0)
    with pytest.raises(InputError, match="1 image; expected two"):
        split(images.select(["n0"], "list"), 0.5, seed=0)


# --- the official layout -------------------------------------------------------------------------------------------------


@pytest.fixture
def official(tmp_path: Path) -> Path:
    root = tmp_path / "Dataset"
    for folder, names in (
        ("Train/DUTS-TR", "edcba"),
        ("Test/ECSSD", "xy"),
        ("Test/SOD", "z"),
        ("Test/dtd_Texture_500", "t"),
    ):
        images, gts = write_set(root / folder, {name: mask_of(i) for i, name in enumerate(names)})
        images.rename(root / folder / "Image")
        gts.rename(root / folder / "GT")
    (root / "DUTS-TR-Train.txt").write_text("c\na\n")
    (root / "DUTS-TR-Validation.txt").write_text("b\n")
    return root


def test_the_official_layout(official: Path) -> None:
    sets = official_sets(official, raw=True)
    assert (sets.train.names, sets.validation.names) == (("a", "c"), ("b",))
    assert [(each.name, each.names, each.raw) for each in sets.tests] == [
        ("ECSSD", ("x", "y"), True),
        ("SOD", ("z",), True),
    ]
    assert [(each.name, each.names, each.coding) for each in sets.ood] == [("dtd_Texture_500", ("t",), None)]
    assert sets.train.raw
    assert sets.train.coding == sets.validation.coding == sets.tests[0].coding
    assert not official_sets(official, raw=False).train.raw


def test_only_listed_files_of_the_official_layout_are_looked_at(official: Path) -> None:
    (official / "Train/DUTS-TR/GT/d.png").unlink()
    (official / "Train/DUTS-TR/Image/e.jpg").unlink()
    assert official_sets(official, raw=False).train.names == ("a", "c")
    (official / "Train/DUTS-TR/GT/a.png").unlink()
    with pytest.raises(PairingError, match=r"1 of 2 names in .*DUTS-TR-Train.txt not found in DUTS-TR"):
        official_sets(official, raw=False)


@pytest.mark.parametrize(
    "lacking", ["DUTS-TR-Train.txt", "DUTS-TR-Validation.txt", "Train/DUTS-TR/GT", "Train/DUTS-TR/Image", "Test"]
)
def test_what_the_official_layout_lacks_is_named(official: Path, lacking: str) -> None:
    (official / lacking).rename(official / "elsewhere")
    with pytest.raises(InputError, match=rf"lacks what the official layout has:\n  .*{lacking}\nexpected"):
        official_sets(official, raw=False)


def test_official_test_sets_are_complete_and_lists_disjoint(official: Path) -> None:
    (official / "DUTS-TR-Validation.txt").write_text("b\nc\n")
    with pytest.raises(PairingError, match=r"1 name more than once in .*Train.txt and .*Validation.txt:\n  c\n"):
        official_sets(official, raw=False)
    (official / "DUTS-TR-Validation.txt").write_text("b\n")
    (official / "Test/SOD/GT").rename(official / "Test/SOD/elsewhere")
    with pytest.raises(InputError, match=r"GT is not a folder"):
        official_sets(official, raw=False)
    for name in ("SOD", "ECSSD"):
        (official / "Test" / name / "Image").rename(official / "Test" / name / "pictures")
    with pytest.raises(InputError, match="no test set"):
        official_sets(official, raw=False)


# --- masks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coded", [lambda m: m, lambda m: m > 0, lambda m: m // 255], ids=["0/255", "1-bit", "0/1"])
def test_foreground_is_the_same_however_it_is_coded(tmp_path: Path, coded: Callable[[np.ndarray], np.ndarray]) -> None:
    images = image_set("toy", *write_set(tmp_path, {"a": coded(mask_of(0))}))
    found = whole(images)
    assert found.size == (H, W)
    assert found.target.dtype == bool
    np.testing.assert_array_equal(found.target, mask_of(0) > 0)
    assert found.valid is None
    assert found.grey is None
    expected = np.asarray(Image.fromarray(mask_of(0)).resize((16, 16), Image.Resampling.BILINEAR)) / np.float32(255)
    np.testing.assert_array_equal(item(images).target[0], expected)


def test_grey_masks_are_thresholded_or_kept_as_they_are(tmp_path: Path) -> None:
    grey = np.tile(np.linspace(0, 255, W).astype(np.uint8), (H, 1))
    write_set(tmp_path, {"a": grey})
    cut, raw = (image_set("toy", tmp_path / "image", tmp_path / "gt", raw=raw) for raw in (False, True))
    assert item(cut, size=64).target.unique().numel() < 20
    side = (64, 64)
    expected = np.asarray(Image.fromarray(grey).resize(side, Image.Resampling.BILINEAR)) / np.float32(255)
    np.testing.assert_array_equal(item(raw, size=64).target[0], expected)
    np.testing.assert_array_equal(whole(raw).grey, grey)
    np.testing.assert_array_equal(whole(raw).target, grey > 128)
    assert whole(cut).grey is None


def test_void_bytes_do_not_count(tmp_path: Path) -> None:
    mask = mask_of(0) // 255
    mask[:10] = 255
    images = image_set("toy", *write_set(tmp_path, {"a": mask}), void_values=(255,))
    assert images.coding.kind == "0/1"
    found = whole(images)
    np.testing.assert_array_equal(found.valid, mask != 255)
    np.testing.assert_array_equal(found.target, mask == 1)
    rows = (np.arange(20) * H + H // 2) // 20 >= 10  # the nearest row of each of 20
    np.testing.assert_array_equal(item(images, size=20).valid, np.tile(rows[:, None], (1, 20)))


def test_a_value_below_zero_is_void_or_an_error(tmp_path: Path) -> None:
    mask = (mask_of(0) // 255).astype(np.int16)
    mask[0] = -1
    images, gts = write_set(tmp_path, {"a": mask_of(0)})
    (gts / "a.png").unlink()
    np.save(gts / "a.npy", mask)
    found = whole(image_set("toy", images, gts, ignore_index=(-1,)))
    np.testing.assert_array_equal(found.valid, mask >= 0)
    refused = WholeItems(image_set("toy", images, gts), 16)[0]
    assert isinstance(refused, Damaged)
    assert "say --ignore-index -1" in refused.message


def labels() -> np.ndarray:
    """Four classes in quadrants, and a void frame."""
    raw = np.full((H, W), 255, np.uint8)
    raw[4:20, 4:28], raw[4:20, 28:52], raw[20:36, 4:28], raw[20:36, 28:52] = 0, 1, 2, 3
    return raw


def test_labels_of_four_classes(tmp_path: Path) -> None:
    raw = labels()
    images = image_set("toy", *write_set(tmp_path, {"a": raw}), classes=4, ignore_index=(255,))
    found = whole(images)
    np.testing.assert_array_equal(found.valid, raw != 255)
    np.testing.assert_array_equal(found.target, np.where(raw == 255, 0, raw))
    plain = item(images, size=8)
    nearest = raw[2::5][:, 3::7]  # the centres of 8 x 8 cells of 5 x 7 pixels
    assert (plain.target.dtype, plain.target.shape) == (torch.int64, (8, 8))
    np.testing.assert_array_equal(plain.valid, nearest != 255)
    np.testing.assert_array_equal(plain.target, np.where(nearest == 255, 0, nearest))
    for epoch in range(1, 30):
        turned = item(images, (epoch, 0), 32, augment=True)
        assert set(turned.target[turned.valid].unique().tolist()) == {0, 1, 2, 3}


def test_labels_out_of_range_are_reported_by_name(tmp_path: Path) -> None:
    images = image_set("toy", *write_set(tmp_path, {"a": labels()}), classes=4)
    found = TrainingItems(images, 8, 0, augment=True)[1, 0]
    assert isinstance(found, Damaged)
    assert (found.name, found.index) == ("a", 0)
    assert "label values 255; expected 0..3" in found.message


# --- pictures ------------------------------------------------------------------------------------------------------------


def test_pictures_are_resized_and_normalised(toy: ImageSet) -> None:
    with Image.open(toy.examples[2].image) as image:
        pixels = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR), np.float64)
    expected = np.moveaxis((pixels / 255 - MEAN) / SPREAD, -1, 0)
    found = whole(toy, 2, 24).image
    assert (found.dtype, found.is_contiguous()) == (torch.float32, True)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert item(toy, (1, 2), 24).image.equal(found)


def test_a_grey_jpeg_has_three_equal_channels(tmp_path: Path) -> None:
    images, gts = write_set(tmp_path, {"a": mask_of(0)})
    Image.new("L", (W, H), 51).save(images / "a.jpg")
    np.testing.assert_allclose(whole(image_set("toy", images, gts)).image[:, 3, 5], (0.2 - MEAN) / SPREAD, atol=1e-6)


def test_open_picture_is_what_read_picture_reads(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    colour[..., 3] = 255
    for name, image in {
        "rgba.png": Image.fromarray(colour),
        "palette.png": Image.fromarray(colour[..., :3]).quantize(8),
        "grey.png": Image.fromarray(colour[..., 0]),
        "bits.png": Image.fromarray(colour[..., 0] > 100),
    }.items():
        image.save(tmp_path / name)
        found = open_picture(tmp_path / name)
        assert found.mode == "RGB"
        pixels = np.moveaxis(np.asarray(found), -1, 0) / np.float32(255)
        np.testing.assert_array_equal(pixels, read_picture(tmp_path / name))
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(FormatError, match="has 16 bits a pixel; expected a picture of 8 bits"):
        open_picture(tmp_path / "deep.png")


@pytest.mark.parametrize("side", ["image", "mask"])
def test_a_truncated_file_is_returned_by_name(toy: ImageSet, side: str) -> None:
    path = getattr(toy.examples[3], side)
    damage(path)
    for items, at in ((TrainingItems(toy, 16, 0, augment=True), (1, 3)), (WholeItems(toy, 16), 3)):
        found = items[at]
        assert isinstance(found, Damaged)
        assert (found.name, found.index) == ("Ärmel", 3)
        assert found.message.startswith(f"cannot read {path} as an image")


@pytest.mark.parametrize("content", [b"", b"no picture at all"])
@pytest.mark.parametrize("side", ["image/b.jpg", "gt/b.png"])
def test_unreadable_files_wait_for_their_turn(toy: ImageSet, tmp_path: Path, side: str, content: bytes) -> None:
    (tmp_path / side).write_bytes(content)
    again = image_set("toy", tmp_path / "image", tmp_path / "gt")
    assert again.digest == toy.digest
    assert isinstance(WholeItems(again, 16)[0], Damaged)
    assert isinstance(WholeItems(again, 16)[1], Whole)


# --- augmentation --------------------------------------------------------------------------------------------------------


class Scripted:
    """Draws that say what they are asked for: floats and integers in turn."""

    def __init__(self, floats: list[float], integers: list[int]) -> None:
        self.floats, self.whole = iter(floats), iter(integers)
        self.asked: list[tuple[int, int]] = []

    def random(self) -> float:
        return next(self.floats)

    def integers(self, low: int, high: int) -> int:
        self.asked.append((low, high))
        return next(self.whole)


def ramp(width: int = 60, height: int = 40) -> Image.Image:
    """A picture whose red is the column, and green the row."""
    rows, columns = np.indices((height, width), np.uint8)
    return Image.fromarray(np.stack([columns, rows, rows * 0], -1))


def test_the_order_and_ranges_of_the_draws() -> None:
    draws = Scripted([0.6, 0.1], [7, 12, -9])
    augmented(ramp(), Image.new("L", (60, 40)), None, 24, draws)
    assert draws.asked == [(1, 31), (1, 31), (-15, 15)]


@pytest.mark.parametrize(("flip", "angle"), [(0.4, None), (0.6, None), (0.4, 11), (0.6, -15)])
def test_each_step_is_that_of_the_official_code(flip: float, angle: int | None) -> None:
    rows, columns = np.indices((40, 60))
    image, mask = (
        ramp(),
        Image.fromarray(((rows - 20) ** 2 + (columns - 25) ** 2 < 150).astype(np.uint8) * np.uint8(255)),
    )
    draws = Scripted([flip, 0.9 if angle is None else 0.19], [7, 12, angle])
    found, target, void = augmented(image, mask, None, 24, draws)
    expected = []
    for layer in (image, mask):
        if flip < 0.5:
            layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        cw, ch = 60 - 7, 40 - 12
        layer = layer.crop(((60 - cw) >> 1, (40 - ch) >> 1, (60 + cw) >> 1, (40 + ch) >> 1))
        if angle is not None:
            layer = layer.rotate(angle, Image.Resampling.BICUBIC)
        expected.append(np.asarray(layer.resize((24, 24), Image.Resampling.BILINEAR)))
    np.testing.assert_array_equal(found, expected[0])
    np.testing.assert_array_equal(target, expected[1])
    assert void is None
    assert len(np.unique(target)) > 10, "labels stay soft"


def test_a_mask_follows_its_picture() -> None:
    """A picture that is its own mask stays so, whatever is drawn; all outcomes occur as often as they should."""
    layer = Image.fromarray(mask_of(3))
    image = Image.merge("RGB", [layer] * 3)
    mirrored = black = 0
    n = 400
    for epoch in range(n):
        found, target, _ = augmented(image, layer, None, 32, rng(0, epoch))
        np.testing.assert_array_equal(np.asarray(found)[..., 0], target)
        weights = np.asarray(target, np.float64).sum(0)
        mirrored += (weights * np.arange(32)).sum() / weights.sum() > 15.5
        white, _, _ = augmented(Image.new("RGB", (W, H), "white"), layer, None, 32, rng(0, epoch))
        black += np.asarray(white).min() < 255
    assert abs(mirrored / n - 0.5) < 4 * (0.25 / n) ** 0.5
    assert abs(black / n - 0.2 * 29 / 30) < 4 * (0.16 / n) ** 0.5


def test_the_crop_is_centred_and_of_random_size() -> None:
    widths, heights = set(), set()
    for seed in range(600):
        left, upper, right, lower = crop_box(101, 64, rng(seed))
        widths.add(right - left)
        heights.add(lower - upper)
        assert abs(left - (101 - right)) <= 1
        assert abs(upper - (64 - lower)) <= 1
    assert widths == set(range(71, 101))
    assert heights == set(range(34, 64))


@pytest.mark.parametrize("side", [1, 2, 9, 10, 29, 30, 31, 32])
def test_small_sides_are_never_cropped_to_nothing(side: int) -> None:
    boxes = [crop_box(side, 2 * side, rng(seed)) for seed in range(300)]
    widths = {right - left for left, _, right, _ in boxes}
    assert min(widths) == (side - side // 10 if side <= 30 else side - 30)
    assert all(0 <= left < right <= side and 0 <= upper < lower <= 2 * side for left, upper, right, lower in boxes)
    layers = augmented(Image.new("RGB", (side, side)), Image.new("L", (side, side)), None, 8, rng(0))
    assert [layer.size for layer in layers[:2]] == [(8, 8), (8, 8)]


def test_what_rotation_brings_in_is_void_beside_classes_and_background_in_binary_masks() -> None:
    image = Image.new("RGB", (60, 40))
    classes = Image.fromarray(np.full((40, 60), 2, np.int32))
    turn, no_turn = ([0.9, 0.0], [1, 1, 14]), ([0.9, 0.9], [1, 1])
    _, target, void = augmented(image, classes, None, 40, Scripted(*turn))
    inside = np.asarray(void) == 0
    np.testing.assert_array_equal(np.asarray(target)[inside], 2)
    assert not inside[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    white = Image.new("L", (60, 40), 255).crop((0, 0, 59, 39)).rotate(14, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(inside, np.asarray(white.resize((40, 40), Image.Resampling.NEAREST)) == 255)
    assert augmented(image, classes, None, 40, Scripted(*no_turn))[2] is None

    _, target, void = augmented(image, Image.new("L", (60, 40), 255), None, 40, Scripted(*turn))
    assert void is None
    assert np.asarray(target)[0, 0] == 0
    marked = np.zeros((40, 60), np.uint8)
    marked[15:25, 20:40] = 1
    _, _, void = augmented(image, Image.new("L", (60, 40), 255), Image.fromarray(marked), 40, Scripted(*turn))
    found = np.asarray(void)
    assert found[0, 0] == 0
    assert found[20, 20] == 1
    assert set(np.unique(found)) == {0, 1}


def test_class_indices_are_never_mixed() -> None:
    raw = np.random.default_rng(0).choice([0, 7, 300], (40, 60)).astype(np.int32)
    for seed in range(20):
        _, target, _ = augmented(ramp(), Image.fromarray(raw), None, 33, rng(seed))
        assert set(np.unique(target)) <= {0, 7, 300}
    assert np.asarray(resized(ramp(), Image.fromarray(raw), None, 33)[1]).dtype == np.int32


# --- draws ---------------------------------------------------------------------------------------------------------------


def by_name(batches: Iterator[Batch]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (batch.images[i], batch.target[i]) for batch in batches for i, name in enumerate(batch.names)}


def test_an_item_depends_on_seed_epoch_and_name_alone(toy: ImageSet) -> None:
    items = TrainingItems(toy, 32, 5, augment=True)
    at = [(3, i) for i in range(5)]
    orders = [[at[:2], at[2:]], [[at[i]] for i in (4, 0, 2, 1, 3)], [at[::-1]]]
    runs = [
        by_name(iter(DataLoader(items, batch_sampler=order, num_workers=workers, collate_fn=collate)))
        for order, workers in zip(orders, (0, 2, 0), strict=True)
    ]
    moved = TrainingItems(toy.select(["c", "猫"], "list"), 32, 5, augment=True)
    runs.append(by_name(iter([collate([moved[3, 0], moved[3, 1]])])))
    for run in runs[1:]:
        for name, (image, target) in run.items():
            assert image.equal(runs[0][name][0])
            assert target.equal(runs[0][name][1])
    assert [len(run) for run in runs] == [5, 5, 5, 2]
    assert not item(toy, (3, 0), 32, augment=True).image.equal(runs[0]["b"][0]), "another seed"
    assert not items[4, 0].image.equal(items[3, 0].image), "another epoch"
    plain = TrainingItems(toy, 32, 5, augment=False)
    assert plain[4, 0].image.equal(plain[3, 0].image)


# --- batches -------------------------------------------------------------------------------------------------------------


def test_a_batch_keeps_what_could_be_read_and_names_the_rest(toy: ImageSet) -> None:
    damage(toy.examples[2].image)
    items = TrainingItems(toy, 16, 0, augment=True)
    batch = collate([items[1, i] for i in (4, 2, 0)])
    assert (len(batch), batch.names, batch.index.tolist()) == (2, ("猫", "b"), [4, 0])
    assert (batch.images.shape, batch.target.shape, batch.valid) == ((2, 3, 16, 16), (2, 1, 16, 16), None)
    assert batch.index.dtype == torch.int64
    assert [each.name for each in batch.damaged] == ["d"]
    assert batch.images[1].equal(items[1, 0].image)
    nothing = collate([items[1, 2]])
    assert (len(nothing), nothing.images.shape, nothing.index.shape) == (0, (0, 3, 0, 0), (0,))
    assert [each.name for each in nothing.damaged] == ["d"]


def test_pixels_of_a_batch_count_unless_an_item_says_otherwise() -> None:
    image, target, valid = torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.int64), torch.eye(4) > 0
    batch = collate([Item("a", 0, image, target, None), Item("b", 1, image, target, valid)])
    assert batch.valid[0].all()
    assert batch.valid[1].equal(valid)


def test_a_batch_on_another_device_is_laid_out_as_asked(toy: ImageSet) -> None:
    items = TrainingItems(toy, 16, 0, augment=True)
    batch = collate([items[1, 0], items[1, 1], Damaged("x", 7, "why")])
    moved = batch.to(torch.device("cpu"), channels_last=True)
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert moved.images.equal(batch.images)
    assert (moved.names, moved.damaged) == (batch.names, batch.damaged)
    assert batch.to(torch.device("meta")).images.is_meta
    assert batch.to(torch.device("meta")).valid is None
    assert void_batch(8, 3).to(torch.device("meta")).valid.is_meta


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_loader_pins_batches(toy: ImageSet) -> None:
    items = TrainingItems(toy, 16, 0, augment=True)
    for batch in DataLoader(items, batch_sampler=[[(1, 0), (1, 1)]], collate_fn=collate, pin_memory=True):
        assert batch.images.is_pinned()
        assert batch.to(torch.device("cuda")).images.cpu().equal(batch.images)


def test_a_void_batch_weighs_nothing() -> None:
    binary, classes = void_batch(6, 1), void_batch(6, 4)
    assert (binary.target.shape, binary.target.dtype) == ((1, 1, 6, 6), torch.float32)
    assert (classes.target.shape, classes.target.dtype) == ((1, 6, 6), torch.int64)
    for batch in (binary, classes):
        assert (len(batch), batch.names, len(batch.images)) == (0, (), 1)
        assert not batch.valid.any()
        np.testing.assert_allclose(batch.images[0, :, 2, 3], -MEAN / SPREAD, rtol=1e-6)


# --- the real set --------------------------------------------------------------------------------------------------------


def test_ecssd(real_data: Path) -> None:
    images = image_set("ecssd", real_data / "ecssd/image", real_data / "ecssd/gt")
    assert (len(images), images.coding.kind) == (130, "0/255")
    train, validation = split(images, 0.2, seed=0)
    assert (len(train), len(validation)) == (104, 26)
    wholes = [whole(images, i, 64) for i in range(len(images))]
    foreground = sum(each.target.sum() for each in wholes) / sum(each.target.size for each in wholes)
    assert foreground == pytest.approx(0.25, abs=0.005)
    small = [item(images, (1, i), 64).target.mean().item() for i in range(len(images))]
    np.testing.assert_allclose(small, [each.target.mean() for each in wholes], atol=0.004)


def test_labels_of_several_classes_are_not_taken_for_a_binary_mask(tmp_path: Path) -> None:
    for folder in ("image", "gt"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (12, 10)).save(tmp_path / "image" / "a.png")
    mask = np.zeros((10, 12), np.uint8)
    mask[2:4], mask[4:6], mask[6:8] = 1, 3, 255
    Image.fromarray(mask).save(tmp_path / "gt" / "a.png")
    where = ("toy", tmp_path / "image", tmp_path / "gt")
    with pytest.raises(RangeError, match=r"hold the values 0, 1, 3, 255, which look like labels .* say --num-classes"):
        image_set(*where)
    assert image_set(*where, classes=4, ignore_index=(255,)).coding.classes == 4
    assert image_set(*where, gt_threshold=128).coding.threshold == 128
