"""Weights that are found now and then, and kept between."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.aggregate import Aggregation
from mmpareto_jax._combine.guard import (
    Lengths,
    kept_where,
    lengths_of,
    shortened,
    usable_groups,
)
from mmpareto_jax._combine.kinds import Weights
from mmpareto_jax._combine.known_weights import Known, known_weights, reach_of
from mmpareto_jax._combine.state import AggregateState
from mmpareto_jax._combine.weighted_pass import Step, members, unread_gramians
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree
from mmpareto_jax._gradients.manual import alike_cond, vary, varying_axes
from mmpareto_jax._gradients.objectives import stacked_gradients
from mmpareto_jax._gramians.gramian import Gramians

Every: TypeAlias = Callable[[jax.Array], Any]


class RefreshState(NamedTuple):
    """State of ``combined_grads`` where weights are kept between refreshes.

    Attributes:
      rule: the combination's own state, an ``AggregateState``. What
        :func:`diagnostics` reads is of the last refresh.
      weights: those of the last refresh, in a form of their own (as numbers they may
        be out of range; :func:`diagnostics` has them as far as they are not). None for
        a rule that needs no Gramian, whose weights are new at every step.
      lengths: group -> scalar, the norm of its gradient at the last refresh, infinite
        before the first; empty with ``length="free"``.
      age: int32, 1 after a step that found weights, 2 after the next, ...; 0 before the
        first that did.
      steps: int32, all steps.
      missed: int32, the refreshes that met gradients or weights that were not finite;
        guarded, also those that came to a gradient of zero. The groups concerned keep
        their weights, and the next step tries again.
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
        if not isinstance(state, RefreshState):
            raise TypeError(
                "combined_grads: with `every` the state is a RefreshState, as init of "
                f"the same combined_grads gives it; got {type(state).__name__}."
            )
        # Also where a schedule gives NaN.
        due = (state.age == 0) | ~(state.age < _interval(self.every, state.steps))
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
        found = lengths_of(rule, grads) if self.guarded else {}
        good = usable_groups(rule.groups, known, gramians, found)
        whole = jnp.stack(list(good.values())).all() if good else jnp.array(True)
        again = jnp.where(state.age == 0, 0, state.age + 1)
        before = state.weights, state.lengths
        kept, lengths = kept_where(good, rule.groups, (known, found), before)
        return grads, state._replace(
            weights=kept,
            lengths=lengths,
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
            after = after._replace(diagnostics=_with_weights(state.rule, after))
        sums = step.sums(rule, known, again=False)
        if state.lengths:
            known = shortened(rule, step.params, known, sums, state.lengths)
        return step.restored(known, sums), state._replace(
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
    if isinstance(every, bool) or not 1 <= number < 2**31:
        raise ValueError(
            "combined_grads: `every` must be an integer >= 1 (and below 2**31) or a "
            f"function of the step, got {every!r}."
        )
    return None if number == 1 else lambda _: number


def _interval(every: Every, step: jax.Array) -> jax.Array:
    """Of the schedule: scalar, the number of steps from one refresh to the next."""
    try:
        found = jnp.asarray(every(step))
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        raise ValueError(
            "combined_grads: `every` is called with a traced step: a schedule is made "
            "of jax.numpy, jnp.where instead of Python's if."
        ) from None
    if found.shape or found.dtype == bool:
        raise ValueError(
            "combined_grads: `every` must give one number, got "
            f"{found.dtype}{list(found.shape)}."
        )
    return found


def _equal(rule: Aggregation, params: PyTree) -> Known:
    """A weight of 1 for every objective."""
    gramians = unread_gramians(rule.groups, params)
    weights: dict[str, Weights | None] = {
        name: Weights(
            jnp.ones_like(g.rows),
            [jnp.ones_like(g.rows) for _ in g.leaves] if rule.reads_leaves else None,
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
    return known_weights(found | alone, gramians, own, reach_of(params))


def _with_weights(
    before: AggregateState, after: AggregateState
) -> dict[str, dict[str, jax.Array]] | None:
    """What the last refresh saw of the gradients, with the weights of now."""
    if before.diagnostics is None or after.diagnostics is None:
        return None
    return {
        name: seen
        | {k: after.diagnostics[name][k] for k in seen if k in ("weights", "magnitude")}
        for name, seen in before.diagnostics.items()
    }
