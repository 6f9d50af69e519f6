"""Which equations a weighted sum of cotangents may pass as it is: the linear ones.

A ``custom_vjp`` may do anything with its cotangent (clip it, say), and what is not
known here to be linear is taken not to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core as jex

# Linear in one operand, whatever the others are, which may depend on no cotangent.
_PRODUCTS = frozenset(
    ("mul", "dot_general", "conv_general_dilated", "ragged_dot", "ragged_dot_general")
)

# Linear in the operands from `start` to `stop` taken together.
_SUMS: dict[str, slice] = {
    **dict.fromkeys(
        (
            *("add", "add_any", "sub", "concatenate", "stack", "pad", "complex"),
            *("optimization_barrier", "pvary", "pcast", "pbroadcast", "psum", "psum2"),
            *("psum_invariant", "ppermute", "all_gather", "all_gather_invariant"),
            *("all_to_all", "reduce_scatter", "copy", "copy_p", "device_put"),
        ),
        slice(None),
    ),
    **dict.fromkeys(
        (
            *("neg", "real", "imag", "conj", "name", "div"),
            *("sharding_constraint", "layout_constraint", "reshard", "mesh_cast"),
            *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose"),
            *("rev", "slice", "split", "unstack", "tile", "reduce_sum", "cumsum"),
            *("reduce_window_sum", "fft", "dynamic_slice", "gather"),
            *("select_and_scatter_add", "select_and_gather_add"),
        ),
        slice(0, 1),
    ),
    "dynamic_update_slice": slice(0, 2),
    "scatter": slice(0, 3, 2),
    "scatter-add": slice(0, 3, 2),
    "scatter-sub": slice(0, 3, 2),
    "select_n": slice(1, None),
    "triangular_solve": slice(1, 2),
}


def is_linear(eqn: jex.JaxprEqn, depends: Sequence[bool]) -> bool:
    """Whether an equation is linear in those operands that depend on cotangents.

    Constants that are added to them are not looked at: see ``Fact.zero``.

    Args:
      eqn: the equation, without an inner jaxpr.
      depends: per operand, whether it does.
    """
    name = eqn.primitive.name
    if name in _PRODUCTS:
        return sum(depends) == 1
    if name == "convert_element_type":
        ends: tuple[Any, ...] = (*eqn.invars, *eqn.outvars)
        return all(_is_number(v.aval.dtype) for v in ends)
    if name == "gather" and eqn.params["fill_value"]:
        return False  # what is out of bounds is a constant
    if name == "sort":
        return not any(depends[: eqn.params["num_keys"]])
    if name not in _SUMS:
        return False
    inside = range(len(depends))[_SUMS[name]]
    return all(i in inside for i, x in enumerate(depends) if x)


def _is_number(dtype: Any) -> bool:
    """Real or complex, of so many digits that a cast to it is no quantisation."""
    return bool(jnp.issubdtype(dtype, jnp.inexact)) and dtype.itemsize > 1
