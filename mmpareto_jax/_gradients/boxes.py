"""Where an array can be non-zero: a few boxes, each a product of sets, one per axis.

The cost is that of the sets, whatever the array's size, and an axis without a set may
have any length, a symbolic one too. An axis that was made by merging others keeps
them as its factors, so that flattening and unflattening lose nothing. More than
``MOST`` boxes become one that has them all: the sets are then larger than need be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from mmpareto_jax._gradients import runs
from mmpareto_jax._gradients.runs import Runs

Size: TypeAlias = Any  # an int, or a symbolic dimension
Factor: TypeAlias = tuple[Size, Runs | None]  # None: everywhere
Axis: TypeAlias = tuple[Factor, ...]
Box: TypeAlias = tuple[Axis, ...]
Support: TypeAlias = tuple[Box, ...] | None  # (): nowhere; None: everywhere

NOWHERE: Support = ()
MOST = 16


def shape_of(v: Any) -> tuple[Size, ...]:
    """The shape of a variable of a jaxpr."""
    return tuple(v.aval.shape)


def axis(size: Size, where: Runs | None = None) -> Axis:
    """An axis with a set."""
    if isinstance(size, int) and size == 1 and where is None:
        return ()
    return ((size, None if where == ((0, size),) else where),)


def whole(shape: Sequence[Size]) -> Box:
    """All of an array."""
    return tuple(axis(n) for n in shape)


def boxes(where: Support, shape: Sequence[Size]) -> tuple[Box, ...]:
    """The boxes of an array that has this shape."""
    return (whole(shape),) if where is None else where


def flat(one: Axis) -> tuple[Size, Runs | None]:
    """The size and the set of an axis, whatever its factors are."""
    size: Size = 1
    where: Runs | None = ((0, 1),)
    for n, own in reversed(one):
        if where is None or (own is None and not isinstance(n, int)):
            size, where = n * size, None
            continue
        rows = ((0, n),) if own is None else own
        where = runs.outer(rows, where, size)
        size = n * size
    return size, None if where == ((0, size),) else where


def known(one: Axis) -> bool:
    """Whether anything is known of where on this axis."""
    return any(where is not None for _, where in one)


def support(found: Iterable[Box]) -> Support:
    """The union of boxes, with few of them."""
    kept: list[Box] = []
    for new in found:
        box = tuple(_tidy(one) for one in new)
        if any(where == () for one in box for _, where in one):
            continue
        if not any(known(one) for one in box):
            return None
        i = 0
        while i < len(kept):
            both = _joined(kept[i], box)
            if both is None:
                i += 1
                continue
            # What has grown may meet another one that was too far before.
            kept.pop(i)
            box, i = both, 0
            if not any(known(one) for one in box):
                return None
        kept.append(box)
    if len(kept) > MOST:
        return support([_hull(kept)])
    return tuple(sorted(kept, key=repr))


def union(supports: Sequence[Support]) -> Support:
    """The union of the supports of one array."""
    if any(x is None for x in supports):
        return None
    distinct = list(dict.fromkeys(supports))
    if len(distinct) == 1:
        return distinct[0]
    return support(box for x in distinct if x is not None for box in x)


def common(a: Support, b: Support) -> Support:
    """The intersection."""
    if a is None or b is None:
        return b if a is None else a
    return support(
        tuple(_both(x, y) for x, y in zip(p, q, strict=True))
        for p, q in itertools.product(a, b)
    )


def mapped(where: Support, change: Callable[[Box], Box | None]) -> Support:
    """Every box changed; None drops it."""
    if where is None:
        return None
    return support(new for box in where if (new := change(box)) is not None)


def _tidy(one: Axis) -> Axis:
    out: list[Factor] = []
    for size, given in one:
        where = None if given == ((0, size),) else given
        if isinstance(size, int) and size == 1 and where is None:
            continue
        if out and where is None and out[-1][1] is None:
            out[-1] = (out[-1][0] * size, None)
        else:
            out.append((size, where))
    return tuple(out)


def _joined(a: Box, b: Box) -> Box | None:
    """The union, where it is a box."""
    differ = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    if not differ:
        return a
    if len(differ) > 1:
        if _within(a, b):
            return b
        return a if _within(b, a) else None
    (i,) = differ
    merged = _either(a[i], b[i])
    return None if merged is None else (*a[:i], merged, *a[i + 1 :])


def _either(x: Axis, y: Axis) -> Axis | None:
    """The union on one axis: exact, or None."""
    if not known(x) or not known(y):
        return y if known(x) else x
    if [n for n, _ in x] == [n for n, _ in y]:
        differ = [i for i, (p, q) in enumerate(zip(x, y, strict=True)) if p != q]
        if len(differ) == 1:
            (i,) = differ
            size, p, q = x[i][0], x[i][1], y[i][1]
            both = None if p is None or q is None else runs.runs([*p, *q])
            return (*x[:i], (size, both), *x[i + 1 :])
    (size, p), (_, q) = flat(x), flat(y)
    if not isinstance(size, int):
        return None
    return axis(size, None if p is None or q is None else runs.runs([*p, *q]))


def _within(a: Box, b: Box) -> bool:
    return all(
        not known(y) or (known(x) and _both(x, y) == _tidy(x))
        for x, y in zip(a, b, strict=True)
    )


def _both(x: Axis, y: Axis) -> Axis:
    """The intersection on one axis; of symbolic ones that differ, only the first."""
    if not known(x) or not known(y):
        return x if known(x) else y
    if [n for n, _ in x] == [n for n, _ in y]:
        met = [
            (n, p if q is None else q if p is None else runs.common(p, q))
            for (n, p), (_, q) in zip(x, y, strict=True)
        ]
        return _tidy(tuple(met))
    (size, p), (_, q) = flat(x), flat(y)
    if p is None or q is None:
        return x
    return axis(size, runs.common(p, q))


def _hull(found: Sequence[Box]) -> Box:
    """The smallest box around others."""
    box = found[0]
    for other in found[1:]:
        box = tuple(
            axis(flat(x)[0]) if (both := _either(x, y)) is None else both
            for x, y in zip(box, other, strict=True)
        )
    return box
