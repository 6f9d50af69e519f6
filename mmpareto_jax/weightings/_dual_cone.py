"""Projection on the dual cone of the gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._active_set import nonnegative_qp


def project(gramian: jax.Array, u: jax.Array, reg_eps: float | jax.Array) -> jax.Array:
    r"""The weights v of the projection of :math:`\sum_k u_k g_k` on the dual cone.

    By duality v minimises :math:`v^\top G v` over :math:`v \ge u`. With :math:`v = u +
    y` and unit gradients that is a non-negative quadratic program with a unit diagonal.

    Args:
      gramian: G [K, K].
      u: [K].
      reg_eps: added to the diagonal, relative to the trace.

    Returns:
      v [K]. A zero gradient keeps its weight.
    """
    dtype = gramian.dtype
    # Normalised first: the trace of a large Gramian would overflow.
    largest = jnp.max(jnp.diagonal(gramian))
    gram = gramian / jnp.where(largest > 0, largest, 1.0)
    gram += jnp.diag(jnp.full_like(u, reg_eps * jnp.trace(gram)))
    norms = jnp.sqrt(jnp.diagonal(gram))
    alive = norms > 0
    unit = jnp.where(alive, norms, 1.0)
    # Dependent gradients make the system singular, though not its solution's direction:
    # this much on the diagonal is rounding error, and picks a solution of small norm.
    noise = 4 * len(u) * np.finfo(dtype).eps
    matrix = gram / unit[:, None] / unit[None, :] + jnp.diag(jnp.full_like(u, noise))
    matrix = jnp.where(jnp.diag(~alive), 1.0, matrix)
    y, _ = nonnegative_qp(matrix, -(gram @ u) / unit, among=alive)
    v = u + y / unit
    return jnp.where(jnp.isfinite(gramian).all(), v, jnp.nan)
