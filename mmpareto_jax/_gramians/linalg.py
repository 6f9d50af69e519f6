"""Small positive semi-definite matrices, accurate for rows of any scale."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mmpareto_jax._gradients.manual import vary_like
from mmpareto_jax._gramians.gramian import norms_of

_MAX_SWEEPS = 20


def eigen(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors of a Gramian, also of gradients of unequal norms.

    Jacobi's method: where a standard solver finds every eigenvalue up to eps times the
    largest one, which is nothing for the square of a gradient 1e4 times shorter than
    another, this finds each up to rounding of its own size.

    Args:
      matrix: [K, K], symmetric and positive semi-definite.

    Returns:
      Values [K]; vectors [K, K], a column each; and which values [K] are not rounding
      error: as many of the largest as the cosines' matrix has rank.

    References:
      Demmel & Veselić, Jacobi's method is more accurate than QR, SIAM Journal on Matrix
      Analysis, 1992.
    """
    # Products of two entries must not overflow.
    largest = jnp.max(jnp.diagonal(matrix))
    largest = jnp.where(largest > 0, largest, 1.0)
    matrix = matrix / largest
    norms = norms_of(matrix)
    unit = jnp.where(norms > 0, norms, 1.0)
    cosines, _ = _jacobi(matrix / unit[:, None] / unit[None, :])
    floor = len(norms) * np.finfo(matrix.dtype).eps * jnp.max(cosines)
    rank = jnp.sum((cosines > floor) & (cosines > 0))
    values, vectors = _jacobi(matrix)
    place = jnp.argsort(jnp.argsort(-values))
    return largest * values, vectors, (place < rank) & (values > 0)


@jax.custom_jvp
def psd_solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """The least-norm solution of a positive semi-definite system: matrix⁺ right."""
    return _pseudo_solve(eigen(matrix), right)


def _pseudo_solve(
    parts: tuple[jax.Array, jax.Array, jax.Array], right: jax.Array
) -> jax.Array:
    values, vectors, kept = parts
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1.0), 0.0)
    return _through(vectors, inverse, right)


def _through(vectors: jax.Array, factors: jax.Array, x: jax.Array) -> jax.Array:
    """The symmetric matrix of these eigenvectors and eigenvalues, times x."""
    parts = factors * jnp.sum(vectors * x[:, None], axis=0)
    return jnp.sum(vectors * parts[None, :], axis=1)


@psd_solve.defjvp
def _derivative(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """That of the pseudo-inverse, as long as the rank stays what it is.

    Golub & Pereyra, The differentiation of pseudo-inverses and nonlinear least squares
    problems whose variables separate, SIAM Journal on Numerical Analysis, 1973.
    """
    (matrix, right), (change, of_right) = primals, tangents
    parts = eigen(matrix)
    x = _pseudo_solve(parts, right)
    again = _pseudo_solve(parts, x)
    rest = jnp.where(parts[2], 0.0, 1.0).astype(x.dtype)  # of the null space
    outside = _through(parts[1], rest, right)
    change_x = _pseudo_solve(parts, of_right - change @ x)
    change_x += _pseudo_solve(parts, _pseudo_solve(parts, change @ outside))
    return x, change_x + _through(parts[1], rest, change @ again)


def _next_round(x: jax.Array, axis: int) -> jax.Array:
    """Everybody but the first moves on by one seat; those opposite are pairs.

    The table has two sides, the first and the second half; after K - 1 rounds every
    pair has met, and all are back.
    """
    half = x.shape[axis] // 2
    cuts = [0, 1, half - 1, half, half + 1, 2 * half]
    first, middle, corner, other, rest = (
        lax.slice_in_dim(x, start, end, axis=axis)
        for start, end in itertools.pairwise(cuts)
    )
    return jnp.concatenate([first, other, middle, rest, corner], axis)


def _turned(x: jax.Array, cos: jax.Array, sin: jax.Array, axis: int) -> jax.Array:
    """Rows (axis 0) or columns (1) of each pair, rotated by its angle."""
    one, two = jnp.split(x, 2, axis)
    cos, sin = (jnp.expand_dims(y, 1 - axis) for y in (cos, sin))
    return jnp.concatenate([cos * one + sin * two, cos * two - sin * one], axis)


def _jacobi(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cyclic Jacobi, all disjoint pairs of a round at once."""
    size, dtype = matrix.shape[0], matrix.dtype
    if size == 1:
        return matrix[0], jnp.ones_like(matrix)
    matrix = jnp.pad(matrix, (0, size % 2))  # one that stays alone rests
    num, half = matrix.shape[0], matrix.shape[0] // 2
    eps, index = np.finfo(dtype).eps, np.arange(num)
    opposite = np.abs(index[:, None] - index[None, :]) == half

    def rotate(
        carry: tuple[jax.Array, jax.Array], _: None
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        a, vectors = carry
        one, two = jnp.split(jnp.diagonal(a), 2)
        # Rounding makes the two sides differ; both of a pair must turn by one angle.
        off = 0.5 * (jnp.diagonal(a, half) + jnp.diagonal(a, -half))
        mean = jnp.sqrt(jnp.maximum(one * two, 0.0))
        turns = jnp.abs(off) > 0.5 * eps * mean
        # The smaller angle that makes the pair's off-diagonal entry zero.
        ratio = (two - one) / (2 * jnp.where(turns, off, 1.0))
        sign = jnp.where(ratio == 0, 1.0, jnp.sign(ratio))
        tangent = sign / (jnp.abs(ratio) + jnp.sqrt(1 + ratio**2))
        tangent = jnp.where(turns, tangent, 0.0)
        cos = 1 / jnp.sqrt(1 + tangent**2)
        sin = -tangent * cos
        a = _turned(_turned(a, cos, sin, 0), cos, sin, 1)
        # That entry, exactly: what rounding leaves there would come back.
        a = jnp.where(opposite & jnp.tile(turns, 2)[:, None], 0.0, a)
        vectors = _turned(vectors, cos, sin, 1)
        if num > 2:
            a = _next_round(_next_round(a, 0), 1)
            vectors = _next_round(vectors, 1)
        return (a, vectors), None

    def unfinished(s: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        a, _, sweeps = s
        root = jnp.sqrt(jnp.maximum(jnp.diagonal(a), 0.0))
        small = jnp.abs(a) <= eps * root[:, None] * root[None, :]
        return (sweeps < _MAX_SWEEPS) & ~jnp.all(small | jnp.eye(num, dtype=bool))

    def sweep(
        s: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        (a, vectors), _ = lax.scan(rotate, s[:2], length=num - 1)
        return a, vectors, s[2] + 1

    start = (matrix, jnp.eye(num, dtype=dtype), jnp.zeros((), jnp.int32))
    start = vary_like(start, matrix)
    a, vectors, _ = lax.while_loop(unfinished, sweep, start)
    return jnp.diagonal(a)[:size], vectors[:size, :size]
