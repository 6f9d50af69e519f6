"""Batches as the devices have them: numbers, none of which is changed silently."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np


def numbers(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch in the dtypes of JAX; floats may be rounded, integers may not.

    Raises:
      ValueError: an array of something else, or integers that do not fit.
    """
    return {name: _number(name, np.asarray(x)) for name, x in batch.items()}


def _number(name: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind in "OSUMm":  # objects, words, dates
        raise ValueError(f"data: {name}: expected numbers, got {x.dtype}")
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if dtype == x.dtype:
        return x
    found: np.ndarray = x.astype(dtype)
    if np.issubdtype(x.dtype, np.integer) and not np.array_equal(found, x):
        raise ValueError(
            f"data: {name}: expected integers that {dtype} has, got {x.min()} to "
            f"{x.max()}; give floats, or turn on jax_enable_x64"
        )
    return found
