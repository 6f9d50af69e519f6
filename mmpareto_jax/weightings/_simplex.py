"""The probability simplex, as rules walk on it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from optax import projections


def on_simplex(x: jax.Array) -> jax.Array:
    """The nearest point with non-negative entries that sum to 1, in the dtype of x."""
    # The same for all changes nothing; of large numbers a sum of 1 would be lost.
    x = x - jnp.max(x)
    # Optax promotes integers, and comes back in float64 wherever that is enabled.
    with jax.numpy_dtype_promotion("standard"):
        found: jax.Array = projections.projection_simplex(x)
    return found.astype(x.dtype)


def slope_of(
    products: jax.Array, scale: jax.Array | float, weights: jax.Array
) -> jax.Array:
    """scale² times the products [K, K] with the weights [K].

    Its limit where the square of the scale is out of range: it leads to a corner.
    """
    most = np.finfo(weights.dtype).max / (8 * len(weights))
    slope: jax.Array = jnp.clip(scale * (scale * (products @ weights)), -most, most)
    return slope
