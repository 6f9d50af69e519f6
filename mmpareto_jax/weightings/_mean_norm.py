"""Gradients brought to their mean length: the weights of PINN code."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._mmpareto import ScalarOrSchedule, visible
from mmpareto_jax.weightings._smoothed import smoothed
from mmpareto_jax.weightings._weighting import Weighting, of_rows


def mean_norm(decay: ScalarOrSchedule = 0.9) -> Weighting:
    r"""Equally long gradients, of the mean length, by weights that change slowly.

    .. math:: \hat w_k = \frac{1}{\|g_k\|} \frac1K \sum_j \|g_j\|, \qquad w_t = a\,
        w_{t-1} + (1 - a)\, \hat w_t, \qquad w_1 = \hat w_1

    with a the decay. Published code starts from weights of 1 instead. The mean is over
    the K gradients that are not zero; a zero gradient has weight 1. Without the running
    mean (decay 0) it is, for two gradients, the centre of :func:`dcgd`.

    Args:
      decay: a in [0, 1); a number, a traced scalar, or a schedule of the step.

    Returns:
      The weighting, :func:`smoothed` by that decay.

    Raises:
      ValueError: the decay is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> rule = mmp.weightings.mean_norm()
      >>> weights, _ = rule.weights(jnp.diag(jnp.array([1.0, 9.0])), rule.init(2))
      >>> print(weights.round(4))
      [2.     0.6667]

    References:
      Wang, Sankaran, Wang & Perdikaris, An Expert's Guide to Training Physics-informed
      Neural Networks, 2023, https://arxiv.org/abs/2308.08468, algorithm 1, with the
      mean of the norms in place of their sum, as in its code.
    """
    return smoothed(of_rows(_weights), decay)


def _weights(gramian: jax.Array, rows: jax.Array) -> jax.Array:
    norms = norms_of(gramian)
    alive = norms > 0
    longest = jnp.max(rows)
    lengths = rows / longest * norms
    mean = jnp.sum(lengths) / jnp.maximum(jnp.sum(alive, dtype=norms.dtype), 1.0)
    weights = longest * (mean / jnp.where(alive, norms, 1.0))
    return visible(jnp.where(alive, weights, rows), gramian)
