"""Equations with programs inside: calls, loops and conditionals are swept through."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core as jex

from mmpareto_jax._gradients.binding import barriers
from mmpareto_jax._gradients.lanes import Lanes, rows_of, swap, unpack, values_of
from mmpareto_jax._gradients.needs import Need, scan_needs
from mmpareto_jax._gradients.reach import Fact, Rows, flow, scan_facts, scan_split
from mmpareto_jax._gradients.sweep import (
    Rule,
    Sweep,
    Swept,
    Wanted,
    add,
    any_mixed,
    linear,
)


def inline(
    sweep: Sweep, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact], wanted: Wanted
) -> Swept:
    closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
    return sweep.run(closed.jaxpr, closed.consts, ins, facts, wanted=wanted)


def checkpoint(
    sweep: Sweep, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact], wanted: Wanted
) -> Swept:
    """Recomputes once for all objectives.

    The barriers are what ``jax.checkpoint(prevent_cse=True)`` itself lowers to:
    they keep XLA from merging the recomputation with the forward pass.
    """
    which = eqn.params["prevent_cse"]
    if isinstance(which, bool):
        which = (which,) * len(ins)
    values = barriers([values_of(x) for x in ins], which)
    ins = [
        dataclasses.replace(x, values=v) if isinstance(x, Lanes) else v
        for x, v in zip(ins, values, strict=True)
    ]
    return sweep.run(eqn.params["jaxpr"], (), ins, facts, wanted=wanted)


def scan(
    sweep: Sweep, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact], wanted: Wanted
) -> Swept:
    """One scan, whose body is swept; what is carried has its lanes throughout."""
    params, body = eqn.params, eqn.params["jaxpr"]
    num_consts, num_carry = scan_split(eqn)
    split = num_consts + num_carry
    inner, found = scan_facts(eqn, facts)
    after: Sequence[Need] | None = None
    out_rows = [x.rows for x in found]
    x_rows = [x.rows for x in inner[split:]]
    if wanted.needs is not None:
        before, inside = scan_needs(eqn, facts, wanted.needs)
        if any_mixed(ins) or _any_fewer([*before, *inside], [*inner, *found]):
            after = inside
            out_rows = [_form(*x) for x in zip(inside, out_rows, strict=True)]
            x_rows = [_form(*x) for x in zip(before[split:], x_rows, strict=True)]
    consts, xs = ins[:num_consts], ins[split:]
    carry = sweep.pack(
        ins[num_consts:split],
        out_rows[:num_carry],
        body.jaxpr.invars[num_consts:split],
    )
    xs = [swap(sweep.on(x, rows)) for x, rows in zip(xs, x_rows, strict=True)]
    inner_rows = [*out_rows[:num_carry], *(rows_of(x) for x in xs)]

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        args = [*consts, *unpack([*carry, *xs], inner_rows)]
        outs, _ = sweep.run(body.jaxpr, body.consts, args, inner, wanted=Wanted(after))
        packed = sweep.pack(outs, out_rows, body.jaxpr.outvars)
        return packed[:num_carry], packed[num_carry:]

    carry, ys = jax.lax.scan(
        step,
        carry,
        [values_of(x) for x in xs],
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    outs = unpack([*carry, *ys], out_rows)
    return [*outs[:num_carry], *(swap(y) for y in outs[num_carry:])], found


def cond(
    sweep: Sweep, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact], wanted: Wanted
) -> Swept:
    """One conditional, whose branches are swept and agree on their lanes."""
    index, *operands = ins
    if isinstance(index, Lanes):
        return linear(sweep, eqn, ins, facts, wanted)
    found = flow(eqn, facts)
    in_rows, out_rows = [rows_of(x) for x in operands], [x.rows for x in found]
    after = wanted.needs
    if after is not None and (any_mixed(ins) or _any_fewer(after, found)):
        out_rows = [_form(*x) for x in zip(after, out_rows, strict=True)]
    else:
        after = None

    def swept(branch: jex.ClosedJaxpr) -> Callable[..., list[Any]]:
        def call(*values: Any) -> list[Any]:
            args = unpack(values, in_rows)
            outs, _ = sweep.run(
                branch.jaxpr, branch.consts, args, facts[1:], wanted=Wanted(after)
            )
            return sweep.pack(outs, out_rows, branch.jaxpr.outvars)

        return call

    branches = [swept(branch) for branch in eqn.params["branches"]]
    args = [values_of(x) for x in operands]
    platforms = eqn.params.get("branches_platforms")
    if platforms is None:
        outs = jax.lax.switch(index, branches, *args)
    else:
        # As a plain switch, every platform would be given the others' branches.
        by_name: dict[str, Callable[..., Any]] = {}
        for names, branch in zip(platforms, branches, strict=True):
            by_name |= dict.fromkeys(["default"] if names is None else names, branch)
        outs = jax.lax.platform_dependent(*args, **by_name)
    return unpack(outs, out_rows), found


def _any_fewer(wanted: Sequence[Need], facts: Sequence[Fact]) -> bool:
    pairs = zip(wanted, facts, strict=True)
    return any(need.fewer_than(x.rows) for need, x in pairs)


def _form(need: Need, rows: Rows) -> Rows:
    """The lanes of a value where control flow mixes: none but of what depends."""
    return rows if need.apart or not need.mixes or not rows else need.lanes


RULES: dict[str, Rule] = {
    "jit": inline,
    "pjit": inline,
    "closed_call": inline,
    "remat2": checkpoint,
    "checkpoint": checkpoint,
    "scan": scan,
    "cond": cond,
    "add_any": add,
}
