import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp


def test_three_steps_in_numpy():
    alpha, lr = 1.5, 0.1
    rule = mmp.weightings.gradnorm(alpha, optimizer=optax.sgd(lr))
    state, learned, first = rule.init(3), np.ones(3), None
    rng = np.random.default_rng(0)
    for _ in range(3):
        norms, losses = rng.uniform(0.5, 2, size=(2, 3))
        first = losses if first is None else first
        gramian = jnp.diag(jnp.asarray(norms**2 / 4, jnp.float32))
        rows = jnp.full(3, 2.0)
        weights, state = rule.weights(
            gramian, state, losses=jnp.asarray(losses, jnp.float32), rows=rows
        )
        weights = weights / rows
        np.testing.assert_allclose(weights, learned, rtol=1e-5)
        rates = losses / first
        goal = (learned * norms).mean() * (rates / rates.mean()) ** alpha
        # d/dw_k of sum_k |w_k n_k - goal_k|, the goal held.
        learned = learned - lr * np.sign(learned * norms - goal) * norms
        learned = 3 * learned / learned.sum()
    assert not np.allclose(learned, 1, atol=0.01)


def test_only_relative_rates_count():
    """Both losses fall, to 1/2 and 1/4: r = (4/3, 2/3), and n = 1 lies between."""
    rule = mmp.weightings.gradnorm(optimizer=optax.sgd(0.1))
    state = rule.init(2)
    for losses in ([2.0, 8.0], [1.0, 2.0]):
        _, state = rule.weights(jnp.eye(2), state, losses=jnp.array(losses))
    np.testing.assert_allclose(state.learned.value, [1.1, 0.9], rtol=1e-6)


def test_weights_stay_positive():
    rule = mmp.weightings.gradnorm(optimizer=optax.sgd(10.0))
    state, gramian = rule.init(2), jnp.diag(jnp.array([100.0, 1.0]))
    for _ in range(2):
        weights, state = rule.weights(gramian, state, losses=jnp.ones(2))
    assert 0 < weights[0] < 0.01
    np.testing.assert_allclose(weights.sum(), 2, rtol=1e-6)


def test_the_first_loss_is_the_first_that_is_not_zero():
    """Until then it has no weight, and then the rate 1."""
    rule = mmp.weightings.gradnorm(optimizer=optax.sgd(0.1))
    state = rule.init(2)
    weights, state = rule.weights(jnp.eye(2), state, losses=jnp.array([2.0, 0.0]))
    np.testing.assert_allclose(weights, [1, 0])
    np.testing.assert_allclose(state.learned.value, [1, 1])
    weights, state = rule.weights(jnp.eye(2), state, losses=jnp.array([1.0, 8.0]))
    np.testing.assert_allclose(weights, [1, 1])
    np.testing.assert_allclose(state.first, [2, 8])
    # Rates 1/2 and 1: the second trains slowly, and its weight grows.
    np.testing.assert_allclose(state.learned.value, [0.9, 1.1], rtol=1e-6)


def test_mistakes():
    with pytest.raises(ValueError, match="gradnorm: alpha must be finite and >= 0"):
        mmp.weightings.gradnorm(-1.0)
    tx = mmp.aggregate(mmp.weightings.gradnorm(), 2)
    with pytest.raises(ValueError, match="gradnorm: needs the losses"):
        tx.update(jnp.ones((2, 1)), tx.init(jnp.zeros(1)))
