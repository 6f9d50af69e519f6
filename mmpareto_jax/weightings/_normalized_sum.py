"""The sum of the unit gradients, at the length of the plain sum."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._mmpareto import (
    ScalarOrSchedule,
    check_limit,
    restored,
    scaled,
    visible,
)
from mmpareto_jax.weightings._weighting import Weighting


def normalized_sum(
    gamma: ScalarOrSchedule = 1.0, *, max_magnitude: float | None = None
) -> Weighting:
    r"""The normalised gradients, added, with the length of the plain sum.

    .. math:: d = \gamma \Big\| \sum_k g_k \Big\| \frac{u}{\|u\|}, \qquad u = \sum_k
        \frac{g_k}{\|g_k\|}

    Every objective that has a gradient has the same say in the direction, however
    short its gradient has become; there is no test of conflict and nothing to solve.
    For two gradients the direction is that of :func:`config` and :func:`nash_mtl`. A
    gradient of zero has no say.

    Args:
      gamma: the factor γ ≥ 0 on the length; a number, a traced scalar, or a schedule of
        the step.
      max_magnitude: upper limit of the mean of the weights before γ, at least 1; by
        default none. Where an objective is nearly done its weight has no bound, as λ
        of :func:`mmpareto` has none. The direction stays, shorter.

    Returns:
      The weighting: :math:`w_k \propto 1 / \|g_k\|`; a zero gradient, to which no
      weight matters, has the mean of the others'. All zero where u is rounding error.

    Raises:
      ValueError: γ is negative or not finite; a limit below 1 or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.diag(jnp.array([9.0, 16.0]))  # norms 3 and 4, a sum of norm 5
      >>> weights, _ = mmp.weightings.normalized_sum().weights(gramian, ())
      >>> print(weights.round(2))  # 5 / sqrt(2) over 3, and over 4
      [1.18 0.88]

    References:
      The direction is that of equally long gradients, as in Lin et al., Dual-Balancing
      for Multi-Task Learning, 2023, https://arxiv.org/abs/2308.12029, section 3.2,
      without its logarithms and running means; the length is that of Wei & Hu, ICML
      2024, https://arxiv.org/abs/2405.17730.
    """
    check_limit(max_magnitude, "normalized_sum")

    def rule(gramian: jax.Array, rows: jax.Array) -> tuple[jax.Array, tuple[()]]:
        norms = norms_of(gramian)
        alive = norms > 0
        parts = jnp.where(alive, 1.0 / jnp.where(alive, norms, 1.0), 0.0)
        least = jnp.min(jnp.where(alive, rows * norms, jnp.inf), initial=jnp.inf)
        least = jnp.where(alive.any(), least, 1.0)
        total = jnp.sum(jnp.where(alive, least / (rows * norms), 0.0))
        shortest = least / jnp.where(alive.any(), total, 1.0)
        weights = restored(parts, alive, shortest, gramian, rows, limit=max_magnitude)
        return visible(weights, gramian), ()

    return scaled(gamma, rule, name="normalized_sum", report=())
