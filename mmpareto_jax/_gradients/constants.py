"""Constants of a program: small values that its equations compute from literals.

``losses.at[k].set(x)`` and ``jnp.arange(3) == k`` are a few integer equations of
literals. They are folded only where somebody asks, and then with NumPy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core as jex

Array: TypeAlias = np.ndarray[Any, Any]
Known: TypeAlias = Callable[[], "Array | None"]


def unknown() -> None:
    """The value of what is not a constant."""


def constant(x: Any) -> Known:
    """A literal, or an array of NumPy: what the author of the program has written.

    An array of JAX is data, or was computed: its values may be others the next time,
    while the groups that are found must be the same.
    """
    if isinstance(x, bool | int | float | np.ndarray | np.generic):
        return lambda: np.asarray(x)
    return unknown


def fold(eqn: jex.JaxprEqn, ins: Sequence[Known]) -> list[Known]:
    """The values of an equation's outputs, for the few primitives that indices take."""
    rule = _RULES.get(eqn.primitive.name)
    shape = getattr(eqn.outvars[0].aval, "shape", ())
    if (
        rule is None
        or (eqn.invars and all(x is unknown for x in ins))
        or not all(isinstance(n, int) for n in shape)
    ):
        return [unknown] * len(eqn.outvars)

    @functools.cache
    def value() -> Array | None:
        args = [x() for x in ins]
        if any(x is None for x in args):
            return None
        out: Any = eqn.outvars[0].aval
        try:
            return np.asarray(rule(eqn.params, *args)).astype(out.dtype)
        except (TypeError, ValueError):  # a dtype, or a number of cases, beyond NumPy
            return None

    return [value]


def _iota(params: Any) -> Array:
    shape, dim = params["shape"], params["dimension"]
    inner = [shape[dim] if i == dim else 1 for i in range(len(shape))]
    return np.broadcast_to(np.arange(shape[dim]).reshape(inner), shape)


def _broadcast(params: Any, x: Array) -> Array:
    inner = [1] * len(params["shape"])
    for dim, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        inner[dim] = size
    return np.broadcast_to(x.reshape(inner), params["shape"])


def _slice(params: Any, x: Array) -> Array:
    strides = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    cut: Array = x[tuple(slice(*b) for b in bounds)]
    return cut


def _select(_: Any, which: Array, *cases: Array) -> Array:
    shape = cases[0].shape
    return np.choose(np.broadcast_to(which, shape).astype(int), cases)


def _plain(rule: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, *args: rule(*args)


_PLAIN: dict[str, Callable[..., Any]] = {
    "convert_element_type": lambda x: x,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "stop_gradient": lambda x: x,
    "neg": np.negative,
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}

_RULES: dict[str, Callable[..., Any]] = {
    "iota": _iota,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, x: x.reshape(params["new_sizes"]),
    "squeeze": lambda params, x: x.squeeze(tuple(params["dimensions"])),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "slice": _slice,
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "stack": lambda params, *xs: np.stack(xs, params["axis"]),
    "select_n": _select,
    **{name: _plain(rule) for name, rule in _PLAIN.items()},
}
