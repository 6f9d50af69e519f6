"""What of a refresh is kept, and how long a gradient may be until the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.aggregate import Aggregation
from mmpareto_jax._combine.known_weights import Known
from mmpareto_jax._combine.weighted_pass import several
from mmpareto_jax._gradients.groups import ObjectiveGroups, PyTree, named_leaves
from mmpareto_jax._gramians.gramian import Gramians, group_gramians

Lengths: TypeAlias = dict[str, jax.Array]


def usable_groups(
    groups: ObjectiveGroups,
    known: Known,
    gramians: Mapping[str, Gramians],
    lengths: Lengths,
) -> dict[str, jax.Array]:
    """Group of several objectives -> whether what was found for it can be gone on with.

    All of it must be finite; and where lengths guard, a gradient of zero would hold the
    group where it is.
    """
    found: dict[str, list[Any]] = {k: [g.total] for k, g in gramians.items()}
    assert not isinstance(known.groups, jax.Array)
    for k, own in found.items():
        own += [known.groups.get(k), known.group_scales.get(k), lengths.get(k)]
    for path, x in known.leaves.items():
        found[groups.group_of(path)] += [x, known.leaf_scales[path]]
    finite = {
        k: jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(own)]).all()
        for k, own in found.items()
    }
    return {k: x & (lengths[k] > 0) if lengths else x for k, x in finite.items()}


def kept_where(
    usable: Mapping[str, jax.Array],
    groups: ObjectiveGroups,
    new: tuple[Known, Lengths],
    old: tuple[Known, Lengths],
) -> tuple[Known, Lengths]:
    """The new weights and lengths; the old ones of groups where they are not usable."""

    def chosen(group: str, new: Any, old: Any) -> Any:
        if group not in usable:
            return old
        return jax.tree.map(
            lambda a, b: jnp.where(usable[group], a.astype(b.dtype), b), new, old
        )

    def by_group(new: Any, old: Any) -> Any:
        return {name: chosen(name, new[name], x) for name, x in old.items()}

    def by_path(new: Any, old: Any) -> Any:
        return {p: chosen(groups.group_of(p), new[p], x) for p, x in old.items()}

    each = by_group, by_path, by_group, by_path
    known = Known(*(f(*pair) for f, *pair in zip(each, new[0], old[0], strict=True)))
    return known, by_group(new[1], old[1])


def lengths_of(rule: Aggregation, grads: PyTree) -> Lengths:
    """Group of several objectives -> the norm of its gradient."""
    leaves, own = dict(named_leaves(grads)), several(rule.groups, grads)
    found = group_gramians(
        [[leaves[path][None] for path in paths] for paths, _ in own.values()],
        rule.axis_names,
        of_leaves=False,
    )
    return {k: g.norms[0] for k, g in zip(own, found, strict=True)}


def shortened(
    rule: Aggregation,
    params: PyTree,
    known: Known,
    sums: list[jax.Array],
    lengths: Lengths,
) -> Known:
    """Weights that make no group's gradient longer than at the last refresh.

    The sums are within range, and what is made of them with the old weights need not
    be. So it is the weights that are shortened, before.
    """
    groups, leaves = dict(known.group_scales), dict(known.leaf_scales)
    found = dict(zip((path for path, _ in named_leaves(params)), sums, strict=True))
    for name, (paths, dtype) in several(rule.groups, params).items():
        scales = [leaves[path] for path in paths if path in leaves] or [groups[name]]
        middle, largest = scales[0][0], jnp.max(jnp.stack([x for _, x in scales]))
        rows = [found[path].astype(dtype) for path in paths]
        if len(scales) > 1:
            each = zip(rows, scales, strict=True)
            rows = [x * (size / largest) for x, (_, size) in each]
        (g,) = group_gramians(
            [[x[None] for x in rows]], rule.axis_names, of_leaves=False
        )
        norm = g.norms[0]
        # Where it is NaN all of the group is, as at a refresh.
        limit = lengths[name] / jnp.where(norm == 0, 1, norm) * middle
        limit = jnp.where(norm == 0, largest, jnp.minimum(limit, largest))
        if name in groups:
            groups[name] = middle, limit
        for path in (x for x in paths if x in leaves):
            leaves[path] = middle, leaves[path][1] / largest * limit
    return known._replace(group_scales=groups, leaf_scales=leaves)
