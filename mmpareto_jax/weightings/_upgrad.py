"""UPGrad: every gradient projected so that it hurts no objective."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from mmpareto_jax._gramians.min_norm import SolverReport
from mmpareto_jax.weightings._arguments import check_at_least, check_vector
from mmpareto_jax.weightings._dual_cone import of_projections, project
from mmpareto_jax.weightings._preference import PerObjective, by_name, preference_of
from mmpareto_jax.weightings._weighting import Weighting

# Above it the systems of all projections, K³ numbers, are solved one after the other.
_AT_ONCE = 64


def upgrad(
    preference: PerObjective | None = None, *, reg_eps: float = 0.0
) -> Weighting:
    r"""Unconflicting projection of gradients.

    Each gradient is projected on the dual cone of all (the directions that have a
    non-negative inner product with every gradient), and the projections are combined:

    .. math:: d = \sum_k p_k\, \pi(g_k), \qquad \pi(x) = \arg\min_{y :\ \langle y, g_j
        \rangle \ge 0\ \forall j} \|y - x\|

    The projection is :math:`J^\top v`, v minimising :math:`v^\top G v` over :math:`v
    \ge e_k`; this is solved by block pivoting, up to rounding.

    Args:
      preference: p [K], or by name; by default 1/K each.
      reg_eps: added to the Gramian's diagonal, relative to its trace. TorchJD adds
        1e-4, which lets a little conflict pass.

    Returns:
      The weighting. Its direction conflicts with no gradient.

    Raises:
      ValueError: `reg_eps` is negative or not finite; a preference of another length
        than a group.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
      >>> weights, _ = mmp.weightings.upgrad().weights(gramian, ())
      >>> print(weights.round(4))
      [1.    0.625]

    References:
      Quinton & Rey, Jacobian Descent for Multi-Objective Optimization, 2024,
      https://arxiv.org/abs/2406.16232, equations 3 and 5.
    """
    check_at_least("upgrad", "reg_eps", reg_eps, 0)
    if isinstance(preference, Mapping):
        return by_name(
            functools.partial(upgrad, reg_eps=reg_eps), "upgrad", preference=preference
        )
    check_vector("upgrad", "preference", preference)

    def weights(gramian: jax.Array, rows: jax.Array) -> tuple[jax.Array, SolverReport]:
        p = preference_of("upgrad", preference, gramian, default=1.0 / len(gramian))

        def projection(u: jax.Array) -> tuple[jax.Array, SolverReport]:
            return project(gramian, u, reg_eps, rows)

        if len(p) <= _AT_ONCE:
            projected, reports = jax.vmap(projection)(jnp.diag(p))
        else:
            projected, reports = jax.lax.map(projection, jnp.diag(p))
        # A projection is as long as what was projected.
        found = jnp.sum(rows[:, None] * projected, axis=0)
        return found, jax.tree.map(jnp.max, reports)

    return of_projections(weights)
