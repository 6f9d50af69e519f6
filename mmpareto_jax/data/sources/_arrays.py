"""Own data: several modalities and one label, from arrays.

Raw layout: an ``.npz`` file (``numpy.savez(FILE, audio=..., label=...)``), or a
directory of ``.npy`` files of the same names. A directory's are mapped into memory and
copied some rows at a time, so that they need not fit in it; of a file, the largest
array has to.

=================  ===================================================================
``label``          integers [N] from 0 to C - 1
any other name     a modality [N, ...]: floats, or uint8. An example is one of
                   [F] (features), [T, C] (a series), [H, W, C] (an image) or
                   [T, H, W, C] (frames)
``classes``        optional: strings [C], the names of the classes
``id``             optional: strings or integers [N], different ones; otherwise rows
                   are counted
``group``          optional: strings or integers [N]. Examples of one group, of one
                   subject say, are never in two splits
=================  ===================================================================

Either each array but ``classes`` is there three times, as ``train/NAME``,
``validation/NAME`` and ``test/NAME`` (or ``train-NAME`` ...), or none has a split: then
they are split at random, every class by the same shares, with ``--seed`` and
``--shares 0.8,0.1,0.1``. Names are made of letters, digits, ``_`` and ``-``; ``joint``
and ``mask`` are none.

float64 is stored as float32, other types as they are; uint8 images of one or three
channels are taken for pixels, from 0 to 255. Refused are: values that are not finite,
lengths that differ, labels that are no class, classes that training has no example of,
Python objects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpareto_jax.data._random_splits import stratified
from mmpareto_jax.data.sources._files import SPLITS
from mmpareto_jax.data.sources._plan import Example, Plan, Rows
from mmpareto_jax.data.sources._raw_arrays import Open, open_raw, parsed
from mmpareto_jax.data.sources._raw_parts import Part, read_part, strings_of


def plan(
    raw: Path, *, seed: int = 0, shares: Sequence[float] = (0.8, 0.1, 0.1)
) -> Plan:
    """Own modalities, as they are; the module's text says what `raw` holds.

    Args:
      raw: the file or the directory.
      seed: of a random split.
      shares: of training, validation and test in a random split.

    Raises:
      ValueError: what is wrong with an array, and the first row where it is.
    """
    above = len(shares) == 3 and all(x > 0 for x in shares)
    if not (above and abs(sum(shares) - 1) < 1e-6):
        shown = ",".join(map(str, shares))
        raise ValueError(
            f"arrays: shares: expected three above 0 that add up to 1, got {shown}"
        )
    given = open_raw(raw)
    parts = {split: read_part(split, found) for split, found in parsed(given).items()}
    _check_alike(list(parts.values()))
    classes = _classes(list(parts.values()), given)
    options: dict[str, Any] = {"content": _digest(list(parts.values()), classes)}
    if None in parts:
        part = parts[None]
        options |= {"seed": seed, "shares": list(shares)}
        sources = [(part, rows) for rows in _random_rows(part, shares, seed)]
    else:
        sources = [(parts[s], np.arange(len(parts[s].label))) for s in SPLITS]
    _check_apart(list(parts.values()))
    return Plan(
        "arrays",
        classes,
        [
            example
            for split, (part, rows) in zip(SPLITS, sources, strict=True)
            for example in _examples(split, part, rows)
        ],
        None,
        options,
        copies={
            (split, name): Rows(x.open, rows, x.dtype)
            for name in sources[0][0].modalities
            for split, (part, rows) in zip(SPLITS, sources, strict=True)
            for x in (part.modalities[name],)
        },
    )


def _examples(split: str, part: Part, rows: np.ndarray) -> Iterator[Example]:
    for row, label in zip(rows.tolist(), part.label[rows].tolist(), strict=True):
        name = f"{part.prefix}{row}" if part.ids is None else str(part.ids[row])
        yield Example(name, split, label, ())


def _random_rows(
    part: Part, shares: Sequence[float], seed: int
) -> Iterator[np.ndarray]:
    number = len(part.label)
    groups = np.arange(number) if part.groups is None else part.groups
    found = stratified(part.label, groups, shares, seed)
    for k, split in enumerate(SPLITS):
        rows = np.flatnonzero(found == k)
        if not len(rows):
            raise ValueError(
                f"arrays: label: nothing is left for {split}: {number} examples in "
                f"{len(set(groups.tolist()))} groups, "
                f"{len(set(part.label.tolist()))} classes"
            )
        yield rows


def _digest(parts: Sequence[Part], classes: Sequence[str]) -> str:
    """Changes with any value."""
    whole = hashlib.sha256(repr(classes).encode())
    for part in parts:
        for array in (part.label, part.ids, part.groups):
            whole.update(b"none" if array is None else repr(array.tolist()).encode())
        for name, x in part.modalities.items():
            whole.update(f"{part.prefix}{name} {x.dtype} {x.shape} {x.digest}".encode())
    return whole.hexdigest()


# --- All splits together


def _check_alike(parts: Sequence[Part]) -> None:
    first = parts[0]
    for part in parts[1:]:
        for name in sorted({*first.modalities} ^ {*part.modalities}):
            lacks = first if name in part.modalities else part
            raise ValueError(f"arrays: {lacks.prefix}{name}: is missing")
        for name, x in part.modalities.items():
            y = first.modalities[name]
            if (x.dtype, x.shape) != (y.dtype, y.shape):
                raise ValueError(
                    f"arrays: {part.prefix}{name}: examples are {x.dtype} "
                    f"{list(x.shape)}, those of {first.prefix}{name} {y.dtype} "
                    f"{list(y.shape)}"
                )


def _check_apart(parts: Sequence[Part]) -> None:
    """No id is there twice, and no group in two splits."""
    ids: dict[str, str] = {}
    groups: dict[str, str] = {}
    for part in parts:
        for row, name in enumerate(() if part.ids is None else part.ids.tolist()):
            if name in ids:
                at = f"arrays: {part.prefix}id: row {row}"
                raise ValueError(f"{at}: {name!r} is there twice, first in {ids[name]}")
            ids[name] = f"{part.prefix}id"
        for row, name in enumerate(() if part.groups is None else part.groups.tolist()):
            if groups.setdefault(name, part.prefix) != part.prefix:
                at = f"arrays: {part.prefix}group: row {row}"
                raise ValueError(f"{at}: {name!r} is in {groups[name]}group too")


def _classes(parts: Sequence[Part], given: Mapping[str, Open]) -> tuple[str, ...]:
    """The names; those of labels without names are their numbers."""
    number = 1 + max(int(part.label.max()) for part in parts)
    names = strings_of("classes", given["classes"]()) if "classes" in given else None
    if names is not None:
        for row, name in enumerate(names.tolist()):
            if name in names[:row]:
                raise ValueError(f"arrays: classes: row {row}: {name!r} is there twice")
        for part in parts:
            if part.label.max() >= len(names):
                row = int(np.argmax(part.label >= len(names)))
                raise ValueError(
                    f"arrays: {part.prefix}label: row {row}: {part.label[row]} is no "
                    f"class, there are {len(names)}"
                )
        number = len(names)
    # Of a random split every class goes to training first.
    seen = np.unique(parts[0].label)
    if len(seen) < number:
        absent = int(np.argmax(np.append(seen, -1) != np.arange(len(seen) + 1)))
        raise ValueError(
            f"arrays: {parts[0].prefix}label: training has no example of class "
            f"{absent}; classes are counted from 0"
        )
    return tuple(map(str, range(number) if names is None else names.tolist()))
