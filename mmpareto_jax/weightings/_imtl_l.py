"""IMTL-L: losses brought to one scale."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax.weightings._arguments import check_optimizer
from mmpareto_jax.weightings._memory import Learned, learn, learned
from mmpareto_jax.weightings._weighting import LossWeighting


def imtl_l(optimizer: optax.GradientTransformation | None = None) -> LossWeighting:
    r"""Impartial multi-task learning, the loss part.

    .. math:: \sum_k e^{s_k} L_k - s_k

    with s trained beside the model, from 0; where it is optimal every weighted loss
    is 1. A loss of exactly 0 does not train its own, which would grow without bound.

    Args:
      optimizer: for s; by default ``optax.adam(1e-3)``.

    Returns:
      The weighting: :math:`e^{s_k}`.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.imtl_l()
      >>> print(weighting.weights(jnp.array([1.0, 2.0]), weighting.init(2))[0])
      [1. 1.]

    References:
      Liu et al., Towards Impartial Multi-task Learning, ICLR 2021, section 3.2.
    """
    check_optimizer("imtl_l", optimizer)
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer

    def weights(losses: jax.Array, state: Learned) -> tuple[jax.Array, Learned]:
        now = jnp.exp(state.value.astype(losses.dtype))
        # At 0 the best s is infinite: it would run away while the loss stays there.
        slope = jnp.where(losses == 0, 0.0, now * losses - 1)
        return now, learn(optimizer, state, slope)

    return LossWeighting(lambda num: learned(optimizer, jnp.zeros((num,))), weights)
