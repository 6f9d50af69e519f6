"""The arrays of one split of own data, looked at one by one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mmpareto_jax.data._limits import EXAMPLE_BYTES
from mmpareto_jax.data.sources._raw_arrays import Open
from mmpareto_jax.data.sources._rows import blocks, not_finite


class Modality(NamedTuple):
    """An array [N, ...] that was looked at.

    Attributes:
      open: gives it.
      dtype: what it is stored as.
      shape: of an example.
      digest: of all that it holds.
    """

    open: Open
    dtype: np.dtype
    shape: tuple[int, ...]
    digest: str


class Part(NamedTuple):
    """The arrays of a split, or those that are to be split.

    Attributes:
      prefix: of the keys, for messages.
      label: integers [N].
      ids: strings [N]; None where there are none.
      groups: strings [N]; None where there are none.
      modalities: name -> array.
    """

    prefix: str
    label: np.ndarray
    ids: np.ndarray | None
    groups: np.ndarray | None
    modalities: Mapping[str, Modality]


def read_part(split: str | None, found: Mapping[str, Open]) -> Part:
    """Looks at all the arrays of a split.

    Args:
      split: its name; None where the arrays are yet to be split.
      found: name -> array, "label" among them.

    Returns:
      The small ones, and what is to be known of the modalities.

    Raises:
      ValueError: what is wrong with an array, and the first row where it is.
    """
    prefix = "" if split is None else f"{split}/"
    if "label" not in found:
        there = ", ".join(found) or "nothing"
        raise ValueError(f"arrays: {prefix}label: is missing beside {there}")
    label = _label(f"{prefix}label", found["label"]())
    names = [x for x in found if x not in ("label", "id", "group", "classes")]
    if not names:
        raise ValueError(f"arrays: raw: no modality beside {prefix}label")
    strings: dict[str, np.ndarray] = {}
    for name in ("id", "group"):
        if name in found:
            key = f"{prefix}{name}"
            strings[name] = strings_of(key, found[name](), integers=True)
            _check_length(key, strings[name], len(label))
    return Part(
        prefix,
        label,
        strings.get("id"),
        strings.get("group"),
        {x: _modality(f"{prefix}{x}", found[x], len(label)) for x in sorted(names)},
    )


def _label(key: str, label: np.ndarray) -> np.ndarray:
    if label.dtype.kind not in "iu" or label.ndim != 1:
        raise ValueError(f"arrays: {key}: expected integers [N], got {_shown(label)}")
    if not len(label):
        raise ValueError(f"arrays: {key}: is empty")
    if label.min() < 0:
        row = int(np.argmax(label < 0))
        raise ValueError(f"arrays: {key}: row {row}: {label[row]} is no class")
    if label.max() >= 2**31:
        row = int(np.argmax(label >= 2**31))
        raise ValueError(f"arrays: {key}: row {row}: {label[row]} is too large")
    return label.astype(np.int64)


def _modality(key: str, give: Open, number: int) -> Modality:
    array = give()
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        words = "; names of people are called group, or id" * (array.dtype.kind in "SU")
        raise ValueError(
            f"arrays: {key}: expected floats or uint8, got {_shown(array)}{words}"
        )
    if not 2 <= array.ndim <= 5 or 0 in array.shape[1:]:
        expected = "[N, F], [N, T, C], [N, H, W, C] or [N, T, H, W, C]"
        raise ValueError(f"arrays: {key}: expected {expected}, got {_shown(array)}")
    _check_length(key, array, number)
    size = array.itemsize * math.prod(array.shape[1:])
    if size > EXAMPLE_BYTES:
        raise ValueError(
            f"arrays: {key}: {size} bytes an example, the limit is {EXAMPLE_BYTES}"
        )
    small = {1: np.uint8, 2: np.float16}
    dtype = np.dtype(small.get(array.dtype.itemsize, np.float32))
    if dtype.kind == "f":
        bad, row = not_finite(array, dtype)
        if bad:
            raise ValueError(
                f"arrays: {key}: row {row}: not finite as {dtype} ({bad} values in all)"
            )
    digest = hashlib.sha256()
    for _, block in blocks(array):
        digest.update(np.ascontiguousarray(block, dtype))
    return Modality(give, dtype, array.shape[1:], digest.hexdigest())


def strings_of(key: str, array: np.ndarray, integers: bool = False) -> np.ndarray:
    """The array [N] of strings, or of `integers` as such; else a ValueError."""
    if array.dtype.kind not in ("Uiu" if integers else "U") or array.ndim != 1:
        expected = "strings or integers" if integers else "strings"
        raise ValueError(f"arrays: {key}: expected {expected} [N], got {_shown(array)}")
    return array.astype(str)


def _check_length(key: str, array: np.ndarray, number: int) -> None:
    if len(array) != number:
        raise ValueError(f"arrays: {key}: {len(array)} rows, but {number} labels")


def _shown(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
