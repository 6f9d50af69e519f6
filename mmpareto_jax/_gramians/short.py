"""Short leaves of a group side by side, so that all of them are one read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mmpareto_jax._gradients.manual import varying_axes
from mmpareto_jax._gradients.stacks import Stack
from mmpareto_jax._gramians.products import few_apart, is_partitioned

# Of this many numbers in a row or fewer. What is copied then is little.
_SHORT = 2**13


def side_by_side(leaves: Sequence[jax.Array]) -> list[Stack]:
    """The same rows, in fewer leaves.

    Most leaves of a network are biases and scales. A program has several operations
    for each leaf, and a GPU starts them one by one.

    Args:
      leaves: [K, ...], of a group. The short ones of one dtype are joined, but for
        those that may be in parts on several devices.

    Returns:
      The leaves, and those that are joined; a few rows apart.
    """
    long: list[Stack] = []
    short: dict[Any, list[Stack]] = {}
    for leaf in leaves:
        if leaf[0].size > _SHORT or is_partitioned(leaf):
            long.append(few_apart(leaf))
        else:
            kind = leaf.dtype, varying_axes(leaf)
            short.setdefault(kind, []).append(few_apart(leaf))
    return long + [_joined(own) for own in short.values()]


def _joined(leaves: Sequence[Stack]) -> Stack:
    if len(leaves) == 1:
        return leaves[0]
    if all(isinstance(leaf, tuple) for leaf in leaves):
        rows = zip(*leaves, strict=True)
        return tuple(jnp.concatenate([x.ravel() for x in own]) for own in rows)
    flat = [jnp.asarray(leaf).reshape(len(leaf), -1) for leaf in leaves]
    return jnp.concatenate(flat, 1)
