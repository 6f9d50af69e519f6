"""Equations of a jaxpr, evaluated again where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core as jex


def barriers(values: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    """An optimization barrier for the wanted values.

    Inside ``shard_map`` one barrier would make all of them vary over every mesh axis
    that any of them varies over, and a replicated parameter's gradient must not: so
    there is one barrier for each kind.
    """
    kinds: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        leaves = jax.tree.leaves(value)
        if wanted[i] and leaves:
            kinds.setdefault(varying(leaves[0]), []).append(i)
    out = list(values)
    for members in kinds.values():
        passed = jax.lax.optimization_barrier([values[i] for i in members])
        for i, value in zip(members, passed, strict=True):
            out[i] = value
    return out


def varying(x: Any) -> Any:
    """The mesh axes that a value inside ``shard_map`` varies over, hashable."""
    kind = jax.typeof(x)
    # jax < 0.10.2 calls it `vma`.
    return getattr(kind, "manual_axis_type", None) or getattr(kind, "vma", None)


def bind(eqn: jex.JaxprEqn, args: Sequence[Any]) -> list[Any]:
    """The equation's outputs, of other inputs."""
    # The contexts that the equation was traced in: compute_on, x64, its name scope.
    with eqn.ctx.manager, jax.named_scope(str(eqn.source_info.name_stack)):
        params = eqn.primitive.get_bind_params(eqn.params)
        if eqn.primitive.name == "conv_general_dilated":
            return [_convolution(eqn.primitive, args, params)]
        outs = eqn.primitive.bind(*args, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _convolution(
    primitive: jex.Primitive, args: Sequence[Any], params: dict[str, Any]
) -> Any:
    """A convolution, on a CPU with its axes in the order that XLA has a kernel for.

    XLA reorders them itself, but not within the branches of a conditional, where that
    of a weight's gradient took 60 times as long (openxla/xla, ConvCanonicalization).
    """
    numbers, last = params["dimension_numbers"], args[0].ndim - 1
    space = tuple(range(1, last))
    first = (0, last, *space)
    own = jax.lax.ConvDimensionNumbers(
        first, (last, last - 1, *(i - 1 for i in space)), first
    )
    if jax.default_backend() != "cpu" or numbers == own:
        return primitive.bind(*args, **params)
    x, y = numbers.lhs_spec, numbers.rhs_spec
    x = jax.lax.transpose(args[0], (x[0], *x[2:], x[1]))
    y = jax.lax.transpose(args[1], (*y[2:], y[1], y[0]))
    out = primitive.bind(x, y, **(params | {"dimension_numbers": own}))
    places = sorted(range(last + 1), key=lambda i: numbers.out_spec[i])
    return jax.lax.transpose(out, [first[i] for i in places])
