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
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

from mmpareto_jax._reach import (
    Rows,
    Support,
    reach,
    scan_rows,
    scan_split,
    support,
    union,
)

Pullback: TypeAlias = Literal["unroll", "vmap"]


@dataclasses.dataclass(frozen=True)
class Lanes:
    """A cotangent-dependent value, for the objectives that it depends on.

    Attributes:
      rows: the objectives, increasing; for all others the value is zero.
      values: one array per row; or, in "vmap" mode, one array [len(rows), ...].
      support: per row, where the value can be non-zero (bool, the value's shape), or
        None for everywhere. It tells the objectives of a loss *array* apart.
    """

    rows: Rows
    values: Any
    support: tuple[Support | None, ...]


def evaluate(
    closed: jex.ClosedJaxpr, args: Sequence[Any], *, pullback: Pullback
) -> list[Any]:
    """Evaluates a jaxpr whose inputs and outputs are arrays or ``Lanes``."""
    return _Sweep(stacked=pullback == "vmap").run(closed.jaxpr, closed.consts, args)


def seeds(cotangents: Sequence[jax.Array], *, pullback: Pullback) -> list[Lanes]:
    """The K output cotangents (scalars) as lanes: objective k is in row k alone."""
    return [
        Lanes((k,), c[None] if pullback == "vmap" else (c,), (np.ones((), bool),))
        for k, c in enumerate(cotangents)
    ]


