"""One equation of a backward pass for all rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from mmpareto_jax._gradients.binding import bind
from mmpareto_jax._gradients.lanes import Lanes, values_of


def batched(eqn: jex.JaxprEqn, ins: Sequence[Any], num: int) -> list[Any] | None:
    """The outputs [num, ...] of an equation; None if jax cannot batch it.

    Args:
      eqn: of any primitive.
      ins: arrays, and lanes of `num` rows that are stacked.
      num: of rows.
    """
    values, axes = [values_of(x) for x in ins], [_axis(x) for x in ins]
    for i in range(len(ins)):
        if eqn.primitive.name == "dot_general" and _is_better_repeated(eqn, axes, i):
            values[i] = jnp.broadcast_to(values[i][None], (num, *values[i].shape))
            axes[i] = 0
    each: Callable[..., Any]
    each = jax.vmap(lambda *xs: bind(eqn, xs), axes, axis_size=num)
    try:
        return list(each(*values))
    except Exception:
        # A depthwise convolution's gradient, for one, or a convolution over a mesh of
        # Explicit axes. Row by row it works, or says what is wrong.
        return None


def _axis(x: Any) -> int | None:
    return 0 if isinstance(x, Lanes) else None


def _is_better_repeated(eqn: jex.JaxprEqn, axes: Sequence[int | None], i: int) -> bool:
    """Whether a factor that all rows share is repeated for a product of their own.

    A single product has the rows among its free axes. Where what is summed over comes
    before these, as in the gradient of a weight, XLA writes the rows transposed before
    the product, and the product transposed after it: where the factor is no longer
    than that, it is copied instead.
    """
    if axes[i] is not None or axes[1 - i] is None:
        return False
    contracted, batch = eqn.params["dimension_numbers"]
    ends: tuple[Any, ...] = (eqn.invars[i], eqn.invars[1 - i], *eqn.outvars)
    factor, rows, out = (v.aval.shape for v in ends)
    summed = range(len(rows))[len(rows) - len(contracted[1 - i]) :]
    in_order = i == 1 and sorted(contracted[0]) == list(summed)
    known = all(isinstance(n, int) for n in (*factor, *rows, *out))
    if batch[0] or in_order or not known:
        return False
    copied, transposed = math.prod(factor), math.prod(rows) + math.prod(out)
    return bool(copied <= transposed)
