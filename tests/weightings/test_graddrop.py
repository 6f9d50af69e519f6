import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

# Purity (1 + 2 / 4) / 2 = 3/4 in every coordinate.
GRADS = jnp.tile(jnp.array([[3.0], [-0.5], [-0.5]]), (1, 20_000))


def drop(grads, **options):
    tx = mmp.aggregate(mmp.weightings.graddrop(**options), 3)
    return tx.update(grads, tx.init(jax.tree.map(lambda x: x[0], grads)))


def test_one_sign_is_kept_as_often_as_the_purity_says():
    updates, _ = drop(GRADS)
    positive = np.asarray(updates) == 3
    np.testing.assert_array_equal(np.asarray(updates)[~positive], -1)
    # Standard deviation 0.003.
    np.testing.assert_allclose(positive.mean(), 0.75, atol=0.015)


def test_coordinates_without_conflict_are_summed():
    grads = jnp.array([[1.0, -2.0, 0.0], [2.0, -0.5, 0.0], [0.0, -1.0, 0.0]])
    np.testing.assert_allclose(drop(grads)[0], [3.0, -3.5, 0.0])


def test_leaks():
    """The first passes whole, of the second a fifth, of the third nothing."""
    updates = np.asarray(drop(GRADS, leak=[1.0, 0.2, 0.0])[0])
    positive = np.isclose(updates, 3 - 0.2 * 0.5)
    np.testing.assert_allclose(updates[~positive], 3 - 0.5 - 0.5, rtol=1e-5)
    np.testing.assert_allclose(positive.mean(), 0.75, atol=0.015)


def test_seeds_steps_and_leaves_draw_anew():
    updates, state = drop(GRADS)
    np.testing.assert_array_equal(updates, drop(GRADS)[0])
    assert np.any(updates != drop(GRADS, seed=1)[0])
    tx = mmp.aggregate(mmp.weightings.graddrop(), 3)
    assert np.any(updates != tx.update(GRADS, state)[0])
    first, second = drop([GRADS, GRADS])[0]
    assert np.any(first != second)


def test_mistakes():
    with pytest.raises(ValueError, match=r"graddrop: leak must have shape \(3,\)"):
        drop(GRADS, leak=[1.0, 0.0])
