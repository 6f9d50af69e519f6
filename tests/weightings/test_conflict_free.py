import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

ROWS = np.random.default_rng(0).normal(size=(3, 6)) * [[1.0], [7.0], [0.2]]


@pytest.mark.parametrize("preference", [None, [1.0, 2.0, 0.5]])
def test_cosines_and_length(preference, x64):
    """Cosines in the preferred ratio; the length is the sum of the projections."""
    rule = mmp.weightings.config(preference)
    weights, _ = rule.weights(jnp.asarray(ROWS @ ROWS.T), ())
    d = weights @ ROWS
    length = np.linalg.norm(d)
    cosines = ROWS @ d / length / np.linalg.norm(ROWS, axis=1)
    ratio = cosines / (1.0 if preference is None else np.array(preference))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    assert ratio[0] > 0
    np.testing.assert_allclose(length, (ROWS @ d / length).sum(), rtol=1e-9)


def test_a_zero_gradient_has_no_say():
    weights, _ = mmp.weightings.config().weights(jnp.diag(jnp.array([1.0, 0, 4])), ())
    np.testing.assert_allclose(weights, [1.5, 0, 0.75], rtol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match=r"config: preference .*\(3,\)"):
        mmp.weightings.config([1.0]).weights(jnp.eye(3), ())
