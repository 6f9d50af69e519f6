"""Gramians: values, accuracy, every scale, and the errors."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp
from mmpareto_jax._gramians.gramian import combine, group_gramians


def tree(num, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": (5,), "c": (), "d": (2, 1, 3)}
    return {
        k: jnp.asarray(rng.normal(size=(num, *s)), dtype) for k, s in shapes.items()
    }


def exact(grads):
    leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(grads)]
    rows = np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)
    return rows @ rows.T


@pytest.mark.parametrize("num", [1, 2, 3, 8])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_is_the_matrix_of_inner_products(num, dtype, x64):
    grads = tree(num, dtype=dtype)
    found = mmp.gramian(grads)
    assert found.shape == (num, num)
    assert found.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
    tolerance = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(found, exact(grads), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("num", [2, 3, 9])
@pytest.mark.parametrize(
    "shape",
    [(1024, 1100), (1_200_000,), (8192 * 140,), (3, 3, 512, 300), (1_200_000, 1)],
)
def test_accuracy_on_a_million_elements(shape, num):
    """A running sum in float32 would lose three digits here."""
    rng = np.random.default_rng(1)
    grad = rng.standard_normal((num, *shape), np.float32)
    found = jax.jit(mmp.gramian)(jnp.asarray(grad))
    expected = exact(grad)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    error = np.abs(found - expected) / scale
    print(f"relative error {shape}: {error.max():.2e}")
    assert error.max() < 1e-6


def test_accuracy_of_a_common_sign():
    """No cancellation hides a bias: a million equal squares."""
    found = mmp.gramian(jnp.full((1, 2**20), 0.1, jnp.float32))
    expected = 2**20 * float(np.float32(0.1)) ** 2
    np.testing.assert_allclose(found, [[expected]], rtol=1e-6)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**-66, 1.0, 2.0**49, 2.0**100])
def test_groups_at_every_scale(scale):
    grads = jax.tree.leaves(tree(2))
    plain = jax.tree.leaves(tree(3, seed=1))
    first, second = jax.jit(group_gramians)([[x * scale for x in grads], plain])
    norms = np.sqrt(np.diag(exact(grads)))
    np.testing.assert_allclose(first.norms, scale * norms, rtol=1e-5)
    total = np.asarray(first.total, np.float64)
    found = total / np.sqrt(np.outer(np.diag(total), np.diag(total)))
    np.testing.assert_allclose(found, exact(grads) / np.outer(norms, norms), rtol=1e-4)
    expected = exact(plain) / float(second.scale) ** 2
    common = second.common(second.total)
    np.testing.assert_allclose(common, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sum(first.leaves), first.total, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite_stays_visible(bad):
    grads = tree(2)
    grads["b"] = grads["b"].at[1, 2].set(bad)
    (found,) = group_gramians([jax.tree.leaves(grads)])
    assert np.isfinite(found.total[0, 0])
    assert not np.isfinite(found.total[1, 1])
    assert not np.isfinite(mmp.gramian(grads)[1, 1])


def test_no_groups():
    assert group_gramians([]) == []


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_combine(num, dtype):
    leaf = tree(num, dtype=dtype)["a"]
    weights = jnp.arange(1.0, num + 1)
    out = combine(weights, leaf)
    expected = np.tensordot(np.asarray(weights), np.asarray(leaf, np.float64), 1)
    assert out.dtype == dtype
    tolerance = 2 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.asarray(out, np.float64), expected, rtol=tolerance, atol=4 * tolerance
    )


def test_under_vmap_and_jit():
    many = jax.tree.map(lambda *x: jnp.stack(x), *(tree(2, seed=s) for s in range(4)))
    found = jax.jit(jax.vmap(mmp.gramian))(many)
    expected = jnp.stack([mmp.gramian(tree(2, seed=s)) for s in range(4)])
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("grads", "error", "match"),
    [
        ({}, ValueError, "gramian: the tree has no leaves"),
        ({"a": None}, ValueError, "gramian: the tree has no leaves"),
        ({"a": jnp.ones(())}, ValueError, "leaf 'a' is a scalar"),
        (
            {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 3))},
            ValueError,
            r"leaf 'b' must have a leading axis of 2.*got shape \(3, 3\)",
        ),
        ({"a": jnp.ones((2, 3), int)}, TypeError, "leaf 'a' must be real and floating"),
        ({"a": jnp.ones((2, 3), complex)}, TypeError, "leaf 'a' must be real and"),
    ],
)
def test_errors(grads, error, match):
    with pytest.raises(error, match=match):
        mmp.gramian(grads)
