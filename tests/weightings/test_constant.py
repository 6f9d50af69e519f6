import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def test_the_weighted_sum():
    tx = mmp.aggregate(mmp.weightings.constant([2.0, -0.5]), 2)
    grads = jnp.array([[1.0, 3.0], [4.0, 2.0]])
    updates, _ = tx.update(grads, tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [0.0, 5.0])


def test_mistakes():
    with pytest.raises(ValueError, match=r"weights must be \[K\], got shape \(1, 2\)"):
        mmp.weightings.constant([[1.0, 2.0]])
    with pytest.raises(ValueError, match="2 weights for a group of 3 objectives"):
        mmp.weightings.constant([1.0, 2.0]).init(3)
