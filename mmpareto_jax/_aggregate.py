"""A weighting as an Optax transformation over stacked per-objective gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._gramian import Gramians, check_stacked, combine, group_gramians
from mmpareto_jax._groups import (
    ObjectiveGroups,
    Objectives,
    PyTree,
    as_groups,
    named_leaves,
)
from mmpareto_jax.weightings import Weighting


class AggregateState(NamedTuple):
    """State of ``aggregate`` and of everything made with it.

    Attributes:
      weighting: group -> the weighting's own state.
      diagnostics: group -> what :func:`diagnostics` returns for it. Groups of one
        objective have neither.
    """

    weighting: dict[str, Any]
    diagnostics: dict[str, dict[str, jax.Array]]


def aggregate(
    weighting: Weighting,
    objectives: Objectives,
    *,
    leaf_magnitude: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Combines stacked gradients by a weighting, group by group.

    .. math:: u = \sum_k a_k g_k, \quad a = \text{weighting}(G), \quad
        G_{ij} = \langle g_i, g_j \rangle

    with the Gramian taken over all leaves of the group. Gramian and weights are
    float32, or float64 for float64 gradients.

    Args:
      weighting: the rule, for example ``mmp.weightings.mgda()``.
      objectives: the groups (:func:`objective_groups`), or K, or K names: then every
        leaf carries the same K objectives.
      leaf_magnitude: ``leaf_magnitude(gramian, weights) -> scalar``, a further factor
        for each leaf from the leaf's own Gramian [K, K]. By default none.

    Returns:
      A transformation from updates with leaves [K_g, \*param.shape] to updates with
      leaves [\*param.shape] of the same dtype. A leaf of one objective passes
      unchanged; one of none, [0, \*param.shape], becomes zero.

    Raises:
      TypeError: `objectives` is of another type; in ``update``, a leaf is not real
        and floating.
      ValueError: K < 1; in ``update``, a leaf is not stacked as its group asks, or
        belongs to none; the leaf is named by its path.

    .. warning::
      The leading axis ends here, so this comes first in an ``optax.chain``, and
      wrappers that see both gradients and parameters (``optax.MultiSteps``,
      ``optax.apply_if_finite``, ``optax.masked``) go around what follows, not around
      the whole chain.

    Example:
      >>> import jax.numpy as jnp
      >>> import optax
      >>> import mmpareto_jax as mmp
      >>> tx = optax.chain(mmp.aggregate(mmp.weightings.mean(), 2), optax.sgd(0.1))
      >>> params = jnp.zeros(2)
      >>> grads = jnp.array([[1.0, 0.0], [0.0, 3.0]])
      >>> updates, _ = tx.update(grads, tx.init(params), params)
      >>> print(updates)
      [-0.05 -0.15]
    """
    groups = as_groups(objectives, "aggregate")

    def init(params: optax.Params) -> AggregateState:
        weighting_state, zeros = {}, {}
        for name, leaves in _by_group(groups, named_leaves(params)).items():
            num = len(groups.groups[name])
            dtypes = [jnp.result_type(leaf.dtype) for _, leaf in leaves]
            dtype = jnp.promote_types(jnp.result_type(*dtypes), jnp.float32)
            weighting_state[name] = weighting.init(num)
            zeros[name] = {
                "weights": jnp.zeros((num,), dtype),
                "norms": jnp.zeros((num,), dtype),
                "cosine": jnp.zeros((), dtype),
                "conflict": jnp.zeros((), bool),
                "magnitude": jnp.zeros((), dtype),
            }
        return AggregateState(weighting_state, zeros)

    def update(
        updates: optax.Updates,
        state: AggregateState,
        params: optax.Params | None = None,
        **_: Any,
    ) -> tuple[optax.Updates, AggregateState]:
        leaves = named_leaves(updates)
        _check(groups, leaves, params)
        out = dict(leaves)
        weighting_state, found = dict(state.weighting), dict(state.diagnostics)
        by_group = _by_group(groups, leaves)
        gramians = group_gramians([[x for _, x in v] for v in by_group.values()])
        for (name, members), g in zip(by_group.items(), gramians, strict=True):
            weights, weighting_state[name] = weighting.weights(
                g.total, state.weighting[name]
            )
            factors = [jnp.ones_like(weights[0])] * len(members)
            if leaf_magnitude is not None:
                factors = [leaf_magnitude(leaf, weights) for leaf in g.leaves]
            for (path, leaf), factor in zip(members, factors, strict=True):
                out[path] = combine(weights * factor, leaf)
            found[name] = {
                key: x.astype(state.diagnostics[name][key].dtype)
                for key, x in _describe(g, weights, factors).items()
            }
        for path, leaf in leaves:
            if leaf.shape[0] < 2:
                out[path] = (
                    leaf[0]
                    if leaf.shape[0]
                    else jnp.zeros_like(leaf, shape=leaf.shape[1:])
                )
        combined = jax.tree.unflatten(
            jax.tree.structure(updates), [out[path] for path, _ in leaves]
        )
        return combined, AggregateState(weighting_state, found)

    return optax.GradientTransformationExtraArgs(init, update)


