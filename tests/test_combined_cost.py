"""What one gradient of several losses costs: memory, and FLOPs, counted by XLA."""

import functools

import jax
import jax.numpy as jnp
import pytest
from combined import audio_visual, heads, normal, rule

import mmpareto_jax as mmp

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(
    ("num", "pullback"), [(8, "unroll"), (32, "unroll"), (32, "vmap")]
)
def test_the_memory_is_that_of_the_largest_leaf(num, pullback):
    """Its rows, and of many an eighth side by side."""
    width, depth = 512, 10
    losses_fn, params, args = heads(num, depth, width, batch=32)
    params, args = as_shapes((params, args))
    step = mmp.combined_grads(
        losses_fn, mmp.mmpareto, keep="gramian", pullback=pullback
    )
    state = jax.eval_shape(step.init, params, *args)
    found = temporaries(compiled(step.value_and_grads, state, params, *args))
    base = temporaries(compiled(plain(losses_fn), params, *args))
    unit = sum(4 * x.size for x in jax.tree.leaves(params))
    print(f"K = {num}: plain {base / unit:.2f}, gramian {found / unit:.2f}", end=", ")
    assert found <= 1.1 * (base + 2 * num * 4 * width**2)
    rows = mmp.combined_grads(losses_fn, mmp.mmpareto)
    kept = temporaries(compiled(rows.value_and_grads, state, params, *args))
    print(f"rows {kept / unit:.2f} times the parameters")
    assert found < 0.3 * kept


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


def streams(scanned, width=16, depth=3, batch=8):
    """Two modalities and what fuses them, layer by layer."""
    sizes = {"a": (width, width), "v": (width, width), "f": (4 * width, 4 * width)}
    sizes |= {"fa": (width, 4 * width), "fv": (width, 4 * width)}
    params = {
        k: normal(i, depth, *s, scale=s[0] ** -0.5)
        for i, (k, s) in enumerate(sizes.items())
    }
    params |= {"h" + k: normal(9, sizes[k][1]) for k in "avf"}

    def layer(carry, p):
        a, v, f = carry
        fused = jnp.tanh(f @ p["f"] + a @ p["fa"] + v @ p["fv"])
        return (jnp.tanh(a @ p["a"]), jnp.tanh(v @ p["v"]), fused), None

    def losses_fn(params, *carry):
        layers = {k: params[k] for k in sizes}
        if scanned:
            carry, _ = jax.lax.scan(layer, carry, layers)
        else:
            for i in range(depth):
                carry, _ = layer(carry, {k: x[i] for k, x in layers.items()})
        a, v, f = carry
        pairs = {
            "joint": f @ params["hf"],
            "a": a @ params["ha"],
            "v": v @ params["hv"],
        }
        return {k: jnp.mean(x**2) for k, x in pairs.items()}

    inputs = [normal(7, batch, n * width) for n in (1, 1, 4)]
    return losses_fn, params, tuple(inputs)


def exits(num, width=32, batch=32):
    """A head after each layer."""
    params = {
        "layers": [normal(k, width, width, scale=width**-0.5) for k in range(num)],
        "heads": [normal(9 + k, width) for k in range(num)],
    }

    def losses_fn(params, x):
        losses = {}
        for k, (w, head) in enumerate(
            zip(params["layers"], params["heads"], strict=True)
        ):
            x = jnp.tanh(x @ w)
            losses[str(k)] = jnp.mean((x @ head) ** 2)
        return losses

    return losses_fn, params, (normal(7, batch, width),)


@pytest.mark.parametrize(
    "problem",
    [
        functools.partial(streams, True, 32, 6, 64),
        functools.partial(streams, False, 32, 3, 64),
        functools.partial(exits, 8),
    ],
)
@pytest.mark.parametrize("name", ["geometric_mean", "stch"])
def test_losses_weights_are_alike_everywhere(problem, name):
    """One mix for all groups: a plain step, however the network is shared."""
    losses_fn, params, args = problem()
    params, args = as_shapes((params, args))
    step = mmp.combined_grads(losses_fn, rule(name, diagnostics=False))
    state = jax.eval_shape(step.init, params, *args)
    ours = flops(compiled(step.value_and_grads, state, params, *args))
    assert ours <= 1.05 * flops(compiled(plain(losses_fn), params, *args))


@pytest.mark.parametrize("scanned", [True, False])
def test_a_stream_of_one_objective_stays_one(scanned):
    """It flows into the groups of all streams, and is no sum of several."""
    losses_fn, params, args = streams(scanned, 32, 4, 64)
    params, args = as_shapes((params, args))
    step = mmp.combined_grads(losses_fn, rule("mean", diagnostics=False))
    state = jax.eval_shape(step.init, params, *args)
    ours = flops(compiled(step.value_and_grads, state, params, *args))
    assert ours <= 1.05 * flops(compiled(plain(losses_fn), params, *args))


@pytest.mark.parametrize(("num", "loud", "silent"), [(2, 3.4, 1.6), (8, 7.5, 1.7)])
def test_a_deep_network_has_a_short_program(num, loud, silent):
    """500 leaves, StableHLO lines relative to the plain gradient's."""
    params = {
        "trunk": [{"w": normal(0, 8, 8), "b": normal(1, 8)} for _ in range(250)],
        "heads": [normal(2, 8) for _ in range(num)],
    }

    def losses_fn(params, x):
        for layer in params["trunk"]:
            x = jnp.tanh(x @ layer["w"] + layer["b"][None])
        return {str(k): jnp.mean((x @ w) ** 2) for k, w in enumerate(params["heads"])}

    params, x = as_shapes((params, normal(3, 4096, 8)))

    def lines(fun, *args):
        return len(jax.jit(fun).lower(*args).as_text().splitlines())

    def ours(combination, keep):
        step = mmp.combined_grads(losses_fn, combination, keep=keep)
        state = jax.eval_shape(step.init, params, x)
        return lines(step.value_and_grads, state, params, x)

    base = lines(plain(losses_fn), params, x)
    assert ours(mmp.mmpareto, "gramian") <= loud * base
    assert ours(rule("stch", diagnostics=False), "rows") <= silent * base
