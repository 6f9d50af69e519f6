"""What is wrong with a directory of prepared data: all of it, a sentence each."""

from __future__ import annotations

import collections
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpareto_jax._array_files import open_npy
from mmpareto_jax.data._limits import EXAMPLE_BYTES, INDEX_BYTES
from mmpareto_jax.data._raw_files import check_file
from mmpareto_jax.data.sources._entries import (
    entry_faults,
    few,
    named,
    named_badly,
    shown,
)
from mmpareto_jax.data.sources._files import (
    SPLITS,
    array_path,
    checksum,
    read_json,
)
from mmpareto_jax.data.sources._rows import blocks, not_finite

# Of numbers, as a device takes them.
_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
    )
)
Opened = dict[str, dict[str, np.ndarray]]


class Found(NamedTuple):
    """What a look at a directory finds.

    Attributes:
      entries: of ``index.json``, those that are what they should be.
      arrays: split -> name -> array, mapped into memory, of those that can be opened.
      faults: a sentence for each.
    """

    entries: Mapping[str, Any]
    arrays: Opened
    faults: list[str]


def check_prepared(directory: str | Path, checksums: bool = True) -> list[str]:
    """What is wrong with a directory of prepared data.

    Args:
      directory: what ``prepare`` wrote, or should have.
      checksums: whether each file's SHA-256 is compared with that of the index.

    Returns:
      A sentence for each fault, which names the file or the entry of ``index.json``:
      of the index, the files, their shapes and dtypes, labels, counts; and what opening
      does not look for: ids that are there twice, values that are not finite,
      checksums. Empty where all is well.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as directory:
      ...     check_prepared(directory)
      ['holds no prepared data (no index.json); make it with: mmpareto prepare']
    """
    directory = Path(directory)
    found = look(directory)
    return found.faults + list(_deep(directory, found, checksums))


def look(directory: Path) -> Found:
    """All that can be seen without reading whole arrays.

    Args:
      directory: what ``prepare`` wrote, or should have.

    Returns:
      What is there, and what is wrong with it.
    """
    if not os.path.lexists(directory / "index.json"):
        missing = "holds no prepared data (no index.json)"
        return Found({}, {}, [f"{missing}; make it with: mmpareto prepare"])
    try:
        check_file(directory / "index.json", directory, INDEX_BYTES)
        index = read_json(directory / "index.json")
    except (OSError, ValueError, RecursionError) as error:
        return Found({}, {}, [f"index.json cannot be read: {_line(error)}"])
    good, faults = entry_faults(index)
    faults += named_badly(good)
    arrays: Opened = {split: {} for split in SPLITS if split in good.get("arrays", {})}
    for split, name in named(good):
        try:
            arrays[split][name] = _open(array_path(directory, split, name), directory)
        except ValueError as error:
            faults.append(str(error))
    for check in (_rows, _alike, _labels, _counts, _digests):
        faults += few(check(good, arrays))
    return Found(good, arrays, faults)


# --- The heads of the files


def _open(path: Path, directory: Path) -> np.ndarray:
    try:
        check_file(path, directory, limit=None)
    except ValueError as error:
        raise ValueError(f"{path.name} {error}") from None
    try:
        array = open_npy(path)
    except Exception as error:  # whatever a broken head makes of it
        raise ValueError(f"{path.name} cannot be read: {_line(error)}") from None
    if not array.ndim or array.dtype not in _DTYPES:
        expected = "expected [N, ...] of numbers"
        raise ValueError(f"{path.name}: {expected}, got {_kind(array, 0)}")
    size = array.itemsize * math.prod(array.shape[1:])
    if size > EXAMPLE_BYTES:
        expected = f"the limit is {EXAMPLE_BYTES}"
        raise ValueError(f"{path.name}: {size} bytes a row, {expected}")
    return array


def _rows(good: Mapping[str, Any], arrays: Opened) -> Iterator[str]:
    if "ids" not in good:
        return
    for split, found in arrays.items():
        ids = good["ids"].get(split)
        if ids is None:
            continue  # said already
        if not ids:
            yield f"index.json: ids: split {split!r} is empty"
        for name, array in found.items():
            if len(array) != len(ids):
                yield f"{split}-{name}.npy: {len(array)} rows, but {len(ids)} ids"


