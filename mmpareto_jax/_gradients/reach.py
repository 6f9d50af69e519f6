"""Which objectives a value depends on and where: read from a jaxpr, not evaluated.

All that the sweep must know before it evaluates an equation is a ``Fact`` about each
of its values. They are found here, through control flow too; what single primitives
do to them is in ``support.py``, ``indexing.py``, ``zeros.py``, ``constants.py``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from jax.extend import core as jex

from mmpareto_jax._gradients.boxes import NOWHERE, Support, axis, mapped, union
from mmpareto_jax._gradients.constants import Known, constant, fold, unknown
from mmpareto_jax._gradients.support import supports
from mmpareto_jax._gradients.zeros import CLIPS, zero_out

Rows: TypeAlias = tuple[int, ...]

# Primitives whose inner jaxpr has their own inputs and outputs, one to one.
CALLS = frozenset(
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
    )
)

# Every output is the operand in its place.
_PLACES = frozenset(("optimization_barrier", "pvary", "pcast"))
# Every output is made of the operand in its place, element by element.
_REDUCED = frozenset(("psum", "psum_invariant", "psum2", "pmax", "pmin", "ppermute"))


@dataclasses.dataclass(frozen=True)
class Fact:
    """What is known of a value without evaluating it.

    Attributes:
      where: per objective that the value depends on, where it can be non-zero.
      zero: whether the value is zero where all cotangents are.
      known: gives the value, if it is a constant of the program.
    """

    where: Mapping[int, Support] = dataclasses.field(default_factory=dict)
    zero: bool = False
    known: Known = dataclasses.field(default=unknown, compare=False)

    @property
    def rows(self) -> Rows:
        """The objectives that the value depends on, increasing."""
        return tuple(sorted(self.where))

    def term(self, row: int) -> Support:
        """Where the value can be non-zero for one objective, constants included."""
        return self.where.get(row, NOWHERE if self.zero else None)


def about(value: Any) -> Fact:
    """What is known of a literal or a constant of a jaxpr."""
    known = constant(value)
    written = known()
    return Fact(zero=written is not None and not written.any(), known=known)


def seeds(shapes: Sequence[tuple[int, ...]]) -> list[Fact]:
    """What is known of the cotangents: of K scalars, or of one array [K]."""
    if shapes[0] == ():
        return [Fact({k: None}, zero=True) for k in range(len(shapes))]
    ((num,),) = shapes
    places = {k: ((axis(num, ((k, k + 1),)),),) for k in range(num)}
    return [Fact(places, zero=True)]


def merged(rows: Iterable[Rows]) -> Rows:
    """All objectives in any of `rows`, increasing."""
    return tuple(sorted(set().union(*rows)))


def flow(eqn: jex.JaxprEqn, ins: Sequence[Fact]) -> list[Fact]:
    """What is known of the outputs of an equation, from its inputs."""
    name = eqn.primitive.name
    if name in _FLOWS:
        return _FLOWS[name](eqn, ins)
    if name in CALLS:
        return trace(eqn.params.get("jaxpr") or eqn.params["call_jaxpr"], ins)
    if name in _PLACES:
        return list(ins)
    if name in _REDUCED:
        return [dataclasses.replace(x, known=unknown) for x in ins]
    rows, known = merged(x.rows for x in ins), [x.known for x in ins]
    zero = zero_out(eqn, [x.zero for x in ins], [bool(x.where) for x in ins], known)
    if not rows:
        return [Fact(zero=zero, known=x) for x in fold(eqn, known)]
    found: dict[tuple[Support, ...], list[Support]] = {}
    outs: list[dict[int, Support]] = [{} for _ in eqn.outvars]
    for row in rows:
        # A bound of a clip that is zero at zero is not a term of it.
        skip = zero and name in CLIPS
        terms = tuple(NOWHERE if skip and not x.where else x.term(row) for x in ins)
        if terms not in found:
            found[terms] = supports(eqn, terms, known)
        for out, where in zip(outs, found[terms], strict=True):
            if where != NOWHERE:
                out[row] = where
    return [Fact(out, zero) for out in outs]


def trace(
    jaxpr: jex.Jaxpr | jex.ClosedJaxpr,
    ins: Sequence[Fact],
    consts: Sequence[Fact] | None = None,
) -> list[Fact]:
    """What is known of the outputs of a jaxpr, from its inputs (and constants)."""
    env = environment(jaxpr, ins, consts)
    return [read(env, v) for v in getattr(jaxpr, "jaxpr", jaxpr).outvars]


def environment(
    jaxpr: jex.Jaxpr | jex.ClosedJaxpr,
    ins: Sequence[Fact],
    consts: Sequence[Fact] | None = None,
) -> dict[Any, Fact]:
    """What is known of every variable of a jaxpr."""
    if consts is None:
        consts = [about(x) for x in getattr(jaxpr, "consts", ())]
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    env: dict[Any, Fact] = dict(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, ins, strict=True))
    for eqn in jaxpr.eqns:
        outs = flow(eqn, [read(env, v) for v in eqn.invars])
        env.update(zip(eqn.outvars, outs, strict=True))
    return env


def read(env: Mapping[Any, Fact], v: Any) -> Fact:
    """The fact about a variable or a literal."""
    return about(v.val) if isinstance(v, jex.Literal) else env[v]


def scan_split(eqn: jex.JaxprEqn) -> tuple[int, int]:
    """The numbers of constants and of carried values of a scan equation."""
    params = eqn.params
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    # jax >= 0.12 keeps (consts, carry, xs) as nested structures instead.
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def scan_facts(eqn: jex.JaxprEqn, ins: Sequence[Fact]) -> tuple[list[Fact], list[Fact]]:
    """Of a scan: what the body is given, once the carry has settled; its outputs."""
    num_consts, num_carry = scan_split(eqn)
    split = num_consts + num_carry
    consts, xs = ins[:num_consts], [_step(x) for x in ins[split:]]
    carry, outs = _settled(
        ins[num_consts:split],
        lambda carry: trace(eqn.params["jaxpr"], [*consts, *carry, *xs]),
    )
    length = eqn.params["length"]
    ys = [_moved(x, lambda box: (axis(length), *box)) for x in outs[num_carry:]]
    return [*consts, *carry, *xs], [*carry, *ys]


def _step(x: Fact) -> Fact:
    return _moved(x, lambda box: box[1:])


def _moved(x: Fact, change: Callable[[Any], Any]) -> Fact:
    return Fact({k: mapped(where, change) for k, where in x.where.items()}, x.zero)


def _settled(
    carry: Sequence[Fact], body: Callable[[list[Fact]], list[Fact]]
) -> tuple[list[Fact], list[Fact]]:
    """What holds of a carry before and after every step; and of the body's outputs."""
    now = [dataclasses.replace(x, known=unknown) for x in carry]
    while True:
        outs = body(now)
        after = [_widened(x, y) for x, y in zip(now, outs, strict=False)]
        if after == now:
            return now, outs
        now = after


