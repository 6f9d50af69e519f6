"""Which objectives a value depends on: read from a jaxpr, without evaluating it.

``reach`` answers for whole arrays and is what control flow needs before its body is
run. ``support`` answers for the elements of an array, so that K losses that were
stacked into one array come apart again; it follows data movement and element-wise
linear operations and gives up (None: everywhere) at anything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.extend import core as jex

Rows: TypeAlias = tuple[int, ...]
Support: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_MAX_SIZE = 2**16  # of an array whose elements are told apart
_SPARSE = frozenset({"pad", "concatenate", "stack"})  # of dense inputs, sparse outputs

# Primitives whose inner jaxpr has their own inputs and outputs, one to one.
_CALLS = frozenset(
    (
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "remat2",
        "checkpoint",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "shard_map",
    )
)


def union(rows: Sequence[Rows]) -> Rows:
    """All objectives in any of `rows`, increasing."""
    return tuple(sorted(set().union(*rows)))


def reach(eqn: jex.JaxprEqn, in_rows: Sequence[Rows]) -> list[Rows]:
    """The objectives of every output of `eqn`, from those of its inputs."""
    name = eqn.primitive.name
    if name == "scan":
        return scan_rows(eqn, in_rows)[1]
    if name == "cond" and not in_rows[0]:
        branches = [_reach(b, in_rows[1:]) for b in eqn.params["branches"]]
        return [union(rows) for rows in zip(*branches, strict=True)]
    if name in _CALLS:
        return _reach(eqn.params.get("jaxpr") or eqn.params["call_jaxpr"], in_rows)
    return [union(in_rows)] * len(eqn.outvars)


def _reach(jaxpr: jex.Jaxpr | jex.ClosedJaxpr, in_rows: Sequence[Rows]) -> list[Rows]:
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    env: dict[Any, Rows] = dict.fromkeys(jaxpr.constvars, ())
    env.update(zip(jaxpr.invars, in_rows, strict=True))

    def read(v: Any) -> Rows:
        return () if isinstance(v, jex.Literal) else env[v]

    for eqn in jaxpr.eqns:
        ins = [read(v) for v in eqn.invars]
        outs = reach(eqn, ins) if any(ins) else [()] * len(eqn.outvars)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def scan_split(eqn: jex.JaxprEqn) -> tuple[int, int]:
    """The numbers of constants and of carried values of a scan equation."""
    params = eqn.params
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    # jax >= 0.12 keeps (consts, carry, xs) as nested structures instead.
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def scan_rows(
    eqn: jex.JaxprEqn, in_rows: Sequence[Rows]
) -> tuple[list[Rows], list[Rows]]:
    """The objectives of a scan's inputs and outputs, once the carry has settled."""
    num_consts, num_carry = scan_split(eqn)
    rows = list(in_rows)
    carried = slice(num_consts, num_consts + num_carry)
    while True:
        outs = _reach(eqn.params["jaxpr"], rows)
        carry = [union(r) for r in zip(rows[carried], outs[:num_carry], strict=True)]
        if carry == rows[carried]:
            return rows, [*carry, *outs[num_carry:]]
        rows[carried] = carry


def support(
    eqn: jex.JaxprEqn, ins: Sequence[Support | None], reached: Sequence[bool]
) -> list[Support | None]:
    """Where each output of a linear equation can be non-zero, for one objective.

    Args:
      eqn: the equation.
      ins: per input, where it can be non-zero; None for everywhere.
      reached: per input, whether it depends on a cotangent. An input that does not
        can only be a factor or, as a term, zero.

    Returns:
      Per output a bool array of its shape, or None: everywhere.
    """
    name = eqn.primitive.name
    known = any(x is not None for x in ins)
    large = any(math.prod(_shape(v)) > _MAX_SIZE for v in eqn.outvars)
    if name not in _SUPPORT or large or not (known or name in _SPARSE):
        return [None] * len(eqn.outvars)
    terms = [
        np.broadcast_to(depends, _shape(v)) if x is None else x
        for x, depends, v in zip(ins, reached, eqn.invars, strict=True)
    ]
    outs = _SUPPORT[name](terms, eqn.params)
    outs = outs if isinstance(outs, list) else [outs]
    return [None if x is None or x.all() else x for x in outs]


def _shape(v: Any) -> tuple[int, ...]:
    return tuple(v.aval.shape)


def _pad(terms: Sequence[Support], params: Any) -> Support | None:
    out = terms[0]
    if any(low < 0 or high < 0 or mid for low, high, mid in params["padding_config"]):
        return None
    return np.pad(out, [(low, high) for low, high, _ in params["padding_config"]])


def _broadcast(terms: Sequence[Support], params: Any) -> Support:
    shape, dims = params["shape"], params["broadcast_dimensions"]
    inner = [1] * len(shape)
    for dim, size in zip(dims, terms[0].shape, strict=True):
        inner[dim] = size
    return np.broadcast_to(terms[0].reshape(inner), shape)


def _slice(terms: Sequence[Support], params: Any) -> Support:
    strides = params["strides"] or (1,) * terms[0].ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    cut: Support = terms[0][tuple(slice(*b) for b in bounds)]
    return cut


def _same(terms: Sequence[Support], _: Any) -> Support:
    return terms[0]


def _or(terms: Sequence[Support], _: Any) -> Support:
    either: Support = np.logical_or.reduce(np.broadcast_arrays(*terms))
    return either


_SUPPORT: dict[str, Callable[[Sequence[Support], Any], Any]] = {
    "convert_element_type": _same,
    "copy": _same,
    "copy_p": _same,
    "neg": _same,
    # One of the two depends on the cotangent; the other, a factor, is not a term.
    "mul": _or,
    "div": _same,
    "add": _or,
    "add_any": _or,
    "sub": _or,
    "select_n": lambda terms, _: _or(terms[1:], _),
    "slice": _slice,
    "pad": _pad,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda terms, params: terms[0].reshape(params["new_sizes"]),
    "squeeze": lambda terms, params: terms[0].squeeze(tuple(params["dimensions"])),
    "transpose": lambda terms, params: terms[0].transpose(params["permutation"]),
    "rev": lambda terms, params: np.flip(terms[0], params["dimensions"]),
    "reduce_sum": lambda terms, params: terms[0].any(axis=tuple(params["axes"])),
    "concatenate": lambda terms, params: np.concatenate(terms, params["dimension"]),
    "split": lambda terms, params: np.split(
        terms[0], np.cumsum(params["sizes"])[:-1], params["axis"]
    ),
    "stack": lambda terms, params: np.stack(terms, params["axis"]),
    "unstack": lambda terms, params: [
        np.take(terms[0], i, params["axis"])
        for i in range(terms[0].shape[params["axis"]])
    ],
}
