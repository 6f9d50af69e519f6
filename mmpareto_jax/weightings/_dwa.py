"""DWA: losses that fall slowly weigh more."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import check_integer, check_positive
from mmpareto_jax.weightings._rates import by_rates
from mmpareto_jax.weightings._weighting import LossWeighting


class DWAState(NamedTuple):
    """State of dynamic weight averaging.

    Attributes:
      step: scalar int32.
      sums: [K], of the losses of the current epoch.
      means: [2, K], of the last and of the last but one epoch.
    """

    step: jax.Array
    sums: jax.Array
    means: jax.Array


def dwa(temperature: float = 2.0, *, steps_per_epoch: int = 1) -> LossWeighting:
    r"""Dynamic weight averaging.

    .. math:: w_k = K\, \mathrm{softmax}_k (r / T), \qquad r_k = \bar L_k^{(t-1)} /
        \bar L_k^{(t-2)}

    with the losses averaged over the last and the last but one epoch; 1 for all in the
    first two. The rate of an objective whose mean was 0 in the last but one is 1.

    Args:
      temperature: T > 0; the larger, the more equal.
      steps_per_epoch: updates over which the losses are averaged.

    Returns:
      The weighting. Its weights sum to K.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.dwa()
      >>> state = weighting.init(2)
      >>> for losses in ([4.0, 4.0], [2.0, 4.0], [1.0, 4.0]):
      ...     weights, state = weighting.weights(jnp.array(losses), state)
      >>> print(weights.round(4))
      [0.8756 1.1244]

    References:
      Liu, Johns & Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019,
      https://arxiv.org/abs/1803.10704, equation 7.
    """
    check_positive("dwa", "temperature", temperature)
    check_integer("dwa", "steps_per_epoch", steps_per_epoch, 1)

    def init(num: int) -> DWAState:
        zeros = jnp.zeros((num,))
        return DWAState(jnp.zeros((), jnp.int32), zeros, jnp.zeros((2, num)))

    def weights(losses: jax.Array, state: DWAState) -> tuple[jax.Array, DWAState]:
        last, before = state.means.astype(losses.dtype)
        known = state.step >= 2 * steps_per_epoch
        found = by_rates(last, before, known, temperature)
        sums, step = state.sums + losses.astype(state.sums.dtype), state.step + 1
        ends = step % steps_per_epoch == 0
        newest = jnp.stack([sums / steps_per_epoch, state.means[0]])
        return found, DWAState(
            step,
            jnp.where(ends, 0.0, sums),
            jnp.where(ends, newest, state.means),
        )

    return LossWeighting(init, weights)
