import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


@pytest.mark.parametrize("num", [1, 2, 5])
def test_is_the_plain_sum(num):
    weights, state = mmp.weightings.uniform().weights(-jnp.eye(num), ())
    np.testing.assert_array_equal(weights, np.ones(num))
    assert weights.dtype == jnp.float32
    assert not weights.weak_type
    assert state == ()
