"""Small positive semi-definite matrices, accurate for rows of any scale."""

from __future__ import annotations

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


def _rounds(num: int) -> np.ndarray:
    """[rounds, K]: in each round everybody's mate; every pair meets once (or rests)."""
    seats = num + num % 2
    circle, found = list(range(seats)), []
    for _ in range(seats - 1):
        mate = np.arange(num)
        for a, b in zip(
            circle[: seats // 2], circle[: seats // 2 - 1 : -1], strict=True
        ):
            if a < num and b < num:
                mate[a], mate[b] = b, a
        found.append(mate)
        circle = [circle[0], circle[-1], *circle[1:-1]]
    return np.array(found).reshape(-1, num)


def _jacobi(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cyclic Jacobi, all disjoint pairs of a round at once."""
    num, dtype = matrix.shape[0], matrix.dtype
    if num == 1:
        return matrix[0], jnp.ones_like(matrix)
    eps, order = np.finfo(dtype).eps, np.arange(num)

    def rotate(
        carry: tuple[jax.Array, jax.Array], mate: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        a, vectors = carry
        diagonal, off = jnp.diagonal(a), a[order, mate]
        # Rounding makes the two sides differ; both of a pair must turn by one angle.
        off = 0.5 * (off + off[mate])
        size = jnp.sqrt(jnp.maximum(diagonal * diagonal[mate], 0.0))
        turns = (mate != order) & (jnp.abs(off) > 0.5 * eps * size)
        # The smaller angle that makes the pair's off-diagonal entry zero. Both of a
        # pair compute it, with opposite signs.
        half = (diagonal[mate] - diagonal) / (2 * jnp.where(turns, off, 1.0))
        sign = jnp.where(half == 0, jnp.where(order < mate, 1.0, -1.0), jnp.sign(half))
        tangent = sign / (jnp.abs(half) + jnp.sqrt(1 + half**2))
        tangent = jnp.where(turns, tangent, 0.0)
        cos = 1 / jnp.sqrt(1 + tangent**2)
        sin = -tangent * cos
        a = cos[:, None] * a + sin[:, None] * a[mate]
        a = cos[None, :] * a + sin[None, :] * a[:, mate]
        # That entry, exactly: what rounding leaves there would come back.
        a = a.at[order, mate].set(jnp.where(turns, 0.0, a[order, mate]))
        vectors = cos[None, :] * vectors + sin[None, :] * vectors[:, mate]
        return (a, vectors), None

    def unfinished(s: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        a, _, sweeps = s
        size = jnp.sqrt(jnp.maximum(jnp.diagonal(a), 0.0))
        small = jnp.abs(a) <= eps * size[:, None] * size[None, :]
        return (sweeps < _MAX_SWEEPS) & ~jnp.all(small | jnp.eye(num, dtype=bool))

    def sweep(
        s: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        (a, vectors), _ = lax.scan(rotate, s[:2], jnp.asarray(_rounds(num)))
        return a, vectors, s[2] + 1

    start = (matrix, jnp.eye(num, dtype=dtype), jnp.zeros((), jnp.int32))
    start = vary_like(start, matrix)
    a, vectors, _ = lax.while_loop(unfinished, sweep, start)
    return jnp.diagonal(a), vectors
