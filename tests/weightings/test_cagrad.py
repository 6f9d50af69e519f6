import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


@pytest.mark.parametrize("c", [0.0, 0.4, 1.5])
def test_orthonormal_gradients(c):
    """By symmetry g_w = g_0, so d = (1 + c) g_0."""
    weights, _ = mmp.weightings.cagrad(c).weights(jnp.eye(3), ())
    np.testing.assert_allclose(weights, [(1 + c) / 3] * 3, rtol=1e-5)


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_no_direction_in_the_ball_is_better(c, seed, x64):
    """In the plane the whole circle can be searched; inside of it only 0 can win."""
    rows = np.random.default_rng(seed).normal(size=(3, 2)) * [[1], [5], [0.3]]
    weights, _ = mmp.weightings.cagrad(c).weights(jnp.asarray(rows @ rows.T), ())
    found, mean = weights @ rows, rows.mean(axis=0)
    radius = c * np.linalg.norm(mean)
    assert np.linalg.norm(found - mean) <= radius * (1 + 1e-9)
    angles = np.linspace(0, 2 * np.pi, 100_001)
    circle = mean + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    best = (circle @ rows.T).min(axis=1).max()
    scale = np.linalg.norm(rows, axis=1).max() * np.linalg.norm(mean)
    assert (rows @ found).min() >= best - 1e-9 * scale


@pytest.mark.parametrize("c", [-0.1, np.nan, np.inf])
def test_mistakes(c):
    with pytest.raises(ValueError, match="cagrad: c must be finite and >= 0"):
        mmp.weightings.cagrad(c)
