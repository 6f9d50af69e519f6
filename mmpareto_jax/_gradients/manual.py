"""Values inside ``shard_map``: the mesh axes over which they differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
from jax import lax

Tree = TypeVar("Tree")


def varying_axes(x: Any) -> frozenset[str]:
    """The manual axes over which `x` differs, as far as its type says.

    With ``shard_map(..., check_vma=False)``, and outside of ``shard_map``, none.
    """
    kind: Any = jax.typeof(x) if isinstance(x, jax.Array) else x
    # Its name has changed between versions of jax.
    found: Any = getattr(kind, "vma", None)
    if found is None:
        found = getattr(getattr(kind, "manual_axis_type", None), "varying", ())
    return frozenset(found)


def vary(tree: Tree, axes: Iterable[str]) -> Tree:
    """The same values, with a type that says that they may differ over `axes`."""

    def one(x: jax.Array) -> jax.Array:
        missing = tuple(sorted(frozenset(axes) - varying_axes(x)))
        return lax.pcast(x, missing, to="varying") if missing else x

    varied: Tree = jax.tree.map(one, tree)
    return varied


def vary_like(tree: Tree, *values: jax.Array) -> Tree:
    """The same, over all axes of `values`: what a loop carries keeps its type."""
    return vary(tree, frozenset().union(*map(varying_axes, values)))


def shared_axes(x: jax.Array, axis_names: Sequence[str]) -> tuple[str, ...]:
    """Of these axes those over which `x` is a part, not a copy.

    Where types do not tell (``check_vma=False``) it is taken to be a part over all.
    """

    def told(name: str) -> bool:
        return name in varying_axes(lax.axis_index(name))

    own = varying_axes(x)
    return tuple(name for name in axis_names if name in own or not told(name))


def alike_cond(
    which: jax.Array, yes: Callable[[], Tree], no: Callable[[], Tree]
) -> Tree:
    """``lax.cond`` of branches that may differ in the axes over which values vary."""
    found: Tree
    if not jax.sharding.get_abstract_mesh().manual_axes:
        found = lax.cond(which, yes, no)
        return found
    kinds = [jax.tree.leaves(jax.eval_shape(branch)) for branch in (yes, no)]
    axes = [varying_axes(a) | varying_axes(b) for a, b in zip(*kinds, strict=True)]

    def typed(branch: Callable[[], Tree]) -> Callable[[], Tree]:
        def call() -> Tree:
            leaves, structure = jax.tree.flatten(branch())
            varied = [vary(x, own) for x, own in zip(leaves, axes, strict=True)]
            same: Tree = jax.tree.unflatten(structure, varied)
            return same

        return call

    found = lax.cond(which, typed(yes), typed(no))
    return found
