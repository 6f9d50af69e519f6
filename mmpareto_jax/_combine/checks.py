"""What stacked gradients must be, and the sentences for what they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.state import AggregateState
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.manual import varying_axes
from mmpareto_jax._gramians.gramian import check_stacked
from mmpareto_jax.weightings import Aggregator, LossWeighting, Weighting


def check_rule(rule: Any) -> None:
    """Raises unless it is a rule, and not what makes one."""
    if not isinstance(rule, Weighting | LossWeighting | Aggregator):
        raise TypeError(
            "aggregate: weighting must be a rule, as mmp.weightings.mgda() returns "
            f"one, got {type(rule).__name__}."
        )


def check_state(state: Any) -> None:
    """Raises unless it is a state of an aggregation."""
    if not isinstance(state, AggregateState):
        raise TypeError(
            "aggregate: the state must be the AggregateState that init returns, got "
            f"{type(state).__name__}."
        )


def named_arrays(params: PyTree) -> list[tuple[str, Any]]:
    """The parameters by their paths; raises unless they are arrays."""
    named = named_leaves(params)
    for path, leaf in named:
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise TypeError(
                f"aggregate: parameter {path!r} must be an array, got "
                f"{type(leaf).__name__}."
            )
    return named


def names_of_axes(
    axis_name: str | Sequence[str] | None, caller: str
) -> tuple[str, ...]:
    """The mesh axes that an argument names; raises unless they are names."""
    found = (axis_name,) if isinstance(axis_name, str) else axis_name
    if found is None:
        return ()
    named = isinstance(found, Sequence | set | frozenset)
    if not (named and all(isinstance(name, str) for name in found)):
        raise TypeError(
            f"{caller}: axis_name must be the name of a mesh axis, or several, got "
            f"{axis_name!r:.60}."
        )
    return tuple(found)


def check_axes(
    path: str, leaf: jax.Array, axis_names: tuple[str, ...], caller: str = "aggregate"
) -> None:
    """Raises if a leaf varies over a mesh axis that is not named."""
    unknown = sorted(varying_axes(leaf) - frozenset(axis_names))
    if unknown:
        raise ValueError(
            f"{caller}: leaf {path!r} varies over the mesh axis {unknown[0]!r}: "
            "inner products would be those of this device's part alone. Reduce the "
            "gradients first (jax.lax.pmean). Or, if they are sharded over it, "
            f"pass axis_name={unknown[0]!r}; or axis_name=() if every device "
            "trains a model of its own."
        )


def check_leaves(
    groups: ObjectiveGroups, leaves: list[tuple[str, Any]], params: PyTree | None
) -> None:
    """Raises unless the leaves are stacked as their groups ask."""
    own = {} if params is None else {p: x.shape for p, x in named_leaves(params)}
    for path, leaf in leaves:
        num = len(groups.groups[groups.group_of(path)])
        shape = jnp.shape(leaf)
        if own.get(path) == shape:
            raise ValueError(
                f"aggregate: leaf {path!r} has its parameter's own shape {shape}: "
                f"these gradients are not stacked. Expected {(num, *shape)}, a row per "
                "objective, as value_and_objective_grads gives them. Those of "
                "combined_grads are combined already, and only an optimiser comes "
                "after it."
            )
        check_stacked("aggregate", path, leaf, num)
        if path in own and shape[1:] != own[path]:
            raise ValueError(
                f"aggregate: leaf {path!r} has shape {shape}, but its parameter has "
                f"{own[path]}: expected {(num, *own[path])}."
            )
