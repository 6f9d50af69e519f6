"""Meshes: wherever parameters and batches live, the numbers are the same."""

import functools
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp

AXES = {
    "auto": (AxisType.Auto, AxisType.Auto),
    "explicit": (AxisType.Explicit, AxisType.Explicit),
    "mixed": (AxisType.Explicit, AxisType.Auto),
    "mixed_other": (AxisType.Auto, AxisType.Explicit),
}
REPLICATED = {"kernel": P(), "bias": P(), "scalar": P()}
SHARDED = {"kernel": P("data", "model"), "bias": P("model"), "scalar": P()}
ONE_AXIS = {"kernel": P(None, "model"), "bias": P("data"), "scalar": P()}
LAYOUTS = {"replicated": REPLICATED, "sharded": SHARDED, "one_axis": ONE_AXIS}


def mesh_of(kind):
    return jax.make_mesh((4, 2), ("data", "model"), AXES[kind])


def stacked(num, scale=1.0):
    rng = np.random.default_rng(0)
    shapes = {"kernel": (8, 4), "bias": (4,), "scalar": ()}
    return {
        k: jnp.asarray(scale * rng.normal(size=(num, *s)), jnp.float32)
        for k, s in shapes.items()
    }


def place(tree, mesh, layout, lead=()):
    return {
        k: jax.device_put(x, NamedSharding(mesh, P(*lead, *layout[k])))
        for k, x in tree.items()
    }


def single_device(tx, grads):
    params = jax.tree.map(lambda x: x[0], grads)
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    return updates, mmp.diagnostics(state)


CASES = [
    *(("explicit", layout, 2, "paper", 1.0) for layout in LAYOUTS),
    *((kind, "sharded", 2, "paper", 1.0) for kind in AXES if kind != "explicit"),
    ("explicit", "sharded", 2, "official", 1.0),
    ("auto", "sharded", 3, "paper", 1.0),
    ("explicit", "sharded", 3, "paper", 1.0),
    ("explicit", "sharded", 2, "paper", 1e-25),  # takes the rescaling branch
]


@pytest.mark.parametrize(("kind", "layout", "num", "variant", "scale"), CASES)
def test_update_under_jit(kind, layout, num, variant, scale):
    tx = mmp.mmpareto(num, variant=variant)
    grads = stacked(num, scale)
    expected, found = single_device(tx, grads)
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        placed = place(grads, mesh, LAYOUTS[layout], (None,))
        params = place({k: x[0] for k, x in grads.items()}, mesh, LAYOUTS[layout])
        updates, state = jax.jit(tx.update)(placed, tx.init(params), params)
    for path, x in updates.items():
        np.testing.assert_allclose(x, expected[path], rtol=1e-4, atol=1e-5 * scale)
    for name, value in mmp.diagnostics(state)["all"].items():
        # The gap is a difference of rounding errors: it has no digits to compare.
        atol = 1e-6 if name == "gap" else 1e-30
        np.testing.assert_allclose(value, found["all"][name], 1e-4, atol)
    if kind == "explicit":
        kernel = params["kernel"]
        assert updates["kernel"].sharding.is_equivalent_to(kernel.sharding, 2)


