"""IMTL-G: equal projections on all gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax._gramians.linalg import psd_solve
from mmpareto_jax.weightings._weighting import Weighting, of_rows


def imtl_g() -> Weighting:
    r"""Impartial multi-task learning, the gradient part.

    The direction has the same projection on every gradient, :math:`\langle d,
    g_k / \|g_k\| \rangle` equal for all k, and weights that sum to 1:

    .. math:: w \propto G^+ n, \quad n_k = \|g_k\|, \quad \sum_k w_k = 1

    With linearly dependent gradients the pseudo-inverse takes the place of the
    inverse. Weights may be negative. Zero where they would sum to zero.

    Returns:
      The weighting.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
      >>> weights, _ = mmp.weightings.imtl_g().weights(gramian, ())
      >>> print(weights.round(4))
      [0.6667 0.3333]

    References:
      Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, equation 3. For
      dependent gradients: Quinton & Rey, Jacobian Descent for Multi-Objective
      Optimization, 2024, https://arxiv.org/abs/2406.16232
    """
    return of_rows(_weights)


def _weights(gramian: jax.Array, rows: jax.Array) -> jax.Array:
    norms = norms_of(gramian)
    v = psd_solve(gramian, norms)
    # Weights sum to 1 for the gradients themselves, of which v are v / rows.
    shortest = jnp.min(jnp.where(norms > 0, rows, jnp.inf))
    shortest = jnp.where(jnp.isfinite(shortest), shortest, 1.0)
    own = v * (shortest / rows)
    total = jnp.sum(own)
    noise = 10 * np.finfo(gramian.dtype).eps * jnp.sum(jnp.abs(own))
    usable = jnp.abs(total) > noise
    weights = shortest * jnp.where(usable, v / jnp.where(usable, total, 1.0), 0.0)
    return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)
