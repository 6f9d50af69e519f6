"""Random weights of gradients."""

from __future__ import annotations

import jax

from mmpareto_jax.weightings._arguments import check_integer
from mmpareto_jax.weightings._memory import RandomState, next_key, random_state
from mmpareto_jax.weightings._weighting import Weighting


def random(seed: int = 0) -> Weighting:
    r"""Random weighting: softmax of K standard normal numbers, new at every step.

    .. math:: \sum_k w_k g_k, \quad w = \mathrm{softmax}(\xi), \quad \xi \sim
        \mathcal{N}(0, I)

    It acts on the gradients of groups of several objectives; ``rlw`` weights the
    losses, and so the heads too. Groups with the same K draw the same numbers.

    Args:
      seed: of the draws; the key is part of the state.

    Returns:
      The weighting. Its weights are positive and sum to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.random(seed=0)
      >>> weights, state = weighting.weights(jnp.eye(3), weighting.init(3))
      >>> print(weights.sum().round(4))
      1.0

    References:
      Lin et al., Reasonable Effectiveness of Random Weighting: A Litmus Test for
      Multi-Task Learning, TMLR 2022, https://arxiv.org/abs/2111.10603
    """
    check_integer("random", "seed", seed)

    def weights(
        gramian: jax.Array, state: RandomState
    ) -> tuple[jax.Array, RandomState]:
        key, state = next_key(state)
        draw = jax.random.normal(key, gramian.shape[:1], gramian.dtype)
        return jax.nn.softmax(draw), state

    return Weighting(lambda _: random_state(seed), weights, reads_gramian=False)