def _widened(x: Fact, y: Fact) -> Fact:
    """What holds of both. A set that still grows is everywhere, so that it ends."""
    new = dict(x.where)
    for k, where in y.where.items():
        grows = k in new and new[k] != where and union([new[k], where]) != new[k]
        new[k] = None if grows else new.get(k, where)
    return Fact(new, x.zero and y.zero)


def _scan(eqn: jex.JaxprEqn, ins: Sequence[Fact]) -> list[Fact]:
    return scan_facts(eqn, ins)[1]


def _cond(eqn: jex.JaxprEqn, ins: Sequence[Fact]) -> list[Fact]:
    index, *operands = ins
    branches = [trace(branch, operands) for branch in eqn.params["branches"]]
    outs = [_any_of(facts) for facts in zip(*branches, strict=True)]
    # A choice that depends on a cotangent makes everything depend on it.
    return (
        [_everywhere(x, merged([index.rows, x.rows])) for x in outs]
        if (index.where)
        else outs
    )


def _any_of(facts: Sequence[Fact]) -> Fact:
    rows = merged(x.rows for x in facts)
    where = {k: union([x.term(k) for x in facts]) for k in rows}
    return Fact(where, all(x.zero for x in facts))


def _everywhere(x: Fact, rows: Rows) -> Fact:
    return Fact(dict.fromkeys(rows), x.zero)


def _while(eqn: jex.JaxprEqn, ins: Sequence[Fact]) -> list[Fact]:
    params = eqn.params
    first = params["cond_nconsts"]
    split = first + params["body_nconsts"]
    consts, choice = ins[first:split], ins[:first]
    carry, _ = _settled(
        ins[split:], lambda carry: trace(params["body_jaxpr"], [*consts, *carry])
    )
    (again,) = trace(params["cond_jaxpr"], [*choice, *carry])
    if not again.where:
        return carry
    rows = merged(x.rows for x in [again, *ins[split:], *consts])
    return [_everywhere(x, rows) for x in carry]


def _shard_map(eqn: jex.JaxprEqn, ins: Sequence[Fact]) -> list[Fact]:
    outs = trace(eqn.params["jaxpr"], inside_shards(ins))
    return [_everywhere(x, x.rows) for x in outs]


def inside_shards(ins: Sequence[Fact]) -> list[Fact]:
    """Inside, arrays are parts of those outside: other places, the same objectives."""
    return [_everywhere(x, x.rows) for x in ins]


_FLOWS: dict[str, Callable[[jex.JaxprEqn, Sequence[Fact]], list[Fact]]] = {
    "scan": _scan,
    "cond": _cond,
    "while": _while,
    "shard_map": _shard_map,
}
