import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def test_turned_until_the_cosine_is_the_target():
    """Orthogonal gradients of norms 1 and 2, targets 0.5 and -0.5."""
    rule = mmp.weightings.gradvac(beta=0.25)
    targets = jnp.array([[0.0, 0.5], [-0.5, 0.0]])
    state = rule.init(2)._replace(cosines=targets)
    weights, state = rule.weights(jnp.diag(jnp.array([1.0, 4.0])), state)
    # h_1 = g_1 + t g_2 with 2 t / sqrt(1 + 4 t²) = 1/2: t = 1 / (2 sqrt(3)). The
    # second is above its target and stays.
    np.testing.assert_allclose(weights, [1, 1 + 1 / (2 * np.sqrt(3))], rtol=1e-5)
    expected = [[0, 0.375], [-0.375, 0]]
    np.testing.assert_allclose(state.cosines, expected, rtol=1e-6)


def test_begins_as_pcgrad():
    gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
    rule, other = mmp.weightings.gradvac(), mmp.weightings.pcgrad()
    weights, state = rule.weights(gramian, rule.init(2))
    expected, _ = other.weights(gramian, other.init(2))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_allclose(state.cosines, [[0, -0.25], [-0.25, 0]], rtol=1e-6)


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_mistakes(beta):
    with pytest.raises(ValueError, match=r"gradvac: beta must be in \[0, 1\]"):
        mmp.weightings.gradvac(beta)
