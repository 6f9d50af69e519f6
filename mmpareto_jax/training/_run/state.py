"""What a step changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax
from flax import nnx


class TrainState(NamedTuple):
    """Everything that a step changes; a tree of arrays.

    Attributes:
      step: scalar int32, the number of steps done.
      params: the model's ``nnx.Param`` state.
      rest: the rest of the model's state: BatchNorm statistics, random keys.
      opt_state: the states of the combination and of the optimiser after it.
      memory: what the method keeps beside it.
      streak: scalar int32, how many steps were not finite, one after the other, up to
        this one.
    """

    step: jax.Array
    params: nnx.State[Any, Any]
    rest: nnx.State[Any, Any]
    opt_state: tuple[Any, optax.OptState]
    memory: Any
    streak: jax.Array


def diverged(streak: Any, limit: int | None) -> Any:
    """Whether steps that were not finite have ended a run.

    Args:
      streak: of its state, or an array of several.
      limit: so many in a row end it; None: none do, and it has diverged where the last
        one was not finite.
    """
    return streak >= (limit or 1)
