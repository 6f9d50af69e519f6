"""A loss whose gradient is the combined one, under whatever a trainer puts around."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from combined import audio_visual, heads, rule
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp


def problem():
    losses_fn, params, args = audio_visual()
    return losses_fn, *jax.tree.map(jnp.float32, (params, args))


def trunk():
    losses_fn, params, args = heads(3)
    return losses_fn, *jax.tree.map(jnp.float32, (params, args))


def total(losses_fn):
    return lambda *args: sum(losses_fn(*args).values())


def combined(losses_fn, combination, params, args, **options):
    """What is to be reproduced."""
    step = mmp.combined_grads(losses_fn, combination, **options)

    def grads(params, args):
        return step.value_and_grads(step.init(params, *args), params, *args)[0][1]

    return jax.jit(grads)(params, args)


def gradient(fun, **options):
    return jax.jit(jax.grad(fun, **options))


def close(found, expected, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.result_type(a) == jnp.result_type(b)
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=atol
        )


WITHOUT_STATE = {
    "mmpareto": mmp.mmpareto,
    "official": functools.partial(mmp.mmpareto, variant="official"),
    **{x: rule(x) for x in ("mgda", "upgrad", "imtl_g", "config", "geometric_mean")},
    "silent": rule("uniform", diagnostics=False),
}
WITH_STATE = {
    "schedule": functools.partial(mmp.mmpareto, gamma=optax.linear_schedule(1, 2, 2)),
    "dwa": functools.partial(mmp.aggregate, mmp.weightings.dwa(steps_per_epoch=1)),
    **{x: rule(x) for x in ("pcgrad", "gradvac", "nash_mtl", "db_mtl", "random")},
}


@pytest.mark.parametrize(
    ("name", "keep"), [*((x, "rows") for x in WITHOUT_STATE), ("mmpareto", "gramian")]
)
def test_value_and_gradient(name, keep, x64):
    losses_fn, params, args = audio_visual()
    params, args = jax.tree.map(jnp.float64, (params, args))
    loss = mmp.as_loss(losses_fn, WITHOUT_STATE[name], keep=keep)
    value, grads = jax.jit(jax.value_and_grad(loss))(params, *args)
    close(value, total(losses_fn)(params, *args), 1e-12)
    expected = combined(losses_fn, WITHOUT_STATE[name], params, args, keep=keep)
    close(grads, expected, 1e-10, 1e-12)


@pytest.mark.parametrize("name", WITH_STATE)
def test_a_state_is_passed_in_and_returned(name):
    losses_fn, params, args = problem()
    loss = mmp.as_loss(losses_fn, WITH_STATE[name])
    step = mmp.combined_grads(losses_fn, WITH_STATE[name])
    state, expected = loss.init(params, *args), step.init(params, *args)
    grad_fn = jax.jit(jax.value_and_grad(loss, has_aux=True))
    expected_fn = jax.jit(step.value_and_grads)
    for _ in range(3):
        (value, state), grads = grad_fn(params, state, *args)
        (_, own), expected = expected_fn(expected, params, *args)
        close(grads, own)
        close(state.combination, expected)
        close(value, total(losses_fn)(params, *args))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert set(mmp.diagnostics(state)) == {"joint+audio", "joint+visual"}


@pytest.mark.parametrize("length", ["guarded", "free"])
def test_weights_refreshed_now_and_then(length):
    losses_fn, params, args = problem()
    options = {"every": 2, "length": length}
    loss = mmp.as_loss(losses_fn, mmp.mmpareto, **options)
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, **options)
    state, expected = loss.init(params, *args), step.init(params, *args)
    grad_fn, expected_fn = gradient(loss, has_aux=True), jax.jit(step.value_and_grads)
    for _ in range(5):
        grads, state = grad_fn(params, state, *args)
        (_, own), expected = expected_fn(expected, params, *args)
        close(grads, own)
        close(state, type(state)(expected))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    with pytest.raises(ValueError, match="this rule has a state"):
        jax.grad(loss)(params, *args)


def test_a_rule_without_state_may_have_one():
    """For its diagnostics."""
    losses_fn, params, args = problem()
    loss = mmp.as_loss(losses_fn, mmp.mmpareto)
    state = loss.init(params, *args)
    grads, state = gradient(loss, has_aux=True)(params, state, *args)
    close(grads, gradient(loss)(params, *args))
    assert (mmp.diagnostics(state)["joint+audio"]["norms"] > 0).all()


def test_heads_pass_unchanged():
    losses_fn, params, args = trunk()
    grads = gradient(mmp.as_loss(losses_fn, mmp.mmpareto))(params, *args)
    plain = gradient(total(losses_fn))(params, *args)
    close(grads["heads"], plain["heads"])
    assert not np.allclose(grads["trunk"][0], plain["trunk"][0], rtol=1e-2)


def test_only_a_value_is_a_forward_pass():
    losses_fn, params, args = trunk()
    loss = mmp.as_loss(losses_fn, rule("pcgrad"))
    state = loss.init(params, *args)

    def flops(fun, *args):
        return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]

    plain = flops(total(losses_fn), params, *args)
    assert flops(loss, params, *args) == plain  # with no state, too
    assert flops(loss, params, state, *args) == plain
    close(loss(params, state, *args)[1], state)


@pytest.mark.parametrize("factor", [0.0, -2.0, 2.0**12])
def test_linear_in_the_cotangent(factor):
    losses_fn, params, args = problem()
    loss = mmp.as_loss(losses_fn, mmp.mmpareto)
    found = gradient(lambda p: factor * loss(p, *args))(params)
    expected = gradient(loss)(params, *args)
    close(found, jax.tree.map(lambda x: factor * x, expected), 1e-6, 0)


def test_low_precision():
    losses_fn, params, args = problem()
    half = jax.tree.map(jnp.bfloat16, params)
    loss = mmp.as_loss(losses_fn, mmp.mmpareto)
    grads = gradient(lambda p: 3 * loss(p, *args))(half)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
    wide = jax.tree.map(jnp.float32, half)
    close(
        jax.tree.map(jnp.float32, grads),
        jax.tree.map(lambda x: 3 * x, gradient(loss)(wide, *args)),
        0.05,
        0.1,
    )


def test_jit_with_donation():
    losses_fn, params, args = problem()
    loss = mmp.as_loss(losses_fn, rule("pcgrad"))
    tx = optax.adam(0.1)

    def step(params, opt_state, state, *args):
        grads, state = jax.grad(loss, has_aux=True)(params, state, *args)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, state

    first = params, tx.init(params), loss.init(params, *args)
    expected = jax.jit(lambda *x: step(*step(*x), *args))(*first, *args)
    compiled = jax.jit(step, donate_argnums=(0, 1, 2))
    found = first = jax.tree.map(jnp.copy, first)
    for _ in range(2):
        found = compiled(*found, *args)
    close(found, expected, 1e-4, 1e-5)
    assert all(x.is_deleted() for x in jax.tree.leaves(first[0]))
    assert compiled._cache_size() == 1


def test_a_batch_of_models_and_of_data():
    losses_fn, params, args = problem()
    loss = mmp.as_loss(losses_fn, mmp.mmpareto)
    many = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, -x]), params)
    found = jax.jit(jax.vmap(jax.grad(loss), (0, None, None)))(many, *args)
    one = gradient(loss)
    each = [one(jax.tree.map(lambda x, i=i: x[i], many), *args) for i in range(3)]
    close(found, jax.tree.map(lambda *x: jnp.stack(x), *each))

    def mean(params):
        """Each example is combined by itself, then."""
        return jnp.mean(jax.vmap(loss, (None, 0, 0))(params, *of_each))

    of_each = [x[:, None] for x in args]
    examples = [[x[i : i + 1] for x in args] for i in range(len(args[0]))]
    each = [one(params, *x) for x in examples]
    close(gradient(mean)(params), jax.tree.map(lambda *x: sum(x) / len(x), *each))


def test_checkpoint():
    losses_fn, params, args = problem()
    loss = mmp.as_loss(losses_fn, rule("pcgrad"))
    state = loss.init(params, *args)
    expected = jax.value_and_grad(loss, has_aux=True)(params, state, *args)
    again = jax.value_and_grad(jax.checkpoint(loss), has_aux=True)
    for grad_fn in (again, jax.jit(again)):
        close(grad_fn(params, state, *args), expected)


def test_accumulation_takes_the_mean_of_combined_gradients():
    """That of the whole batch is had by going through it within the losses."""
    losses_fn, params, (x,) = trunk()
    parts = x.reshape(3, 2, -1)
    loss = mmp.as_loss(losses_fn, mmp.mmpareto)

    def step(carry, part):
        grads = jax.grad(loss)(params, part)
        return jax.tree.map(jnp.add, carry, grads), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    accumulated = jax.jit(lambda x: jax.lax.scan(step, x, parts)[0])(zeros)
    each = [gradient(loss)(params, part) for part in parts]
    close(accumulated, jax.tree.map(lambda *x: sum(x), *each))

    def of_all(params, parts):
        one = jax.checkpoint(lambda part: losses_fn(params, part))
        losses = jax.lax.map(one, parts)
        return {k: jnp.mean(x) for k, x in losses.items()}

    whole = gradient(loss)(params, x)
    close(gradient(mmp.as_loss(of_all, mmp.mmpareto))(params, parts), whole)
    mean = jax.tree.map(lambda g: g / 3, accumulated)
    assert not np.allclose(mean["trunk"][0], whole["trunk"][0], rtol=1e-2)


def test_a_gradient_around_a_loop_that_carries_the_state():
    losses_fn, params, (x,) = trunk()
    parts = x.reshape(3, 2, -1)
    loss = mmp.as_loss(losses_fn, rule("pcgrad"))
    first = loss.init(params, parts[0])

    def around(params, parts):
        def step(state, part):
            return loss(params, state, part)[::-1]

        state, values = jax.lax.scan(step, first, parts)
        return jnp.sum(values), state

    grads, state = gradient(around, has_aux=True)(params, parts)
    one = gradient(loss, has_aux=True)
    expected, own = jax.tree.map(jnp.zeros_like, params), first
    for part in parts:
        found, own = one(params, own, part)
        expected = jax.tree.map(jnp.add, expected, found)
    close(grads, expected)
    close(state, own)


def test_what_is_no_parameter_has_the_plain_sums_derivative():
    losses_fn, params, (audio, visual) = problem()
    key, scale = jax.random.key(0), jnp.float32(1.5)

    def noisy(params, audio, key, mode, count):
        assert (mode, count) == ("train", 2)
        noise = 0.1 * jax.random.normal(key, audio.shape)
        losses = losses_fn(params, audio + noise, visual)
        return {k: scale * x for k, x in losses.items()}

    def plain(*args):
        return sum(noisy(*args).values())

    loss = mmp.as_loss(noisy, mmp.mmpareto)
    args = audio, key, "train", 2
    of_params, of_audio = jax.grad(loss, (0, 1))(params, *args)
    close(of_params, jax.grad(loss)(params, *args))
    close(of_audio, jax.grad(plain, 1)(params, *args))
    close(jax.grad(loss, 1)(params, *args), of_audio)

    def closing(fun, scale):
        def own(params, audio, visual):
            return {k: scale * x for k, x in losses_fn(params, audio, visual).items()}

        return fun(own)(params, audio, visual)

    found = jax.grad(functools.partial(closing, total))(scale)
    carried = functools.partial(mmp.as_loss, combination=mmp.mmpareto)
    close(jax.grad(functools.partial(closing, carried))(scale), found)


def test_what_is_held_constant_has_no_part():
    """Nor does its backward pass take time."""
    losses_fn, params, args = trunk()
    loss = mmp.as_loss(losses_fn, mmp.mmpareto)

    def of_last(last):
        held = jax.lax.stop_gradient(params)
        return loss({**held, "trunk": [*held["trunk"][:2], last]}, *args)

    def losses_of_last(last, x):
        return losses_fn({**params, "trunk": [*params["trunk"][:2], last]}, x)

    last = params["trunk"][2]
    for around in (lambda f: f, jax.jit, jax.checkpoint):
        found = gradient(around(of_last))(last)
        close(found, combined(losses_of_last, mmp.mmpareto, last, args))
    assert not np.allclose(found, gradient(loss)(params, *args)["trunk"][2], rtol=1e-2)

    def flops(fun, *args):
        return jax.jit(jax.grad(fun)).lower(*args).compile().cost_analysis()["flops"]

    assert flops(of_last, last) < 0.7 * flops(lambda p: loss(p, *args), params)


def test_aux():
    losses_fn, params, args = problem()

    def with_aux(params, audio, visual, key):
        losses = losses_fn(params, audio, visual)
        penalty = jnp.sum(params["visual"] ** 2)
        return losses, {"penalty": penalty, "key": key, "count": 3, "name": "text"}

    loss = mmp.as_loss(with_aux, mmp.mmpareto, has_aux=True)
    args = *args, jax.random.key(1)
    (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(params, *args)
    close(value, total(losses_fn)(params, *args[:2]))
    close(grads, gradient(mmp.as_loss(losses_fn, mmp.mmpareto))(params, *args[:2]))
    assert (aux["key"], aux["count"], aux["name"]) == (args[2], 3, "text")

    def penalised(params):
        value, aux = loss(params, *args)
        return 2 * value + aux["penalty"]

    expected = jax.tree.map(lambda x: 2 * x, grads)
    expected["visual"] += 2 * params["visual"]
    for fun in (penalised, jax.jit(penalised), jax.checkpoint(penalised)):
        close(gradient(fun)(params), expected)
    state = loss.init(params, *args)
    value, (after, aux) = loss(params, state, *args)
    close(after, state)
    close(aux["penalty"], jnp.sum(params["visual"] ** 2))


def test_closures_over_what_is_traced_around():
    """Floats, integers and keys; differentiated, batched and staged outside."""
    losses_fn, params, (audio, visual) = problem()

    def loss_of(params, rows, key):
        noise = jax.random.normal(key, audio.shape)

        def closing(params):
            return losses_fn(params, audio[rows] + 0.1 * noise[rows], visual[rows])

        return mmp.as_loss(closing, mmp.mmpareto)(params)

    rows, keys = jnp.array([[0, 1, 2], [4, 3, 6]]), jax.random.split(jax.random.key(0))
    one = gradient(loss_of)
    each = [one(params, *x) for x in zip(rows, keys, strict=True)]
    mapped = jax.jit(jax.vmap(jax.grad(loss_of), (None, 0, 0)))(params, rows, keys)
    close(mapped, jax.tree.map(lambda *x: jnp.stack(x), *each))
    close(jax.grad(jax.jit(loss_of))(params, rows[0], keys[0]), each[0])
    close(gradient(jax.checkpoint(loss_of))(params, rows[0], keys[0]), each[0])

    def sum_of_both(params):
        return jnp.sum(jax.vmap(loss_of, (None, 0, 0))(params, rows, keys))

    close(gradient(sum_of_both)(params), jax.tree.map(jnp.add, *each))


def test_losses_keep_their_order_and_may_be_one_array():
    def losses_fn(w):
        return {"second": jnp.sum(w**2), "first": jnp.sum(w)}

    def in_array(w):
        return jnp.stack(list(losses_fn(w).values()))

    w = jnp.array([1.0, 2.0])
    weighting = mmp.weightings.constant(jnp.array([1.0, 10.0]))
    for fun in (losses_fn, in_array):
        loss = mmp.as_loss(fun, functools.partial(mmp.aggregate, weighting))
        value, grads = jax.value_and_grad(loss)(w)
        close(value, jnp.float32(8))
        close(grads, 2 * w + 10)


def test_groups_of_ones_own():
    losses_fn, params, args = heads(2)
    params, args = jax.tree.map(jnp.float32, (params, args))
    layers = {f"trunk/{i}": ("0", "1") for i in range(3)}
    groups = mmp.ObjectiveGroups.from_prefixes(
        layers | {"heads/0": ("0",), "heads/1": ("1",)}
    )
    loss = mmp.as_loss(losses_fn, mmp.mmpareto, groups)
    expected = combined(losses_fn, lambda _: mmp.mmpareto(groups), params, args)
    close(gradient(loss)(params, *args), expected)


def test_shapes_are_enough_to_begin():
    losses_fn, params, args = problem()
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    loss = mmp.as_loss(losses_fn, rule("nash_mtl"))
    close(loss.init(shapes, *args), loss.init(params, *args))


@pytest.mark.parametrize("check_vma", [True, False])
def test_inside_shard_map(check_vma):
    """Parameters on every device, the batch in eight parts, losses reduced."""
    losses_fn, params, (x,) = heads(2, batch=16)
    params, x = jax.tree.map(jnp.float32, (params, x))
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))

    def reduced(params, x):
        return jax.lax.pmean(losses_fn(params, x), "data")

    loss = mmp.as_loss(reduced, rule("mgda"))
    plain = jax.value_and_grad(lambda *args: sum(reduced(*args).values()))

    def mapped(fun):
        specs = {"in_specs": (P(), P("data")), "out_specs": P()}
        return jax.jit(jax.shard_map(fun, mesh=mesh, check_vma=check_vma, **specs))

    value, grads = mapped(jax.value_and_grad(loss))(params, x)
    close(value, total(losses_fn)(params, x))
    if check_vma:
        close(grads, combined(losses_fn, rule("mgda"), params, (x,)), 1e-4)
    else:  # what jax.grad of the sum makes of a pmean there
        close(grads["heads"], mapped(plain)(params, x)[1]["heads"], 1e-4)


def test_losses_of_each_device_are_refused():
    losses_fn, params, (x,) = heads(2, batch=16)
    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))

    def one(combination, params, x):
        loss = mmp.as_loss(losses_fn, combination)
        return jax.tree.map(lambda g: g[None], jax.grad(loss)(params, x))

    def own(params, x):
        params = jax.lax.pcast(params, "data", to="varying")
        return one(functools.partial(mmp.mmpareto, axis_name=()), params, x)

    specs = {"mesh": mesh, "in_specs": (P(), P("data")), "out_specs": P("data")}
    mapped = jax.shard_map(functools.partial(one, mmp.mmpareto), **specs)
    with pytest.raises(ValueError, match="the losses vary over the mesh axis 'data'"):
        jax.eval_shape(mapped, params, x)
    # A model on each device.
    grads = jax.jit(jax.shard_map(own, **specs))(
        *jax.tree.map(jnp.float32, (params, x))
    )
    alone = gradient(mmp.as_loss(losses_fn, mmp.mmpareto))(params, x[4:6])
    close(jax.tree.map(lambda g: g[2], grads), alone, 1e-4)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.trunk = nnx.LoRALinear(5, 4, lora_rank=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.heads = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.heads(jnp.tanh(self.norm(self.trunk(x))))


def net_losses(net, x):
    y = net(x)
    losses = {"left": jnp.mean((y[:, 0] - 1) ** 2), "right": jnp.mean(jnp.abs(y[:, 1]))}
    return losses, nnx.state(net, nnx.BatchStat)


def make_net():
    net = Net(nnx.Rngs(0))
    net.trunk.lora.lora_b[...] = jnp.ones((2, 4))
    return net, jax.random.normal(jax.random.key(0), (6, 5))


FILTERS = {
    "parameters": nnx.Param,
    "lora": nnx.LoRAParam,
    "trunk": nnx.All(nnx.Param, nnx.PathContains("trunk")),
}


@pytest.mark.parametrize("combination", [mmp.mmpareto, rule("pcgrad")])
@pytest.mark.parametrize("name", FILTERS)
def test_what_a_filter_of_nnx_differentiates(name, combination):
    net, x = make_net()
    chosen, has_state = FILTERS[name], combination is not mmp.mmpareto
    loss = mmp.as_loss(net_losses, combination, has_aux=True)
    grad_fn = nnx.value_and_grad(loss, argnums=nnx.DiffState(0, chosen), has_aux=True)

    @nnx.jit
    def step(net, x, *state):
        (value, aux), grads = grad_fn(net, *state, x)
        nnx.update(net, aux[1] if has_state else aux)
        return value, grads

    graphdef, params, rest = nnx.split(net, chosen, ...)

    def of_chosen(params, x):
        return net_losses(nnx.merge(graphdef, params, rest, copy=True), x)

    expected = combined(of_chosen, combination, params, (x,), has_aux=True)
    _, statistics = of_chosen(params, x)
    state = [loss.init(net, x)] if has_state else []
    value, grads = step(net, x, *state)
    close(jax.tree.leaves(grads), jax.tree.leaves(expected))
    close(value, sum(net_losses(make_net()[0], x)[0].values()))
    close(jax.tree.leaves(nnx.state(net, nnx.BatchStat)), jax.tree.leaves(statistics))


def test_an_nnx_optimizer():
    net, x = make_net()
    loss = mmp.as_loss(net_losses, mmp.mmpareto, has_aux=True)
    optimizer = nnx.Optimizer(net, optax.adam(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(net, optimizer, x):
        (value, statistics), grads = nnx.value_and_grad(loss, has_aux=True)(net, x)
        optimizer.update(net, grads)
        nnx.update(net, statistics)
        return value

    first, *_, last = [step(net, optimizer, x) for _ in range(30)]
    assert last < 0.5 * first
    assert (net.norm.mean[...] != 0).any()


def test_changes_that_would_be_lost():
    net, x = make_net()
    loss = mmp.as_loss(lambda net, x: net_losses(net, x)[0], mmp.mmpareto)
    with pytest.raises(ValueError, match="changes 'norm/mean' of the parameters"):
        nnx.value_and_grad(loss)(net, x)
    net.eval()
    assert np.isfinite(nnx.value_and_grad(loss)(net, x)[0])


def test_no_second_derivative():
    losses_fn, params, args = problem()
    loss = mmp.as_loss(losses_fn, mmp.mmpareto)

    def square(params):
        grads = jax.grad(loss)(params, *args)
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(grads))

    for fun in (jax.grad(square), jax.jit(jax.grad(square))):
        with pytest.raises(NotImplementedError, match="cannot be differentiated twice"):
            fun(params)
    for loss_fn in (loss, jax.jit(loss), jax.checkpoint(loss)):
        with pytest.raises(NotImplementedError, match="cannot be differentiated twice"):
            jax.hessian(loss_fn)(params, *args)
    for around in (lambda f: f, jax.jit):
        with pytest.raises(TypeError, match="can't apply forward-mode"):
            jax.jvp(around(lambda p: loss(p, *args)), (params,), (params,))


@pytest.mark.parametrize("around", [lambda f: f, jax.jit, jax.checkpoint])
def test_not_within_another(around):
    losses_fn, params, args = problem()
    inner = around(mmp.as_loss(losses_fn, mmp.mmpareto))
    jax.grad(inner)(params, *args)  # a jit has it then, and does not trace again

    def outer(params, audio, visual):
        return {"sum": inner(params, audio, visual), "w": jnp.sum(params["visual"])}

    with pytest.raises(ValueError, match="contains another as_loss"):
        jax.grad(mmp.as_loss(outer, mmp.mmpareto))(params, *args)


def test_errors():
    losses_fn, params, args = problem()
    with pytest.raises(ValueError, match="`keep` must be 'rows' or 'gramian'"):
        mmp.as_loss(losses_fn, mmp.mmpareto, keep="all")
    with pytest.raises(ValueError, match="`every` must be an integer >= 1"):
        mmp.as_loss(losses_fn, mmp.mmpareto, every=0)
    loss = mmp.as_loss(losses_fn, rule("pcgrad"))
    with pytest.raises(ValueError, match="this rule has a state: call loss"):
        jax.grad(loss)(params, *args)
    state = loss.init(params, *args)

    def of_audio(params):
        return loss({**params, "visual": jnp.ones((4, 6))}, state, *args)

    with pytest.raises(ValueError, match="the state is one for other parameters"):
        jax.grad(of_audio, has_aux=True)(params)
    whole = mmp.as_loss(lambda p: {"a": jnp.sum(abs(p["w"]))}, mmp.mmpareto)
    with pytest.raises(TypeError, match="must be a real floating array"):
        jax.grad(whole, allow_int=True)({"w": 1j * jnp.ones(2)})


STATELESS = {"aligned_mtl", "cagrad", "config", "constant", "dualproj", "fairgrad"}
STATELESS |= {"geometric_mean", "imtl_g", "krum", "mean", "mgda", "mmpareto", "stch"}
STATELESS |= {"trimmed_mean", "uniform", "upgrad", "cosmos", "normalized_sum", "pbi"}
OF_TWO = {"dcgd"}  # these losses are three


def test_which_rules_need_a_state():
    """Those that say so in their table, and random ones."""
    losses_fn, params, args = trunk()
    given = {"constant": (jnp.ones(3),), "smoothed": (mmp.weightings.mgda(),)}
    for name in (x for x in dir(mmp.weightings) if not x.startswith("_")):
        make = getattr(mmp.weightings, name)
        if not inspect.isfunction(make) or name in OF_TWO:
            continue
        loss = mmp.as_loss(
            losses_fn, functools.partial(mmp.aggregate, make(*given.get(name, ())))
        )
        run = functools.partial(jax.eval_shape, jax.grad(loss), params, *args)
        if name in STATELESS:
            run()
        else:
            with pytest.raises(ValueError, match="this rule has a state"):
                run()


@pytest.mark.parametrize("outer", [mmp.value_and_objective_grads, mmp.probe])
def test_it_is_no_loss_among_others(outer):
    loss = mmp.as_loss(lambda w: {"a": w**2, "b": w**3}, mmp.mmpareto)
    with pytest.raises(ValueError, match="combined already, and would be combined twi"):
        outer(lambda w: {"c": loss(w), "d": w})(jnp.ones(()))
