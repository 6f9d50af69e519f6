"""Powers of two: what numbers are divided by, and no digit of theirs changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def power_below(x: jax.Array) -> jax.Array:
    """The power of two below each positive number; 1 for zero, NaN and infinity.

    Dividing by it is exact. Neither it nor its inverse is denormal, which processors
    flush to zero: XLA divides a vector by a scalar with the inverse.
    """
    usable = (x > 0) & jnp.isfinite(x)
    most = -np.finfo(x.dtype).minexp
    power = jnp.clip(jnp.frexp(jnp.where(usable, x, 1))[1] - 1, -most, most)
    return jnp.where(usable, jnp.ldexp(jnp.ones((), x.dtype), power), 1)


def shifted(x: jax.Array, exponents: jax.Array) -> jax.Array:
    """Numbers times powers of two, which may be out of range where the results are not.

    In thirds: the products of two scales and a number do not fit two factors.
    """
    third = exponents // 3
    one = jnp.ones_like(x)
    for part in (third, third, exponents - 2 * third):
        x = x * jnp.ldexp(one, part)
    return x


def exponents_of(rows: jax.Array) -> jax.Array:
    """Of scales, which are powers of two."""
    return jnp.frexp(rows)[1] - 1
