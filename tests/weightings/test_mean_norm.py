import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

mean_norm = mmp.weightings.mean_norm


def update(rule, rows, steps=1):
    tx = mmp.aggregate(rule, len(rows))
    rows = jnp.asarray(rows)
    state = tx.init(rows[0])
    for _ in range(steps):
        found, state = tx.update(rows, state)
    return found


@pytest.mark.parametrize("num", [2, 8, 40])
def test_unit_gradients_at_the_mean_length(num, x64):
    rng = np.random.default_rng(num)
    rows = rng.normal(size=(num, 50)) * np.exp(rng.normal(scale=4, size=(num, 1)))
    norms = np.linalg.norm(rows, axis=1)
    expected = norms.mean() * (rows / norms[:, None]).sum(0)
    np.testing.assert_allclose(update(mean_norm(), rows), expected, rtol=1e-9)


def test_the_weights_follow_slowly(x64):
    rule = mean_norm(0.9)
    _, state = rule.weights(jnp.diag(jnp.array([1.0, 1.0])), rule.init(2))
    weights, _ = rule.weights(jnp.diag(jnp.array([9.0, 1.0])), state)
    np.testing.assert_allclose(weights, [0.9 + 0.1 * 2 / 3, 0.9 + 0.1 * 2], rtol=1e-9)


def test_for_two_it_is_the_centre_of_the_dual_cone(x64):
    rows = np.random.default_rng(0).normal(size=(2, 7)) * [[1], [30]]
    center = update(mmp.weightings.dcgd("center"), rows)
    np.testing.assert_allclose(update(mean_norm(0.0), rows), center, rtol=1e-12)


def test_a_zero_gradient_is_left_out_of_the_mean():
    rows = np.float32([[3, 0, 0], [0, 0, 0], [0, 0, 5]])
    np.testing.assert_allclose(update(mean_norm(), rows), [4, 0, 4], rtol=1e-6)


@pytest.mark.parametrize("ratio", [1e-35, 1e35])
def test_any_ratio_of_lengths(ratio):
    rows = np.float32(np.diag([1.0, ratio]))
    expected = (1 + ratio) / 2 * np.ones(2)
    np.testing.assert_allclose(update(mean_norm(), rows), expected, rtol=1e-6)
