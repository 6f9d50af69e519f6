"""Projection on the dual cone of the gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._gramians.active_set import nonnegative_qp
from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax._gramians.min_norm import SolverReport
from mmpareto_jax._gramians.powers import power_below
from mmpareto_jax.weightings._arguments import is_known
from mmpareto_jax.weightings._weighting import Weighting, rows_or_ones


def project(
    gramian: jax.Array, u: jax.Array, reg_eps: float | jax.Array, rows: jax.Array
) -> tuple[jax.Array, SolverReport]:
    r"""The weights v of the projection of :math:`\sum_k u_k g_k` on the dual cone.

    By duality v minimises :math:`v^\top G v` over :math:`v \ge u`. With :math:`v = u +
    y` and unit gradients that is a non-negative quadratic program with a unit diagonal.

    Args:
      gramian: G [K, K], of gradients divided by `rows`.
      u: [K], for the divided gradients, as v.
      reg_eps: added to the diagonal, relative to the trace of the true Gramian.
      rows: [K], positive.

    Returns:
      v [K], where a zero gradient keeps its weight; and how good they are. Its gap is
      :math:`(s^\top y + \|y\|_1 \max_k (-s_k)_+) / \|\sum_k u_k g_k\|^2`, with s the
      program's slopes: twice this bounds what any other y of no larger sum could gain.
    """
    dtype = gramian.dtype
    # Every gradient near 1: one may be any number of times as long as another.
    own = power_below(norms_of(gramian))
    gram = gramian / own[:, None] / own[None, :]
    begin = u * own
    size = power_below(jax.lax.stop_gradient(jnp.max(jnp.abs(begin))))
    begin = begin / size
    if not (is_known(reg_eps) and reg_eps == 0):
        # The same for every gradient, and a gradient is `lengths` times its row here.
        # From some length on it is all that there is; its square must not underflow.
        lengths = rows * own
        relative = jnp.maximum(lengths / jnp.max(lengths), 1e-15)
        trace = jnp.sum(jnp.diagonal(gram) * relative**2)
        gram += jnp.diag(jnp.asarray(reg_eps, u.dtype) * trace / relative**2)
    norms = norms_of(gram)
    alive = norms > 0
    unit = jnp.where(alive, norms, 1.0)
    # Dependent gradients make the system singular, though not its solution's direction:
    # this much on the diagonal is rounding error, and picks a solution of small norm.
    noise = 4 * len(u) * np.finfo(dtype).eps
    matrix = gram / unit[:, None] / unit[None, :] + jnp.diag(jnp.full_like(u, noise))
    matrix = jnp.where(jnp.diag(~alive), 1.0, matrix)
    linear = -(gram @ begin) / unit
    y, systems = nonnegative_qp(matrix, linear, among=alive)
    v = u + y / unit * size / own
    report = SolverReport(_gap(matrix, linear, y, begin @ gram @ begin, alive), systems)
    return jnp.where(jnp.isfinite(gramian).all(), v, jnp.nan), report


def _gap(
    matrix: jax.Array,
    linear: jax.Array,
    y: jax.Array,
    square: jax.Array,
    alive: jax.Array,
) -> jax.Array:
    """How far the program's value can be from its least, relative to the square."""
    slopes = jnp.where(alive, matrix @ y - linear, 0.0)
    excess = jnp.maximum(y @ slopes, 0.0) + jnp.sum(y) * jnp.max(-slopes, initial=0.0)
    return jax.lax.stop_gradient(excess / jnp.where(square > 0, square, 1.0))


def of_projections(
    weights: Callable[[jax.Array, jax.Array], tuple[jax.Array, SolverReport]],
) -> Weighting:
    """A weighting whose state is the report, of gradients in scales of their own."""

    def found(
        gramian: jax.Array, _: SolverReport, rows: jax.Array | None = None
    ) -> tuple[jax.Array, SolverReport]:
        return weights(gramian, rows_or_ones(rows, gramian))

    return Weighting(lambda _: SolverReport.zeros(), found, ("rows",))
