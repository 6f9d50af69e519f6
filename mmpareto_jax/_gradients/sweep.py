"""The interpreter of a backward pass: one equation after another, lane by lane."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from mmpareto_jax._gradients.batching import batched
from mmpareto_jax._gradients.binding import bind
from mmpareto_jax._gradients.lanes import Lanes, pack, rows_of
from mmpareto_jax._gradients.mixes import Mixes
from mmpareto_jax._gradients.needs import NOTHING, Need, needs
from mmpareto_jax._gradients.reach import (
    Fact,
    Rows,
    about,
    environment,
    flow,
    merged,
    read,
)

Swept: TypeAlias = tuple[list[Any], list[Fact]]


class Wanted(NamedTuple):
    """What the outputs of an equation, or of a program, are wanted for.

    Attributes:
      needs: per output; None: for its objectives, whatever comes.
      apart: whether an input's objectives are wanted apart, maybe by this equation.
    """

    needs: Sequence[Need] | None = None
    apart: bool = False


_OBJECTIVES = Wanted()

# (sweep, equation, inputs, facts about them, what the outputs are wanted for)
Rule: TypeAlias = Callable[
    ["Sweep", jex.JaxprEqn, list[Any], list[Fact], Wanted], Swept
]


class Sweep:
    """One evaluation.

    Beside every value goes what is known of it: a value is ``Lanes`` exactly if its
    ``Fact`` has rows, and on these rows; or on the mixes that it is wanted for, once
    those are fewer.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        *,
        stacked: bool,
        mixes: Mixes | None = None,
    ):
        """How to evaluate.

        Args:
          rules: for the primitives with programs inside.
          stacked: how ``Lanes.values`` are kept.
          mixes: what is asked for instead of objectives.
        """
        self.rules, self.stacked, self.mixes = rules, stacked, mixes

    def run(
        self,
        jaxpr: jex.Jaxpr,
        consts: Sequence[Any],
        args: Sequence[Any],
        facts: Sequence[Fact],
        *,
        const_facts: Sequence[Fact] | None = None,
        wanted: Wanted = _OBJECTIVES,
    ) -> Swept:
        """Evaluates a program, given values and what is known of them."""
        if const_facts is None:
            const_facts = [about(x) for x in consts]
        known: dict[Any, Fact] = {}
        known.update(zip(jaxpr.constvars, const_facts, strict=True))
        known.update(zip(jaxpr.invars, facts, strict=True))
        plan: Mapping[Any, Need] | None = None
        if wanted.needs is not None:
            plan = needs(jaxpr, environment(jaxpr, facts, const_facts), wanted.needs)
        env: dict[Any, Any] = {}
        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def value(v: Any) -> Any:
            return v.val if isinstance(v, jex.Literal) else env[v]

        for eqn in jaxpr.eqns:
            ins = [value(v) for v in eqn.invars]
            own = [read(known, v) for v in eqn.invars]
            if not any(isinstance(x, Lanes) for x in ins):
                outs, found = bind(eqn, ins), flow(eqn, own)
            else:
                rule = self.rules.get(eqn.primitive.name, linear)
                outs, found = rule(self, eqn, ins, own, _asked(eqn, plan))
            env.update(zip(eqn.outvars, outs, strict=True))
            known.update(zip(eqn.outvars, found, strict=True))
        outvars = jaxpr.outvars
        return [value(v) for v in outvars], [read(known, v) for v in outvars]

    def lanes(
        self, ins: Sequence[Any], found: Sequence[Fact], wanted: Wanted
    ) -> list[Rows]:
        """On which lanes an equation gives its outputs: of objectives, or of mixes."""
        rows = [x.rows for x in found]
        if wanted.needs is None:
            return rows
        total = functools.reduce(operator.or_, wanted.needs)
        fewer = not wanted.apart and total.fewer_than(merged(rows))
        mixes = any_mixed(ins) or fewer
        return [need.lanes for need in wanted.needs] if mixes else rows

    def on(self, x: Any, rows: Rows) -> Any:
        """A value on lanes of this kind: mixed, where they are."""
        mixes = rows and rows[0] < 0 and isinstance(x, Lanes)
        return self.mixes.mixed(x, rows) if self.mixes and mixes else x

    def pack(self, xs: Sequence[Any], rows: Sequence[Rows], like: Any) -> list[Any]:
        """``lanes.pack``, mixed where these lanes are."""
        xs = [self.on(x, own) for x, own in zip(xs, rows, strict=True)]
        return pack(xs, rows, like, stacked=self.stacked)


def linear(
    sweep: Sweep, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact], wanted: Wanted
) -> Swept:
    """Any primitive: once per lane, with zeros where an objective is not."""
    found = flow(eqn, facts)
    lanes = sweep.lanes(ins, found, wanted)
    # If nothing is left, one row still tells what type of zero that is.
    rows = merged(lanes) or merged(rows_of(x) for x in ins)[:1]
    ins = [sweep.on(x, rows) for x in ins]
    ins = [x.at(rows) if isinstance(x, Lanes) else x for x in ins]
    outs = batched(eqn, ins, len(rows)) if sweep.stacked else None
    if outs is None:
        per_row = [bind(eqn, [_at(x, i) for x in ins]) for i in range(len(rows))]
        outs = list(zip(*per_row, strict=True))
        outs = [jnp.stack(x) for x in outs] if sweep.stacked else outs

    def kept(values: Any, fact: Fact, own: Rows) -> Any:
        if fact.where:
            return Lanes(rows, values).at(own or rows)
        return jnp.zeros_like(values[0]) if fact.zero else values[0]

    return [kept(*x) for x in zip(outs, found, lanes, strict=True)], found


def add(
    sweep: Sweep, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact], wanted: Wanted
) -> Swept:
    """A sum: where an objective is in one term only there is nothing to add."""
    alike = all(isinstance(x, Lanes) for x in ins)
    if sweep.stacked or not alike or not all(x.zero for x in facts):
        return linear(sweep, eqn, ins, facts, wanted)
    found = flow(eqn, facts)
    (rows,) = sweep.lanes(ins, found, wanted)
    terms = [sweep.on(x, rows) for x in ins]
    if not rows or terms[0].rows == terms[1].rows:
        return linear(sweep, eqn, terms, facts, wanted)
    rows = tuple(k for k in rows if any(k in x.rows for x in terms))
    values = []
    for k in rows:
        value, *more = [x.values[x.rows.index(k)] for x in terms if k in x.rows]
        values.append(jax.lax.add(value, *more) if more else value)
    return [Lanes(rows, tuple(values))], found


def any_mixed(ins: Sequence[Any]) -> bool:
    """Whether one of the values is for mixes."""
    return any(isinstance(x, Lanes) and x.mixed for x in ins)


def _at(x: Any, i: int) -> Any:
    return x.values[i] if isinstance(x, Lanes) else x


def _asked(eqn: jex.JaxprEqn, plan: Mapping[Any, Need] | None) -> Wanted:
    if plan is None:
        return _OBJECTIVES
    outs = [plan.get(v, NOTHING) for v in eqn.outvars]
    ins = [plan[v] for v in eqn.invars if not isinstance(v, jex.Literal) and v in plan]
    return Wanted(outs, any(x.apart for x in ins))
