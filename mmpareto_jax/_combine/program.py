"""A function of several losses, as a function of all the arrays that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jex

from mmpareto_jax._gradients.groups import PyTree, named_leaves
from mmpareto_jax._gradients.losses import outputs, split_aux
from mmpareto_jax._gradients.objectives import split_arrays


class Program(NamedTuple):
    """Losses, traced once. Nothing is closed over, so any transformation may go around.

    Attributes:
      names: the paths of the parameters.
      values: the arguments: the parameters, other arrays, and what was closed over.
      run: ``run(values) -> (losses, aux)``, the losses a dict or an array [K], aux a
        list of arrays.
      aux: from such a list to aux as the function returns it.
      closed: the whole.
    """

    names: tuple[str, ...]
    values: list[Any]
    run: Callable[[Sequence[Any]], tuple[Any, list[jax.Array]]]
    aux: Callable[[list[Any]], PyTree]
    closed: jex.ClosedJaxpr

    def run_with(
        self, params: Mapping[str, Any], values: Sequence[Any]
    ) -> tuple[Any, list[jax.Array]]:
        """``run(values)``, with some of the parameters, by path, in their places."""
        num = len(self.names)
        own = [params.get(*x) for x in zip(self.names, values[:num], strict=True)]
        return self.run([*own, *values[num:]])


def program_of(
    losses_fn: Callable[..., Any],
    params: PyTree,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    has_aux: bool,
) -> Program:
    """Traces ``losses_fn(params, *args, **kwargs)``.

    Raises:
      TypeError: as ``outputs`` and ``split_aux``.
      ValueError: as ``outputs``; or a parameter is changed, without aux to tell of it.
    """
    named = named_leaves(params)
    if not named:
        raise ValueError("as_loss: the parameters have no arrays.")
    for path, x in named:
        if not (hasattr(x, "dtype") or isinstance(x, int | float | complex)):
            raise TypeError(
                f"as_loss: parameter {path!r} must be an array, got {type(x).__name__}."
            )
    leaves, structure = jax.tree.flatten(params)
    arrays, rebuild = split_arrays((args, kwargs))
    names: tuple[str, ...] = ()
    aux_of: Callable[[list[Any]], PyTree] = list

    def flat(leaves: list[Any], arrays: list[Any]) -> tuple[list[Any], list[Any]]:
        nonlocal names, aux_of
        given, (args, kwargs) = jax.tree.unflatten(structure, leaves), rebuild(arrays)
        out = losses_fn(given, *args, **kwargs)
        losses, aux = split_aux(out) if has_aux else (out, None)
        if not has_aux:
            _check_unchanged(leaves, given)
        names, values = outputs(losses)
        aux_leaves, aux_of = split_arrays(aux)
        return values, aux_leaves

    closed = jax.make_jaxpr(flat)(leaves, arrays)
    in_array = closed.out_avals[0].ndim == 1
    num = 1 if in_array else len(names)
    # Arrays that are known stay where it is seen what they hold.
    hoisted = [i for i, x in enumerate(closed.consts) if isinstance(x, jax.core.Tracer)]

    def run(values: Sequence[Any]) -> tuple[Any, list[jax.Array]]:
        consts, end = list(closed.consts), len(values) - len(hoisted)
        for i, x in zip(hoisted, values[end:], strict=True):
            consts[i] = x
        out = jex.jaxpr_as_fun(jex.ClosedJaxpr(closed.jaxpr, consts))(*values[:end])
        losses = out[0] if in_array else dict(zip(names, out[:num], strict=True))
        return losses, [jnp.asarray(x) for x in out[num:]]

    values = [*leaves, *arrays, *(closed.consts[i] for i in hoisted)]
    paths = tuple(path for path, _ in named_leaves(params))
    return Program(paths, values, run, aux_of, closed)


def has_scope(jaxpr: jex.Jaxpr, primitive: str, scope: str) -> bool:
    """Whether anywhere in it a primitive is applied in a scope of this name."""
    return any(
        (eqn.primitive.name == primitive and scope in str(eqn.source_info.name_stack))
        or any(has_scope(x, primitive, scope) for x in jex.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _check_unchanged(leaves: Sequence[Any], given: PyTree) -> None:
    """Raises if a function has changed its argument, a module with statistics, say."""
    for (path, after), before in zip(named_leaves(given), leaves, strict=False):
        if after is not before:
            raise ValueError(
                f"as_loss: `losses_fn` changes {path!r} of the parameters, and nothing "
                "would be left of that: return what changes as aux, with has_aux=True."
            )