@pytest.mark.parametrize(
    ("kind", "set_mesh"), [("explicit", True), ("explicit", False)]
)
def test_eager_update(kind, set_mesh):
    tx = mmp.mmpareto(2)
    grads = stacked(2)
    expected, _ = single_device(tx, grads)
    mesh = mesh_of(kind)
    placed = place(grads, mesh, SHARDED, (None,))
    params = place({k: x[0] for k, x in grads.items()}, mesh, SHARDED)
    if set_mesh:
        with jax.set_mesh(mesh):
            updates, _ = tx.update(placed, tx.init(params), params)
    else:
        updates, _ = tx.update(placed, tx.init(params), params)
    chex.assert_trees_all_close(updates, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_steps_in_a_scan(kind):
    """The state keeps its type under a mesh: it can be carried."""
    tx = optax.chain(mmp.mmpareto(2), optax.sgd(0.1, momentum=0.9))
    grads = stacked(2)
    mesh = mesh_of(kind)

    def train(grads, params, state):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return lax.scan(step, (params, state), None, length=2)[0]

    params = {k: x[0] for k, x in grads.items()}
    expected, _ = jax.jit(train)(grads, params, tx.init(params))
    with jax.set_mesh(mesh):
        placed = place(grads, mesh, SHARDED, (None,))
        params = place(params, mesh, SHARDED)
        found, _ = jax.jit(train)(placed, params, jax.jit(tx.init)(params))
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "check_vma", "num"),
    [
        (AxisType.Auto, True, 2),
        (AxisType.Auto, False, 2),
        (AxisType.Explicit, True, 3),
    ],
)
def test_data_parallel_inside_shard_map(kind, num, check_vma):
    """Gradients are averaged first, then combined, alike on every device."""
    mesh = jax.make_mesh((8,), ("data",), (kind,))
    tx = mmp.mmpareto(num)
    rng = np.random.default_rng(0)
    shards = jnp.asarray(rng.normal(size=(8, num, 5)), jnp.float32)

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P("data"),),
        out_specs=P(),
        check_vma=check_vma,
    )
    def update(shard):
        grads = lax.pmean(shard[0], "data")
        return tx.update(grads, tx.init(jnp.zeros(5)))[0]

    expected, _ = tx.update(shards.mean(0), tx.init(jnp.zeros(5)))
    shards = jax.device_put(shards, NamedSharding(mesh, P("data")))
    np.testing.assert_allclose(update(shards), expected, rtol=1e-4, atol=1e-5)


def audio_visual(params, inputs):
    a = jnp.tanh(inputs[0] @ params["audio"])
    v = jnp.tanh(inputs[1] @ params["visual"])
    return {
        "joint": jnp.mean((a @ params["head"] + v @ params["head"]) ** 2),
        "audio": jnp.mean((a @ params["head_audio"]) ** 2),
    }


def dense_problem():
    rng = np.random.default_rng(0)
    shapes = {"audio": (4, 6), "visual": (4, 6), "head": (6, 2), "head_audio": (6, 2)}
    params = {
        k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()
    }
    return audio_visual, params, jnp.asarray(rng.normal(size=(2, 8, 4)), jnp.float32)


