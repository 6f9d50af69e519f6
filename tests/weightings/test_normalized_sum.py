import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

rule = mmp.weightings.normalized_sum


def of_rows(rows, **options):
    """The update of stacked rows [K, P], by the transformation."""
    tx = mmp.aggregate(rule(**options), len(rows))
    rows = jnp.asarray(rows)
    return tx.update(rows, tx.init(rows[0]))[0]


def by_hand(rows, gamma=1.0):
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(0)
    return gamma * np.linalg.norm(rows.sum(0)) * unit / np.linalg.norm(unit)


@pytest.mark.parametrize("num", [2, 3, 8, 40])
def test_the_unit_gradients_at_the_length_of_the_sum(x64, num):
    rng = np.random.default_rng(num)
    rows = rng.normal(size=(num, 60)) * np.exp(rng.normal(scale=4, size=(num, 1)))
    np.testing.assert_allclose(of_rows(rows, gamma=1.5), by_hand(rows, 1.5), rtol=1e-9)


@pytest.mark.parametrize("ratio", [1e-37, 1e-20, 1e-3, 1.0, 1e3, 1e20, 1e30])
def test_a_gradient_of_any_length_has_half_of_the_say(ratio):
    """Two orthogonal gradients: the direction is the diagonal, whatever their ratio."""
    size = np.hypot(np.float32(1.0), ratio)
    found = of_rows(jnp.diag(jnp.array([1.0, ratio], jnp.float32)))
    np.testing.assert_allclose(found, size / np.sqrt(2) * np.ones(2), rtol=1e-6)


def test_as_config_and_nash_mtl_for_two(x64):
    rows = np.random.default_rng(0).normal(size=(2, 9)) * [[1], [30]]
    found = of_rows(rows)
    for other in (mmp.weightings.config(), mmp.weightings.nash_mtl(max_norm=0)):
        tx = mmp.aggregate(other, 2)
        d, _ = tx.update(jnp.asarray(rows), tx.init(jnp.zeros(9)))
        np.testing.assert_allclose(
            found / jnp.linalg.norm(found), d / jnp.linalg.norm(d), rtol=1e-6
        )


def test_a_zero_gradient_has_no_say_and_the_others_mean_weight():
    rows = np.diag([3.0, 4.0, 0.0]).astype(np.float32)
    np.testing.assert_allclose(of_rows(rows), by_hand(rows[:2]), rtol=1e-6)
    weights, _ = rule().weights(jnp.asarray(rows @ rows.T), rule().init(3))
    np.testing.assert_allclose(weights[2], weights[:2].mean(), rtol=1e-6)


def test_opposite_gradients_serve_nobody():
    np.testing.assert_array_equal(of_rows(np.float32([[1.0, 0], [-3.0, 0]])), [0, 0])


def test_all_zero_and_not_finite():
    np.testing.assert_array_equal(of_rows(jnp.zeros((3, 2))), [0, 0])
    assert jnp.isnan(of_rows(jnp.array([[1.0, 0], [jnp.nan, 1]]))).all()


@pytest.mark.parametrize("short", [1e-4, 1e-30])
def test_a_limit_is_one_of_the_mean_weight(short):
    """The direction stays; below the limit nothing changes."""
    rows = jnp.diag(jnp.array([1.0, short], jnp.float32))
    tx = mmp.aggregate(rule(gamma=2.0, max_magnitude=10.0), 2)
    found, state = tx.update(rows, tx.init(rows[0]))
    np.testing.assert_allclose(
        mmp.diagnostics(state)["all"]["magnitude"], 2 * 10, rtol=1e-5
    )
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    near = jnp.diag(jnp.array([1.0, 0.5]))
    np.testing.assert_array_equal(of_rows(near, max_magnitude=10.0), of_rows(near))


def test_a_schedule_counts_steps():
    tx = mmp.aggregate(rule(gamma=lambda step: 1.0 + step), 2)
    rows = jnp.diag(jnp.array([3.0, 4.0]))
    state = tx.init(rows[0])
    first, state = tx.update(rows, state)
    second, _ = tx.update(rows, state)
    np.testing.assert_allclose(second, 2 * first, rtol=1e-6)
    assert not jax.tree.leaves(rule().init(2))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma": -1.0}, "normalized_sum: gamma must be finite and >= 0"),
        ({"max_magnitude": 0.5}, "normalized_sum: max_magnitude must be finite and >="),
    ],
)
def test_what_is_out_of_range_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        rule(**options)
