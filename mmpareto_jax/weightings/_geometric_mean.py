"""The geometric mean of the losses."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._weighting import LossWeighting


def geometric_mean() -> LossWeighting:
    r"""Geometric loss strategy: :math:`\big( \prod_k L_k \big)^{1/K}`.

    Losses must be positive. One of exactly 0 is left out of the step: its weight is 0,
    and the mean is that of the others. A negative one makes the weights NaN.

    Returns:
      The weighting: the derivatives :math:`\frac{1}{K L_k} \prod_j L_j^{1/K}`.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> losses = jnp.array([1.0, 4.0])
      >>> print(mmp.weightings.geometric_mean().weights(losses, ())[0])
      [1.   0.25]

    References:
      Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss
      Strategy for Multi-Task Learning, CVPR Workshops 2019,
      https://arxiv.org/abs/1904.08492, equation 4.
    """

    def weights(losses: jax.Array, state: tuple[()]) -> tuple[jax.Array, tuple[()]]:
        active = losses != 0
        logs = jnp.where(active, jnp.log(losses), 0.0)
        num = jnp.maximum(jnp.sum(active), 1).astype(losses.dtype)
        weights = jnp.exp(jnp.sum(logs) / num - logs) / num
        return jnp.where(active, weights, 0.0), state

    return LossWeighting(lambda _: (), weights)
