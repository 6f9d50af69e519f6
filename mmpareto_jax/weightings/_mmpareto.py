"""MMPareto as a weighting: a function of the Gramian alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.min_norm import SolverReport, min_norm
from mmpareto_jax.weightings._arguments import check_at_least
from mmpareto_jax.weightings._weighting import (
    Weighting,
    rows_or_ones,
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

    .. math:: d = \gamma \lambda K \sum_k w_k g_k, \qquad \lambda = \frac{\|\sum_k g_k
        \|}{K \|\sum_k w_k g_k\|}

    with w the min-norm point of the convex hull where two gradients conflict, else 1/K
    each, over the K gradients that are not zero: see :func:`mmpareto_jax.mmpareto`,
    which is this rule in every group. The published code rescales each tensor by that
    tensor's own Gramian, which a function of the group's does not see: for that take
    ``mmpareto_jax.mmpareto(..., variant="official")``. The other arguments take the
    rule apart, for ablations.

    Args:
      gamma: the factor γ ≥ 0 on the final magnitude; a number, a traced scalar, or a
        schedule of the step.
      conflict_test: False takes the min-norm weights at every step.
      magnitude: False leaves out λ; the direction keeps its own norm.
      max_magnitude: upper limit of λ, at least 1; by default none. Where the objectives
        are nearly done, λ has no bound.

    Returns:
      The weighting: γ λ K w; a zero gradient, to which no weight matters, has the mean
      of the others'. All zero at a Pareto stationary point.

    Raises:
      ValueError: γ is negative or not finite; a limit below 1 or not finite.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[2.0, -3.0], [-3.0, 6.0]])  # a conflict
      >>> weights, _ = mmp.weightings.mmpareto(gamma=1.5).weights(gramian, ())
      >>> print(weights.round(4))
      [2.9459 1.6366]

    References:
      Wei & Hu, MMPareto: Boosting Multimodal Learning with Innocent Unimodal
      Assistance, ICML 2024, https://arxiv.org/abs/2405.17730
    """
    check_limit(max_magnitude)
    limit = max_magnitude if magnitude else 1.0
    return scaled(
        gamma, functools.partial(paper, always=not conflict_test, limit=limit)
    )


def check_limit(max_magnitude: float | None, name: str = "mmpareto") -> None:
    """Raises ValueError for a known limit of the magnitude that is below 1."""
    if max_magnitude is not None:
        check_at_least(name, "max_magnitude", max_magnitude, 1)


class ScaledState(NamedTuple):
    """State of a rule with a γ.

    Attributes:
      step: scalar int32, the argument of a schedule; ``()`` where γ is a number.
      report: of the min-norm solver; ``()`` where nothing is solved.
    """

    step: Any
    report: SolverReport | tuple[()]


Rule: TypeAlias = (
    "Callable[[jax.Array, jax.Array], tuple[jax.Array, SolverReport | tuple[()]]]"
)


def scaled(
    gamma: ScalarOrSchedule,
    rule: Rule,
    *,
    name: str = "mmpareto",
    report: SolverReport | tuple[()] | None = None,
) -> Weighting:
    """γ times the weights of `rule`; counts steps only if γ is a schedule.

    Args:
      gamma: γ.
      rule: (Gramian, rows) -> weights, and a report of its solver.
      name: of the rule, for what is raised.
      report: before the first step; by default that of a solver.
    """
    if not callable(gamma):
        check_at_least(name, "gamma", gamma, 0)

    def init(_: int) -> ScaledState:
        step = jnp.zeros((), jnp.int32) if callable(gamma) else ()
        return ScaledState(step, SolverReport.zeros() if report is None else report)

    def weights(
        gramian: jax.Array, state: ScaledState, rows: jax.Array | None = None
    ) -> tuple[jax.Array, ScaledState]:
        found, seen = rule(gramian, rows_or_ones(rows, gramian))
        now = gamma(state.step) if callable(gamma) else gamma
        step = state.step + 1 if callable(gamma) else ()
        return jnp.asarray(now, found.dtype) * found, ScaledState(step, seen)

    return Weighting(init, weights, ("rows",))


