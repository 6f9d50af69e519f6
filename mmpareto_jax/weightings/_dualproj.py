"""DualProj: the mean gradient projected so that it hurts no objective."""

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


def dualproj(
    preference: PerObjective | None = None, *, reg_eps: float = 0.0
) -> Weighting:
    r"""Projection of the mean gradient on the dual cone.

    .. math:: d = \arg\min_{y :\ \langle y, g_j \rangle \ge 0\ \forall j} \Big\| y -
        \sum_k p_k g_k \Big\|

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
      >>> gramian = jnp.array([[1.0, -2.0], [-2.0, 16.0]])
      >>> weights, _ = mmp.weightings.dualproj().weights(gramian, ())
      >>> print(weights.round(4))
      [1.  0.5]

    References:
      Lopez-Paz & Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS
      2017, https://arxiv.org/abs/1706.08840, equation 11.
    """
    check_at_least("dualproj", "reg_eps", reg_eps, 0)
    if isinstance(preference, Mapping):
        return by_name(
            functools.partial(dualproj, reg_eps=reg_eps),
            "dualproj",
            preference=preference,
        )
    check_vector("dualproj", "preference", preference)

    def weights(gramian: jax.Array, rows: jax.Array) -> tuple[jax.Array, SolverReport]:
        default = 1.0 / len(gramian)
        u = preference_of("dualproj", preference, gramian, default=default)
        longest = jnp.max(rows)
        v, report = project(gramian, u * (rows / longest), reg_eps, rows)
        return longest * v, report

    return of_projections(weights)
