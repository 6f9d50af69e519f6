"""A backward pass that begins with its weights known: one sum for each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.aggregate import Aggregation
from mmpareto_jax._combine.kinds import Weights
from mmpareto_jax._gradients.backward import Pulled
from mmpareto_jax._gradients.dtypes import wide
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.lanes import in_order
from mmpareto_jax._gradients.mixes import mixes_of
from mmpareto_jax._gradients.pullback import Pullback
from mmpareto_jax._gradients.reach import Rows
from mmpareto_jax._gramians.gramian import Gramians, power_below, unread
from mmpareto_jax._gramians.piecewise import Piece, joined, piece


class Step(NamedTuple):
    """What one call has to go on."""

    pulled: Pulled
    groups: ObjectiveGroups
    rows: list[Rows]  # per parameter, in the order of its group
    params: PyTree
    pullback: Pullback

    def weighted(self, rule: Aggregation, state: PyTree) -> tuple[PyTree, PyTree]:
        """The gradient of weighted losses, in a pass of its own; and the state."""
        assert rule.weigh is not None
        gramians = self.gramians(rule)
        weights, everywhere, state = rule.weigh(
            gramians, state, losses=self.pulled.losses
        )
        known = (
            _known(weights, gramians, self.members())
            if everywhere is None
            else self.alike(everywhere)
        )
        named, names = named_leaves(self.params), self.pulled.names
        paths = [path for path, _ in named]
        mixes = mixes_of(self.groups, names, paths, known.groups, known.leaves)
        again = rule.reads_gramians
        sums = self.pulled.mixed(self.pullback, mixes, again=again)
        for path, x, rows in zip(paths, sums, self.rows, strict=True):
            if len(rows) > 1:
                rule.check(path, x[None])
        leaves = [known.restored(*x) for x in zip(named, sums, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(self.params), leaves), state

    def members(self) -> dict[str, list[str]]:
        """Group -> the paths of its parameters, in order."""
        found: dict[str, list[str]] = {}
        for path, _ in named_leaves(self.params):
            found.setdefault(self.groups.group_of(path), []).append(path)
        return found

    def gramians(self, rule: Aggregation) -> dict[str, Gramians]:
        """Of each group of several objectives; of the rows nothing is kept."""
        params = dict(named_leaves(self.params))
        several = {
            name: (own, wide(*(params[path] for path in own)))
            for name, own in self.members().items()
            if len(self.groups.groups[name]) > 1
        }
        if not rule.reads_gramians:
            return {
                name: unread(len(self.groups.groups[name]), len(own), dtype)
                for name, (own, dtype) in several.items()
            }
        swept = self.pulled.objectives(self.pullback)
        found = dict(zip(params, zip(swept, self.rows, strict=True), strict=True))

        def of(path: str, dtype: jnp.dtype) -> Piece:
            x, rows = found[path]
            return piece(in_order(x, rows), dtype, rule.axis_names)

        return {
            name: joined([of(path, dtype) for path in own], of_leaves=rule.reads_leaves)
            for name, (own, dtype) in several.items()
        }

    def alike(self, everywhere: jax.Array) -> _Known:
        """From weights [K], in the order of the groups' objectives, of every group."""
        order = [self.groups.objectives.index(x) for x in self.pulled.names]
        weights = everywhere[jnp.array(order)]
        finite = jnp.isfinite(weights)
        size = _size(jnp.where(finite, weights, 0))
        one = jnp.ones_like(size)
        seen = {
            rows: (one, jnp.where(finite[jnp.array(rows)].all(), size, jnp.nan))
            for rows in set(self.rows)
            if rows
        }
        paths = zip(named_leaves(self.params), self.rows, strict=True)
        scales = {path: seen[rows] for (path, _), rows in paths if rows}
        return _Known(weights / size, {}, scales)


class _Known(NamedTuple):
    """Weights that a backward pass can begin with.

    Attributes:
      groups: group -> [K_g]; or [K], if they are the same in every group.
      leaves: path -> [K_g], for a parameter with weights of its own.
      scales: path -> what the pass's result is divided by, and then multiplied by.
    """

    groups: dict[str, jax.Array] | jax.Array
    leaves: dict[str, jax.Array]
    scales: dict[str, tuple[jax.Array, jax.Array]]

    def restored(self, named: tuple[str, Any], x: jax.Array) -> jax.Array:
        """A parameter's gradient, in its own dtype."""
        path, param = named
        if path not in self.scales:
            return x
        whole: jax.Array = _restored(x, *self.scales[path])
        return whole.astype(param.dtype)


def _known(
    weights: Mapping[str, Weights],
    gramians: Mapping[str, Gramians],
    members: Mapping[str, list[str]],
) -> _Known:
    """The weights of the gradients themselves, as factors that are within range."""
    groups: dict[str, jax.Array] = {}
    known = _Known(groups, {}, {})
    for name, own in members.items():
        if name in gramians:
            middle = _middle(gramians[name].rows)
            relative = middle / gramians[name].rows
            given = weights[name]
            if given.leaves is None:
                size = _size(given.group)
                groups[name] = given.group / size * relative
                known.scales.update(dict.fromkeys(own, (middle, size)))
            for path, x in zip(own, given.leaves or (), strict=False):
                known.leaves[path] = x / _size(x) * relative
                known.scales[path] = middle, _size(x)
        elif name in weights:
            size = _size(weights[name].group)
            groups[name] = weights[name].group / size
            known.scales.update(dict.fromkeys(own, (jnp.ones_like(size), size)))
    return known


# Traced and lowered once for all parameters of one shape.
@jax.jit
def _restored(x: jax.Array, middle: jax.Array, size: jax.Array) -> jax.Array:
    wide = jnp.promote_types(x.dtype, size.dtype)
    return x.astype(wide) / middle.astype(wide) * size.astype(wide)


def _size(weights: jax.Array) -> jax.Array:
    """The power of two below the largest; NaN where one of them is not finite.

    So that it is seen in every number, and not only where a cotangent arrives.
    """
    largest = jnp.max(jnp.abs(weights))
    return jnp.where(jnp.isfinite(largest), power_below(largest), jnp.nan)


def _middle(rows: jax.Array) -> jax.Array:
    """The power of two halfway between the scales of the longest and the shortest."""
    exponents = jnp.frexp(rows)[1] - 1
    halfway = (jnp.max(exponents) + jnp.min(exponents)) // 2
    return jnp.ldexp(jnp.ones((), rows.dtype), halfway)
