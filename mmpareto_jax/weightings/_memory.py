"""What rules keep between steps: only of steps that went well, random keys, vectors."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

State: TypeAlias = Any


def kept(usable: jax.Array, new: State, old: State) -> State:
    """The new state in the old one's dtypes; the old one where a step went wrong.

    A step that is not finite must leave nothing behind in a rule: what it wrote into
    the state would be there for ever.

    Args:
      usable: scalar bool, whether what the rule read was finite.
      new: the state that it returned.
      old: the state that it was given.
    """
    new = jax.tree.map(lambda a, b: _placed_like(b, jnp.asarray(a, b.dtype)), new, old)
    for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True):
        if jnp.issubdtype(b.dtype, jnp.inexact):
            # An infinity that a rule has begun with is its own affair.
            usable &= jnp.all(jnp.isfinite(a) | (a == b))
    return jax.tree.map(lambda a, b: jnp.where(usable, a, b), new, old)


def _placed_like(old: jax.Array, new: jax.Array) -> jax.Array:
    """The new array where the old one lies: on Explicit axes its type says where."""
    place = jax.typeof(old).sharding
    if place.mesh.empty or place == jax.typeof(new).sharding:
        return new
    moved: jax.Array = jax.sharding.reshard(new, place)
    return moved


class RandomState(NamedTuple):
    """State of a rule that draws random numbers.

    Attributes:
      key_data: uint32 [2], of a threefry key; a plain array, which any checkpoint and
        any ``where`` can hold.
    """

    key_data: jax.Array


def random_state(seed: int) -> RandomState:
    """The state before the first draw."""
    return RandomState(jax.random.key_data(jax.random.key(seed, impl="threefry2x32")))


def next_key(state: RandomState) -> tuple[jax.Array, RandomState]:
    """A fresh key for this step, and the state for the next."""
    key = jax.random.wrap_key_data(state.key_data, impl="threefry2x32")
    now, later = jax.random.split(key)
    return now, RandomState(jax.random.key_data(later))


class Learned(NamedTuple):
    """A vector [K] that a rule trains itself, one step at every update.

    Attributes:
      value: [K].
      memory: the optimiser's state, its leaves only: a field ``count`` in here would
        make ``optax.tree.get(opt_state, "count")`` ambiguous.
    """

    value: jax.Array
    memory: tuple[jax.Array, ...]


def learned(optimizer: optax.GradientTransformation, value: jax.Array) -> Learned:
    """The state before the first step."""
    return Learned(value, tuple(jax.tree.leaves(optimizer.init(value))))


def learn(
    optimizer: optax.GradientTransformation, state: Learned, gradient: jax.Array
) -> Learned:
    """One step of the optimiser on the vector."""
    structure = jax.tree.structure(jax.eval_shape(optimizer.init, state.value))
    memory = jax.tree.unflatten(structure, state.memory)
    # Optax's own transformations promote: their counters are integers.
    with jax.numpy_dtype_promotion("standard"):
        step, memory = optimizer.update(
            gradient.astype(state.value.dtype), memory, state.value
        )
        value = optax.apply_updates(state.value, step)
    return Learned(value, tuple(jax.tree.leaves(memory)))
