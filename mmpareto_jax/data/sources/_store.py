"""The prepared form: a ``.npy`` file for each split and array, and ``index.json``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set, opened.

    Attributes:
      dataset: its name.
      classes: their names; labels are indices of it.
      arrays: split -> name -> array [N, ...], mapped into memory, "label" int32 [N]
        among them where examples have a class.
      ids: split -> the examples' ids, in the order of the arrays.
      index: all of ``index.json``: counts, options, checksums.
    """

    dataset: str
    classes: tuple[str, ...]
    arrays: Mapping[str, Mapping[str, np.ndarray]]
    ids: Mapping[str, tuple[str, ...]]
    index: Mapping[str, Any]


def open_prepared(directory: str | Path) -> Prepared:
    """Opens what ``prepare`` wrote; nothing is read before it is used.

    Args:
      directory: the directory.

    Returns:
      The data set.

    Raises:
      ValueError: the directory holds no prepared data, or a file of it is missing.
    """
    directory = Path(directory)
    index = read_json(directory / "index.json")
    if index is None:
        raise ValueError(
            f"open_prepared: {directory} holds no prepared data (no index.json); "
            "make it with: mmpareto prepare"
        )
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for split, names in index["arrays"].items():
        arrays[split] = {}
        for name in names:
            path = array_path(directory, split, name)
            if not path.exists():
                raise ValueError(f"open_prepared: {path} is missing")
            arrays[split][name] = np.load(path, mmap_mode="r")
    ids = {split: tuple(x) for split, x in index["ids"].items()}
    return Prepared(index["dataset"], tuple(index["classes"]), arrays, ids, index)


def array_path(directory: Path, split: str, name: str) -> Path:
    """Where an array lies."""
    return directory / f"{split}-{name}.npy"


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """What the file holds; None where there is none."""
    return json.loads(path.read_text()) if path.exists() else None


def write_json(path: Path, value: Any) -> None:
    """Writes a whole file or none."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(temporary, path)
