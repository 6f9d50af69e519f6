"""What a function of several losses returns: read, and refused where it is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def named_scalars(losses: Any) -> tuple[tuple[str, ...], list[jax.Array]]:
    """The names and the values of the losses, in the function's own order.

    Raises:
      TypeError: a loss is not real and floating.
      ValueError: no loss, one that is not a scalar, or neither a mapping nor [K].
    """
    if isinstance(losses, Mapping):
        named = {str(name): jnp.asarray(x) for name, x in losses.items()}
    elif isinstance(losses, jax.Array) and losses.ndim == 1:
        named = {str(k): losses[k] for k in range(losses.shape[0])}
    else:
        got = getattr(losses, "shape", None)
        raise ValueError(
            "objective function: it must return a mapping of scalar "
            "losses or an array [K], got "
            + (f"an array of shape {got}." if got is not None else f"{type(losses)}.")
        )
    if not named:
        raise ValueError("objective function: it returned no loss.")
    for name, x in named.items():
        if x.shape:
            raise ValueError(
                f"objective function: loss {name!r} must be a scalar, got "
                f"shape {x.shape}."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"objective function: loss {name!r} must be real and floating, "
                f"got {x.dtype}."
            )
    return tuple(named), list(named.values())


def split_aux(out: Any) -> tuple[Any, Any]:
    """The pair that a function with aux returns.

    Raises:
      TypeError: it is none.
    """
    if not (isinstance(out, tuple) and len(out) == 2):
        raise TypeError(
            "objective function: with has_aux=True it must return a "
            f"pair (losses, aux), got {type(out).__name__}."
        )
    return out
