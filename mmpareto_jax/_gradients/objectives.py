"""Per-objective gradients from one forward pass, and the groups they define."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.backward import Pulled, pull_back
from mmpareto_jax._gradients.groups import (
    ObjectiveGroups,
    Objectives,
    PyTree,
    as_groups,
    named_leaves,
)
from mmpareto_jax._gradients.lanes import gradient
from mmpareto_jax._gradients.losses import check_function
from mmpareto_jax._gradients.pullback import Pullback
from mmpareto_jax._gradients.reach import Rows

Args = ParamSpec("Args")
Values = TypeVar("Values")


def value_and_objective_grads(
    fun: Callable[Args, Values],
    groups: Objectives | None = None,
    *,
    has_aux: bool = False,
    pullback: Pullback = "unroll",
) -> Callable[Args, tuple[Values, PyTree]]:
    r"""Makes a function that gives all losses and the gradient of each of them.

    For losses :math:`L_1, \dots, L_K` of parameters :math:`\theta` it computes
    :math:`\nabla_\theta L_k` for every :math:`k`, from one forward pass: the
    objectives are pulled back together, and each only through what it reaches. On two
    encoders of equal cost, with one joint and two unimodal losses, that is 5/3 of the
    work of the gradient of the sum, and less where the sum's own gradient recomputes
    (``jax.checkpoint``), since K objectives recompute once.

    A backward pass with a constant part (a ``custom_vjp`` that adds the gradient of an
    auxiliary loss) gives what ``jax.grad`` of each loss gives, and the constant counts
    as reaching. The objectives are then pulled back one by one: the forward passes are
    merged by XLA, effects such as ``jax.debug.print`` are not.

    Args:
      fun: ``fun(params, *args, **kwargs)`` returns the losses: a mapping from names to
        real scalars, or an array [K] of them (a thousand, say: one of each example;
        with ``pullback="vmap"`` the program is that of one). With `has_aux` it returns
        ``(losses, aux)``.
      groups: which objectives act on which parameters (see
        :func:`objective_groups`), or K, or K names: then every parameter gets a row
        for each of the objectives. By default it is inferred at every trace.
      has_aux: whether `fun` returns auxiliary data beside the losses. Anything that
        the forward pass updates (BatchNorm statistics, random states) belongs there:
        it is updated once, whatever K is.
      pullback: "unroll" evaluates the backward pass once per objective, "vmap" once
        with a batch of cotangents. Both give the same gradients; "unroll" is faster
        for convolutions, "vmap" mostly for many objectives on large matrices.

    Returns:
      A function of ``(params, *args, **kwargs)`` that returns ``(losses, grads)``, or
      ``((losses, aux), grads)`` with `has_aux`. The losses are what `fun` returned, a
      dict in its own order; ``jax.jit`` sorts the keys of a dict that it returns, so
      read losses by their names. ``grads`` has the structure of the parameters, and a
      leaf is an array [K_g, \*param.shape] of the parameter's dtype, with a row for
      each of the K_g objectives of its group, in the order of ``groups.groups``, which
      is the order of ``groups.objectives`` in groups that were inferred. A parameter
      that no loss reaches has K_g = 0.

    .. note::
      Inside one ``jax.jit`` with the update, the rows of a stack are combined where
      they are, and the stack itself is never written. With a ``jax.jit`` of its own
      around this function, or after arithmetic on the stacks, they are: about K + 1
      times the shared parameters.

    Raises:
      TypeError: a parameter, or a loss, is not real and floating; `fun` is no function.
      ValueError: no parameter; the losses are neither a mapping of scalars nor a
        vector; `groups` names other objectives than `fun` returns, or disagrees with
        what they reach.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(params, x):
      ...     features = x * params["encoder"]
      ...     return {
      ...         "joint": jnp.sum(features * params["head"]),
      ...         "unimodal": jnp.sum(features**2),
      ...     }
      >>> params = {"encoder": jnp.array([1.0, 2.0]), "head": jnp.array([1.0, -1.0])}
      >>> losses, grads = mmp.value_and_objective_grads(losses_fn)(params, 2.0)
      >>> print(losses["joint"], losses["unimodal"])
      -2.0 20.0
      >>> print(grads["encoder"])  # rows: joint, unimodal
      [[ 2. -2.]
       [ 8. 16.]]
      >>> print(grads["head"])  # joint alone
      [[2. 4.]]
    """
    check_function(fun, "value_and_objective_grads", "fun")
    check_pullback(pullback, "value_and_objective_grads")
    named = None if groups is None else as_groups(groups, "value_and_objective_grads")
    dense = not isinstance(groups, ObjectiveGroups)

    def value_and_grads(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        check_params(params, "value_and_objective_grads")
        found = pull_back(bound(fun, args, kwargs), params, has_aux)
        rows, names = found.rows, found.names
        if named is not None:
            # A bare number stands for whatever the function calls that many losses.
            bare = isinstance(groups, int) and groups == len(names)
            given = as_groups(names, "value_and_objective_grads") if bare else named
            rows = rows_as_given(given, names, params, None if dense else rows)
        grads = stacked_gradients(found, rows, params, pullback)
        values = (found.losses, found.aux) if has_aux else found.losses
        return values, grads

    return cast("Callable[Args, tuple[Values, PyTree]]", value_and_grads)


def objective_groups(
    fun: Callable[..., Any],
    params: PyTree,
    *args: Any,
    has_aux: bool = False,
    **kwargs: Any,
) -> ObjectiveGroups:
    """Finds which objectives reach which parameters, from the function itself.

    The function is traced, not run: an objective reaches a parameter when its
    cotangent arrives there in the backward pass. So what ``jax.lax.stop_gradient``
    cuts off is not reached, whatever the parameters are called. Parameters that are
    reached by the same objectives form a group, named after these: ``"joint+audio"``.

    An objective whose cotangent may arrive counts, so a row may be zero: what an
    array holds is followed axis by axis through slices, reshapes, concatenations,
    stacks, sums, products and indexing with Python numbers (``losses.at[k].set``),
    whatever its size. Indices that are data (``take``, a ``dynamic_slice`` with a
    computed start), masks that are multiplied in, convolutions' channels and a
    rectangle too many (a support is at most 16 boxes) count as everywhere. A zero
    row that was seen as one is left out, also where ``jax.grad`` would multiply a zero
    by an infinity and give NaN.

    Args:
      fun: as in :func:`value_and_objective_grads`.
      params: the parameters; arrays, or ``jax.ShapeDtypeStruct``.
      *args: the further arguments of `fun`; arrays may be ``jax.ShapeDtypeStruct``.
      has_aux: whether `fun` returns ``(losses, aux)``.
      **kwargs: keyword arguments of `fun`.

    Returns:
      The groups, those with most objectives first. Parameters that no loss reaches
      are in the group ``"none"``. In a group's name an objective is quoted that is
      called ``none`` or has a ``+`` or a quote in its name.

    Raises:
      TypeError: a parameter, or a loss, is not real and floating.
      ValueError: the losses are neither a mapping of scalars nor a vector.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> def losses_fn(params, x):
      ...     features = x * params["encoder"]
      ...     return {
      ...         "joint": jnp.sum(features * params["head"]),
      ...         "unimodal": jnp.sum(features**2),
      ...     }
      >>> params = {"encoder": jnp.ones(2), "head": jnp.ones(2), "unused": jnp.ones(2)}
      >>> print(mmp.objective_groups(losses_fn, params, 2.0))
      group           objectives       parameters
      joint+unimodal  joint, unimodal  encoder
      joint           joint            head
      none            -                unused
    """
    check_function(fun, "objective_groups", "fun")
    dynamic, rebuild = split_arrays((args, kwargs))
    found: list[ObjectiveGroups] = []

    def record(params: PyTree, dynamic: list[Any]) -> None:
        args, kwargs = rebuild(dynamic)
        pulled = pull_back(bound(fun, args, kwargs), params, has_aux)
        found.append(groups_found(pulled, params))

    check_params(params, "objective_groups")
    jax.eval_shape(record, params, dynamic)
    return found[0]


def stacked_gradients(
    pulled: Pulled, rows: list[Rows], params: PyTree, pullback: Pullback
) -> PyTree:
    """The gradients of the objectives, with these rows of each parameter stacked."""
    leaves, structure = jax.tree.flatten(params)
    each = zip(pulled.objectives(pullback), rows, leaves, strict=True)
    return jax.tree.unflatten(structure, [gradient(*x) for x in each])


def groups_found(pulled: Pulled, params: PyTree) -> ObjectiveGroups:
    """The groups of the parameters that a function was differentiated by."""
    names, reached = pulled.names, pulled.rows
    paths = [path for path, _ in named_leaves(params)]
    members: dict[str, str] = {}
    groups: dict[str, tuple[str, ...]] = {}
    for rows in sorted(set(reached), key=lambda rows: (-len(rows), rows)):
        name = "+".join(_quoted(names[k]) for k in rows) or "none"
        groups[name] = tuple(names[k] for k in rows)
        members |= {p: name for p, r in zip(paths, reached, strict=True) if r == rows}
    return ObjectiveGroups(names, groups, members)


def _quoted(name: str) -> str:
    """An objective's name as a part of a group's, which no other group may have."""
    plain = name not in ("", "none") and not set(name) & set("+'\"")
    return name if plain else repr(name)


def bound(fun: Any, args: Any, kwargs: Any) -> Callable[[PyTree], Any]:
    """The function of its parameters alone."""
    return lambda params: fun(params, *args, **kwargs)


def rows_as_given(
    groups: ObjectiveGroups,
    names: tuple[str, ...],
    params: PyTree,
    reached: list[Rows] | None,
    caller: str = "value_and_objective_grads",
) -> list[Rows]:
    """Per parameter the rows that `groups` asks for, checked against `reached`."""
    if set(groups.objectives) != set(names):
        raise ValueError(
            f"{caller}: unknown objective: the groups are for "
            f"{groups.objectives}, the function returns {names}."
        )
    index = {name: k for k, name in enumerate(names)}
    rows = []
    for i, (path, _) in enumerate(named_leaves(params)):
        group = groups.group_of(path)
        rows.append(tuple(index[name] for name in groups.groups[group]))
        if reached is not None and set(rows[-1]) != set(reached[i]):
            found = tuple(names[k] for k in reached[i])
            raise ValueError(
                f"{caller}: parameter {path!r} is in group {group!r} "
                f"with the objectives {groups.groups[group]}, but in the function it "
                f"is reached by {found}."
            )
    return rows


def check_params(params: PyTree, caller: str) -> None:
    """Raises unless there are parameters, and all are real floating arrays."""
    named = named_leaves(params)
    if not named:
        raise ValueError(f"{caller}: the parameters have no arrays.")
    for path, leaf in named:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{caller}: parameter {path!r} must be a real floating array, got "
                f"{dtype or type(leaf).__name__}."
            )


def check_pullback(pullback: str, caller: str) -> None:
    """Raises unless it is a way of evaluating a backward pass."""
    if pullback not in ("unroll", "vmap"):
        raise ValueError(
            f"{caller}: `pullback` must be 'unroll' or 'vmap', got {pullback!r}."
        )


def split_arrays(tree: PyTree) -> tuple[list[Any], Callable[[list[Any]], PyTree]]:
    """The leaves of a tree that are arrays, and how to put others in their places."""
    leaves, treedef = jax.tree.flatten(tree)
    where = [i for i, x in enumerate(leaves) if hasattr(x, "shape")]

    def rebuild(arrays: list[Any]) -> PyTree:
        full = list(leaves)
        for i, x in zip(where, arrays, strict=True):
            full[i] = x
        return jax.tree.unflatten(treedef, full)

    return [leaves[i] for i in where], rebuild
