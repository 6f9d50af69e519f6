"""From the Gramian of K gradients, and of an update, to what is told of them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax._gramians.min_norm import min_norm


@functools.partial(jax.jit, static_argnames="with_update")
def measured(
    gramian: jax.Array, rows: jax.Array, *, with_update: bool
) -> dict[str, jax.Array]:
    """The arrays of a ``Reading``, by name.

    Args:
      gramian: [K, K], of gradients each divided by its ``rows[k]``; or [K + 1, K + 1]
        with the update in the last row.
      rows: [K] or [K + 1], powers of two.
      with_update: whether there is an update.
    """
    num = len(rows) - with_update
    lengths = norms_of(gramian)
    found = {"norms": (lengths * rows)[:num]}
    if with_update:
        found |= _of_the_update(gramian[:num, num], lengths, rows)
    own = gramian[:num, :num], lengths[:num], rows[:num]
    return found | _of_the_pairs(*own) | _of_the_sum(*own)


def _of_the_update(
    inner: jax.Array, lengths: jax.Array, rows: jax.Array
) -> dict[str, jax.Array]:
    return {
        "update_norm": lengths[-1] * rows[-1],
        "update_descent": _cosine(-inner, lengths[:-1] * lengths[-1]),
        "update_change": inner * rows[:-1] * rows[-1],
    }


def _of_the_pairs(
    gramian: jax.Array, lengths: jax.Array, rows: jax.Array
) -> dict[str, jax.Array]:
    cosines = _of_pairs(_cosine(gramian, lengths[:, None] * lengths[None, :]), lengths)
    sizes = lengths * (rows / jnp.max(rows))
    ratios = _ratio(sizes[:, None], sizes[None, :])
    return {
        "cosines": cosines,
        "similarities": _of_pairs(2 * ratios / (1 + ratios**2), lengths),
        "alignment": 2 * jnp.mean(cosines) - 1,
        "conflicts": _share_negative(cosines),
    }


def _of_the_sum(
    gramian: jax.Array, lengths: jax.Array, rows: jax.Array
) -> dict[str, jax.Array]:
    """In exact multiples of the Gramian, whose terms cancel where the gradients do."""
    relative = rows / jnp.max(rows)
    with_sum = _product(gramian, relative)  # <g_k / rows_k, sum> / max(rows)
    total = _root(_product(relative, with_sum))
    point = min_norm(gramian, rows=rows)
    shortest = _root(_product(point.parts, _product(gramian, point.parts)))
    fraction = len(rows) * (point.shortest / jnp.max(rows))
    return {
        "sum_descent": _cosine(with_sum, lengths * total),
        "min_norm_cosine": _cosine(_product(point.parts, with_sum), shortest * total),
        "min_norm_length": _quotient(fraction * shortest, total),
    }


def _cosine(inner: jax.Array, lengths: jax.Array) -> jax.Array:
    """0 where a length is zero; rounding leads to no number beyond 1."""
    return jnp.clip(_quotient(inner, lengths), -1, 1)


def _quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.where(b == 0, a * 0, a / jnp.where(b == 0, 1, b))


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """That of the smaller to the larger of two lengths; 0 where both are zero."""
    return _quotient(jnp.minimum(a, b), jnp.maximum(a, b))


def _of_pairs(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """[K, K] with 1 on the diagonal, of zero gradients too; NaN stays."""
    one = jnp.where(jnp.isfinite(lengths), jnp.ones_like(lengths), jnp.nan)
    return jnp.where(np.eye(len(lengths), dtype=bool), jnp.diag(one), x)


def _share_negative(cosines: jax.Array) -> jax.Array:
    """The share of pairs; 0 without a pair, NaN where a cosine is."""
    pairs = cosines[np.triu_indices(len(cosines), 1)]
    negative = jnp.where(jnp.isnan(pairs), pairs, (pairs < 0).astype(pairs.dtype))
    return jnp.sum(negative) / max(1, len(pairs))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision="highest")


def _root(square: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum(square, 0))
