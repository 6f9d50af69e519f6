"""COSMOS, PBI, SoftAdapt and ReLoBRaLo: weights of losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

W = mmp.weightings


def cosmos(losses, p, lam):
    cosine = p @ losses / (jnp.linalg.norm(p) * jnp.linalg.norm(losses))
    return p @ losses - lam * cosine


def pbi(losses, p, theta, z):
    ray = p / jnp.linalg.norm(p)
    along = (losses - z) @ ray
    aside = losses - z - along * ray
    return along + theta * jnp.sqrt(aside @ aside + 1e-12)


@pytest.mark.parametrize("num", [2, 8, 40])
def test_the_derivatives_of_their_losses(num, x64):
    rng = np.random.default_rng(num)
    losses, p, z = jnp.asarray(rng.uniform(0.1, 3, size=(3, num)))
    found, _ = W.cosmos(1.7, preference=p).weights(losses, ())
    np.testing.assert_allclose(found, jax.grad(cosmos)(losses, p, 1.7), rtol=1e-9)
    found, _ = W.pbi(3.0, preference=p, ideal=z / 10).weights(losses, ())
    np.testing.assert_allclose(found, jax.grad(pbi)(losses, p, 3.0, z / 10), rtol=1e-9)


@pytest.mark.parametrize("rule", [W.cosmos(), W.pbi()])
@pytest.mark.parametrize(
    "losses", [[0.0, 0.0], [1.0, 1.0], [1e-30, 1e-20], [1e30, 1e25], [1e-40, 1e30]]
)
def test_finite_on_the_ray_at_zero_and_at_any_size(rule, losses):
    weights, _ = rule.weights(jnp.array(losses, jnp.float32), ())
    assert jnp.isfinite(weights).all()


def test_on_the_ray_only_the_length_counts():
    weights, _ = W.pbi(preference=[3.0, 4.0]).weights(jnp.array([6.0, 8.0]), ())
    np.testing.assert_allclose(weights, [0.6, 0.8], atol=1e-5)
    weights, _ = W.cosmos(9.0, preference=[3.0, 4.0]).weights(jnp.array([6.0, 8.0]), ())
    np.testing.assert_allclose(weights, [3, 4], rtol=1e-5)


def run(rule, steps):
    state = rule.init(len(steps[0]))
    for losses in steps:
        weights, state = rule.weights(jnp.asarray(losses), state)
    return weights


def soft(now, before, temperature=1.0):
    z = np.exp(np.asarray(now) / before / temperature)
    return len(z) * z / z.sum()


STEPS = np.array([[4.0, 1.0, 2.0], [3.0, 1.5, 0.1], [2.0, 1.2, 0.2]])


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_soft_adapt_by_hand(temperature, x64):
    rule = W.soft_adapt(temperature)
    np.testing.assert_array_equal(run(rule, STEPS[:1]), [1, 1, 1])
    expected = soft(STEPS[2], STEPS[1], temperature)
    np.testing.assert_allclose(run(rule, STEPS), expected, rtol=1e-9)


def test_relobralo_by_hand(x64):
    keeps = W.relobralo(0.6, temperature=0.7, rho=1.0)
    np.testing.assert_array_equal(run(keeps, STEPS[:1]), [1, 1, 1])
    first, last = soft(STEPS[1], STEPS[0], 0.7), soft(STEPS[2], STEPS[1], 0.7)
    expected = 0.6 * (0.6 + 0.4 * first) + 0.4 * last
    np.testing.assert_allclose(run(keeps, STEPS), expected, rtol=1e-9)
    forgets = W.relobralo(0.6, temperature=0.7, rho=0.0)
    expected = 0.6 * soft(STEPS[2], STEPS[0], 0.7) + 0.4 * last
    np.testing.assert_allclose(run(forgets, STEPS), expected, rtol=1e-9)


def test_relobralo_looks_back_as_often_as_it_says():
    """With α = 1 the weights are those since the start, or stay."""
    rule = W.relobralo(1.0, rho=0.75)
    state = rule.init(2)
    _, state = rule.weights(jnp.array([1.0, 1.0]), state)
    kept = 0
    for step in range(400):
        before = state.mean
        weights, state = rule.weights(jnp.array([1.0, 1.0 + 0.01 * step]), state)
        kept += bool((weights == before).all())
    assert 0.65 < kept / 400 < 0.85


@pytest.mark.parametrize("rule", [W.soft_adapt(), W.relobralo()])
def test_a_loss_of_zero_and_a_tiny_one(rule):
    for steps in ([[1.0, 0.0], [1.0, 1.0]], [[1.0, 1e-38], [1.0, 1e30]]):
        found = run(rule, np.float32(steps))
        assert jnp.isfinite(found).all()
        np.testing.assert_allclose(found.sum(), 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: W.cosmos(-1.0), "cosmos: lam must be finite and >= 0"),
        (lambda: W.pbi(-1.0), "pbi: theta must be finite and >= 0"),
        (lambda: W.soft_adapt(0.0), "soft_adapt: temperature must be positive"),
        (lambda: W.relobralo(1.5), "relobralo: alpha must be in"),
        (lambda: W.relobralo(rho=-0.1), "relobralo: rho must be in"),
        (lambda: W.relobralo(temperature=0.0), "relobralo: temperature must be posit"),
    ],
)
def test_ranges(make, words):
    with pytest.raises(ValueError, match=words):
        make()
