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

from mmpareto_jax import _runs
from mmpareto_jax._boxes import (
    NOWHERE,
    Axis,
    Box,
    Support,
    axis,
    boxes,
    common,
    flat,
    mapped,
    reshaped,
    support,
    union,
)
from mmpareto_jax._constants import Known
from mmpareto_jax._indexing import INDEXING
from mmpareto_jax._zeros import CLIPS

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


def _shape(v: Any) -> tuple[Any, ...]:
    return tuple(v.aval.shape)


def _on_axis(
    where: Support, dim: int, change: Callable[[Any, Any], Axis | None]
) -> Support:
    """One axis of every box changed: from its size and set; None drops the box."""

    def one(box: Box) -> Box | None:
        new = change(*flat(box[dim]))
        return None if new is None else (*box[:dim], new, *box[dim + 1 :])

    return mapped(where, one)


def _same(_: Any, terms: Sequence[Support], __: Any) -> Support:
    return terms[0]


def _sum(_: Any, terms: Sequence[Support], __: Any) -> Support:
    return union(terms)


def _mul(eqn: Any, terms: Sequence[Support], known: Sequence[Known]) -> Support:
    where = functools.reduce(common, terms)
    for v, value in zip(eqn.invars, known, strict=True):
        if where and (factor := value()) is not None:
            where = common(where, _mask(factor != 0, _shape(v)))
    return where


def _select(eqn: Any, terms: Sequence[Support], known: Sequence[Known]) -> Support:
    cases = terms[1:]
    # Asked only where it can help: it may cost a trace of the whole function.
    if any(cases) and (which := known[0]()) is not None:
        shape = _shape(eqn.outvars[0])
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
        where = _runs.of_mask(mask.reshape(-1))
        return support([(axis(mask.size, where),) * mask.ndim]) if where else NOWHERE
    lines, kind = np.unique(mask.reshape(len(mask), -1), axis=0, return_inverse=True)
    found: list[Box] = []
    for i, line in enumerate(lines):
        rows = axis(len(mask), _runs.of_mask(kind.reshape(-1) == i))
        inner = boxes(_mask(line.reshape(mask.shape[1:]), shape[1:]), shape[1:])
        found += [(rows, *box) for box in inner]
    return support(found)


