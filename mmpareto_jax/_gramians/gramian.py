"""Gramians of stacked gradients, and the weighted sum: the two reads of a step."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import PyTree, named_leaves
from mmpareto_jax._gradients.manual import (
    collected,
    shared_axes,
    summed,
    vary,
    varying_axes,
)
from mmpareto_jax._gradients.stacks import Stack
from mmpareto_jax._gramians.powers import power_below
from mmpareto_jax._gramians.products import (
    FEW,
    divided,
    few_apart,
    leaf_gramian,
    row_peaks,
)
from mmpareto_jax._gramians.short import side_by_side

# A float32 Gramian is trusted when the squares on its diagonal lie between these:
# products below 1e-38 that were flushed to zero, even 1e8 of them, are then below one
# ulp, of the products of any two rows too.
_SMALLEST_TRUSTED, _LARGEST_TRUSTED = 1e-22, 1e32
# And when one is not so much smaller than another that rules, which divide by the
# largest, would lose it.
_SMALLEST_SHARE = 1e-30


class Gramians(NamedTuple):
    """The Gramians of one group, of rows that are each in a scale of their own.

    Attributes:
      total: [K, K], of the whole group: the inner products of the gradients, each
        divided by its ``rows[k]``.
      leaves: [K, K] for every leaf, of the same divided gradients; none, if nobody
        asked for them.
      rows: [K], powers of two: all 1, unless squares would leave the dtype's range.
    """

    total: jax.Array
    leaves: list[jax.Array]
    rows: jax.Array

    @property
    def norms(self) -> jax.Array:
        """[K], of the gradients themselves."""
        return norms_of(self.total) * self.rows

    @property
    def scale(self) -> jax.Array:
        """Scalar; the Gramian of the gradients is scale² times the common one."""
        return jnp.max(self.rows)

    def common(self, matrix: jax.Array) -> jax.Array:
        """A Gramian of the gradients in one scale: their own, divided by scale²."""
        return in_one_scale(matrix, self.rows)


def norms_of(gramian: jax.Array) -> jax.Array:
    """[K]. The derivative of a zero gradient's, which has none, is 0."""
    squares = jnp.maximum(jnp.diagonal(gramian), 0.0)
    zero = squares == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squares)))


def in_one_scale(gramian: jax.Array, rows: jax.Array) -> jax.Array:
    """[K, K] of rows that were divided by `rows`, in the scale of the largest."""
    relative = rows / jnp.max(rows)
    return gramian * relative[:, None] * relative[None, :]


def gramian(grads: PyTree) -> jax.Array:
    r"""The Gramian of a tree of stacked gradients.

    .. math:: G_{ij} = \langle g_i, g_j \rangle = \sum_{\text{leaves}} \langle
        g_i^{\text{leaf}}, g_j^{\text{leaf}} \rangle

    Args:
      grads: a tree of real floating arrays [K, ...] with one K.

    Returns:
      Array [K, K], float32 (float64 when a leaf is float64). Entries that float32
      cannot hold become 0 or infinity here; ``aggregate`` rescales before it squares.

    Raises:
      TypeError: a leaf is not real and floating.
      ValueError: no leaf, a scalar leaf, or leaves with different leading axes.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> print(mmp.gramian({"w": jnp.array([[1.0, 2.0], [3.0, -1.0]])}))
      [[ 5.  1.]
       [ 1. 10.]]
    """
    leaves = named_leaves(grads)
    if not leaves:
        raise ValueError("gramian: the tree has no leaves.")
    first: tuple[int, ...] = getattr(leaves[0][1], "shape", ())
    for path, leaf in leaves:
        check_stacked("gramian", path, leaf, first[0] if first else 1)
    if first[0] < 1:
        raise ValueError(f"gramian: expected a row per objective, got shape {first}.")
    arrays = [jnp.asarray(leaf) for _, leaf in leaves]
    found: jax.Array = functools.reduce(
        operator.add, [leaf_gramian(x, wide(*arrays)) for x in arrays]
    )
    return found


def group_gramians(
    groups: Sequence[Sequence[jax.Array]],
    axis_names: Sequence[str] = (),
    *,
    of_leaves: bool = True,
) -> list[Gramians]:
    """The Gramians of several groups of stacked leaves, right at every scale.

    The gradients are read once. Only where a square leaves the range of the dtype they
    are read again, every row divided by the power of two below its largest magnitude:
    a row may be any number of times as long as another.

    Args:
      groups: per group its leaves, arrays [K_g, ...].
      axis_names: axes of a ``shard_map`` over which leaves are parts of gradients;
        their inner products are summed.
      of_leaves: whether the leaves' own Gramians are wanted. Without them devices send
        each other a group's alone.
    """
    if not groups:
        return []
    axes = frozenset().union(*(varying_axes(x) for leaves in groups for x in leaves))
    axes -= frozenset(axis_names)
    each = []
    for leaves in groups:
        stacks = [few_apart(x) for x in leaves] if of_leaves else side_by_side(leaves)
        shares = [shared_axes(x[0], axis_names) for x in stacks]
        each.append((stacks, wide(*leaves), shares))
    first = [_plain(*group, of_leaves=of_leaves) for group in each]
    squares = jnp.concatenate([jnp.diagonal(g.total) for g in first])
    safe = is_trusted(squares)
    chosen: list[Gramians] = lax.cond(
        safe,
        lambda: vary(first, axes),
        lambda: vary(
            [rescaled(*own, of_leaves=of_leaves, compact=True) for own in each], axes
        ),
    )
    return chosen


