"""Reading from disk: arrays, images of more than 8 bits, label masks, classification tables and volumes."""

from __future__ import annotations

import builtins
import contextlib
import gzip
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calbench.errors import CalbenchError, FormatError, OptionError, RangeError, ShapeError
from calbench.io import arrays, images, tables
from calbench.io.arrays import CHUNK, N_CHUNKS, extension, grey_from_array, read_array, read_header
from calbench.io.images import decode, deep, read_grey
from calbench.io.labels import LabelCoding, read_label_map, read_labels
from calbench.io.tables import is_table, read_table, sample_groups

STORED = ["f2", "f4", "f8", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "?"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def read_deep(path: Path) -> tuple[np.ndarray, str]:
    """A grey image of any depth, and its dtype."""
    array = deep(decode(path), path)
    return array, array.dtype.name


@pytest.fixture(scope="module")
def real() -> Path:
    data = Path(os.environ.get("CALBENCH_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not data.is_dir():
        pytest.skip("the real data sets are not at hand (set CALBENCH_DATA)")
    return data


def png(path: Path, samples: np.ndarray, *, depth: int, colour: int = 0) -> Path:
    """A PNG file of any bit depth, which Pillow does not write: (H, W) or (H, W, channels) samples."""
    height, width = samples.shape[:2]
    if depth == 16:
        lines = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        bits = np.unpackbits(samples.astype(np.uint8).reshape(height, -1, 1), axis=2)[..., 8 - depth :]
        lines = np.packbits(bits.reshape(height, -1), axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, as two bytes of anything."""
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype("<u2").view("V2")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Nothing but errors of calbench, which name the file."""
    try:
        yield
    except CalbenchError as error:
        found = str(error)
    else:
        return
    assert str(path) in found


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


class TestArrays:
    @pytest.mark.parametrize("ending", [".npy", ".npz", "compressed.npz"])
    @pytest.mark.parametrize("dtype", STORED)
    def test_values_come_as_stored(self, tmp_path: Path, rng: np.random.Generator, dtype: str, ending: str) -> None:
        array = (rng.random((3, 4, 5)) * 100).astype(dtype)
        path = tmp_path / f"bild_ä{ending}"
        if ending == ".npy":
            np.save(path, array)
        else:
            (np.savez_compressed if "compressed" in ending else np.savez)(path, probabilities=array)
        found = read_array(path, "prediction")
        assert found.array.dtype == array.dtype
        np.testing.assert_array_equal(found.array, array)
        assert found.stored == array.dtype.name
        assert 0 <= found.digest < 2**63
        assert read_header(path, "prediction") == ((3, 4, 5), array.dtype.name)

    @pytest.mark.parametrize("ending", [".npy", ".npz"])
    def test_bfloat16_is_two_bytes_of_anything_and_comes_as_float32(self, tmp_path: Path, ending: str) -> None:
        values = np.array([[0.5, -1.0, 3.140625], [np.inf, 1e-30, 0.0]], np.float32)
        path = tmp_path / f"a{ending}"
        if ending == ".npy":
            np.save(path, bfloat16(values))
            assert b"'|V2'" in path.read_bytes()
        else:
            np.savez(path, logits=bfloat16(values))
        found = read_array(path, "prediction")
        assert found.stored == "bfloat16"
        assert found.array.dtype == np.float32
        np.testing.assert_allclose(found.array, values, rtol=2**-8)
        assert found.array[0].tolist() == [0.5, -1.0, 3.140625]
        assert read_header(path, "prediction") == ((2, 3), "bfloat16")

    @pytest.mark.parametrize("dtype", [">f4", ">f2", ">i4"])
    def test_big_endian_files_come_in_the_order_of_the_machine(self, tmp_path: Path, dtype: str) -> None:
        array = np.arange(6).reshape(2, 3).astype(dtype)
        found = read_array(saved(tmp_path / "a.npy", array), "prediction")
        assert found.array.dtype == np.dtype(dtype[1:])
        assert found.array.dtype.isnative
        np.testing.assert_array_equal(found.array, array)
        assert found.stored == np.dtype(dtype).name

    @pytest.mark.parametrize("save", [np.save, np.savez_compressed])
    def test_fortran_order(self, tmp_path: Path, save: Callable[..., None]) -> None:
        array = np.asfortranarray(np.arange(24.0).reshape(2, 3, 4))
        path = tmp_path / ("a.npy" if save is np.save else "a.npz")
        save(path, array)
        np.testing.assert_array_equal(read_array(path, "prediction").array, array)

    def test_npy_is_mapped_not_read(self, tmp_path: Path) -> None:
        array = read_array(saved(tmp_path / "a.npy", np.ones((2, 3))), "prediction").array
        assert not array.flags.writeable
        assert isinstance(array.base, np.memmap)
        assert type(array) is np.ndarray

    def test_a_large_member_arrives_whole(self, tmp_path: Path, rng: np.random.Generator) -> None:
        array = rng.random((5, 200, 301))
        np.savez_compressed(tmp_path / "a.npz", data=array)
        np.testing.assert_array_equal(read_array(tmp_path / "a.npz", "prediction").array, array)

    @pytest.mark.parametrize(
        ("keys", "prediction", "mask"),
        [
            (["label", "logits"], "logits", "label"),
            (["ground_truth", "predictions"], "predictions", "ground_truth"),
            (["gt", "softmax"], "softmax", "gt"),
            (["softmax", "probabilities"], "probabilities", None),
            (["arr_0"], "arr_0", "arr_0"),
            (["label", "data"], "data", "label"),
            (["anything"], "anything", "anything"),
            (["one", "other"], None, None),
            (["label"], None, "label"),  # the only array, but not of this role
            (["logits"], "logits", None),
        ],
    )
    def test_which_member_counts(
        self, tmp_path: Path, keys: list[str], prediction: str | None, mask: str | None
    ) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, **{key: np.full((2, 3), i) for i, key in enumerate(keys)})
        roles: list[tuple[arrays.Role, str | None, str]] = [
            ("prediction", prediction, "--npz-key"),
            ("mask", mask, "--gt-npz-key"),
        ]
        for role, expected, option in roles:
            if expected is not None:
                assert read_array(path, role).array[0, 0] == keys.index(expected)
                continue
            for read in (read_array, read_header):
                with pytest.raises(FormatError, match=option) as error:
                    read(path, role)
                assert all(repr(key) in str(error.value) for key in keys)

    def test_a_given_key_comes_first_and_must_exist(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, data=np.zeros((2, 3)), mine=np.ones((4, 5)))
        assert read_array(path, "prediction", "mine").array.shape == (4, 5)
        assert read_header(path, "mask", "mine") == ((4, 5), "float64")
        with pytest.raises(FormatError, match=r"'data', 'mine'; expected 'other' for the prediction; .* --npz-key"):
            read_array(path, "prediction", "other")

    def test_an_archive_without_arrays(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz")
        with pytest.raises(FormatError, match="holds no array"):
            read_array(tmp_path / "a.npz", "prediction")

    @pytest.mark.parametrize("ending", [".npy", ".npz"])
    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.array([1, "a", None], object), "pickled Python objects, which calbench never loads"),
            (np.zeros(3, [("p", "f4"), ("q", "i2")]), "holds values of type"),
            (np.zeros((2, 3), complex), "holds values of type complex128; expected bool, integers, or floats"),
            (np.zeros((2, 3), np.longdouble), "holds values of type"),
            (np.zeros((2, 3), "V1"), "holds values of type"),
            (np.array(["a", "b"]), "holds values of type <U1"),
            (np.zeros((0, 3)), r"shape \(0, 3\), without a value"),
        ],
    )
    def test_what_is_no_array_of_numbers(self, tmp_path: Path, array: np.ndarray, message: str, ending: str) -> None:
        path = tmp_path / f"a{ending}"
        if ending == ".npy":
            np.save(path, array)
        else:
            np.savez(path, data=array)
        with pytest.raises(FormatError, match=message) as error:
            read_array(path, "prediction")
        assert str(path) in str(error.value)

    def test_pickles_are_never_loaded(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.mkdir, (str(tmp_path / "sprung"),)

        np.save(tmp_path / "a.npy", np.array([Trap()], object))
        np.savez(tmp_path / "b.npz", data=np.array([Trap()], object))
        (tmp_path / "c.npy").write_bytes((tmp_path / "a.npy").read_bytes()[128:])  # a bare pickle
        for name in ("a.npy", "b.npz", "c.npy"):
            with pytest.raises(FormatError):
                read_array(tmp_path / name, "prediction")
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "c.npz"])
    def test_truncated_files(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        {"a.npy": np.save, "a.npz": np.savez, "c.npz": np.savez_compressed}[name](path, np.arange(600.0))
        whole = path.read_bytes()
        for length in (0, 5, 40, 200, len(whole) - 3):
            path.write_bytes(whole[:length])
            with pytest.raises(FormatError, match=r"is it truncated") as error:
                read_array(path, "prediction")
            assert str(path) in str(error.value)

    def test_a_changed_byte_of_a_member_is_noticed(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, data=np.arange(200_000.0))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(FormatError, match="CRC"):
            read_array(path, "prediction")

    def test_files_of_another_kind(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", data=np.zeros((2, 3)))
        (tmp_path / "a.npz").rename(tmp_path / "a.npy")
        saved(tmp_path / "c.npy", np.zeros((2, 3))).rename(tmp_path / "c.npz")
        (tmp_path / "d.png").write_bytes(b"no image")
        for name in ("a.npy", "c.npz", "d.png"):
            for read in (read_array, read_header):
                with pytest.raises(FormatError, match="another kind of file"):
                    read(tmp_path / name, "prediction")

    def test_missing_files_and_unknown_extensions(self, tmp_path: Path) -> None:
        for name in ("a.npy", "a.npz", "a.png"):
            for read in (read_array, read_header):
                with pytest.raises(FormatError, match=name):
                    read(tmp_path / name, "prediction")
        for read in (read_array, read_header):
            with pytest.raises(FormatError, match=r"expected \.npy, \.npz, \.nii, \.nii\.gz, \.png"):
                read(tmp_path / "a.mat", "prediction")

    @pytest.mark.parametrize("name", ["a.npy", "u.npz", "c.npz", "g.png", "f.tif", "t.csv", "m.json", "m.txt"])
    def test_damaged_files_end_in_an_error_that_names_them(
        self, tmp_path: Path, rng: np.random.Generator, name: str
    ) -> None:
        path, array = tmp_path / name, rng.random((4, 5)).astype(np.float32)
        readers: list[Callable[[Path], Any]] = [lambda p: read_array(p, "prediction"), lambda p: read_header(p, "mask")]
        if name == "a.npy":
            np.save(path, array)
        elif name.endswith(".npz"):
            (np.savez if name == "u.npz" else np.savez_compressed)(path, data=array)
        elif name == "g.png":
            Image.fromarray((array * 60000).astype(np.uint16)).save(path)
        elif name == "f.tif":
            Image.fromarray(array).save(path)
        elif name == "t.csv":
            path.write_text("label,pred,conf\n1,2,0.5\n3,3,0.25\n")
            readers = [read_table]
        else:
            path.write_text('{"1": 2, "255": "ignore"}' if name == "m.json" else "id class\n1 2\n3 -1\n")
            readers = [read_label_map]
        whole = path.read_bytes()
        for _ in range(60):
            data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
            for place in rng.integers(0, len(data), 2):
                data[place] = rng.integers(256)
            path.write_bytes(data)
            for read in readers:
                with contextlib.suppress(UserWarning), naming(path):  # Pillow and numpy warn of what they overlook
                    read(path)

    def test_a_header_is_read_without_the_values(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.npy", np.zeros((40, 50)))
        path.write_bytes(path.read_bytes()[:128])
        assert read_header(path, "prediction") == ((40, 50), "float64")

    def test_extensions(self) -> None:
        assert [extension(Path(name)) for name in ("A.NPZ", "x/b.nii.gz", "c.1.nii", "d")] == [
            ".npz",
            ".nii.gz",
            ".nii",
            "",
        ]


class TestDigest:
    def test_equal_files_have_equal_digests(self, tmp_path: Path) -> None:
        for name in ("a.npy", "b.npy"):
            np.save(tmp_path / name, np.arange(12.0))
        for name in ("a.npz", "b.npz"):
            np.savez(tmp_path / name, data=np.arange(12.0))
        for ending in (".npy", ".npz"):
            one, other = (read_array(tmp_path / f"{stem}{ending}", "prediction").digest for stem in "ab")
            assert one == other

    @pytest.mark.parametrize("save", [np.save, np.savez])
    def test_any_change_of_a_small_file_shows(self, tmp_path: Path, save: Callable[..., None]) -> None:
        path = tmp_path / ("a.npy" if save is np.save else "a.npz")
        array = np.zeros(CHUNK * N_CHUNKS // 8 - 64)
        seen = set()
        for place in (None, 0, 5000, 30_001, -1):
            changed = array.copy()
            if place is not None:
                changed[place] = 1
            save(path, changed)
            seen.add(read_array(path, "prediction").digest)
        assert len(seen) == 5

    def test_a_large_npy_file_is_sampled(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npy"
        array = np.zeros(CHUNK * N_CHUNKS)
        digests = []
        for size, value, place in ((0, 0, 0), (0, 1, 0), (0, 1, -1), (1, 0, 0), (0, 1, slice(None))):
            changed = array[: len(array) - size].copy()
            changed[place] = value
            np.save(path, changed)
            digests.append(read_array(path, "prediction").digest)
        assert len(set(digests)) == 5

    def test_an_image_is_digested_as_read_grey_does(self, tmp_path: Path) -> None:
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "a.png")
        assert read_array(tmp_path / "a.png", "mask").digest == read_grey(tmp_path / "a.png").digest


class TestDeepImages:
    @pytest.mark.parametrize("ending", [".png", ".tif"])
    def test_sixteen_bits(self, tmp_path: Path, rng: np.random.Generator, ending: str) -> None:
        levels = rng.integers(0, 65536, (3, 5)).astype(np.uint16)
        path = tmp_path / f"a{ending}"
        Image.fromarray(levels).save(path)
        array, stored = read_deep(path)
        assert (array.dtype, stored) == (np.uint16, "uint16")
        np.testing.assert_array_equal(array, levels)
        np.testing.assert_array_equal(read_array(path, "prediction").array, levels)
        assert read_header(path, "prediction") == ((3, 5), "uint16")

    def test_sixteen_bits_of_the_other_byte_order(self, tmp_path: Path) -> None:
        path = tmp_path / "a.tif"
        tag = lambda number, kind, value: struct.pack(">HHIHH", number, kind, 1, value, 0)  # noqa: E731
        tags = [
            (256, 3, 2),
            (257, 3, 1),
            (258, 3, 16),
            (259, 3, 1),
            (262, 3, 1),
            (273, 3, 200),
            (278, 3, 1),
            (279, 3, 4),
        ]
        head = b"MM\0*" + struct.pack(">IH", 8, len(tags)) + b"".join(tag(*each) for each in tags) + b"\0" * 4
        path.write_bytes(head.ljust(200, b"\0") + struct.pack(">HH", 1, 40_000))
        array, stored = read_deep(path)
        assert (array.tolist(), array.dtype, stored) == ([[1, 40_000]], np.uint16, "uint16")
        assert array.dtype.isnative

    def test_float_tiff(self, tmp_path: Path, rng: np.random.Generator) -> None:
        probabilities = rng.random((3, 5)).astype(np.float32)
        Image.fromarray(probabilities).save(tmp_path / "a.tiff")
        array, stored = read_deep(tmp_path / "a.tiff")
        assert (array.dtype, stored) == (np.float32, "float32")
        np.testing.assert_array_equal(array, probabilities)
        assert read_header(tmp_path / "a.tiff", "prediction") == ((3, 5), "float32")

    def test_eight_bits_are_what_read_grey_gives(self, tmp_path: Path, rng: np.random.Generator) -> None:
        levels = rng.integers(0, 256, (3, 5)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / "grey.png")
        Image.fromarray(np.repeat(levels[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
        Image.fromarray(levels > 100).save(tmp_path / "bits.png")
        for name in ("grey", "rgb", "bits"):
            array, stored = read_deep(tmp_path / f"{name}.png")
            assert stored == "uint8"
            np.testing.assert_array_equal(array, read_grey(tmp_path / f"{name}.png").levels)
            assert read_header(tmp_path / f"{name}.png", "prediction") == ((3, 5), "uint8")

    @pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
    def test_colour_of_sixteen_bits_is_not_cut_to_eight(self, tmp_path: Path, colour: int, channels: int) -> None:
        samples = np.broadcast_to(np.arange(6).reshape(2, 3, 1) * 9000, (2, 3, channels))
        path = png(tmp_path / "a.png", samples, depth=16, colour=colour)
        readers: list[Callable[[Path], Any]] = [
            read_grey,
            read_deep,
            read_labels,
            lambda p: read_header(p, "mask"),
            lambda p: read_array(p, "mask"),
        ]
        for read in readers:
            with pytest.raises(FormatError, match=r"a\.png has several channels of 16 bits, which would be cut to 8"):
                read(path)

    @pytest.mark.parametrize("name", ["a.png", "a.tif", "float.tif"])
    def test_an_eight_bit_folder_says_when_deeper_maps_are_read(self, tmp_path: Path, name: str) -> None:
        deep = np.zeros((2, 3), np.float32 if "float" in name else np.uint16)
        Image.fromarray(deep).save(tmp_path / name)
        with pytest.raises(FormatError, match="only when all files of the folder are"):
            read_grey(tmp_path / name)

    def test_other_depths(self, tmp_path: Path) -> None:
        Image.fromarray(np.zeros((2, 3), np.int32)).save(tmp_path / "a.tif")
        for read in (read_array, read_header):
            with pytest.raises(
                FormatError, match="32 bits a pixel in mode 'I'; calbench reads grey images of 8 and 16"
            ):
                read(tmp_path / "a.tif", "prediction")

    @pytest.mark.parametrize("read", [read_deep, read_labels])
    def test_truncated(self, tmp_path: Path, rng: np.random.Generator, read: Callable[[Path], Any]) -> None:
        Image.fromarray(rng.integers(0, 65536, (30, 50)).astype(np.uint16)).save(tmp_path / "a.png")
        data = (tmp_path / "a.png").read_bytes()
        (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
        with pytest.raises(FormatError, match=r"is it truncated"):
            read(tmp_path / "a.png")


class TestGreyFromArray:
    def read(self, path: Path, array: np.ndarray) -> images.GreyImage:
        return grey_from_array(read_array(saved(path, array), "mask"), path)

    def test_bytes_stay_and_bool_is_one_bit(self, tmp_path: Path) -> None:
        levels = np.array([[0, 7, 255], [1, 2, 3]], np.uint8)
        found = self.read(tmp_path / "a.npy", levels)
        np.testing.assert_array_equal(found.levels, levels)
        assert (found.levels.dtype, found.bits, found.channels, found.spread, found.palette) == (
            np.uint8,
            8,
            1,
            0,
            False,
        )
        assert found.digest == read_array(tmp_path / "a.npy", "mask").digest
        found = self.read(tmp_path / "a.npy", levels > 2)
        assert found.levels.tolist() == [[0, 255, 255], [0, 0, 255]]
        assert (found.levels.dtype, found.bits) == (np.uint8, 1)

    @pytest.mark.parametrize("shape", [(1, 2, 3), (2, 3, 1)])
    def test_a_single_plane(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        found = self.read(tmp_path / "a.npy", np.arange(6, dtype=np.uint8).reshape(shape))
        assert found.levels.tolist() == [[0, 1, 2], [3, 4, 5]]

    @pytest.mark.parametrize("shape", [(6,), (2, 3, 2), (1, 1, 2, 3)])
    def test_other_shapes(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        with pytest.raises(ShapeError, match=r"a\.npy has shape .*; expected \(H, W\), \(1, H, W\) or \(H, W, 1\)"):
            self.read(tmp_path / "a.npy", np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("dtype", ["i8", "i2", "u2", "i1", "u8"])
    def test_other_integers(self, tmp_path: Path, dtype: str) -> None:
        found = self.read(tmp_path / "a.npy", np.array([[0, 1], [99, 100]], dtype))
        assert found.levels.tolist() == [[0, 1], [99, 100]]
        assert (found.levels.dtype, found.bits) == (np.uint8, 8)

    @pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 256)])
    def test_values_outside_a_byte(self, tmp_path: Path, low: int, high: int) -> None:
        with pytest.raises(RangeError, match=rf"a\.npy holds int16 values {low}\.\.{high}; expected 0\.\.255"):
            self.read(tmp_path / "a.npy", np.array([[low, high]], np.int16))

    def test_floats(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="float16 values; expected bool, or integers"):
            self.read(tmp_path / "a.npy", np.zeros((2, 3), np.float16))


PATH = Path("mask.png")


def naive(coding: LabelCoding, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rules of the class, pixel by pixel; -1 where a value has no class."""
    target, valid = np.zeros(raw.shape, int), np.ones(raw.shape, bool)
    for place, value in np.ndenumerate(raw):
        value = int(value)
        if value in coding.ignore:
            valid[place] = False
        elif coding.mapping is not None:
            target[place] = coding.mapping[value]
            valid[place] = target[place] != -1
        elif coding.reduce_zero:
            valid[place] = value not in (0, 255)
            target[place] = value - 1
        else:
            target[place] = value
    target[~valid] = 0
    return target, valid


class TestLabelCoding:
    @pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8", "u8"])
    @pytest.mark.parametrize(
        ("coding", "values"),
        [
            (LabelCoding(4), [0, 1, 2, 3]),
            (LabelCoding(4, (255,)), [0, 1, 2, 3, 255]),
            (LabelCoding(4, (0, 9)), [0, 1, 2, 3, 9]),
            (LabelCoding(4, reduce_zero=True), [0, 1, 2, 3, 4, 255]),
            (LabelCoding(4, (2,), reduce_zero=True), [0, 1, 2, 3, 4, 255]),
            (LabelCoding(3, mapping={7: 0, 11: 1, 26: 2, 0: -1}), [7, 11, 26, 0]),
            (LabelCoding(3, (255,), mapping={7: 0, 11: 1, 26: 2}), [7, 11, 26, 255]),
            (LabelCoding(3, (7,), mapping={7: 0, 11: 1, 26: 2}), [7, 11, 26]),  # to ignore comes first
        ],
    )
    def test_against_the_rules(
        self, rng: np.random.Generator, coding: LabelCoding, values: list[int], dtype: str
    ) -> None:
        raw = rng.choice(values, (6, 7)).astype(dtype)
        raw.flat[: len(values)] = values
        target, valid = coding.apply(raw, PATH)
        expected, counts = naive(coding, raw)
        np.testing.assert_array_equal(target, expected)
        assert target.dtype == np.uint8
        if counts.all():
            assert valid is None
        else:
            assert valid is not None
            assert valid.dtype == bool
            np.testing.assert_array_equal(valid, counts)

    def test_void_values_are_literal(self) -> None:
        target, valid = LabelCoding(3, (-1,)).apply(np.array([[-1, 0, 2]], np.int16), PATH)
        assert valid is not None
        assert (target.tolist(), valid.tolist()) == ([[0, 0, 2]], [[False, True, True]])
        with pytest.raises(RangeError, match="label values 255;"):
            LabelCoding(3, (-1,)).apply(np.array([[255, 0]], np.uint8), PATH)
        with pytest.raises(RangeError, match="label values -1;"):
            LabelCoding(3, (255,)).apply(np.array([[-1, 0]], np.int8), PATH)

    def test_values_far_apart(self) -> None:
        raw = np.array([[-(2**31), 0], [2, 10**9]], np.int64)
        target, valid = LabelCoding(3, (-(2**31), 10**9)).apply(raw, PATH)
        assert valid is not None
        assert (target.tolist(), valid.tolist()) == ([[0, 0], [2, 0]], [[False, True], [True, False]])
        with pytest.raises(RangeError, match=r"label values -2147483648, 1000000000;"):
            LabelCoding(3).apply(raw, PATH)
        target, valid = LabelCoding(3, (-1,)).apply(np.array([[2**64 - 1, 1]], np.uint64), PATH)
        assert target.tolist() == [[0, 1]]

    @pytest.mark.parametrize(
        ("classes", "dtype"),
        [
            (2, np.uint8),
            (254, np.uint8),
            (255, np.uint8),
            (256, np.uint8),
            (257, np.int16),
            (32768, np.int16),
            (32769, np.int32),
        ],
    )
    def test_smallest_dtype(self, classes: int, dtype: type) -> None:
        raw = np.array([[0, classes - 1, 10**6]])
        target, valid = LabelCoding(classes, (10**6,)).apply(raw, PATH)
        assert target.dtype == dtype
        assert target.tolist() == [[0, classes - 1, 0]]
        assert valid is not None
        assert valid.tolist() == [[True, True, False]]

    def test_bool_labels_and_all_void(self) -> None:
        target, valid = LabelCoding(2).apply(np.array([[True, False]]), PATH)
        assert (target.tolist(), valid) == ([[1, 0]], None)
        target, valid = LabelCoding(2, (1,)).apply(np.array([[True, True]]), PATH)
        assert valid is not None
        assert not valid.any()

    def test_the_raw_labels_are_left_alone(self) -> None:
        raw = np.array([[0, 1, 255]], np.uint8)
        LabelCoding(2, (255,)).apply(raw, PATH)
        assert raw.tolist() == [[0, 1, 255]]

    @pytest.mark.parametrize(
        ("coding", "raw", "found"),
        [
            (LabelCoding(3), [0, 3, 255, 3], "3, 255; expected 0..2 for 3 classes"),
            (LabelCoding(3), [0, -1], "-1; expected 0..2"),
            (LabelCoding(3), range(20), "3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 7 more; expected"),
            (LabelCoding(3, reduce_zero=True), [0, 4, 255], "4; expected, from 0 once 1 is taken from them, 0..2"),
            (LabelCoding(3, reduce_zero=True), [-1, 1], "-1; expected"),
        ],
    )
    def test_values_that_are_no_class(self, coding: LabelCoding, raw: list[int], found: str) -> None:
        with pytest.raises(RangeError) as error:
            coding.apply(np.array([raw]), PATH)
        message = str(error.value)
        assert f"mask.png holds the label values {found}" in message
        assert all(
            option in message for option in ("--ignore-index V", "--num-classes", "--label-map", "--reduce-zero-label")
        )

    def test_ids_that_the_map_does_not_name(self) -> None:
        coding = LabelCoding(3, (9,), mapping={7: 0, 8: 3})
        with pytest.raises(RangeError, match=r"mask\.png holds the label values 5, 6, which --label-map does not name"):
            coding.apply(np.array([[5, 6, 7, 8, 9]]), PATH)
        with pytest.raises(
            RangeError, match=r"label values 8, to which --label-map gives the classes 3; expected 0\.\.2"
        ):
            coding.apply(np.array([[7, 8, 9]]), PATH)

    def test_options_that_do_not_go_together(self) -> None:
        with pytest.raises(OptionError, match="--reduce-zero-label together with --label-map"):
            LabelCoding(3, reduce_zero=True, mapping={1: 0})
        with pytest.raises(OptionError, match="--num-classes is 0"):
            LabelCoding(0)


class TestReadLabels:
    def test_palette_images_give_their_indices(self, tmp_path: Path) -> None:
        indices = np.array([[0, 1, 2], [3, 255, 0]], np.uint8)
        for name, palette in (("colour", [9, 8, 7, 200, 0, 0, 0, 200, 0, 0, 0, 200]), ("grey", [0] * 12)):
            image = Image.fromarray(indices).copy()
            image.putpalette(palette + [255] * 756)
            image.save(tmp_path / f"{name}.png")
            labels, digest = read_labels(tmp_path / f"{name}.png")
            np.testing.assert_array_equal(labels, indices)
            assert digest == images.decode(tmp_path / f"{name}.png").digest

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    @pytest.mark.parametrize("ending", [".png", ".tif"])
    def test_grey_images(self, tmp_path: Path, dtype: type, ending: str) -> None:
        values = np.array([[0, 1, 18], [250, 255, 3]], dtype) * (1 if dtype is np.uint8 else 256)
        Image.fromarray(values.astype(dtype)).save(tmp_path / f"a{ending}")
        labels, _ = read_labels(tmp_path / f"a{ending}")
        assert labels.dtype == dtype
        np.testing.assert_array_equal(labels, values)

    @pytest.mark.parametrize("depth", [1, 2, 4])
    def test_few_bits_are_not_stretched(self, tmp_path: Path, depth: int) -> None:
        values = np.arange(8).reshape(2, 4) % 2**depth
        labels, _ = read_labels(png(tmp_path / "a.png", values, depth=depth))
        np.testing.assert_array_equal(labels, values)

    @pytest.mark.parametrize("shape", [(2, 3), (1, 2, 3), (2, 3, 1)])
    @pytest.mark.parametrize("dtype", STORED)
    def test_arrays(self, tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        values = np.array([0, 1, 1, 0, 1, 0] if dtype == "?" else [0, 1, 2, 3, 4, 100]).astype(dtype).reshape(shape)
        np.savez(tmp_path / "a.npz", logits=np.zeros((5, 2, 3)), label=values)
        np.save(tmp_path / "a.npy", values)
        for name in ("a.npz", "a.npy"):
            labels, digest = read_labels(tmp_path / name)
            assert labels.dtype.kind in "bui"
            np.testing.assert_array_equal(labels, values.reshape(2, 3))
            assert digest == read_array(tmp_path / name, "mask").digest
        assert read_labels(tmp_path / "a.npz", "label")[0].shape == (2, 3)

    def test_bfloat16_labels(self, tmp_path: Path) -> None:
        labels, _ = read_labels(saved(tmp_path / "a.npy", bfloat16(np.array([[0, 1], [18, -1]]))))
        assert labels.tolist() == [[0, 1], [18, -1]]

    @pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf, 1e12])
    def test_floats_that_are_no_labels(self, tmp_path: Path, value: float) -> None:
        with pytest.raises(FormatError, match=r"a\.npy holds float32 values that are no whole numbers"):
            read_labels(saved(tmp_path / "a.npy", np.array([[0, 1, value]], np.float32)))
        Image.fromarray(np.array([[0, 1, value]], np.float32)).save(tmp_path / "a.tif")
        with pytest.raises(FormatError, match=r"a\.tif holds float32 values"):
            read_labels(tmp_path / "a.tif")

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
    def test_colours_need_a_map(self, tmp_path: Path, mode: str) -> None:
        colours = np.zeros((2, 3, len(mode)), np.uint8)
        colours[0, 0, 0] = 128
        Image.fromarray(colours, None).convert(mode).save(tmp_path / "a.png")
        with pytest.raises(FormatError, match=r"a\.png is a colour image .* label colours need a map to indices"):
            read_labels(tmp_path / "a.png")

    def test_three_equal_channels_are_grey(self, tmp_path: Path) -> None:
        Image.fromarray(np.repeat(np.array([[[0], [7], [255]]], np.uint8), 3, axis=2)).save(tmp_path / "a.png")
        assert read_labels(tmp_path / "a.png")[0].tolist() == [[0, 7, 255]]

    def test_jpeg_changes_labels(self, tmp_path: Path) -> None:
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "a.jpg")
        with pytest.raises(FormatError, match="JPEG, which changes label values"):
            read_labels(tmp_path / "a.jpg")

    def test_several_planes(self, tmp_path: Path) -> None:
        with pytest.raises(ShapeError, match=r"shape \(3, 2, 2\)"):
            read_labels(saved(tmp_path / "a.npy", np.zeros((3, 2, 2), int)))


class TestLabelMap:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.json", '{"7": 0, "8": 1, "-1": -1, "255": "ignore"}'),
            ("a.JSON", '{"7": "0", "8": 1, "-1": "IGNORE", "255": -1}'),
            ("a.csv", "7,0\n8,1\n-1,-1\n255,ignore\n"),
            ("a.csv", "\ufeffid,trainId\r\n7,0\r\n8,1\r\n-1,-1\r\n255,Ignore\r\n"),
            ("a.csv", "id;class\n7; 0\n8;1\n\n-1;-1\n255;ignore"),
            ("a.txt", "7 0\n8\t1\n  -1   -1\n255 ignore\n"),
            ("a.tsv", "raw\tclass\n7\t0\n8\t1\n-1\t-1\n255\tignore\n"),
        ],
    )
    def test_forms(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text, encoding="utf-8", newline="")
        assert read_label_map(tmp_path / name) == {7: 0, 8: 1, -1: -1, 255: -1}

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.json", "[1, 2]", "no JSON object"),
            ("a.json", '{"7": 0', "cannot read .* as a label map"),
            ("a.json", '{"road": 0}', "cannot read .* 'road'"),
            ("a.json", '{"7": 0.5}', "0.5 is no class"),
            ("a.json", '{"7": true}', "True is no class"),
            ("a.json", '{"7": -2}', "-2 is no class"),
            ("a.json", '{"7": 1, "7": 2}', "raw value 7 twice"),
            ("a.json", "{}", "is empty"),
            ("a.csv", "7,0\n8,1,2\n", "'8 1 2' is not a pair"),
            ("a.csv", "7,0\n8\n", "'8' is not a pair"),
            ("a.csv", "7,0\nroad,1\n", "'road'"),
            ("a.csv", "7,road\n", "'road'"),
            ("a.csv", "id,class\n", "is empty"),
            ("a.csv", "7,0\n8,1\n7,1\n", "raw value 7 twice"),
            ("a.txt", "", "is empty"),
        ],
    )
    def test_errors(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(FormatError, match=message) as error:
            read_label_map(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)

    def test_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
        for name in ("a.csv", "missing.json"):
            with pytest.raises(FormatError, match=name):
                read_label_map(tmp_path / name)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


class TestTables:
    def test_scores_and_labels(self, tmp_path: Path, rng: np.random.Generator) -> None:
        scores, labels = rng.random((7, 4)).astype(np.float16), rng.integers(0, 4, 7)
        path = tmp_path / "a.npz"
        np.savez(path, predictions=scores, ground_truth=labels)
        assert is_table(path)
        table = read_table(path)
        np.testing.assert_array_equal(table.scores, scores)
        np.testing.assert_array_equal(table.target, labels)
        assert (table.predicted, table.confidence, table.stored, len(table)) == (None, None, "float16", 7)

    def test_the_digest_covers_both_arrays(self, tmp_path: Path) -> None:
        digests = set()
        for number, (score, label) in enumerate(((0, 0), (1, 0), (0, 1), (0, 0))):
            path = tmp_path / f"{number}.npz"
            np.savez(path, data=np.full((2, 3), score), label=np.full(2, label))
            digests.add(read_table(path).digest)
        assert len(digests) == 3

    def test_keys(self, tmp_path: Path) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, a=np.zeros((5, 3)), b=np.arange(5.0))
        assert is_table(path, "a", "b")
        assert read_table(path, "a", "b").target.tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(FormatError, match="--npz-key"):
            read_table(path)

    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            ({"data": (5, 3), "label": (5,)}, True),
            ({"data": (5, 3), "label": (3,)}, False),
            ({"data": (5, 3), "label": (5, 1)}, False),
            ({"data": (5, 3)}, False),
            ({"probabilities": (5, 3)}, False),
            ({"data": (3, 5, 5), "label": (5, 5)}, False),
            ({"data": (5,), "label": (5,)}, False),
        ],
    )
    def test_what_is_a_table(self, tmp_path: Path, members: Mapping[str, tuple[int, ...]], expected: bool) -> None:
        np.savez(tmp_path / "a.npz", **{key: np.zeros(shape) for key, shape in members.items()})
        assert is_table(tmp_path / "a.npz") == expected

    def test_only_headers_decide(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        np.savez(tmp_path / "a.npz", data=np.zeros((5, 3)), label=np.zeros(5))
        monkeypatch.setattr(tables, "read_array", None)
        assert is_table(tmp_path / "a.npz")
        assert is_table(tmp_path / "missing.CSV")
        assert is_table(tmp_path / "missing.tsv")
        assert not is_table(saved(tmp_path / "a.npy", np.zeros((5, 3))))
        assert not is_table(tmp_path / "missing.png")
        with pytest.raises(FormatError):
            is_table(tmp_path / "missing.npz")

    def test_shapes_that_do_not_fit(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", data=np.zeros((5, 3)), label=np.zeros(4))
        with pytest.raises(
            ShapeError, match=r"shape \(5, 3\) and labels of shape \(4,\); expected \(N, C\) and \(N,\)"
        ):
            read_table(tmp_path / "a.npz")

    @pytest.mark.parametrize("true", tables.TRUE)
    @pytest.mark.parametrize("predicted", tables.PREDICTED)
    def test_names_of_labels(self, tmp_path: Path, true: str, predicted: str) -> None:
        table = read_table(write(tmp_path / "a.csv", f"id,{predicted},{true.upper()},Confidence\n9,1,2,0.5\n8,3,3,1\n"))
        assert table.scores is None
        assert table.predicted is not None
        assert table.confidence is not None
        assert (table.target.tolist(), table.predicted.tolist()) == ([2, 3], [1, 3])
        assert table.target.dtype.kind == table.predicted.dtype.kind == "i"
        assert (table.confidence.tolist(), table.confidence.dtype) == ([0.5, 1.0], np.float64)
        assert (table.stored, len(table)) == ("float64", 2)

    @pytest.mark.parametrize("name", tables.CONFIDENCE)
    @pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
    @pytest.mark.parametrize("ending", [".csv", ".tsv"])
    def test_names_of_confidences_and_separators(self, tmp_path: Path, name: str, separator: str, ending: str) -> None:
        lines = [["true", "pred", name], ["1", "2", "0.1"], ["3", "3.0", "7e-1"]]
        text = "\ufeff" + "\r\n".join(separator.join(line) for line in lines)
        table = read_table(write(tmp_path / f"a{ending}", text))
        assert table.confidence is not None
        assert table.predicted is not None
        assert (table.confidence.tolist(), table.predicted.tolist()) == ([0.1, 0.7], [2, 3])

    def test_decimals_are_read_exactly(self, tmp_path: Path, rng: np.random.Generator) -> None:
        values = rng.random(200)
        text = "true,pred,conf\n" + "".join(f"0,0,{value!r}\n" for value in values.tolist())
        np.testing.assert_array_equal(read_table(write(tmp_path / "a.csv", text)).confidence, values)

    def test_the_first_name_counts(self, tmp_path: Path) -> None:
        table = read_table(write(tmp_path / "a.csv", "gt,label,pred,score,confidence\n9,1,1,8,0.5\n"))
        assert table.confidence is not None
        assert (table.target.tolist(), table.confidence.tolist()) == ([1], [0.5])

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("label,pred\n1,2\n", FormatError, "columns 'label', 'pred'; expected one of confidence, conf, score"),
            ("pred,conf\n1,0.2\n", FormatError, "columns 'pred', 'conf'; expected one of true_label, true"),
            ("1,2,0.5\n3,3,0.7\n", FormatError, "columns '1', '2', '0.5'; .* name the columns in the first line"),
            ("", FormatError, "cannot read"),
            ("label,pred,conf\n", FormatError, "no samples"),
            ("label,pred,conf\n1,2,0.5\ncat,1,0.5\n", FormatError, "column 'label' .*'cat'.*; expected numbers"),
            ("label;pred;conf\n1;2;0,5\n", FormatError, "column 'conf' .* decimals with a point"),
            ("label,pred,conf\n1,1.5,0.5\n", FormatError, "no whole numbers below 2³¹, e.g. 1.5"),
            ("label,pred,conf\n1,2,0.5\n1,2,nan\n", RangeError, "or NaN, in column 'conf' for sample 2"),
            ("label,pred,conf\n1,,0.5\n", RangeError, "no value, or NaN, in column 'pred' for sample 1"),
            ("label,pred,conf\n1,2\n", RangeError, "no value, or NaN, in column 'conf' for sample 1"),
            (
                "label,pred,conf\n1,2,0.5\n1,2,97.5\n",
                RangeError,
                r"confidences 0\.5\.\.97\.5, e\.g\. 97\.5 for sample 2",
            ),
            ("label,pred,conf\n1,2,-0.5\n", RangeError, r"expected probabilities in \[0, 1\]; are they percentages"),
            ("label,pred,conf\n1,2,inf\n", RangeError, "expected probabilities"),
            ("label,pred,conf\n1,2,0.5,7\n1,2,0.5\n", FormatError, "cannot read"),
            ("label,pred,conf\n1,2,0.5\n1,2,0.5,7\n", FormatError, "cannot read"),
        ],
    )
    def test_errors(self, tmp_path: Path, text: str, error: type[CalbenchError], message: str) -> None:
        path = write(tmp_path / "a.csv", text)
        with pytest.raises(error, match=message) as found:
            read_table(path)
        assert str(path) in str(found.value)

    def test_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
        for name in ("a.csv", "missing.csv"):
            with pytest.raises(FormatError, match=name):
                read_table(tmp_path / name)


class TestSampleGroups:
    def test_few_samples_are_their_own_groups(self) -> None:
        for n in (0, 1, 999, 1000):
            assert sample_groups(n).tolist() == list(range(n))
        assert sample_groups(5, 4).max() <= 3

    def test_the_hash_is_splitmix64(self) -> None:
        # the first outputs of the reference generator from seed 0
        outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
        assert sample_groups(2000)[:4].tolist() == [output % 1000 for output in outputs]
        assert sample_groups(2000, 97)[:4].tolist() == [output % 97 for output in outputs]

    def test_groups_are_even_stable_and_free_of_order(self) -> None:
        groups = sample_groups(50_000)
        assert (groups.dtype, groups.min(), groups.max()) == (np.intp, 0, 999)
        np.testing.assert_array_equal(groups[:2000], sample_groups(2000))
        count = np.bincount(groups)
        assert ((count - 50) ** 2 / 50).sum() == pytest.approx(1000, abs=200)  # χ² of 999 degrees of freedom
        # samples in the order of their classes: each group has its share of every class
        for each in np.split(groups, 10):
            assert np.bincount(each, minlength=1000).max() < 20


class TestVolumes:
    @pytest.fixture
    def nib(self) -> Any:
        return pytest.importorskip("nibabel")

    @pytest.fixture(params=[".nii", ".nii.gz"])
    def path(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        return tmp_path / f"case_1{request.param}"

    def save(self, nib: Any, path: Path, array: np.ndarray, scale: tuple[float, float] | None = None) -> Path:
        image = nib.Nifti1Image(array, np.eye(4), dtype=array.dtype)
        if scale is not None:
            image.header.set_slope_inter(*scale)
        image.to_filename(path)
        return path

    @pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i2", "u2", "i4"])
    @pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2)])
    def test_values_come_as_stored(
        self, nib: Any, path: Path, rng: np.random.Generator, dtype: str, shape: tuple[int, ...]
    ) -> None:
        from calbench.io.volumes import read_volume, volume_header

        array = (rng.random(shape) * 100).astype(dtype)
        self.save(nib, path, array)
        found = read_volume(path)
        assert (found.array.dtype, found.stored) == (np.dtype(dtype), np.dtype(dtype).name)
        np.testing.assert_array_equal(found.array, array)
        assert volume_header(path)[0] == shape
        assert read_header(path, "prediction") == (shape, found.stored)
        assert read_array(path, "mask").digest == found.digest

    def test_scaled_values_come_as_float32(self, nib: Any, path: Path) -> None:
        array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
        self.save(nib, path, array, scale=(0.5, 10.0))
        stored = np.asarray(nib.load(path).dataobj.get_unscaled())
        found = read_array(path, "prediction")
        assert (found.array.dtype, found.stored) == (np.float32, "float32")
        np.testing.assert_allclose(found.array, stored * 0.5 + 10)
        assert read_header(path, "prediction") == ((3, 4, 5), "float32")

    def test_a_change_shows_in_the_digest(self, nib: Any, path: Path) -> None:
        array = np.zeros((64, 64, 30), np.float32)
        digests = set()
        for place in (None, 0, 100_000, -1):
            changed = array.copy()
            if place is not None:
                changed.flat[place] = 1
            digests.add(read_array(self.save(nib, path, changed), "mask").digest)
        assert len(digests) == 4

    def test_labels(self, nib: Any, path: Path) -> None:
        labels = np.arange(60).reshape(3, 4, 5) % 7
        for array in (labels.astype(np.int16), labels.astype(np.float32), labels.astype(np.uint8)[..., None]):
            found, _ = read_labels(self.save(nib, path, array))
            assert found.dtype.kind in "ui"
            np.testing.assert_array_equal(found, labels)
        with pytest.raises(ShapeError, match="expected a label volume"):
            read_labels(self.save(nib, path, np.zeros((3, 4, 5, 2), np.uint8)))
        with pytest.raises(FormatError, match="no whole numbers"):
            read_labels(self.save(nib, path, np.full((3, 4, 5), 0.5, np.float32)))

    def test_other_shapes(self, nib: Any, path: Path) -> None:
        for read in (read_array, read_header):
            with pytest.raises(ShapeError, match=r"shape \(3, 4\); expected a volume"):
                read(self.save(nib, path, np.zeros((3, 4), np.uint8)), "prediction")

    def test_complex_values(self, nib: Any, path: Path) -> None:
        self.save(nib, path, np.zeros((3, 4, 5), np.complex64))
        for read in (read_array, read_header):
            with pytest.raises(FormatError, match="holds values of type complex64"):
                read(path, "prediction")

    def test_truncated(self, nib: Any, path: Path, rng: np.random.Generator) -> None:
        whole = self.save(nib, path, rng.random((9, 9, 9))).read_bytes()
        for length in (0, 100, len(whole) // 2, len(whole) - 20):
            path.write_bytes(whole[:length])
            with pytest.raises(FormatError, match=r"as a NIfTI volume .* is it truncated"):
                read_array(path, "prediction")

    @pytest.mark.usefixtures("nib")
    def test_files_of_another_kind(self, path: Path) -> None:
        path.write_bytes(gzip.compress(b"no volume" * 99) if path.suffix == ".gz" else b"no volume" * 99)
        with pytest.raises(FormatError, match="cannot read"):
            read_header(path, "prediction")
        path.unlink()
        with pytest.raises(FormatError, match="cannot read"):
            read_array(path, "prediction")

    def test_without_nibabel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real_import = builtins.__import__

        def absent(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.split(".")[0] == "nibabel":
                raise ImportError(name)
            return real_import(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", absent)
        (tmp_path / "a.nii.gz").write_bytes(b"")
        with pytest.raises(FormatError, match=r"pip install 'calbench\[medical\]'"):
            read_array(tmp_path / "a.nii.gz", "prediction")


class TestRealFiles:
    def test_softmax_tables(self, real: Path) -> None:
        files = sorted((real / "cifar-softmax").glob("*.npz"))
        assert len(files) == 3
        for path in files:
            assert is_table(path)
            table = read_table(path)
            assert table.scores is not None
            assert table.stored == "float32"
            assert table.scores.shape == (10_000, 100 if "cifar-100" in path.name else 10)
            assert 0 <= table.target.min() <= table.target.max() < table.scores.shape[1]
            assert (table.scores.argmax(1) == table.target).mean() > 0.5

    def test_tables_of_confidences(self, real: Path) -> None:
        table = read_table(real / "toplabel-csv" / "probs_resnet110_c10_logits.csv")
        assert table.predicted is not None
        assert table.confidence is not None
        right = table.predicted == table.target
        edges = np.linspace(0, 1, 16)
        bins = np.clip(np.searchsorted(edges, table.confidence, side="left") - 1, 0, 14)
        gap = np.bincount(bins, right - table.confidence, 15)
        # the value that the notebook of the data's authors prints
        assert np.abs(gap).sum() / len(table) == pytest.approx(0.047503518641, abs=1e-8)
        lengths = [len(read_table(path)) for path in sorted((real / "toplabel-csv").glob("*.csv"))]
        assert lengths == [50_000, 10_000, 2897, 50_000]

    def test_dense_logits(self, real: Path) -> None:
        coding = LabelCoding(11, (11,))
        right = pixels = void = 0
        for path in sorted((real / "camvid-logits").glob("*.npz")):
            assert not is_table(path)
            assert read_header(path, "prediction") == ((11, 120, 160), "float16")
            logits = read_array(path, "prediction")
            target, valid = coding.apply(read_labels(path)[0], path)
            assert (logits.stored, target.dtype) == ("float16", np.uint8)
            with pytest.raises(RangeError, match=r"label values 11; expected 0\.\.10 for 11 classes"):
                LabelCoding(11).apply(read_labels(path)[0], path)
            assert valid is not None
            right += int((logits.array.argmax(0) == target)[valid].sum())
            pixels += int(valid.sum())
            void += int((~valid).sum())
        assert right / pixels == pytest.approx(0.9066, abs=5e-5)
        assert void / (pixels + void) == pytest.approx(0.015, abs=5e-4)
