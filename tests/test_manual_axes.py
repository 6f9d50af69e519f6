"""Inside shard_map: gradients that are whole, sharded, or each device's own."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp

pytestmark = pytest.mark.slow

RULES = {
    "mmpareto": mmp.mmpareto,
    "official": functools.partial(mmp.mmpareto, variant="official"),
    **{
        name: functools.partial(mmp.aggregate, getattr(mmp.weightings, name)())
        for name in ("nash_mtl", "imtl_g", "upgrad")
    },
}
CASES = [
    *((rule, 3, 1.0) for rule in RULES),
    *(("mmpareto", 2, scale) for scale in (1.0, 1e-25)),
    ("official", 2, 1e-25),
]
LOOPS = ("aligned_mtl", "cagrad", "gradvac", "mmpareto", "nash_mtl", "sdmgrad")


def mesh_of(*shape):
    names = ("data", "model")[: len(shape)]
    return jax.make_mesh(shape, names, (AxisType.Auto,) * len(shape))


def gradients(num, scale=1.0):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (16, 3), "bias": (5,)}
    return {
        k: jnp.asarray(scale * rng.normal(size=(num, *s)), jnp.float32)
        for k, s in shapes.items()
    }


def zeros(grads):
    return jax.tree.map(lambda x: jnp.zeros(x.shape[1:]), grads)


def on_one_device(tx, grads):
    return jax.jit(tx.update)(grads, tx.init(zeros(grads)))


@pytest.mark.parametrize(("rule", "num", "scale"), CASES)
def test_sharded_gradients_are_combined_as_whole_ones(rule, num, scale):
    """The kernel in eight parts, the bias on every device: it is counted once."""
    grads = gradients(num, scale)
    tx = RULES[rule](num, axis_name="data")
    sharded = {"kernel": P(None, "data"), "bias": P()}

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh_of(8),
        in_specs=(sharded,),
        out_specs=({"kernel": P("data"), "bias": P()}, P()),
    )
    def update(grads):
        updates, state = tx.update(grads, tx.init(zeros(grads)))
        return updates, mmp.diagnostics(state)["all"]

    expected, state = on_one_device(RULES[rule](num), grads)
    updates, found = update(grads)
    if rule == "official":
        # Its tensors are rescaled by themselves: by all of their parts.
        chex.assert_trees_all_close(updates, expected, rtol=1e-4, atol=1e-4 * scale)
    chex.assert_trees_all_close(updates, expected, rtol=1e-4, atol=1e-5 * scale)
    known = mmp.diagnostics(state)["all"]
    np.testing.assert_allclose(found["cosine"], known["cosine"], rtol=1e-4)
    np.testing.assert_allclose(found["norms"], known["norms"], rtol=1e-5)


def test_psum_scattered_gradients():
    """Reduce-scatter, combine, gather: what one device computes of the mean."""
    rng = np.random.default_rng(0)
    shards = jnp.asarray(rng.normal(size=(8, 2, 16)), jnp.float32)
    tx = mmp.mmpareto(2, axis_name="data")

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh_of(8), in_specs=P("data"), out_specs=P("data")
    )
    def update(shard):
        part = lax.psum_scatter(shard[0], "data", scatter_dimension=1, tiled=True)
        return tx.update(part / 8, tx.init(jnp.zeros(2)))[0]

    expected, _ = on_one_device(mmp.mmpareto(2), shards.mean(0))
    np.testing.assert_allclose(update(shards), expected, rtol=1e-4, atol=1e-6)


def test_two_axes_and_untracked_types():
    grads = gradients(2)["kernel"]
    expected, _ = on_one_device(mmp.mmpareto(2), grads)
    for check_vma in (True, False):
        tx = mmp.mmpareto(2, axis_name=("data", "model"))

        @jax.jit
        @functools.partial(
            jax.shard_map,
            mesh=mesh_of(4, 2),
            in_specs=P(None, ("data", "model")),
            out_specs=P(("data", "model")),
            check_vma=check_vma,
        )
        def update(grads, tx=tx):
            return tx.update(grads, tx.init(jnp.zeros(grads.shape[1:])))[0]

        np.testing.assert_allclose(update(grads), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_gradients_that_vary_are_refused(rule):
    """A silent answer would be that of the local shard: 9 % off in one case."""
    tx = RULES[rule](2)

    def update(part):
        return tx.update({"w": part}, tx.init({"w": jnp.zeros(part.shape[1:])}))[0]

    step = jax.shard_map(
        update, mesh=mesh_of(8), in_specs=P(None, "data"), out_specs=P("data")
    )
    with pytest.raises(ValueError, match="leaf 'w' varies over the mesh axis 'data'"):
        jax.eval_shape(step, jnp.ones((2, 8)))


@pytest.mark.parametrize(("rule", "num", "scale"), CASES)
def test_a_model_on_every_device(rule, num, scale):
    """``axis_name=()``: what each device would compute alone."""
    rng = np.random.default_rng(1)
    many = jnp.asarray(scale * rng.normal(size=(8, num, 5)), jnp.float32)
    many = many.at[3].multiply(1e-3)  # another branch than its neighbours' at times
    tx = RULES[rule](num, axis_name=())

    @jax.jit
    def one(grads):
        return tx.update(grads, tx.init(jnp.zeros(5)))[0]

    step = jax.shard_map(
        lambda grads: one(grads[0])[None],
        mesh=mesh_of(8),
        in_specs=P("data"),
        out_specs=P("data"),
    )
    expected = jnp.stack([one(grads) for grads in many])
    size = jnp.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(
        jax.jit(step)(many) / size, expected / size, rtol=1e-3, atol=1e-5
    )


def test_a_model_on_every_device_whose_bias_is_shared():
    """Leaves that vary and leaves that do not, in one group."""
    grads = gradients(2)
    tx = mmp.mmpareto(2, axis_name=())

    @jax.jit
    def one(grads):
        return tx.update(grads, tx.init(zeros(grads)))[0]

    step = jax.shard_map(
        one,
        mesh=mesh_of(8),
        in_specs=({"kernel": P(None, "data"), "bias": P()},),
        out_specs={"kernel": P("data"), "bias": P("data")},
    )
    found = jax.jit(step)(grads)
    parts = jnp.split(grads["kernel"], 8, axis=1)
    expected = [one({"kernel": x, "bias": grads["bias"]}) for x in parts]
    kernel = jnp.concatenate([x["kernel"] for x in expected])
    bias = jnp.concatenate([x["bias"] for x in expected])
    np.testing.assert_allclose(found["kernel"], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["bias"], bias, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOOPS)
def test_steps_in_a_scan_on_every_device(name):
    """What a loop carries keeps its type: in the rules' solvers, and the state."""
    rng = np.random.default_rng(1)
    many = jnp.asarray(rng.normal(size=(8, 3, 5)), jnp.float32)
    tx = mmp.aggregate(getattr(mmp.weightings, name)(), 3, axis_name=())

    def one(grads):
        params = grads[0]

        def step(carry, _):
            params, state = carry
            updates, state = tx.update(grads, state, params)
            return (params - updates, state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=2)[0][0]

    step = jax.shard_map(
        lambda grads: one(grads[0])[None],
        mesh=mesh_of(8),
        in_specs=P("data"),
        out_specs=P("data"),
    )
    expected = jax.jit(one)(many[2])
    np.testing.assert_allclose(jax.jit(step)(many)[2], expected, rtol=1e-4, atol=1e-5)
