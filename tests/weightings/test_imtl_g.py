import jax.numpy as jnp
import numpy as np

import mmpareto_jax as mmp


def test_equal_projections_and_unit_sum(x64):
    rows = np.random.default_rng(0).normal(size=(4, 9)) * [[1], [50], [0.02], [1]]
    weights, _ = mmp.weightings.imtl_g().weights(jnp.asarray(rows @ rows.T), ())
    projections = rows @ (weights @ rows) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-8)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)


def test_by_hand():
    """Orthogonal gradients: w_k proportional to 1 / |g_k|."""
    weights, _ = mmp.weightings.imtl_g().weights(jnp.diag(jnp.array([1.0, 9.0])), ())
    np.testing.assert_allclose(weights, [0.75, 0.25], rtol=1e-5)


def test_opposite_gradients_serve_nobody():
    """n = (1, 1) is orthogonal to the range of G, so its solution is zero."""
    gramian = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    weights, _ = mmp.weightings.imtl_g().weights(gramian, ())
    np.testing.assert_array_equal(weights, [0, 0])
