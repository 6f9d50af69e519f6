"""CAGrad: the worst objective improves most, near the average gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmpareto_jax._gradients.manual import vary_like
from mmpareto_jax._gramians.min_norm import min_norm
from mmpareto_jax.weightings._arguments import check_at_least
from mmpareto_jax.weightings._weighting import (
    Weighting,
    stateless,
    without_derivative,
    zero_where_stationary,
)


def cagrad(c: float = 0.5) -> Weighting:
    r"""Conflict-averse gradient descent.

    .. math:: \max_d \min_k \langle g_k, d \rangle \quad \text{with} \quad
        \|d - g_0\| \le c \|g_0\|, \quad g_0 = \frac1K \sum_k g_k

    whose solution is :math:`d = g_0 + c \frac{\|g_0\|}{\|g_w\|} g_w`, with
    :math:`g_w = \sum_k w_k g_k` and w on the simplex minimising :math:`\langle g_w, g_0
    \rangle + c \|g_0\| \|g_w\|`. Here d is also proportional to the min-norm point of
    the shifted gradients :math:`g_k + \mu g_0`, for the one μ with :math:`\|g_w\| = \mu
    c \|g_0\|`: so it is found by min-norm points, up to rounding.

    Args:
      c: radius of the ball, c ≥ 0. 0 gives the mean; c ≥ 1 never ascends an objective.

    Returns:
      The weighting. As in the paper's algorithm, without rescaling the result. Zero
      where :math:`g_w` is rounding error, at a Pareto stationary point.

    Raises:
      ValueError: c is negative or not finite.
      NotImplementedError: something is differentiated through its weights.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
      >>> weights, _ = mmp.weightings.cagrad(0.5).weights(gramian, ())
      >>> print(weights.round(3))
      [0.933 0.5  ]

    References:
      Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS
      2021, https://arxiv.org/abs/2110.14048, algorithm 1.
    """
    check_at_least("cagrad", "c", c, 0)

    def weights(gramian: jax.Array) -> jax.Array:
        return _weights(gramian, jnp.asarray(c, gramian.dtype))

    return stateless(without_derivative("cagrad", weights))


class _Bracket(NamedTuple):
    low: jax.Array
    at_low: jax.Array  # > 0
    high: jax.Array
    at_high: jax.Array  # <= 0
    best: jax.Array
    done: jax.Array  # bool
    steps: jax.Array  # int


def _weights(gramian: jax.Array, c: jax.Array) -> jax.Array:
    num, dtype = gramian.shape[0], gramian.dtype
    eps = np.finfo(dtype).eps
    longest = jnp.sqrt(jnp.max(jnp.diagonal(gramian)))
    gram = gramian / jnp.where(longest > 0, longest, 1.0) ** 2
    overlap = jnp.mean(gram, axis=1)  # ⟨g_k, g_0⟩
    average = jnp.maximum(jnp.mean(overlap), 0.0)  # |g_0|²
    radius = c * jnp.sqrt(average)

    def simplex(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
        """W for this μ, and how much longer g_w is than μ c |g_0|."""
        both = overlap[:, None] + overlap[None, :]
        w = min_norm(gram + shift * both + shift**2 * average).weights
        length = jnp.sqrt(jnp.maximum(w @ gram @ w, 0.0))
        return w, length - shift * radius

    def narrow(s: _Bracket) -> _Bracket:
        """Illinois: regula falsi that halves the value at a stuck end."""
        middle = (s.low * s.at_high - s.high * s.at_low) / (s.at_high - s.at_low)
        inside = (middle > s.low) & (middle < s.high)
        middle = jnp.where(inside, middle, (s.low + s.high) / 2)
        _, at = simplex(middle)
        left = at > 0
        done = jnp.abs(at) <= 2 * eps * jnp.maximum(middle * radius, eps)
        return _Bracket(
            jnp.where(left, middle, s.low),
            jnp.where(left, at, s.at_low / 2),
            jnp.where(left, s.high, middle),
            jnp.where(left, s.at_high / 2, at),
            middle,
            done | (s.high - s.low <= 2 * eps * s.high),
            s.steps + 1,
        )

    # |g_w| <= 1 in these units, so the root lies below this; without a ball, or
    # without an average, there is nothing to search.
    far = 1 / jnp.where(radius > 0, radius, 1.0)
    low, steps = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)
    ends = simplex(low)[1], simplex(far)[1]
    bracket = _Bracket(low, ends[0], far, ends[1], low, radius <= 0, steps)
    bracket = vary_like(bracket, gramian)
    bracket = lax.while_loop(lambda s: ~s.done & (s.steps < 60), narrow, bracket)
    w, _ = simplex(bracket.best)
    length = jnp.sqrt(jnp.maximum(w @ gram @ w, 0.0))
    share = jnp.where(radius > 0, radius / jnp.where(length > 0, length, 1.0), 0.0)
    stationary = (zero_where_stationary(w, gram) == 0).all() & (radius > 0)
    weights = jnp.where(stationary, 0.0, 1 / num + share * w)
    return jnp.where(jnp.isfinite(gramian).all(), weights, jnp.nan)
