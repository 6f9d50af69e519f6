"""Stacks of rows that remember them while a program is traced.

Of a stack that is only read row by row, inside one program, XLA writes nothing: it
takes each row where it is. An operand of a conditional is always written. So control
flow is given the rows themselves, where it can be known that they exist: where the
gradients go into ``tx.update`` as they are, in the trace that made them. Through a
``jax.jit`` around the gradient function, or an operation on the stack, the rows are
forgotten; the numbers are the same, and the stacks are written.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Stack = jax.Array | tuple[jax.Array, ...]
"""[K, ...], or its K rows."""

# By identity: tracers have no hash. A row is as much of a trace as its stack is, and
# is forgotten with it.
_ROWS: dict[int, tuple[weakref.ref[Any], tuple[jax.Array, ...]]] = {}


def stack(rows: Sequence[jax.Array]) -> jax.Array:
    """``jnp.stack``, for ``apart``."""
    whole = jnp.stack(rows)
    # Outside of a trace there is nothing to save, and the rows are memory.
    if isinstance(whole, jax.core.Tracer):
        key = id(whole)
        forget = weakref.ref(whole, lambda _: _ROWS.pop(key, None))
        _ROWS[key] = forget, tuple(rows)
    return whole


def apart(whole: jax.Array) -> Stack:
    """The rows that `whole` was made of; where nobody knows, itself."""
    known = _ROWS.get(id(whole))
    return known[1] if known is not None and known[0]() is whole else whole
