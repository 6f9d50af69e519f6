import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

ROWS = np.random.default_rng(0).normal(size=(3, 5)) * [[1.0], [3.0], [0.2]]


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_is_the_closest_orthogonal_matrix(scale, x64):
    """With J = U S V, the aligned gradients are σ U V."""
    u, s, v = np.linalg.svd(ROWS, full_matrices=False)
    sigma = {"min": s[2], "median": s[1], "rmse": np.sqrt(np.mean(s**2))}[scale]
    preference = np.array([0.2, 0.5, 0.3])
    rule = mmp.weightings.aligned_mtl(preference, scale=scale)
    weights, _ = rule.weights(jnp.asarray(ROWS @ ROWS.T), ())
    np.testing.assert_allclose(weights @ ROWS, sigma * preference @ u @ v, rtol=1e-9)


def test_the_lower_of_two_medians():
    gramian = jnp.diag(jnp.array([4.0, 1.0]))
    weights, _ = mmp.weightings.aligned_mtl(scale="median").weights(gramian, ())
    np.testing.assert_allclose(weights, [0.25, 0.5], rtol=1e-6)


def test_mistakes():
    with pytest.raises(ValueError, match="aligned_mtl: scale must be one of"):
        mmp.weightings.aligned_mtl(scale="max")
    with pytest.raises(ValueError, match=r"aligned_mtl: preference .*\(3,\)"):
        mmp.weightings.aligned_mtl([1.0, 2.0]).weights(jnp.eye(3), ())
