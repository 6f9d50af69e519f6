"""A rule as an Optax transformation over stacked per-objective gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._combine.extras import Extras
from mmpareto_jax._combine.kinds import Group, OfLeaf, kind_of
from mmpareto_jax._combine.state import AggregateState, nothing_seen, seen
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
    group_gramians,
    in_one_scale,
)
from mmpareto_jax.weightings import Aggregator, LossWeighting, Weighting


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
        gradients whose type says that they vary over an axis are refused; with
        ``check_vma=False`` nothing says so.

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
    kind = kind_of(weighting, of_leaf)
    axis_names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())

    def init(params: optax.Params) -> AggregateState:
        sizes, zeros = {}, {}
        for name, leaves in _by_group(groups, named_leaves(params)).items():
            num, own = len(groups.groups[name]), leaves.values()
            sizes[name] = [jax.ShapeDtypeStruct((num, *x.shape), x.dtype) for x in own]
            zeros[name] = nothing_seen(num, wide(*own), has_weights=kind.has_weights)
        state = AggregateState(kind.init(len(groups.objectives), sizes), zeros)
        # Of parameters that differ between devices the state does, too.
        axes = [varying_axes(x) for x in jax.tree.leaves(params)]
        return vary(state, frozenset().union(*axes) - frozenset(axis_names))

    def update(
        updates: optax.Updates,
        state: AggregateState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AggregateState]:
        leaves = named_leaves(updates)
        by_group = _by_group(groups, leaves)
        _check(groups, leaves, params)
        if axis_name is None or axis_names:
            _check_axes(by_group, axis_names)
        stacks = [list(own.values()) for own in by_group.values()]
        gramians = group_gramians(stacks, axis_names)
        extras = Extras(groups, extra_args)
        shared, rule_state = kind.begin(extras, state.weighting)

        out: dict[str, jax.Array] = {}
        found = dict(state.diagnostics)
        for (name, own), g in zip(by_group.items(), gramians, strict=True):
            group = Group(name, g, own)
            applied, rule_state = kind.apply(group, extras, shared, rule_state)
            out.update(zip(own, applied.combined, strict=True))
            found[name] = seen(g, applied.weights, like=state.diagnostics[name])
        for path, leaf in leaves:
            if leaf.shape[0] == 1:
                name = groups.group_of(path)
                out[path] = kind.alone(name, leaf, extras, shared)
            elif leaf.shape[0] == 0:
                out[path] = jnp.zeros_like(leaf, shape=leaf.shape[1:])
        combined = [out[path] for path, _ in leaves]
        tree = jax.tree.unflatten(jax.tree.structure(updates), combined)
        return tree, AggregateState(rule_state, found)

    return optax.GradientTransformationExtraArgs(init, update)


def _by_group(
    groups: ObjectiveGroups, leaves: list[tuple[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Of every group that has several objectives, and any leaf here: path -> leaf."""
    found: dict[str, dict[str, Any]] = {}
    for path, leaf in leaves:
        name = groups.group_of(path)
        if len(groups.groups[name]) > 1:
            found.setdefault(name, {})[path] = leaf
    return found


def _check_axes(
    by_group: dict[str, dict[str, Any]], axis_names: tuple[str, ...]
) -> None:
    for path, leaf in (x for own in by_group.values() for x in own.items()):
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
