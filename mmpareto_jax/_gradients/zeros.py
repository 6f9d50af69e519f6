"""What a backward pass gives where no cotangent is: zero, if it is linear.

A ``custom_vjp`` may add a constant (the auxiliary-loss trick of mixtures of experts).
In the jaxpr of all objectives together nothing says whose it is, so it must be known
whether there is one. What cannot be seen counts as one if it depends on no cotangent;
a primitive that is not known here is taken to be linear in its cotangents.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jax.extend import core as jex

from mmpareto_jax._gradients.constants import Known

# Zero where one of the operands is.
_PRODUCTS = frozenset(("mul", "dot_general", "conv_general_dilated", "and"))

# Zero where all operands from `start` to `stop` are, whatever the others.
_TERMS: dict[str, slice] = {
    **dict.fromkeys(
        (
            *("add", "add_any", "sub", "concatenate", "stack", "pad", "complex"),
            *("or", "xor", "ne", "gt", "lt", "sort", "atan2"),
        ),
        slice(None),
    ),
    **dict.fromkeys(
        (
            *("convert_element_type", "copy", "copy_p", "neg", "real", "imag", "conj"),
            *("reduce_precision", "abs", "sign", "sqrt", "sin", "tan", "tanh"),
            *("square", "asin", "atan", "sinh", "asinh", "expm1", "log1p", "cbrt"),
            *("name", "sharding_constraint", "layout_constraint", "reshard"),
            *("erf", "broadcast_in_dim", "reshape", "squeeze", "expand_dims"),
            *("transpose", "rev", "slice", "split", "unstack", "reduce_sum"),
            *("reduce_max", "reduce_min", "reduce_or", "cumsum", "cummax", "cummin"),
            *("stop_gradient", "div", "rem"),
            *("dynamic_slice", "gather"),
        ),
        slice(0, 1),
    ),
    "dynamic_update_slice": slice(0, 2),
    "scatter": slice(0, 3, 2),
    "scatter-add": slice(0, 3, 2),
    "select_n": slice(1, None),
    "triangular_solve": slice(1, 2),
}

# Zero at zero, if zero is within the bounds.
CLIPS = frozenset(("max", "min", "clamp"))

# Of one operand, and not zero at zero.
_NEVER = frozenset(
    (
        *("exp", "exp2", "cos", "cosh", "acos", "acosh", "log", "logistic", "rsqrt"),
        *("erfc", "lgamma", "digamma", "pow", "eq", "le", "ge", "not", "clz"),
        *("is_finite", "reduce_and", "bessel_i0e", "cumlogsumexp", "nextafter"),
    )
)


def zero_out(
    eqn: jex.JaxprEqn,
    zeros: Sequence[bool],
    reached: Sequence[bool],
    known: Sequence[Known],
) -> bool:
    """Whether all outputs of an equation are zero where all cotangents are.

    Args:
      eqn: the equation, without an inner jaxpr.
      zeros: per input, whether it is.
      reached: per input, whether it depends on a cotangent.
      known: per input its value, where that is a constant of the program.
    """
    name = eqn.primitive.name
    if name in _PRODUCTS:
        return any(zeros)
    if name in _TERMS:
        return all(zeros[_TERMS[name]])
    if name in _NEVER:
        return False
    if name in CLIPS:
        return _clipped(name, zeros, known)
    if name == "integer_pow":
        return zeros[0] and eqn.params["y"] > 0
    return any(reached) and all(
        x for x, depends in zip(zeros, reached, strict=True) if depends
    )


def _clipped(name: str, zeros: Sequence[bool], known: Sequence[Known]) -> bool:
    def sign(i: int, wanted: int) -> bool:
        if zeros[i]:
            return True
        value = known[i]()
        return value is not None and bool(np.all(wanted * value >= 0))

    if name == "clamp":
        return zeros[1] and sign(0, -1) and sign(2, 1)
    wanted = -1 if name == "max" else 1
    return any(zeros) and sign(0, wanted) and sign(1, wanted)
