"""Gradients with respect to shared features instead of the trunk's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._combine.combined_grads import check_combination
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.losses import check_function, split_aux
from mmpareto_jax._gradients.objectives import (
    check_pullback,
    objective_groups,
    value_and_objective_grads,
)
from mmpareto_jax._gradients.pullback import Pullback


class FeatureLevel(NamedTuple):
    """What ``feature_level`` returns.

    Attributes:
      groups: ``groups(params, *args) -> ObjectiveGroups``, for the tree
        ``{"features": ..., "params": ...}``; where losses are differentiated through
        the aux of the trunk, with those of its leaves as ``"aux"``.
      init: ``init(params, *args) -> state``; the arguments may be
        ``jax.ShapeDtypeStruct``.
      value_and_grads: ``value_and_grads(state, params, *args) -> ((losses, grads),
        state)``, or ``(((losses, aux), grads), state)`` with `has_aux`. Gradients have
        the structure of params, without a leading axis.
    """

    groups: Callable[..., ObjectiveGroups]
    init: Callable[..., PyTree]
    value_and_grads: Callable[..., tuple[Any, PyTree]]


def feature_level(
    features_fn: Callable[..., Any],
    losses_fn: Callable[..., Any],
    combination: Callable[[ObjectiveGroups], optax.GradientTransformationExtraArgs],
    *,
    has_aux: bool = False,
    pullback: Pullback = "unroll",
) -> FeatureLevel:
    r"""Combines gradients at the features, and goes once through the trunk.

    With features :math:`z = f(\theta)` and losses :math:`L_k(z)`, the objectives'
    gradients are taken with respect to z, combined there, and the combination is
    pulled back:

    .. math:: d_\theta = \left(\frac{\partial z}{\partial \theta}\right)^T
        \text{combination}\left(\frac{\partial L_1}{\partial z}, \dots,
        \frac{\partial L_K}{\partial z}\right)

    The backward pass through the trunk costs what it costs for one loss, whatever K
    is. The pull-back is exact, but the rule sees other Gramians than those of the
    trunk's parameters. For MGDA this is MGDA-UB: what is minimised bounds the norm of
    the combined gradient of the parameters from above, up to the norm of
    :math:`\partial z / \partial \theta`, and has the same stationary points where that
    matrix has full rank. Conflicts of the features are not those of the parameters.

    What a loss reads of the trunk's results is a feature, whichever way it comes: with
    `has_aux` a floating leaf of the trunk's aux that depends on the parameters and that
    a loss is differentiated through (a penalty on weights or activations) is one of
    the leaves of z. All else in aux passes through as it is (BatchNorm statistics,
    integers, random keys, strings), and costs nothing.

    Args:
      features_fn: ``features_fn(params, *args) -> features``, a tree of arrays; with
        `has_aux` ``(features, aux)``.
      losses_fn: ``losses_fn(params, features, *args) -> losses``, as for
        ``value_and_objective_grads``. With `has_aux` it is called as
        ``losses_fn(params, features, aux, *args)``, with the aux of `features_fn`, and
        returns ``(losses, aux)``. Parameters that it uses itself, those of the heads,
        get their ordinary gradients, combined by their own groups.
      combination: groups -> the transformation from stacked to plain gradients, for
        example ``mmp.mmpareto``, or
        ``functools.partial(mmp.aggregate, mmp.weightings.mgda())``.
      has_aux: whether both functions return a pair.
      pullback: as in ``value_and_objective_grads``.

    Returns:
      A triple of functions, see ``FeatureLevel``. What they return goes into any Optax
      optimiser; no ``mmpareto`` comes after it.

    Raises:
      TypeError: a function that is none.
      ValueError: an unknown `pullback`; what ``objective_groups`` raises, when the
        functions are called.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> def features_fn(params, x):
      ...     return x @ params["trunk"]
      >>> def losses_fn(params, features, x):
      ...     y = features @ params["heads"]
      ...     return {"left": jnp.sum((y[:, 0] - 1) ** 2),
      ...             "right": jnp.sum((y[:, 1] + 1) ** 2)}
      >>> shared = mmp.feature_level(features_fn, losses_fn, mmp.mmpareto)
      >>> params = {"trunk": jnp.ones((3, 2)), "heads": jnp.ones((2, 2))}
      >>> x = jnp.ones((4, 3))
      >>> state = shared.init(params, x)
      >>> (losses, grads), state = shared.value_and_grads(state, params, x)
      >>> {name: g.shape for name, g in grads.items()}
      {'heads': (2, 2), 'trunk': (3, 2)}

    References:
      Sener & Koltun, `Multi-Task Learning as Multi-Objective Optimization
      <https://arxiv.org/abs/1810.04650>`_, NeurIPS 2018, section 3.3.
    """
    check_function(features_fn, "feature_level", "features_fn")
    check_function(losses_fn, "feature_level", "losses_fn")
    check_combination(combination, "feature_level")
    check_pullback(pullback, "feature_level")

    def of_features(params: PyTree, *args: Any) -> tuple[PyTree, Any]:
        out = features_fn(params, *args)
        return split_aux(out) if has_aux else (out, None)

    def of_tree(tree: Any, aux: Any, *args: Any) -> Any:
        between = (_with_leaves(aux, tree.get("aux")),) if has_aux else ()
        return losses_fn(tree["params"], tree["features"], *between, *args)

    def inspect(params: PyTree, *args: Any) -> tuple[ObjectiveGroups, PyTree, set[int]]:
        """The groups of the tree, its shapes, and which leaves of aux are in it."""
        features, aux = _shapes(of_features, params, *args)

        def with_aux(which: set[int]) -> tuple[ObjectiveGroups, PyTree]:
            tree = _tree(params, features, aux, which)
            return objective_groups(of_tree, tree, aux, *args, has_aux=has_aux), tree

        floating = {i for i, x in enumerate(jax.tree.leaves(aux)) if _is_floating(x)}
        found, tree = with_aux(floating)
        if not floating:
            return found, tree, floating
        reached = [
            i
            for i, (path, _) in zip(
                sorted(floating), named_leaves({"aux": tree["aux"]}), strict=True
            )
            if found.groups[found.group_of(path)]
        ]
        read = _depend_on_params(of_features, reached, params, *args)
        return (found, tree, read) if read == floating else (*with_aux(read), read)

    def groups(params: PyTree, *args: Any) -> ObjectiveGroups:
        return inspect(params, *args)[0]

    def init(params: PyTree, *args: Any) -> PyTree:
        found, tree, _ = inspect(params, *args)
        return combination(found).init(tree)

    def value_and_grads(
        state: PyTree, params: PyTree, *args: Any
    ) -> tuple[Any, PyTree]:
        found, _, read = inspect(params, *args)

        def trunk(params: PyTree) -> tuple[tuple[PyTree, list[Any]], Any]:
            features, aux = of_features(params, *args)
            leaves = jax.tree.leaves(aux)
            return (features, [leaves[i] for i in sorted(read)]), aux

        (features, _), back, aux = jax.vjp(trunk, params, has_aux=True)
        tree = _tree(params, features, aux, read)
        out, stacked = value_and_objective_grads(
            of_tree, found, has_aux=has_aux, pullback=pullback
        )(tree, aux, *args)
        losses = out[0] if has_aux else out
        combined, state = combination(found).update(stacked, state, tree, losses=losses)
        through_aux = jax.tree.leaves(combined.get("aux"))
        (through,) = back((combined["features"], through_aux))
        grads = jax.tree.map(lambda x, y: x + y, combined["params"], through)
        return (out, grads), state

    return FeatureLevel(groups, init, value_and_grads)


def _tree(params: PyTree, features: PyTree, aux: Any, which: set[int]) -> PyTree:
    """What the losses are differentiated by; of aux the leaves with these numbers."""
    tree = {"features": features, "params": params}
    if which:
        leaves, structure = jax.tree.flatten(aux)
        kept = [x if i in which else None for i, x in enumerate(leaves)]
        tree["aux"] = jax.tree.unflatten(structure, kept)
    return tree


def _with_leaves(aux: Any, own: PyTree) -> Any:
    """The aux, with the leaves of its partial copy `own` in their places."""
    if own is None:
        return aux
    leaves: list[Any]
    structure: Any
    leaves, structure = jax.tree.flatten(aux)
    places = structure.flatten_up_to(own)
    new = [x if y is None else y for x, y in zip(leaves, places, strict=True)]
    return jax.tree.unflatten(structure, new)


def _shapes(
    fun: Callable[..., tuple[PyTree, Any]], params: PyTree, *args: Any
) -> tuple[PyTree, Any]:
    """``jax.eval_shape``, where arguments and aux have leaves that are no arrays too.

    Such an argument must not become a traced number, nor such a result be refused.
    """
    given, arguments = jax.tree.flatten(args)
    others: list[Any] = []
    structure: Any = None

    def arrays(params: PyTree, given_arrays: list[Any]) -> tuple[PyTree, list[Any]]:
        nonlocal others, structure
        leaves = [
            x if y is None else y for x, y in zip(given, given_arrays, strict=True)
        ]
        features, aux = fun(params, *jax.tree.unflatten(arguments, leaves))
        leaves, structure = jax.tree.flatten(aux)
        others = [None if isinstance(x, jax.Array) else x for x in leaves]
        return features, [x if isinstance(x, jax.Array) else None for x in leaves]

    traced = [x if hasattr(x, "shape") else None for x in given]
    features, found = jax.eval_shape(arrays, params, traced)
    leaves = [y if x is None else x for x, y in zip(found, others, strict=True)]
    return features, jax.tree.unflatten(structure, leaves)


def _is_floating(x: Any) -> bool:
    """Whether a leaf of aux is an array that can have a gradient."""
    array = isinstance(x, jax.Array | jax.ShapeDtypeStruct)
    return array and jnp.issubdtype(x.dtype, jnp.floating)


def _depend_on_params(
    fun: Callable[..., tuple[PyTree, Any]],
    which: list[int],
    params: PyTree,
    *args: Any,
) -> set[int]:
    """Those leaves of aux that carry a gradient to the parameters; others are data."""
    if not which:
        return set()

    def sums(params: PyTree, *args: Any) -> dict[str, jax.Array]:
        leaves = jax.tree.leaves(fun(params, *args)[1])
        return {str(i): jnp.sum(leaves[i]) for i in which}

    found = objective_groups(sums, params, *args)
    members = set(found.members.values())
    return {int(i) for group in members for i in found.groups[group]}
