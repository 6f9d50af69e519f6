"""What a weighting is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax

State: TypeAlias = Any


class Weighting(NamedTuple):
    """A rule that turns the Gramian of a group into the weights of its objectives.

    A pair of pure functions, as an Optax transformation is. One of your own:

      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> inverse_norms = mmp.Weighting(
      ...     init=lambda num_objectives: (),
      ...     weights=lambda gramian, state: (1 / jnp.sqrt(jnp.diag(gramian)), state),
      ... )
      >>> transformation = mmp.aggregate(inverse_norms, 2)

    Attributes:
      init: ``init(K) -> state``: a tree of strongly typed arrays, or ``()``.
      weights: ``weights(gramian, state) -> (weights, state)``: from the Gramian
        [K, K], float32 or float64, the weights [K] of the same dtype; the group's
        update is ``sum_k weights[k] * g_k``. Where gradients are too small or too
        large to be squared, the Gramian comes divided by the square of their largest
        magnitude.
    """

    init: Callable[[int], State]
    weights: Callable[[jax.Array, State], tuple[jax.Array, State]]


def stateless(weights: Callable[[jax.Array], jax.Array]) -> Weighting:
    """A weighting from a function of the Gramian alone."""
    return Weighting(lambda _: (), lambda gramian, state: (weights(gramian), state))
