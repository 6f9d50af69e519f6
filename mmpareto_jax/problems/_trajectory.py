"""The path of an optimiser through a problem, compiled as one loop."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from mmpareto_jax._gradients.objectives import value_and_objective_grads
from mmpareto_jax.problems._problem import Problem


class Trajectory(NamedTuple):
    """Where an optimiser went.

    Attributes:
      params: [T + 1, D], the start and the point after every step.
      losses: [T + 1, K] at these points, in the order of the problem's objectives.
    """

    params: jax.Array
    losses: jax.Array


def trajectory(
    problem: Problem,
    combination: optax.GradientTransformationExtraArgs,
    start: jax.Array,
    steps: int | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Trajectory:
    """Runs a combination of gradients and an optimiser from one start.

    The run is one ``lax.scan`` under one ``jit``, compiled once per problem,
    combination, optimiser and number of steps; ``jax.vmap`` it over starts, or call
    :func:`trajectories`.

    Args:
      problem: the losses.
      combination: from stacked gradients to updates, for example ``mmp.mmpareto(2)``
        or ``mmp.aggregate(mmp.weightings.pcgrad(), 2)``. It gets ``losses=`` [K] too.
      start: [D], real and floating.
      steps: T; by default the problem's.
      optimizer: what follows the combination; by default the problem's.

    Returns:
      The trajectory, in the dtype of `start`.

    Raises:
      ValueError: `start` has another shape than the problem's starts, or steps < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> import mmpareto_jax as mmp
      >>> from mmpareto_jax import problems
      >>> problem = problems.element_wise_quadratic()
      >>> path = problems.trajectory(problem, mmp.mmpareto(2), jnp.array([3.0, -2.0]))
      >>> print(path.params.shape, bool(path.losses[-1].max() < 1e-6))
      (401, 2) True
    """
    start = jnp.asarray(start)
    steps = problem.steps if steps is None else steps
    if start.shape != problem.starts.shape[1:]:
        raise ValueError(
            f"trajectory: start must have shape {problem.starts.shape[1:]} for "
            f"{problem.name}, got {start.shape}."
        )
    if steps < 1:
        raise ValueError(f"trajectory: steps must be at least 1, got {steps}.")
    path: Trajectory = _run(
        problem, combination, optimizer or problem.optimizer, steps, start
    )
    return path


def trajectories(
    problem: Problem,
    combination: optax.GradientTransformationExtraArgs,
    steps: int | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> list[Trajectory]:
    """:func:`trajectory` from every start of the problem, all in one batch.

    Args:
      problem: the losses and the starts.
      combination: from stacked gradients to updates.
      steps: by default the problem's.
      optimizer: by default the problem's.

    Returns:
      One trajectory per start, as NumPy arrays.

    Example:
      >>> import mmpareto_jax as mmp
      >>> from mmpareto_jax import problems
      >>> problem = problems.two_quadratics()
      >>> paths = problems.trajectories(problem, mmp.mmpareto(2), steps=10)
      >>> print(len(paths), paths[0].params.shape)
      8 (11, 2)
    """
    run = functools.partial(
        trajectory, problem, combination, steps=steps, optimizer=optimizer
    )
    # To the host in one piece: they are looked at, not computed with.
    batch = jax.device_get(jax.vmap(run)(jnp.asarray(problem.starts)))
    return [Trajectory(*parts) for parts in zip(*batch, strict=True)]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(
    problem: Problem,
    combination: optax.GradientTransformationExtraArgs,
    optimizer: optax.GradientTransformation,
    steps: int,
    start: jax.Array,
) -> Trajectory:
    # Every objective gets a row, also one that does not depend on the parameters.
    with_grads = value_and_objective_grads(problem.losses_fn, problem.objectives)
    transformation = optax.chain(combination, optimizer)

    def step(carry: tuple[jax.Array, Any], _: None) -> tuple[Any, Trajectory]:
        params, state = carry
        by_name, grads = with_grads(params)
        losses = jnp.stack([by_name[name] for name in problem.objectives])
        updates, state = transformation.update(grads, state, params, losses=losses)
        after = optax.apply_updates(params, updates)
        return (after, state), Trajectory(params, losses)

    carry = (start, transformation.init(start))
    (end, _), path = lax.scan(step, carry, length=steps)
    last = Trajectory(end, problem.losses(end))
    whole: Trajectory = jax.tree.map(
        lambda x, y: jnp.concatenate([x, y[None]]), path, last
    )
    return whole
