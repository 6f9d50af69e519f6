import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


@pytest.mark.parametrize("num", [1, 2, 5])
def test_is_the_average(num):
    weights, state = mmp.weightings.mean().weights(-jnp.eye(num), ())
    np.testing.assert_allclose(weights, np.full(num, 1 / num), rtol=1e-6)
    assert state == ()