def diagnostics(opt_state: optax.OptState) -> dict[str, dict[str, jax.Array]]:
    """What the last update saw and did, per group of two or more objectives.

    Args:
      opt_state: a state that contains the state of an aggregation, however nested.

    Returns:
      Group -> a dict of arrays (float32 or float64, and one bool), zeros before the
      first update:

      * ``weights`` [K]: the coefficients a_k of the update ``sum_k a_k g_k``; in the
        order of the group's objectives. With a magnitude per leaf, their norm-weighted
        mean.
      * ``norms`` [K]: the norms of the gradients.
      * ``cosine`` []: the smallest cosine between two of the gradients (0 where one
        of a pair is zero).
      * ``conflict`` []: whether it is negative.
      * ``magnitude`` []: the mean of the weights. 1 for the plain sum, γλ for
        MMPareto, whose min-norm weights are ``weights / weights.sum()``.

    Raises:
      ValueError: there is no such state, or two have a group of the same name.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> tx = mmp.mmpareto(("joint", "audio"))
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([[3.0, 4.0], [4.0, 3.0]]), state)
      >>> print(mmp.diagnostics(state)["all"]["norms"])
      [5. 5.]
    """

    def is_state(x: Any) -> bool:
        return isinstance(x, AggregateState)

    states = [x for x in jax.tree.leaves(opt_state, is_leaf=is_state) if is_state(x)]
    if not states:
        raise ValueError("diagnostics: the state contains no AggregateState.")
    found: dict[str, dict[str, jax.Array]] = {}
    for state in states:
        for name, values in state.diagnostics.items():
            if name in found:
                raise ValueError(
                    f"diagnostics: two aggregations have a group {name!r}; ask for the "
                    "state of one of them."
                )
            found[name] = dict(values)
    return found


def _by_group(
    groups: ObjectiveGroups, leaves: list[tuple[str, Any]]
) -> dict[str, list[tuple[str, Any]]]:
    """The leaves of every group that has several objectives, and any leaf here."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for path, leaf in leaves:
        name = groups.group_of(path)
        if len(groups.groups[name]) > 1:
            found.setdefault(name, []).append((path, leaf))
    return found


def _check(
    groups: ObjectiveGroups, leaves: list[tuple[str, Any]], params: PyTree | None
) -> None:
    own = {} if params is None else {p: x.shape for p, x in named_leaves(params)}
    for path, leaf in leaves:
        num = len(groups.groups[groups.group_of(path)])
        shape = jnp.shape(leaf)
        if own.get(path) == shape:
            raise ValueError(
                f"aggregate: leaf {path!r} has its parameter's own shape {shape}: "
                f"these gradients are not stacked. Expected {(num, *shape)}, a row per "
                "objective, as value_and_objective_grads gives them."
            )
        check_stacked("aggregate", path, leaf, num)
        if path in own and shape[1:] != own[path]:
            raise ValueError(
                f"aggregate: leaf {path!r} has shape {shape}, but its parameter has "
                f"{own[path]}: expected {(num, *own[path])}."
            )


def _describe(
    g: Gramians, weights: jax.Array, factors: list[jax.Array]
) -> dict[str, jax.Array]:
    norms = jnp.sqrt(jnp.diagonal(g.total))
    outer = norms[:, None] * norms[None, :]
    cosines = jnp.where(outer == 0, 0.0, g.total / jnp.where(outer == 0, 1.0, outer))
    num = weights.shape[0]
    cosine = jnp.min(cosines[jnp.triu_indices(num, 1)])
    squares = jnp.stack([weights @ leaf @ weights for leaf in g.leaves])
    total = jnp.sum(squares)
    ratio = jnp.sum(jnp.stack(factors) ** 2 * squares) / jnp.where(
        total > 0, total, 1.0
    )
    effective = weights * jnp.where(total > 0, jnp.sqrt(ratio), 1.0)
    return {
        "weights": effective,
        "norms": norms * g.scale,
        "cosine": cosine,
        "conflict": cosine < 0,
        "magnitude": jnp.mean(effective),
    }
