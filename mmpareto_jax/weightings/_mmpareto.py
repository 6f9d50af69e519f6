"""MMPareto as a weighting: a function of the Gramian alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._min_norm import min_norm_weights
from mmpareto_jax.weightings._weighting import Weighting

ScalarOrSchedule: TypeAlias = "float | jax.Array | Callable[[jax.Array], Any]"


def mmpareto(gamma: ScalarOrSchedule = 1.5) -> Weighting:
    r"""The MMPareto rule with the magnitude of the whole group.

    See :func:`mmpareto_jax.mmpareto` for the rule and its variants.

    Args:
      gamma: the factor γ ≥ 0 on the final magnitude; a number, a traced scalar, or a
        schedule of the step.

    Returns:
      The weighting: γ · λ · K · w.

    Raises:
      ValueError: a negative or non-finite γ.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[2.0, -3.0], [-3.0, 6.0]])  # a conflict
      >>> weights, _ = mmp.weightings.mmpareto(gamma=1.5).weights(gramian, ())
      >>> print(weights.round(4))
      [2.9459 1.6366]
    """
    return scaled(gamma, paper)


def scaled(
    gamma: ScalarOrSchedule, rule: Callable[[jax.Array], jax.Array]
) -> Weighting:
    """γ times the weights of `rule`; counts steps only if γ is a schedule."""
    if callable(gamma):
        return Weighting(
            lambda _: jnp.zeros((), jnp.int32),
            lambda gramian, step: (gamma(step) * rule(gramian), step + 1),
        )
    # Known values are checked; a traced one cannot be.
    known = not isinstance(gamma, jax.core.Tracer)
    if known and not (math.isfinite(float(gamma)) and float(gamma) >= 0):
        raise ValueError(f"mmpareto: gamma must be finite and >= 0, got {gamma}.")
    return Weighting(
        lambda _: (), lambda gramian, state: (gamma * rule(gramian), state)
    )


def paper(gramian: jax.Array) -> jax.Array:
    """λ · K · w: conflict is cos < 0, λ restores the norm of the sum."""
    weights, conflict = pareto(gramian, strict=True)
    square = weights @ gramian @ weights
    # Next to a Pareto stationary point the direction is all rounding error, which λ
    # would amplify: below the noise floor it is zero.
    reach = weights @ jnp.sqrt(jnp.diagonal(gramian))
    stationary = square <= 10 * np.finfo(gramian.dtype).eps * reach**2
    total = jnp.maximum(jnp.sum(gramian), 0.0)
    magnitude = jnp.sqrt(total / jnp.where(stationary, 1.0, square))
    factor = jnp.where(conflict, jnp.where(stationary, 0.0, magnitude), 1.0)
    return visible(factor * weights, gramian)


def pareto(gramian: jax.Array, *, strict: bool) -> tuple[jax.Array, jax.Array]:
    """K · w and whether there is a conflict; without one all K · w are 1.

    An objective whose gradient is zero is done: it conflicts with none and has no part
    in the min-norm point (which else would be zero, and stop the others too). The
    others are weighted as if it were not there, and it keeps 1.
    """
    num = gramian.shape[0]
    alive = jnp.diagonal(gramian) > 0
    pair = alive[:, None] & alive[None, :] & ~jnp.eye(num, dtype=bool)
    opposed = gramian < 0 if strict else gramian <= 0
    conflict = jnp.any(opposed & pair)
    # The solver needs somebody to be there, also where its result is not used.
    simplex = min_norm_weights(gramian, among=alive | ~alive.any())
    weights = jnp.sum(alive) * simplex
    return jnp.where(conflict & alive, weights, jnp.ones_like(weights)), conflict


def visible(weights: jax.Array, gramian: jax.Array) -> jax.Array:
    """NaN weights where the Gramian is not finite: nothing is hidden downstream."""
    return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)
