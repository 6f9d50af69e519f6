import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def test_turned_until_the_cosine_is_the_target():
    """Orthogonal gradients of norms 1 and 2, targets 0.5 and -0.5."""
    rule = mmp.weightings.gradvac(beta=0.25)
    targets = jnp.array([[0.0, 0.5], [-0.5, 0.0]])
    state = rule.init(2)._replace(cosines=targets)
    weights, state = rule.weights(jnp.diag(jnp.array([1.0, 4.0])), state)
    # h_1 = g_1 + t g_2 with 2 t / sqrt(1 + 4 t²) = 1/2: t = 1 / (2 sqrt(3)). The
    # second is above its target and stays.
    np.testing.assert_allclose(weights, [1, 1 + 1 / (2 * np.sqrt(3))], rtol=1e-5)
    expected = [[0, 0.375], [-0.375, 0]]
    np.testing.assert_allclose(state.cosines, expected, rtol=1e-6)


def test_begins_as_pcgrad():
    gramian = jnp.array([[1.0, -1.0], [-1.0, 4.0]])
    rule, other = mmp.weightings.gradvac(), mmp.weightings.pcgrad()
    weights, state = rule.weights(gramian, rule.init(2))
    expected, _ = other.weights(gramian, other.init(2))
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_allclose(state.cosines, [[0, -0.25], [-0.25, 0]], rtol=1e-6)


def test_four_steps_in_numpy():
    """In the plane of both, h_i keeps its height |g_i| sin φ over the line of g_j."""
    rule, target = mmp.weightings.gradvac(beta=0.25), 0.0
    state, norms = rule.init(2), np.array([1.0, 2.0])
    for cosine in (0.8, -0.6, 0.28, -0.8):
        expected = np.ones(2)
        if cosine < target:
            along = np.sin(np.arccos(cosine)) / np.tan(np.arccos(target))
            expected += (along - cosine) * norms[::-1] / norms
        gramian = np.outer(norms, norms) * [[1, cosine], [cosine, 1]]
        weights, state = rule.weights(jnp.asarray(gramian, jnp.float32), state)
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
        target += 0.25 * (cosine - target)
    np.testing.assert_allclose(state.cosines[0, 1], target, rtol=1e-5)


def test_in_turn_and_in_random_order():
    """Cosine 3/5 takes 3/4 of |h|: 1 for the gradient that is first, then 5/4."""
    rule, found = mmp.weightings.gradvac(beta=0.0), set()
    targets = jnp.zeros((3, 3)).at[0, 1:].set(0.6)
    state = rule.init(3)._replace(cosines=targets)
    for _ in range(20):
        weights, state = rule.weights(jnp.eye(3), state)
        found.add(tuple(np.asarray(weights, float).round(4).tolist()))
    assert found == {(1.0, 1.75, 1.9375), (1.0, 1.9375, 1.75)}


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_mistakes(beta):
    with pytest.raises(ValueError, match=r"gradvac: beta must be in \[0, 1\]"):
        mmp.weightings.gradvac(beta)
