"""What stacked gradients must be, and the sentences for what they are not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gradients.manual import varying_axes
from mmpareto_jax._gramians.gramian import check_stacked


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
