"""What a function of several losses returns: read, and refused where it is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.dtypes import wide


def check_function(function: Any, caller: str, argument: str) -> None:
    """Raises unless it can be called."""
    if not callable(function):
        raise TypeError(
            f"{caller}: `{argument}` must be a function, got {type(function).__name__}."
        )


def named_scalars(losses: Any) -> tuple[tuple[str, ...], list[jax.Array]]:
    """The names and the values of the losses, in the function's own order.

    Raises:
      TypeError: a loss is not real and floating.
      ValueError: no loss, one that is not a scalar, two of one name, or neither a
        mapping nor [K].
    """
    names, values = outputs(losses)
    return names, values if values[0].ndim == 0 else list(values[0])


def outputs(losses: Any) -> tuple[tuple[str, ...], list[jax.Array]]:
    """The names of the losses, and what is pulled back: each, or one array [K] of them.

    Of many losses in one array the program is then that of one loss.

    Raises:
      TypeError, ValueError: as ``named_scalars``.
    """
    if isinstance(losses, Mapping):
        found = _by_text("objective function", "losses", losses)
        names = tuple(found)
        values = [
            as_array("objective function", f"loss {name!r}", x)
            for name, x in found.items()
        ]
    elif isinstance(losses, jax.Array) and losses.ndim == 1:
        names = tuple(str(k) for k in range(losses.shape[0]))
        values = [losses]
    else:
        got = getattr(losses, "shape", None)
        raise ValueError(
            "objective function: it must return a mapping of scalar "
            "losses or an array [K], got "
            + (
                f"an array of shape {got}."
                if got is not None
                else f"{type(losses).__name__}."
            )
        )
    if not names:
        raise ValueError("objective function: it returned no loss.")
    for name, x in zip(names, values, strict=False):
        if x.shape and isinstance(losses, Mapping):
            raise ValueError(
                f"objective function: loss {name!r} must be a scalar, got "
                f"shape {x.shape}."
            )
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"objective function: loss {name!r} must be real and floating, "
                f"got {x.dtype}."
            )
    return names, values


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


def stacked(values: Sequence[Any]) -> jax.Array:
    """Scalars as an array [K], float32, or float64 where one of them is."""
    arrays = [jnp.asarray(x) for x in values]
    dtype = wide(*arrays)
    return jnp.stack([x.astype(dtype) for x in arrays])


def by_name(
    caller: str, argument: str, values: Any, names: tuple[str, ...]
) -> jax.Array:
    """Further numbers, one for each loss, in the order of the losses: [K].

    Args:
      caller: the public function's name, for the message.
      argument: the name of what the values are.
      values: a mapping name -> scalar, in any order: ``jax.jit`` hands dictionaries on
        sorted. Or an array [K], in the order of the losses.
      names: the names of the losses, in their order.

    Raises:
      ValueError: a name is missing or unknown, or there is not a scalar for each.
    """
    if isinstance(values, Mapping):
        found = _by_text(caller, argument, values)
        missing = [repr(name) for name in names if name not in found]
        unknown = [repr(name) for name in found if name not in names]
        if missing or unknown:
            what = f"no {missing[0]}" if missing else f"an unknown {unknown[0]}"
            raise ValueError(
                f"{caller}: {argument} has {what}: expected a scalar for each of the "
                f"losses {names}, got {tuple(found)}."
            )
        values = [found[name] for name in names]
    else:
        values = as_array(caller, argument, values)
        if values.shape != (len(names),):
            raise ValueError(
                f"{caller}: {argument} must be a scalar for each of the losses "
                f"{names}, got shape {values.shape}."
            )
    scalars = []
    for name, x in zip(names, values, strict=True):
        scalars.append(as_array(caller, f"{name!r} of {argument}", x))
        if jnp.iscomplexobj(scalars[-1]):
            raise TypeError(f"{caller}: {name!r} of {argument} must be real, got {x}.")
        if scalars[-1].shape:
            raise ValueError(
                f"{caller}: {name!r} of {argument} must be a scalar, got shape "
                f"{scalars[-1].shape}."
            )
    return stacked(scalars)


def as_array(caller: str, argument: str, value: Any) -> jax.Array:
    """What should be numbers, as an array.

    Raises:
      TypeError: it is something else; says what.
    """
    try:
        if value is not None:
            return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, jax.errors.JAXTypeError):
            raise
    raise TypeError(f"{caller}: {argument} must be numbers, got {value!r:.60}.")


def _by_text(caller: str, argument: str, values: Mapping[Any, Any]) -> dict[str, Any]:
    """The values under the text of their keys, of which none may be lost."""
    found = {str(key): x for key, x in values.items()}
    if len(found) < len(values):
        raise ValueError(
            f"{caller}: the names of the {argument} must differ as text, got "
            f"{list(values)}."
        )
    return found
