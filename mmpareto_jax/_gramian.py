"""Gramians of stacked gradients, and the weighted sum: the two reads of a step."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmpareto_jax._groups import PyTree, named_leaves
from mmpareto_jax._stacks import Stack, apart

# One running sum over n float32 products loses about n / 10 ulp. The last axis is
# summed first and its partial sums after it, which keeps runs short; an axis longer
# than this is left to XLA's own tree reduction.
_LONGEST_RUN = 8192

# A float32 Gramian is trusted when its largest entry lies between these: products
# below 1e-38 that were flushed to zero, even 1e8 of them, are then below one ulp.
_SMALLEST_TRUSTED, _LARGEST_TRUSTED = 1e-22, 1e32


class Gramians(NamedTuple):
    """The Gramians of one group.

    Attributes:
      total: [K, K], of the whole group.
      leaves: [K, K] for every leaf, in the same scale.
      scale: scalar; the Gramian of the gradients themselves is scale² times this.
    """

    total: jax.Array
    leaves: list[jax.Array]
    scale: jax.Array


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
    first = jnp.shape(leaves[0][1])
    for path, leaf in leaves:
        check_stacked("gramian", path, leaf, first[0] if first else 1)
    arrays = [jnp.asarray(leaf) for _, leaf in leaves]
    return functools.reduce(operator.add, _products(arrays, _dtype(arrays)))


def group_gramians(groups: Sequence[Sequence[jax.Array]]) -> list[Gramians]:
    """The Gramians of several groups of stacked leaves, safe at every scale.

    The gradients are read once. Only where that under- or overflows are they read
    again, divided by the power of two below their largest magnitude.

    Args:
      groups: per group its leaves, arrays [K_g, ...].
    """
    if not groups:
        return []
    each = [([apart(x) for x in leaves], _dtype(leaves)) for leaves in groups]
    first = [_plain(*group) for group in each]
    peaks = [jnp.max(jnp.diagonal(g.total)) for g in first]
    trusted = [(p > _SMALLEST_TRUSTED) & (p < _LARGEST_TRUSTED) for p in peaks]
    safe = functools.reduce(jnp.logical_and, trusted)
    chosen: list[Gramians] = lax.cond(
        safe, lambda: first, lambda: [_rescaled(*group) for group in each]
    )
    return chosen


def _plain(leaves: Sequence[Stack], dtype: jnp.dtype) -> Gramians:
    parts = _products(leaves, dtype)
    return Gramians(sum(parts[1:], parts[0]), parts, jnp.ones((), dtype))


def _rescaled(leaves: Sequence[Stack], dtype: jnp.dtype) -> Gramians:
    arrays = jax.tree.leaves(leaves)
    peaks = [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in arrays]
    peak = functools.reduce(jnp.maximum, peaks)
    # Zero has no scale; NaN and infinity must stay visible.
    usable = (peak > 0) & jnp.isfinite(peak)
    # A power of two: dividing by it is exact.
    power = jnp.maximum(jnp.frexp(peak)[1] - 1, np.finfo(dtype).minexp)
    scale = jnp.where(usable, jnp.ldexp(jnp.ones_like(peak), power), 1)
    scaled = jax.tree.map(lambda x: x.astype(dtype) / scale, leaves)
    return _plain(scaled, dtype)._replace(scale=scale)


def cross_gramian(
    pairs: Sequence[tuple[jax.Array, jax.Array]], scale: jax.Array
) -> jax.Array:
    """[K, K] ⟨row i of the first, row j of the second⟩ / scale², over all pairs."""

    def product(first: jax.Array, second: jax.Array) -> jax.Array:
        first, second = (x.astype(scale.dtype) / scale for x in (first, second))
        num = range(first.shape[0])
        return jnp.stack(
            [jnp.stack([_sum(first[i] * second[j]) for j in num]) for i in num]
        )

    return functools.reduce(operator.add, [product(*pair) for pair in pairs])


def combine(weights: jax.Array, leaf: jax.Array) -> jax.Array:
    """Σ_k weights[k] · leaf[k], in the leaf's dtype."""
    terms = [weights[k] * leaf[k].astype(weights.dtype) for k in range(leaf.shape[0])]
    return functools.reduce(operator.add, terms).astype(leaf.dtype)


def check_stacked(caller: str, path: str, leaf: jax.Array, num: int) -> None:
    """Raises unless `leaf` is a real floating array [num, ...]."""
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


def _dtype(leaves: Sequence[jax.Array]) -> jnp.dtype:
    return jnp.promote_types(jnp.result_type(*leaves), jnp.float32)


def _products(leaves: Sequence[Stack], dtype: jnp.dtype) -> list[jax.Array]:
    """The Gramian [K, K] of each leaf, all its products from one read."""
    return [_leaf_gramian([row.astype(dtype) for row in leaf]) for leaf in leaves]


def _leaf_gramian(x: Sequence[jax.Array]) -> jax.Array:
    num = len(x)
    pairs = list(combinations_with_replacement(range(num), 2))
    products = tuple(x[i] * x[j] for i, j in pairs)
    if products[0].ndim > 0 and products[0].shape[-1] <= _LONGEST_RUN:
        zeros = (jnp.zeros((), products[0].dtype),) * len(pairs)
        products = lax.reduce(products, zeros, _add, (products[0].ndim - 1,))
    sums = dict(zip(pairs, (jnp.sum(p) for p in products), strict=True))
    rows = [[sums[min(i, j), max(i, j)] for j in range(num)] for i in range(num)]
    return jnp.stack([jnp.stack(row) for row in rows])


def _add(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _sum(x: jax.Array) -> jax.Array:
    """The sum of all, in short runs: see ``_LONGEST_RUN``."""
    return jnp.sum(jnp.sum(x, axis=-1)) if x.ndim else x
