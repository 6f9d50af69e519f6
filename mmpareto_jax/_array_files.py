"""Arrays in files that others wrote: heads are not believed, and objects not made."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

# What npy files without names of fields begin with.
_HEADS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Head(NamedTuple):
    """What the head of an npy file says, and the file can hold.

    Attributes:
      shape: sizes, none negative.
      dtype: of numbers or strings; no objects, no records.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def read_head(path: Path) -> Head:
    """The head of an npy file.

    Raises:
      ValueError: the file is no npy file, holds anything but plain numbers or strings,
        or fewer bytes than its head tells.
    """
    with path.open("rb") as file:
        return _read_head(file, path.stat().st_size)


def open_npy(path: Path) -> np.ndarray:
    """An npy file, mapped into memory.

    Raises:
      ValueError: as of `read_head`.
    """
    read_head(path)
    array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def read_npz(path: Path, key: str) -> np.ndarray:
    """An array of an npz file.

    Raises:
      KeyError: there is none of this name.
      ValueError: as of `read_head`; or it takes more memory than the machine has.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{key}.npy")
        # Before anything is unpacked; no more than this is.
        if info.file_size > memory():
            raise ValueError(
                f"{info.file_size} bytes, and this machine has {memory()}: write it as "
                ".npy files in a directory, which need not fit in memory"
            )
        with archive.open(info) as member:
            _read_head(member, info.file_size)
    with np.load(path, allow_pickle=False) as stored:
        array: np.ndarray = stored[key]
        return array


def memory() -> int:
    """Bytes of memory that the machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _read_head(file: IO[bytes], size: int) -> Head:
    version = np.lib.format.read_magic(file)
    if version not in _HEADS:
        raise ValueError(f"its npy version {version} is none of numbers or strings")
    try:
        shape, _, dtype = _HEADS[version](file)
    except Exception:  # whatever the text of a head can be
        raise ValueError("its head is no npy head") from None
    if dtype.hasobject:
        raise ValueError("it holds Python objects: write numbers or strings")
    if dtype.kind not in "biufcSU" or not dtype.itemsize:
        raise ValueError(f"it is of {dtype}: expected numbers or strings")
    if any(n < 0 for n in shape):
        raise ValueError(f"its head tells of a negative size: {list(shape)}")
    told, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if told > there:
        raise ValueError(f"cut off: its head tells of {told} bytes, {there} are there")
    return Head(shape, dtype)
