"""Projection on the dual cone of the gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._gramians.active_set import nonnegative_qp
from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._weighting import is_known


def project(
    gramian: jax.Array, u: jax.Array, reg_eps: float | jax.Array, rows: jax.Array
) -> jax.Array:
    r"""The weights v of the projection of :math:`\sum_k u_k g_k` on the dual cone.

    By duality v minimises :math:`v^\top G v` over :math:`v \ge u`. With :math:`v = u +
    y` and unit gradients that is a non-negative quadratic program with a unit diagonal.

    Args:
      gramian: G [K, K], of gradients divided by `rows`.
      u: [K], for the divided gradients, as v.
      reg_eps: added to the diagonal, relative to the trace of the true Gramian.
      rows: [K], positive.

    Returns:
      v [K]. A zero gradient keeps its weight.
    """
    dtype = gramian.dtype
    # Normalised first: the trace of a large Gramian would overflow.
    largest = jnp.max(jnp.diagonal(gramian))
    gram = gramian / jnp.where(largest > 0, largest, 1.0)
    if not (is_known(reg_eps) and reg_eps == 0):
        # The same for every gradient, and a gradient is `rows` times its row here.
        # From some length on it is all that there is; its square must not underflow.
        relative = jnp.maximum(rows / jnp.max(rows), 1e-15)
        trace = jnp.sum(jnp.diagonal(gram) * relative**2)
        gram += jnp.diag(jnp.asarray(reg_eps, u.dtype) * trace / relative**2)
    norms = norms_of(gram)
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