def paper(
    gramian: jax.Array,
    rows: jax.Array,
    *,
    always: bool = False,
    limit: float | jax.Array | None = None,
) -> tuple[jax.Array, SolverReport]:
    """λ · K · w: conflict is cos < 0, λ ≤ `limit` restores the norm of the sum.

    Gramian and weights are those of the gradients divided by `rows`.
    """
    found = pareto(gramian, rows, strict=True, always=always)
    weights = restored(
        found.parts, found.alive, found.shortest, gramian, rows, limit=limit
    )
    return visible(jnp.where(found.conflict, weights, rows), gramian), found.report


def restored(
    parts: jax.Array,
    alive: jax.Array,
    shortest: jax.Array,
    gramian: jax.Array,
    rows: jax.Array,
    *,
    limit: float | jax.Array | None,
) -> jax.Array:
    """Weights along a direction, at the length of the sum of the gradients.

    Args:
      parts: [K], the direction, as weights of the divided gradients; any length.
      alive: [K] bool, the objectives that have a gradient.
      shortest: scalar: ``shortest * parts / rows`` sum to 1.
      gramian: [K, K], of gradients divided by `rows`.
      rows: [K], powers of two.
      limit: of the mean of the weights of the gradients themselves; None: none.

    Returns:
      [K], weights of the divided gradients. Zero where the direction is rounding error.
    """
    num = jnp.sum(alive, dtype=gramian.dtype)
    # Next to a Pareto stationary point the direction is all rounding error, which λ
    # would amplify: below the noise floor it is zero.
    parts = zero_where_stationary(parts, gramian)
    square = parts @ gramian @ parts
    length = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    # Roots, and the two scales, apart: λ itself may be too large for the dtype.
    longest = jnp.max(rows)
    relative = rows / longest
    ratio = jnp.sqrt(jnp.maximum(relative @ gramian @ relative, 0.0)) / length
    weights = longest * ratio * parts
    if limit is not None:
        most = jnp.asarray(limit, gramian.dtype) * num
        over = longest / shortest * ratio > most
        weights = jnp.where(over, most * shortest * parts, weights)
    weights = jnp.where(square > 0, weights, 0.0)
    # A zero gradient has the others' mean weight; its products must not be inf · 0.
    mean = jnp.sum(weights * (shortest / rows)) / jnp.maximum(num, 1.0)
    others = jnp.where(num > 0, mean * (rows / shortest), rows)
    return jnp.where(alive, weights, others)


class Pareto(NamedTuple):
    """A min-norm direction, and whether it is asked for.

    Attributes:
      conflict: scalar bool.
      alive: [K] bool, the objectives that have a gradient.
      parts, shortest, report: of the min-norm point among those, see ``MinNorm``;
        with K the number of those, ``K * shortest * parts`` are K · w.
    """

    conflict: jax.Array
    alive: jax.Array
    parts: jax.Array
    shortest: jax.Array
    report: SolverReport


def pareto(
    gramian: jax.Array, rows: jax.Array, *, strict: bool, always: bool = False
) -> Pareto:
    """The min-norm point of the gradients that are not zero.

    With `always` every step counts as a conflict.

    An objective whose gradient is zero is done: it conflicts with none and has no part
    in the min-norm point (which else would be zero, and stop the others too). The
    others are weighted as if it were not there.
    """
    alive = jnp.diagonal(gramian) > 0
    pair = alive[:, None] & alive[None, :] & ~jnp.eye(len(rows), dtype=bool)
    opposed = gramian < 0 if strict else gramian <= 0
    conflict = jnp.any(opposed & pair) | always
    # The solver needs somebody to be there, also where its result is not used.
    found = min_norm(gramian, among=alive | ~alive.any(), rows=rows)
    return Pareto(conflict, alive, found.parts, found.shortest, found.report)


def visible(weights: jax.Array, gramian: jax.Array) -> jax.Array:
    """NaN weights where the Gramian is not finite: nothing is hidden downstream."""
    return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)
