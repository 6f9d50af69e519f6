import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def weights_of(rule, gramian, scale=1.0):
    rows = jnp.full(len(gramian), scale)
    return rule.weights(gramian, rule.init(len(gramian)), rows=rows)[0] / rows


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_orthogonal_gradients(alpha, scale):
    """s² a w = w^(-1/α) for each: w = (s² a)^(-α / (1 + α))."""
    squares = np.array([1.0, 8.0, 0.1])
    rule = mmp.weightings.fairgrad(alpha)
    found = weights_of(rule, jnp.diag(jnp.asarray(squares, jnp.float32)), scale)
    expected = (scale**2 * squares) ** (-alpha / (1 + alpha))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_equation(x64):
    rows = np.random.default_rng(0).normal(size=(4, 9)) * [[1], [5], [0.2], [1]]
    gramian = rows @ rows.T
    found = np.asarray(weights_of(mmp.weightings.fairgrad(2.0), jnp.asarray(gramian)))
    np.testing.assert_allclose(gramian @ found, found**-0.5, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.inf])
def test_mistakes(alpha):
    with pytest.raises(ValueError, match="fairgrad: alpha must be positive and finite"):
        mmp.weightings.fairgrad(alpha)
