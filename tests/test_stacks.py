"""Stacks that remember their rows: for as long as they live, and in traces only."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp
from mmpareto_jax._gradients import stacks
from mmpareto_jax._gramians.gramian import group_gramians

ROWS = [jnp.arange(3.0), jnp.ones(3)]


def test_a_stack_is_a_stack():
    np.testing.assert_array_equal(stacks.stack(ROWS), jnp.stack(ROWS))
    np.testing.assert_array_equal(jax.jit(stacks.stack)(ROWS), jnp.stack(ROWS))


def test_rows_are_known_within_a_trace_only():
    def traced(rows):
        whole = stacks.stack(rows)
        assert all(a is b for a, b in zip(stacks.apart(whole), rows, strict=True))
        other = whole + 0
        assert stacks.apart(other) is other
        return whole

    whole = jax.jit(traced)(ROWS)
    assert stacks.apart(whole) is whole
    eager = stacks.stack(ROWS)
    assert stacks.apart(eager) is eager


def test_nothing_is_kept_of_a_trace():
    gc.collect()
    before = set(stacks._ROWS)  # of traces of other tests, which pytest may hold
    with jax.checking_leaks():
        jax.jit(lambda rows: stacks.stack(rows) * 2)(ROWS)
    gc.collect()
    assert set(stacks._ROWS) <= before


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_gramians_are_those_of_the_stack(scale):
    rng = np.random.default_rng(0)
    rows = [jnp.asarray(scale * rng.normal(size=(4, 5)), jnp.float32) for _ in range(3)]
    expected = group_gramians([[jnp.stack(rows)]])
    found = jax.jit(lambda rows: group_gramians([[stacks.stack(rows)]]))(rows)
    tolerance = 1e-6 * np.max(expected[0].total)
    np.testing.assert_allclose(found[0].total, expected[0].total, atol=tolerance)
    assert found[0].scale == expected[0].scale
    # Not what float32 makes of the products: these are 0 or infinite at the ends.
    assert np.all(np.isfinite(found[0].total))
    assert np.all(np.diag(found[0].total) > 0)


def test_under_other_transformations():
    """A stack in an outer trace is read in an inner one, and under vmap and grad."""

    def losses_fn(w, x):
        return {"a": jnp.sum((w - x) ** 2), "b": jnp.sum((w + x) ** 2)}

    def update(w, x):
        _, grads = mmp.value_and_objective_grads(losses_fn)(w, x)
        tx = mmp.mmpareto(2)

        def inner():
            return tx.update(grads, tx.init(w), w)[0]

        return jax.lax.cond(jnp.sum(w) > 0, inner, lambda: jnp.zeros_like(w))

    w, xs = jnp.array([0.3, 0.1]), jnp.array([[1.0, 2.0], [0.0, -1.0], [2.0, 2.0]])
    expected = jnp.stack([update(w, x) for x in xs])
    found = jax.jit(jax.vmap(update, in_axes=(None, 0)))(w, xs)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    slope = jax.jit(jax.grad(lambda w: jnp.sum(update(w, xs[1]))))(w)
    assert np.all(np.isfinite(slope))


def test_a_jit_around_the_gradients_costs_the_stacks_and_nothing_else():
    """The same numbers; without it the stacks are not written (2 P against 5 P)."""

    def losses_fn(w, x):
        features = jnp.tanh(x @ w)
        return {"a": jnp.mean(features**2), "b": jnp.mean((features - 1) ** 2)}

    grad_fn = mmp.value_and_objective_grads(losses_fn)
    tx = mmp.mmpareto(2)

    def step(grad_fn, w, x):
        _, grads = grad_fn(w, x)
        return tx.update(grads, tx.init(w), w)[0]

    w = jax.random.normal(jax.random.key(0), (256, 256))
    x = jax.random.normal(jax.random.key(1), (8, 256))
    whole = jax.jit(lambda w, x: step(grad_fn, w, x)).lower(w, x).compile()
    nested = jax.jit(lambda w, x: step(jax.jit(grad_fn), w, x)).lower(w, x).compile()
    np.testing.assert_allclose(nested(w, x), whole(w, x), rtol=1e-5, atol=1e-7)
    whole, nested = (c.memory_analysis().temp_size_in_bytes for c in (whole, nested))
    print(f"temporaries: {whole / w.nbytes:.1f} P and {nested / w.nbytes:.1f} P")
    assert whole <= 2.5 * w.nbytes
    assert nested <= whole + 3.1 * w.nbytes
