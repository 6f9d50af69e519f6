"""The measures, by hand and against counting."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpareto_jax import problems


def counted(points, reference):
    """The hypervolume of integer points: unit cells, one by one."""
    cells = itertools.product(*(range(r) for r in reference))
    return sum(any(all(p <= c) for p in points) for c in map(np.array, cells))


@pytest.mark.parametrize("num", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_hypervolume_is_the_counted_one(num, seed):
    rng = np.random.default_rng(seed)
    # Some points lie beyond the reference, some coincide.
    points = rng.integers(0, 7, size=(9, num))
    reference = [6] * num
    assert problems.hypervolume(points, reference) == counted(points, reference)


@pytest.mark.parametrize("num", [2, 3])
def test_the_hypervolume_ignores_order_and_dominated_points(num):
    rng = np.random.default_rng(num)
    points = rng.uniform(size=(20, num))
    whole = problems.hypervolume(points, np.ones(num))
    front = points[problems.non_dominated(points)]
    assert problems.hypervolume(front, np.ones(num)) == pytest.approx(whole, rel=1e-12)
    assert problems.hypervolume(points[::-1], np.ones(num)) == pytest.approx(whole)


def test_the_hypervolume_by_hand():
    assert problems.hypervolume([[1, 1]], [3, 4]) == 6
    assert problems.hypervolume([[0, 2], [2, 0]], [3, 3]) == 5
    assert problems.hypervolume([[0, 0, 1], [0, 1, 0]], [1, 2, 2]) == 3
    assert problems.hypervolume([[3, 0]], [3, 3]) == 0
    assert problems.hypervolume(np.zeros((0, 2)), [3, 3]) == 0


def test_non_dominated_is_the_definition():
    points = np.random.default_rng(0).integers(0, 4, size=(30, 3))
    expected = [not any(all(q <= p) and any(q < p) for q in points) for p in points]
    np.testing.assert_array_equal(problems.non_dominated(points), expected)


def test_equal_points_are_both_kept():
    assert problems.non_dominated([[1, 1], [1, 1], [1, 2]]).tolist() == [1, 1, 0]


def test_distances_by_hand():
    front = [[0.0, 1.0], [1.0, 0.0]]
    points = [[0.0, 1.0], [4.0, 4.0]]
    assert problems.distance_to_front(points, front) == 2.5
    assert problems.inverted_distance_to_front(points, front) == pytest.approx(
        np.sqrt(2) / 2
    )
    assert problems.inverted_distance_to_front(front, front) == 0


def hull_distance(jacobian):
    """The least norm over a fine grid of the simplex: an upper bound of the least."""
    weights = np.linspace(0, 1, 20_001)
    return np.linalg.norm(
        weights[:, None] * jacobian[0] + (1 - weights)[:, None] * jacobian[1], axis=1
    ).min()


@pytest.mark.parametrize("seed", range(4))
def test_stationarity_is_the_distance_of_the_hull_from_zero(x64, seed):
    jacobian = np.random.default_rng(seed).normal(size=(2, 3))
    found = float(problems.pareto_stationarity(jnp.asarray(jacobian)))
    assert found == pytest.approx(hull_distance(jacobian), rel=1e-6)


def test_stationarity_by_hand():
    measure = jax.jit(problems.pareto_stationarity)
    assert measure(jnp.array([[2.0, 0.0], [-1.0, 0.0]])) == pytest.approx(0, abs=1e-6)
    assert measure(jnp.array([[3.0, 4.0]])) == 5
    assert measure(jnp.zeros((3, 2))) == 0
    three = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    assert measure(three) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e15, 1e30])
def test_stationarity_has_the_units_of_a_gradient(scale):
    jacobian = jnp.array([[1.0, 1.0], [-1.0, 1.0]])
    found = jax.jit(problems.pareto_stationarity)(scale * jacobian)
    np.testing.assert_allclose(found, scale, rtol=1e-6)


def test_stationarity_hides_no_nan():
    assert np.isnan(problems.pareto_stationarity(jnp.array([[1.0, jnp.nan], [0, 1]])))


def test_what_they_refuse():
    with pytest.raises(ValueError, match=r"\[K, D\], got shape \(3,\)"):
        problems.pareto_stationarity(jnp.ones(3))
    with pytest.raises(ValueError, match="non_dominated: points must be finite"):
        problems.non_dominated([[np.nan, 1]])
    with pytest.raises(ValueError, match="hypervolume: reference must be finite"):
        problems.hypervolume([[0, 1]], [1, 1, 1])
    with pytest.raises(ValueError, match=r"got \(1, 2\) and \(1, 3\)"):
        problems.distance_to_front([[0, 1]], [[0, 1, 2]])
    with pytest.raises(ValueError, match="N, M >= 1"):
        problems.inverted_distance_to_front(np.zeros((0, 2)), [[0, 1]])
