"""The probability simplex, as rules walk on it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from optax import projections


def on_simplex(x: jax.Array) -> jax.Array:
    """The nearest point with non-negative entries that sum to 1, in the dtype of x."""
    # The same for all changes nothing; of large numbers a sum of 1 would be lost.
    x = x - jnp.max(x)
    # Optax promotes integers, and comes back in float64 wherever that is enabled.
    with jax.numpy_dtype_promotion("standard"):
        found: jax.Array = projections.projection_simplex(x)
    return found.astype(x.dtype)
