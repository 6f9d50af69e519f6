"""Equations with programs inside: calls, loops and conditionals are swept through."""

from __future__ import annotations

import dataclasses
import functools
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
    consts, xs = ins[:num_consts], ins[split:]
    if wanted.needs is not None:
        before, after = scan_needs(eqn, facts, wanted.needs)
        out_rows[:num_carry] = [
            need.lanes or rows if any_mixed([x]) or need.fewer_than(rows) else rows
            for x, need, rows in zip(
                ins[num_consts:split], after[:num_carry], out_rows, strict=False
            )
        ]
        pairs = zip(xs, before[split:], strict=True)
        xs = [sweep.on(x, n.lanes) if n.fewer_than(rows_of(x)) else x for x, n in pairs]
    xs = [swap(x) for x in xs]
    x_rows = [rows_of(x) for x in xs]
    values = [values_of(x) for x in xs]

    def swept(carry: list[Any], xs: list[Any]) -> list[Any]:
        args = [*consts, *unpack([*carry, *xs], [*out_rows[:num_carry], *x_rows])]
        return sweep.run(body.jaxpr, body.consts, args, inner, wanted=Wanted(after))[0]

    def packed() -> list[Any]:
        variables = body.jaxpr.invars[num_consts:split]
        return sweep.pack(ins[num_consts:split], out_rows[:num_carry], variables)

    if after is not None and params["length"]:
        first = jax.tree.map(lambda x: x[0], values)
        while _widen(out_rows, after, lambda: _mixed_outs(swept, packed(), first)):
            pass

    def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
        outs = sweep.pack(swept(carry, xs), out_rows, body.jaxpr.outvars)
        return outs[:num_carry], outs[num_carry:]

    carry, ys = jax.lax.scan(
        step,
        packed(),
        values,
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
    args = [values_of(x) for x in operands]

    def run(branch: jex.ClosedJaxpr, values: Sequence[Any]) -> list[Any]:
        own = unpack(values, in_rows)
        again = Wanted(wanted.needs)
        return sweep.run(branch.jaxpr, branch.consts, own, facts[1:], wanted=again)[0]

    def swept(branch: jex.ClosedJaxpr) -> Callable[..., list[Any]]:
        return lambda *values: sweep.pack(
            run(branch, values), out_rows, branch.jaxpr.outvars
        )

    if wanted.needs is not None:
        for branch in eqn.params["branches"]:
            each = functools.partial(_mixed_outs, functools.partial(run, branch), args)
            _widen(out_rows, wanted.needs, each)
    branches = [swept(branch) for branch in eqn.params["branches"]]
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


def _mixed_outs(swept: Callable[..., list[Any]], *values: Any) -> list[bool]:
    """Which outputs of a swept program are mixed, from a trace that is thrown away."""
    found: list[bool] = []

    def record(*values: Any) -> list[Any]:
        outs = swept(*values)
        found[:] = [any_mixed([x]) for x in outs]
        return [values_of(x) for x in outs]

    jax.eval_shape(record, *values)
    return found


def _widen(
    rows: list[Rows], needs: Sequence[Need], mixed: Callable[[], list[bool]]
) -> bool:
    """Puts outputs that come mixed on the lanes of their mixes; whether any was not."""
    new = [
        need.lanes or own if now and own[0] >= 0 else own
        for now, need, own in zip(mixed(), needs, rows, strict=True)
    ]
    changed = new != rows
    rows[:] = new
    return changed


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
