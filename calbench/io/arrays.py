"""Arrays of numbers from any file calbench reads: .npy, .npz, images and volumes, as stored and never unpickled."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from calbench.errors import CalbenchError, FormatError, RangeError, ShapeError
from calbench.io import images
from calbench.io.files import digest
from calbench.statistics.rows import Array

Role = Literal["prediction", "mask"]

PREDICTION_KEYS = ("data", "probabilities", "softmax", "logits", "predictions", "arr_0")
"""Names of the predictions in an .npz file, the first that is present counts."""
MASK_KEYS = ("label", "ground_truth", "gt", "data", "arr_0")
"""Names of the labels in an .npz file, the first that is present counts."""
VOLUMES = (".nii", ".nii.gz")
"""Extensions of volumes, which `calbench.io.volumes` reads."""

BFLOAT16 = np.dtype("V2")
"""The .npy format has no name for bfloat16: files hold it as two bytes of anything."""
CHUNK, N_CHUNKS = 1 << 14, 36
"""Bytes and number of the pieces that tell whether a large file changed; together 0.6 MB, read in under a millisecond."""

PIECE = 1 << 18
"""Bytes of an .npz member that are decompressed at once: they stay in the cache, as those of np.load do."""

_npy: Any = np.lib.format  # which numpy gives no types
_KEYS: dict[Role, tuple[str, ...]] = {"prediction": PREDICTION_KEYS, "mask": MASK_KEYS}
_OPTIONS: dict[Role, str] = {"prediction": "--npz-key", "mask": "--gt-npz-key"}


@dataclass(frozen=True, eq=False)
class StoredArray:
    """An array as a file holds it.

    Attributes:
        array: float16, float32, float64, integer or bool as stored, in the byte order of this machine; bfloat16 as
            float32. It may be read-only, or mapped from the file.
        stored: name of the dtype in the file, such as "float16" or "bfloat16".
        digest: 63 bits that tell whether the file changed.
    """

    array: Array
    stored: str
    digest: int


def read_header(path: Path, role: Role, key: str | None = None) -> tuple[tuple[int, ...], str]:
    """Shape and dtype name of a file's array, without reading its values.

    Args:
        role: which array of an .npz file is meant.
        key: its name, where it is none of the usual ones.
    Raises:
        FormatError: unreadable, not an array of numbers, or an .npz file in which the array is not found.
    """
    kind = extension(path)
    if kind == ".npz":
        with _archive(path) as archive, archive.open(_member(archive, path, role, key)) as stream:
            header = _npy_header(stream, path)
    elif kind == ".npy":
        with _opened(path) as stream:
            header = _npy_header(stream, path)
    elif kind in VOLUMES:
        from calbench.io.volumes import volume_header  # it imports this module

        return volume_header(path)
    elif kind in images.FORMATS:
        return images.read_layout(path)
    else:
        raise _unknown(path)
    return header.shape, header.stored


def read_array(path: Path, role: Role, key: str | None = None) -> StoredArray:
    """The array of a file: .npy mapped into memory, one member of .npz, a grey image, or a volume.

    The array of an .npz file is the one called `key`; else the first of `PREDICTION_KEYS` or `MASK_KEYS` that is present;
    else the only one, unless its name belongs to the other role.

    The digest of an .npz file comes from the checksum and sizes in its directory, that of an .npy file from its size,
    header and `N_CHUNKS` evenly spaced pieces, and so they cost little next to reading. A change of an .npy file that keeps
    its size and misses these pieces, as only files of more than 0.6 MB leave room for, goes unseen.

    Raises:
        FormatError: unreadable, truncated, pickled, not an array of numbers, empty, or not found in the .npz file.
        RangeError: an image whose channels differ.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "image.npz")
    ...     np.savez_compressed(path, logits=np.zeros((3, 2, 4), np.float16), label=np.ones((2, 4), np.uint8))
    ...     prediction, mask = read_array(path, "prediction"), read_array(path, "mask")
    >>> prediction.array.shape, prediction.stored, mask.stored
    ((3, 2, 4), 'float16', 'uint8')
    """
    kind = extension(path)
    if kind == ".npz":
        return _read_npz(path, role, key)
    if kind == ".npy":
        return _read_npy(path)
    if kind in VOLUMES:
        from calbench.io.volumes import read_volume  # it imports this module

        return read_volume(path)
    if kind in images.FORMATS:
        decoded = images.decode(path)
        array = images.deep(decoded, path)
        return StoredArray(array, array.dtype.name, decoded.digest)
    raise _unknown(path)


def member_of(path: Path, role: Role, key: str | None = None) -> str:
    """Name of the array of an .npz file that `read_array` takes.

    Raises:
        FormatError: no such file, or not found in it.
    """
    with _archive(path) as archive:
        return _member(archive, path, role, key).filename.removesuffix(".npy")


def grey_from_array(stored: StoredArray, path: Path) -> images.GreyImage:
    """A binary map or mask from .npy or .npz, as if it had been an image: bool is 1 bit, integers are 8-bit levels.

    Args:
        stored: `(H, W)`, `(1, H, W)` or `(H, W, 1)`, bool or integers in 0..255.
        path: for messages.
    Raises:
        FormatError: floats.
        RangeError: integers outside 0..255.
        ShapeError: several planes.
    """
    array = plane(stored.array, path)
    if array.dtype == bool:
        return images.GreyImage(array.astype(np.uint8) * np.uint8(255), 1, 1, 0, False, stored.digest)
    if array.dtype.kind == "f":
        raise FormatError(
            f"{path} holds {stored.stored} values; expected bool, or integers 0..255; save the map as uint8, a mask as bool"
        )
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        if low < 0 or high > 255:
            raise RangeError(
                f"{path} holds {stored.stored} values {low}..{high}; expected 0..255; scale them and save uint8, or bool"
            )
    return images.GreyImage(array.astype(np.uint8, copy=False), 8, 1, 0, False, stored.digest)


def plane(array: Array, path: Path) -> Array:
    """The `(H, W)` array in one of shape `(H, W)`, `(1, H, W)` or `(H, W, 1)`.

    Raises:
        ShapeError: any other shape.
    """
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        return array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2:
        raise ShapeError(
            f"{path} has shape {array.shape}; expected (H, W), (1, H, W) or (H, W, 1); save one plane a file"
        )
    return array


def extension(path: Path) -> str:
    """A file's extension in lower case, ".nii.gz" as one.

    >>> extension(Path("a.b/CASE_01.NII.GZ")), extension(Path("a.b.npy"))
    ('.nii.gz', '.npy')
    """
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def stored_name(dtype: np.dtype[Any], path: Path) -> str:
    """Name of a dtype that calbench reads.

    Raises:
        FormatError: Python objects, records, complex numbers, text, or floats of other sizes.
    """
    if dtype == BFLOAT16:
        return "bfloat16"
    if dtype.kind in "biu" or (dtype.kind == "f" and dtype.itemsize in (2, 4, 8)):
        return dtype.name
    if dtype.hasobject:
        raise FormatError(
            f"{path} holds pickled Python objects, which calbench never loads; expected an array of numbers; save it again "
            "from one with a numeric dtype"
        )
    raise FormatError(
        f"{path} holds values of type {dtype}; expected bool, integers, or floats of 16, 32 or 64 bits; save it as one of them"
    )


def finished(array: Array, stored: str, file_digest: int, path: Path) -> StoredArray:
    """An array straight from a file, with its values in a type that numpy computes with.

    Args:
        stored: what `stored_name` calls its dtype.
    Raises:
        FormatError: no values.
    """
    if not array.size:
        raise FormatError(
            f"{path} holds an array of shape {array.shape}, without a value; expected a map; save it again"
        )
    if stored == "bfloat16":  # the upper half of a float32
        array = (array.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return StoredArray(array.astype(array.dtype.newbyteorder("="), copy=False), stored, file_digest)


def sampled_digest(stream: IO[bytes]) -> int:
    """63-bit digest of an open file's size and of `N_CHUNKS` evenly spaced pieces, its first and last bytes among them."""
    size = stream.seek(0, 2)
    starts = np.unique(np.linspace(0, max(size - CHUNK, 0), N_CHUNKS).astype(int))
    pieces = [str(size).encode()]
    for start in starts.tolist():
        stream.seek(start)
        pieces.append(stream.read(CHUNK))
    return digest(b"".join(pieces))


