"""The convex problems and their closed-form fronts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpareto_jax import problems

RNG = np.random.default_rng(0)
HIGHER = problems.convex_quadratics(RNG.normal(size=(3, 6, 4)), RNG.normal(size=(3, 4)))
PROBLEMS = {
    "two": problems.two_quadratics(),
    "two-scaled": problems.two_quadratics(0.1),
    "three": problems.three_quadratics(),
    "higher": HIGHER,
    "element-wise": problems.element_wise_quadratic(3),
}


def test_the_losses_are_the_formula(x64):
    factors, centers = RNG.normal(size=(2, 5, 3)), RNG.normal(size=(2, 3))
    x = RNG.normal(size=3)
    losses = problems.convex_quadratics(factors, centers).losses(jnp.asarray(x))
    expected = [
        np.sum((a @ (x - c)) ** 2) / 5 for a, c in zip(factors, centers, strict=True)
    ]
    np.testing.assert_allclose(losses, expected)


@pytest.mark.parametrize("name", PROBLEMS)
def test_front_points_are_stationary_and_do_not_dominate_one_another(x64, name):
    problem = PROBLEMS[name]
    front = problem.front(30)
    assert front.losses.shape == (30, len(problem.objectives))
    jacobians = jax.jit(jax.vmap(problem.jacobian))(front.params)
    stationarity = jax.jit(jax.vmap(problems.pareto_stationarity))(jacobians)
    np.testing.assert_allclose(stationarity, 0, atol=1e-7)
    assert problems.non_dominated(front.losses).all()


@pytest.mark.parametrize("name", ["two", "three", "higher"])
def test_nothing_sampled_dominates_the_front(x64, name):
    problem = PROBLEMS[name]
    front = np.asarray(problem.front(30).losses)
    center = np.mean(problem.view, axis=1)
    points = center + np.random.default_rng(1).normal(size=(4000, len(center)))
    losses = np.asarray(jax.jit(jax.vmap(problem.losses))(jnp.asarray(points)))
    assert (losses[:, None] > front[None]).any(-1).all()


def test_the_corners_of_the_simplex_are_the_centers(x64):
    ends = problems.two_quadratics().front(2).params
    np.testing.assert_allclose(ends, [[-1, 0], [1, 0]], atol=1e-12)


def test_element_wise_objectives_never_conflict_but_stop_a_min_norm_point():
    problem = problems.element_wise_quadratic()
    jacobian = problem.jacobian(jnp.array([3.0, -2.0]))
    np.testing.assert_array_equal(jacobian, [[6, 0], [0, -4]])
    on_an_axis = problem.jacobian(jnp.array([0.0, -3.0]))
    assert problems.pareto_stationarity(on_an_axis) == 0
    assert problem.losses(jnp.array([0.0, -3.0])).sum() > 0


def test_what_they_refuse():
    with pytest.raises(ValueError, match="num must be at least 2, got 1"):
        problems.element_wise_quadratic(1)
    with pytest.raises(ValueError, match=r"\[K, D\], got \(2, 3, 3\) and \(2, 2\)"):
        problems.convex_quadratics(np.ones((2, 3, 3)), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="singular"):
        problems.convex_quadratics(np.ones((2, 1, 2)), np.eye(2))
    unknown = dataclasses.replace(problems.two_quadratics(), pareto_set=None)
    with pytest.raises(ValueError, match="front is not known"):
        unknown.front()
