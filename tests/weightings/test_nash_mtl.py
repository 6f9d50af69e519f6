import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def test_the_equation(x64):
    rows = np.random.default_rng(0).normal(size=(4, 9)) * [[1], [50], [0.02], [1]]
    gramian = rows @ rows.T
    rule = mmp.weightings.nash_mtl(max_norm=0)
    weights, _ = rule.weights(jnp.asarray(gramian), rule.init(4))
    size = np.linalg.norm(gramian)
    np.testing.assert_allclose(gramian @ weights / size, 1 / weights, rtol=1e-9)
    assert weights.min() > 0


@pytest.mark.parametrize(("limit", "expected"), [(0.5, 0.5), (1e6, None)])
def test_the_norm_is_limited(limit, expected):
    rule, free = mmp.weightings.nash_mtl(limit), mmp.weightings.nash_mtl(0)
    gramian = jnp.diag(jnp.array([9.0, 16.0]))
    rows = jnp.full(2, 2.0)
    weights, _ = rule.weights(gramian, rule.init(2), rows=rows)
    plain, _ = free.weights(gramian, free.init(2), rows=rows)
    norm = jnp.sqrt(plain @ gramian @ plain)
    factor = 1 if expected is None else expected / norm
    np.testing.assert_allclose(weights, factor * plain, rtol=1e-5)


def test_bargains_at_every_second_step():
    rule = mmp.weightings.nash_mtl(max_norm=0, update_every=2)
    each = mmp.weightings.nash_mtl(max_norm=0)
    state, found = rule.init(2), []
    gramians = [jnp.diag(jnp.array([1.0, x])) for x in (4.0, 9.0, 16.0, 25.0)]
    for gramian in gramians:
        weights, state = rule.weights(gramian, state)
        found.append(np.asarray(weights))
    expected = [each.weights(gramians[i], each.init(2))[0] for i in (0, 0, 2, 2)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_mistakes():
    with pytest.raises(ValueError, match="nash_mtl: max_norm must be finite and >= 0"):
        mmp.weightings.nash_mtl(-1.0)
    with pytest.raises(ValueError, match="nash_mtl: update_every must be >= 1, got 0"):
        mmp.weightings.nash_mtl(update_every=0)
