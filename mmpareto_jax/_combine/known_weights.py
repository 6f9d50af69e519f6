"""Weights that a backward pass can begin with, as factors that are within range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mmpareto_jax._combine.kinds import Weights
from mmpareto_jax._gradients.groups import PyTree
from mmpareto_jax._gramians.gramian import Gramians
from mmpareto_jax._gramians.powers import exponents_of, power_below, shifted

# What a pass's result is divided by, and then multiplied by.
Scale: TypeAlias = tuple[jax.Array, jax.Array]


# How far from 1 weights may be, that a pass begins with them as they are; with any that
# float16 has, they or their products with gradients could leave its range.
_FAR, _NOT_AT_ALL = 2.0**60, 1.0


def reach_of(params: PyTree) -> float:
    """How far from 1 the weights may be that a pass to these parameters begins with."""
    half = any(jnp.result_type(x) == jnp.float16 for x in jax.tree.leaves(params))
    return _NOT_AT_ALL if half else _FAR


class Known(NamedTuple):
    """Weights that are known before the gradients are.

    Attributes:
      groups: group -> [K_g]; or [K], if they are the same in every group.
      leaves: path -> [K_g], for a parameter with weights of its own.
      group_scales: group -> the scale of its parameters' sums.
      leaf_scales: path -> that of a parameter with weights of its own.
    """

    groups: dict[str, jax.Array] | jax.Array
    leaves: dict[str, jax.Array]
    group_scales: dict[str, Scale]
    leaf_scales: dict[str, Scale]

    def restored(self, group: str, named: tuple[str, Any], x: jax.Array) -> jax.Array:
        """A parameter's gradient, in its own dtype, from what the pass gave for it."""
        path, param = named
        scale = self.leaf_scales.get(path, self.group_scales.get(group))
        if scale is None:
            return x
        whole: jax.Array = _restored(x, *scale)
        return whole.astype(param.dtype)


def known_weights(
    weights: Mapping[str, Weights],
    gramians: Mapping[str, Gramians],
    members: Mapping[str, list[str]],
    reach: float,
) -> Known:
    """The weights of the gradients themselves.

    Args:
      weights: group -> those of gradients that are divided by the Gramian's rows.
      gramians: of each group of several objectives.
      members: group -> the paths of its parameters.
      reach: of the parameters.
    """
    groups: dict[str, jax.Array] = {}
    known = Known(groups, {}, {}, {})
    for name, own in members.items():
        if name in gramians:
            rows, given = gramians[name].rows, weights[name]
            if given.leaves is None:
                groups[name], known.group_scales[name] = _factors(
                    given.group, rows, reach
                )
            for path, x in zip(own, given.leaves or (), strict=False):
                known.leaves[path], known.leaf_scales[path] = _factors(x, rows, reach)
        elif name in weights:
            size = _size(weights[name].group)
            groups[name] = weights[name].group / size
            known.group_scales[name] = jnp.ones_like(size), size
    return known


def alike(
    weights: jax.Array, rows: Mapping[str, tuple[int, ...]], reach: float
) -> Known:
    """From weights [K] that are the same in every group.

    Args:
      weights: in the order of the backward pass's objectives.
      rows: group -> the objectives that reach it; where one of their weights is not
        finite, all of the group shows it.
      reach: of the parameters.
    """
    finite = jnp.isfinite(weights)
    usable = jnp.where(finite, weights, 0)
    one = jnp.ones_like(usable[0])
    size = jnp.where(_is_moderate(usable, reach), one, _size(usable))
    scales = {
        name: (one, jnp.where(finite[jnp.array(own)].all(), size, jnp.nan))
        for name, own in rows.items()
        if own
    }
    return Known(weights / size, {}, scales, {})


def _factors(
    weights: jax.Array, rows: jax.Array, reach: float
) -> tuple[jax.Array, Scale]:
    """What a pass begins with, from weights of divided gradients; and its scale.

    It is the weights of the gradients themselves, wherever these are not far from 1: a
    short gradient is then not lost where it is alone beside a long one.
    """
    exponents = exponents_of(rows)
    own = shifted(weights, -exponents)
    middle, size = _middle(rows), _size(weights)
    factors = shifted(weights, exponents_of(middle) - exponents_of(size) - exponents)
    # What comes to little is better computed as much, and made small at the end.
    plain = _is_moderate(own, reach) & (size > 1 / reach)
    one = jnp.ones_like(size)
    scale = jnp.where(plain, one, middle), jnp.where(plain, one, size)
    return jnp.where(plain, own, factors), scale


def _is_moderate(weights: jax.Array, reach: float) -> jax.Array:
    """Whether a pass may begin with them: the largest is not far from 1."""
    largest = jnp.max(jnp.abs(weights))
    return (largest > 1 / reach) & (largest < reach)


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