class Small(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.other = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        features = nnx.relu(self.norm(self.conv(x))).mean(axis=(1, 2))
        head, other = self.head(features), self.other(features)
        return {"joint": jnp.mean(head**2), "audio": jnp.mean((other - 1) ** 2)}


def conv_problem():
    graphdef, params, rest = nnx.split(Small(nnx.Rngs(0)), nnx.Param, ...)

    def losses_fn(params, inputs):
        return nnx.merge(graphdef, params, rest, copy=True)(inputs[0])

    inputs = np.random.default_rng(0).normal(size=(1, 8, 5, 5, 2))
    return losses_fn, nnx.as_pure(params), jnp.asarray(inputs, jnp.float32)


@pytest.mark.parametrize(
    ("problem", "pullback"),
    # JAX itself does not batch a convolution of a sharded batch.
    [(dense_problem, "unroll"), (dense_problem, "vmap"), (conv_problem, "unroll")],
)
@pytest.mark.parametrize("kind", ["auto", "explicit", "mixed"])
def test_objective_grads_of_a_sharded_batch(kind, problem, pullback):
    losses_fn, params, inputs = problem()
    step = jax.jit(mmp.value_and_objective_grads(losses_fn, pullback=pullback))
    losses, grads = step(params, inputs)
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        params = jax.device_put(params, NamedSharding(mesh, P()))
        inputs = jax.device_put(inputs, NamedSharding(mesh, P(None, "data")))
        groups = mmp.objective_groups(losses_fn, params, inputs)
        sharded = jax.jit(
            mmp.value_and_objective_grads(losses_fn, groups, pullback=pullback)
        )
        found, sharded_grads = sharded(params, inputs)
        tx = mmp.mmpareto(groups)
        updates, _ = jax.jit(tx.update)(sharded_grads, tx.init(params), params)
    chex.assert_trees_all_close(found, losses, rtol=1e-5)
    chex.assert_trees_all_close(sharded_grads, grads, rtol=1e-3, atol=1e-5)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
def test_objective_grads_of_sharded_parameters(pullback):
    """Tensor parallel under an Explicit mesh: gradients lie where parameters lie."""
    losses_fn, params, inputs = dense_problem()
    _, expected = mmp.value_and_objective_grads(losses_fn)(params, inputs)
    mesh = mesh_of("explicit")

    def sharded_losses(params, inputs):
        a = jnp.tanh(
            jnp.matmul(inputs[0], params["audio"], out_sharding=P("data", "model"))
        )
        v = jnp.tanh(
            jnp.matmul(inputs[1], params["visual"], out_sharding=P("data", "model"))
        )
        out = functools.partial(jnp.matmul, out_sharding=P("data"))
        return {
            "joint": jnp.mean((out(a, params["head"]) + out(v, params["head"])) ** 2),
            "audio": jnp.mean(out(a, params["head_audio"]) ** 2),
        }

    with jax.set_mesh(mesh):
        specs = {"audio": P(None, "model"), "visual": P(None, "model")}
        specs |= {"head": P("model"), "head_audio": P("model")}
        placed = {
            k: jax.device_put(x, NamedSharding(mesh, specs[k]))
            for k, x in params.items()
        }
        inputs = jax.device_put(inputs, NamedSharding(mesh, P(None, "data")))
        step = mmp.value_and_objective_grads(sharded_losses, pullback=pullback)
        _, grads = jax.jit(step)(placed, inputs)
    chex.assert_trees_all_close(grads, expected, rtol=1e-4, atol=1e-6)
    assert grads["audio"].sharding.spec == P(None, None, "model")


# --- The data-parallel step: jax.checkpoint with replicated parameters


def layer(w, x):
    return jnp.tanh(x @ w)


def in_layers(wrap):
    def encode(weights, x):
        for w in weights:
            x = wrap(layer)(w, x)
        return x

    return encode


def in_a_scan(wrap):
    def encode(weights, x):
        return lax.scan(wrap(lambda x, w: (layer(w, x), None)), x, weights)[0]

    return encode


dots = jax.checkpoint_policies.dots_saveable
RECOMPUTED = {
    "checkpoint": in_layers(jax.checkpoint),
    "policy": in_layers(functools.partial(jax.checkpoint, policy=dots)),
    "may_merge": in_layers(functools.partial(jax.checkpoint, prevent_cse=False)),
    "per_argument": in_layers(
        functools.partial(jax.checkpoint, prevent_cse=(True, False))
    ),
    "nnx": in_layers(nnx.remat),
    "scan": in_a_scan(jax.checkpoint),
    "whole_scan": jax.checkpoint(in_a_scan(lambda f: f)),
}


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
@pytest.mark.parametrize("name", RECOMPUTED)
def test_checkpoint_of_replicated_parameters(name, pullback, x64):
    """Their gradients are summed over the devices by jax itself."""
    encode = RECOMPUTED[name]
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    rng = np.random.default_rng(0)
    shapes = {"audio": (2, 3, 3), "visual": (2, 3, 3), "head": (3, 2), "own": (3, 2)}
    params = {k: jnp.asarray(rng.normal(size=s)) for k, s in shapes.items()}
    inputs = jnp.asarray(rng.normal(size=(2, 8, 3)))

    def losses_fn(params, inputs):
        a, v = encode(params["audio"], inputs[0]), encode(params["visual"], inputs[1])
        local = jnp.mean((a @ params["head"] + v @ params["head"]) ** 2)
        return {
            "joint": lax.pmean(local, "data"),
            "audio": lax.psum(jnp.sum(a @ params["own"]), "data"),
        }

    def sharded(fun):
        specs = {"mesh": mesh, "in_specs": (P(), P(None, "data")), "out_specs": P()}
        return jax.jit(jax.shard_map(fun, **specs))(params, inputs)

    step = mmp.value_and_objective_grads(losses_fn, pullback=pullback)
    losses, grads = sharded(step)
    truth = {
        name: sharded(jax.value_and_grad(lambda p, x, name=name: losses_fn(p, x)[name]))
        for name in ("joint", "audio")
    }
    expected = {
        "audio": jnp.stack([truth["joint"][1]["audio"], truth["audio"][1]["audio"]]),
        "visual": truth["joint"][1]["visual"][None],
        "head": truth["joint"][1]["head"][None],
        "own": truth["audio"][1]["own"][None],
    }
    chex.assert_trees_all_close(losses, {k: x[0] for k, x in truth.items()}, rtol=1e-12)
    chex.assert_trees_all_close(grads, expected, rtol=1e-12)


@pytest.mark.parametrize("form", ["stack", "set"])
def test_losses_in_an_array_inside_shard_map(form):
    """They come apart there too: each parameter has the row of its own loss."""
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))

    def losses_fn(params, x):
        losses = [lax.pmean(jnp.mean((x * w) ** 2), "data") for w in params]
        if form == "stack":
            return jnp.stack(losses)
        return jnp.zeros(2).at[0].set(losses[0]).at[1].set(losses[1])

    params = [jnp.array(2.0), jnp.array(3.0)]
    x = jnp.arange(8.0)
    step = jax.shard_map(
        mmp.value_and_objective_grads(losses_fn),
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
    )
    _, grads = jax.jit(step)(params, x)
    square = np.mean(np.arange(8.0) ** 2)
    np.testing.assert_allclose(grads[0], [4 * square], rtol=1e-6)
    np.testing.assert_allclose(grads[1], [6 * square], rtol=1e-6)


