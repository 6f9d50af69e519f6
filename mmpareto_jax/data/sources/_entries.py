"""What is wrong with an index by itself, before any array is opened."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mmpareto_jax.data.sources._files import RESERVED, SPLITS, is_name


def _is_strings(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(k, str) for k in x)


def _is_map(x: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(x, dict) and all(holds(k) for k in x.values())


def _is_count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x >= 0


_FEW, _LONG = 20, 60

_ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "dataset": (lambda x: isinstance(x, str), "a name"),
    "classes": (
        lambda x: _is_strings(x) and len(x) == len(set(x)),
        "a list of different names",
    ),
    "options": (lambda x: isinstance(x, dict), "names with values"),
    "fingerprint": (lambda x: isinstance(x, str), "a string"),
    "arrays": (lambda x: _is_map(x, _is_strings), "a list of names for each split"),
    "ids": (lambda x: _is_map(x, _is_strings), "a list of names for each split"),
    "counts": (
        lambda x: _is_map(x, lambda y: _is_map(y, _is_count)),
        "for each split a number for each class",
    ),
    "left_out": (_is_count, "a number"),
    "sha256": (lambda x: _is_map(x, lambda y: isinstance(y, str)), "a string for each"),
}


def entry_faults(index: Any) -> tuple[dict[str, Any], list[str]]:
    """What can be relied on, and a fault for each entry that has not its form.

    Args:
      index: what ``index.json`` holds.

    Returns:
      The entries that have their form, and the faults.
    """
    if not isinstance(index, dict):
        kind = type(index).__name__
        return {}, [f"index.json: expected names with values, got a {kind}"]
    faults = {}
    for key, (has_form, form) in _ENTRIES.items():
        if key not in index:
            faults[key] = f"index.json: {key!r} is missing"
        elif not has_form(index[key]):
            faults[key] = f"index.json: {key!r}: expected {form}"
    good = {key: x for key, x in index.items() if key not in faults}
    return good, list(faults.values())


def named_badly(good: Mapping[str, Any]) -> list[str]:
    """Splits that there are not, or that are missing; names that are no plain ones.

    Args:
      good: the entries of an index that have their form.

    Returns:
      The faults.
    """
    return [*few(_splits(good)), *few(_names(good))]


def few(faults: Iterable[str]) -> list[str]:
    """The first of them, and how many more there are."""
    found = iter(faults)
    first = list(itertools.islice(found, _FEW))
    more = sum(1 for _ in found)
    return [*first, f"... and {more} more of this kind"] if more else first


def shown(name: str) -> str:
    """A name in a message: quoted, and not too long.

    Example:
      >>> shown("a" * 100)
      "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    text = repr(name)
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."


def _splits(good: Mapping[str, Any]) -> Iterator[str]:
    for key in ("arrays", "ids", "counts"):
        for split in good.get(key, ()):
            if split not in SPLITS:
                expected = f"expected {', '.join(SPLITS)}"
                yield f"index.json: {key}: {shown(split)} is no split: {expected}"
        for split in SPLITS:
            if split not in good.get(key, SPLITS):
                yield f"index.json: {key}: split {split!r} is missing"


def _names(good: Mapping[str, Any]) -> Iterator[str]:
    for split in SPLITS:
        names = good.get("arrays", {}).get(split, ())
        for name, times in collections.Counter(names).items():
            if not is_name(name):
                yield f"index.json: arrays: {split}: {shown(name)} is no plain name"
            if name in RESERVED:
                yield f"index.json: arrays: {split}: {name!r} is a reserved name"
            if times > 1:
                where = f"index.json: arrays: {split}"
                yield f"{where}: {shown(name)} is there {times} times"


def named(good: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Split and name of the arrays whose files lie in the directory.

    Args:
      good: the entries of an index that have their form.

    Returns:
      In the order of the splits.
    """
    arrays = good.get("arrays", {})
    return [
        (split, name)
        for split in SPLITS
        for name in dict.fromkeys(arrays.get(split, ()))
        if is_name(name)
    ]
