"""UW: losses weighted by learned homoscedastic uncertainty."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax.weightings._arguments import check_optimizer
from mmpareto_jax.weightings._memory import Learned, learn, learned
from mmpareto_jax.weightings._weighting import LossWeighting


def uncertainty(optimizer: optax.GradientTransformation | None = None) -> LossWeighting:
    r"""Uncertainty weighting.

    .. math:: \sum_k \frac{L_k}{2 e^{s_k}} + \frac{s_k}{2}, \qquad s_k = \log \sigma_k^2

    with the log-variances s trained beside the model, from 0; a loss of exactly 0 does
    not train its own, whose best value would be minus infinity.

    Args:
      optimizer: for s; by default ``optax.adam(1e-3)``.

    Returns:
      The weighting: :math:`\tfrac12 e^{-s_k}`.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.uncertainty()
      >>> print(weighting.weights(jnp.array([1.0, 2.0]), weighting.init(2))[0])
      [0.5 0.5]

    References:
      Kendall, Gal & Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses for
      Scene Geometry and Semantics, CVPR 2018, https://arxiv.org/abs/1705.07115,
      equation 10, with the regression form for every loss.
    """
    check_optimizer("uncertainty", optimizer)
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer

    def weights(losses: jax.Array, state: Learned) -> tuple[jax.Array, Learned]:
        now = 0.5 * jnp.exp(-state.value.astype(losses.dtype))
        # At 0 the best s is infinite: it would run away while the loss stays there.
        slope = jnp.where(losses == 0, 0.0, 0.5 - now * losses)
        return now, learn(optimizer, state, slope)

    return LossWeighting(lambda num: learned(optimizer, jnp.zeros((num,))), weights)
