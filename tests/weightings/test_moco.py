import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

moco = mmp.weightings.moco


def by_hand(steps, losses, *, beta, gamma, sigma, rho):
    y, w = np.zeros_like(steps[0]), np.full(len(losses), 1 / len(losses))
    for t, rows in enumerate(steps, 1):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        y = y - beta / t**sigma * (y - losses[:, None] * unit)
        w = w - gamma / t**sigma * (y @ y.T + rho * np.eye(len(w))) @ w
        w = np.exp(w) / np.exp(w).sum()
    return w @ y


@pytest.mark.parametrize("options", [{}, {"beta": 0.8, "sigma": 1.0, "rho": 0.3}])
def test_by_hand(options, x64):
    rng = np.random.default_rng(0)
    steps, losses = rng.normal(size=(4, 3, 6)), np.array([2.0, 5.0, 0.5])
    tx = mmp.aggregate(moco(**options), 3)
    state = tx.init(jnp.zeros(6))
    for rows in steps:
        found, state = tx.update(jnp.asarray(rows), state, losses=jnp.asarray(losses))
    values = {"beta": 0.5, "sigma": 0.5, "rho": 0.0, **options}
    expected = by_hand(steps, losses, gamma=0.1, **values)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_length_of_a_gradient_is_its_loss(scale):
    rows = np.float32([[3.0, 0.0], [0.0, 4.0]])
    tx = mmp.aggregate(moco(beta=1.0, learning_rate=0.0), 2)
    losses = jnp.array([1.0, 2.0])
    found, _ = tx.update(jnp.asarray(rows * scale), tx.init(rows[0]), losses=losses)
    np.testing.assert_allclose(found, [0.5, 1.0], rtol=1e-6)


def test_large_losses_end_in_a_corner_and_not_in_a_nan():
    rows, losses = jnp.eye(2), jnp.array([1e25, 1.0])
    tx = mmp.aggregate(moco(), 2)
    found, _ = tx.update(rows, tx.init(rows[0]), losses=losses)
    np.testing.assert_allclose(found, [0, 0.5], rtol=1e-6)


def test_it_needs_the_losses():
    tx = mmp.aggregate(moco(), 2)
    with pytest.raises(ValueError, match="moco: needs the losses"):
        tx.update(jnp.eye(2), tx.init(jnp.zeros(2)))
    with pytest.raises(ValueError, match="moco: rho must be finite and >= 0"):
        moco(rho=-1.0)
