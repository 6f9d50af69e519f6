"""ReLoBRaLo: relative loss balancing with random lookback."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax.weightings._arguments import (
    check_integer,
    check_positive,
    check_share,
)
from mmpareto_jax.weightings._memory import RandomState, next_key, random_state
from mmpareto_jax.weightings._rates import by_rates
from mmpareto_jax.weightings._weighting import LossWeighting


class ReLoBRaLoState(NamedTuple):
    """State of ReLoBRaLo.

    Attributes:
      random: of the lookbacks.
      step: scalar int32, the steps taken.
      first: [K], the losses of the first step.
      last: [K], the losses of the last step.
      mean: [K], the weights.
    """

    random: RandomState
    step: jax.Array
    first: jax.Array
    last: jax.Array
    mean: jax.Array


def relobralo(
    alpha: float = 0.999,
    *,
    temperature: float = 1.0,
    rho: float = 0.999,
    seed: int = 0,
) -> LossWeighting:
    r"""Running weights by the losses' changes since the last step, and since the first.

    .. math:: w \leftarrow \alpha\, \big( \rho\, w + (1 - \rho)\, \hat w(t; 0) \big) +
        (1 - \alpha)\, \hat w(t; t - 1), \qquad \hat w_k(t; s) = K\,
        \mathrm{softmax}_k \big( L_k^{(t)} / (T L_k^{(s)}) \big)

    with ρ drawn at every step: 1 with the probability `rho`, else 0, and then the
    weights of the past are replaced by those since the first step. They are 1 at the
    first step.

    Args:
      alpha: α in [0, 1], the decay.
      temperature: T > 0; the larger, the more equal.
      rho: the probability, in [0, 1], that the past is kept.
      seed: of the draws; the key is part of the state.

    Returns:
      The weighting. Its weights sum to K.

    Raises:
      ValueError: an argument is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> rule = mmp.weightings.relobralo(alpha=0.5, rho=1.0)
      >>> _, state = rule.weights(jnp.array([4.0, 4.0]), rule.init(2))
      >>> weights, _ = rule.weights(jnp.array([2.0, 4.0]), state)
      >>> print(weights.round(2))
      [0.88 1.12]

    References:
      Bischof & Kraus, Multi-Objective Loss Balancing for Physics-Informed Deep
      Learning, 2021, https://arxiv.org/abs/2110.09813, equations 11 to 13.
    """
    check_share("relobralo", "alpha", alpha)
    check_share("relobralo", "rho", rho)
    check_positive("relobralo", "temperature", temperature)
    check_integer("relobralo", "seed", seed)

    def init(num: int) -> ReLoBRaLoState:
        zeros, step = jnp.zeros((num,)), jnp.zeros((), jnp.int32)
        return ReLoBRaLoState(random_state(seed), step, zeros, zeros, jnp.ones((num,)))

    def weights(
        losses: jax.Array, state: ReLoBRaLoState
    ) -> tuple[jax.Array, ReLoBRaLoState]:
        key, later = next_key(state.random)
        known = state.step > 0
        first, last, mean = (
            x.astype(losses.dtype) for x in (state.first, state.last, state.mean)
        )
        since_first = by_rates(losses, first, known, temperature)
        since_last = by_rates(losses, last, known, temperature)
        past = jnp.where(jax.random.bernoulli(key, rho), mean, since_first)
        found = jnp.where(known, alpha * past + (1 - alpha) * since_last, mean)
        first = jnp.where(known, first, losses)
        after = ReLoBRaLoState(later, state.step + 1, first, losses, found)
        return found, after

    return LossWeighting(init, weights)
