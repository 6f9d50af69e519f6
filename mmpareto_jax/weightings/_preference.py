"""The preference vector that several rules take."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def preference_of(
    name: str,
    preference: Sequence[float] | jax.Array | None,
    gramian: jax.Array,
    *,
    default: float,
    argument: str = "preference",
) -> jax.Array:
    """The preference [K] in the Gramian's dtype; `default` for each if none is given.

    Raises:
      ValueError: it is not a vector of the Gramian's K.
    """
    num = gramian.shape[0]
    if preference is None:
        return jnp.full((num,), default, gramian.dtype)
    vector = jnp.asarray(preference, gramian.dtype)
    if vector.shape != (num,):
        raise ValueError(
            f"{name}: {argument} must have shape ({num},), one number for each of the "
            f"group's objectives, got {vector.shape}."
        )
    return vector
