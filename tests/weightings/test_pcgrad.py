import itertools

import jax.numpy as jnp
import numpy as np

import mmpareto_jax as mmp

ROWS = np.random.default_rng(1).normal(size=(3, 2))  # three in a plane conflict


def surgery(i, order):
    h = ROWS[i].copy()
    for j in order:
        overlap = h @ ROWS[j]
        if j != i and overlap < 0:
            h -= overlap / (ROWS[j] @ ROWS[j]) * ROWS[j]
    return h


def test_each_step_takes_some_order():
    """All sums over every gradient's order, and several of them occur."""
    orders = list(itertools.permutations(range(3)))
    possible = [
        sum(surgery(i, order) for i, order in enumerate(chosen))
        for chosen in itertools.product(orders, repeat=3)
    ]
    rule = mmp.weightings.pcgrad()
    state, gramian, seen = rule.init(3), jnp.asarray(ROWS @ ROWS.T, jnp.float32), set()
    for _ in range(12):
        weights, state = rule.weights(gramian, state)
        errors = np.abs(np.asarray(weights @ ROWS) - possible).max(axis=1)
        assert errors.min() < 1e-5
        seen.add(tuple(np.round(possible[errors.argmin()], 4)))
    assert len(seen) > 1


def test_two_by_hand():
    """Each loses its part along the other: 1 + 1 / |g_k|² where ⟨g_1, g_2⟩ = -1."""
    gramian = jnp.array([[2.0, -1.0], [-1.0, 4.0]])
    rule = mmp.weightings.pcgrad()
    weights, _ = rule.weights(gramian, rule.init(2))
    np.testing.assert_allclose(weights, [1.5, 1.25])
    weights, _ = rule.weights(jnp.abs(gramian), rule.init(2))
    np.testing.assert_array_equal(weights, [1, 1])


def test_seeds():
    gramian = jnp.asarray(ROWS @ ROWS.T, jnp.float32)

    def run(seed):
        rule = mmp.weightings.pcgrad(seed)
        state, found = rule.init(3), []
        for _ in range(8):
            weights, state = rule.weights(gramian, state)
            found.append(np.asarray(weights))
        return np.array(found)

    np.testing.assert_array_equal(run(0), run(0))
    assert np.any(run(0) != run(1))