# --- What is sent between devices


def sent(compiled):
    """Kind of collective -> the number of operations, the numbers that they carry."""
    found = {}
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    for line in compiled.as_text().splitlines():
        match = re.search(rf"= (.*?) ({kinds})(?:-start)?\(", line)
        if match:
            shapes = re.findall(r"f32\[([\d,]*)\]", match[1])
            size = sum(math.prod(map(int, filter(None, x.split(",")))) for x in shapes)
            number, numbers = found.get(match[2], (0, 0))
            found[match[2]] = number + 1, numbers + size
    return found


PLACES = {
    "replicated": (P(), P()),
    "first": (P("data"), P("data")),
    "last": (P(None, "data"), P("data")),
    "both": (P("data", "model"), P("model")),
    "together": (P(None, ("data", "model")), P(("data", "model"))),
}


@pytest.mark.parametrize(
    ("kind", "place", "num"),
    [
        *(("auto", place, 2) for place in PLACES),
        ("auto", "last", 3),
        ("auto", "both", 9),
        ("explicit", "last", 3),
        ("explicit", "both", 8),
        ("explicit", "first", 9),
    ],
)
def test_only_inner_products_are_sent(kind, place, num):
    """No gradient is gathered, whichever axis it is sharded on; nor any part of one."""
    mesh = mesh_of(kind)
    tx = mmp.mmpareto(num)
    shapes = {"kernel": (64, 32), "bias": (32,)}

    def struct(shape, spec, lead=()):
        where = NamedSharding(mesh, P(*[None] * len(lead), *spec))
        return jax.ShapeDtypeStruct((*lead, *shape), jnp.float32, sharding=where)

    specs = dict(zip(shapes, PLACES[place], strict=True))
    params = {k: struct(s, specs[k]) for k, s in shapes.items()}
    grads = {k: struct(s, specs[k], (num,)) for k, s in shapes.items()}
    state = jax.eval_shape(tx.init, params)
    found = sent(jax.jit(tx.update).lower(grads, state).compile())
    if place == "replicated":
        assert not found
        return
    assert set(found) == {"all-reduce"}
    number, numbers = found["all-reduce"]
    # A Gramian and, in the other branch, peaks and a Gramian; each once for all leaves
    # that are sharded over the same axes, and once for each of two axes.
    axes = 2 if place == "both" else 1
    assert number <= 3 * axes
    assert numbers <= axes * len(shapes) * (2 * num**2 + num)


