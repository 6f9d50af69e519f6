"""One process of several: ``python several_processes.py PORT NUMBER ID OUT``.

Trains a few data-parallel steps on the global batch, twice: as a global program, and
inside ``shard_map`` with rows that are scattered. Process 0 writes the parameters.
"""

import sys

import jax
import numpy as np

PORT, NUMBER, ID, OUT = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 4 // int(NUMBER))
if int(NUMBER) > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{PORT}", int(NUMBER), int(ID))

import functools  # noqa: E402

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax import lax  # noqa: E402
from jax.sharding import NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import mmpareto_jax as mmp  # noqa: E402

STEPS, BATCH = 5, 8
rng = np.random.default_rng(0)
PARAMS = {
    "trunk": np.float32(rng.normal(size=(6, 4))),
    "heads": {k: np.float32(rng.normal(size=4)) for k in "ab"},
}
BATCHES = np.float32(rng.normal(size=(STEPS, BATCH, 6)))


def losses_fn(params, x):
    features = jnp.tanh(x @ params["trunk"])
    heads = params["heads"]
    return {
        k: jnp.mean((features @ heads[k] - s) ** 2) for k, s in (("a", 1), ("b", -1))
    }


assert jax.device_count() == 4
mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
groups = mmp.objective_groups(losses_fn, PARAMS, BATCHES[0])


def whole(params, x):
    """A step on the global batch: what is sent is XLA's affair."""
    tx = mmp.mmpareto(groups)
    _, rows = mmp.value_and_objective_grads(losses_fn, groups)(params, x)
    return tx.update(rows, tx.init(params))[0]


def scattered(params, x):
    """Each device has its shard of every row, and of the combination."""
    tx = mmp.mmpareto(groups, axis_name="data")

    def local(params, x):
        params = lax.pcast(params, "data", to="varying")
        _, rows = mmp.value_and_objective_grads(losses_fn, groups)(params, x)
        shards = jax.tree.map(
            lambda g: (
                lax.psum_scatter(
                    g.reshape(len(g), -1), "data", scatter_dimension=1, tiled=True
                )
                / 4
            ),
            rows,
        )
        return tx.update(shards, tx.init(jax.tree.map(lambda g: g[0], shards)))[0]

    mapped = jax.shard_map(
        local, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
    )
    flat = mapped(params, x)
    return jax.tree.map(lambda u, p: u.reshape(p.shape), flat, params)


def train(direction):
    def spread(x, spec):
        where = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(x.shape, where, lambda index: x[index])

    @functools.partial(jax.jit, out_shardings=NamedSharding(mesh, P()))
    def step(params, x):
        return optax.apply_updates(
            params, jax.tree.map(lambda u: -0.3 * u, direction(params, x))
        )

    params = jax.tree.map(lambda x: spread(x, P()), PARAMS)
    for x in BATCHES:
        params = step(params, spread(x, P("data")))
    return [np.asarray(x.addressable_data(0)) for x in jax.tree.leaves(params)]


found = [*train(whole), *train(scattered)]
if ID == "0":
    np.savez(OUT, *found)
