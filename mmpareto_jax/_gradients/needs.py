"""What every value of a backward pass is wanted for, from its outputs back.

With known weights a parameter's gradient is one weighted sum of its objectives'
gradients: a *mix*. Where all that a cotangent flows into belongs to fewer mixes than
there are objectives in it, the mixes are pulled back instead of the objectives.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.extend import core as jex

from mmpareto_jax._gradients.linearity import is_linear
from mmpareto_jax._gradients.reach import (
    CALLS,
    Fact,
    Rows,
    environment,
    inside_shards,
    read,
    scan_facts,
    scan_split,
)

# Calls that the sweep goes into, so that their inputs need not be on the same lanes.
INLINED = frozenset(("jit", "pjit", "closed_call", "remat2", "checkpoint"))


@dataclasses.dataclass(frozen=True)
class Need:
    """What a value is wanted for.

    Attributes:
      mixes: the mixes that it flows into, by their lanes.
      apart: whether its objectives must stay apart, because something reads it that is
        not known to be linear.
    """

    mixes: frozenset[int] = frozenset()
    apart: bool = False

    def __or__(self, other: Need) -> Need:
        return Need(self.mixes | other.mixes, self.apart or other.apart)

    @property
    def lanes(self) -> Rows:
        """Those of the mixes."""
        return tuple(sorted(self.mixes))

    def fewer_than(self, rows: Rows) -> bool:
        """Whether a value is better carried mixed than as these objectives."""
        return not self.apart and 0 < len(self.mixes) <= len(rows)


NOTHING = Need()


def needs(
    jaxpr: jex.Jaxpr, facts: Mapping[Any, Fact], outs: Sequence[Need]
) -> dict[Any, Need]:
    """For every variable of a jaxpr that depends on cotangents, what it is wanted for.

    Args:
      jaxpr: the program.
      facts: what is known of all its variables.
      outs: what its outputs are wanted for.
    """
    found: dict[Any, Need] = {}

    def want(v: Any, need: Need) -> None:
        fact = read(facts, v)
        if fact.where:
            # With a constant added to it, a value is not linear in its cotangents. And
            # the range of float16 has no room for weights.
            apart = not fact.zero or v.aval.dtype == jnp.float16
            found[v] = found.get(v, NOTHING) | need | Need(apart=apart)

    for v, need in zip(jaxpr.outvars, outs, strict=True):
        want(v, need)
    for eqn in reversed(jaxpr.eqns):
        ins = [read(facts, v) for v in eqn.invars]
        if any(x.where for x in ins):
            own = [found.get(v, NOTHING) for v in eqn.outvars]
            for v, need in zip(eqn.invars, needed(eqn, ins, own), strict=True):
                want(v, need)
    return found


def needed(
    eqn: jex.JaxprEqn, ins: Sequence[Fact], outs: Sequence[Need]
) -> Sequence[Need]:
    """What the inputs of an equation are wanted for."""
    name = eqn.primitive.name
    if name in _NEEDS:
        return _NEEDS[name](eqn, ins, outs)
    if name in CALLS:
        inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
        found = _inside(inner, ins, outs)
        return found if name in INLINED else [_all([*found, *outs])] * len(ins)
    linear = is_linear(eqn, [bool(x.where) for x in ins])
    return [_all([*outs, Need(apart=not linear)])] * len(ins)


def scan_needs(
    eqn: jex.JaxprEqn, ins: Sequence[Fact], outs: Sequence[Need]
) -> tuple[list[Need], list[Need]]:
    """Of a scan: what its inputs are wanted for, and what its body's outputs are."""
    body = eqn.params["jaxpr"]
    num_consts, num_carry = scan_split(eqn)
    facts = environment(body, scan_facts(eqn, ins)[0])
    carry, ys = list(outs[:num_carry]), list(outs[num_carry:])
    while True:
        found = needs(body.jaxpr, facts, [*carry, *ys])
        inner = [found.get(v, NOTHING) for v in body.jaxpr.invars]
        before = inner[num_consts : num_consts + num_carry]
        wider = [x | y for x, y in zip(carry, before, strict=True)]
        if wider == carry:
            return [*inner[:num_consts], *carry, *inner[num_consts + num_carry :]], [
                *carry,
                *ys,
            ]
        carry = wider


def _all(outs: Sequence[Need]) -> Need:
    return functools.reduce(operator.or_, outs, NOTHING)


def _inside(
    inner: jex.Jaxpr | jex.ClosedJaxpr, ins: Sequence[Fact], outs: Sequence[Need]
) -> list[Need]:
    jaxpr: Any = getattr(inner, "jaxpr", inner)
    found = needs(jaxpr, environment(inner, ins), outs)
    return [found.get(v, NOTHING) for v in jaxpr.invars]


def _scan(eqn: jex.JaxprEqn, ins: Sequence[Fact], outs: Sequence[Need]) -> list[Need]:
    return scan_needs(eqn, ins, outs)[0]


def _cond(eqn: jex.JaxprEqn, ins: Sequence[Fact], outs: Sequence[Need]) -> list[Need]:
    index, *operands = ins
    if index.where:
        return [_all([*outs, Need(apart=True)])] * len(ins)
    each = [_inside(branch, operands, outs) for branch in eqn.params["branches"]]
    return [NOTHING, *map(_all, zip(*each, strict=True))]


def _shard_map(
    eqn: jex.JaxprEqn, ins: Sequence[Fact], outs: Sequence[Need]
) -> list[Need]:
    found = _inside(eqn.params["jaxpr"], inside_shards(ins), outs)
    return [_all([*found, *outs])] * len(ins)


_NEEDS: dict[
    str,
    Callable[[jex.JaxprEqn, Sequence[Fact], Sequence[Need]], Sequence[Need]],
] = {"scan": _scan, "cond": _cond, "shard_map": _shard_map}
