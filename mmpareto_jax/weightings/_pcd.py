"""PCD: a primary objective, and auxiliary ones that make some progress too."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._gramians.active_set import nonnegative_qp
from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax.weightings._arguments import (
    check,
    check_at_least,
    check_decay,
    check_integer,
    check_share,
    check_vector,
    is_known,
)
from mmpareto_jax.weightings._mmpareto import visible
from mmpareto_jax.weightings._preference import by_position
from mmpareto_jax.weightings._weighting import (
    Weighting,
    rows_or_ones,
    zero_where_stationary,
)


class PCDState(NamedTuple):
    """State of PCD.

    Attributes:
      lengths: [K], roots of the running means of the squared norms, zeros at first.
      step: scalar int32, the steps taken.
    """

    lengths: jax.Array
    step: jax.Array


def pcd(
    tau: float | Sequence[float] | jax.Array = 0.02,
    *,
    primary: int | str = 0,
    beta: float = 0.999,
    eps: float = 1e-8,
) -> Weighting:
    r"""Priority-constrained descent.

    The direction that is closest to the primary objective's gradient, of those on which
    every other objective makes some progress:

    .. math:: \tilde d = \arg\min_d \tfrac12 \| d - \tilde g_p \|^2 \quad
        \text{such that} \quad \langle \tilde g_j, d \rangle \ge \tau_j
        \| \tilde g_j \|^2 \quad \text{for all } j \ne p

    with :math:`\tilde g_k = g_k / \sqrt{\hat v_k + \epsilon}`, and v the running mean
    of the squared norms, without its bias. The update is :math:`\tilde d` at the length
    of :math:`g_p`. Where no direction serves all, it is :math:`g_p`; where :math:`g_p`
    is zero, so is the update.

    Args:
      tau: τ in [0, 1]; a number, or [K - 1] in the order of the other objectives.
      primary: the primary objective's name, or its index in a group's objectives.
      beta: decay of the running mean, in [0, 1).
      eps: ε ≥ 0. A gradient much shorter than its root counts as shorter than it is
        relative to its mean.

    Returns:
      The weighting.

    Raises:
      ValueError: an argument is out of range; in ``init``, a group has no such primary
        objective, or has not K - 1 others; in ``aggregate``, no objective is called so.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> rule = mmp.weightings.pcd(tau=0.5)
      >>> gramian = jnp.diag(jnp.array([4.0, 1.0]))  # the second makes no progress
      >>> weights, _ = rule.weights(gramian, rule.init(2))
      >>> print(weights.round(4))
      [0.8944 0.8944]

    References:
      Not All Objectives Are Born Equal: Priority-Constrained Descent for Hierarchical
      Multi-Objective Optimization, TMLR 2026, https://arxiv.org/abs/2606.29521.
    """
    check_at_least("pcd", "eps", eps, 0)
    check_decay("pcd", "beta", beta)
    if np.ndim(tau):
        check_vector("pcd", "tau", tau)
        valid = not is_known(tau) or bool(
            np.all((np.asarray(tau) >= 0) & (np.asarray(tau) <= 1))
        )
        check("pcd", "tau", tau, valid, "in [0, 1]")
    else:
        check_share("pcd", "tau", tau)
    if not isinstance(primary, str):
        check_integer("pcd", "primary", primary)
    make = functools.partial(_pcd, tau, beta, eps)
    return by_position(make, "pcd", "primary", primary)


def _pcd(tau: Any, beta: float, eps: float, primary: int) -> Weighting:
    def init(num: int) -> PCDState:
        check("pcd", "primary", primary, 0 <= primary < num, f"in [0, {num})")
        num_tau = np.size(tau)
        valid = np.ndim(tau) == 0 or num_tau == num - 1
        check("pcd", "the length of tau", num_tau, valid, f"{num - 1}")
        return PCDState(jnp.zeros((num,)), jnp.zeros((), jnp.int32))

    def weights(
        gramian: jax.Array, state: PCDState, rows: jax.Array | None = None
    ) -> tuple[jax.Array, PCDState]:
        rows = rows_or_ones(rows, gramian)
        norms = norms_of(gramian)
        alive = norms > 0
        unit = jnp.where(alive, norms, 1.0)
        cosines = gramian / unit[:, None] / unit[None, :]
        step, decay = state.step + 1, jnp.asarray(beta, norms.dtype)
        # Roots, which no square takes out of range.
        before = jnp.sqrt(decay) * state.lengths.astype(norms.dtype)
        mean = jnp.hypot(before, jnp.sqrt(1 - decay) * norms * rows)
        unbiased = mean / jnp.sqrt(1 - decay ** step.astype(decay.dtype))
        divisors = jnp.hypot(unbiased, jnp.sqrt(jnp.asarray(eps, norms.dtype)))
        lengths = rows / jnp.where(divisors > 0, divisors, 1.0) * norms
        parts = _direction(lengths, cosines, _among_all(tau, primary, norms), primary)
        square = parts @ cosines @ parts
        length = jnp.sqrt(jnp.where(square > 0, square, 1.0))
        found = rows[primary] * (norms[primary] / length * (parts / unit))
        found = jnp.where(alive[primary] & (square > 0), found, 0.0)
        return visible(found, gramian), PCDState(mean, step)

    return Weighting(init, weights, ("rows",))


def _among_all(tau: Any, primary: int, like: jax.Array) -> jax.Array:
    """[K], with a zero for the primary objective."""
    others = jnp.broadcast_to(jnp.asarray(tau, like.dtype), (len(like) - 1,))
    return jnp.insert(others, primary, 0.0)


def _direction(
    lengths: jax.Array, cosines: jax.Array, tau: jax.Array, primary: int
) -> jax.Array:
    """Coefficients of the unit gradients; zero where they come to rounding error.

    The dual problem has a variable for each constraint. Where no direction fulfils all,
    its solution has no bound: then the primary gradient is left alone.
    """
    num = len(lengths)
    among = (lengths > 0) & (jnp.arange(num) != primary)
    # As much on the diagonal as rounding error bounds what has no bound.
    noise = 4 * num * float(np.finfo(cosines.dtype).eps)
    least = tau * lengths
    linear = least - lengths[primary] * cosines[:, primary]
    matrix = cosines + noise * jnp.eye(num, dtype=cosines.dtype)
    matrix = jnp.where(jnp.diag(~among), 1.0, matrix)
    y = nonnegative_qp(matrix, linear, among=among).x
    # What the constraints lack, against what they ask for, both weighted by y.
    feasible = noise * (y @ y) <= 0.5 * (y @ least)
    feasible |= ~jnp.any(among & (least > 0))  # zero fulfils all of them
    alone = jnp.zeros_like(lengths).at[primary].set(lengths[primary])
    return zero_where_stationary(jnp.where(feasible, alone + y, alone), cosines)
