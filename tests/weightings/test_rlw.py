import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import mmpareto_jax as mmp


def draws(seed, num):
    rule = mmp.weightings.rlw(seed)

    def step(state, _):
        weights, state = rule.weights(jnp.ones(2), state)
        return state, weights

    return jax.jit(lambda s: lax.scan(step, s, length=num)[1])(rule.init(2))


def test_softmax_of_normal_numbers():
    """The log of the ratio of two weights is then normal with variance 2."""
    weights = np.asarray(draws(0, 4000))
    assert weights.min() > 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    ratio = np.log(weights[:, 0] / weights[:, 1])
    np.testing.assert_allclose(ratio.std(), np.sqrt(2), rtol=0.05)
    np.testing.assert_allclose(ratio.mean(), 0, atol=0.1)
    # No memory from step to step.
    assert abs(np.corrcoef(ratio[1:], ratio[:-1])[0, 1]) < 0.06


def test_seeds():
    np.testing.assert_array_equal(draws(0, 3), draws(0, 3))
    assert np.all(draws(0, 3) != draws(1, 3))
