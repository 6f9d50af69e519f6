"""A rule as an Optax transformation over stacked per-objective gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from mmpareto_jax._combine.checks import (
    check_axes,
    check_leaves,
    check_rule,
    check_state,
    named_arrays,
    names_of_axes,
)
from mmpareto_jax._combine.extras import Extras
from mmpareto_jax._combine.kinds import Group, OfLeaf, Weighs, Weights, kind_of
from mmpareto_jax._combine.state import AggregateState, nothing_seen, seen
from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import (
    ObjectiveGroups,
    Objectives,
    as_groups,
    named_leaves,
)
from mmpareto_jax._gradients.losses import check_function
from mmpareto_jax._gradients.manual import vary, varying_axes
from mmpareto_jax._gramians.exactly import exactly
from mmpareto_jax._gramians.gramian import (
    Gramians,
    combine,
    group_gramians,
    in_one_scale,
    unread,
)
from mmpareto_jax.weightings import Aggregator, LossWeighting, Weighting

Weigh: TypeAlias = Callable[
    ..., tuple[dict[str, Weights], jax.Array | None, AggregateState]
]


def aggregate(
    weighting: Weighting | LossWeighting | Aggregator,
    objectives: Objectives,
    *,
    leaf_magnitude: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    axis_name: str | Sequence[str] | None = None,
    diagnostics: bool = True,
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
      diagnostics: False keeps nothing for :func:`diagnostics`, and computes nothing
        that only it reads: ``uniform``, ``mean``, ``constant``, ``random`` and loss
        weightings then take no Gramian.

    Returns:
      A transformation from updates with leaves [K_g, \*param.shape] to updates with
      leaves [\*param.shape] of the same dtype. A leaf of one objective passes
      unchanged; one of none, [0, \*param.shape], becomes zero.

    Raises:
      TypeError: `weighting` is no rule, or `objectives` of another type; in
        ``update``, a leaf is not real and floating, or the state not that of ``init``.
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
    check_rule(weighting)
    if leaf_magnitude is None:
        return transformation(
            weighting, objectives, axis_name=axis_name, diagnostics=diagnostics
        )
    if not isinstance(weighting, Weighting):
        raise TypeError("aggregate: leaf_magnitude needs a Weighting.")
    check_function(leaf_magnitude, "aggregate", "leaf_magnitude")

    def of_leaf(gramian: jax.Array, weights: jax.Array, rows: jax.Array) -> jax.Array:
        common, scale = in_one_scale(gramian, rows), jnp.max(rows)
        return weights * leaf_magnitude(common * scale**2, weights / rows)

    return transformation(
        weighting, objectives, of_leaf, axis_name=axis_name, diagnostics=diagnostics
    )


class Combined(NamedTuple):
    """What an update comes to.

    Attributes:
      updates: of the parameters.
      state: after it.
      weights: of each group of several objectives; None for a rule without weights.
      gramians: of each of these groups.
    """

    updates: optax.Updates
    state: AggregateState
    weights: dict[str, Weights | None]
    gramians: dict[str, Gramians]


class Aggregation(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """The transformation, and what it does where nobody has the rows.

    Attributes:
      weigh: ``weigh(gramians, state, losses=...) -> (weights, everywhere, state)``, of
        each group from its Gramians; and [K] of all objectives, if an objective's
        weight is the same in every group. None for a rule without weights.
      combine_rows: what ``update`` does, and the weights that it found.
      groups: which objectives act on which parameters.
      reads_gramians: whether it, or the diagnostics, look at what is in them.
      weighs_gramians: whether its weights depend on what is in them.
      reads_leaves: whether it looks at Gramians of single leaves, which then have
        weights of their own.
      axis_names: over which Gramians are summed.
      check: ``check(path, rows)`` raises if they vary over others.
    """

    weigh: Weigh | None
    combine_rows: Callable[..., Combined]
    groups: ObjectiveGroups
    reads_gramians: bool
    weighs_gramians: bool
    reads_leaves: bool
    axis_names: tuple[str, ...]
    check: Callable[[str, jax.Array], None]


def transformation(
    weighting: Weighting | LossWeighting | Aggregator,
    objectives: Objectives,
    of_leaf: OfLeaf | None = None,
    *,
    axis_name: str | Sequence[str] | None = None,
    diagnostics: bool = True,
) -> Aggregation:
    """:func:`aggregate`, with a leaf's own weights where its magnitude is its own.

    Args:
      weighting: the rule.
      objectives: the groups.
      of_leaf: ``of_leaf(gramian, weights, rows) -> weights``: for a leaf, from its
        Gramian and the group's weights, all of gradients divided by `rows`.
      axis_name: see :func:`aggregate`.
      diagnostics: see :func:`aggregate`.
    """
    groups = as_groups(objectives, "aggregate")
    kind = kind_of(weighting, of_leaf, groups)
    read, weighs = diagnostics or kind.reads_gramians, isinstance(kind, Weighs)
    axis_names = names_of_axes(axis_name, "aggregate")

    def check(path: str, leaf: jax.Array) -> None:
        if axis_name is None or axis_names:
            check_axes(path, leaf, axis_names)

    def init(params: optax.Params) -> AggregateState:
        sizes, zeros = {}, {}
        for name, leaves in _by_group(groups, named_arrays(params)).items():
            num, own = len(groups.groups[name]), leaves.values()
            sizes[name] = [jax.ShapeDtypeStruct((num, *x.shape), x.dtype) for x in own]
            zeros[name] = nothing_seen(num, wide(*own), has_weights=weighs)
        rule_state = kind.init(len(groups.objectives), sizes)
        state = AggregateState(rule_state, zeros if diagnostics else None)
        # Of parameters that differ between devices the state does, too.
        axes = [varying_axes(x) for x in jax.tree.leaves(params)]
        return vary(state, frozenset().union(*axes) - frozenset(axis_names))

    def combine_rows(
        updates: optax.Updates,
        state: AggregateState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> Combined:
        check_state(state)
        leaves = named_leaves(updates)
        by_group = _by_group(groups, leaves)
        check_leaves(groups, leaves, params)
        for path, leaf in (x for own in by_group.values() for x in own.items()):
            check(path, leaf)
        stacks = [list(own.values()) for own in by_group.values()]
        gramians = (
            group_gramians(stacks, axis_names, of_leaves=of_leaf is not None)
            if read
            else [unread(len(x[0]), len(x), wide(*x)) for x in stacks]
        )
        extras = Extras(groups, extra_args)
        shared, rule_state = kind.begin(extras, state.weighting)

        out: dict[str, jax.Array] = {}
        weights: dict[str, Weights | None] = {}
        for (name, own), g in zip(by_group.items(), gramians, strict=True):
            group = Group(name, g, own)
            applied, rule_state = kind.apply(group, extras, shared, rule_state)
            out.update(zip(own, applied.combined, strict=True))
            weights[name] = applied.weights
        for path, leaf in leaves:
            if leaf.shape[0] == 1:
                weight = kind.alone(groups.group_of(path), extras, shared)
                out[path] = leaf[0] if weight is None else combine(weight, leaf)
            elif leaf.shape[0] == 0:
                out[path] = jnp.zeros_like(leaf, shape=leaf.shape[1:])
        combined = [out[path] for path, _ in leaves]
        tree = jax.tree.unflatten(jax.tree.structure(updates), combined)
        found = dict(zip(by_group, gramians, strict=True))
        after = AggregateState(rule_state, _seen(found, weights, state))
        return Combined(tree, after, weights, found)

    def update(
        updates: optax.Updates,
        state: AggregateState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AggregateState]:
        combined: Combined = exactly(combine_rows)(updates, state, params, **extra_args)
        return combined[:2]

    def weigh(
        gramians: Mapping[str, Gramians], state: AggregateState, **extra_args: Any
    ) -> tuple[dict[str, Weights], jax.Array | None, AggregateState]:
        assert isinstance(kind, Weighs)
        check_state(state)
        extras = Extras(groups, extra_args)
        shared, rule_state = kind.begin(extras, state.weighting)
        weights: dict[str, Weights] = {}
        for name, g in gramians.items():
            group = Group(name, g, {})
            weights[name], rule_state = kind.weigh(group, extras, shared, rule_state)
        after = AggregateState(rule_state, _seen(gramians, weights, state))
        for name, names in groups.groups.items():
            if len(names) == 1:
                weight = kind.alone(name, extras, shared)
                weights[name] = Weights(jnp.ones(1) if weight is None else weight)
        return weights, kind.everywhere(shared), after

    found = Aggregation(init, update)
    found.weigh = exactly(weigh) if weighs else None
    found.combine_rows = exactly(combine_rows)
    found.reads_gramians, found.weighs_gramians = read, kind.reads_gramians
    found.axis_names, found.check = axis_names, check
    found.reads_leaves, found.groups = of_leaf is not None, groups
    return found


def _seen(
    gramians: Mapping[str, Gramians],
    weights: Mapping[str, Weights | None],
    state: AggregateState,
) -> dict[str, dict[str, jax.Array]] | None:
    """The diagnostics of a step; None if none are kept."""
    if state.diagnostics is None:
        return None
    before = dict(state.diagnostics)
    return before | {
        name: seen(g, weights[name], like=before[name]) for name, g in gramians.items()
    }


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
