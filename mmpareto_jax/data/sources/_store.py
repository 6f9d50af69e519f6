"""The prepared form: a ``.npy`` file for each split and array, and ``index.json``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmpareto_jax.data.sources._check import look


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
    """Opens what ``prepare`` wrote; only labels are read before they are used.

    Args:
      directory: the directory.

    Returns:
      The data set.

    Raises:
      ValueError: the directory holds no prepared data, or they are not what the index
        says: all that ``check_prepared`` sees without reading whole arrays.
    """
    found = look(Path(directory))
    if found.faults:
        first, *others = found.faults
        more = f"; and {len(others)} more: mmpareto check" if others else ""
        raise ValueError(f"open_prepared: {directory}: {first}{more}")
    index = found.entries
    ids = {split: tuple(x) for split, x in index["ids"].items()}
    classes = tuple(index["classes"])
    return Prepared(index["dataset"], classes, found.arrays, ids, index)
