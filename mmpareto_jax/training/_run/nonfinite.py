"""Steps that are not finite: found, undone and counted on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import mmpareto_jax as mmp
from mmpareto_jax._combine.state import AggregateState
from mmpareto_jax._gradients.groups import named_leaves
from mmpareto_jax._gramians.min_norm import SolverReport
from mmpareto_jax.training._run.counts import ELSEWHERE, NONFINITE
from mmpareto_jax.training._run.gradients import Combined
from mmpareto_jax.training._run.placement import Placement
from mmpareto_jax.training._run.state import TrainState

Flags = dict[str, jax.Array]
_PARAMS = "params/"
_FEATURES = "features"


class Faults(NamedTuple):
    """What of a step is not finite: scalars, bool.

    Attributes:
      anything: whether a loss is not, or anything that the step would have changed.
      objectives: objective -> whether its loss is at fault, or its gradient; or, where
        nobody else's is, whether parameters are that it alone acts on.
      groups: group of parameters -> whether these are, or a gradient on them.
      elsewhere: whether anything else is: statistics of the model, what the rule or the
        method keeps.
    """

    anything: jax.Array
    objectives: Flags
    groups: Flags
    elsewhere: jax.Array

    def metrics(self) -> dict[str, jax.Array]:
        """As the records have them, which count them."""
        own = {f"{NONFINITE}/{k}": x for k, x in self.objectives.items()}
        groups = {f"{k}/{NONFINITE}": x for k, x in self.groups.items()}
        groups[f"{ELSEWHERE}/{NONFINITE}"] = self.elsewhere
        return {NONFINITE: self.anything, **own, **groups}


def faults_of(
    groups: mmp.ObjectiveGroups,
    found: Combined,
    before: TrainState,
    after: TrainState,
    *,
    placement: Placement,
    at: TrainState,
) -> Faults:
    """What of a step is not finite.

    The losses and norms of the gradients are there already. What is written is looked
    at as it will be: an update may overflow where all gradients are finite. A number
    that was not finite before the step (a mask's infinity) may stay so, but for a
    parameter that is NaN.

    Args:
      groups: which objectives act on which parameters.
      found: of the batch.
      before: the state before the step.
      after: the state that it came to.
      placement: of the states.
      at: the sharding of every leaf of them.
    """
    written = {
        k: x
        for k, x in _written(after).items()
        if jnp.issubdtype(x.dtype, jnp.floating)
    }
    old, where = (
        {k: x for k, x in _written(state).items() if k in written}
        for state in (before, at)
    )
    spoiled = placement.any_part(_spoiled, written, old, where)
    lost = {k: ~jnp.isfinite(found.losses[k]) for k in groups.objectives}
    anything = _any(*lost.values(), *spoiled.values())
    norms = _norms(before.opt_state[0], found.state)
    objectives, by_group = dict(lost), dict[str, jax.Array]()
    for group, names in groups.groups.items():
        by_group[group] = _any(*_of_group(spoiled, groups, group))
        for name, norm in zip(names, norms.get(group, ()), strict=False):
            objectives[name] |= ~jnp.isfinite(norm)
            by_group[group] |= ~jnp.isfinite(norm)
    nobody = ~_any(*objectives.values())
    for group, names in groups.groups.items():
        if len(names) == 1:  # nobody else acts there
            objectives[names[0]] |= nobody & by_group[group]
    others = [x for name, x in spoiled.items() if not name.startswith(_PARAMS)]
    return Faults(
        anything,
        {k: x & anything for k, x in objectives.items()},
        {k: x & anything for k, x in by_group.items()},
        _any(*others),
    )


def undone(
    before: TrainState, after: TrainState, bad: jax.Array, limit: int | None
) -> TrainState:
    """The state that a step leaves.

    Args:
      before: the state before it.
      after: the state that it came to.
      bad: whether that is not finite: then only its number counts on.
      limit: so many such steps in a row, and nothing changes any more; None: what a
        step came to is taken as it is.
    """
    streak = jnp.where(bad, before.streak + 1, 0)
    if limit is None:
        return after._replace(streak=streak)
    goes_on = before.streak < limit
    good = goes_on & ~bad
    chosen: TrainState = jax.tree.map(
        lambda new, old: jnp.where(good, new, old), after, before
    )
    return chosen._replace(
        step=before.step + goes_on, streak=jnp.where(goes_on, streak, before.streak)
    )


def _any(*flags: jax.Array) -> jax.Array:
    """Whether one of them is true; of none, that is not so."""
    return jnp.stack([*flags, jnp.array(False)]).any()


def _of_group(
    spoiled: Flags, groups: mmp.ObjectiveGroups, group: str
) -> list[jax.Array]:
    """Of the parameters of a group."""
    return [
        x
        for name, x in spoiled.items()
        if name.startswith(_PARAMS) and _group_of(name, groups) == group
    ]


def _group_of(name: str, groups: mmp.ObjectiveGroups) -> str:
    """The group of a parameter.

    Those of gradients at the features name only what comes after these: what comes
    before is theirs.
    """
    for path in (name.removeprefix(_PARAMS), name):
        with contextlib.suppress(ValueError):
            return groups.group_of(path)
    return groups.group_of(_FEATURES)


def _spoiled(new: Mapping[str, Any], old: Mapping[str, Any]) -> Flags:
    """Name -> whether a number is not finite that was, or a parameter is NaN.

    A step that goes on from NaN is no better than the one that led there, even where a
    loss does not show it: a maximum may pass NaN over.
    """
    found = {}
    for name, x in new.items():
        bad = jnp.isfinite(old[name])
        if name.startswith(_PARAMS):
            bad |= jnp.isnan(x)
        found[name] = jnp.any(~jnp.isfinite(x) & bad)
    return found


def _written(state: TrainState) -> dict[str, Any]:
    """The arrays that a step writes, by name.

    But for what it only tells; and for the optimiser's, which are not finite where the
    parameters are not.
    """
    rule = _without(state.opt_state[0])
    parts = {"params": state.params, "rest": state.rest}
    return dict(named_leaves({**parts, "rule": rule, "memory": state.memory}))


def _without(rule: Any) -> Any:
    """A combination's state without diagnostics and reports."""

    def is_report(x: Any) -> bool:
        return isinstance(x, SolverReport)

    def is_state(x: Any) -> bool:
        return isinstance(x, AggregateState)

    def bare(x: Any) -> Any:
        return x._replace(diagnostics=None) if is_state(x) else x

    found = jax.tree.map(bare, rule, is_leaf=is_state)
    return jax.tree.map(lambda x: None if is_report(x) else x, found, is_leaf=is_report)


def _norms(before: Any, after: Any) -> Mapping[str, jax.Array]:
    """Group -> the norms of its objectives' gradients, as far as they are new."""
    found = {k: x["norms"] for k, x in mmp.diagnostics(after).items()}
    if not isinstance(after, mmp.RefreshState):
        return found
    now = (after.age == 1) | (after.missed > before.missed)
    return {k: jnp.where(now, x, 0) for k, x in found.items()}
