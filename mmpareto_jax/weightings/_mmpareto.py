"""MMPareto as a weighting: a function of the Gramian alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mmpareto_jax._min_norm import SolverReport, min_norm
from mmpareto_jax.weightings._weighting import (
    Weighting,
    check_at_least,
    zero_where_stationary,
)

ScalarOrSchedule: TypeAlias = "float | jax.Array | Callable[[jax.Array], Any]"


def mmpareto(
    gamma: ScalarOrSchedule = 1.5,
    *,
    conflict_test: bool = True,
    magnitude: bool = True,
    max_magnitude: float | None = None,
) -> Weighting:
    r"""The MMPareto rule with the magnitude of the whole group.

    See :func:`mmpareto_jax.mmpareto` for the rule and its variants. The other arguments
    take it apart, for ablations.

    Args:
      gamma: the factor γ ≥ 0 on the final magnitude; a number, a traced scalar, or a
        schedule of the step.
      conflict_test: False takes the min-norm weights at every step.
      magnitude: False leaves out λ; the direction keeps its own norm.
      max_magnitude: upper limit of λ, at least 1; by default none. Where the objectives
        are nearly done, λ has no bound.

    Returns:
      The weighting: γ · λ · K · w.

    Raises:
      ValueError: a negative or non-finite γ, a limit below 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[2.0, -3.0], [-3.0, 6.0]])  # a conflict
      >>> weights, _ = mmp.weightings.mmpareto(gamma=1.5).weights(gramian, ())
      >>> print(weights.round(4))
      [2.9459 1.6366]
    """
    if max_magnitude is not None:
        check_at_least("mmpareto", "max_magnitude", max_magnitude, 1)
    limit = jnp.inf if max_magnitude is None else max_magnitude
    limit = limit if magnitude else 1.0
    return scaled(
        gamma, functools.partial(paper, always=not conflict_test, limit=limit)
    )


class MMParetoState(NamedTuple):
    """State of the rule.

    Attributes:
      step: scalar int32, the argument of a schedule; ``()`` where γ is a number.
      report: of the min-norm solver.
    """

    step: Any
    report: SolverReport


Rule: TypeAlias = "Callable[[jax.Array], tuple[jax.Array, SolverReport]]"


def scaled(gamma: ScalarOrSchedule, rule: Rule) -> Weighting:
    """γ times the weights of `rule`; counts steps only if γ is a schedule."""
    if not callable(gamma):
        check_at_least("mmpareto", "gamma", gamma, 0)

    def init(_: int) -> MMParetoState:
        step = jnp.zeros((), jnp.int32) if callable(gamma) else ()
        return MMParetoState(step, SolverReport.zeros())

    def weights(
        gramian: jax.Array, state: MMParetoState
    ) -> tuple[jax.Array, MMParetoState]:
        found, report = rule(gramian)
        if callable(gamma):
            return gamma(state.step) * found, MMParetoState(state.step + 1, report)
        return gamma * found, MMParetoState((), report)

    return Weighting(init, weights)


def paper(
    gramian: jax.Array,
    *,
    always: bool = False,
    limit: float | jax.Array = jnp.inf,
) -> tuple[jax.Array, SolverReport]:
    """λ · K · w: conflict is cos < 0, λ ≤ `limit` restores the norm of the sum."""
    weights, conflict, report = pareto(gramian, strict=True, always=always)
    # Next to a Pareto stationary point the direction is all rounding error, which λ
    # would amplify: below the noise floor it is zero.
    weights = jnp.where(conflict, zero_where_stationary(weights, gramian), weights)
    square = weights @ gramian @ weights
    total = jnp.maximum(jnp.sum(gramian), 0.0)
    magnitude = jnp.sqrt(total / jnp.where(square > 0, square, 1.0))
    magnitude = jnp.minimum(magnitude, limit)
    factor = jnp.where(conflict & (square > 0), magnitude, 1.0)
    return visible(factor * weights, gramian), report


def pareto(
    gramian: jax.Array, *, strict: bool, always: bool = False
) -> tuple[jax.Array, jax.Array, SolverReport]:
    """K · w and whether there is a conflict; without one all K · w are 1.

    With `always` every step counts as a conflict.

    An objective whose gradient is zero is done: it conflicts with none and has no part
    in the min-norm point (which else would be zero, and stop the others too). The
    others are weighted as if it were not there, and it keeps 1.
    """
    num = gramian.shape[0]
    alive = jnp.diagonal(gramian) > 0
    pair = alive[:, None] & alive[None, :] & ~jnp.eye(num, dtype=bool)
    opposed = gramian < 0 if strict else gramian <= 0
    conflict = jnp.any(opposed & pair) | always
    # The solver needs somebody to be there, also where its result is not used.
    simplex, report = min_norm(gramian, among=alive | ~alive.any())
    weights = jnp.sum(alive) * simplex
    weights = jnp.where(conflict & alive, weights, jnp.ones_like(weights))
    return weights, conflict, report


def visible(weights: jax.Array, gramian: jax.Array) -> jax.Array:
    """NaN weights where the Gramian is not finite: nothing is hidden downstream."""
    return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)
