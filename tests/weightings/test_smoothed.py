"""A running mean of weights: the formula, and what the rule within keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp

W = mmp.weightings
# Of rows in scales of their own, of one scale, with losses, random, reading no Gramian.
RULES = {
    "imtl_g": W.imtl_g(),
    "mmpareto": W.mmpareto(lambda step: 1.0 + step),
    "aligned_mtl": W.aligned_mtl(),
    "loss": W.mgda("loss"),
    "pcgrad": W.pcgrad(),
    "random": W.random(),
}
LOSSES = jnp.array([0.5, 1.0, 2.0])


def rows(seed, scale=1.0):
    found = np.random.default_rng(seed).normal(size=(3, 5))
    return jnp.asarray((found - 0.7 * found.mean(0)) * scale)


def run(rule, steps, dtype=jnp.float32):
    """The weights of every step [N, K], and the last state."""
    tx = mmp.aggregate(rule, 3)
    update, state, found = jax.jit(tx.update), tx.init(jnp.zeros(5, dtype)), []
    for grads in steps:
        _, state = update(grads.astype(dtype), state, losses=LOSSES)
        found.append(np.asarray(mmp.diagnostics(state)["all"]["weights"]))
    assert update._cache_size() == 1
    return np.array(found), state


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_the_formula(name, decay, x64):
    steps = [rows(seed) for seed in range(4)]
    plain, inner = run(RULES[name], steps, jnp.float64)
    found, state = run(W.smoothed(RULES[name], decay), steps, jnp.float64)
    expected = plain[:1]
    for weights in plain[1:]:
        expected = np.append(
            expected, [decay * expected[-1] + (1 - decay) * weights], axis=0
        )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    within = state.weighting["all"].rule
    jax.tree.map(np.testing.assert_array_equal, within, inner.weighting["all"])
    assert state.weighting["all"].step == 4


@pytest.mark.parametrize("name", RULES)
def test_no_decay_is_the_rule_itself(name):
    steps = [rows(seed, 10.0 ** (12 * seed)) for seed in range(3)]
    found, _ = run(W.smoothed(RULES[name], 0.0), steps)
    np.testing.assert_array_equal(found, run(RULES[name], steps)[0])


def test_a_schedule_of_the_step():
    """The mean of all steps so far."""
    steps = [rows(seed) for seed in range(4)]
    rule = W.smoothed(W.mgda(), lambda step: step / (step + 1))
    expected = np.cumsum(run(W.mgda(), steps)[0], 0) / np.arange(1, 5)[:, None]
    np.testing.assert_allclose(run(rule, steps)[0], expected, rtol=1e-5)
    falling = W.smoothed(W.mgda(), optax.linear_schedule(0.9, 0.0, 3))
    plain, _ = run(W.mgda(), steps)
    np.testing.assert_allclose(run(falling, steps)[0][3], plain[3], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_is_left_of_a_step_that_is_not_finite(bad):
    rule = W.smoothed(RULES["mmpareto"])
    good = [rows(0), rows(1)]
    found, state = run(rule, [good[0], rows(2).at[1, 1].set(bad), good[1]])
    plain, expected = run(rule, good)
    np.testing.assert_array_equal(found[[0, 2]], plain)
    assert np.isnan(found[1]).any()
    jax.tree.map(np.testing.assert_array_equal, state.weighting, expected.weighting)


@pytest.mark.parametrize("scales", [[1e-20] * 3, [1e18] * 3, [1e-20, 1e18, 1.0]])
def test_weights_of_rules_without_scale_have_none(scales):
    """Also where the step before had another, and squares out of range."""
    steps = [rows(seed) for seed in range(3)]
    expected, _ = run(W.smoothed(W.mgda("l2")), steps)
    scaled = [x * scale for x, scale in zip(steps, scales, strict=True)]
    found, _ = run(W.smoothed(W.mgda("l2")), scaled)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_gramian_of_any_size():
    rule = W.smoothed(W.mgda())
    gramian = rows(0) @ rows(0).T
    state = rule.init(3)
    for size in (1.0, 1e-20, 1e20):
        weights, state = rule.weights(size * gramian, state)
        np.testing.assert_allclose(weights, W.mgda().weights(gramian, ())[0], rtol=1e-5)


def test_rows_of_unlike_lengths():
    """A weight of 1e-40 is not representable; what it makes of its gradient is."""
    steps = [rows(0) * 10.0 ** jnp.array([[20.0], [0.0], [-20.0]])] * 2
    found, expected = mmp.aggregate(W.smoothed(W.imtl_g()), 3), W.imtl_g()
    expected = mmp.aggregate(expected, 3)
    state, plain = (tx.init(jnp.zeros(5)) for tx in (found, expected))
    for grads in steps:
        updates, state = found.update(grads, state)
        np.testing.assert_allclose(updates, expected.update(grads, plain)[0], rtol=1e-5)


def test_the_solver_of_the_rule_reports():
    tx = mmp.aggregate(W.smoothed(W.mgda()), 3)
    _, state = tx.update(rows(0), tx.init(jnp.zeros(5)))
    assert mmp.diagnostics(state)["all"]["iterations"] > 0


def test_what_is_read_is_what_the_rule_reads():
    assert not W.smoothed(W.random()).reads_gramian
    assert W.smoothed(W.mgda("loss")).extras == W.mgda("loss").extras


def test_errors():
    for decay in (1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"smoothed: decay must be in \[0, 1\)"):
            W.smoothed(W.mgda(), decay)
    for rule in (W.dwa(), W.graddrop()):
        with pytest.raises(TypeError, match="smoothed: needs a Weighting"):
            W.smoothed(rule)
