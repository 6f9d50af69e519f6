"""One gradient of several losses: the chain's, in less memory or less time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp

KEEP = ["rows", "gramian"]


def normal(seed, *shape, scale=1.0):
    return np.float32(scale * np.random.default_rng(seed).normal(size=shape))


def audio_visual(width=6, batch=7):
    """Two encoders, three losses, a part of the parameters that none reaches."""
    params = {
        "audio": [normal(0, 5, width), normal(1, width, width)],
        "visual": normal(2, 4, width),
        "heads": {
            "joint": normal(3, 2 * width),
            "audio": normal(4, width),
            "visual": normal(5, width),
        },
        "unused": np.ones(2, np.float32),
    }

    def losses_fn(params, audio, visual):
        a = jnp.tanh(jnp.tanh(audio @ params["audio"][0]) @ params["audio"][1])
        v = jnp.tanh(visual @ params["visual"])
        heads = params["heads"]
        return {
            "joint": jnp.mean((jnp.concatenate([a, v], -1) @ heads["joint"] - 1) ** 2),
            "audio": jnp.mean((a @ heads["audio"] + 1) ** 2),
            "visual": jnp.mean((v @ heads["visual"]) ** 2),
        }

    return losses_fn, params, (normal(6, batch, 5), normal(7, batch, 4))


def heads(num, depth=3, width=8, batch=6):
    """A trunk of all objectives and a head of each."""
    params = {
        "trunk": [normal(k, width, width, scale=width**-0.5) for k in range(depth)],
        "heads": [normal(10 + k, width) for k in range(num)],
    }

    def losses_fn(params, x):
        for w in params["trunk"]:
            x = jnp.tanh(x @ w)
        return {
            str(k): jnp.mean((x @ w - (-1) ** k) ** 2)
            for k, w in enumerate(params["heads"])
        }

    return losses_fn, params, (normal(9, batch, width),)


def chain(losses_fn, combination, params, args, state=None):
    """What is to be reproduced."""
    groups = mmp.objective_groups(losses_fn, params, *args)
    tx = combination(groups)
    losses, stacked = mmp.value_and_objective_grads(losses_fn, groups)(params, *args)
    state = tx.init(params) if state is None else state
    return losses, *tx.update(stacked, state, params, losses=losses)


def close(found, expected, digits):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        truth = np.asarray(b, np.float64)
        largest = np.max(np.abs(truth), initial=0, where=np.isfinite(truth))
        np.testing.assert_allclose(
            np.asarray(a, np.float64), truth, rtol=digits, atol=digits * largest
        )


def rule(name, **kwargs):
    return functools.partial(mmp.aggregate, getattr(mmp.weightings, name)(), **kwargs)


COMBINATIONS = {
    "mmpareto": mmp.mmpareto,
    "official": functools.partial(mmp.mmpareto, variant="official"),
    "schedule": functools.partial(mmp.mmpareto, gamma=optax.linear_schedule(1, 2, 2)),
    "mgda": rule("mgda"),
    "config": rule("config"),
    "upgrad": rule("upgrad"),
    "random": rule("random"),
    "gradvac": rule("gradvac"),
    "dwa": functools.partial(mmp.aggregate, mmp.weightings.dwa(steps_per_epoch=1)),
    "geometric_mean": rule("geometric_mean"),
    "silent mean": rule("mean", diagnostics=False),
    "silent losses": rule("stch", diagnostics=False),
}
PROBLEMS = {"audio_visual": audio_visual, "heads": functools.partial(heads, 3)}


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_it_is_the_chain(name, problem, keep, x64):
    """Gradients, losses, state and diagnostics; two steps."""
    losses_fn, params, args = PROBLEMS[problem]()
    params, args = jax.tree.map(jnp.float64, (params, args))
    step = mmp.combined_grads(losses_fn, COMBINATIONS[name], keep=keep)
    state = step.init(params, *args)
    expected = None
    for _ in range(2):
        (losses, grads), state = step.value_and_grads(state, params, *args)
        given = chain(losses_fn, COMBINATIONS[name], params, args, expected)
        _, _, expected = given
        close((losses, grads, state), given, 1e-9)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert step.groups(params, *args) == mmp.objective_groups(losses_fn, params, *args)


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
@pytest.mark.parametrize("num", [2, 8, 40])
def test_many_objectives(num, pullback):
    losses_fn, params, args = heads(num)
    params, args = jax.tree.map(jnp.float32, (params, args))
    step = mmp.combined_grads(
        losses_fn, rule("mgda"), keep="gramian", pullback=pullback
    )
    run = jax.jit(step.value_and_grads)
    (losses, grads), state = run(step.init(params, *args), params, *args)
    close((losses, grads), chain(losses_fn, rule("mgda"), params, args)[:2], 1e-4)
    assert mmp.diagnostics(state)["+".join(map(str, range(num)))]["norms"].shape == (
        num,
    )


@pytest.mark.parametrize("exponents", [(30, -30), (-30, -30), (25, 25), (-33, 20)])
def test_losses_of_unlike_scales(exponents):
    """float32 against float64, whose squares are all in range."""
    losses_fn, params, args = heads(2)

    def scaled(params, x):
        losses = losses_fn(params, x)
        factors = [jnp.asarray(10.0**e, x.dtype) for e in exponents]
        return {k: f * y for f, (k, y) in zip(factors, losses.items(), strict=True)}

    def run(dtype):
        own, given = jax.tree.map(lambda x: jnp.asarray(x, dtype), (params, args))
        step = mmp.combined_grads(scaled, rule("mgda"), keep="gramian")
        grads = step.value_and_grads(step.init(own, *given), own, *given)[0][1]
        return [np.asarray(g, np.float64) for g in jax.tree.leaves(grads)]

    found = run(jnp.float32)
    with jax.enable_x64(True):
        expected = run(jnp.float64)
    for a, b in zip(found, expected, strict=True):
        largest = np.max(np.abs(b))
        assert largest > 0
        np.testing.assert_allclose(a / largest, b / largest, atol=1e-5)


@pytest.mark.parametrize("keep", KEEP)
def test_a_zero_and_a_nan_in_one_batch(keep):
    """The groups of a loss that is not finite show it, and the state keeps nothing."""
    losses_fn, params, (audio, visual) = audio_visual()

    def broken(params, audio, visual):
        losses = losses_fn(params, audio, visual)
        return losses | {
            "audio": jnp.nan * losses["audio"],
            "visual": 0.0 * losses["visual"],
        }

    params = jax.tree.map(jnp.float32, params)
    args = jnp.float32(audio), jnp.float32(visual)
    step = mmp.combined_grads(broken, mmp.mmpareto, keep=keep)
    (_, grads), _ = step.value_and_grads(step.init(params, *args), params, *args)
    _, expected, _ = chain(broken, mmp.mmpareto, params, args)
    close(grads, expected, 1e-5)
    assert np.isnan(grads["audio"][0]).all()
    assert np.isfinite(grads["visual"]).all()
    assert np.isfinite(grads["heads"]["joint"]).all()


def test_aux_and_keywords():
    losses_fn, params, args = heads(2)

    def with_aux(params, x, *, factor):
        return {k: factor * y for k, y in losses_fn(params, x).items()}, {"x": x}

    for keep in KEEP:
        step = mmp.combined_grads(with_aux, mmp.mmpareto, has_aux=True, keep=keep)
        state = step.init(params, *args, factor=2.0)
        ((losses, aux), grads), _ = step.value_and_grads(
            state, params, *args, factor=2.0
        )
        assert aux["x"] is args[0]
        assert list(losses) == ["0", "1"]
        close(
            grads["heads"][0],
            2 * jax.grad(lambda p: losses_fn(p, *args)["0"])(params)["heads"][0],
            1e-5,
        )


def test_shapes_are_enough_to_begin():
    losses_fn, params, args = heads(3)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), (params, args)
    )
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep="gramian")
    state = jax.eval_shape(step.init, shapes[0], *shapes[1])
    assert jax.tree.structure(state) == jax.tree.structure(step.init(params, *args))


def test_parameters_of_low_precision():
    losses_fn, params, args = heads(3)
    params, args = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (params, args))
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep="gramian")
    (_, grads), _ = step.value_and_grads(step.init(params, *args), params, *args)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
    wide = jax.tree.map(jnp.float32, (params, args))
    _, expected, _ = chain(losses_fn, mmp.mmpareto, *wide)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(jnp.float32(a), b, atol=0.05 * np.max(np.abs(b)))


def test_gradients_that_vary_over_a_mesh_are_refused():
    losses_fn, params, args = heads(2, batch=8)
    params, args = jax.tree.map(jnp.float32, (params, args))
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))
    groups = mmp.objective_groups(losses_fn, params, *args)

    def run(axis_name, params, x):
        step = mmp.combined_grads(
            losses_fn,
            functools.partial(mmp.mmpareto, axis_name=axis_name),
            keep="gramian",
        )
        params = jax.lax.pcast(params, "data", to="varying")
        (_, grads), _ = step.value_and_grads(step.init(params, x), params, x)
        return jax.tree.map(lambda g: g[None], grads)

    def mapped(axis_name):
        mapped = jax.shard_map(
            functools.partial(run, axis_name),
            mesh=mesh,
            in_specs=(P(), P("data")),
            out_specs=P("data"),
        )
        return jax.jit(mapped)

    with pytest.raises(ValueError, match="'trunk/0' varies over the mesh axis 'data'"):
        mapped(None)(params, *args)
    grads = mapped(())(params, *args)  # a model on each device
    own = chain(losses_fn, mmp.mmpareto, params, (args[0][2:3],))[1]
    close(jax.tree.map(lambda g: g[2], grads), own, 1e-4)
    assert groups.objectives == ("0", "1")


@pytest.mark.parametrize("keep", KEEP)
def test_groups_of_ones_own(keep):
    """A layer each; objectives in another order than that of the losses."""
    losses_fn, params, args = heads(2)

    def by_layer(groups):
        assert groups.objectives == ("0", "1")
        layers = {f"trunk/{i}": ("1", "0") for i in range(3)}
        own = mmp.ObjectiveGroups.from_prefixes(
            layers | {"heads/0": ("0",), "heads/1": ("1",)}, ("1", "0")
        )
        return mmp.mmpareto(own)

    step = mmp.combined_grads(losses_fn, by_layer, keep=keep)
    state = step.init(params, *args)
    (_, grads), state = step.value_and_grads(state, params, *args)
    assert set(mmp.diagnostics(state)) == {"trunk/0", "trunk/1", "trunk/2"}
    _, stacked = mmp.value_and_objective_grads(losses_fn)(params, *args)
    for i, rows in enumerate(stacked["trunk"]):
        tx = mmp.mmpareto(2)
        expected, _ = tx.update(rows, tx.init(rows[0]))
        close(grads["trunk"][i], expected, 1e-4)

    step = mmp.combined_grads(losses_fn, lambda _: mmp.mmpareto(2), keep=keep)
    with pytest.raises(ValueError, match="parameter 'heads/0' is in group 'all'"):
        step.value_and_grads(step.init(params, *args), params, *args)


def test_errors():
    losses_fn, params, args = heads(2)
    with pytest.raises(
        ValueError, match="`keep` must be 'rows' or 'gramian', got 'all'"
    ):
        mmp.combined_grads(losses_fn, mmp.mmpareto, keep="all")
    with pytest.raises(ValueError, match="combined_grads: `pullback` must be"):
        mmp.combined_grads(losses_fn, mmp.mmpareto, pullback="map")

    def chained(groups):
        return optax.chain(mmp.mmpareto(groups), optax.sgd(0.1))

    step = mmp.combined_grads(losses_fn, chained, keep="gramian")
    with pytest.raises(TypeError, match="an optimiser comes after combined_grads"):
        step.value_and_grads(step.init(params, *args), params, *args)
    step = mmp.combined_grads(losses_fn, rule("graddrop"), keep="gramian")
    with pytest.raises(ValueError, match="has no weights: it needs keep='rows'"):
        step.value_and_grads(step.init(params, *args), params, *args)
    step = mmp.combined_grads(losses_fn, mmp.mmpareto)
    with pytest.raises(TypeError, match="combined_grads: parameter 'heads/0' must be"):
        step.value_and_grads((), {**params, "heads": [1, 2]}, *args)


# --- What it costs


def compiled(fun, *args):
    options = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    return jax.jit(fun).lower(*args).compile(compiler_options=options)


def flops(executable):
    analysis = executable.cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def temporaries(executable):
    return executable.memory_analysis().temp_size_in_bytes


def plain(losses_fn):
    return jax.grad(lambda params, *args: sum(losses_fn(params, *args).values()))


def as_shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), tree)


@pytest.mark.slow
@pytest.mark.parametrize(("num", "leaves"), [(8, 2), (32, 3.1)])
def test_the_memory_is_that_of_the_largest_leaf(num, leaves):
    """`leaves` times K of the largest; more than 8 rows are stacked, and divided."""
    width, depth = 256, 10
    losses_fn, params, args = heads(num, depth, width, batch=32)
    params, args = as_shapes((params, args))
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep="gramian")
    state = jax.eval_shape(step.init, params, *args)
    found = temporaries(compiled(step.value_and_grads, state, params, *args))
    base = temporaries(compiled(plain(losses_fn), params, *args))
    unit = sum(4 * x.size for x in jax.tree.leaves(params))
    print(f"K = {num}: plain {base / unit:.2f}, gramian {found / unit:.2f}", end=", ")
    assert found <= 1.1 * (base + leaves * num * 4 * width**2)
    rows = mmp.combined_grads(losses_fn, mmp.mmpareto)
    kept = temporaries(compiled(rows.value_and_grads, state, params, *args))
    print(f"rows {kept / unit:.2f} times the parameters")
    assert found < 0.3 * kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "limit"),
    [
        (functools.partial(audio_visual, 64, 64), 1.05),
        (functools.partial(heads, 8, 12, 64, 64), 1.10),
    ],
)
@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
def test_known_weights_cost_a_plain_step(problem, limit, pullback):
    """Every part of the network is passed once, and heads too."""
    losses_fn, params, args = problem()
    params, args = as_shapes((params, args))
    step = mmp.combined_grads(
        losses_fn, rule("uniform", diagnostics=False), pullback=pullback
    )
    state = jax.eval_shape(step.init, params, *args)
    ours = flops(compiled(step.value_and_grads, state, params, *args))
    theirs = flops(compiled(plain(losses_fn), params, *args))
    loud = mmp.combined_grads(losses_fn, rule("uniform"), pullback=pullback)
    state = jax.eval_shape(loud.init, params, *args)
    more = flops(compiled(loud.value_and_grads, state, params, *args))
    print(f"FLOPs: known {ours / theirs:.3f}, with a Gramian {more / theirs:.2f}")
    assert ours <= limit * theirs
    assert more > 1.3 * theirs
