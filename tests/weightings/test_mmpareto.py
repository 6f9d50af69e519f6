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
