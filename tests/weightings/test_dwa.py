import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def test_epochs_of_two_steps():
    rule = mmp.weightings.dwa(temperature=0.5, steps_per_epoch=2)
    state, found = rule.init(2), []
    for losses in (
        [2.0, 4.0],
        [4.0, 4.0],
        [1.0, 4.0],
        [2.0, 4.0],
        [9.0, 9.0],
        [0.0, 0.0],
        [1.0, 1.0],
    ):
        weights, state = rule.weights(jnp.array(losses), state)
        found.append(np.asarray(weights))
    # Means (3, 4) and (1.5, 4): rates 1/2 and 1 for the third epoch's two steps.
    third = 2 * np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    # Then (4.5, 4.5): rates 3 and 9/8.
    fourth = 2 * np.exp([6.0, 2.25]) / np.exp([6.0, 2.25]).sum()
    expected = [[1, 1]] * 4 + [third] * 2 + [fourth]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_epoch_of_zeros_says_nothing_of_a_rate():
    """Nor does one that is all but zero make a NaN."""
    rule = mmp.weightings.dwa(temperature=0.5)
    for first, expected in ((0.0, [1, 1]), (2e-38, [2, 0])):
        state = rule.init(2)
        for losses in ([first, 4.0], [5.0, 4.0], [1.0, 1.0]):
            weights, state = rule.weights(jnp.array(losses), state)
        np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_mistakes():
    for temperature in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="dwa: temperature must be positive"):
            mmp.weightings.dwa(temperature)
    with pytest.raises(ValueError, match="dwa: steps_per_epoch must be >= 1, got 0"):
        mmp.weightings.dwa(steps_per_epoch=0)
