"""Weights that are found now and then, and kept between."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.aggregate import Aggregation
from mmpareto_jax._combine.kinds import Weights
from mmpareto_jax._combine.known_weights import Known, known_weights
from mmpareto_jax._combine.state import AggregateState
from mmpareto_jax._combine.weighted_pass import Step, members, several, unread_gramians
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.manual import alike_cond, vary, varying_axes
from mmpareto_jax._gradients.objectives import stacked_gradients
from mmpareto_jax._gramians.gramian import Gramians, group_gramians

Every: TypeAlias = Callable[[jax.Array], Any]
Lengths: TypeAlias = dict[str, jax.Array]


class RefreshState(NamedTuple):
    """State of ``combined_grads`` where weights are kept between refreshes.

    Attributes:
      rule: the combination's own state, an ``AggregateState``. What
        :func:`diagnostics` reads is of the last refresh.
      weights: those of the last refresh, as powers of two and factors near 1. None for
        a rule that needs no Gramian, whose weights are new at every step.
      lengths: group -> the norm of its gradient at the last refresh; empty with
        ``length="free"``.
      age: int32, the number of steps since the last refresh, with it; 0 before the
        first.
      steps: int32, all steps.
      missed: int32, the refreshes that met gradients or weights that were not finite.
        The groups concerned keep their weights, and the next step tries again.
    """

    rule: AggregateState
    weights: Known | None
    lengths: Lengths
    age: jax.Array
    steps: jax.Array
    missed: jax.Array


class Refresh(NamedTuple):
    """When weights are found, and how far they are trusted between.

    Attributes:
      every: step -> the number of steps from one refresh to the next.
      guarded: whether a group's gradient is never longer than at the last refresh.
      keep: as in ``combined_grads``.
    """

    every: Every
    guarded: bool
    keep: Literal["rows", "gramian"]

    def init(self, rule: Aggregation, params: PyTree) -> RefreshState:
        """The state before the first step, which is a refresh."""
        groups, known, lengths = rule.groups, None, {}
        if rule.weighs_gramians:
            known = _equal(rule, params)
            if self.guarded:
                found = unread_gramians(groups, params).items()
                lengths = {k: jnp.full((), jnp.inf, g.total.dtype) for k, g in found}
        zero = jnp.zeros((), jnp.int32)
        state = RefreshState(rule.init(params), known, lengths, zero, zero, zero)
        # Each a buffer of its own: a step that donates its state takes none twice.
        state = jax.tree.map(jnp.array, state)
        axes = [varying_axes(x) for x in jax.tree.leaves(params)]
        varied: RefreshState = vary(
            state, frozenset().union(*axes) - frozenset(rule.axis_names)
        )
        return varied

    def step(
        self, step: Step, rule: Aggregation, state: RefreshState
    ) -> tuple[PyTree, RefreshState]:
        """The gradient, and the state after it."""
        due = (state.age == 0) | (state.age >= self.every(state.steps))
        return alike_cond(
            due,
            lambda: self._fresh(step, rule, state),
            lambda: self._stale(step, rule, state),
        )

    def _fresh(
        self, step: Step, rule: Aggregation, state: RefreshState
    ) -> tuple[PyTree, RefreshState]:
        if self.keep == "gramian":
            gramians = step.gramians(rule)
            known, after = step.weigh(rule, gramians, state.rule)
            grads = step.weighted(rule, known, again=True)
        else:
            stacked = stacked_gradients(
                step.pulled, step.rows, step.params, step.pullback
            )
            grads, after, weights, gramians = rule.combine_rows(
                stacked, state.rule, step.params, losses=step.pulled.losses
            )
            known = _with_singles(rule.groups, step.params, weights, gramians)
        state = state._replace(rule=after, steps=state.steps + 1)
        if state.weights is None:
            return grads, state._replace(age=jnp.ones_like(state.age))
        lengths = _lengths(rule, grads) if self.guarded else {}
        usable = _usable(rule.groups, known, gramians, lengths)
        whole = jnp.stack(list(usable.values())).all() if usable else jnp.array(True)
        again = jnp.where(state.age == 0, 0, state.age + 1)
        kept = _kept(rule.groups, usable, (known, lengths), state)
        return grads, state._replace(
            weights=kept[0],
            lengths=kept[1],
            age=jnp.where(whole, 1, again),
            missed=state.missed + jnp.where(whole, 0, 1),
        )

    def _stale(
        self, step: Step, rule: Aggregation, state: RefreshState
    ) -> tuple[PyTree, RefreshState]:
        after, known = state.rule, state.weights
        if known is None:
            gramians = unread_gramians(rule.groups, step.params)
            known, after = step.weigh(rule, gramians, state.rule)
            after = after._replace(diagnostics=state.rule.diagnostics)
        grads = step.weighted(rule, known, again=False)
        if state.lengths:
            grads = _shortened(rule, grads, state.lengths)
        return grads, state._replace(
            rule=after, age=state.age + 1, steps=state.steps + 1
        )


def every_of(every: Any) -> Every | None:
    """None where every step is a refresh; or the schedule that is meant."""
    if callable(every):
        schedule: Every = every
        return schedule
    try:
        number = operator.index(every)
    except jax.errors.TracerIntegerConversionError:
        number = None
    except TypeError:
        number = 0
    if number is None:
        raise ValueError(
            "combined_grads: `every` must be known when combined_grads is called, not "
            "traced; for a number that changes give a function of the step."
        )
    if isinstance(every, bool) or number < 1:
        raise ValueError(
            "combined_grads: `every` must be an integer >= 1 or a function of the "
            f"step, got {every!r}."
        )
    return None if number == 1 else lambda _: number


def _equal(rule: Aggregation, params: PyTree) -> Known:
    """A weight of 1 for every objective."""
    gramians = unread_gramians(rule.groups, params)
    weights: dict[str, Weights | None] = {
        name: Weights(
            jnp.ones_like(g.rows),
            [jnp.ones_like(g.rows) for _ in g.leaves] if rule.weighs_leaves else None,
        )
        for name, g in gramians.items()
    }
    return _with_singles(rule.groups, params, weights, gramians)


def _with_singles(
    groups: ObjectiveGroups,
    params: PyTree,
    weights: Mapping[str, Weights | None],
    gramians: Mapping[str, Gramians],
) -> Known:
    """The weights of all groups: that of a single objective is 1."""
    own = members(groups, params)
    alone = {k: Weights(jnp.ones(1)) for k in own if len(groups.groups[k]) == 1}
    found = {k: x for k, x in weights.items() if x is not None}
    return known_weights(found | alone, gramians, own)


def _usable(
    groups: ObjectiveGroups,
    known: Known,
    gramians: Mapping[str, Gramians],
    lengths: Lengths,
) -> dict[str, jax.Array]:
    """Group of several objectives -> whether all that was found for it is finite."""
    found: dict[str, list[Any]] = {k: [g.total] for k, g in gramians.items()}
    assert not isinstance(known.groups, jax.Array)
    for k, own in found.items():
        own += [known.groups.get(k), known.group_scales.get(k), lengths.get(k)]
    for path, x in known.leaves.items():
        found[groups.group_of(path)] += [x, known.leaf_scales[path]]
    return {
        k: jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(own)]).all()
        for k, own in found.items()
    }


def _kept(
    groups: ObjectiveGroups,
    usable: Mapping[str, jax.Array],
    new: tuple[Known, Lengths],
    state: RefreshState,
) -> tuple[Known, Lengths]:
    """The new weights and lengths; the old ones of groups where they are not usable."""

    def of(group: str, new: Any, old: Any) -> Any:
        if group not in usable:
            return old
        return jax.tree.map(
            lambda a, b: jnp.where(usable[group], a.astype(b.dtype), b), new, old
        )

    known, old = new[0], state.weights
    assert old is not None
    assert not isinstance(known.groups, jax.Array)
    assert not isinstance(old.groups, jax.Array)
    return Known(
        {k: of(k, known.groups[k], x) for k, x in old.groups.items()},
        {p: of(groups.group_of(p), known.leaves[p], x) for p, x in old.leaves.items()},
        {k: of(k, known.group_scales[k], x) for k, x in old.group_scales.items()},
        {
            p: of(groups.group_of(p), known.leaf_scales[p], x)
            for p, x in old.leaf_scales.items()
        },
    ), {k: of(k, new[1][k], x) for k, x in state.lengths.items()}


def _lengths(rule: Aggregation, grads: PyTree) -> Lengths:
    """Group of several objectives -> the norm of its gradient."""
    leaves, own = dict(named_leaves(grads)), several(rule.groups, grads)
    found = group_gramians(
        [[leaves[path][None] for path in paths] for paths, _ in own.values()],
        rule.axis_names,
    )
    return {k: g.norms[0] for k, g in zip(own, found, strict=True)}


def _shortened(rule: Aggregation, grads: PyTree, lengths: Lengths) -> PyTree:
    """No group's gradient is longer than at the last refresh."""
    factors = {
        k: jnp.where(x > lengths[k], lengths[k] / x, 1)
        for k, x in _lengths(rule, grads).items()
    }

    def one(path: str, x: jax.Array) -> jax.Array:
        factor = factors.get(rule.groups.group_of(path))
        return x if factor is None else (x * factor).astype(x.dtype)

    leaves = [one(path, x) for path, x in named_leaves(grads)]
    return jax.tree.unflatten(jax.tree.structure(grads), leaves)
