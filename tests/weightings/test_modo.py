import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

GRAMIAN = jnp.diag(jnp.array([0.5, 3.0]))


def test_two_steps_by_hand():
    rule = mmp.weightings.modo(0.1, rho=1.0)
    # (0.5, 0.5) - 0.1 (1.5, 4) / 2 = (0.425, 0.3), and 0.1375 more for the sum;
    # (0.5625, 0.4375) - 0.1 (0.84375, 1.75), and 0.1296875 more.
    weights, state = rule.weights(GRAMIAN, rule.init(2))
    np.testing.assert_allclose(weights, [0.5625, 0.4375], rtol=1e-6)
    weights, _ = rule.weights(GRAMIAN, state)
    np.testing.assert_allclose(weights, [0.6078125, 0.3921875], rtol=1e-6)


def test_the_independent_batch_decides():
    rule = mmp.weightings.modo(0.1)
    cross = jnp.array([[0.0, 1.0], [3.0, 0.0]])
    weights, _ = rule.weights(GRAMIAN, rule.init(2), cross=cross, scale=0.5)
    # Slope (0.5, 1.5) / 4: (0.4875, 0.4625), and 0.025 more.
    np.testing.assert_allclose(weights, [0.5125, 0.4875], rtol=1e-6)


def test_projected_on_the_simplex():
    rule = mmp.weightings.modo(10.0)
    weights, _ = rule.weights(GRAMIAN, rule.init(2))
    np.testing.assert_allclose(weights, [1, 0], atol=1e-6)


def test_mistakes():
    with pytest.raises(ValueError, match="modo: learning_rate must be finite"):
        mmp.weightings.modo(-1.0)
    with pytest.raises(ValueError, match="modo: rho must be finite"):
        mmp.weightings.modo(rho=np.inf)
