"""A rule as an Optax transformation over stacked per-objective gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._combine.extras import Extras
from mmpareto_jax._combine.state import AggregateState, describe, describe_weights
from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import (
    ObjectiveGroups,
    Objectives,
    PyTree,
    as_groups,
    named_leaves,
)
from mmpareto_jax._gradients.manual import vary, varying_axes
from mmpareto_jax._gramians.gramian import (
    check_stacked,
    combine,
    group_gramians,
    in_one_scale,
)
from mmpareto_jax.weightings import Aggregator, LossWeighting, Weighting
from mmpareto_jax.weightings._weighting import kept


def aggregate(
    weighting: Weighting | LossWeighting | Aggregator,
    objectives: Objectives,
    *,
    leaf_magnitude: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    axis_name: str | Sequence[str] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Combines stacked gradients by a weighting, group by group.

    .. math:: u = \sum_k a_k g_k, \quad a = \text{weighting}(G), \quad
        G_{ij} = \langle g_i, g_j \rangle

    with the Gramian taken over all leaves of the group. Gramian and weights are
    float32, or float64 for float64 gradients.

    Args:
      weighting: the rule, for example ``mmp.weightings.mgda()``. A ``LossWeighting``
        weights the losses, single objectives too; an ``Aggregator`` combines the
        stacked gradients by another formula than this sum.
      objectives: the groups (:func:`objective_groups`), or K, or K names: then every
        leaf carries the same K objectives.
      leaf_magnitude: ``leaf_magnitude(gramian, weights) -> scalar``, a further factor
        for each leaf from the leaf's own Gramian [K, K]. By default none.
      axis_name: inside ``jax.shard_map``, the mesh axis or axes over which gradients
        are sharded, for example after ``jax.lax.psum_scatter``: inner products are
        summed over them. Leaves that do not vary over an axis are whole and counted
        once (with ``check_vma=False`` types do not tell: all leaves count as sharded).
        ``()`` says that every device has gradients of its own model. By default,
        gradients that vary over an axis are refused.

    Returns:
      A transformation from updates with leaves [K_g, \*param.shape] to updates with
      leaves [\*param.shape] of the same dtype. A leaf of one objective passes
      unchanged; one of none, [0, \*param.shape], becomes zero.

    Raises:
      TypeError: `objectives` is of another type; in ``update``, a leaf is not real
        and floating.
      ValueError: K < 1; in ``update``, a leaf is not stacked as its group asks,
        belongs to none, or varies over an axis that `axis_name` does not mention; the
        leaf is named by its path.

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
    if leaf_magnitude is None:
        return transformation(weighting, objectives, axis_name=axis_name)
    if not isinstance(weighting, Weighting):
        raise TypeError("aggregate: leaf_magnitude needs a Weighting.")

    def of_leaf(gramian: jax.Array, weights: jax.Array, rows: jax.Array) -> jax.Array:
        common, scale = in_one_scale(gramian, rows), jnp.max(rows)
        return weights * leaf_magnitude(common * scale**2, weights / rows)

    return transformation(weighting, objectives, of_leaf, axis_name=axis_name)


OfLeaf: TypeAlias = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def transformation(
    weighting: Weighting | LossWeighting | Aggregator,
    objectives: Objectives,
    of_leaf: OfLeaf | None = None,
    *,
    axis_name: str | Sequence[str] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """:func:`aggregate`, with a leaf's own weights where its magnitude is its own.

    Args:
      weighting: the rule.
      objectives: the groups.
      of_leaf: ``of_leaf(gramian, weights, rows) -> weights``: for a leaf, from its
        Gramian and the group's weights, all of gradients divided by `rows`.
      axis_name: see :func:`aggregate`.
    """
    groups = as_groups(objectives, "aggregate")
    axis_names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())

    def init(params: optax.Params) -> AggregateState:
        state, zeros = {}, {}
        for name, leaves in _by_group(groups, named_leaves(params)).items():
            num = len(groups.groups[name])
            dtype = wide(*(x for _, x in leaves))
            zeros[name] = {
                "norms": jnp.zeros((num,), dtype),
                "cosine": jnp.zeros((), dtype),
                "conflict": jnp.zeros((), bool),
            }
            if isinstance(weighting, Weighting):
                state[name] = weighting.init(num)
            if isinstance(weighting, Aggregator):
                state[name] = weighting.init(
                    [jax.ShapeDtypeStruct((num, *x.shape), x.dtype) for _, x in leaves]
                )
            else:
                zeros[name]["weights"] = jnp.zeros((num,), dtype)
                zeros[name]["magnitude"] = jnp.zeros((), dtype)
        if isinstance(weighting, LossWeighting):
            return AggregateState(weighting.init(len(groups.objectives)), zeros)
        # Of parameters that differ between devices the state does, too.
        axes = [varying_axes(x) for x in jax.tree.leaves(params)]
        own = frozenset().union(*axes) - frozenset(axis_names)
        return vary(AggregateState(state, zeros), own)

    def update(
        updates: optax.Updates,
        state: AggregateState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AggregateState]:
        leaves = named_leaves(updates)
        _check(groups, leaves, params)
        by_group = _by_group(groups, leaves)
        if axis_name is None or axis_names:
            _check_axes([x for v in by_group.values() for x in v], axis_names)
        extras = Extras(groups, extra_args)
        out, found = dict(leaves), dict(state.diagnostics)
        gramians = group_gramians(
            [[x for _, x in v] for v in by_group.values()], axis_names
        )
        rule_state: Any
        everyone: jax.Array | None = None  # [K] weights of all objectives
        if isinstance(weighting, LossWeighting):
            losses, more = extras.of_losses(weighting)
            everyone, after = weighting.weights(losses, state.weighting, **more)
            rule_state = kept(jnp.isfinite(losses).all(), after, state.weighting)
        else:
            rule_state = dict(state.weighting)
        for (name, pairs), g in zip(by_group.items(), gramians, strict=True):
            members = dict(pairs)
            seen = describe(g)
            after = None
            if isinstance(weighting, Aggregator):
                more = extras.of_group(weighting, name, g, members)
                combined, after = weighting.combine(
                    list(members.values()), rule_state[name], **more
                )
            else:
                if everyone is not None:
                    weights = everyone[extras.rows(name)].astype(g.total.dtype) * g.rows
                else:
                    more = extras.of_group(weighting, name, g, members)
                    given = g.total if "rows" in more else g.common(g.total)
                    weights, after = weighting.weights(given, rule_state[name], **more)
                    weights = weights if "rows" in more else weights * g.rows
                each = [weights] * len(members)
                if of_leaf is not None:
                    each = [of_leaf(leaf, weights, g.rows) for leaf in g.leaves]
                combined = [
                    combine(own, leaf, g.rows)
                    for own, leaf in zip(each, members.values(), strict=True)
                ]
                seen |= describe_weights(g, weights, each)
            if after is not None:
                # A step that is not finite leaves nothing behind in the rule.
                finite = jnp.isfinite(g.total).all()
                if "losses" in more:
                    finite &= jnp.isfinite(more["losses"]).all()
                rule_state[name] = kept(finite, after, rule_state[name])
            out.update(zip(members, combined, strict=True))
            found[name] = {
                key: x.astype(state.diagnostics[name][key].dtype)
                for key, x in seen.items()
            }
        for path, leaf in leaves:
            if leaf.shape[0] == 0:
                out[path] = jnp.zeros_like(leaf, shape=leaf.shape[1:])
            elif leaf.shape[0] == 1:
                out[path] = leaf[0]
                if everyone is not None:
                    row = extras.rows(groups.group_of(path))
                    out[path] = combine(everyone[row], leaf)
        combined_tree = jax.tree.unflatten(
            jax.tree.structure(updates), [out[path] for path, _ in leaves]
        )
        return combined_tree, AggregateState(rule_state, found)

    return optax.GradientTransformationExtraArgs(init, update)


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


def _check_axes(leaves: list[tuple[str, Any]], axis_names: tuple[str, ...]) -> None:
    for path, leaf in leaves:
        unknown = sorted(varying_axes(leaf) - frozenset(axis_names))
        if unknown:
            raise ValueError(
                f"aggregate: leaf {path!r} varies over the mesh axis {unknown[0]!r}: "
                "inner products would be those of this device's part alone. Reduce the "
                "gradients first (jax.lax.pmean). Or, if they are sharded over it, "
                f"pass axis_name={unknown[0]!r}; or axis_name=() if every device "
                "trains a model of its own."
            )


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