def row_values(value: Any, rows: Rows, like: jax.Array, pullback: Pullback) -> Any:
    """Stacks a swept gradient: [len(rows), *like.shape], zeros where nothing reaches.

    Rows of ``value`` that are not asked for are dropped.
    """
    if not rows:
        return jnp.zeros((0, *like.shape), like.dtype)
    if not isinstance(value, Lanes):
        value = Lanes((), (), ())
    if pullback == "vmap" and value.rows == rows:
        return value.values
    present = dict(zip(value.rows, value.values, strict=True))
    zero = jnp.zeros_like(like)
    return jnp.stack([present.get(k, zero) for k in rows])


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
        in_rows = [_rows(x) for x in ins]
        rows = union(in_rows)
        ins = [self.expand(x, rows) if isinstance(x, Lanes) else x for x in ins]
        if self.stacked:
            axes = [0 if isinstance(x, Lanes) else None for x in ins]
            args = [_values(x) for x in ins]
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
            self.keep(Lanes(rows, values, where), out_rows)
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
            values = jax.lax.optimization_barrier([_values(x) for x in ins])
            ins = [
                dataclasses.replace(x, values=v) if isinstance(x, Lanes) else v
                for x, v in zip(ins, values, strict=True)
            ]
        return self.run(eqn.params["jaxpr"], (), ins)

    def scan(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        body = eqn.params["jaxpr"]
        num_consts, num_carry = scan_split(eqn)
        in_rows, out_rows = scan_rows(eqn, [_rows(x) for x in ins])
        avals = [v.aval for v in body.jaxpr.invars]
        consts = ins[:num_consts]
        split = num_consts + num_carry
        carry = [
            self.pack(x, r, a)
            for x, r, a in zip(
                ins[num_consts:split],
                in_rows[num_consts:split],
                avals[num_consts:split],
                strict=True,
            )
        ]
        xs = [self.swap(x.values) if isinstance(x, Lanes) else x for x in ins[split:]]

        def step(carry: list[Any], xs: list[Any]) -> tuple[list[Any], list[Any]]:
            rows = in_rows[num_consts:]
            args = [self.unpack(x, r) for x, r in zip([*carry, *xs], rows, strict=True)]
            outs = self.run(body.jaxpr, body.consts, [*consts, *args])
            outs = [
                self.pack(x, r, v.aval)
                for x, r, v in zip(outs, out_rows, body.jaxpr.outvars, strict=True)
            ]
            return outs[:num_carry], outs[num_carry:]

        params = eqn.params
        carry, ys = jax.lax.scan(
            step,
            carry,
            xs,
            length=params["length"],
            reverse=params["reverse"],
            unroll=params["unroll"],
        )
        ys = [
            self.swap(y) if r else y
            for y, r in zip(ys, out_rows[num_carry:], strict=True)
        ]
        return [self.unpack(x, r) for x, r in zip([*carry, *ys], out_rows, strict=True)]

    def cond(self, eqn: jex.JaxprEqn, ins: list[Any]) -> list[Any]:
        index, *operands = ins
        if isinstance(index, Lanes):
            return self.linear(eqn, ins)
        in_rows = [_rows(x) for x in operands]
        out_rows = reach(eqn, [(), *in_rows])

        def take(branch: jex.ClosedJaxpr) -> Any:
            def call(*values: Any) -> list[Any]:
                args = [self.unpack(x, r) for x, r in zip(values, in_rows, strict=True)]
                outs = self.run(branch.jaxpr, branch.consts, args)
                return [
                    self.pack(x, r, v.aval)
                    for x, r, v in zip(
                        outs, out_rows, branch.jaxpr.outvars, strict=True
                    )
                ]

            return call

        values = [_values(x) for x in operands]
        branches = [take(b) for b in eqn.params["branches"]]
        outs = jax.lax.switch(index, branches, *values)
        return [self.unpack(x, r) for x, r in zip(outs, out_rows, strict=True)]

    # Lanes and their parts.

    def expand(self, x: Lanes, rows: Rows) -> Lanes:
        """The same value on more rows, zero on the new ones."""
        if x.rows == rows:
            return x
        where = {k: i for i, k in enumerate(x.rows)}
        zero = jnp.zeros_like(x.values[0])
        values = [x.values[where[k]] if k in where else zero for k in rows]
        nowhere = np.broadcast_to(False, zero.shape)
        support = tuple(x.support[where[k]] if k in where else nowhere for k in rows)
        return Lanes(
            rows, jnp.stack(values) if self.stacked else tuple(values), support
        )

    def keep(self, x: Lanes, rows: Rows) -> Any:
        """Drops the rows that are not in `rows` or zero everywhere."""
        kept = [
            i
            for i, (k, where) in enumerate(zip(x.rows, x.support, strict=True))
            if k in rows and (where is None or where.any())
        ]
        if len(kept) == len(x.rows):
            return x
        if not kept:
            return jnp.zeros_like(x.values[0])
        values = (
            x.values[np.array(kept)]
            if self.stacked
            else tuple(x.values[i] for i in kept)
        )
        return Lanes(
            tuple(x.rows[i] for i in kept), values, tuple(x.support[i] for i in kept)
        )

    def pack(self, x: Any, rows: Rows, aval: Any) -> Any:
        """The values of `x` on exactly `rows`, as control flow carries them."""
        if isinstance(x, Lanes):
            return self.expand(x, rows).values
        # Weak types and Python scalars would change a carry's type between steps.
        x = jax.lax.convert_element_type(x, aval.dtype)
        if not rows:
            return x
        same = [x] * len(rows)
        return jnp.stack(same) if self.stacked else tuple(same)

    def unpack(self, values: Any, rows: Rows) -> Any:
        return Lanes(rows, values, (None,) * len(rows)) if rows else values

    def swap(self, values: Any) -> Any:
        """Between [row, step, ...] and [step, row, ...]."""
        return jnp.swapaxes(values, 0, 1) if self.stacked else values


def _bind(eqn: jex.JaxprEqn, args: Sequence[Any]) -> list[Any]:
    # The contexts that the equation was traced in: compute_on, x64, its name scope.
    with eqn.ctx.manager, jax.named_scope(str(eqn.source_info.name_stack)):
        params = eqn.primitive.get_bind_params(eqn.params)
        outs = eqn.primitive.bind(*args, **params)
    return list(outs) if eqn.primitive.multiple_results else [outs]


def _rows(x: Any) -> Rows:
    return x.rows if isinstance(x, Lanes) else ()


def _values(x: Any) -> Any:
    return x.values if isinstance(x, Lanes) else x


def _either(a: Support | None, b: Support | None) -> Support | None:
    return None if a is None or b is None else a | b
