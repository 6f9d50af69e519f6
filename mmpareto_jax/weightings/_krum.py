"""(Multi-)Krum: the gradients closest to the others."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check, check_integer
from mmpareto_jax.weightings._weighting import Weighting, stateless


def krum(num_byzantine: int = 0, num_selected: int = 1) -> Weighting:
    r"""Krum: the mean of the gradients that lie closest to their neighbours.

    .. math:: d = \frac1m \sum_{k \in S} g_k, \qquad s_k = \sum_{j \in N_k} \|g_k -
        g_j\|^2

    with :math:`N_k` the K − f − 2 nearest others of :math:`g_k`, f the number of
    Byzantine ones, and S the m gradients of least score s.

    Args:
      num_byzantine: f ≥ 0, the gradients that may be arbitrary.
      num_selected: m ≥ 1, how many are averaged (1 for Krum, more for Multi-Krum).

    Returns:
      The weighting: 1/m on the selected ones, else 0. Distances come from the Gramian,
      so those below its rounding error, √eps of the norms, are ties.

    Raises:
      ValueError: K < f + 3, or K < `num_selected`, or an argument is out of range. A
        single gradient is itself.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> jacobian = jnp.array([[1.0, 0.0], [1.1, 0.0], [1.3, 0.0], [9.0, 0.0]])
      >>> weighting = mmp.weightings.krum(num_byzantine=1)
      >>> print(weighting.weights(jacobian @ jacobian.T, ())[0])
      [1. 0. 0. 0.]

    References:
      Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient
      Descent, NeurIPS 2017.
    """
    check_integer("krum", "num_byzantine", num_byzantine, 0)
    check_integer("krum", "num_selected", num_selected, 1)

    def weights(gramian: jax.Array) -> jax.Array:
        num = gramian.shape[0]
        if num == 1:
            return jnp.ones_like(gramian[0])
        least = max(num_byzantine + 3, num_selected)
        check("krum", "the number of objectives", num, num >= least, f">= {least}")
        squares = jnp.diagonal(gramian)
        distances = squares[:, None] + squares[None, :] - 2 * gramian
        nearest = jnp.sort(jnp.maximum(distances, 0.0), axis=1)
        # The first of each row is the gradient itself.
        scores = jnp.sum(nearest[:, 1 : num - num_byzantine - 1], axis=1)
        rank = jnp.argsort(jnp.argsort(scores))
        weights = jnp.where(rank < num_selected, 1 / num_selected, 0.0)
        weights = weights.astype(gramian.dtype)
        return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)

    return stateless(weights)
