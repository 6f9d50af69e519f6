"""All cotangents in one sweep: a jaxpr interpreter with one lane per objective.

The backward pass of K objectives is linear in their K output cotangents. Of the
traced program ``(inputs, cotangents) -> (losses, gradients)`` every equation is
therefore of one of two kinds:

* it depends on no cotangent (the forward pass, residuals, what ``jax.checkpoint``
  recomputes): it is evaluated once, whatever K is;
* it depends on the cotangents of some objectives: it is evaluated once for each of
  those and for no other, because a cotangent that is not there is zero.

A variable of the second kind is carried as ``Lanes``: the objectives that reach it
and a value for each. Which lanes there are says ``reach.py``, equation by equation;
those that arrive at a parameter's gradient *are* the answer to "which objectives reach
this parameter". So the gradients and the groups come from one mechanism, and both see
through ``jit``, ``scan``, ``cond``, ``checkpoint`` and ``custom_vjp``.

``jax.linearize`` with one ``jax.linear_transpose`` per objective gives the same
numbers, but it refuses ``custom_vjp`` functions and repeats the recomputation of
``jax.checkpoint`` for every objective. One ``jax.vjp`` per objective, with JAX's own
symbolic zeros, costs as much as this sweep in programs without loops, but not under
``scan``, where the zeros are made real: 2.24 of the plain FLOPs against 1.62, and 2.42
against 1.47 with ``jax.checkpoint`` inside (K = 3). It is what is left where a backward
pass has a part that no cotangent owns (``backward.py``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from mmpareto_jax._gradients.lanes import (
    Lanes,
    pack,
    rows_of,
    seeds,
    swap,
    unpack,
    values_of,
)
from mmpareto_jax._gradients.reach import (
    Fact,
    about,
    flow,
    merged,
    read,
    scan_facts,
    scan_split,
    seed,
)

Pullback: TypeAlias = Literal["unroll", "vmap"]


def evaluate(
    closed: jex.ClosedJaxpr,
    consts: Sequence[Fact],
    cotangents: Sequence[jax.Array],
    *,
    pullback: Pullback,
) -> list[Any]:
    """Evaluates a backward pass for all of its cotangents at once.

    Args:
      closed: the jaxpr of a function that is linear in its K scalar inputs.
      consts: what is known of its constants.
      cotangents: the inputs, one per objective.
      pullback: "unroll" or "vmap", see ``value_and_objective_grads``.

    Returns:
      Per output its lanes; or an array, where no objective reaches: zero, or what the
      backward pass gives for any cotangents.
    """
    stacked = pullback == "vmap"
    lanes = seeds(cotangents, stacked=stacked)
    facts = [seed(k) for k in range(len(cotangents))]
    sweep = _Sweep(stacked=stacked)
    return sweep.run(closed.jaxpr, closed.consts, lanes, facts, consts)[0]


_Swept: TypeAlias = tuple[list[Any], list[Fact]]


class _Sweep:
    """One evaluation; `stacked` says how ``Lanes.values`` are kept.

    Beside every value goes what is known of it: a value is ``Lanes`` exactly if its
    ``Fact`` has rows, and on these rows.
    """

    def __init__(self, *, stacked: bool):
        self.stacked = stacked
        self.rules: dict[str, Callable[..., _Swept]] = {
            "jit": self.inline,
            "pjit": self.inline,
            "closed_call": self.inline,
            "remat2": self.checkpoint,
            "checkpoint": self.checkpoint,
            "scan": self.scan,
            "cond": self.cond,
            "add_any": self.add,
        }

    def run(
        self,
        jaxpr: jex.Jaxpr,
        consts: Sequence[Any],
        args: Sequence[Any],
        facts: Sequence[Fact],
        const_facts: Sequence[Fact] | None = None,
    ) -> _Swept:
        if const_facts is None:
            const_facts = [about(x) for x in consts]
        env: dict[Any, Any] = {}
        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))
        known: dict[Any, Fact] = {}
        known.update(zip(jaxpr.constvars, const_facts, strict=True))
        known.update(zip(jaxpr.invars, facts, strict=True))

        def value(v: Any) -> Any:
            return v.val if isinstance(v, jex.Literal) else env[v]

        for eqn in jaxpr.eqns:
            ins = [value(v) for v in eqn.invars]
            own = [read(known, v) for v in eqn.invars]
            if not any(isinstance(x, Lanes) for x in ins):
                outs, found = _bind(eqn, ins), flow(eqn, own)
            else:
                rule: Callable[..., _Swept]
                rule = self.rules.get(eqn.primitive.name, self.linear)
                outs, found = rule(eqn, ins, own)
            env.update(zip(eqn.outvars, outs, strict=True))
            known.update(zip(eqn.outvars, found, strict=True))
        outvars = jaxpr.outvars
        return [value(v) for v in outvars], [read(known, v) for v in outvars]

    # Equations that depend on cotangents.

    def linear(self, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact]) -> _Swept:
        """Any primitive: once per objective, with zeros where an objective is not."""
        found = flow(eqn, facts)
        # If nothing is left, one row still tells what type of zero that is.
        rows = merged(x.rows for x in found) or merged(x.rows for x in facts)[:1]
        ins = [x.at(rows) if isinstance(x, Lanes) else x for x in ins]
        outs = self.batched(eqn, ins, len(rows)) if self.stacked else None
        if outs is None:
            per_row = [_bind(eqn, [_at(x, i) for x in ins]) for i in range(len(rows))]
            outs = list(zip(*per_row, strict=True))
            outs = [jnp.stack(x) for x in outs] if self.stacked else outs

        def kept(values: Any, fact: Fact) -> Any:
            if fact.where:
                return Lanes(rows, values).at(fact.rows)
            return jnp.zeros_like(values[0]) if fact.zero else values[0]

        return [kept(*x) for x in zip(outs, found, strict=True)], found

    def batched(self, eqn: jex.JaxprEqn, ins: list[Any], num: int) -> list[Any] | None:
        """All rows at once; None if jax cannot batch this primitive."""
        axes = [0 if isinstance(x, Lanes) else None for x in ins]
        each: Callable[..., Any]
        each = jax.vmap(lambda *xs: _bind(eqn, xs), axes, axis_size=num)
        try:
            return list(each(*(values_of(x) for x in ins)))
        except NotImplementedError:  # a depthwise convolution's gradient, for one
            return None

    def add(self, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact]) -> _Swept:
        """A sum: where an objective is in one term only there is nothing to add."""
        a, b = ins
        alike = isinstance(a, Lanes) and isinstance(b, Lanes)
        linear = all(x.zero for x in facts)
        if self.stacked or not alike or not linear or a.rows == b.rows:
            return self.linear(eqn, ins, facts)
        (found,) = flow(eqn, facts)
        values = []
        for k in found.rows:
            value, *more = [x.values[x.rows.index(k)] for x in ins if k in x.rows]
            values.append(jax.lax.add(value, *more) if more else value)
        return [Lanes(found.rows, tuple(values))], [found]

    def inline(self, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact]) -> _Swept:
        closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
        return self.run(closed.jaxpr, closed.consts, ins, facts)

    def checkpoint(
        self, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact]
    ) -> _Swept:
        """Recomputes once for all objectives.

        The barriers are what ``jax.checkpoint(prevent_cse=True)`` itself lowers to:
        they keep XLA from merging the recomputation with the forward pass.
        """
        wanted = eqn.params["prevent_cse"]
        if isinstance(wanted, bool):
            wanted = (wanted,) * len(ins)
        values = _barriers([values_of(x) for x in ins], wanted)
        ins = [
            dataclasses.replace(x, values=v) if isinstance(x, Lanes) else v
            for x, v in zip(ins, values, strict=True)
        ]
        return self.run(eqn.params["jaxpr"], (), ins, facts)

    def scan(self, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact]) -> _Swept:
        """One scan, whose body is swept; what is carried has its lanes throughout."""
        params, body = eqn.params, eqn.params["jaxpr"]
        num_consts, num_carry = scan_split(eqn)
        inner, found = scan_facts(eqn, facts)
        inner_rows = [x.rows for x in inner[num_consts:]]
        out_rows = [x.rows for x in found]
        consts = ins[:num_consts]
        carry = pack(
            ins[num_consts : num_consts + num_carry],
            inner_rows[:num_carry],
            body.jaxpr.invars[num_consts : num_consts + num_carry],
            stacked=self.stacked,
        )
        xs = [swap(x) for x in ins[num_consts + num_carry :]]

        def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
            args = [*consts, *unpack([*carry, *xs], inner_rows)]
            outs, _ = self.run(body.jaxpr, body.consts, args, inner)
            packed = pack(outs, out_rows, body.jaxpr.outvars, stacked=self.stacked)
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

    def cond(self, eqn: jex.JaxprEqn, ins: list[Any], facts: list[Fact]) -> _Swept:
        """One conditional, whose branches are swept and agree on their lanes."""
        index, *operands = ins
        if isinstance(index, Lanes):
            return self.linear(eqn, ins, facts)
        found = flow(eqn, facts)
        in_rows, out_rows = [rows_of(x) for x in operands], [x.rows for x in found]

        def swept(branch: jex.ClosedJaxpr) -> Callable[..., list[Any]]:
            def call(*values: Any) -> list[Any]:
                args = unpack(values, in_rows)
                outs, _ = self.run(branch.jaxpr, branch.consts, args, facts[1:])
                return pack(outs, out_rows, branch.jaxpr.outvars, stacked=self.stacked)

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
                by_name |= dict.fromkeys(
                    ["default"] if names is None else names, branch
                )
            outs = jax.lax.platform_dependent(*args, **by_name)
        return unpack(outs, out_rows), found


def _at(x: Any, i: int) -> Any:
    return x.values[i] if isinstance(x, Lanes) else x


def _barriers(values: Sequence[Any], wanted: Sequence[bool]) -> list[Any]:
    """An optimization barrier for the wanted values.

    Inside ``shard_map`` one barrier would make all of them vary over every mesh axis
    that any of them varies over, and a replicated parameter's gradient must not: so
    there is one barrier for each kind.
    """
    kinds: dict[Any, list[int]] = {}
    for i, value in enumerate(values):
        leaves = jax.tree.leaves(value)
        if wanted[i] and leaves:
            kinds.setdefault(_varying(leaves[0]), []).append(i)
    out = list(values)
    for members in kinds.values():
        passed = jax.lax.optimization_barrier([values[i] for i in members])
        for i, value in zip(members, passed, strict=True):
            out[i] = value
    return out


def _varying(x: Any) -> Any:
    """The mesh axes that a value inside ``shard_map`` varies over, hashable."""
    kind = jax.typeof(x)
    # jax < 0.10.2 calls it `vma`.
    return getattr(kind, "manual_axis_type", None) or getattr(kind, "vma", None)


def _bind(eqn: jex.JaxprEqn, args: Sequence[Any]) -> list[Any]:
    # The contexts that the equation was traced in: compute_on, x64, its name scope.
    with eqn.ctx.manager, jax.named_scope(str(eqn.source_info.name_stack)):
        params = eqn.primitive.get_bind_params(eqn.params)
        outs = eqn.primitive.bind(*args, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]
