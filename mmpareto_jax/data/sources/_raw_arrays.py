"""One ``.npz`` file, or a directory of ``.npy`` files: key -> how to open the array."""

from __future__ import annotations

import collections
import functools
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from mmpareto_jax._array_files import open_npy, read_npz
from mmpareto_jax.data._raw_files import check_file
from mmpareto_jax.data.sources._files import NAME, RESERVED, SPLITS

Open = Callable[[], np.ndarray]

_KEY = re.compile(rf"(?:({'|'.join(SPLITS)})[/-])?({NAME})")


def open_raw(raw: Path) -> dict[str, Open]:
    """What is there; nothing is read yet.

    Args:
      raw: the file, or the directory; in there ``train/audio.npy`` has the key
        "train/audio".

    Returns:
      Key -> a function that gives the array: mapped into memory from a directory, read
      from a file.

    Raises:
      ValueError: it is neither, or holds nothing.
    """
    if raw.is_dir():
        found: dict[str, Open] = {
            path.relative_to(raw).as_posix().removesuffix(".npy"): functools.partial(
                _open, raw, path.relative_to(raw).as_posix()
            )
            for path in sorted(raw.rglob("*.npy"))
        }
    else:
        found = {
            key: functools.partial(_open, raw, key, member=True)
            for key in _members(raw)
        }
    if not found:
        raise ValueError(f"arrays: raw: {raw} has no arrays")
    return found


def parsed(given: Mapping[str, Open]) -> dict[str | None, dict[str, Open]]:
    """What the keys say.

    Args:
      given: key -> array.

    Returns:
      Split -> name -> array; the one split is None where no key has one.

    Raises:
      ValueError: a key that is no name, is there twice, or has a split where others
        have none; a split that has no arrays.
    """
    found: dict[str | None, dict[str, Open]] = {}
    for key, array in given.items():
        match = _KEY.fullmatch(key)
        if match is None:
            expected = "NAME or train/NAME, validation/NAME, test/NAME"
            raise ValueError(
                f"arrays: {key!r}: expected {expected}, of letters, digits, _ and -"
            )
        split, name = match.groups()
        if name in RESERVED or (name == "classes" and split is not None):
            raise ValueError(f"arrays: {key}: no array of a split can have this name")
        if name in found.setdefault(split, {}):
            raise ValueError(f"arrays: {key}: {split}/{name} is there twice")
        found[split][name] = array
    alone = found.get(None, {})
    if set(found) == {None}:
        return {None: alone}
    beside = sorted(set(alone) - {"classes"})
    if beside:
        raise ValueError(f"arrays: {beside[0]}: expected a split, as others have one")
    for split in SPLITS:
        if split not in found:
            raise ValueError(f"arrays: raw: the split {split!r} has no arrays")
    return {split: found[split] for split in SPLITS}


def _members(raw: Path) -> list[str]:
    try:
        check_file(raw, raw, limit=None)
        with zipfile.ZipFile(raw) as file:
            names = file.namelist()
    except Exception:  # zipfile has many names for it
        expected = "an npz file or a directory of npy files"
        raise ValueError(f"arrays: raw: expected {expected}, got {raw}") from None
    for name, times in collections.Counter(names).items():
        if not name.endswith(".npy"):
            raise ValueError(f"arrays: raw: {raw}: {name!r} is no npy file")
        if times > 1:
            raise ValueError(f"arrays: raw: {raw}: {name!r} is there {times} times")
    return [name.removesuffix(".npy") for name in names]


def _open(raw: Path, key: str, member: bool = False) -> np.ndarray:
    try:
        if member:
            return read_npz(raw, key)
        check_file(raw / key, raw, limit=None)
        return open_npy(raw / key)
    except Exception as error:  # whatever a broken file makes numpy raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"arrays: {key}: cannot be read: {reason}") from None
