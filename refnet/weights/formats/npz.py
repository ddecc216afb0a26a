"""NumPy's ``.npz``: an archive of arrays, read without pickle and with every size checked first.

Source: NumPy's ``numpy/lib/_format_impl.py`` (NEP 1), and PKWARE's APPNOTE for zip.
"""

from __future__ import annotations

import contextlib
import encodings.cp437  # noqa: F401 (which zipfile looks for when it meets the first name)
import itertools
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader, RawIOBase
from typing import IO, Any, cast

import numpy as np

from refnet.errors import ConfigError, CorruptError, DtypeError, FormatError, LimitError, WeightsError
from refnet.files import expands_too_much, json_object, regular_file_size, written_whole
from refnet.resources import is_want
from refnet.weights.conversion import Conversion
from refnet.weights.formats.format import Format, by_suffix
from refnet.weights.formats.loaded import (
    METADATA_MAX_BYTES,
    METADATA_NAME,
    Arena,
    Loaded,
    check_shape,
    in_context,
    json_document,
    not_numeric,
    raise_problems,
    read_all,
    read_at,
    writable,
)
from refnet_kernels.system.forks import Lock

# NumPy parses headers by `ast`, which fails at times where two threads of CPython 3.11 use it (gh-106905).
_parsing = Lock()

SUFFIX = ".npz"
MAGICS = (b"PK\x03\x04", b"PK\x05\x06")

_FORMAT = "npz"
_ARRAY_SUFFIX = ".npy"
# The list of contents in PyTorch's archives.
_PICKLE = "/data.pkl"
_LOCAL_HEADER_BYTES = 30
# Bits of a member's flags: encrypted, patched, encrypted in another way; and a name in UTF-8.
_ENCRYPTED, _UTF8 = 0x61, 0x800
# The position in it of the lengths of the name and of the extra field.
_LOCAL_FLAGS, _LOCAL_LENGTHS = 6, 26
# Deflate's best: two bits for 258 bytes.
_DEFLATE_MAX_RATIO = 1032
_STEP_BYTES, _SKIPPED_BYTES = 1 << 20, 1 << 14
# Fixed, since they would make files differ from run to run.
_TIMESTAMP, _CREATOR_UNIX, _MODE = (1980, 1, 1, 0, 0, 0), 3, 0o644 << 16
# What zipfile raises, besides its own error, on archives that are damaged or hostile.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def read_npz(path: str) -> Loaded:
    """Read an archive of arrays.

    Parameters
    ----------
    path : str
        The archive. The tensors' names are its members', without ``.npy``.

    Returns
    -------
    Loaded
        The arrays of integers and floats, native-endian and C-contiguous.

    Raises
    ------
    FormatError, CorruptError, LimitError, DtypeError
        All the problems found, with the members that they are in.
    """
    loaded = Loaded({}, _FORMAT, {}, Conversion())
    with open(path, "rb") as file, zip_errors(), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        check_archive(members, os.fstat(file.fileno()).st_size)
        if any(member.filename.endswith(_PICKLE) for member in members):
            raise FormatError("it holds a pickle as PyTorch's files do, but starts like an .npz.")
        arena = Arena(sum(member.file_size for member in members), len(members))

        def read(member: zipfile.ZipInfo) -> Loaded:
            return _read_member(archive, file.fileno(), member, arena)

        for part in read_all(read, members, lambda member: member.file_size):
            loaded.tensors.update(part.tensors)
            loaded.metadata.update(part.metadata)
            loaded.conversion.left_out.update(part.conversion.left_out)
    return loaded


#: How a file of one array starts.
NPY_MAGIC = np.lib.format.MAGIC_PREFIX


def read_npy(path: str) -> Loaded:
    """Read a file of one array, as `numpy.save` writes it.

    Parameters
    ----------
    path : str

    Returns
    -------
    Loaded
        The array has the name of the file, without ``.npy``.

    Raises
    ------
    FormatError, CorruptError, LimitError, DtypeError
    """
    name = os.path.basename(path).removesuffix(_ARRAY_SUFFIX)
    loaded = Loaded({}, "npy", {}, Conversion())
    size = regular_file_size(path)
    with open(path, "rb") as file:
        try:
            _read_array(file, size, name, Arena(size, 1), loaded)
        except struct.error as error:
            raise FormatError(f"its NumPy header is cut off: {error}.") from error
    return loaded


@contextlib.contextmanager
def zip_errors() -> Iterator[None]:
    """Turn what a damaged archive raises into CorruptError.

    Raises
    ------
    CorruptError
    """
    try:
        yield
    except WeightsError:
        raise
    except _ZIP_ERRORS as error:
        if is_want(error):
            raise
        raise CorruptError(f"the zip archive is damaged: {error}.") from error


def _tensor_name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(_ARRAY_SUFFIX)


