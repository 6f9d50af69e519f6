import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


@pytest.mark.parametrize("mu", [0.1, 1.0])
def test_is_the_derivative(mu):
    losses = jnp.array([0.5, 2.0, 0.7])
    p, z = jnp.array([0.5, 0.2, 0.3]), jnp.array([0.1, 0.0, -0.2])

    def smooth(x):
        return mu * jax.nn.logsumexp(p * (x - z) / mu)

    weights, _ = mmp.weightings.stch(mu, preference=p, ideal=z).weights(losses, ())
    np.testing.assert_allclose(weights, jax.grad(smooth)(losses), rtol=1e-5)


def test_by_default_equal_preferences_and_zero_ideals():
    # p = 1/2, z = 0: softmax(0, log 3) = (1, 3) / 4, and half of it.
    weights, _ = mmp.weightings.stch().weights(jnp.array([0.0, 2 * np.log(3)]), ())
    np.testing.assert_allclose(weights, [1 / 8, 3 / 8], rtol=1e-6)


def test_mistakes():
    for mu in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="stch: mu must be positive and finite"):
            mmp.weightings.stch(mu)
    for name in ("preference", "ideal"):
        with pytest.raises(ValueError, match=rf"stch: {name} .*\(2,\)"):
            mmp.weightings.stch(**{name: [1.0]}).weights(jnp.ones(2), ())
