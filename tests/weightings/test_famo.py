import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp

LOSSES = np.array([[1.0, 3.0, 2.0], [0.5, 2.9, 2.2], [0.4, 2.0, 2.1]])


def softmax(x):
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize("again", [False, True])
def test_three_steps_in_numpy(again):
    """The logit of an objective that improves more is lowered."""
    minimum = np.array([0.1, 0.0, -0.3])
    rule = mmp.weightings.famo(optax.sgd(0.5), minimum=minimum)
    state, logits = rule.init(3), np.zeros(3)
    for step, losses in enumerate(LOSSES):
        last = 0.9 * losses  # of the last batch, with the new parameters
        if step:
            after = last if again else losses
            gain = np.log(LOSSES[step - 1] - minimum) - np.log(after - minimum)
            z = softmax(logits)
            logits = logits - 0.5 * z * (gain - z @ gain)
        rates = softmax(logits) / (losses - minimum)
        extra = {"last_batch_losses": jnp.asarray(last, jnp.float32)} if again else {}
        weights, state = rule.weights(jnp.asarray(losses, jnp.float32), state, **extra)
        np.testing.assert_allclose(weights, rates / rates.sum(), rtol=1e-5)
    assert logits.argmin() == 0


def test_the_default_optimizer(x64):
    """Adam, learning rate 0.025, whose gradient contains 1e-3 times the logits."""
    rule = mmp.weightings.famo()
    state = rule.init(2)
    x = first = second = 0.0  # the logits are (x, -x) by symmetry, and so Adam's means
    for step, gain in enumerate([0.0, 4e-5, 0.0]):
        again = jnp.array([np.exp(-gain), 1.0])
        weights, state = rule.weights(jnp.ones(2), state, last_batch_losses=again)
        if step:  # the first has no earlier one
            z = softmax(np.array([x, -x]))
            slope = z[0] * z[1] * gain + 1e-3 * x
            first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 1e-3 * slope**2
            size = np.sqrt(second / (1 - 0.999**step)) + 1e-8
            x -= 0.025 * first / (1 - 0.9**step) / size
        np.testing.assert_allclose(weights, softmax(np.array([x, -x])), rtol=1e-9)


def test_no_improvement_from_the_minimum_or_to_it():
    """The logits of the others move as if it were not there; its own do not."""
    rule = mmp.weightings.famo(optax.sgd(1.0), minimum=[-0.5, 0.0, 0.0])
    state = rule.init(3)
    for losses in ([-0.5, 1.0, 1.0], [2.0, 0.5, 1.0], [-0.5, 0.5, 1.0]):
        _, state = rule.weights(jnp.array(losses), state)
    step = np.log(2) / 4
    np.testing.assert_allclose(state.logits.value, [0, -step, step], rtol=1e-6)
    np.testing.assert_allclose(state.losses, [0, 0.5, 1])


def test_mistakes():
    rule = mmp.weightings.famo(minimum=[0.0])
    with pytest.raises(ValueError, match=r"famo: minimum .*\(2,\)"):
        rule.weights(jnp.ones(2), rule.init(2))
