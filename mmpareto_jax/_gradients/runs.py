"""Sets of positions on one axis, as runs: their cost is their number, not the axis's.

A set is a tuple of half-open ``(start, stop)``, increasing, not touching each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

Runs: TypeAlias = tuple[tuple[int, int], ...]


def runs(pairs: Iterable[tuple[int, int]]) -> Runs:
    """The union of half-open intervals in any order, empty ones among them."""
    out: list[tuple[int, int]] = []
    for start, stop in sorted(pairs):
        if start >= stop:
            continue
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], stop))
        else:
            out.append((start, stop))
    return tuple(out)


def common(a: Runs, b: Runs) -> Runs:
    """The intersection."""
    out, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        out.append((max(a[i][0], b[j][0]), min(a[i][1], b[j][1])))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return runs(out)


def without(a: Runs, b: Runs, size: int) -> Runs:
    """The positions of `a` on an axis of `size` that are not in `b`."""
    edges = [0, *(x for pair in b for x in pair), size]
    return common(a, runs(zip(edges[::2], edges[1::2], strict=True)))


def cut(a: Runs, start: int, stop: int, stride: int = 1) -> Runs:
    """As ``mask[start:stop:stride]``; beyond the axis there is nothing."""
    inside = common(a, ((start, max(start, stop)),)) if stop > start else ()
    return runs(
        (-(-(x - start) // stride), -(-(y - start) // stride)) for x, y in inside
    )


def shift(a: Runs, by: int) -> Runs:
    """All positions plus `by`."""
    return tuple((x + by, y + by) for x, y in a)


def spread(a: Runs, stride: int) -> Runs:
    """Position i goes to i · stride."""
    if stride == 1:
        return a
    return runs((i * stride, i * stride + 1) for x, y in a for i in range(x, y))


def flip(a: Runs, size: int) -> Runs:
    """As ``mask[::-1]``."""
    return tuple((size - y, size - x) for x, y in reversed(a))


def of_mask(mask: np.ndarray[Any, Any]) -> Runs:
    """Where a bool vector is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def at(a: Runs, positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which of the positions are in the set."""
    edges = np.array([x for pair in a for x in pair], np.int64)
    found: np.ndarray[Any, Any] = np.searchsorted(edges, positions, "right") % 2 == 1
    return found


def outer(a: Runs, b: Runs, inner: int) -> Runs:
    """On an axis of rows of `inner` elements: rows in `a`, elements of them in `b`."""
    if b == ((0, inner),):
        return tuple((x * inner, y * inner) for x, y in a)
    return runs(
        (row * inner + x, row * inner + y)
        for first, last in a
        for row in range(first, last)
        for x, y in b
    )


def rows(a: Runs, inner: int) -> list[tuple[Runs, Runs]]:
    """The inverse of ``outer``: what it is a union of, as few terms as are seen."""
    found: dict[Runs, list[tuple[int, int]]] = {}
    parts: dict[int, list[tuple[int, int]]] = {}
    for start, stop in a:
        first, last = -(-start // inner), stop // inner
        if first < last:
            found.setdefault(((0, inner),), []).append((first, last))
        ends = {start // inner, (stop - 1) // inner}
        for row in ends:
            if not first <= row < last:
                low, high = max(start, row * inner), min(stop, (row + 1) * inner)
                parts.setdefault(row, []).append(
                    (low - row * inner, high - row * inner)
                )
    for row, pairs in parts.items():
        found.setdefault(runs(pairs), []).append((row, row + 1))
    return [(runs(which), elements) for elements, which in found.items()]
