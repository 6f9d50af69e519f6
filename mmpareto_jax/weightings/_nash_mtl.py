"""Nash-MTL: the bargaining solution."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmpareto_jax._gramians.gramian import in_one_scale
from mmpareto_jax._gramians.min_norm import SolverReport
from mmpareto_jax.weightings._arguments import check_at_least, check_integer
from mmpareto_jax.weightings._fairgrad import fair_weights
from mmpareto_jax.weightings._weighting import Weighting, rows_or_ones


class NashMTLState(NamedTuple):
    """State of Nash-MTL.

    Attributes:
      step: scalar int32.
      last: the weights [K] of the last bargain, before its direction was shortened.
      report: of its solver.
    """

    step: jax.Array
    last: jax.Array
    report: SolverReport


def nash_mtl(max_norm: float = 1.0, *, update_every: int = 1) -> Weighting:
    r"""Multi-task learning as a bargaining game.

    The Nash bargaining solution: no other direction of the same length has a larger
    product of the objectives' improvements.

    .. math:: d = \sum_k w_k g_k, \qquad \frac{(G w)_k}{\|G\|_F} = \frac{1}{w_k}

    The equation is solved exactly inside jit, by Newton's method on its convex form.

    Args:
      max_norm: the direction is shortened to at most this norm; 0 leaves it as it is.
      update_every: steps between bargains; between them the weights are kept, and the
        norm still limited.

    Returns:
      The weighting. Weights are positive; zero for a zero gradient, and all zero at a
      Pareto stationary point.

    Raises:
      ValueError: `max_norm` is negative or not finite, `update_every` < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> weighting = mmp.weightings.nash_mtl(max_norm=0)
      >>> gramian = jnp.diag(jnp.array([9.0, 16.0]))
      >>> weights, _ = weighting.weights(gramian, weighting.init(2))
      >>> print((gramian @ weights * weights / jnp.linalg.norm(gramian)).round(4))
      [1. 1.]

    References:
      Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022,
      https://arxiv.org/abs/2202.01017, claim 3.1 and algorithm 1.
    """
    check_at_least("nash_mtl", "max_norm", max_norm, 0)
    check_integer("nash_mtl", "update_every", update_every, 1)

    def init(num: int) -> NashMTLState:
        zero = jnp.zeros((), jnp.int32)
        return NashMTLState(zero, jnp.ones((num,)) / num, SolverReport.zeros())

    def bargain(gramian: jax.Array, rows: jax.Array) -> tuple[jax.Array, SolverReport]:
        # The equation is that of the Gramian over its norm; its solution is that of
        # the Gramian itself times the root of the norm.
        common = in_one_scale(gramian, rows)
        # Twice normalised: the square in the norm of a large Gramian would overflow.
        largest = jnp.max(jnp.abs(common))
        divisor = jnp.where(largest > 0, largest, 1.0)
        root = jnp.sqrt(divisor) * jnp.sqrt(jnp.linalg.norm(common / divisor))
        found, report = fair_weights(gramian, 1.0, rows)
        return jnp.max(rows) * root * found, report

    def weights(
        gramian: jax.Array, state: NashMTLState, rows: jax.Array | None = None
    ) -> tuple[jax.Array, NashMTLState]:
        rows = rows_or_ones(rows, gramian)
        if update_every == 1:
            found, report = bargain(gramian, rows)
        else:
            kept = state.last.astype(gramian.dtype) * rows
            last = jax.tree.map(
                lambda new, old: old.astype(new.dtype),
                jax.eval_shape(bargain, gramian, rows)[1],
                state.report,
            )
            found, report = lax.cond(
                state.step % update_every == 0,
                bargain,
                lambda *_: (kept, last),
                gramian,
                rows,
            )
        after = NashMTLState(state.step + 1, found / rows, report)
        longest = jnp.max(rows)
        relative = found / longest
        norm = jnp.sqrt(jnp.maximum(relative @ gramian @ relative, 0.0)) * longest
        limit = jnp.asarray(max_norm, gramian.dtype)
        shorten = (norm > limit) & (limit > 0)
        return jnp.where(shorten, found * (limit / norm), found), after

    return Weighting(init, weights, ("rows",))
