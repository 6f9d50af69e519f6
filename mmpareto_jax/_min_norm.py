"""The point of least norm in the convex hull of K gradients, from their Gramian."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def min_norm_weights(
    gramian: jax.Array, *, among: jax.Array | None = None
) -> jax.Array:
    r"""Weights of the min-norm point of the convex hull of K gradients.

    .. math:: \arg\min_{w \ge 0,\ \sum_k w_k = 1} \Big\| \sum_k w_k g_k \Big\|^2
        = \arg\min_w\ w^\top G w

    The direction :math:`\sum_k w_k g_k` has the same, largest common inner product
    with every gradient that has weight. K = 2 has a closed form. For K > 2 an active
    set method (Lawson & Hanson) solves the equivalent non-negative least squares
    problem on the correlation matrix, exactly up to rounding; it works inside ``jit``,
    ``vmap`` and ``scan``.

    Args:
      gramian: array [K, K] of inner products, float32 or float64.
      among: bool array [K]; the others are left out and get no weight. By default
        all, and at least one must be.

    Returns:
      Weights [K], non-negative, of sum 1, in the Gramian's dtype. A gradient that is
      zero is itself the min-norm point. Where the Gramian is not finite they are NaN.

    Raises:
      ValueError: not a square matrix.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> jacobian = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> print(mmp.min_norm_weights(jacobian @ jacobian.T))
      [0.6 0.4]

    References:
      Désidéri, Multiple-gradient descent algorithm (MGDA) for multiobjective
      optimization, 2012. Lawson & Hanson, Solving Least Squares Problems, chapter 23.
    """
    gramian = jnp.asarray(gramian)
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1] or not gramian.size:
        raise ValueError(
            f"min_norm_weights: expected a Gramian [K, K], got shape {gramian.shape}."
        )
    gramian = gramian.astype(jnp.promote_types(gramian.dtype, jnp.float32))
    num = gramian.shape[0]
    among = jnp.ones((num,), bool) if among is None else among
    if num == 1:
        weights = jnp.ones((1,), gramian.dtype)
    elif num == 2:
        weights = jnp.where(among.all(), _two(gramian), among.astype(gramian.dtype))
    else:
        weights = _active_set(gramian, among)
    return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)


def _two(gramian: jax.Array) -> jax.Array:
    (a, ab), (_, b) = gramian
    # The two parts of |g_1 - g_2|², which is zero when both gradients agree. Where one
    # is negative the other gradient is itself the point; clipping before the division
    # keeps that also where rounding makes the total of two nearly equal ones negative.
    first, second = jnp.maximum(b - ab, 0.0), jnp.maximum(a - ab, 0.0)
    total = first + second
    divisor = jnp.where(total > 0, total, 1.0)
    # Two scalar divisions: XLA turns the division of a vector by a scalar into a
    # product with the reciprocal, which costs the last digit.
    weights = jnp.stack([first / divisor, second / divisor])
    return jnp.where(total > 0, weights, 0.5)


class _Search(NamedTuple):
    active: jax.Array  # [K] bool: the gradients that have weight
    x: jax.Array  # [K] feasible point, zero off the active set
    newest: jax.Array  # scalar int: the gradient that entered last
    banned: jax.Array  # [K] bool: gradients that rounding does not let enter
    done: jax.Array  # scalar bool
    steps: jax.Array  # scalar int


def _active_set(gramian: jax.Array, among: jax.Array) -> jax.Array:
    r"""K > 2: minimise :math:`x^\top C x + (z^\top x - 1)^2` over x ≥ 0.

    C is the correlation matrix, :math:`z_k = 1/|g_k|`, and w is x ∘ z normalised: with
    w = t·v on a ray, the minimum over t is a monotone function of the norm of v. The
    second term keeps the systems regular where the gradients are dependent but no
    two of their hull's corners are, so zero may lie in the hull.
    """
    num, dtype = gramian.shape[0], gramian.dtype
    eps = np.finfo(dtype).eps
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0.0))
    zero = norms == 0
    unit = jnp.where(zero, 1.0, norms)
    z = jnp.min(jnp.where(among, unit, jnp.inf)) / unit
    matrix = gramian / unit[:, None] / unit[None, :] + z[:, None] * z[None, :]

    def solve(active: jax.Array) -> jax.Array:
        both = active[:, None] & active[None, :]
        system = jnp.where(both, matrix, jnp.eye(num, dtype=dtype))
        right = jnp.where(active, z, 0.0)
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
        """`x` is the optimum of its active set: the steepest gradient joins."""
        slope = z - matrix @ x
        noise = 4 * eps * (z + jnp.abs(matrix) @ x)
        gain = jnp.where(s.active | s.banned | (slope <= noise), -jnp.inf, slope / z)
        best = jnp.argmax(gain)
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

    shortest = jnp.argmax(jnp.where(among, z, -1.0))
    start = jnp.arange(num) == shortest
    state = _Search(
        start,
        jnp.where(start, z / jnp.diagonal(matrix), 0.0),
        shortest,
        ~among,
        jnp.zeros((), bool),
        jnp.zeros((), jnp.int32),
    )
    state = lax.while_loop(lambda s: ~s.done & (s.steps < 6 * num), step, state)
    weights = state.x * z
    weights = weights / jnp.sum(weights)
    zero &= among
    first_zero = (jnp.arange(num) == jnp.argmax(zero)).astype(dtype)
    return jnp.where(zero.any(), first_zero, weights)