@dataclass(frozen=True)
class _Header:
    """What an .npy file or member says of its values, which begin at byte `offset`."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    stored: str
    offset: int

    @property
    def order(self) -> Literal["C", "F"]:
        """Of the values: last axis fastest, or first."""
        return "F" if self.fortran else "C"


def _read_npy(path: Path) -> StoredArray:
    with _opened(path) as stream:
        header = _npy_header(stream, path)
        _check_length(header, stream.seek(0, 2), path)
        file_digest = sampled_digest(stream)
        if not math.prod(header.shape):  # nothing to map
            return finished(np.empty(header.shape, header.dtype), header.stored, file_digest, path)
        mapped = np.memmap(stream, header.dtype, "r", header.offset, header.shape, header.order)
    return finished(np.asarray(mapped), header.stored, file_digest, path)


def _read_npz(path: Path, role: Role, key: str | None) -> StoredArray:
    with _archive(path) as archive:
        member = _member(archive, path, role, key)
        with archive.open(member) as stream:
            header = _npy_header(stream, path)
            _check_length(header, member.file_size, path)
            values = np.empty(math.prod(header.shape), header.dtype)
            raw = values.view(np.uint8)
            for start in range(0, raw.size, PIECE):
                raw[start : start + PIECE] = np.frombuffer(stream.read(min(PIECE, raw.size - start)), np.uint8)
            stream.read(1)  # past the end, where the checksum is verified
    array = values.reshape(header.shape, order=header.order)
    facts = f"{member.filename} {member.CRC} {member.file_size} {member.compress_size}"
    return finished(array, header.stored, digest(facts.encode()), path)


def _member(archive: zipfile.ZipFile, path: Path, role: Role, key: str | None) -> zipfile.ZipInfo:
    """The member that holds the array of this role, by the rule of `read_array`."""
    members = {
        info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")
    }
    known = (key,) if key is not None else _KEYS[role]
    for name in known:
        if name in members:
            return members[name]
    of_others = {name for names in _KEYS.values() for name in names}
    if key is None and len(members) == 1 and members.keys().isdisjoint(of_others):
        return next(iter(members.values()))
    found = "the arrays " + ", ".join(map(repr, members)) if members else "no array"
    raise FormatError(
        f"{path} holds {found}; expected {' or '.join(map(repr, known))} for the {role}; name the right one by "
        f"{_OPTIONS[role]}"
    )


def _npy_header(stream: IO[bytes], path: Path) -> _Header:
    """The header at the beginning of a stream, which is left where the values begin."""
    try:
        one = _npy.read_magic(stream) == (1, 0)
        read = _npy.read_array_header_1_0 if one else _npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise FormatError(
            f"cannot read {path} as an array ({error}); is it truncated, or another kind of file?"
        ) from error
    return _Header(shape, fortran, dtype, stored_name(dtype, path), stream.tell())


def _check_length(header: _Header, length: int, path: Path) -> None:
    """Hold the shape in a header against the bytes there are."""
    expected = header.offset + math.prod(header.shape) * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or length < expected:
        raise FormatError(
            f"cannot read {path} as an array: {length:,} bytes, but shape {header.shape} of {header.stored} takes "
            f"{expected:,}; is it truncated?"
        )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as stream:
            yield stream
    except OSError as error:
        raise FormatError(
            f"cannot read {path}: {error.strerror or error}; check the path and its permissions"
        ) from error


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """An .npz file, with all that zipfile raises for damaged ones as FormatError."""
    with _opened(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                yield archive
        except CalbenchError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error) as error:
            raise FormatError(
                f"cannot read {path} as an .npz file ({error}); is it truncated, or another kind of file?"
            ) from error


def _unknown(path: Path) -> FormatError:
    known = ", ".join([".npy", ".npz", *VOLUMES, *images.FORMATS])
    return FormatError(f"{path} has no extension that calbench reads; expected {known}; save the map as one of them")