@pytest.mark.parametrize("num", [2, 3, 8])
def test_a_data_parallel_step_that_scatters_its_rows(num):
    """Rows are reduced to shards, their Gramians summed, one combination gathered."""
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    x = jax.random.normal(jax.random.key(0), (32, 64))
    params = {
        "trunk": jax.random.normal(jax.random.key(1), (64, 16)) / 8,
        "heads": jax.random.normal(jax.random.key(2), (num, 16)),
    }

    def local(params, x):  # a mean of these over devices is the loss of the batch
        return jnp.mean((jnp.tanh(x @ params["trunk"]) @ params["heads"].T) ** 2, 0)

    groups = mmp.objective_groups(local, params, x)
    tx = mmp.mmpareto(groups, axis_name="data", diagnostics=False)

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P(), P("data")),
        out_specs=P(),
        check_vma=False,
    )
    def step(params, x):
        _, rows = mmp.value_and_objective_grads(local, groups)(params, x)

        def scatter(g):
            flat = g.reshape(g.shape[0], -1)
            return lax.psum_scatter(flat, "data", scatter_dimension=1, tiled=True) / 8

        shards = jax.tree.map(scatter, rows)
        like = jax.tree.map(lambda g: g[0], shards)
        updates, _ = tx.update(shards, tx.init(like))
        return jax.tree.map(
            lambda u, p: lax.all_gather(u, "data", tiled=True).reshape(p.shape),
            updates,
            params,
        )

    _, rows = mmp.value_and_objective_grads(local, groups)(params, x)
    own = mmp.mmpareto(groups)
    expected, _ = own.update(rows, own.init(params))
    chex.assert_trees_all_close(step(params, x), expected, rtol=1e-4, atol=5e-7 * num)
    found = sent(step.lower(params, x).compile())
    shared, alone = params["trunk"].size, params["heads"].size
    assert found["reduce-scatter"][1] * 8 <= num * (shared + alone)
    assert found["all-gather"][1] == shared + alone
    # The Gramian of all leaves; in the other branch their peaks, and it again.
    assert found["all-reduce"] == (3, 2 * num**2 + num)


@pytest.mark.parametrize("num", [2, 3, 8])
@pytest.mark.parametrize("keep", ["rows", "gramian"])
def test_a_group_sends_one_gramian(keep, num):
    """Of leaves that are sharded, over one axis or two, or whole: not one of each."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), (AxisType.Auto,) * 2)
    places = ["data", "data", "model", None]
    specs = [P(axis) for axis in places]
    params = [jax.ShapeDtypeStruct((16,), jnp.float32)] * len(places)

    def losses_fn(params):
        parts = [jnp.sum(jnp.sin(x)) for x in params]
        parts = [
            x if axis is None else lax.psum(x, axis)
            for x, axis in zip(parts, places, strict=True)
        ]
        return jnp.stack([(i + jnp.arange(num)) * x for i, x in enumerate(parts)]).sum(
            0
        )

    step = mmp.combined_grads(
        losses_fn,
        functools.partial(mmp.mmpareto, axis_name=("data", "model")),
        keep=keep,
    )

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(specs,), out_specs=specs)
    def gradients(params):
        return step.value_and_grads(step.init(params), params)[0][1]

    # The leaves over "data" together, that over "model", the whole one not at all: a
    # Gramian, and in the other branch peaks and a Gramian; or scales and a Gramian.
    times = 2 if keep == "rows" else 1
    numbers = 2 * (times * num**2 + num)
    found = sent(gradients.lower(params).compile())
    assert found == {"all-reduce": (2 * (times + 1), numbers)}
