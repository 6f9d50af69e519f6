"""All cotangents in one sweep: a jaxpr interpreter with one lane per objective.

The backward pass of K objectives is linear in their K output cotangents. Of the
traced program ``(inputs, cotangents) -> (losses, gradients)`` every equation is
therefore of one of two kinds:

* it depends on no cotangent (the forward pass, residuals, what ``jax.checkpoint``
  recomputes): it is evaluated once, whatever K is;
* it depends on the cotangents of some objectives: it is evaluated once for each of
  those and for no other, because a cotangent that is not there is zero.

A variable of the second kind is carried as ``Lanes``: the objectives that reach it
and a value for each. Which lanes arrive at a parameter's gradient *is* the answer to
"which objectives reach this parameter", so the gradients and the groups come from one
mechanism, and both see through ``jit``, ``scan``, ``cond``, ``checkpoint`` and
``custom_vjp``.

``jax.linearize`` with one ``jax.linear_transpose`` per objective gives the same
numbers, but it refuses ``custom_vjp`` functions and repeats the recomputation of
``jax.checkpoint`` for every objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
from jax.extend import core as jex

from mmpareto_jax._lanes import Lanes, pack, rows_of, seeds, swap, unpack, values_of
from mmpareto_jax._reach import (
    Support,
    reach,
    scan_rows,
    scan_split,
    support,
    union,
)

Pullback: TypeAlias = Literal["unroll", "vmap"]


def evaluate(
    closed: jex.ClosedJaxpr, cotangents: Sequence[jax.Array], *, pullback: Pullback
) -> list[Any]:
    """Evaluates a backward pass for all of its cotangents at once.

    Args:
      closed: the jaxpr of a function that is linear in its K scalar inputs.
      cotangents: the inputs, one per objective.
      pullback: "unroll" or "vmap", see ``value_and_objective_grads``.

    Returns:
      Per output its lanes; or an array, zero, where no objective reaches.
    """
    stacked = pullback == "vmap"
    lanes = seeds(cotangents, stacked=stacked)
    return _Sweep(stacked=stacked).run(closed.jaxpr, closed.consts, lanes)


class _Sweep:
    """One evaluation; `stacked` says how ``Lanes.values`` are kept."""

    def __init__(self, *, stacked: bool):
        self.stacked = stacked
        self.rules = {
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
        self, jaxpr: jex.Jaxpr, consts: Sequence[Any], args: Sequence[Any]
    ) -> list[Any]:
        env: dict[Any, Any] = {}
        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(v: Any) -> Any:
            return v.val if isinstance(v, jex.Literal) else env[v]

        for eqn in jaxpr.eqns:
            ins = [read(v) for v in eqn.invars]
            if not any(isinstance(x, Lanes) for x in ins):
                outs = _bind(eqn, ins)
            else:
                outs = self.rules.get(eqn.primitive.name, self.linear)(eqn, ins)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    # Equations that depend on cotangents.

    def linear(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        """Any primitive: once per objective, with zeros where an objective is not."""
        in_rows = [rows_of(x) for x in ins]
        rows = union(in_rows)
        ins = [x.expand(rows) if isinstance(x, Lanes) else x for x in ins]
        if self.stacked:
            axes = [0 if isinstance(x, Lanes) else None for x in ins]
            args = [values_of(x) for x in ins]
            outs = jax.vmap(lambda *xs: _bind(eqn, xs), axes, axis_size=len(rows))(
                *args
            )
        else:
            per_row = [
                _bind(eqn, [x.values[i] if isinstance(x, Lanes) else x for x in ins])
                for i in range(len(rows))
            ]
            outs = list(zip(*per_row, strict=True))
        reached = [isinstance(x, Lanes) for x in ins]
        supports = [
            support(
                eqn,
                [x.support[i] if isinstance(x, Lanes) else None for x in ins],
                reached,
            )
            for i in range(len(rows))
        ]
        return [
            Lanes(rows, values, where).keep(out_rows)
            for values, where, out_rows in zip(
                outs, zip(*supports, strict=True), reach(eqn, in_rows), strict=True
            )
        ]

    def add(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        """A sum: where an objective is in one term only there is nothing to add."""
        a, b = ins
        alike = isinstance(a, Lanes) and isinstance(b, Lanes)
        if self.stacked or not alike or a.rows == b.rows:
            return self.linear(eqn, ins)
        rows, values, wheres = union([a.rows, b.rows]), [], []
        for k in rows:
            terms = [x for x in ins if k in x.rows]
            value, *more = [x.values[x.rows.index(k)] for x in terms]
            where = [x.support[x.rows.index(k)] for x in terms]
            values.append(jax.lax.add(value, *more) if more else value)
            wheres.append(where[0] if not more else _either(*where))
        return [Lanes(rows, tuple(values), tuple(wheres))]

    def inline(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
        return self.run(closed.jaxpr, closed.consts, ins)

    def checkpoint(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        """Recomputes once for all objectives.

        The barrier is what ``jax.checkpoint(prevent_cse=True)`` itself lowers to: it
        keeps XLA from merging the recomputation with the forward pass.
        """
        if eqn.params["prevent_cse"]:
            values = jax.lax.optimization_barrier([values_of(x) for x in ins])
            ins = [
                dataclasses.replace(x, values=v) if isinstance(x, Lanes) else v
                for x, v in zip(ins, values, strict=True)
            ]
        return self.run(eqn.params["jaxpr"], (), ins)

    def scan(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        """One scan, whose body is swept; what is carried has its lanes throughout."""
        params, body = eqn.params, eqn.params["jaxpr"]
        num_consts, num_carry = scan_split(eqn)
        in_rows, out_rows = scan_rows(eqn, [rows_of(x) for x in ins])
        consts, inner_rows = ins[:num_consts], in_rows[num_consts:]
        carry = pack(
            ins[num_consts : num_consts + num_carry],
            inner_rows[:num_carry],
            body.jaxpr.invars[num_consts : num_consts + num_carry],
            stacked=self.stacked,
        )
        xs = [swap(x) for x in ins[num_consts + num_carry :]]

        def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
            args = unpack([*carry, *xs], inner_rows)
            outs = self.run(body.jaxpr, body.consts, [*consts, *args])
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
        return [*outs[:num_carry], *(swap(y) for y in outs[num_carry:])]

    def cond(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        """One conditional, whose branches are swept and agree on their lanes."""
        index, *operands = ins
        if isinstance(index, Lanes):
            return self.linear(eqn, ins)
        in_rows = [rows_of(x) for x in operands]
        out_rows = reach(eqn, [(), *in_rows])

        def swept(branch: jex.ClosedJaxpr) -> Callable[..., list[Any]]:
            def call(*values: Any) -> list[Any]:
                args = unpack(values, in_rows)
                outs = self.run(branch.jaxpr, branch.consts, args)
                return pack(outs, out_rows, branch.jaxpr.outvars, stacked=self.stacked)

            return call

        branches = [swept(branch) for branch in eqn.params["branches"]]
        outs = jax.lax.switch(index, branches, *(values_of(x) for x in operands))
        return unpack(outs, out_rows)


def _bind(eqn: jex.JaxprEqn, args: Sequence[Any]) -> list[Any]:
    # The contexts that the equation was traced in: compute_on, x64, its name scope.
    with eqn.ctx.manager, jax.named_scope(str(eqn.source_info.name_stack)):
        params = eqn.primitive.get_bind_params(eqn.params)
        outs = eqn.primitive.bind(*args, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _either(a: Support | None, b: Support | None) -> Support | None:
    return None if a is None or b is None else a | b
