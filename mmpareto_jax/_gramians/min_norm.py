"""The point of least norm in the convex hull of K gradients, from their Gramian."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.losses import as_array
from mmpareto_jax._gramians.active_set import nonnegative_qp
from mmpareto_jax._gramians.exactly import exactly
from mmpareto_jax._gramians.gramian import in_one_scale, norms_of


class SolverReport(NamedTuple):
    """The evidence that weights are right; :func:`diagnostics` shows it.

    Attributes:
      gap: scalar, the relative duality gap (wᵀGw - minᵢ (Gw)ᵢ) / tr G: no other point
        of the hull is shorter, in squared norm, by more than twice this times tr G.
      iterations: scalar int32, the linear systems solved; 0 for a closed form.
    """

    gap: jax.Array
    iterations: jax.Array

    @classmethod
    def zeros(cls) -> SolverReport:
        """Before the first solve, in the default floating dtype."""
        return cls(jnp.zeros(()), jnp.zeros((), jnp.int32))


class MinNorm(NamedTuple):
    """A min-norm point.

    Attributes:
      weights: [K] on the simplex.
      parts: [K], the weights of the gradients divided by ``rows``, times
        ``shortest``: numbers near 1 where weights and rows are too far apart to be
        held. The point is ``shortest * sum_k parts[k] * (g_k / rows[k])``.
      shortest: scalar, the smallest of the rows' scales.
      report: how good they are.
    """

    weights: jax.Array
    parts: jax.Array
    shortest: jax.Array
    report: SolverReport


def min_norm_weights(
    gramian: jax.Array, *, among: jax.Array | None = None
) -> jax.Array:
    r"""Weights of the min-norm point of the convex hull of K gradients.

    .. math:: \arg\min_{w \ge 0,\ \sum_k w_k = 1} \Big\| \sum_k w_k g_k \Big\|^2
        = \arg\min_w\ w^\top G w

    The direction :math:`\sum_k w_k g_k` has the same, largest common inner product
    with every gradient that has weight. K = 2 has a closed form. For K > 2 block
    pivoting solves the equivalent non-negative least squares problem on the correlation
    matrix, exactly up to rounding; it works inside ``jit``, ``vmap`` and ``scan``.

    Args:
      gramian: array [K, K] of inner products, float32 or float64.
      among: bool array [K]; the others are left out and get no weight. By default
        all, and at least one must be.

    Returns:
      Weights [K], non-negative, of sum 1, in the Gramian's dtype. A gradient that is
      zero is itself the min-norm point. Where the Gramian is not finite they are NaN.

    Raises:
      TypeError: not real numbers.
      ValueError: not a square matrix; or `among` is not bool [K].

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> jacobian = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
      >>> print(mmp.min_norm_weights(jacobian @ jacobian.T))
      [0.6 0.4]

    References:
      Désidéri, Multiple-gradient descent algorithm (MGDA) for multiobjective
      optimization, 2012. Portugal, Júdice & Vicente, A comparison of block pivoting and
      interior-point algorithms for linear least squares problems with nonnegative
      variables, Mathematics of Computation, 1994.
    """
    matrix = as_array("min_norm_weights", "gramian", gramian)
    if jnp.iscomplexobj(matrix):
        raise TypeError(f"min_norm_weights: gramian must be real, got {matrix.dtype}.")
    if among is not None:
        among = as_array("min_norm_weights", "among", among)
        if among.shape != matrix.shape[:1] or among.dtype != bool:
            raise ValueError(
                f"min_norm_weights: among must be bool {list(matrix.shape[:1])}, got "
                f"{among.dtype} {list(among.shape)}."
            )
    return exactly(min_norm)(matrix, among=among).weights


def min_norm(
    gramian: jax.Array,
    *,
    among: jax.Array | None = None,
    rows: jax.Array | None = None,
) -> MinNorm:
    """:func:`min_norm_weights`, with the evidence that they are right.

    Args:
      gramian: [K, K], of gradients each divided by its ``rows[k]``.
      among: bool [K]; who takes part.
      rows: [K], positive; by default 1.
    """
    gramian = jnp.asarray(gramian)
    if gramian.ndim != 2 or gramian.shape[0] != gramian.shape[1] or not gramian.size:
        raise ValueError(
            f"min_norm_weights: expected a Gramian [K, K], got shape {gramian.shape}."
        )
    gramian = gramian.astype(wide(gramian))
    num = gramian.shape[0]
    among = jnp.ones((num,), bool) if among is None else among
    rows = jnp.ones_like(gramian[0]) if rows is None else rows.astype(gramian.dtype)
    shortest = jnp.min(jnp.where(among, rows, jnp.inf))
    inverse = jnp.where(among, shortest / rows, 0.0)  # weights = parts * inverse
    iterations = jnp.zeros((), jnp.int32)
    if num == 1:
        parts = jnp.ones((1,), gramian.dtype)
    elif num == 2:
        parts = jnp.where(
            among.all(), _two(gramian, rows, inverse), among.astype(gramian.dtype)
        )
    else:
        parts, iterations = _active_set(gramian, among, rows / shortest)
    parts = jnp.where(jnp.isfinite(gramian).all(), parts, jnp.nan)
    weights = parts * inverse
    common = in_one_scale(gramian, jnp.where(among, rows, 0.0))
    inner = common @ weights
    excess = weights @ inner - jnp.min(jnp.where(among, inner, jnp.inf))
    trace = jnp.sum(jnp.where(among, jnp.diagonal(common), 0.0))
    gap = jnp.maximum(excess, 0.0) / jnp.where(trace == 0, 1.0, trace)
    return MinNorm(weights, parts, shortest, SolverReport(gap, iterations))


def _two(gramian: jax.Array, rows: jax.Array, inverse: jax.Array) -> jax.Array:
    (a, ab), (_, b) = gramian
    r, s = rows / jnp.max(rows)
    # The two parts of |g_1 - g_2|², which is zero when both gradients agree. Where one
    # is negative the other gradient is itself the point; clipping before the division
    # keeps that also where rounding makes the total of two nearly equal ones negative.
    # Each is divided by its gradient's scale.
    first, second = jnp.maximum(s * b - r * ab, 0.0), jnp.maximum(r * a - s * ab, 0.0)
    total = first * inverse[0] + second * inverse[1]
    divisor = jnp.where(total > 0, total, 1.0)
    # Two scalar divisions: XLA turns the division of a vector by a scalar into a
    # product with the reciprocal, which costs the last digit.
    parts = jnp.stack([first / divisor, second / divisor])
    half = 0.5 / jnp.where(inverse > 0, inverse, 1.0)
    return jnp.where(total > 0, parts, half)


def _active_set(
    gramian: jax.Array, among: jax.Array, rows: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""K > 2: minimise :math:`x^\top C x + (z^\top x - 1)^2` over x ≥ 0.

    C is the correlation matrix, :math:`z_k = 1/|g_k|`, and w is x ∘ z normalised: with
    w = t·v on a ray, the minimum over t is a monotone function of the norm of v. The
    second term keeps the systems regular where the gradients are dependent but no
    two of their hull's corners are, so zero may lie in the hull.
    """
    norms = norms_of(gramian)
    zero = norms == 0
    unit = jnp.where(zero, 1.0, norms)
    least = jnp.min(jnp.where(among, unit * rows, jnp.inf))
    z = least / (unit * rows)
    matrix = gramian / unit[:, None] / unit[None, :] + z[:, None] * z[None, :]
    x, iterations = nonnegative_qp(matrix, z, among=among)
    parts = x * (least / unit) / jnp.sum(x * z)
    zero &= among
    # Not a product: the scale of a row may be beyond the range of the shortest's.
    first_zero = jnp.where(jnp.arange(len(z)) == jnp.argmax(zero), rows, 0.0)
    return jnp.where(zero.any(), first_zero, parts), iterations
