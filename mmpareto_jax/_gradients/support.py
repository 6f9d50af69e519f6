"""Where the outputs of an equation can be non-zero, from where its inputs can be.

So K losses that were stacked into one array come apart again, and features that were
concatenated. Followed are data movement and what acts on single elements, sums, and
the axes that a product leaves alone; anything else can be non-zero everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core as jex

from mmpareto_jax._gradients import runs
from mmpareto_jax._gradients.boxes import (
    NOWHERE,
    Box,
    Support,
    axis,
    boxes,
    common,
    flat,
    mapped,
    shape_of,
    support,
    union,
)
from mmpareto_jax._gradients.constants import Known
from mmpareto_jax._gradients.indexing import INDEXING
from mmpareto_jax._gradients.movement import MOVEMENT
from mmpareto_jax._gradients.zeros import CLIPS

Rule: TypeAlias = Callable[[jex.JaxprEqn, Sequence[Support], Sequence[Known]], Any]


def supports(
    eqn: jex.JaxprEqn, terms: Sequence[Support], known: Sequence[Known]
) -> list[Support]:
    """The supports of an equation's outputs, for one objective.

    Args:
      eqn: the equation.
      terms: per input its support. What depends on no cotangent has one as well:
        nowhere if it is known to be zero, otherwise everywhere.
      known: per input its value, where that is a constant of the program.
    """
    if all(x == NOWHERE for x in terms):
        return [NOWHERE] * len(eqn.outvars)
    rule = _RULES.get(eqn.primitive.name)
    if rule is None:
        return [None] * len(eqn.outvars)
    outs = rule(eqn, terms, known)
    return outs if isinstance(outs, list) else [outs]


def _same(_: Any, terms: Sequence[Support], __: Any) -> Support:
    return terms[0]


def _sum(_: Any, terms: Sequence[Support], __: Any) -> Support:
    return union(terms)


def _mul(eqn: Any, terms: Sequence[Support], known: Sequence[Known]) -> Support:
    where = functools.reduce(common, terms)
    for v, value in zip(eqn.invars, known, strict=True):
        if where and (factor := value()) is not None:
            where = common(where, _mask(factor != 0, shape_of(v)))
    return where


def _select(eqn: Any, terms: Sequence[Support], known: Sequence[Known]) -> Support:
    cases = terms[1:]
    # Asked only where it can help: it may cost a trace of the whole function.
    if any(cases) and (which := known[0]()) is not None:
        shape = shape_of(eqn.outvars[0])
        chosen = [np.broadcast_to(which == i, shape) for i in range(len(cases))]
        cases = [
            common(x, _mask(own, shape)) for x, own in zip(cases, chosen, strict=True)
        ]
    return union(cases)


def _mask(mask: np.ndarray[Any, Any], shape: tuple[Any, ...]) -> Support:
    """A bool array as boxes: one for each kind of row, axis by axis."""
    mask = np.asarray(mask, bool)
    if mask.all():
        return None
    if mask.ndim <= 1:
        where = runs.of_mask(mask.reshape(-1))
        return support([(axis(mask.size, where),) * mask.ndim]) if where else NOWHERE
    lines, kind = np.unique(mask.reshape(len(mask), -1), axis=0, return_inverse=True)
    found: list[Box] = []
    for i, line in enumerate(lines):
        rows = axis(len(mask), runs.of_mask(kind.reshape(-1) == i))
        inner = boxes(_mask(line.reshape(mask.shape[1:]), shape[1:]), shape[1:])
        found += [(rows, *box) for box in inner]
    return support(found)


def _dot(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    """What is contracted is gone; batch and free axes stay."""
    if NOWHERE in terms:
        return NOWHERE
    (contract, batch) = eqn.params["dimension_numbers"]
    sides = []
    for i in range(2):
        found = boxes(terms[i], shape_of(eqn.invars[i]))
        used = {*contract[i], *batch[i]}
        free = [d for d in range(len(shape_of(eqn.invars[i]))) if d not in used]
        sides.append([([x[d] for d in batch[i]], [x[d] for d in free]) for x in found])
    return union(
        [
            common(
                support([(*lb, *lf, *(axis(flat(x)[0]) for x in rf))]),
                support([(*rb, *(axis(flat(x)[0]) for x in lf), *rf)]),
            )
            for lb, lf in sides[0]
            for rb, rf in sides[1]
        ]
    )


def _convolution(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    """The examples of a batch do not mix."""
    if NOWHERE in terms:
        return NOWHERE
    if eqn.params["batch_group_count"] != 1 or terms[0] is None:
        return None
    numbers, shape = eqn.params["dimension_numbers"], shape_of(eqn.outvars[0])

    def one(box: Box) -> Box:
        new = [axis(n) for n in shape]
        new[numbers.out_spec[0]] = box[numbers.lhs_spec[0]]
        return tuple(new)

    return mapped(terms[0], one)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            # On single elements, and zero at zero.
            *("convert_element_type", "copy", "copy_p", "neg", "real", "imag", "conj"),
            *("reduce_precision", "abs", "sign", "sqrt", "sin", "tan", "tanh", "div"),
            *("square", "asin", "atan", "sinh", "asinh", "expm1", "log1p", "cbrt"),
            *("name", "sharding_constraint", "layout_constraint", "reshard", "rem"),
        ),
        _same,
    ),
    **dict.fromkeys(
        ("add", "add_any", "sub", "complex", "or", "xor", "ne", *CLIPS), _sum
    ),
    **dict.fromkeys(("mul", "and"), _mul),
    "select_n": _select,
    **MOVEMENT,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    **INDEXING,
}
