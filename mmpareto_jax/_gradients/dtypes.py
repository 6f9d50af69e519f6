"""The dtype in which sums are made, in every mode of promotion."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


def wide(*values: Any) -> jnp.dtype:
    """float64 where one of these arrays or dtypes is, and else float32.

    ``jnp.promote_types`` says the same of floating dtypes, but not under
    ``jax_numpy_dtype_promotion="strict"``.
    """
    dtypes = [jnp.dtype(getattr(x, "dtype", x)) for x in values]
    double = jnp.dtype("float64")
    return double if double in dtypes else jnp.dtype("float32")
