"""Dual cone gradient descent: a direction in the dual cone of two gradients."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._arguments import check
from mmpareto_jax.weightings._mmpareto import visible
from mmpareto_jax.weightings._weighting import Weighting, of_rows, zero_where_stationary


def dcgd(kind: Literal["center", "projection", "average"] = "center") -> Weighting:
    r"""Dual cone gradient descent, of two objectives.

    The dual cone is that of the directions that conflict with neither gradient. With
    :math:`u_k = g_k / \|g_k\|` and :math:`g_{a \perp b} = g_a - \langle g_a, g_b
    \rangle\, g_b / \|g_b\|^2`:

    * "center": the sum's projection on the cone's middle, always,

      .. math:: d = \tfrac12 (\|g_1\| + \|g_2\|)\, (u_1 + u_2);

    * "projection": the sum where it lies in the cone, else its projection on the
      border that it has crossed, :math:`g_{2 \perp 1}` where :math:`\langle g_1 + g_2,
      g_1 \rangle < 0`, and the other way round;
    * "average": the sum where it lies in the cone, else :math:`\tfrac12 (g_{1 \perp 2}
      + g_{2 \perp 1})`.

    Where one gradient is zero the other passes; it is the sum then. Opposite gradients
    have no direction in common: zero.

    Args:
      kind: which direction.

    Returns:
      The weighting, for groups of two objectives. It conflicts with neither.

    Raises:
      ValueError: an unknown kind; in ``init``, a group of more than two objectives.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[1.0, -2.0], [-2.0, 16.0]])
      >>> for kind in ("center", "projection", "average"):
      ...     print(mmp.weightings.dcgd(kind).weights(gramian, ())[0])
      [2.5   0.625]
      [2. 1.]
      [1.5    0.5625]

    References:
      Hwang & Lim, Dual Cone Gradient Descent for Training Physics-Informed Neural
      Networks, NeurIPS 2024, https://arxiv.org/abs/2409.18426, algorithms 1 to 3.
    """
    check("dcgd", "kind", kind, kind in _DIRECTIONS, f"one of {', '.join(_DIRECTIONS)}")

    def init(num: int) -> tuple[()]:
        check("dcgd", "a group's number of objectives", num, num == 2, "2")
        return ()

    def weights(gramian: jax.Array, rows: jax.Array) -> jax.Array:
        norms = norms_of(gramian)
        unit = jnp.where(norms > 0, norms, 1.0)
        cosines = gramian / unit[:, None] / unit[None, :]
        longest = jnp.max(rows)
        parts = _DIRECTIONS[kind](rows / longest * norms, cosines[0, 1])
        parts = zero_where_stationary(parts, cosines)
        # One alone passes as it is.
        both = jnp.all(norms > 0)
        return visible(jnp.where(both, longest * (parts / unit), rows), gramian)

    return of_rows(weights)._replace(init=init)


# From the two lengths and the cosine to the coefficients of the unit gradients.


def _center(lengths: jax.Array, cosine: jax.Array) -> jax.Array:
    del cosine
    return jnp.full_like(lengths, jnp.mean(lengths))


def _projection(lengths: jax.Array, cosine: jax.Array) -> jax.Array:
    progress = lengths + cosine * lengths[::-1]
    # Of the one that the sum conflicts with, only what the other takes from it.
    crossed = jnp.where(progress < 0, -cosine * lengths[::-1], lengths)
    return jnp.where(jnp.any(progress < 0), crossed, lengths)


def _average(lengths: jax.Array, cosine: jax.Array) -> jax.Array:
    progress = lengths + cosine * lengths[::-1]
    both = (lengths - cosine * lengths[::-1]) / 2
    return jnp.where(jnp.any(progress < 0), both, lengths)


_DIRECTIONS = {"center": _center, "projection": _projection, "average": _average}
