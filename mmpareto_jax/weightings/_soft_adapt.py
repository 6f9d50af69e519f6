"""SoftAdapt: losses that fall least weigh most."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check_positive
from mmpareto_jax.weightings._rates import by_rates
from mmpareto_jax.weightings._weighting import LossWeighting


class SoftAdaptState(NamedTuple):
    """State of SoftAdapt.

    Attributes:
      step: scalar int32, the steps taken.
      losses: [K], of the last step.
    """

    step: jax.Array
    losses: jax.Array


def soft_adapt(temperature: float = 1.0) -> LossWeighting:
    r"""Weights by how much each loss has changed since the last step.

    .. math:: w = K\, \mathrm{softmax}_k (r / T), \qquad r_k = L_k^{(t)} /
        L_k^{(t-1)}

    This is the form with relative changes, as physics-informed networks have it; 1 for
    all at the first step. The change of a loss that was 0 is 1. :func:`dwa` takes the
    means of two past epochs in place of two steps.

    Args:
      temperature: T > 0; the larger, the more equal.

    Returns:
      The weighting. Its weights sum to K.

    Raises:
      ValueError: the temperature is not positive and finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> rule = mmp.weightings.soft_adapt()
      >>> _, state = rule.weights(jnp.array([4.0, 4.0]), rule.init(2))
      >>> weights, _ = rule.weights(jnp.array([2.0, 4.0]), state)
      >>> print(weights.round(2))
      [0.76 1.24]

    References:
      Heydari, Thompson & Mehmood, SoftAdapt: Techniques for Adaptive Loss Weighting of
      Neural Networks with Multi-Part Loss Functions, 2019,
      https://arxiv.org/abs/1912.12355; with ratios in place of differences: Bischof &
      Kraus, 2021, https://arxiv.org/abs/2110.09813, section 3.
    """
    check_positive("soft_adapt", "temperature", temperature)

    def weights(
        losses: jax.Array, state: SoftAdaptState
    ) -> tuple[jax.Array, SoftAdaptState]:
        before = state.losses.astype(losses.dtype)
        found = by_rates(losses, before, state.step > 0, temperature)
        return found, SoftAdaptState(state.step + 1, losses)

    return LossWeighting(
        lambda num: SoftAdaptState(jnp.zeros((), jnp.int32), jnp.zeros((num,))), weights
    )
