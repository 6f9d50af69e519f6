"""A backward pass that begins with its weights known: one sum for each parameter."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.aggregate import Aggregation
from mmpareto_jax._combine.known_weights import Known, alike, known_weights, reach_of
from mmpareto_jax._combine.state import AggregateState
from mmpareto_jax._gradients.backward import Pulled
from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.lanes import in_order
from mmpareto_jax._gradients.mixes import mixes_of
from mmpareto_jax._gradients.pullback import Pullback
from mmpareto_jax._gradients.reach import Rows
from mmpareto_jax._gramians.gramian import Gramians, unread
from mmpareto_jax._gramians.piecewise import Piece, joined, piece


class Step(NamedTuple):
    """What one call has to go on."""

    pulled: Pulled
    groups: ObjectiveGroups
    rows: list[Rows]  # per parameter, in the order of its group
    params: PyTree
    pullback: Pullback

    def weigh(
        self,
        rule: Aggregation,
        gramians: dict[str, Gramians],
        state: AggregateState,
    ) -> tuple[Known, AggregateState]:
        """The weights of every parameter, and the state."""
        assert rule.weigh is not None
        weights, everywhere, state = rule.weigh(
            gramians, state, losses=self.pulled.losses
        )
        if everywhere is None:
            own = members(self.groups, self.params)
            reach = reach_of(self.params)
            return known_weights(weights, gramians, own, reach), state
        order = [self.groups.objectives.index(x) for x in self.pulled.names]
        paths = zip(named_leaves(self.params), self.rows, strict=True)
        rows = {self.groups.group_of(path): x for (path, _), x in paths}
        reach = reach_of(self.params)
        return alike(everywhere[jnp.array(order)], rows, reach), state

    def weighted(self, rule: Aggregation, known: Known, *, again: bool) -> PyTree:
        """The gradient of weighted losses, in a pass of its own; see ``sums``."""
        return self.restored(known, self.sums(rule, known, again=again))

    def sums(self, rule: Aggregation, known: Known, *, again: bool) -> list[jax.Array]:
        """Per parameter its gradients weighted by the factors, which are near 1.

        Args:
          rule: what the weights are of.
          known: the weights.
          again: whether the rows have been there before.
        """
        named, names = named_leaves(self.params), self.pulled.names
        paths = [path for path, _ in named]
        mixes = mixes_of(self.groups, names, paths, known.groups, known.leaves)
        sums = self.pulled.mixed(self.pullback, mixes, again=again)
        for path, x, rows in zip(paths, sums, self.rows, strict=True):
            if len(rows) > 1:
                rule.check(path, x[None])
        return sums

    def restored(self, known: Known, sums: list[jax.Array]) -> PyTree:
        """The gradient, from the sums."""
        named = named_leaves(self.params)
        leaves = [
            known.restored(self.groups.group_of(own[0]), own, x)
            for own, x in zip(named, sums, strict=True)
        ]
        return jax.tree.unflatten(jax.tree.structure(self.params), leaves)

    def gramians(self, rule: Aggregation) -> dict[str, Gramians]:
        """Of each group of several objectives; of the rows nothing is kept."""
        swept = self.pulled.objectives(self.pullback)
        paths = [path for path, _ in named_leaves(self.params)]
        found = dict(zip(paths, zip(swept, self.rows, strict=True), strict=True))

        def of(path: str, dtype: jnp.dtype) -> Piece:
            x, rows = found[path]
            return piece(in_order(x, rows), dtype, rule.axis_names)

        return {
            name: joined([of(path, dtype) for path in own], of_leaves=rule.reads_leaves)
            for name, (own, dtype) in several(self.groups, self.params).items()
        }


def members(groups: ObjectiveGroups, params: PyTree) -> dict[str, list[str]]:
    """Group -> the paths of its parameters, in order."""
    found: dict[str, list[str]] = {}
    for path, _ in named_leaves(params):
        found.setdefault(groups.group_of(path), []).append(path)
    return found


def several(
    groups: ObjectiveGroups, params: PyTree
) -> dict[str, tuple[list[str], jnp.dtype]]:
    """Group of several objectives -> its parameters' paths, and their wide dtype."""
    leaves = dict(named_leaves(params))
    return {
        name: (own, wide(*(leaves[path] for path in own)))
        for name, own in members(groups, params).items()
        if len(groups.groups[name]) > 1
    }


def unread_gramians(groups: ObjectiveGroups, params: PyTree) -> dict[str, Gramians]:
    """Of each group of several objectives, for rules that look at nothing in them."""
    return {
        name: unread(len(groups.groups[name]), len(own), dtype)
        for name, (own, dtype) in several(groups, params).items()
    }
