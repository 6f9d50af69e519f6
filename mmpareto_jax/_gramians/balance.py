"""The balance equation of bargaining: G x = x^(-1/α)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmpareto_jax._gradients.manual import vary_like
from mmpareto_jax._gramians.gramian import norms_of
from mmpareto_jax._gramians.min_norm import SolverReport

_MAX_STEPS, _MAX_HALVINGS = 100, 30


class _Newton(NamedTuple):
    y: jax.Array  # [K]
    error: jax.Array  # the largest relative residual
    done: jax.Array  # bool
    steps: jax.Array  # int


def balance(
    gramian: jax.Array, alpha: float | jax.Array, rows: jax.Array
) -> tuple[jax.Array, SolverReport]:
    r"""The x > 0 with :math:`(G x)_k = x_k^{-1/\alpha}` for all k.

    It is the minimiser of :math:`\tfrac12 x^\top G x + \sum_k \phi(x_k)`, with
    :math:`\phi'(x) = -x^{-1/\alpha}`, which is strictly convex: found by Newton's
    method with backtracking. Unknowns are scaled by the solution for orthogonal
    gradients, so the scale of G and of single gradients does not matter.

    Args:
      gramian: G [K, K] with a positive diagonal, of gradients divided by `rows`.
      alpha: α > 0.
      rows: [K], positive; the equation is that of the gradients themselves.

    Returns:
      x [K] times `rows`, and the largest relative residual with the Newton steps.
      Where zero lies in the hull of the gradients there is no solution, and x grows
      until the last step, its direction towards zero.
    """
    p = jnp.asarray(1 / alpha, gramian.dtype)
    norms = norms_of(gramian)
    cosines = gramian / norms[:, None] / norms[None, :]
    # x = z y, z = |g| ** (-2 / (1 + p)) the solution for orthogonal gradients, and
    # h = |g| z. In x times rows, z is times rows too.
    z = norms ** (-2 / (1 + p)) * rows ** ((p - 1) / (1 + p))
    h: jax.Array = norms ** ((p - 1) / (1 + p)) * rows ** ((p - 1) / (1 + p))
    y, error, steps = _root(cosines, h / jnp.max(h), p)
    return z * y, SolverReport(error, steps)


def _slopes(cosines: jax.Array, y: jax.Array, p: jax.Array) -> jax.Array:
    """The derivative by h y of C (h y) - h y^(-p).

    Its diagonal is not less than rounding error, in which a large y would leave it: of
    two equal gradients it would be singular.
    """
    least = 64 * len(y) * np.finfo(y.dtype).eps
    return cosines + jnp.diag(jnp.maximum(p * y ** (-p - 1), least))


@jax.custom_jvp
def _root(
    cosines: jax.Array, h: jax.Array, p: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The y > 0 with C (h y) = h y^(-p), its error, and the Newton steps."""
    num, eps = cosines.shape[0], np.finfo(cosines.dtype).eps

    def objective(y: jax.Array) -> jax.Array:
        # ∫ -y^(-p), which is -log y for p = 1; the integral from 1 has that limit.
        barrier = jnp.where(
            jnp.abs(p - 1) < 1e-6,
            -jnp.log(y),
            -jnp.expm1((1 - p) * jnp.log(y)) / jnp.where(p == 1, 1.0, 1 - p),
        )
        pull = cosines @ (h * y)
        return jnp.sum(0.5 * (h * y) * pull + h**2 * barrier)

    def residual(y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Its equation divided by h, and the largest of it relative to its terms."""
        pull, push = cosines @ (h * y), h * y**-p
        size = jnp.abs(cosines) @ (h * y) + push
        return pull - push, jnp.max(jnp.abs(pull - push) / size)

    def newton(s: _Newton) -> _Newton:
        y = s.y
        gap, _ = residual(y)
        step = -jnp.linalg.solve(_slopes(cosines, y, p), gap) / h
        slope = jnp.sum(h * gap * step)
        # Stay positive: at most 99 % of the way to the boundary.
        room = jnp.min(jnp.where(step < 0, -y / jnp.where(step < 0, step, 1.0), 4.0))
        first, here = jnp.minimum(1.0, 0.99 * room), objective(y)

        def too_long(s: tuple[jax.Array, jax.Array]) -> jax.Array:
            length, halvings = s
            enough = objective(y + length * step) <= here + 1e-4 * length * slope
            # Close to the minimum the decrease drowns in rounding.
            drowned = -slope <= 100 * eps * jnp.abs(here)
            return jnp.logical_not(enough | drowned) & (halvings < _MAX_HALVINGS)

        def halve(s: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return s[0] / 2, s[1] + 1

        begin = vary_like((first, jnp.zeros((), jnp.int32)), first)
        length, _ = lax.while_loop(too_long, halve, begin)
        new = y + length * step
        error = residual(new)[1]
        # Rounding decides when no step makes the residual smaller any more.
        stuck = (error <= 100 * num * eps) & (error >= s.error)
        done = (error <= 2 * eps) | stuck | ~jnp.isfinite(error)
        new = jnp.where(stuck | ~jnp.isfinite(new).all(), y, new)
        return _Newton(new, jnp.minimum(error, s.error), done, s.steps + 1)

    start = jnp.ones_like(h)
    false, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    state = _Newton(start, residual(start)[1], false, zero)
    state = vary_like(state, cosines, h, p)
    state = lax.while_loop(lambda s: ~s.done & (s.steps < _MAX_STEPS), newton, state)
    return state.y, state.error, state.steps


@_root.defjvp  # type: ignore[arg-type]
def _derivative(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, ...], tuple[Any, ...]]:
    """By the implicit function theorem, with the Jacobian of Newton's method."""
    cosines, h, p = primals
    of_cosines, of_h, of_p = tangents
    y, error, steps = _root(*primals)
    power = y**-p
    right = of_h * power - h * power * jnp.log(y) * of_p
    right -= of_cosines @ (h * y) + cosines @ (of_h * y)
    of_y = jnp.linalg.solve(_slopes(cosines, y, p), right) / h
    none = np.zeros((), jax.dtypes.float0)
    return (y, error, steps), (of_y, jnp.zeros_like(error), none)
