"""Gradients with respect to shared features instead of the trunk's parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from mmpareto_jax._groups import ObjectiveGroups, PyTree
from mmpareto_jax._losses import split_aux
from mmpareto_jax._objectives import objective_groups, value_and_objective_grads
from mmpareto_jax._pullback import Pullback


class FeatureLevel(NamedTuple):
    """What ``feature_level`` returns.

    Attributes:
      groups: ``groups(params, *args) -> ObjectiveGroups``, for the tree
        ``{"features": ..., "params": ...}``.
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
      ValueError: what ``objective_groups`` raises, when the functions are called.

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

    def of_features(params: PyTree, *args: Any) -> tuple[PyTree, Any]:
        out = features_fn(params, *args)
        return split_aux(out) if has_aux else (out, None)

    def of_tree(tree: Any, aux: Any, *args: Any) -> Any:
        between = (aux,) if has_aux else ()
        return losses_fn(tree["params"], tree["features"], *between, *args)

    def groups(params: PyTree, *args: Any) -> ObjectiveGroups:
        features, aux = jax.eval_shape(of_features, params, *args)
        tree = {"features": features, "params": params}
        return objective_groups(of_tree, tree, aux, *args, has_aux=has_aux)

    def init(params: PyTree, *args: Any) -> PyTree:
        features, _ = jax.eval_shape(of_features, params, *args)
        tree = {"features": features, "params": params}
        return combination(groups(params, *args)).init(tree)

    def value_and_grads(
        state: PyTree, params: PyTree, *args: Any
    ) -> tuple[Any, PyTree]:
        found = groups(params, *args)
        features, back, aux = jax.vjp(
            lambda params: of_features(params, *args), params, has_aux=True
        )
        tree = {"features": features, "params": params}
        out, stacked = value_and_objective_grads(
            of_tree, found, has_aux=has_aux, pullback=pullback
        )(tree, aux, *args)
        losses = out[0] if has_aux else out
        combined, state = combination(found).update(stacked, state, tree, losses=losses)
        (through,) = back(combined["features"])
        grads = jax.tree.map(lambda x, y: x + y, combined["params"], through)
        return (out, grads), state

    return FeatureLevel(groups, init, value_and_grads)
