"""Non-negative quadratic programs of a few variables, exactly, inside jit."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmpareto_jax._gradients.manual import vary_like


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
    x: jax.Array  # [K] feasible point, zero off the active set
    newest: jax.Array  # scalar int: the variable that entered last
    banned: jax.Array  # [K] bool: variables that rounding does not let enter
    done: jax.Array  # scalar bool
    steps: jax.Array  # scalar int


def nonnegative_qp(
    matrix: jax.Array,
    linear: jax.Array,
    *,
    start: jax.Array | None = None,
    among: jax.Array | None = None,
) -> Solution:
    r"""Minimises :math:`\tfrac12 x^\top M x - q^\top x` over :math:`x \ge 0`.

    The active set method of Lawson & Hanson: variables enter one at a time, the
    steepest first, and the minimiser over those that entered is computed exactly. It
    needs about as many steps as variables end up positive, and is bounded by 6 K.

    Args:
      matrix: M [K, K], symmetric and positive definite, best with a unit diagonal.
      linear: q [K].
      start: index of a variable that certainly is positive; by default none.
      among: bool [K]; the other variables stay zero. By default all may move.

    Returns:
      The solution, up to rounding in the dtype of `matrix`. It has derivatives: those
      of the linear system that the positive variables solve.

    References:
      Lawson & Hanson, Solving Least Squares Problems, chapter 23.
    """
    num = matrix.shape[0]
    at = jnp.zeros((), jnp.int32) if start is None else start.astype(jnp.int32)
    active = (jnp.arange(num) == at) & (start is not None)
    banned = jnp.zeros((num,), bool) if among is None else ~among
    return Solution(*_search(matrix, linear, at, active, banned))


def _solve(matrix: jax.Array, right: jax.Array, active: jax.Array) -> jax.Array:
    """The active rows and columns alone; zero elsewhere."""
    both = active[:, None] & active[None, :]
    system = jnp.where(both, matrix, jnp.eye(len(right), dtype=matrix.dtype))
    right = jnp.where(active, right, 0.0)
    x = jnp.linalg.solve(system, right)
    # One step of iterative refinement: near-parallel gradients need it in float32.
    x = x + jnp.linalg.solve(system, right - system @ x)
    return jnp.where(active, x, 0.0)


@jax.custom_jvp
def _search(
    matrix: jax.Array,
    linear: jax.Array,
    at: jax.Array,
    active: jax.Array,
    banned: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    num, eps = matrix.shape[0], np.finfo(matrix.dtype).eps

    def step(s: _Search) -> _Search:
        goal = _solve(matrix, linear, s.active)
        inside = jnp.all(jnp.where(s.active, goal > 0, True)) & jnp.isfinite(goal).all()
        moves = zip(enter(s, goal), leave(s, goal), strict=True)
        return _Search(*(jnp.where(inside, a, b) for a, b in moves))

    def enter(s: _Search, x: jax.Array) -> _Search:
        """`x` is the minimiser over its active set: the steepest variable joins."""
        slope = linear - matrix @ x
        size = jnp.abs(linear)
        noise = 4 * eps * (size + jnp.abs(matrix) @ x)
        gain = slope / jnp.where(size > 0, size, 1.0)
        gain = jnp.where(s.active | s.banned | (slope <= noise), -jnp.inf, gain)
        best = jnp.argmax(gain).astype(jnp.int32)
        done = ~jnp.isfinite(gain[best])
        active = s.active.at[best].set(s.active[best] | ~done)
        return s._replace(active=active, x=x, newest=best, done=done, steps=s.steps + 1)

    def leave(s: _Search, goal: jax.Array) -> _Search:
        """Go towards `goal` as far as x ≥ 0 allows; what reaches zero leaves."""
        falling = s.active & ~(goal > 0)
        ratio = jnp.where(falling, s.x / jnp.where(falling, s.x - goal, 1.0), jnp.inf)
        ratio = jnp.where(jnp.isnan(ratio), 0.0, ratio)
        far = jnp.clip(jnp.min(ratio), 0.0, 1.0)
        x = jnp.where(s.active, s.x + far * (jnp.nan_to_num(goal) - s.x), 0.0)
        active = s.active & ~(falling & (ratio <= far)) & (x >= 0)
        x = jnp.where(active, x, 0.0)
        # It came in on a positive slope and must leave at once: that was rounding.
        back = s.active[s.newest] & ~active[s.newest]
        return s._replace(
            active=active,
            x=x,
            banned=s.banned.at[s.newest].set(s.banned[s.newest] | back),
            steps=s.steps + 1,
        )

    x = jnp.where(active, linear / jnp.diagonal(matrix), 0.0)
    false, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    state = vary_like(_Search(active, x, at, banned, false, zero), matrix, linear)
    state = lax.while_loop(lambda s: ~s.done & (s.steps < 6 * num), step, state)
    return state.x, state.steps


@_search.defjvp
def _derivative(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, Any]]:
    """M x = q on the positive variables, so M dx = dq - dM x; the others stay zero."""
    matrix = primals[0]
    x, steps = _search(*primals)
    right = tangents[1] - tangents[0] @ x
    none = np.zeros((), jax.dtypes.float0)
    return (x, steps), (_solve(matrix, right, x > 0), none)
