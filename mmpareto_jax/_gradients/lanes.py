"""Values of a backward sweep that depend on cotangents: one lane per objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.reach import Rows
from mmpareto_jax._gradients.stacks import stack


@dataclasses.dataclass(frozen=True)
class Lanes:
    """A cotangent-dependent value, for the objectives that it depends on.

    Attributes:
      rows: the objectives, increasing; for all others the value is zero. Or mixes of
        them (``mixes.py``), which have negative numbers.
      values: a tuple of one array per row; or, stacked, one array [len(rows), ...].
    """

    rows: Rows
    values: tuple[jax.Array, ...] | jax.Array

    @property
    def stacked(self) -> bool:
        """Whether the values are one array."""
        return not isinstance(self.values, tuple)

    @property
    def mixed(self) -> bool:
        """Whether the rows are mixes of objectives."""
        return self.rows[0] < 0

    def at(self, rows: Rows) -> Lanes:
        """The same value on these rows: without others, and zero on new ones."""
        if self.rows == rows:
            return self
        where = {k: i for i, k in enumerate(self.rows)}
        zero = jnp.zeros_like(self.values[0])
        values = tuple(self.values[where[k]] if k in where else zero for k in rows)
        return Lanes(rows, jnp.stack(values) if self.stacked else values)


def rows_of(x: Any) -> Rows:
    """The objectives that a value depends on."""
    return x.rows if isinstance(x, Lanes) else ()


def values_of(x: Any) -> Any:
    """The array or arrays of a value."""
    return x.values if isinstance(x, Lanes) else x


def seeds(cotangents: Sequence[jax.Array], *, stacked: bool) -> list[Lanes]:
    """The output cotangents as lanes: K scalars, each in the row of its objective.

    Or one array [K], whose entry k is objective k's.
    """
    if cotangents[0].ndim == 0:
        each = enumerate(cotangents)
        return [Lanes((k,), c[None] if stacked else (c,)) for k, c in each]
    (vector,) = cotangents
    num = len(vector)
    rows = jnp.eye(num, dtype=vector.dtype) * vector[None]
    return [Lanes(tuple(range(num)), rows if stacked else tuple(rows))]


def in_order(x: Lanes, rows: Rows) -> tuple[jax.Array, ...] | jax.Array:
    """The values of its rows, in the order in which they are asked for."""
    if rows == x.rows:
        return x.values
    return tuple(x.values[x.rows.index(k)] for k in rows)


def gradient(x: Any, rows: Rows, param: jax.Array) -> jax.Array:
    """A swept gradient as an array [len(rows), *param.shape].

    A row that does not reach the parameter is zero; one that is not asked for, gone.
    """
    if not rows:
        return jnp.zeros((0, *param.shape), param.dtype)
    if isinstance(x, Lanes) and x.stacked and x.rows == rows:
        return jnp.asarray(x.values)
    present = dict(zip(rows_of(x), values_of(x), strict=True)) if rows_of(x) else {}
    zero = jnp.zeros_like(param)
    return stack([present.get(k, zero) for k in rows])


def pack(
    xs: Sequence[Any], rows: Sequence[Rows], like: Sequence[Any], *, stacked: bool
) -> list[Any]:
    """The values of `xs` on exactly `rows`, as control flow carries them.

    Args:
      xs: arrays and lanes.
      rows: per value, the rows to have; none for a plain array.
      like: per value, a jaxpr variable of its type.
      stacked: how lanes keep their values.
    """

    def one(x: Any, rows: Rows, like: Any) -> Any:
        if isinstance(x, Lanes):
            return x.at(rows).values
        if not jnp.issubdtype(like.aval.dtype, jax.dtypes.extended):
            # A weak type or a Python scalar would change the type of a carry.
            x = jax.lax.convert_element_type(x, like.aval.dtype)
        if not rows:
            return x
        same = (x,) * len(rows)
        return jnp.stack(same) if stacked else same

    return [one(*x) for x in zip(xs, rows, like, strict=True)]


def unpack(values: Sequence[Any], rows: Sequence[Rows]) -> list[Any]:
    """The inverse of ``pack``."""
    return [Lanes(r, x) if r else x for x, r in zip(values, rows, strict=True)]


def swap(x: Any) -> Any:
    """Stacked lanes between [row, step, ...] and [step, row, ...]; others as is."""
    if not isinstance(x, Lanes) or isinstance(x.values, tuple):
        return x
    return dataclasses.replace(x, values=jnp.swapaxes(x.values, 0, 1))
