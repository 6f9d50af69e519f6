import jax.numpy as jnp
import numpy as np

import mmpareto_jax as mmp


def test_one_of_your_own_with_a_state():
    """A running mean of the norms, kept in the state of the transformation."""

    def weights(gramian, mean):
        mean = 0.5 * mean + 0.5 * jnp.sqrt(jnp.diagonal(gramian))
        return 1 / mean, mean

    weighting = mmp.Weighting(lambda num: jnp.zeros((num,)), weights)
    tx = mmp.aggregate(weighting, 2)
    grads = jnp.array([[3.0, 4.0], [0.0, 1.0]])
    state = tx.init(jnp.zeros(2))
    for mean in ([2.5, 0.5], [3.75, 0.75]):
        updates, state = tx.update(grads, state)
        np.testing.assert_allclose(state.weighting["all"], mean, rtol=1e-6)
        np.testing.assert_allclose(updates, (1 / np.array(mean)) @ grads, rtol=1e-6)
