"""The probability simplex, as rules walk on it."""

from __future__ import annotations

import jax
from optax import projections


def on_simplex(x: jax.Array) -> jax.Array:
    """The nearest point with non-negative entries that sum to 1, in the dtype of x."""
    # Optax promotes integers, and comes back in float64 wherever that is enabled.
    with jax.numpy_dtype_promotion("standard"):
        found: jax.Array = projections.projection_simplex(x)
    return found.astype(x.dtype)
