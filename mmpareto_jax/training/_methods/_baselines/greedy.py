"""Balanced learning of MMTM networks: the branch that lags is trained alone."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Greedy(NamedTuple):
    """What the method remembers: ``not_greedy_yet`` at first, then of ``watch``.

    Attributes:
      step: scalar int32.
      exchange: [2] floating, the summed relative gradients of what each modality takes
        from the other one.
      branch: [2] floating, those of its encoder.
      left: scalar int32, rebalancing steps that are still to come.
      care: scalar int32, the modality that is trained alone, 0 or 1; -1: none.
    """

    step: jax.Array
    exchange: jax.Array
    branch: jax.Array
    left: jax.Array
    care: jax.Array


def not_greedy_yet() -> Greedy:
    """The memory before the first step.

    Returns:
      Sums of zero, and no modality that is trained alone.

    Example:
      >>> from mmpareto_jax.training import baselines
      >>> print(baselines.not_greedy_yet().care)
      -1
    """
    step, left, care = (jnp.full((), x, jnp.int32) for x in (0, 0, -1))
    return Greedy(step, jnp.zeros(2), jnp.zeros(2), left, care)


def watch(
    memory: Greedy,
    exchange: jax.Array,
    branch: jax.Array,
    *,
    epsilon: float,
    window: int,
    start: int,
) -> Greedy:
    r"""Decides after a step whether the next ones rebalance.

    The conditional learning speed of modality m is that of what it takes from the
    other one, relative to its own encoder:

    .. math:: s_m = \log_{10} \frac{\sum_t \mu(\theta'_m; t)}{\sum_t \mu(\theta_m; t)},
        \qquad \mu(\theta; t) = \frac{\|\nabla_\theta L\|^2}{\|\theta\|^2}

    Where :math:`|s_0 - s_1| > \epsilon`, the modality with the larger s, whose encoder
    lags, is cut off from the other one for a window of steps. These steps do not count
    for the sums.

    Args:
      memory: before the step.
      exchange: [2], :math:`\mu(\theta'_m) > 0` of this step.
      branch: [2], :math:`\mu(\theta_m) > 0` of this step.
      epsilon: ε ≥ 0, in decades.
      window: rebalancing steps in a row.
      start: steps at the beginning that only count for the sums; after the next one
        rebalancing may begin.

    Returns:
      The memory after the step; its ``care`` is for the next one.

    Example:
      >>> import jax.numpy as jnp
      >>> from mmpareto_jax.training import baselines
      >>> memory = baselines.watch(
      ...     baselines.not_greedy_yet(), jnp.array([2.0, 1.0]), jnp.array([1.0, 1.0]),
      ...     epsilon=0.01, window=5, start=0,
      ... )
      >>> print(memory.care, memory.left)
      0 5

    References:
      Wu, Jastrzebski, Cho & Geras, Characterizing and Overcoming the Greedy Nature of
      Learning in Multi-modal Deep Neural Networks, ICML 2022,
      https://arxiv.org/abs/2202.05306, sections 3.2 and 4.1.
    """
    rebalancing = memory.left > 0
    exchange = memory.exchange + jnp.where(rebalancing, 0.0, exchange)
    branch = memory.branch + jnp.where(rebalancing, 0.0, branch)
    speeds = jnp.log10(exchange) - jnp.log10(branch)
    gap, step = speeds[0] - speeds[1], memory.step + 1
    begins = ~rebalancing & (step > start) & (jnp.abs(gap) > epsilon)
    left = jnp.where(rebalancing, memory.left - 1, jnp.where(begins, window, 0))
    slow = jnp.where(gap > 0, 0, 1)
    care = jnp.where(begins, slow, jnp.where(left > 0, memory.care, -1))
    return Greedy(
        step, exchange, branch, left.astype(jnp.int32), care.astype(jnp.int32)
    )
