"""Gramians of rows that come leaf by leaf, and are gone before the next ones come."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmpareto_jax._gradients.manual import collected, shared_axes, summed
from mmpareto_jax._gradients.stacks import Stack
from mmpareto_jax._gramians.gramian import Gramians, is_trusted, rescaled


class Piece(NamedTuple):
    """The Gramian of one leaf, whose rows have scales of their own, on this device.

    Attributes:
      gramian: [K, K], of the rows divided by `scales`.
      scales: [K], powers of two; 0 for a row that is zero, which has no scale.
      axes: of a ``shard_map`` over which the leaf is a part of gradients.
    """

    gramian: jax.Array
    scales: jax.Array
    axes: tuple[str, ...]


def piece(rows: Stack, dtype: jnp.dtype, axis_names: Sequence[str] = ()) -> Piece:
    """The Gramian of a leaf.

    Args:
      rows: [K, ...], or K arrays of one shape.
      dtype: of the Gramian.
      axis_names: axes over which leaves are parts of gradients.
    """
    gramian, scales = _piece(rows, dtype)
    return Piece(gramian, scales, shared_axes(rows[0], axis_names))


@functools.partial(jax.jit, static_argnames="dtype")
def _piece(rows: Stack, dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    found = rescaled([rows], dtype, [()], of_leaves=False)
    there = jnp.diagonal(found.total) != 0
    return found.total, jnp.where(there, found.rows, 0)


def joined(pieces: Sequence[Piece], *, of_leaves: bool = True) -> Gramians:
    """The Gramians of a group from those of its leaves, as by ``group_gramians``."""
    shares = [x.axes for x in pieces]
    longest = collected(lax.pmax, jnp.maximum, [x.scales for x in pieces], shares)
    shortest = jnp.min(jnp.where(longest > 0, longest, jnp.inf))
    rows = jnp.where(longest > 0, longest, jnp.where(shortest < jnp.inf, shortest, 1))
    parts = [_in_scales(rows, x.gramian, x.scales) for x in pieces]
    total, leaves = summed(parts, shares, of_leaves=of_leaves)
    # Where squares are in range, gradients are not divided: as in a single read.
    plain = is_trusted(jnp.diagonal(total) * rows * rows)
    factor = jnp.where(plain, rows, 1)
    outer = factor[:, None] * factor[None, :]
    each = [x * outer for x in leaves]
    return Gramians(total * outer, each, jnp.where(plain, 1, rows))


@jax.jit
def _in_scales(rows: jax.Array, gramian: jax.Array, scales: jax.Array) -> jax.Array:
    """The Gramian of rows that were divided by `scales`, of rows divided by `rows`."""
    relative = jnp.where(scales > 0, scales / rows, 1)
    return gramian * relative[:, None] * relative[None, :]
