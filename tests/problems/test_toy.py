"""The toy problem: the published formula, and the front that we derived."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpareto_jax import problems


def published(x1, x2):
    """The formula as the two papers' code has it, in Python floats."""
    lower = 0.000005
    f1 = math.log(max(abs(0.5 * (-x1 - 7) - math.tanh(-x2)), lower)) + 6
    f2 = math.log(max(abs(0.5 * (-x1 + 3) + math.tanh(-x2) + 2), lower)) + 6
    c1 = max(math.tanh(0.5 * x2), 0)
    f1_sq = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    f2_sq = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    c2 = max(math.tanh(-0.5 * x2), 0)
    return [f1 * c1 + f1_sq * c2, f2 * c1 + f2_sq * c2]


POINTS = [(-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0), (-8.5, -5.0)]
POINTS += [(7.0, -8.0), (1.0, 2.0), (-7 + 2 * math.tanh(3), 3.0)]


@pytest.mark.parametrize("point", POINTS)
def test_the_losses_are_the_published_ones(x64, point):
    losses = problems.toy(0.1).losses(jnp.array(point))
    first, second = published(*point)
    np.testing.assert_allclose(losses, [0.1 * first, second], rtol=1e-12, atol=1e-12)


def test_the_starts_are_the_published_ones():
    starts = problems.toy().starts.tolist()
    assert [-8.5, 7.5] in starts
    assert [-8.5, -5.0] in starts
    assert len(starts) == 6


def test_at_the_valleys_and_at_the_kink_the_gradients_are_finite():
    problem = problems.toy()
    floor = -7 + 2 * math.tanh(3)
    for point in [(0.0, 0.0), (floor, 3.0), (-floor, 3.0)]:
        assert np.isfinite(problem.jacobian(jnp.array(point))).all()


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_on_the_front_the_gradients_are_antiparallel(x64, scale):
    problem = problems.toy(scale)
    front = problem.front(41)
    jacobians = jax.jit(jax.vmap(problem.jacobian))(front.params)
    first, second = (np.asarray(jacobians[1:-1, k]) for k in range(2))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    np.testing.assert_allclose((first * second).sum(1) / lengths, -1, rtol=1e-10)
    # At the ends one gradient is zero: each objective's own minimum.
    norms = np.linalg.norm(jacobians, axis=2)
    np.testing.assert_allclose(norms[[0, -1], [0, 1]], 0, atol=1e-12)
    stationarity = jax.jit(jax.vmap(problems.pareto_stationarity))(jacobians)
    np.testing.assert_allclose(stationarity, 0, atol=1e-12)


def test_the_weights_of_a_front_point_are_those_of_the_docstring(x64):
    problem = problems.toy()
    params = problem.front(21).params
    weights = jnp.stack([1 + params[:, 0] / 7, 1 - params[:, 0] / 7], axis=1) / 2
    jacobians = jax.jit(jax.vmap(problem.jacobian))(params)
    combined = jnp.einsum("nk,nkd->nd", weights, jacobians)
    np.testing.assert_allclose(combined, 0, atol=1e-12)


def test_nothing_dominates_the_front(x64):
    problem = problems.toy()
    front = np.asarray(problem.front(50).losses)
    assert problems.non_dominated(front).all()
    x, y = np.meshgrid(np.linspace(-12, 12, 241), np.linspace(-14, 14, 281))
    grid = jnp.stack([x.ravel(), y.ravel()], axis=1)
    losses = np.asarray(jax.jit(jax.vmap(problem.losses))(grid))
    # Rounding aside: a point of the grid can lie on the front itself.
    worse = (losses[:, None] > front[None] - 1e-9).any(-1)
    assert worse.all()


def test_it_is_an_arc_and_no_straight_segment(x64):
    params = np.asarray(problems.toy().front(3).params)
    np.testing.assert_allclose(params[:, 0], [7, 0, -7], atol=1e-12)
    # The published pictures draw the height of the middle, -8.3552, throughout.
    np.testing.assert_allclose(params[:, 1], [-8.43446, -8.35518, -8.43446], atol=1e-4)


def test_the_scale_moves_no_point_of_the_front(x64):
    first, other = (problems.toy(scale).front(11) for scale in (1.0, 0.1))
    np.testing.assert_array_equal(first.params, other.params)
    np.testing.assert_allclose(first.losses[:, 0] * 0.1, other.losses[:, 0])


def test_what_it_refuses():
    with pytest.raises(ValueError, match="toy: scale must be positive, got 0"):
        problems.toy(0)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        problems.toy().front(0)
