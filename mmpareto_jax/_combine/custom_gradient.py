"""The sum of several losses, with a combined gradient in place of its own."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values

from mmpareto_jax._combine.combined_grads import CombinedGrads
from mmpareto_jax._combine.program import Program
from mmpareto_jax._combine.refresh import RefreshState
from mmpareto_jax._combine.state import AggregateState
from mmpareto_jax._gradients.groups import PyTree
from mmpareto_jax._gradients.manual import varying_axes
from mmpareto_jax._gramians.min_norm import SolverReport


def with_combined_gradient(
    program: Program, combine: Callable[[Callable[..., Any]], CombinedGrads]
) -> Callable[[PyTree | None, Sequence[Any]], tuple[jax.Array, Any, list[Any]]]:
    """``call(state, values) -> (value, state, aux)``, whose gradient is combined.

    Args:
      program: the losses.
      combine: from losses to their ``CombinedGrads``.

    Returns:
      A function of the state of ``combined_grads``, None for a rule that needs none,
      and of the arguments of `program`.
    """
    names = program.names

    @jax.custom_vjp
    def call(state: PyTree | None, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        losses, aux = program.run(values)
        return _total(losses), state, aux

    def forward(state: Any, values: Any) -> tuple[Any, Any]:
        asked = [i for i, x in enumerate(values) if x.perturbed]
        state, values = _only_once(custom_vjp_primal_tree_values((state, values)))
        params = {names[i]: values[i] for i in asked if i < len(names)}
        grads: dict[str, jax.Array] = {}
        if params:
            step = combine(program.run_with)
            before = _state_for(step, state, params, values)
            found, after = step.value_and_grads(before, params, values)
            (losses, aux), grads = found
            state = None if state is None else after
        else:
            losses, aux = program.run(values)
        value = _total(losses)
        _check_reduced(value, params)
        others = {i: None for i in asked if i >= len(names)}
        # Else nothing goes back through the losses: in a loop all would be kept.
        kept = values if others or aux else None
        return (value, state, aux), (grads, others, kept)

    def backward(residuals: Any, cotangents: Any) -> tuple[None, list[Any]]:
        grads, others, values = residuals
        of_value, _, of_aux = cotangents
        plain = functools.partial(_plain, program, values)
        found = plain(others, [of_value, *of_aux])
        own = {i: grads[k] for i, k in enumerate(names) if k in grads}
        if not isinstance(of_value, SymbolicZero):
            found |= {i: _scaled(of_value, x) for i, x in own.items()}
        for i, x in plain(own, [None, *of_aux]).items():
            found[i] = found[i] + x if i in found else x
        return None, [found.get(i) for i in range(len(program.values))]

    call.defvjp(forward, backward, symbolic_zeros=True)
    return call


def _plain(
    program: Program,
    values: Sequence[Any],
    asked: Iterable[int],
    cotangents: Sequence[Any],
) -> dict[int, jax.Array]:
    """What some of the values get from the plain sum, and from aux.

    Args:
      program: the losses.
      values: its arguments.
      asked: which of them.
      cotangents: of the sum, and of each array of aux; of some there may be none.
    """
    given = {
        i: x
        for i, x in enumerate(cotangents)
        if not (x is None or isinstance(x, SymbolicZero))
    }
    own = {i: values[i] for i in asked} if given else {}
    if not own:
        return {}

    def call(own: dict[int, jax.Array]) -> dict[int, jax.Array]:
        losses, aux = program.run([own.get(*x) for x in enumerate(values)])
        out = [_total(losses), *aux]
        return {i: out[i] for i in given}

    found: dict[int, jax.Array] = jax.vjp(call, own)[1](given)[0]
    return found


@jax.custom_jvp
def _only_once(tree: PyTree) -> PyTree:
    """The same values, from which no derivative leads on."""
    return tree


@_only_once.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise NotImplementedError(
        "as_loss: its gradient is a combination of gradients, and has no derivative: "
        "it cannot be differentiated twice. Differentiate the sum of the losses."
    )


def _state_for(
    step: CombinedGrads, state: PyTree | None, params: PyTree, values: Sequence[Any]
) -> PyTree:
    """What ``combined_grads`` is to go on with."""
    first = step.init(params, values)
    if state is None:
        if _remembers(first):
            raise ValueError(
                "as_loss: this rule has a state: call loss(params, state, *args), "
                "which returns the next one, first with state = loss.init(params, "
                "*args)."
            )
        return first
    if isinstance(state, RefreshState) != isinstance(first, RefreshState):
        raise ValueError(
            "as_loss: the state is of another `every`; take that of loss.init."
        )
    found: Any = jax.tree.structure(state)
    if found != jax.tree.structure(first):
        raise ValueError(
            "as_loss: the state is one for other parameters than those that are "
            f"differentiated here, which are {', '.join(params)}. What is frozen "
            "belongs in the further arguments, when loss.init is called, too."
        )
    return state


def _remembers(state: PyTree) -> bool:
    """Whether a step depends on it: on more than what is only there to be read."""

    def is_whole(x: Any) -> bool:
        return isinstance(x, AggregateState | SolverReport)

    for x in jax.tree.leaves(state, is_leaf=is_whole):
        if isinstance(x, AggregateState):
            if _remembers(x.weighting):
                return True
        elif not isinstance(x, SolverReport):
            return True
    return False


def _check_reduced(value: jax.Array, params: Mapping[str, jax.Array]) -> None:
    """Raises if devices have losses of their own, and a parameter in common."""
    for path, x in params.items():
        more = sorted(varying_axes(value) - varying_axes(x))
        if more:
            raise ValueError(
                f"as_loss: the losses vary over the mesh axis {more[0]!r}, and "
                f"parameter {path!r} does not: reduce the losses first "
                "(jax.lax.pmean)."
            )


def _total(losses: Any) -> jax.Array:
    found: jax.Array = (
        functools.reduce(operator.add, losses.values())
        if isinstance(losses, dict)
        else jnp.sum(losses)
    )
    return found


def _scaled(factor: jax.Array, x: jax.Array) -> jax.Array:
    wide = jnp.promote_types(factor.dtype, x.dtype)
    return (factor.astype(wide) * x.astype(wide)).astype(x.dtype)
