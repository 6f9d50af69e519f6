import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import mmpareto_jax as mmp


@pytest.mark.parametrize("trim", [0, 1, 2])
def test_coordinate_by_coordinate(trim):
    grads = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    tx = mmp.aggregate(mmp.weightings.trimmed_mean(trim), 5)
    updates, _ = tx.update(jnp.asarray(grads), tx.init(jnp.zeros((3, 4))))
    np.testing.assert_allclose(
        updates, stats.trim_mean(grads, trim / 5 + 1e-9, axis=0), rtol=1e-5, atol=1e-6
    )


def test_not_a_number_is_not_trimmed():
    tx = mmp.aggregate(mmp.weightings.trimmed_mean(1), 3)
    grads = jnp.array([[1.0, 5.0], [2.0, jnp.nan], [90.0, 6.0]])
    updates, _ = tx.update(grads, tx.init(jnp.zeros(2)))
    np.testing.assert_array_equal(updates, [2, np.nan])


def test_mistakes():
    with pytest.raises(ValueError, match="trimmed_mean: trim must be >= 0"):
        mmp.weightings.trimmed_mean(-1)
    tx = mmp.aggregate(mmp.weightings.trimmed_mean(1), 2)
    with pytest.raises(ValueError, match="number of objectives must be >= 3, got 2"):
        tx.init(jnp.zeros(2))
