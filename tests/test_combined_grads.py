"""One gradient of several losses: the chain's, in less memory or less time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from combined import audio_visual, heads, rule
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp

KEEP = ["rows", "gramian"]


def chain(losses_fn, combination, params, args, state=None):
    """What is to be reproduced."""
    groups = mmp.objective_groups(losses_fn, params, *args)
    tx = combination(groups)
    losses, stacked = mmp.value_and_objective_grads(losses_fn, groups)(params, *args)
    state = tx.init(params) if state is None else state
    return losses, *tx.update(stacked, state, params, losses=losses)


def close(found, expected, digits, rounding=0.0):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        truth = np.asarray(b, np.float64)
        largest = np.max(np.abs(truth), initial=0, where=np.isfinite(truth))
        np.testing.assert_allclose(
            np.asarray(a, np.float64),
            truth,
            rtol=digits,
            atol=digits * largest + rounding,
        )


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
        expected = given[2]
        close((losses, grads), given[:2], 1e-9)
        # A solver's gap is rounding error.
        close(state, expected, 1e-9, rounding=1e-15)
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
    with pytest.raises(ValueError, match="has no weights that keep='gramian' could"):
        step.value_and_grads(step.init(params, *args), params, *args)
    step = mmp.combined_grads(losses_fn, mmp.mmpareto)
    with pytest.raises(TypeError, match="combined_grads: parameter 'heads/0' must be"):
        step.value_and_grads((), {**params, "heads": [1, 2]}, *args)


def test_nothing_of_a_nan_is_hidden():
    """Neither by an embedding that gathers a few rows, nor by a unit that is off."""

    def losses_fn(params, ids):
        rows = params["embedding"][ids].sum(0)
        hidden = jax.nn.relu(params["w"])
        return {
            "a": jnp.sum(rows) + jnp.sum(hidden),
            "b": jnp.nan * (jnp.sum(rows) + jnp.sum(hidden)),
        }

    params = {"embedding": jnp.ones((4, 2)), "w": jnp.array([1.0, -1.0, 2.0])}
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep="gramian")
    ids = jnp.array([0, 1])
    (_, grads), _ = step.value_and_grads(step.init(params, ids), params, ids)
    assert all(np.isnan(x).all() for x in jax.tree.leaves(grads))


def test_the_weight_of_one_loss_is_nan():
    """What does not depend on this loss is as it was."""
    losses_fn, params, args = heads(2)

    def weights(losses, state):
        return jnp.array([2.0, jnp.nan]), state

    combination = functools.partial(
        mmp.aggregate, mmp.LossWeighting(lambda _: (), weights), diagnostics=False
    )
    step = mmp.combined_grads(losses_fn, combination)
    (_, grads), _ = step.value_and_grads(step.init(params, *args), params, *args)
    close(grads, chain(losses_fn, combination, params, args)[1], 1e-5)
    assert np.isfinite(grads["heads"][0]).all()
    assert np.isnan(grads["heads"][1]).all()


def test_a_parameter_that_no_loss_reaches_gets_zero():
    """Whatever the backward pass makes of it."""

    @jax.custom_vjp
    def ignoring(v, y):
        return y

    ignoring.defvjp(lambda v, y: (y, v), lambda v, g: (jnp.zeros_like(v) / 0.0, g))

    def losses_fn(params):
        return {
            "a": ignoring(params["unused"], params["w"]).sum(),
            "b": (params["w"] ** 2).sum(),
        }

    params = {"unused": jnp.ones(2), "w": jnp.ones(2)}
    for combination in (mmp.mmpareto, rule("stch", diagnostics=False)):
        step = mmp.combined_grads(losses_fn, combination, keep="gramian")
        (_, grads), _ = step.value_and_grads(step.init(params), params)
        np.testing.assert_array_equal(grads["unused"], [0, 0])


def test_half_precision_keeps_what_is_small():
    """A weight below its range times a row near the end of it."""

    def losses_fn(params, x, y):
        return {"a": jnp.sum(params["w"] * x), "b": jnp.sum(params["w"] * y)}

    half = functools.partial(jnp.asarray, dtype=jnp.float16)
    params = {"w": half([1, 1, 1])}
    args = half([1e-4, 2e-4, 0]), half([0, 3e4, 1e4])
    for combination in (rule("imtl_g"), rule("geometric_mean", diagnostics=False)):
        step = mmp.combined_grads(losses_fn, combination, keep="gramian")
        (_, grads), _ = step.value_and_grads(step.init(params, *args), params, *args)
        expected = chain(losses_fn, combination, params, args)[1]
        close(grads, expected, 2e-3)


def test_weights_of_single_objectives_have_scales_too():
    def losses_fn(params):
        return {
            "a": jnp.sum(params["v"] * jnp.float16(1e-6)),
            "b": jnp.sum(params["w"] * jnp.float16(3e4)),
        }

    params = {k: jnp.array([1, 0.5], jnp.float16) for k in "vw"}
    combination = rule("geometric_mean", diagnostics=False)
    step = mmp.combined_grads(losses_fn, combination)
    (_, grads), _ = step.value_and_grads(step.init(params), params)
    close(grads, chain(losses_fn, combination, params, ())[1], 5e-2)


@pytest.mark.parametrize(
    "quantise",
    [
        lambda g: g.astype(jnp.float8_e4m3fn),
        lambda g: jax.lax.reduce_precision(g, 8, 2),
    ],
)
def test_quantised_cotangents_stay_apart(quantise):
    """Rounding to so few digits is no linear function of them."""

    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, g: (quantise(g).astype(g.dtype),))

    def losses_fn(params, x):
        y = f(params["w"])
        return {"a": jnp.sum(y * x), "b": jnp.sum(y * x[::-1] * 1.3)}

    params, args = {"w": jnp.ones(3)}, (jnp.array([1.07, 0.53, 0.21]),)
    for combination in (mmp.mmpareto, rule("uniform", diagnostics=False)):
        step = mmp.combined_grads(losses_fn, combination, keep="gramian")
        (_, grads), _ = step.value_and_grads(step.init(params, *args), params, *args)
        close(grads, chain(losses_fn, combination, params, args)[1], 1e-5)


def test_what_is_gathered_out_of_bounds_stays_apart():
    """It is a constant, whatever the cotangent is."""

    @jax.custom_vjp
    def f(x):
        return x

    def backward(_, g):
        return (g.at[jnp.array([0, 1, 7])].get(mode="fill", fill_value=1.0),)

    f.defvjp(lambda x: (x, None), backward)

    def losses_fn(params, x):
        y = f(params["w"])
        return {"a": jnp.sum(y * x), "b": jnp.sum(y * x[::-1] * 1.3)}

    params, args = {"w": jnp.ones(3)}, (jnp.array([1.07, 0.53, 0.21]),)
    for combination in (mmp.mmpareto, rule("mean", diagnostics=False)):
        step = mmp.combined_grads(losses_fn, combination, keep="gramian")
        (_, grads), _ = step.value_and_grads(step.init(params, *args), params, *args)
        close(grads, chain(losses_fn, combination, params, args)[1], 1e-5)


def test_silent_rules_refuse_gradients_that_vary_too():
    losses_fn, params, args = heads(2, batch=8)
    mesh = jax.make_mesh((8,), ("data",), (jax.sharding.AxisType.Auto,))

    def run(params, x):
        step = mmp.combined_grads(losses_fn, rule("uniform", diagnostics=False))
        params = jax.lax.pcast(params, "data", to="varying")
        (_, grads), _ = step.value_and_grads(step.init(params, x), params, x)
        return jax.tree.map(lambda g: g[None], grads)

    mapped = jax.shard_map(
        run, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
    )
    with pytest.raises(ValueError, match="'trunk/0' varies over the mesh axis 'data'"):
        jax.eval_shape(mapped, params, *args)
