import jax
import jax.numpy as jnp
import numpy as np

import mmpareto_jax as mmp


def test_is_the_derivative():
    losses = jnp.array([0.5, 2.0, 7.0])
    weights, _ = mmp.weightings.geometric_mean().weights(losses, ())
    expected = jax.grad(lambda x: jnp.prod(x) ** (1 / 3))(losses)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
