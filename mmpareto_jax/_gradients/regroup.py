"""Boxes of an array that is reshaped: axes are merged and taken apart without loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from mmpareto_jax._gradients import runs
from mmpareto_jax._gradients.boxes import (
    Axis,
    Box,
    Factor,
    Size,
    Support,
    axis,
    flat,
    support,
)


def reshaped(where: Support, sizes: Sequence[Size]) -> Support:
    """As ``reshape``; axes are merged and taken apart again without loss."""
    if where is None:
        return None
    return support(
        new
        for box in where
        for new in _regroup([f for one in box for f in one], list(sizes), 1, (), ())
    )


def _regroup(
    factors: list[Factor], sizes: list[Size], need: Size, axes: Box, part: Axis
) -> Iterator[Box]:
    """Deals the factors out to axes of the given sizes, splitting where it must.

    `need` is what the axis that is being made, `part`, still lacks.
    """
    while True:
        if _is_one(need):
            if not sizes:
                yield axes
                return
            need, sizes, part = sizes[0], sizes[1:], ()
            if _is_one(need):
                axes = (*axes, ())
                continue
        if not factors:  # an axis of size 0
            yield (*axes, axis(need), *(axis(n) for n in sizes))
            return
        size, where = factors[0]
        rest = _quotient(need, size)
        if rest is not None:
            part, need, factors = (*part, factors[0]), rest, factors[1:]
            if _is_one(need):
                axes = (*axes, part)
            continue
        first = _shared(size, need)
        if first is None:
            break
        inner: Size = _quotient(size, first)
        for outer, elements in (
            [(None, None)] if where is None else runs.rows(where, inner)
        ):
            split = [(first, outer), (inner, elements), *factors[1:]]
            yield from _regroup(split, sizes, need, axes, part)
        return
    # Not a product of factors, as (2, 3) -> (3, 2): as one axis, then taken apart.
    left = [*part, *factors]
    size, where = flat(tuple(left))
    wanted = [_times(part) * need, *sizes]
    if where is None or len(wanted) == 1:
        yield (*axes, axis(wanted[0], where), *(axis(n) for n in wanted[1:]))
        return
    yield from _regroup([(size, where)], wanted, 1, axes, ())


def _is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


def _times(factors: Iterable[Factor]) -> Size:
    return math.prod([n for n, _ in factors], start=1)


def _quotient(a: Size, b: Size) -> Size | None:
    """The ratio, where that is whole; of symbolic sizes, where it can be decided."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    try:
        quotient, remainder = divmod(a, b)
        return quotient if isinstance(remainder, int) and remainder == 0 else None
    except Exception:  # an inconclusive comparison has a type private to jax
        return None


def _shared(size: Size, need: Size) -> Size | None:
    """A number > 1 by which a factor can be split: it divides both."""
    if isinstance(size, int) and isinstance(need, int):
        found = math.gcd(size, need)
        return found if 1 < found < size else None
    return need if _quotient(size, need) is not None else None
