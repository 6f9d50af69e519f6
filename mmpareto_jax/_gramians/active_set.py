"""Non-negative quadratic programs, up to rounding, inside jit."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.linalg import cho_factor, cho_solve

from mmpareto_jax._gradients.manual import vary_like

_MAX_SYSTEMS = 200
# Exchanges in a row that may make no variable right before a problem counts as too
# badly conditioned, and what then becomes of the term that conditions it.
_PATIENCE, _RAISE, _LOWER = 3, 10.0, 3.0


class Solution(NamedTuple):
    """Where the search ended.

    Attributes:
      x: [K] the minimiser.
      iterations: scalar int32, the linear systems solved.
    """

    x: jax.Array
    iterations: jax.Array


class _Search(NamedTuple):
    active: jax.Array  # [K] bool: the variables that are not held at zero
    x: jax.Array  # [K], the last solution on them, clipped
    center: jax.Array  # [K], what the proximal term draws to
    weight: jax.Array  # scalar, of the proximal term
    fewest: jax.Array  # scalar int: variables on the wrong side, at best
    patience: jax.Array  # scalar int
    done: jax.Array  # scalar bool
    systems: jax.Array  # scalar int


def nonnegative_qp(
    matrix: jax.Array, linear: jax.Array, *, among: jax.Array | None = None
) -> Solution:
    r"""Minimises :math:`\tfrac12 x^\top M x - q^\top x` over :math:`x \ge 0`.

    Block pivoting: the system of the active variables is solved, and all variables on
    the wrong side are exchanged at once: it takes a few systems, whatever K. Where M is
    close to singular that may go round in circles, so a proximal term
    :math:`\tfrac12 \rho |x - c|^2` is added, with c the last minimiser, until nothing
    changes any more: the limit is a minimiser of the problem itself, whatever ρ > 0
    is. It is small, and grows where the exchanges do not come to an end; with a large
    one they do.

    Args:
      matrix: M [K, K], symmetric and positive semi-definite, best with a unit diagonal.
      linear: q [K].
      among: bool [K]; the other variables stay zero. By default all may move.

    Returns:
      The solution, up to rounding in the dtype of `matrix`, after at most 200 systems.
      It has derivatives: those of the linear system that the positive variables solve.

    References:
      Portugal, Júdice & Vicente, A comparison of block pivoting and interior-point
      algorithms for linear least squares problems with nonnegative variables,
      Mathematics of Computation, 1994. Rockafellar, Monotone operators and the proximal
      point algorithm, SIAM Journal on Control and Optimization, 1976.
    """
    among = jnp.ones(linear.shape, bool) if among is None else among
    return Solution(*_search(matrix, linear, among))


def _smallest_weight(matrix: jax.Array) -> float:
    """Of a proximal term that leaves a factorisation in this dtype exact enough."""
    return float(16 * len(matrix) * np.finfo(matrix.dtype).eps)


def _solve(
    matrix: jax.Array, right: jax.Array, active: jax.Array, weight: jax.Array | float
) -> jax.Array:
    """M + ρ I on the active rows and columns alone; zero elsewhere."""
    both = active[:, None] & active[None, :]
    diagonal = jnp.where(active, weight, 1.0).astype(matrix.dtype)
    system = jnp.where(both, matrix, 0.0) + jnp.diag(diagonal)
    right = jnp.where(active, right, 0.0)
    factor = cho_factor(system)
    x = cho_solve(factor, right)
    # One step of iterative refinement: near-parallel gradients need it in float32.
    x = x + cho_solve(factor, right - system @ x)
    return jnp.where(active, x, 0.0)


@jax.custom_jvp
def _search(
    matrix: jax.Array, linear: jax.Array, among: jax.Array
) -> tuple[jax.Array, jax.Array]:
    num, eps = matrix.shape[0], np.finfo(matrix.dtype).eps
    least = _smallest_weight(matrix)
    everyone = jnp.asarray(num + 1, jnp.int32)
    patient = jnp.asarray(_PATIENCE, jnp.int32)

    def exchange(s: _Search) -> _Search:
        x = _solve(matrix, linear + s.weight * s.center, s.active, s.weight)
        pull = linear + s.weight * s.center - matrix @ x
        noise = 4 * eps * (jnp.abs(linear) + jnp.abs(matrix) @ jnp.abs(x))
        wrong = jnp.where(s.active, x < 0, among & (pull > noise))
        count = jnp.sum(wrong, dtype=jnp.int32)
        finite = jnp.isfinite(x).all()
        settled = finite & (count == 0)
        patience = jnp.where(count < s.fewest, patient, s.patience - 1)
        lost = ~finite | (patience < 0)
        anew = settled | lost
        lower, higher = jnp.maximum(s.weight / _LOWER, least), s.weight * _RAISE
        weight = jnp.where(settled, lower, jnp.where(lost, higher, s.weight))
        still = jnp.all(s.weight * jnp.abs(x - s.center) <= noise)
        return _Search(
            active=s.active ^ (wrong & finite),
            x=jnp.where(finite, jnp.maximum(x, 0.0), s.x),
            center=jnp.where(settled, x, s.center),
            weight=weight,
            fewest=jnp.where(anew, everyone, jnp.minimum(count, s.fewest)),
            patience=jnp.where(anew, patient, patience),
            done=settled & still,
            systems=s.systems + 1,
        )

    zero = linear - linear  # also under an eager vmap over a mesh
    state = _Search(
        active=among & (linear > 0),
        x=zero,
        center=zero,
        weight=jnp.asarray(least, linear.dtype),
        fewest=everyone,
        patience=patient,
        done=~(jnp.isfinite(matrix).all() & jnp.isfinite(linear).all()),
        systems=jnp.zeros((), jnp.int32),
    )
    state = vary_like(state, matrix, linear)
    state = lax.while_loop(
        lambda s: ~s.done & (s.systems < _MAX_SYSTEMS), exchange, state
    )
    return state.x, state.systems


@_search.defjvp
def _derivative(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, Any]]:
    """M x = q on the positive variables, so M dx = dq - dM x; the others stay zero."""
    matrix = primals[0]
    x, systems = _search(*primals)
    right = tangents[1] - tangents[0] @ x
    none = np.zeros((), jax.dtypes.float0)
    change = _solve(matrix, right, x > 0, _smallest_weight(matrix))
    return (x, systems), (change, none)