def check_archive(members: list[zipfile.ZipInfo], file_size: int) -> None:
    """Check the directory of an archive against the size of the file, before anything is decompressed.

    Parameters
    ----------
    members : list of ZipInfo
    file_size : int

    Raises
    ------
    FormatError, LimitError
        All the problems found, with the members that they are in.
    """
    seen: set[str] = set()
    problems: list[WeightsError] = []
    for member in members:
        if member.filename in seen:
            problems.append(FormatError(f"member {member.filename!r} is in the archive twice."))
        seen.add(member.filename)
        try:
            _check_member(member)
        except WeightsError as error:
            problems.append(in_context(f"member {member.filename!r}", error))
    raise_problems(problems)
    ordered = sorted(members, key=lambda member: member.header_offset)
    starts = [member.header_offset for member in ordered] + [file_size]
    for member, (start, following) in zip(ordered, itertools.pairwise(starts), strict=True):
        if start + _LOCAL_HEADER_BYTES + member.compress_size > following:
            raise FormatError(f"member {member.filename!r} overlaps what follows it in the archive.")
    total = sum(member.file_size for member in members)
    if expands_too_much(file_size, total):
        raise LimitError(
            f"an archive of {file_size} bytes claims to expand to {total}; "
            "if its arrays really are that uniform, save them uncompressed (numpy.savez)."
        )


def _check_member(member: zipfile.ZipInfo) -> None:
    _check_name(member.filename)
    if member.comment:
        raise FormatError("it has a comment, which can hide other members.")
    if member.flag_bits & _ENCRYPTED:
        raise FormatError("it is encrypted, or a patch.")
    if member.compress_type == zipfile.ZIP_STORED:
        largest = member.compress_size
    elif member.compress_type == zipfile.ZIP_DEFLATED:
        largest = member.compress_size * _DEFLATE_MAX_RATIO
    else:
        raise FormatError("it is compressed by another method than deflate.")
    if member.file_size > largest:
        raise LimitError(f"its {member.compress_size} bytes cannot expand to the {member.file_size} it claims.")


def _check_name(name: str) -> None:
    # refnet unpacks nothing onto the disk, but other tools may.
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name or name[1:2] == ":":
        raise FormatError("its name leads outside the archive.")


class _Stored(RawIOBase):
    """A member that is not compressed: zipfile would copy its bytes twice on their way.

    As zipfile does, the read that reaches the end compares the checksum.
    """

    def __init__(self, file: int, member: zipfile.ZipInfo) -> None:
        self._file = file
        self._member = member
        header = os.pread(file, _LOCAL_HEADER_BYTES, member.header_offset)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(MAGICS[0]):
            raise zipfile.BadZipFile("it has no header of its own")
        # That header says by itself how it spells the name.
        (flags,), lengths = (
            struct.unpack_from("<H", header, _LOCAL_FLAGS),
            struct.unpack_from("<HH", header, _LOCAL_LENGTHS),
        )
        name = os.pread(file, lengths[0], member.header_offset + _LOCAL_HEADER_BYTES)
        if name.decode("utf-8" if flags & _UTF8 else "cp437") != member.orig_filename:
            raise zipfile.BadZipFile("its own header does not have its name")
        self._position = member.header_offset + _LOCAL_HEADER_BYTES + sum(lengths)
        self._left = member.file_size
        self._checksum = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = memoryview(buffer)[: min(self._left, _STEP_BYTES)]
        count = read_at(self._file, self._position, part)
        self._checksum = zlib.crc32(part[:count], self._checksum)
        self._position += count
        self._left -= count
        if count < len(part):
            raise EOFError("it is cut off")
        if self._left == 0 and self._checksum != self._member.CRC:
            raise zipfile.BadZipFile("its CRC-32 differs")
        return count

    def tell(self) -> int:
        return self._member.file_size - self._left


_Member = _Stored | zipfile.ZipExtFile


def opened_member(archive: zipfile.ZipFile, file: int, member: zipfile.ZipInfo) -> _Member:
    """A member to read. The read that reaches its end compares the checksum.

    Parameters
    ----------
    archive : ZipFile
    file : int
        The descriptor of its file.
    member : ZipInfo

    Returns
    -------
    binary file
    """
    if member.compress_type == zipfile.ZIP_STORED:
        return _Stored(file, member)
    return cast(zipfile.ZipExtFile, archive.open(member))


def _read_member(archive: zipfile.ZipFile, file: int, member: zipfile.ZipInfo, arena: Arena) -> Loaded:
    loaded = Loaded({}, _FORMAT, {}, Conversion())
    try:
        with zip_errors(), opened_member(archive, file, member) as content:
            if member.filename == METADATA_NAME:
                loaded.metadata.update(_read_metadata(content, member))
            elif member.filename.endswith(_ARRAY_SUFFIX):
                _read_array(content, member.file_size, _tensor_name(member), arena, loaded)
            else:
                loaded.conversion.left_out[member.filename] = "it is not an array"
            # The checksum is compared at the end, also of what is skipped: damage may be why it looks skippable.
            # Mostly nothing is left, and CPython complains where it has no memory for the bytes that might be.
            while content.read(_SKIPPED_BYTES):
                pass
    except WeightsError as error:
        raise in_context(f"member {member.filename!r}", error, tensor=_tensor_name(member)) from error
    return loaded


