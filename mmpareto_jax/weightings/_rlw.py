"""RLW: random weights of losses."""

from __future__ import annotations

import jax

from mmpareto_jax.weightings._arguments import check_integer
from mmpareto_jax.weightings._memory import RandomState, next_key, random_state
from mmpareto_jax.weightings._weighting import LossWeighting


def rlw(seed: int = 0) -> LossWeighting:
    r"""Random loss weighting: softmax of K standard normal numbers, new at every step.

    .. math:: \sum_k w_k L_k, \quad w = \mathrm{softmax}(\xi), \quad \xi \sim
        \mathcal{N}(0, I)

    What the losses are has no say. ``random`` weights the gradients of groups of
    several objectives instead, and so not the heads.

    Args:
      seed: of the draws; the key is part of the state.

    Returns:
      The weighting. Its weights are positive and sum to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.rlw()
      >>> weights, _ = weighting.weights(jnp.ones(3), weighting.init(3))
      >>> print(weights.sum().round(4))
      1.0

    References:
      Lin et al., Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning, TMLR 2022, https://arxiv.org/abs/2111.10603
    """
    check_integer("rlw", "seed", seed)

    def weights(losses: jax.Array, state: RandomState) -> tuple[jax.Array, RandomState]:
        key, state = next_key(state)
        return jax.nn.softmax(jax.random.normal(key, losses.shape, losses.dtype)), state

    return LossWeighting(lambda _: random_state(seed), weights)
