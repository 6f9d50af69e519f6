"""Non-negative quadratic programs of a few variables, exactly, inside jit."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


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
      The solution, up to rounding in the dtype of `matrix`.

    References:
      Lawson & Hanson, Solving Least Squares Problems, chapter 23.
    """
    num, dtype = matrix.shape[0], matrix.dtype
    eps = np.finfo(dtype).eps

    def solve(active: jax.Array) -> jax.Array:
        both = active[:, None] & active[None, :]
        system = jnp.where(both, matrix, jnp.eye(num, dtype=dtype))
        right = jnp.where(active, linear, 0.0)
        x = jnp.linalg.solve(system, right)
        # One step of iterative refinement: near-parallel gradients need it in float32.
        x = x + jnp.linalg.solve(system, right - system @ x)
        return jnp.where(active, x, 0.0)

    def step(s: _Search) -> _Search:
        goal = solve(s.active)
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

    at = jnp.zeros((), jnp.int32) if start is None else start
    active = (jnp.arange(num) == at) & (start is not None)
    banned = jnp.zeros((num,), bool) if among is None else ~among
    x = jnp.where(active, linear / jnp.diagonal(matrix), 0.0)
    false, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    state = _Search(active, x, at.astype(jnp.int32), banned, false, zero)

    state = lax.while_loop(lambda s: ~s.done & (s.steps < 6 * num), step, state)
    return Solution(state.x, state.steps)
