import jax.numpy as jnp
import numpy as np
import optax

import mmpareto_jax as mmp


def test_three_steps_in_numpy():
    """The gradient of e^s L - s is e^s L - 1."""
    rule = mmp.weightings.imtl_l(optax.sgd(0.1))
    state, s, losses = rule.init(2), np.zeros(2), np.array([0.5, 3.0])
    for _ in range(3):
        weights, state = rule.weights(jnp.asarray(losses, jnp.float32), state)
        np.testing.assert_allclose(weights, np.exp(s), rtol=1e-5)
        s = s - 0.1 * (np.exp(s) * losses - 1)


def test_settles_where_weighted_losses_are_one():
    rule = mmp.weightings.imtl_l(optax.sgd(0.3))
    state, losses = rule.init(2), jnp.array([0.5, 3.0])
    for _ in range(200):
        weights, state = rule.weights(losses, state)
    np.testing.assert_allclose(weights * losses, [1, 1], rtol=1e-4)


def test_a_loss_of_zero_does_not_train_its_weight():
    """It would grow without bound in a warm-up where the loss is 0."""
    rule = mmp.weightings.imtl_l(optax.sgd(0.1))
    _, state = rule.weights(jnp.array([0.0, 3.0]), rule.init(2))
    assert state.value[0] == 0
    assert state.value[1] != 0
