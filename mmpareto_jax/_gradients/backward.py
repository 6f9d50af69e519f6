"""The backward pass of a function of several losses: traced, understood, evaluated."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from mmpareto_jax._gradients.binding import barriers
from mmpareto_jax._gradients.constants import Array, Known, unknown
from mmpareto_jax._gradients.groups import PyTree
from mmpareto_jax._gradients.lanes import Lanes, rows_of, values_of
from mmpareto_jax._gradients.losses import outputs, split_aux
from mmpareto_jax._gradients.mixes import Mixes
from mmpareto_jax._gradients.pullback import Pullback, evaluate
from mmpareto_jax._gradients.reach import Fact, Rows, about, seeds, trace


@dataclasses.dataclass(frozen=True)
class Pulled:
    """A forward pass, and the backward passes that can follow it.

    Attributes:
      losses: as the function returns them.
      aux: as the function returns it.
      names: of the objectives.
      rows: per leaf of the parameters the objectives that reach it.
    """

    losses: Any
    aux: Any
    names: tuple[str, ...]
    rows: list[Rows]
    # For all objectives; or a list, one for each, where it has a constant part.
    _backward: _Backward | list[_Backward]

    def objectives(self, pullback: Pullback) -> list[Any]:
        """Per leaf its gradients as lanes; or an array of zeros, if it has no row."""
        if isinstance(self._backward, _Backward):
            return self._backward.evaluate(pullback)
        # One objective has one row: there is nothing to batch.
        found = [x.evaluate("unroll") for x in self._backward]
        return [
            Lanes(own, tuple(_row(found[k][i]) for k in own)) if own else found[0][i]
            for i, own in enumerate(self.rows)
        ]

    def mixed(
        self, pullback: Pullback, mixes: Mixes, *, again: bool = False
    ) -> list[jax.Array]:
        """Per leaf one weighted sum of its gradients, in as few passes as can be.

        Args:
          pullback: how to evaluate what is not mixed.
          mixes: the sums.
          again: keeps XLA from merging this with an earlier pass, whose values it
            would keep from then on.
        """
        if isinstance(self._backward, _Backward):
            once = self._backward.after(mixes.weights) if again else self._backward
            return once.evaluate(pullback, mixes)
        found = self.objectives(pullback)
        return [mixes.output(i, x) for i, x in enumerate(found)]


def pull_back(call: Callable[[PyTree], Any], params: PyTree, has_aux: bool) -> Pulled:
    """Runs the forward pass, and finds what reaches which parameter.

    One backward pass is for all objectives where it is linear. Where a ``custom_vjp``
    adds a constant to it, nothing says whose it is: each objective is then pulled back
    by itself, which is what ``jax.grad`` of it does, and XLA merges the forward passes.

    Args:
      call: of the parameters; returns the losses, with `has_aux` and aux.
      params: the parameters.
      has_aux: whether there is aux.
    """
    names: tuple[str, ...] = ()
    order: list[Any] | None = None

    def scalars(params: PyTree) -> tuple[list[jax.Array], Any]:
        nonlocal names, order
        with _pulling():
            found = call(params)
        losses, aux = split_aux(found) if has_aux else (found, None)
        names, values = outputs(losses)
        order = list(losses) if type(losses) is dict else None
        return values, (losses, aux)

    backward, (losses, aux) = _linearised(scalars, params)
    if order is not None:  # as a pytree a dict has its keys sorted
        losses = {name: losses[name] for name in order}
    if all(x.zero for x in backward.facts):
        rows = [x.rows for x in backward.facts]
        return Pulled(losses, aux, names, rows, backward)
    alone = [
        _linearised(functools.partial(_only, scalars, k), params)[0]
        for k in range(len(names))
    ]
    rows = [
        tuple(k for k, x in enumerate(facts) if x.where or not x.zero)
        for facts in zip(*(x.facts for x in alone), strict=True)
    ]
    return Pulled(losses, aux, names, rows, alone)


_IS_PULLED = contextvars.ContextVar("_IS_PULLED", default=False)


@contextlib.contextmanager
def _pulling() -> Iterator[None]:
    token = _IS_PULLED.set(True)
    try:
        yield
    finally:
        _IS_PULLED.reset(token)


def is_pulled() -> bool:
    """Whether losses are being traced here whose gradients are to be combined."""
    return _IS_PULLED.get()


@dataclasses.dataclass(frozen=True)
class _Backward:
    """A traced backward pass, and what is known of its constants and its outputs."""

    closed: jex.ClosedJaxpr
    consts: Sequence[Fact]
    cotangents: list[jax.Array]
    facts: list[Fact]

    def evaluate(self, pullback: Pullback, mixes: Mixes | None = None) -> list[Any]:
        given = self.closed, self.consts, self.cotangents
        return evaluate(*given, pullback=pullback, mixes=mixes)

    def after(self, values: PyTree) -> _Backward:
        """The same pass, which begins when these values are there."""
        both = [*self.cotangents, *jax.tree.leaves(values)]
        own = barriers(both, [True] * len(both))[: len(self.cotangents)]
        return dataclasses.replace(self, cotangents=own)


def _linearised(
    scalars: Callable[[PyTree], tuple[list[jax.Array], Any]], params: PyTree
) -> tuple[_Backward, Any]:
    values, vjp, extra = jax.vjp(scalars, params, has_aux=True)
    cotangents = [jnp.ones_like(x) for x in values]
    closed = jax.make_jaxpr(vjp)(cotangents)
    again = functools.cache(lambda: _constants(scalars, params, closed))
    consts = [_about(x, i, again) for i, x in enumerate(closed.consts)]
    facts = trace(closed, seeds([x.shape for x in values]), consts)
    return _Backward(closed, consts, cotangents, facts), extra


def _only(
    scalars: Callable[[PyTree], tuple[list[jax.Array], Any]], k: int, params: PyTree
) -> tuple[list[jax.Array], Any]:
    values, extra = scalars(params)
    return [values[k] if values[0].ndim == 0 else values[0][k]], extra


def _row(x: Any) -> jax.Array:
    """The gradient of the only objective."""
    row: jax.Array = values_of(x)[0] if rows_of(x) else x
    return row


def _about(x: Any, i: int, again: Callable[[], list[Known]]) -> Fact:
    """What is known of a residual: an index or a mask may be a constant of the program.

    That shows in a trace of the forward and the backward pass together, which is made
    if somebody asks.
    """
    fact = about(x)
    if fact.known is unknown and jnp.result_type(x).kind in "iub":
        return Fact(known=functools.cache(lambda: _value(again, i)))
    return fact


def _value(again: Callable[[], list[Known]], i: int) -> Array | None:
    return again()[i]()


def _constants(
    scalars: Callable[[PyTree], tuple[list[jax.Array], Any]],
    params: PyTree,
    closed: jex.ClosedJaxpr,
) -> list[Known]:
    """The values of the residuals of `closed`, of those that are constants."""

    def residuals(params: PyTree) -> list[Any]:
        values, vjp, _ = jax.vjp(scalars, params, has_aux=True)
        return list(jax.make_jaxpr(vjp)([jnp.ones_like(x) for x in values]).consts)

    nothing: list[Known] = [unknown] * len(closed.consts)
    try:
        both = jax.make_jaxpr(residuals)(params)
    except Exception:
        # Called with arrays, outside of jit, the function may look at their values; and
        # whatever it objects to, without this second trace it has worked.
        return nothing
    types = [(v.aval.shape, v.aval.dtype) for v in closed.jaxpr.constvars]
    if [(x.shape, x.dtype) for x in both.out_avals] != types:
        return nothing
    return [x.known for x in trace(both, [Fact()] * len(both.in_avals))]
