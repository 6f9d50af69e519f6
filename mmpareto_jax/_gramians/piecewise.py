"""Gramians of rows that come leaf by leaf, and are gone before the next ones come."""

from __future__ import annotations

import functools
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
    found: Piece = _piece(rows, dtype, shared_axes(rows[0], axis_names))
    return found


@functools.partial(jax.jit, static_argnames=("dtype", "axes"))
def _piece(rows: Stack, dtype: jnp.dtype, axes: tuple[str, ...]) -> Piece:
    found = rescaled([rows], dtype, [axes])
    return Piece(found.total, found.rows)


def joined(pieces: Sequence[Piece]) -> Gramians:
    """The Gramians of a group from those of its leaves."""
    gramians = jnp.stack([x.gramian for x in pieces])  # [leaf, K, K]
    scales = jnp.stack([x.scales for x in pieces])
    # A zero row has no scale of its own.
    there = jnp.diagonal(gramians, axis1=1, axis2=2) != 0
    longest = jnp.max(jnp.where(there, scales, 0), 0)
    shortest = jnp.min(jnp.where(longest > 0, longest, jnp.inf))
    rows = jnp.where(longest > 0, longest, jnp.where(shortest < jnp.inf, shortest, 1))
    relative = jnp.where(there, scales / rows[None], 1)
    leaves = gramians * relative[:, :, None] * relative[:, None, :]
    total = jnp.sum(leaves, 0)
    # Where squares are in range, gradients are not divided: as in a single read.
    plain = is_trusted(jnp.diagonal(total) * rows * rows)
    factor = jnp.where(plain, rows, 1)
    outer = factor[:, None] * factor[None, :]
    each = list(leaves * outer[None])
    return Gramians(total * outer, each, jnp.where(plain, 1, rows))
