import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

CONFLICT = jnp.array([[2.0, -3.0], [-3.0, 6.0]])


def weights(gram, gamma=1.5):
    return mmp.weightings.mmpareto(gamma).weights(gram, ())[0]


@pytest.mark.parametrize("num", [1, 2, 3])
def test_without_conflict_all_weights_are_gamma(num):
    gram = jnp.eye(num) + 0.5
    np.testing.assert_allclose(weights(gram), np.full(num, 1.5), rtol=1e-6)


def test_conflict_by_hand():
    # a = (6 + 3) / 14; λ² = 1ᵀG1 / (4 aᵀGa) = 2 / (4 · 3 / 14).
    expected = 1.5 * np.sqrt(2 * 14 / 12) * 2 * np.array([9, 5]) / 14
    np.testing.assert_allclose(weights(CONFLICT), expected, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_a_function_of_the_direction_only(scale):
    np.testing.assert_allclose(weights(scale * CONFLICT), weights(CONFLICT), rtol=1e-5)


def test_stationary_is_zero():
    gram = jnp.array([[1.0, -2.0], [-2.0, 4.0]])
    np.testing.assert_array_equal(weights(gram), [0, 0])


def test_not_finite_is_visible():
    assert np.isnan(weights(CONFLICT.at[0, 0].set(jnp.inf))).all()


def test_schedule_counts_steps():
    weighting = mmp.weightings.mmpareto(lambda step: 1.0 + step)
    state = weighting.init(2)
    for gamma in (1, 2, 3):
        found, state = weighting.weights(jnp.eye(2), state)
        np.testing.assert_allclose(found, [gamma, gamma])
    assert state.step == 3


def test_bad_gamma():
    with pytest.raises(ValueError, match="gamma must be finite and >= 0, got -1"):
        mmp.weightings.mmpareto(-1.0)


def test_without_conflict_test_it_is_min_norm_at_every_step():
    gram = jnp.array([[1.0, 0.5], [0.5, 4.0]])
    found = mmp.weightings.mmpareto(1.0, conflict_test=False).weights(gram, ())[0]
    # The shorter gradient is the min-norm point: (3.5, 0.5) / 4 and then the norm.
    simplex = np.array([0.875, 0.125])
    length = np.sqrt(6 / (simplex @ np.asarray(gram) @ simplex))
    np.testing.assert_allclose(found, length * simplex, rtol=1e-6)


def test_without_magnitude_the_direction_keeps_its_norm():
    found = mmp.weightings.mmpareto(1.0, magnitude=False).weights(CONFLICT, ())[0]
    np.testing.assert_allclose(found, 2 * np.array([9, 5]) / 14, rtol=1e-6)


@pytest.mark.parametrize(("limit", "factor"), [(1.2, 1.2), (2.0, np.sqrt(2 * 14 / 12))])
def test_limited_magnitude(limit, factor):
    rule = mmp.weightings.mmpareto(1.0, max_magnitude=limit)
    expected = factor * 2 * np.array([9, 5]) / 14
    np.testing.assert_allclose(rule.weights(CONFLICT, ())[0], expected, rtol=1e-6)


def test_bad_limit():
    with pytest.raises(ValueError, match="max_magnitude must be finite and >= 1"):
        mmp.weightings.mmpareto(max_magnitude=0.5)