def _broadcast(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    inner = _shape(eqn.invars[0])

    def one(box: Box) -> Box:
        new = [axis(n) for n in shape]
        for source, dim in enumerate(dims):
            # An axis of length 1 with no set is as well repeated as it is.
            if not (isinstance(inner[source], int) and inner[source] == 1):
                new[dim] = box[source]
        return tuple(new)

    return mapped(terms[0], one)


def _reduce(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    gone = set(eqn.params["axes"])
    return mapped(
        terms[0], lambda box: tuple(x for i, x in enumerate(box) if i not in gone)
    )


def _squeeze(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    return reshaped(terms[0], _shape(eqn.outvars[0]))


def _transpose(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    order = eqn.params["permutation"]
    return mapped(terms[0], lambda box: tuple(box[i] for i in order))


def _everywhere_on(*names: str) -> Rule:
    """What moves along one axis, as a cumulative sum or a sort does."""

    def rule(eqn: Any, terms: Sequence[Support], _: Any) -> list[Support]:
        dim = next(eqn.params[name] for name in names if name in eqn.params)
        return [
            _on_axis(x, dim, lambda size, _: axis(size))
            for x, _ in zip(terms, eqn.outvars, strict=True)
        ]

    return rule


def _rev(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    out = terms[0]
    for dim in eqn.params["dimensions"]:
        out = _on_axis(
            out, dim, lambda n, x: axis(n, None if x is None else _runs.flip(x, n))
        )
    return out


def _part(where: Support, dim: int, bound: tuple[Any, Any, Any], n: Any) -> Any:
    """The part (start, stop, stride), n elements, of one axis."""

    def one(_: Any, x: Any) -> Axis:
        return axis(n, None if x is None else _runs.cut(x, *bound))

    return _on_axis(where, dim, one)


def _slice(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    params, out, shape = eqn.params, terms[0], _shape(eqn.outvars[0])
    strides = params["strides"] or (1,) * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    for dim, (bound, size) in enumerate(zip(bounds, shape, strict=True)):
        if bound != (0, _shape(eqn.invars[0])[dim], 1):  # else it keeps its factors
            out = _part(out, dim, bound, size)
    return out


def _split(eqn: Any, terms: Sequence[Support], _: Any) -> list[Support]:
    dim, start, outs = eqn.params["axis"], 0, []
    for size in eqn.params["sizes"]:
        outs.append(_part(terms[0], dim, (start, start + size, 1), size))
        start += size
    return outs


def _unstack(eqn: Any, terms: Sequence[Support], _: Any) -> list[Support]:
    dim = eqn.params["axis"]
    parts = [_part(terms[0], dim, (i, i + 1, 1), 1) for i in range(len(eqn.outvars))]
    return [mapped(x, lambda box: (*box[:dim], *box[dim + 1 :])) for x in parts]


def _shifted(size: Any, where: Any, low: int, out: Any, stride: int = 1) -> Axis:
    """An axis at `low` of a longer one of length `out`, its elements `stride` apart."""
    if not isinstance(out, int) or not isinstance(size, int):
        return axis(out)
    own = ((0, size),) if where is None else where
    spread = _runs.spread(own, stride)
    return axis(out, _runs.cut(_runs.shift(spread, low), 0, out))


def _pad(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    inner, outer = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
    if terms[1] != NOWHERE:
        return None
    found = boxes(terms[0], inner)
    for dim, (low, high, between) in enumerate(eqn.params["padding_config"]):
        if low == 0 and high == 0 and between == 0:  # it keeps its factors
            continue
        new = []
        for box in found:
            put = _shifted(*flat(box[dim]), low, outer[dim], between + 1)
            new.append((*box[:dim], put, *box[dim + 1 :]))
        found = tuple(new)
    return support(found)


def _joined(eqn: Any, terms: Sequence[Support], dim: int, sizes: Sequence[Any]) -> Any:
    total, start, found = _shape(eqn.outvars[0])[dim], 0, []
    for v, where, size in zip(eqn.invars, terms, sizes, strict=True):
        for box in boxes(where, _shape(v)):
            put = _shifted(*flat(box[dim]), start, total)
            found.append((*box[:dim], put, *box[dim + 1 :]))
        start += size
    return support(found)


def _concatenate(eqn: Any, terms: Sequence[Support], _: Any) -> Any:
    dim = eqn.params["dimension"]
    return _joined(eqn, terms, dim, [_shape(v)[dim] for v in eqn.invars])


def _stack(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    dim, found = eqn.params["axis"], []
    for i, (v, where) in enumerate(zip(eqn.invars, terms, strict=True)):
        own = axis(len(eqn.invars), ((i, i + 1),))
        found += [(*box[:dim], own, *box[dim:]) for box in boxes(where, _shape(v))]
    return support(found)


def _dot(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    """What is contracted is gone; batch and free axes stay."""
    if NOWHERE in terms:
        return NOWHERE
    (contract, batch) = eqn.params["dimension_numbers"]
    sides = []
    for i in range(2):
        found = boxes(terms[i], _shape(eqn.invars[i]))
        used = {*contract[i], *batch[i]}
        free = [d for d in range(len(_shape(eqn.invars[i]))) if d not in used]
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
    numbers, shape = eqn.params["dimension_numbers"], _shape(eqn.outvars[0])

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
            *("pvary", "pcast"),
        ),
        _same,
    ),
    **dict.fromkeys(
        ("add", "add_any", "sub", "complex", "or", "xor", "ne", *CLIPS), _sum
    ),
    **dict.fromkeys(("mul", "and"), _mul),
    "select_n": _select,
    "slice": _slice,
    "pad": _pad,
    "broadcast_in_dim": _broadcast,
    "reshape": _squeeze,
    "squeeze": _squeeze,
    "expand_dims": _squeeze,
    "transpose": _transpose,
    "rev": _rev,
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_or", "reduce_and"), _reduce
    ),
    **dict.fromkeys(("cumsum", "cummax", "cummin"), _everywhere_on("axis")),
    "sort": _everywhere_on("dimension"),
    "concatenate": _concatenate,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
    "dot_general": _dot,
    "conv_general_dilated": _convolution,
    **INDEXING,
}
