import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


@pytest.mark.parametrize("num", [1, 2, 4])
def test_orthogonal_gradients_weigh_by_inverse_square(num):
    squares = jnp.arange(1.0, num + 1)
    weights, state = mmp.weightings.mgda().weights(jnp.diag(squares), ())
    expected = 1 / np.asarray(squares)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-5)
    assert state.gap < 1e-6


def test_one_zero_gradient_stops_all():
    weights, _ = mmp.weightings.mgda().weights(jnp.diag(jnp.array([1.0, 0.0])), ())
    np.testing.assert_array_equal(weights, [0, 1])
