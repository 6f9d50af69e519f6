"""Reads of stacked rows: their inner products, and what is done row by row."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mmpareto_jax._gradients.stacks import Stack, apart

# One running sum over n float32 products loses about n / 10 ulp. The last axis is
# summed first and its partial sums after it, which keeps runs short; an axis longer
# than this is left to XLA's own tree reduction.
_LONGEST_RUN = 8192

# Up to this many objectives rows are handled one by one.
FEW = 8

# The products of all pairs as one reduction read every row once, and are the fastest;
# but a program that takes seconds to compile for each leaf. Three rows have it always,
# up to FEW where a row is so long that it pays; all others are one matrix product.
_PAIRS, _LONG_ROW = 3, 2**18


def few_apart(leaf: jax.Array) -> Stack:
    """A few rows apart, where they are; many as one array."""
    return apart(leaf) if leaf.shape[0] <= FEW else leaf


# Of many objectives a leaf is read in parts of at least so many numbers of each row.
_SHORTEST_PART = 2**13

# What is jitted here is traced and lowered once for all leaves of one shape: of a deep
# network the program has a call for each leaf.


@jax.jit
def row_peaks(leaf: Stack) -> jax.Array:
    """[K], the largest magnitude of each row."""

    # Constants to a derivative: what is divided by them is multiplied by them later.
    def peak(x: jax.Array, axes: tuple[int, ...] | None = None) -> jax.Array:
        return jnp.max(jnp.abs(lax.stop_gradient(x)), axes, initial=0)

    if isinstance(leaf, tuple):
        return jnp.stack([peak(row) for row in leaf])
    return peak(leaf, tuple(range(1, leaf.ndim)))


def divided(row: jax.Array, scale: jax.Array) -> jax.Array:
    """A row by its scale, a power of two, in the dtype of the scale."""
    # Exact, and cheap enough for XLA to compute again rather than to write down.
    return row.astype(scale.dtype) * (1 / scale)


@functools.partial(jax.jit, static_argnames=("dtype", "compact"))
def leaf_gramian(
    leaf: Stack,
    dtype: jnp.dtype,
    rows: jax.Array | None = None,
    *,
    compact: bool = False,
) -> jax.Array:
    """The Gramian [K, K] of a leaf, all its products from one read.

    Args:
      leaf: the rows.
      dtype: of the products.
      rows: [K], powers of two that the rows are divided by.
      compact: for a branch that is seldom taken: short rather than fast.
    """
    num = len(leaf)
    if compact or num > FEW or (num > _PAIRS and leaf[0].size < _LONG_ROW):
        return _matrix_product(leaf, dtype, rows)
    scales = None if rows is None else [rows[k] for k in range(num)]
    few = [leaf[k] for k in range(num)]
    if scales is not None:
        few = [divided(x, scale) for x, scale in zip(few, scales, strict=True)]
    return _of_pairs([x.astype(dtype) for x in few])


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


def _matrix_product(leaf: Stack, dtype: jnp.dtype, rows: jax.Array | None) -> jax.Array:
    """The products of many rows, part by part of their length.

    What is written for a product, rows that are divided, or side by side, or
    transposed, is then an eighth of long rows.
    """
    inverse = None if rows is None else (1 / rows).astype(dtype)

    def product(part: jax.Array) -> jax.Array:
        part = part.astype(dtype)
        if inverse is not None:
            part = part * inverse.reshape(-1, *[1] * (part.ndim - 1))
        return _outer(part)

    first = leaf[0]
    if is_partitioned(first) or first.size <= _SHORTEST_PART:
        found = product(jnp.asarray(leaf))
    else:
        found = _in_parts(leaf, first.size, product)
    # Rounding may depend on which factor comes first.
    return (found + found.T) / 2


def _in_parts(
    leaf: Stack, size: int, product: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    length = max(_SHORTEST_PART, size // 8)
    flat = (
        [row.ravel() for row in leaf]
        if isinstance(leaf, tuple)
        else leaf.reshape(len(leaf), size)
    )

    def part(start: jax.Array | int, length: int) -> jax.Array:
        if isinstance(flat, list):
            cut = [lax.dynamic_slice_in_dim(x, start, length) for x in flat]
            return jnp.stack(cut)
        return lax.dynamic_slice_in_dim(flat, start, length, 1)

    num, rest = divmod(size, length)
    total: jax.Array = lax.fori_loop(
        0,
        num,
        lambda i, total: total + product(part(i * length, length)),
        product(part(size - rest, rest)),
    )
    return total


def _outer(x: jax.Array) -> jax.Array:
    axes = tuple(range(1, x.ndim))
    mesh = jax.typeof(x).sharding.mesh
    place = NamedSharding(mesh, P()) if mesh.explicit_axes else None
    found: jax.Array = jnp.tensordot(
        x, x, (axes, axes), precision="highest", out_sharding=place
    )
    return found


def _of_pairs(x: Sequence[jax.Array]) -> jax.Array:
    num = len(x)
    pairs = list(combinations_with_replacement(range(num), 2))
    products = tuple(x[i] * x[j] for i, j in pairs)
    if products[0].ndim > 0 and products[0].shape[-1] <= _LONGEST_RUN and _is_whole(x):
        products = _short_runs(products)
    sums = dict(zip(pairs, (jnp.sum(p) for p in products), strict=True))
    rows = [[sums[min(i, j), max(i, j)] for j in range(num)] for i in range(num)]
    return jnp.stack([jnp.stack(row) for row in rows])


def _is_whole(x: Sequence[jax.Array]) -> bool:
    """Whether the rows are read by one CPU, where one reduction of all products pays.

    A GPU is faster with a sum for each product, and of an array that is partitioned a
    reduction of several operands would gather its partial sums, axis by axis.
    """
    return jax.default_backend() == "cpu" and not is_partitioned(x[0])


def is_partitioned(x: jax.Array) -> bool:
    """Whether XLA may have parts of an array on several devices."""
    mesh = jax.typeof(x).sharding.mesh
    axes = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return any(size > 1 and kind is not AxisType.Manual for size, kind in axes)


# JAX's own derivative of this reduction fails where only some terms have a tangent.
@jax.custom_jvp
def _short_runs(terms: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """The sum of each over its last axis, from one read of all."""
    zeros = (jnp.zeros((), terms[0].dtype),) * len(terms)
    return tuple(lax.reduce(terms, zeros, _add, (terms[0].ndim - 1,)))


@_short_runs.defjvp
def _derivative(
    primals: tuple[tuple[jax.Array, ...]], tangents: tuple[tuple[jax.Array, ...]]
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    return _short_runs(*primals), tuple(jnp.sum(x, axis=-1) for x in tangents[0])


def _add(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _sum(x: jax.Array) -> jax.Array:
    """The sum of all, in short runs: see ``_LONGEST_RUN``."""
    return jnp.sum(jnp.sum(x, axis=-1)) if x.ndim else x
