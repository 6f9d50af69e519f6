import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def test_three_steps_in_numpy():
    beta, sigma = 0.8, 0.5
    tx = mmp.aggregate(mmp.weightings.db_mtl(beta, sigma=sigma), 2)
    state = tx.init(jnp.zeros(3))
    rng, means = np.random.default_rng(0), np.zeros((2, 3))
    for step in (1, 2, 3):
        grads, losses = rng.normal(size=(2, 3)), rng.uniform(0.5, 2, size=2)
        decay = beta / step**sigma
        means = decay * means + (1 - decay) * grads / losses[:, None]
        norms = np.linalg.norm(means, axis=1)
        expected = norms.max() * (means / norms[:, None]).sum(axis=0)
        given = jnp.asarray(losses, jnp.float32)
        updates, state = tx.update(jnp.asarray(grads, jnp.float32), state, losses=given)
        np.testing.assert_allclose(updates, expected, rtol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match=r"db_mtl: beta must be in \[0, 1\), got 1"):
        mmp.weightings.db_mtl(1.0)
    with pytest.raises(ValueError, match="db_mtl: sigma must be finite and >= 0"):
        mmp.weightings.db_mtl(sigma=-1.0)
    tx = mmp.aggregate(mmp.weightings.db_mtl(), 2)
    with pytest.raises(ValueError, match="db_mtl: needs the losses"):
        tx.update(jnp.ones((2, 1)), tx.init(jnp.zeros(1)))
