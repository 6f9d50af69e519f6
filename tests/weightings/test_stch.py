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


def test_mistakes():
    for mu in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="stch: mu must be positive and finite"):
            mmp.weightings.stch(mu)
    for name in ("preference", "ideal"):
        with pytest.raises(ValueError, match=r"stch: .*\(2,\)"):
            mmp.weightings.stch(**{name: [1.0]}).weights(jnp.ones(2), ())