def _alike(good: Mapping[str, Any], arrays: Opened) -> Iterator[str]:
    first, *others = [split for split in SPLITS if split in arrays] or [""]
    listed = good.get("arrays", {})
    for split in others:
        for name in sorted({*listed[first]} ^ {*listed[split]}):
            here, there = (first, split) if name in listed[first] else (split, first)
            yield f"index.json: arrays: {here} has {shown(name)}, {there} has not"
        for name, array in arrays[split].items():
            of_first = arrays[first].get(name, array)
            if _kind(array) != _kind(of_first):
                yield (
                    f"{split}-{name}.npy: {_kind(array)}, "
                    f"but {first}-{name}.npy: {_kind(of_first)}"
                )


def _kind(array: np.ndarray, skip: int = 1) -> str:
    """Dtype and shape, by default of a row."""
    return f"{array.dtype} {list(array.shape[skip:])}"


# --- Labels, counts, checksums


def _label_fault(label: np.ndarray, number: int) -> str | None:
    if label.dtype.kind not in "iu" or label.ndim != 1:
        return f"expected integers [N], got {_kind(label, 0)}"
    for start, block in blocks(label):
        bad = np.flatnonzero((block < 0) | (block >= number))
        if len(bad):
            at = f"label {block[bad[0]]} in row {start + bad[0]}"
            return f"{at}, but there are {number} classes"
    return None


def _labels(good: Mapping[str, Any], arrays: Opened) -> Iterator[str]:
    for split, found in arrays.items():
        if "label" in found and "classes" in good:
            fault = _label_fault(found["label"], len(good["classes"]))
            if fault:
                yield f"{split}-label.npy: {fault}"


def _counts(good: Mapping[str, Any], arrays: Opened) -> Iterator[str]:
    if not {"counts", "classes", "ids", "arrays"} <= good.keys():
        return
    for split, found in arrays.items():
        if "label" in good["arrays"][split]:
            label = found.get("label")
            number = len(good["ids"].get(split, ()))
            if label is None or len(label) != number:
                continue  # said already
            if _label_fault(label, len(good["classes"])):
                continue  # said already
            numbers = np.bincount(
                label.astype(np.int64), minlength=len(good["classes"])
            )
            counts = dict(zip(good["classes"], numbers.tolist(), strict=True))
        else:
            counts = {"examples": len(good["ids"].get(split, ()))}
        stored = good["counts"].get(split, {})
        for name in (counts | stored) if split in good["counts"] else ():
            if stored.get(name) != counts.get(name):
                told = stored.get(name, "none")
                yield (
                    f"index.json: counts: {split}: {shown(name)} {told}, "
                    f"but the examples have {counts.get(name, 'none')}"
                )


def _digests(good: Mapping[str, Any], arrays: Opened) -> Iterator[str]:
    del arrays  # all checks are called alike
    if "sha256" in good and "arrays" in good:
        for split, name in named(good):
            if f"{split}-{name}" not in good["sha256"]:
                yield f"index.json: sha256: '{split}-{name}' is missing"


# --- What takes reading everything, or does not hinder training


def _ids(ids: Mapping[str, list[str]]) -> Iterator[str]:
    number = collections.Counter(name for found in ids.values() for name in found)
    for name, times in number.items():
        if times > 1:
            where = ", ".join(split for split, found in ids.items() if name in found)
            yield f"index.json: ids: {shown(name)} is there {times} times ({where})"


def _deep(directory: Path, found: Found, checksums: bool) -> Iterator[str]:
    yield from few(_ids(found.entries.get("ids", {})))
    for split, arrays in found.arrays.items():
        for name, array in arrays.items():
            if array.dtype.kind == "f":
                number, row = not_finite(array)
                if number:
                    yield (
                        f"{split}-{name}.npy: {number} values are not finite, "
                        f"first in row {row}"
                    )
            expected = found.entries.get("sha256", {}).get(f"{split}-{name}")
            path = array_path(directory, split, name)
            if checksums and expected and checksum(path) != expected:
                yield f"{path.name}: its sha256 is not that of index.json"


def _line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]
