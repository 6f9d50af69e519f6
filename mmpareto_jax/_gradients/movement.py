"""Where the outputs of data movement can be non-zero: slices, pads, sums over axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from mmpareto_jax._gradients import boxes, runs
from mmpareto_jax._gradients.boxes import Axis, Box, Support
from mmpareto_jax._gradients.regroup import reshaped

Rule: TypeAlias = Callable[[Any, Sequence[Support], Any], Any]


def _on_axis(
    where: Support, dim: int, change: Callable[[Any, Any], Axis | None]
) -> Support:
    """One axis of every box changed: from its size and set; None drops the box."""

    def one(box: Box) -> Box | None:
        new = change(*boxes.flat(box[dim]))
        return None if new is None else (*box[:dim], new, *box[dim + 1 :])

    return boxes.mapped(where, one)


def _broadcast(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    shape, dims = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    inner = boxes.shape_of(eqn.invars[0])

    def one(box: Box) -> Box:
        new = [boxes.axis(n) for n in shape]
        for source, dim in enumerate(dims):
            # An axis of length 1 with no set is as well repeated as it is.
            if not (isinstance(inner[source], int) and inner[source] == 1):
                new[dim] = box[source]
        return tuple(new)

    return boxes.mapped(terms[0], one)


def _reduce(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    gone = set(eqn.params["axes"])
    return boxes.mapped(
        terms[0], lambda box: tuple(x for i, x in enumerate(box) if i not in gone)
    )


def _squeeze(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    return reshaped(terms[0], boxes.shape_of(eqn.outvars[0]))


def _transpose(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    order = eqn.params["permutation"]
    return boxes.mapped(terms[0], lambda box: tuple(box[i] for i in order))


def _everywhere_on(name: str) -> Rule:
    """What moves along one axis, as a cumulative sum or a sort does."""

    def rule(eqn: Any, terms: Sequence[Support], _: Any) -> list[Support]:
        dim = eqn.params[name]
        return [
            _on_axis(x, dim, lambda size, _: boxes.axis(size))
            for x, _ in zip(terms, eqn.outvars, strict=True)
        ]

    return rule


def _rev(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    out = terms[0]
    for dim in eqn.params["dimensions"]:
        out = _on_axis(
            out, dim, lambda n, x: boxes.axis(n, None if x is None else runs.flip(x, n))
        )
    return out


def _part(where: Support, dim: int, bound: tuple[Any, Any, Any], n: Any) -> Any:
    """The part (start, stop, stride), n elements, of one axis."""

    def one(_: Any, x: Any) -> Axis:
        return boxes.axis(n, None if x is None else runs.cut(x, *bound))

    return _on_axis(where, dim, one)


def _slice(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    params, out = eqn.params, terms[0]
    full, shape = boxes.shape_of(eqn.invars[0]), boxes.shape_of(eqn.outvars[0])
    strides = params["strides"] or (1,) * len(shape)
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    for dim, (bound, size) in enumerate(zip(bounds, shape, strict=True)):
        if bound != (0, full[dim], 1):  # else it keeps its factors
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
    return [boxes.mapped(x, lambda box: (*box[:dim], *box[dim + 1 :])) for x in parts]


def _shifted(size: Any, where: Any, low: int, out: Any, stride: int = 1) -> Axis:
    """An axis at `low` of a longer one of length `out`, its elements `stride` apart."""
    if not isinstance(out, int) or not isinstance(size, int):
        return boxes.axis(out)
    own = ((0, size),) if where is None else where
    spread = runs.spread(own, stride)
    return boxes.axis(out, runs.cut(runs.shift(spread, low), 0, out))


def _pad(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    inner, outer = boxes.shape_of(eqn.invars[0]), boxes.shape_of(eqn.outvars[0])
    if terms[1] != boxes.NOWHERE:
        return None
    found = boxes.boxes(terms[0], inner)
    for dim, (low, high, between) in enumerate(eqn.params["padding_config"]):
        if low == 0 and high == 0 and between == 0:  # it keeps its factors
            continue
        new = []
        for box in found:
            put = _shifted(*boxes.flat(box[dim]), low, outer[dim], between + 1)
            new.append((*box[:dim], put, *box[dim + 1 :]))
        found = tuple(new)
    return boxes.support(found)


def _joined(eqn: Any, terms: Sequence[Support], dim: int, sizes: Sequence[Any]) -> Any:
    total, start, found = boxes.shape_of(eqn.outvars[0])[dim], 0, []
    for v, where, size in zip(eqn.invars, terms, sizes, strict=True):
        for box in boxes.boxes(where, boxes.shape_of(v)):
            put = _shifted(*boxes.flat(box[dim]), start, total)
            found.append((*box[:dim], put, *box[dim + 1 :]))
        start += size
    return boxes.support(found)


def _concatenate(eqn: Any, terms: Sequence[Support], _: Any) -> Any:
    dim = eqn.params["dimension"]
    return _joined(eqn, terms, dim, [boxes.shape_of(v)[dim] for v in eqn.invars])


def _stack(eqn: Any, terms: Sequence[Support], _: Any) -> Support:
    dim, found = eqn.params["axis"], []
    for i, (v, where) in enumerate(zip(eqn.invars, terms, strict=True)):
        own = boxes.axis(len(eqn.invars), ((i, i + 1),))
        found += [
            (*box[:dim], own, *box[dim:])
            for box in boxes.boxes(where, boxes.shape_of(v))
        ]
    return boxes.support(found)


MOVEMENT: dict[str, Rule] = {
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
}