def unread(num: int, num_leaves: int, dtype: jnp.dtype) -> Gramians:
    """Instead of a group's Gramians, for rules that read K and the dtype alone."""
    unit = jnp.eye(num, dtype=dtype)
    return Gramians(unit, [unit] * num_leaves, jnp.ones_like(unit[0]))


def _plain(
    leaves: Sequence[Stack],
    dtype: jnp.dtype,
    shares: Sequence[tuple[str, ...]],
    rows: jax.Array | None = None,
    *,
    of_leaves: bool,
    compact: bool = False,
) -> Gramians:
    parts = [leaf_gramian(leaf, dtype, rows, compact=compact) for leaf in leaves]
    total, whole = summed(parts, shares, of_leaves=of_leaves)
    return Gramians(total, whole, jnp.ones_like(total[0]) if rows is None else rows)


def is_trusted(squares: jax.Array) -> jax.Array:
    """Whether a Gramian with this diagonal is right to the last digits."""
    smallest, largest = jnp.min(squares), jnp.max(squares)
    within = (smallest > _SMALLEST_TRUSTED) & (largest < _LARGEST_TRUSTED)
    return within & (smallest > _SMALLEST_SHARE * largest)


def rescaled(
    leaves: Sequence[Stack],
    dtype: jnp.dtype,
    shares: Sequence[tuple[str, ...]],
    *,
    of_leaves: bool = True,
    compact: bool = False,
) -> Gramians:
    """The Gramians of a group whose rows are each divided by their power of two."""
    peaks = [row_peaks(leaf).astype(dtype) for leaf in leaves]
    peak = collected(lax.pmax, jnp.maximum, peaks, shares)  # [K]
    usable = (peak > 0) & jnp.isfinite(peak)
    own = power_below(peak)
    shortest = jnp.min(jnp.where(usable, own, jnp.inf))
    rows = jnp.where(usable, own, jnp.where(usable.any(), shortest, 1))
    return _plain(leaves, dtype, shares, rows, of_leaves=of_leaves, compact=compact)


def _unit(largest: jax.Array) -> jax.Array:
    """What weights of this size are divided by, a power of two: it changes no digit.

    The small ones grow to 1. Others stay as they are, and with them the terms of rows
    that are much shorter, unless a sum of theirs could leave the range.
    """
    power = power_below(largest)
    most = 2.0 ** (np.finfo(largest.dtype).maxexp - 16)
    return jnp.where(power > most, power / most, jnp.minimum(power, 1))


@jax.jit
def combine(
    weights: jax.Array, leaf: jax.Array, rows: jax.Array | None = None
) -> jax.Array:
    """Σ_k weights[k] · leaf[k] / rows[k], in the leaf's dtype.

    Where rows are of very unlike scales, neither the weight nor its product with the
    inverse of the row's scale need be representable, and terms near the end of the
    range may overflow before they cancel. In this order nothing does but the result;
    and no term is lost that is alone in its place.
    """
    size = jnp.ones((), weights.dtype)
    if rows is not None:
        size = _unit(lax.stop_gradient(jnp.max(jnp.abs(weights))))
        weights = weights / size

    def term(k: jax.Array | int) -> jax.Array:
        row = leaf[k].astype(weights.dtype)
        return weights[k] * (row if rows is None else divided(row, rows[k]))

    num = leaf.shape[0]
    if num <= FEW:
        total = functools.reduce(operator.add, [term(k) for k in range(num)])
    else:
        # A product of a vector and a matrix would write all rows once more.
        total = lax.fori_loop(
            1, num, lambda k, total: total + term(k), term(0), unroll=FEW
        )
    return (size * total).astype(leaf.dtype)


def check_stacked(caller: str, path: str, leaf: jax.Array, num: int) -> None:
    """Raises unless `leaf` is a real floating array [num, ...]."""
    known = hasattr(leaf, "dtype") or isinstance(leaf, int | float | complex)
    if not known:
        raise TypeError(
            f"{caller}: leaf {path!r} must be an array, got {type(leaf).__name__}."
        )
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{caller}: leaf {path!r} must be real and floating, got {dtype}."
        )
    shape = jnp.shape(leaf)
    if not shape:
        raise ValueError(
            f"{caller}: leaf {path!r} is a scalar; stacked gradients have a leading "
            f"axis of {num}, one row per objective."
        )
    if shape[0] != num:
        raise ValueError(
            f"{caller}: leaf {path!r} must have a leading axis of {num}, one row per "
            f"objective, got shape {shape}."
        )
