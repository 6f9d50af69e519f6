"""Weighted sums of objectives whose weights are known before the backward pass."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.groups import ObjectiveGroups
from mmpareto_jax._gradients.lanes import Lanes
from mmpareto_jax._gradients.needs import NOTHING, Need
from mmpareto_jax._gradients.reach import Rows


class Mixes(NamedTuple):
    """The weighted sums that a backward pass is to give.

    Attributes:
      of: per output its mix, by its lane: a negative number; None for what no
        objective reaches.
      weights: mix -> objective -> its weight, a scalar; other objectives have none.
    """

    of: Sequence[int | None]
    weights: Mapping[int, Mapping[int, jax.Array]]

    def needs(self) -> list[Need]:
        """What the outputs are wanted for."""
        return [NOTHING if own is None else Need(frozenset((own,))) for own in self.of]

    def mixed(self, x: Lanes, lanes: Rows) -> Lanes:
        """A value for mixes instead of objectives.

        Args:
          x: for objectives; for mixes it stays as it is.
          lanes: of which mixes; those that none of its objectives is part of, which
            are zero, are left out.
        """
        if x.mixed:
            return x
        own = [m for m in lanes if set(x.rows) & set(self.weights[m])] or lanes[:1]
        values = tuple(self._sum(x, m) for m in own)
        return Lanes(tuple(own), jnp.stack(values) if x.stacked else values)

    def output(self, i: int, x: Any) -> jax.Array:
        """The mix that an output is wanted for."""
        own = self.of[i]
        if own is None:
            return jnp.zeros_like(x.values[0] if isinstance(x, Lanes) else x)
        if not isinstance(x, Lanes):
            return jnp.asarray(x)
        return jnp.asarray(self.mixed(x, (own,)).at((own,)).values[0])

    def _sum(self, x: Lanes, mix: int) -> jax.Array:
        weights = self.weights[mix]
        own = [i for i, k in enumerate(x.rows) if k in weights]
        if not own:
            return jnp.zeros_like(x.values[0])
        given = [weights[x.rows[i]] for i in own]
        # In half precision a small weight would be zero, its product with a row is not.
        narrow = x.values[0].dtype
        wide = jnp.promote_types(narrow, given[0].dtype)
        given = [w.astype(wide) for w in given]
        if x.stacked and len(own) > 1:
            values = jnp.asarray(x.values)
            chosen = values if len(own) == len(x.rows) else values[jnp.array(own)]
            total = jnp.tensordot(
                jnp.stack(given), chosen.astype(wide), 1, precision="highest"
            )
        else:
            pairs = zip(given, own, strict=True)
            terms = [w * x.values[i].astype(wide) for w, i in pairs]
            total = functools.reduce(operator.add, terms)
        return total.astype(narrow)


def mixes_of(
    groups: ObjectiveGroups,
    names: Sequence[str],
    paths: Sequence[str],
    weights: Mapping[str, jax.Array] | jax.Array,
    of_leaves: Mapping[str, jax.Array] | None = None,
) -> Mixes:
    """One mix for each group of parameters.

    Args:
      groups: which objectives act on which parameters.
      names: of the objectives, in the order of the backward pass's inputs.
      paths: of the parameters, in their order.
      weights: group -> [K_g], in the order of its objectives. Or [K], in the order of
        `names`, if an objective's weight is the same in every group: one mix for all.
      of_leaves: path -> [K_g] for parameters with weights of their own.
    """
    index = {name: k for k, name in enumerate(names)}
    own = of_leaves or {}
    if not isinstance(weights, Mapping):
        each = [-1 if groups.groups[groups.group_of(x)] else None for x in paths]
        return Mixes(each, {-1: {k: weights[k] for k in range(len(names))}})
    found: dict[tuple[str, bool], int] = {}
    of: list[int | None] = []
    rows: dict[int, Mapping[int, jax.Array]] = {}
    for path in paths:
        group = groups.group_of(path)
        names = groups.groups[group]
        if not names:
            of.append(None)
            continue
        key = (path, True) if path in own else (group, False)
        mix = found.setdefault(key, -1 - len(found))
        if mix not in rows:
            given = own[path] if path in own else weights[group]
            rows[mix] = {index[name]: given[i] for i, name in enumerate(names)}
        of.append(mix)
    return Mixes(of, rows)
