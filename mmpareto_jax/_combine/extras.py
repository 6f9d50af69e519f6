"""The extra arguments of an update, as a rule wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.groups import ObjectiveGroups, named_leaves
from mmpareto_jax._gradients.losses import by_name
from mmpareto_jax._gramians.gramian import Gramians, check_stacked
from mmpareto_jax._gramians.products import cross_gramian
from mmpareto_jax.weightings import Aggregator, LossWeighting, Weighting


class Extras:
    """What ``tx.update(grads, state, params, **extra_args)`` was given besides."""

    def __init__(self, groups: ObjectiveGroups, given: Mapping[str, Any]):
        self._groups, self._given = groups, given

    def rows(self, group: str) -> jax.Array:
        """The group's objectives, as indices among all."""
        names = self._groups.groups[group]
        return jnp.array([self._groups.objectives.index(name) for name in names])

    def of_group(
        self,
        rule: Weighting | LossWeighting | Aggregator,
        group: str,
        gramians: Gramians,
        leaves: Mapping[str, jax.Array],
    ) -> dict[str, Any]:
        """The keyword arguments of `rule` for a group with these stacked leaves."""
        dtype = gramians.total.dtype
        found: dict[str, Any] = {}
        for name in rule.extras:
            if name == "losses":
                losses = self._per_objective(name, dtype)
                found[name] = None if losses is None else losses[self.rows(group)]
            elif name == "scale":
                found[name] = gramians.scale
            elif name == "rows":
                found[name] = gramians.rows
            elif name == "cross":
                found[name] = self._cross(gramians, leaves)
            else:
                raise ValueError(f"aggregate: unknown extra {name!r} of the weighting.")
        return found

    def of_losses(self, rule: LossWeighting) -> tuple[jax.Array, dict[str, Any]]:
        """All losses [K], and the keyword arguments of `rule`."""
        losses = self._per_objective("losses", None)
        if losses is None:
            raise ValueError(
                "aggregate: this rule weights losses; call tx.update(grads, state, "
                "params, losses=losses)."
            )
        dtype = losses.dtype
        return losses, {name: self._per_objective(name, dtype) for name in rule.extras}

    def _per_objective(self, name: str, dtype: Any) -> jax.Array | None:
        """An argument that has a scalar for each objective, as an array [K]."""
        value = self._given.get(name)
        if value is None:
            return None
        found = by_name("aggregate", name, value, self._groups.objectives)
        return found.astype(dtype or found.dtype)

    def _cross(self, gramians: Gramians, leaves: Mapping[str, jax.Array]) -> jax.Array:
        if self._given.get("independent") is None:
            return gramians.common(gramians.total)
        others = dict(named_leaves(self._given["independent"]))
        for path, leaf in leaves.items():
            if path not in others:
                raise ValueError(f"aggregate: independent has no leaf {path!r}.")
            check_stacked("aggregate", path, others[path], leaf.shape[0])
        pairs: Sequence[tuple[jax.Array, jax.Array]] = [
            (leaf, others[path]) for path, leaf in leaves.items()
        ]
        return cross_gramian(pairs, gramians.scale)
