"""Where the files of the prepared form lie, and small ones that are written whole."""

from __future__ import annotations

import collections
import hashlib
import json
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmpareto_jax import _whole_files
from mmpareto_jax._whole_files import naming, write_whole
from mmpareto_jax.data._limits import INDEX_BYTES

SPLITS = ("train", "validation", "test")
# Of an array: it becomes a part of a file's name, and of an attribute's.
NAME = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"

# Of arrays beside the label: the head on all modalities is called the one, and what
# tells examples from filling in a batch the other.
RESERVED = ("joint", "mask")


def is_name(text: str) -> bool:
    """Whether an array may be called so: its file then lies where it should.

    Example:
      >>> is_name("audio_2"), is_name("../audio"), is_name("")
      (True, False, False)
    """
    return re.fullmatch(NAME, text) is not None


def array_path(directory: Path, split: str, name: str) -> Path:
    """Where an array lies."""
    return directory / f"{split}-{name}.npy"


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_head(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Begins a npy file, whose rows follow.

    They are written and not mapped: on a full disk that is an error, and no signal.
    """
    head = {"shape": shape, "fortran_order": False, "descr": dtype.str}
    np.lib.format.write_array_header_1_0(file, head)


def write_rows(file: BinaryIO, rows: np.ndarray, dtype: np.dtype) -> None:
    """Goes on with it; an error names this file, where others are open too."""
    with naming(Path(file.name)):
        file.write(np.ascontiguousarray(rows, dtype).data)


def read_json(path: Path) -> Any:
    """What the file holds.

    Raises:
      OSError: it cannot be read.
      ValueError: it is no JSON; or a name is there twice.
    """
    return _whole_files.read_json(path, INDEX_BYTES, _once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        number = collections.Counter(name for name, _ in pairs)
        raise ValueError(f"{number.most_common(1)[0][0]!r:.100} is there twice")
    return found


def write_json(path: Path, value: Any) -> None:
    """Writes a whole file or none."""
    write_whole(path, json.dumps(value, indent=1) + "\n")
