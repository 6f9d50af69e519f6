"""Convolutions whose axes are in any order, in the engine and in its branches."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

CANONICAL = "b01f_01io->b01f"
ORDERS = [
    ("NHWC", "HWIO", "NHWC"),
    ("NCHW", "OIHW", "NCHW"),
    ("NHWC", "OIHW", "NCHW"),
    ("CHWN", "IHWO", "NHCW"),
]


def problem(order, stride=1, groups=1):
    def array(seed, names, **sizes):
        shape = [sizes[name] for name in names]
        return np.float32(np.random.default_rng(seed).normal(size=shape))

    x = array(0, order[0], N=3, H=8, W=7, C=4)
    w = array(1, order[1], H=3, W=2, I=4 // groups, O=6)

    def losses_fn(w, x):
        y = jax.lax.conv_general_dilated(
            x,
            w,
            (stride, 1),
            "SAME",
            dimension_numbers=order,
            feature_group_count=groups,
        )
        return {"a": jnp.sum(jnp.tanh(y)), "b": jnp.sum(y**2)}

    return losses_fn, w, x


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_every_order_of_axes(order, stride, groups, pullback):
    losses_fn, w, x = problem(order, stride, groups)
    rows = mmp.value_and_objective_grads(losses_fn, pullback=pullback)
    _, found = jax.jit(rows)(w, x)
    for k, name in enumerate("ab"):
        expected = jax.grad(lambda w, name=name: losses_fn(w, x)[name])(w)
        largest = np.max(np.abs(expected))
        np.testing.assert_allclose(found[k], expected, atol=1e-5 * largest)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_branches_have_the_fast_kernel(order):
    """On a CPU it is there for one order of the axes, and XLA finds that by itself only
    outside of conditionals: 40 times as fast, for the gradient of a weight.
    """
    losses_fn, w, x = problem(order)
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, every=10)
    run = jax.jit(step.value_and_grads).lower(step.init(w, x), w, x).compile()
    labels = re.findall(r"dim_labels=(\S+?)[,\s]", run.as_text())
    assert len(labels) >= 4
    assert set(labels) == {CANONICAL}


def test_over_a_mesh_of_explicit_axes():
    """JAX has no batched rule for it; row by row it works."""
    losses_fn, w, _ = problem(ORDERS[0])
    x = np.float32(np.random.default_rng(2).normal(size=(8, 8, 7, 4)))
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Explicit,))
    expected = mmp.value_and_objective_grads(losses_fn)(w, x)[1]
    with jax.set_mesh(mesh):
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        rows = mmp.value_and_objective_grads(losses_fn, pullback="vmap")
        _, found = jax.jit(rows)(jax.device_put(w, whole), jax.device_put(x, place))
    largest = np.max(np.abs(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5 * largest)
