"""Derivatives of an update: meta-gradients through the rules, forward and reverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from promises import METHODS

import mmpareto_jax as mmp
from mmpareto_jax._gramians.linalg import psd_solve
from mmpareto_jax._gramians.min_norm import min_norm

pytestmark = pytest.mark.slow

WITH = """config dualproj fairgrad imtl_g mgda mmpareto nash_mtl upgrad
    db_mtl famo geometric_mean gradvac metabalance modo pcgrad sdmgrad uniform"""
WITHOUT = ["aligned_mtl", "cagrad"]


def problem(num, seed=0):
    """A curve of gradients in float64, away from where its conflicts change."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num, 6))
    rows -= 0.7 * rows.mean(0)
    return jnp.asarray(rows), jnp.asarray(rng.normal(size=(num, 6)))


def along(tx, num):
    rows, way = problem(num)

    def value(t):
        grads = rows + t * way
        state = tx.init(jnp.zeros(6))
        updates, _ = tx.update(grads, state, losses=jnp.arange(1.0, num + 1) + t)
        return jnp.sum(updates * jnp.arange(6.0))

    return value


@pytest.mark.parametrize(
    ("name", "num"),
    [*((name, 3) for name in WITH.split()), ("mmpareto", 2), ("gradvac", 2)],
)
def test_an_update_has_derivatives(name, num, x64):
    value = jax.jit(along(mmp.aggregate(METHODS[name].rule, num), num))
    reverse = jax.jit(jax.grad(value))(0.1)
    _, forward = jax.jit(lambda t: jax.jvp(value, (t,), (1.0,)))(0.1)
    step = 1e-5
    numeric = (value(0.1 + step) - value(0.1 - step)) / (2 * step)
    np.testing.assert_allclose(reverse, numeric, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(forward, reverse, rtol=1e-9)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_rule_without_one_says_so(name, x64):
    value = along(mmp.aggregate(METHODS[name].rule, 3), 3)
    for derivative in (jax.grad(value), lambda t: jax.jvp(value, (t,), (1.0,))):
        with pytest.raises(NotImplementedError, match=f"{name}: its weights have no"):
            derivative(0.1)
    held = jax.jit(jax.grad(lambda t: value(jax.lax.stop_gradient(t)) * t))
    np.testing.assert_allclose(held(0.1), value(0.1))


@pytest.mark.parametrize("exponent", [0, -20])
def test_the_rescaled_branch_has_derivatives(exponent):
    """In float32, where one row is out of range: linear in the long one's length."""
    rows = jnp.array([[1.0, 0.0], [-1.0, 1.0]]) * jnp.array([[1.0], [10.0**exponent]])
    tx = mmp.mmpareto(2, gamma=1.0)

    def length(t):
        updates, _ = tx.update(t * rows, tx.init(jnp.zeros(2)))
        return jnp.linalg.norm(updates)

    size = np.linalg.norm(np.asarray(rows, np.float64).sum(0))
    np.testing.assert_allclose(jax.jit(jax.grad(length))(3.0), size, rtol=1e-5)
    forward = jax.jit(lambda t: jax.jvp(length, (t,), (1.0,))[1])
    np.testing.assert_allclose(forward(3.0), size, rtol=1e-5)


def test_a_bilevel_step(x64):
    """The outer gradient of an inner step, against finite differences; under vmap."""

    def losses_fn(params, scale):
        return {
            "a": jnp.sum((params - scale) ** 2),
            "b": jnp.sum((params + 1) ** 2 * jnp.arange(1.0, 4)),
        }

    tx = mmp.mmpareto(("a", "b"))
    params = jnp.array([0.3, -0.2, 0.5])

    def outer(scale):
        _, grads = mmp.value_and_objective_grads(losses_fn)(params, scale)
        updates, _ = tx.update(grads, tx.init(params), params)
        return jnp.sum((params - 0.1 * updates) ** 3)

    scales = jnp.array([0.5, 2.0])
    found = jax.jit(jax.vmap(jax.grad(outer)))(scales)
    step, outer = 1e-5, jax.jit(outer)
    numeric = [(outer(s + step) - outer(s - step)) / (2 * step) for s in scales]
    np.testing.assert_allclose(found, numeric, rtol=1e-6)


def test_min_norm_weights_are_differentiated_on_their_support(x64):
    rows, way = problem(5, seed=3)

    def weights(t):
        moved = rows + t * way
        return min_norm(moved @ moved.T).weights

    found = jax.jit(jax.jacfwd(weights))(0.0)
    step, weights = 1e-6, jax.jit(weights)
    numeric = (weights(step) - weights(-step)) / (2 * step)
    np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(jax.jit(jax.jacrev(weights))(0.0), found, atol=1e-10)
    assert np.all(found[np.asarray(weights(0.0)) == 0] == 0)


@pytest.mark.parametrize("rank", [4, 2])
def test_of_a_pseudo_inverse(rank, x64):
    """Also where the matrix is singular, as long as its rank stays."""
    rng = np.random.default_rng(0)
    root, way = rng.normal(size=(4, rank)), rng.normal(size=(4, rank))
    right = jnp.asarray(rng.normal(size=4))

    def solve(t):
        moved = root + t * way
        return psd_solve(moved @ moved.T, right * (1 + t))

    step, solve = 1e-6, jax.jit(solve)
    numeric = (solve(step) - solve(-step)) / (2 * step)
    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(solve))(0.0), numeric, rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(
        jax.jit(jax.jacrev(solve))(0.0), numeric, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(
    "name", ["upgrad", "dualproj", "mmpareto", "mgda", "imtl_g", "config", "nash_mtl"]
)
def test_beside_a_zero_gradient(name):
    """The norm of the zero has no derivative; those of the others are right."""
    rows = jnp.array([[1.0, 0.0], [-2.0, 1.0], [0.0, 0.0]])
    if name == "mgda":  # the zero is its point
        rows = rows.at[2, 0].set(0.5)
    tx = mmp.aggregate(METHODS[name].rule, 3)

    def value(rows):
        return jnp.sum(tx.update(rows, tx.init(rows[0]))[0] * jnp.array([1.0, 3.0]))

    way = jnp.array([[0.3, 1.0], [0.2, -0.5], [0.0, 0.0]])
    found = jax.jit(jax.grad(value))(rows)
    assert np.isfinite(found).all()
    _, forward = jax.jit(lambda x: jax.jvp(value, (x,), (way,)))(rows)
    np.testing.assert_allclose(jnp.sum(found * way), forward, rtol=1e-4, atol=1e-5)
    step, value = 1e-2, jax.jit(value)
    numeric = (value(rows + step * way) - value(rows - step * way)) / (2 * step)
    np.testing.assert_allclose(forward, numeric, rtol=2e-2, atol=1e-2)
