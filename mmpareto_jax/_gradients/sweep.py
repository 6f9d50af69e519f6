"""The interpreter of a backward pass: one equation after another, lane by lane."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from mmpareto_jax._gradients.binding import barriers, bind
from mmpareto_jax._gradients.lanes import Lanes, pack, rows_of, values_of
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
# (number of an output, its lanes) -> what is kept of it.
Sink: TypeAlias = Callable[[int, Any], Any]


class Wanted(NamedTuple):
    """What the outputs of an equation, or of a program, are wanted for.

    Attributes:
      needs: per output; None: for its objectives, whatever comes.
      ends: per output, which outputs of the whole program it is; None: of none.
      apart: whether an input's objectives are wanted apart, maybe by this equation.
    """

    needs: Sequence[Need] | None = None
    ends: Sequence[Sequence[int]] | None = None
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
        sink: Sink | None = None,
    ):
        """How to evaluate.

        Args:
          rules: for the primitives with programs inside.
          stacked: how ``Lanes.values`` are kept.
          mixes: what is asked for instead of objectives.
          sink: takes each output as soon as it is there.
        """
        self.rules, self.stacked = rules, stacked
        self.mixes, self.sink = mixes, sink
        self.kept: dict[int, Any] = {}

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
        ends = _ends(jaxpr, wanted)

        def value(v: Any) -> Any:
            return v.val if isinstance(v, jex.Literal) else env[v]

        for number, eqn in enumerate(jaxpr.eqns):
            ins = [value(v) for v in eqn.invars]
            own = [read(known, v) for v in eqn.invars]
            if not any(isinstance(x, Lanes) for x in ins):
                outs, found = bind(eqn, ins), flow(eqn, own)
            else:
                rule = self.rules.get(eqn.primitive.name, linear)
                outs, found = rule(self, eqn, ins, own, _asked(eqn, plan, ends))
            env.update(zip(eqn.outvars, outs, strict=True))
            known.update(zip(eqn.outvars, found, strict=True))
            if self.sink is not None:
                self.drain(jaxpr, number, env, ends)
        outvars = jaxpr.outvars
        return [value(v) for v in outvars], [read(known, v) for v in outvars]

    def drain(
        self,
        jaxpr: jex.Jaxpr,
        number: int,
        env: dict[Any, Any],
        ends: Mapping[Any, Sequence[int]],
    ) -> None:
        """Gives the sink what an equation has ended, before anything goes on.

        Without the barrier XLA may compute all outputs first, and keep them.
        """
        assert self.sink is not None
        taken = {
            i: self.sink(i, env[v])
            for v in jaxpr.eqns[number].outvars
            for i in ends.get(v, ())
            if i not in self.kept
        }
        if not jax.tree.leaves(taken):
            self.kept |= taken
            return
        later = {v for e in jaxpr.eqns[number + 1 :] for v in e.invars if _is_var(v)}
        later |= {v for v in jaxpr.outvars if _is_var(v) and v not in ends}
        live = [v for v in later if isinstance(env.get(v), Lanes)]
        values = [*(env[v].values for v in live), *taken.values()]
        passed = barriers(values, [True] * len(values))
        for v, x in zip(live, passed, strict=False):
            env[v] = dataclasses.replace(env[v], values=x)
        self.kept |= dict(zip(taken, passed[len(live) :], strict=True))

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
    outs = _batched(eqn, ins, len(rows)) if sweep.stacked else None
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


def _batched(eqn: jex.JaxprEqn, ins: list[Any], num: int) -> list[Any] | None:
    """All rows at once; None if jax cannot batch this primitive."""
    axes = [0 if isinstance(x, Lanes) else None for x in ins]
    each: Callable[..., Any]
    each = jax.vmap(lambda *xs: bind(eqn, xs), axes, axis_size=num)
    try:
        return list(each(*(values_of(x) for x in ins)))
    except NotImplementedError:  # a depthwise convolution's gradient, for one
        return None


def any_mixed(ins: Sequence[Any]) -> bool:
    """Whether one of the values is for mixes."""
    return any(isinstance(x, Lanes) and x.mixed for x in ins)


def _at(x: Any, i: int) -> Any:
    return x.values[i] if isinstance(x, Lanes) else x


def _is_var(v: Any) -> bool:
    return not isinstance(v, jex.Literal)


def _asked(
    eqn: jex.JaxprEqn,
    plan: Mapping[Any, Need] | None,
    ends: Mapping[Any, Sequence[int]],
) -> Wanted:
    numbers = [ends.get(v, ()) for v in eqn.outvars]
    if plan is None:
        return Wanted(None, numbers)
    own = [plan.get(v, NOTHING) for v in eqn.outvars]
    ins = [plan.get(v, NOTHING) for v in eqn.invars if _is_var(v)]
    return Wanted(own, numbers, any(x.apart for x in ins))


def _ends(jaxpr: jex.Jaxpr, wanted: Wanted) -> dict[Any, list[int]]:
    """Variable -> the outputs of the whole program that it is."""
    found: dict[Any, list[int]] = {}
    pairs = zip(jaxpr.outvars, wanted.ends or (), strict=False)
    for v, numbers in pairs:
        if numbers and _is_var(v):
            found.setdefault(v, []).extend(numbers)
    return found
