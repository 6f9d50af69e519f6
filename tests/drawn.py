"""Gradients as hypothesis draws them: of any scales, alike, opposite or zero.

Numbers are drawn, shapes come from a short list: every structure is compiled once.
"""

import math

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

# Leaves of a tree: vectors, a scalar, an empty one, several of unlike ranks.
TREES = {
    "vector": {"w": (7,)},
    "scalar": {"b": ()},
    "three": {"b": (), "e": (0,), "w": (2, 3)},
    "one": {"w": (11,)},
    "six": {"a": (1,), "b": (), "e": (0, 3), "v": (3,), "w": (2, 2), "z": (1, 2)},
}
SCALE = 30  # of exponents, to the base 10
KINDS = (
    "normal",
    "whole",
    "again",
    "opposite",
    "near",
    "nearly opposite",
    "dependent",
    "wide",
    "zero",
    "denormal",
)


def size_of(tree):
    """The numbers in all leaves."""
    return sum(math.prod(shape) for shape in TREES[tree].values())


def cut(rows, tree, dtype=None):
    """Rows [K, P] as a tree of stacked leaves [K, ...]."""
    found, start = {}, 0
    for name, shape in TREES[tree].items():
        end = start + math.prod(shape)
        part = rows[..., start:end].reshape(*rows.shape[:-1], *shape)
        found[name], start = jnp.asarray(part, dtype), end
    return found


def joined(tree):
    """A tree of leaves [...] as one vector of float64."""
    leaves = [np.asarray(tree[name], np.float64).ravel() for name in tree]
    return np.concatenate(leaves)


def _row(kind, before, size, rng):
    """One row [P]; about as long as 1, unless its kind says otherwise."""
    other = before[rng.integers(len(before))] if before else rng.normal(size=size)
    noise = rng.normal(size=size) * 10.0 ** -rng.integers(1, 9)
    if kind == "whole":
        return rng.integers(-2, 3, size).astype(np.float64)
    if kind == "again":
        return other
    if kind == "opposite":
        return -other * rng.choice([0.25, 1.0, 3.0])
    if kind == "near":
        return other * rng.choice([0.25, 1.0, 3.0]) + noise
    if kind == "nearly opposite":
        return -other * rng.choice([0.25, 1.0, 3.0]) + noise
    if kind == "dependent" and before:
        return rng.normal(size=len(before)) @ np.array(before)
    if kind == "wide":
        return rng.normal(size=size) * 10.0 ** rng.uniform(-25, 0, size)
    if kind == "zero":
        return np.zeros(size)
    if kind == "denormal":
        return rng.normal(size=size) * 1e-40
    return rng.normal(size=size)


@st.composite
def rows(draw, num, size, *, kinds=KINDS, least=-SCALE, most=SCALE, dtype="float32"):
    """Rows [K, P] of a dtype, all finite, as the processor has them.

    Args:
      draw: hypothesis's.
      num: K.
      size: P.
      kinds: of rows.
      least: exponent of the smallest scale, to the base 10.
      most: of the largest scale.
      dtype: of the rows.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    each = draw(st.lists(st.sampled_from(kinds), min_size=num, max_size=num))
    scale = st.integers(least, most)
    scales = draw(
        st.one_of(
            scale.map(lambda x: [x] * num),
            st.lists(scale, min_size=num, max_size=num),
        )
    )
    found = []
    for kind in each:
        found.append(_row(kind, found, size, rng))
    found = np.array(found) * 10.0 ** np.array(scales, np.float64)[:, None]
    return as_held(found, dtype)


def as_held(rows, dtype):
    """Rounded to a dtype; below the smallest normal number of a wide one is zero."""
    dtype = jnp.dtype(dtype)
    rows = np.asarray(rows, dtype)
    tiny = jnp.finfo(jnp.promote_types(dtype, "float32")).tiny
    exact = rows.astype(np.float64)
    return np.where(np.abs(exact) < float(tiny), np.zeros_like(rows), rows)
