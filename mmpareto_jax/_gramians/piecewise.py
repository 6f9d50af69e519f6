"""Gramians of rows that come leaf by leaf, and are gone before the next ones come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.manual import shared_axes
from mmpareto_jax._gradients.stacks import Stack
from mmpareto_jax._gramians.gramian import Gramians, is_trusted, rescaled


class Piece(NamedTuple):
    """The Gramian of one leaf, whose rows have scales of their own.

    Attributes:
      gramian: [K, K], of the rows divided by `scales`.
      scales: [K], powers of two.
    """

    gramian: jax.Array
    scales: jax.Array


def piece(rows: Stack, dtype: jnp.dtype, axis_names: Sequence[str] = ()) -> Piece:
    """The Gramian of a leaf.

    Args:
      rows: [K, ...], or K arrays of one shape.
      dtype: of the Gramian.
      axis_names: axes of a ``shard_map`` over which the leaf is a part of gradients.
    """
    found = rescaled([rows], dtype, [shared_axes(rows[0], axis_names)])
    return Piece(found.total, found.rows)


def joined(pieces: Sequence[Piece]) -> Gramians:
    """The Gramians of a group from those of its leaves."""
    # A zero row has no scale of its own.
    there = [jnp.diagonal(x.gramian) != 0 for x in pieces]
    pairs = list(zip(there, pieces, strict=True))
    longest = jnp.max(jnp.stack([jnp.where(k, x.scales, 0) for k, x in pairs]), 0)
    shortest = jnp.min(jnp.where(longest > 0, longest, jnp.inf))
    rows = jnp.where(longest > 0, longest, jnp.where(shortest < jnp.inf, shortest, 1))

    def on(rows: jax.Array, x: Piece, k: jax.Array) -> jax.Array:
        relative = jnp.where(k, x.scales / rows, 1)
        return x.gramian * relative[:, None] * relative[None, :]

    leaves = [on(rows, x, k) for k, x in pairs]
    total = sum(leaves[1:], leaves[0])
    # Where squares are in range, gradients are not divided: as in a single read.
    plain = is_trusted(jnp.diagonal(total) * rows * rows)
    factor = jnp.where(plain, rows, 1)
    outer = factor[:, None] * factor[None, :]
    return Gramians(
        total * outer, [x * outer for x in leaves], jnp.where(plain, 1, rows)
    )