def _read_metadata(file: _Member, member: zipfile.ZipInfo) -> dict[str, Any]:
    if member.file_size > METADATA_MAX_BYTES:
        raise LimitError(f"the metadata take {member.file_size} bytes; refnet reads up to {METADATA_MAX_BYTES}.")
    return json_object(file.read(), "text")


def _read_array(file: _Member | BufferedReader, member_size: int, name: str, arena: Arena, loaded: Loaded) -> None:
    shape, fortran_order, dtype = _read_array_header(file)
    if dtype.hasobject:
        raise DtypeError("it holds pickled Python objects, which refnet never loads.", found=str(dtype))
    if dtype.names or dtype.subdtype:
        raise DtypeError(f"its dtype {dtype} is structured; refnet reads numbers.", found=str(dtype))
    if dtype.kind not in "fiu":
        loaded.conversion.left_out[name] = not_numeric(dtype)
        return
    check_shape(shape, dtype.itemsize)
    nbytes = math.prod(shape) * dtype.itemsize
    stored = member_size - file.tell()
    if nbytes != stored:
        raise (FormatError if nbytes < stored else CorruptError)(
            f"its shape {shape} of {dtype} takes {nbytes} bytes, but {stored} follow the header.",
            expected=nbytes,
            found=stored,
        )
    array = arena.take(nbytes).view(dtype).reshape(shape[::-1] if fortran_order else shape)
    loaded.tensors[name] = _read_values(file, array, fortran_order)


def _read_array_header(file: _Member | BufferedReader) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    # NumPy evaluates the header as a Python literal, and does not document which exceptions that can raise.
    try:
        with _parsing.held():
            version = np.lib.format.read_magic(file)
            header = readers[version](file) if version in readers else None
    except _ZIP_ERRORS[:3]:
        raise
    except Exception as error:
        if is_want(error):
            raise
        raise FormatError(f"its NumPy header is malformed: {error}.") from error
    if header is None:
        raise FormatError(f"its NumPy header has version {version}; refnet reads 1.0 and 2.0.", found=version)
    # A bool passes for an integer in NumPy's check of the header, but not as a dimension.
    if not all(type(size) is int for size in header[0]):
        raise FormatError(f"its NumPy header has the shape {header[0]}; its sizes are integers.", found=header[0])
    return header


def _read_values(file: _Member | BufferedReader, array: np.ndarray, fortran_order: bool) -> np.ndarray:
    content = array.reshape(-1).view(np.uint8).data
    done = 0
    # zipfile copies each step through bytes of its own (with large steps malloc would keep memory that is freed later),
    # and compares the checksum at the end.
    while count := file.readinto(content[done : done + _STEP_BYTES]):
        done += count
    if done != len(content):
        raise CorruptError(f"only {done} of its {len(content)} bytes are there.", expected=len(content), found=done)
    if fortran_order:
        array = array.T
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def write_npz(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write tensors as an ``.npz`` that `numpy.load` reads too, whole or not at all.

    The same tensors and metadata, in the same order, give the same bytes.

    Parameters
    ----------
    path : path-like
        It ends in ``.npz``. An existing file is replaced once the new one is complete and on the disk.
    tensors : mapping of str to ndarray
        Integers or floats, of any layout; written C-contiguous in the given order.
    metadata : mapping of str to Any
        What JSON can hold; stored as the member ``__refnet__``.

    Raises
    ------
    ConfigError
        `path` is a directory or does not end so, a name cannot be a member's, or JSON cannot hold `metadata`.
    DtypeError
        A tensor does not hold integers or floats.
    """
    target = os.fsdecode(path)
    if not target.endswith(".npz") or os.path.isdir(target):
        raise ConfigError(f"the file to write is {target}; its name must end in .npz, and it cannot be a directory.")
    header = json_document(metadata)
    arrays = {name: _writable(name, tensor) for name, tensor in tensors.items()}
    with written_whole(target) as file:
        _write_archive(file, arrays, header)


def _writable(name: str, tensor: np.ndarray) -> np.ndarray:
    try:
        _check_name(name)
    except FormatError as error:
        raise ConfigError(f"tensor {name!r}: {error.message}", tensor=name) from error
    return writable(name, tensor)


def _write_archive(file: IO[bytes], arrays: Mapping[str, np.ndarray], header: bytes) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member(METADATA_NAME, len(header)), header)
        for name, array in arrays.items():
            with archive.open(_member(name + _ARRAY_SUFFIX, array.nbytes), "w") as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def _member(name: str, size: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _TIMESTAMP)
    member.create_system, member.external_attr = _CREATOR_UNIX, _MODE
    # zipfile chooses the 64-bit fields by this.
    member.file_size = size
    return member


FORMAT = Format(".npz", lambda path, head: head.startswith(MAGICS), read_npz, by_suffix(SUFFIX, write_npz))
