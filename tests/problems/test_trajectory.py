"""A trajectory is the plain loop, in one compiled piece."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp
from mmpareto_jax import problems

STEPS = 12
OPTIMIZER = optax.sgd(0.05, momentum=0.5)


@pytest.mark.parametrize("rule", ["mmpareto", "pcgrad", "dwa"])
def test_it_is_the_plain_loop(x64, rule):
    problem = problems.two_quadratics()
    combination = problems.combination_of(rule, problem.objectives)
    tx = optax.chain(combination, OPTIMIZER)
    params = jnp.asarray(problem.starts[1])
    state = tx.init(params)
    path = problems.trajectory(problem, combination, params, STEPS, OPTIMIZER)

    @jax.jit
    def step(params, state):
        losses, grads = problem.losses(params), problem.jacobian(params)
        updates, state = tx.update(grads, state, params, losses=losses)
        return optax.apply_updates(params, updates), state, losses

    for t in range(STEPS):
        np.testing.assert_allclose(path.params[t], params, rtol=1e-9)
        params, state, losses = step(params, state)
        np.testing.assert_allclose(path.losses[t], losses, rtol=1e-9)
    np.testing.assert_allclose(path.params[-1], params, rtol=1e-9)
    assert path.params.shape == (STEPS + 1, 2)
    assert path.losses.dtype == jnp.float64


def test_all_starts_at_once_are_one_by_one():
    problem = problems.two_quadratics()
    combination = mmp.mmpareto(2)
    together = problems.trajectories(problem, combination, STEPS)
    assert len(together) == len(problem.starts)
    for start, path in list(zip(problem.starts, together, strict=True))[:3]:
        alone = problems.trajectory(problem, combination, jnp.asarray(start), STEPS)
        np.testing.assert_allclose(path.params, alone.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule", ["mgda", "mmpareto"])
def test_permuting_objectives_permutes_the_result(x64, rule):
    problem = problems.three_quadratics()
    order = [2, 0, 1]
    names = tuple(problem.objectives[k] for k in order)
    other = dataclasses.replace(problem, objectives=names)
    combination = problems.combination_of(rule, problem.objectives)
    # Later than this, rounding decides on which side of the front a step ends.
    start = jnp.asarray(problem.starts[1])
    one = problems.trajectory(problem, combination, start, 40)
    two = problems.trajectory(other, problems.combination_of(rule, names), start, 40)
    np.testing.assert_allclose(two.params, one.params, rtol=1e-7)
    np.testing.assert_allclose(two.losses, one.losses[:, np.array(order)], rtol=1e-7)


def test_an_objective_without_gradient_has_its_row():
    problem = dataclasses.replace(
        problems.element_wise_quadratic(),
        losses_fn=lambda x: {"L1": jnp.sum(x**2), "L2": jnp.ones(())},
    )
    path = problems.trajectory(problem, mmp.mmpareto(2), jnp.ones(2), 50)
    assert path.losses[-1, 0] < 1e-2
    assert path.losses[-1, 1] == 1


def test_it_is_compiled_once():
    problem = problems.two_quadratics()
    combination = mmp.mmpareto(2)
    traces = []

    def losses_fn(x):
        traces.append(None)
        return problem.losses_fn(x)

    watched = dataclasses.replace(problem, losses_fn=losses_fn)
    problems.trajectory(watched, combination, jnp.ones(2), 3)
    before = len(traces)
    problems.trajectory(watched, combination, jnp.zeros(2), 3)
    assert len(traces) == before


def test_what_it_refuses():
    problem = problems.two_quadratics()
    with pytest.raises(ValueError, match=r"start must have shape \(2,\)"):
        problems.trajectory(problem, mmp.mmpareto(2), jnp.zeros(3))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        problems.trajectory(problem, mmp.mmpareto(2), jnp.zeros(2), 0)


def test_it_is_differentiable_in_its_start():
    """Nothing leaves the trace: a user can meta-learn through it."""
    problem = problems.element_wise_quadratic()

    def end(start):
        path = problems.trajectory(
            problem, mmp.aggregate(mmp.weightings.uniform(), 2), start, 3, OPTIMIZER
        )
        return path.losses[-1].sum()

    assert np.isfinite(jax.grad(end)(jnp.array([1.0, 2.0]))).all()
