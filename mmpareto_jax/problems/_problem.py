"""What a test problem is: losses of a few parameters whose Pareto front is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Front(NamedTuple):
    """Points of a Pareto set and what they are worth.

    Attributes:
      params: [n, D].
      losses: [n, K], in the order of the problem's objectives.
    """

    params: jax.Array
    losses: jax.Array


# Compared by identity: it holds arrays, and compiled trajectories are kept per problem.
@dataclass(frozen=True, eq=False)
class Problem:
    """Objectives of a parameter vector, and how they are usually run and shown.

    Attributes:
      name: what a figure calls it.
      objectives: the K names, in order.
      losses_fn: ``losses_fn(params) -> {objective: scalar}`` for params [D].
      pareto_set: ``pareto_set(n) -> [n, D]``, points spread over the Pareto set, for
        D = 2 and K = 2 in order along it; None where it is not known.
      starts: [S, D], the points that trajectories begin at.
      view: ((low, high), ...) per parameter, the box that a picture shows.
      steps: of a trajectory.
      optimizer: what a trajectory applies after the combination.
    """

    name: str
    objectives: tuple[str, ...]
    losses_fn: Callable[[jax.Array], dict[str, jax.Array]]
    pareto_set: Callable[[int], np.ndarray] | None
    starts: np.ndarray
    view: tuple[tuple[float, float], ...]
    steps: int
    optimizer: optax.GradientTransformation

    def losses(self, params: jax.Array) -> jax.Array:
        """The losses [K] at params [D], in the order of the objectives."""
        losses = self.losses_fn(params)
        return jnp.stack([losses[name] for name in self.objectives])

    def jacobian(self, params: jax.Array) -> jax.Array:
        """The gradients [K, D] of the losses at params [D]."""
        jacobian: jax.Array = jax.jacrev(self.losses)(params)
        return jacobian

    def front(self, n: int = 200) -> Front:
        """`n` points spread over the Pareto set, and their losses.

        Raises:
          ValueError: the problem's Pareto set is not known, or n < 1.
        """
        if self.pareto_set is None:
            raise ValueError(f"Problem.front: {self.name}: its front is not known.")
        if n < 1:
            raise ValueError(f"Problem.front: n must be at least 1, got {n}.")
        params = jnp.asarray(self.pareto_set(n))
        return Front(params, jax.jit(jax.vmap(self.losses))(params))


def decaying(steps: int, peak: float, *, hold: float = 0.7) -> optax.Schedule:
    """`peak` for a share `hold` of the steps, then exponentially down by 1e-6.

    A direction of restored magnitude does not shrink towards the front, as a gradient
    does towards a minimum: only the step size can, and without it a trajectory ends in
    a zigzag across the front.
    """
    held = round(hold * steps)
    fall = optax.exponential_decay(peak, steps - held, 1e-6)
    return optax.join_schedules([optax.constant_schedule(peak), fall], [held])
