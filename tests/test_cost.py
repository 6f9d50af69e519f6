"""What a compiled step costs, counted by XLA rather than timed."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from combined import heads
from jax import lax

import mmpareto_jax as mmp

pytestmark = pytest.mark.slow

LIMIT = 1.70  # of the step on the sum; in theory 5/3
# XLA counts the body of a loop once, but the optimizer's arithmetic on all layers: the
# batch is large enough that the latter does not matter.
DEPTH, WIDTH, BATCH, CLASSES = 3, 128, 384, 6


def dense(w, x):
    return jax.nn.relu(x @ w)


def convolution(w, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.nn.relu(
        lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)
    )


def unrolled(layer, checkpoint):
    layer = jax.checkpoint(layer) if checkpoint else layer

    def encode(weights, x):
        for w in weights:
            x = layer(w, x)
        return x

    return encode


def scanned(layer, checkpoint):
    layer = jax.checkpoint(layer) if checkpoint else layer

    def encode(weights, x):
        return lax.scan(lambda x, w: (layer(w, x), None), x, weights)[0]

    return encode


def whole(layer, checkpoint):
    """One checkpoint around a whole encoder."""
    encode = unrolled(layer, False)
    return jax.checkpoint(encode) if checkpoint else encode


def problem(kind, layer="dense", checkpoint=False):
    """Two encoders of equal cost, a joint head and a head per modality."""
    rule = {"dense": dense, "convolution": convolution}[layer]
    make = {"unrolled": unrolled, "scanned": scanned, "whole": whole}[kind]
    encode = make(rule, checkpoint)
    key = jax.random.key(0)
    if layer == "dense":
        weights = 0.1 * jax.random.normal(key, (DEPTH, WIDTH, WIDTH))
        inputs, width = jax.random.normal(key, (2, BATCH, WIDTH)), WIDTH
    else:
        width = 16
        weights = 0.1 * jax.random.normal(key, (DEPTH, 3, 3, width, width))
        inputs = jax.random.normal(key, (2, 4, 12, 12, width))
    encoder = weights if kind == "scanned" else list(weights)
    head = 0.1 * jax.random.normal(key, (width, CLASSES))
    params = {
        "audio": encoder,
        "visual": jax.tree.map(jnp.copy, encoder),
        "heads": {"joint": [head, head], "audio": head, "visual": head},
    }

    def features(weights, x):
        out = encode(weights, x)
        return out.mean((1, 2)) if out.ndim == 4 else out

    def losses_fn(params, inputs):
        a, v = (
            features(params["audio"], inputs[0]),
            features(params["visual"], inputs[1]),
        )
        heads = params["heads"]
        logits = {
            "joint": a @ heads["joint"][0] + v @ heads["joint"][1],
            "audio": a @ heads["audio"],
            "visual": v @ heads["visual"],
        }
        return {k: jnp.mean(jax.nn.logsumexp(x, axis=1)) for k, x in logits.items()}

    return losses_fn, params, inputs


def compiled(grads_fn, rule, params, inputs):
    tx = optax.chain(rule, optax.sgd(0.01))
    state = tx.init(params)

    @jax.jit
    def step(params, state, inputs):
        updates, state = tx.update(grads_fn(params, inputs), state, params)
        return optax.apply_updates(params, updates), state

    return step.lower(params, state, inputs).compile(), state


def uniform_step(losses_fn, params, inputs):
    total = jax.grad(lambda p, x: sum(losses_fn(p, x).values()))
    return compiled(total, optax.identity(), params, inputs)[0]


def mmpareto_step(losses_fn, params, inputs, pullback="unroll"):
    groups = mmp.objective_groups(losses_fn, params, inputs)
    both = mmp.value_and_objective_grads(losses_fn, groups, pullback=pullback)
    return compiled(lambda *a: both(*a)[1], mmp.mmpareto(groups), params, inputs)


def flops(executable):
    analysis = executable.cost_analysis()
    return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]


def ratio(losses_fn, params, inputs, pullback="unroll"):
    ours, _ = mmpareto_step(losses_fn, params, inputs, pullback)
    return flops(ours) / flops(uniform_step(losses_fn, params, inputs))


@pytest.mark.parametrize(
    ("kind", "layer", "checkpoint", "pullback"),
    [
        ("unrolled", "dense", False, "unroll"),
        ("unrolled", "dense", False, "vmap"),
        ("unrolled", "dense", True, "unroll"),
        ("whole", "dense", True, "unroll"),
        ("whole", "dense", True, "vmap"),
        ("scanned", "dense", False, "unroll"),
        ("scanned", "dense", False, "vmap"),
        ("scanned", "dense", True, "unroll"),
        ("scanned", "dense", True, "vmap"),
        ("unrolled", "convolution", False, "unroll"),
        ("unrolled", "convolution", False, "vmap"),
        ("scanned", "convolution", False, "unroll"),
        ("scanned", "convolution", True, "unroll"),
    ],
)
def test_flops(kind, layer, checkpoint, pullback, record_property):
    found = ratio(*problem(kind, layer, checkpoint), pullback)
    record_property("flops_ratio", found)
    print(f"{kind} {layer} checkpoint={checkpoint} {pullback}: {found:.4f}")
    assert 1.3 < found <= LIMIT  # below, the measure itself would be wrong


def test_one_checkpoint_around_everything():
    """Shared recomputation stays shared: not once more for every objective."""
    losses_fn, params, inputs = problem("unrolled")
    assert ratio(jax.checkpoint(losses_fn), params, inputs) <= LIMIT


@pytest.mark.parametrize("kind", ["unrolled", "scanned"])
def test_the_measure_notices_waste(kind):
    """Every objective through everything, as jacrev does it, is over the limit."""
    losses_fn, params, inputs = problem(kind)
    groups = mmp.objective_groups(losses_fn, params, inputs)
    index = {name: k for k, name in enumerate(groups.objectives)}

    def everything(params, inputs):
        def vector(params):
            return jnp.stack(list(losses_fn(params, inputs).values()))

        jacobian = jax.jacrev(vector)(params)

        def rows(path, x):
            group = groups.group_of(
                jax.tree_util.keystr(path, simple=True, separator="/")
            )
            return jnp.stack([x[index[name]] for name in groups.groups[group]])

        return jax.tree_util.tree_map_with_path(rows, jacobian)

    step, _ = compiled(everything, mmp.mmpareto(groups), params, inputs)
    found = flops(step) / flops(uniform_step(losses_fn, params, inputs))
    print(f"jacrev, {kind}: {found:.4f}")
    assert found > LIMIT


@pytest.mark.parametrize("kind", ["unrolled", "scanned"])
def test_nothing_of_the_step_is_on_the_host(kind):
    losses_fn, params, inputs = problem(kind, checkpoint=True)
    step, state = mmpareto_step(losses_fn, params, inputs)
    text = step.as_text()
    for word in ("callback", "infeed", "outfeed", "send(", "recv("):
        assert word not in text
    # A first call may still place constants; the second must move nothing.
    params, state = step(params, state, inputs)
    with jax.transfer_guard("disallow"):
        params, state = step(params, state, inputs)
    jax.block_until_ready(params)


def test_nothing_of_a_step_with_many_objectives_is_on_the_host():
    """K > 2 takes the iterative solver: a loop and, on CPU, LAPACK calls."""

    def losses_fn(params, x):
        hidden = jnp.tanh(x @ params["trunk"])
        return {k: jnp.mean((hidden @ w) ** 2) for k, w in params["tasks"].items()}

    key = jax.random.key(0)
    params = {
        "trunk": jax.random.normal(key, (4, 4)),
        "tasks": {k: jax.random.normal(key, (4, 1)) for k in "abc"},
    }
    step, state = mmpareto_step(losses_fn, params, jnp.ones((2, 4)))
    assert "callback" not in step.as_text()
    inputs = jnp.ones((2, 4))
    params, state = step(params, state, inputs)
    with jax.transfer_guard("disallow"):
        step(params, state, inputs)


def test_the_gradients_are_not_copied_to_be_combined():
    """The combination itself adds less than 2 % to a step of some arithmetic."""
    losses_fn, params, inputs = problem("unrolled")
    both = mmp.value_and_objective_grads(losses_fn)
    bare = jax.jit(functools.partial(both)).lower(params, inputs).compile()
    step, _ = mmpareto_step(losses_fn, params, inputs)
    assert flops(step) <= 1.05 * flops(bare)


@pytest.mark.parametrize("kind", ["unrolled", "scanned"])
def test_a_step_does_not_write_the_stacks(kind):
    """The rows are read where they are: for the Gramian, and for the sum."""
    losses_fn, params, inputs = problem(kind)
    step, _ = mmpareto_step(losses_fn, params, inputs)
    shapes = {jnp.shape(x) for x in jax.tree.leaves(params["audio"])}
    for shape in shapes:
        stacked = ",".join(map(str, (2, *shape)))
        assert f"f32[{stacked}]" not in step.as_text()


def test_gradients_from_elsewhere_are_not_copied_either():
    """Stacked in another program, they are read as they are."""
    tx = mmp.mmpareto(2)
    grads = {"a": jnp.ones((2, 256, 512)), "b": jnp.ones((2, 512))}
    state = tx.init(jax.tree.map(lambda x: x[0], grads))
    update = jax.jit(lambda g, s: tx.update(g, s)[0]).lower(grads, state).compile()
    whole = sum(x.nbytes for x in jax.tree.leaves(grads))
    assert update.memory_analysis().temp_size_in_bytes < 0.1 * whole


@pytest.mark.parametrize("num", [2, 8, 32])
@pytest.mark.parametrize("scheduler", ["DEFAULT", "MEMORY_OPTIMIZED"])
def test_a_batch_of_cotangents_keeps_each_row_once(num, scheduler):
    """Temporaries of at most (K + 1) P: a row is not transposed after it is made."""
    losses_fn, params, args = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype) if hasattr(x, "shape") else x,
        heads(num, depth=10, width=1000, batch=32),
    )
    groups = mmp.objective_groups(losses_fn, params, *args)
    rows = mmp.value_and_objective_grads(losses_fn, groups, pullback="vmap")
    tx = mmp.mmpareto(groups)

    def update(params, state, *args):
        return tx.update(rows(params, *args)[1], state, params)

    lowered = jax.jit(update).lower(params, jax.eval_shape(tx.init, params), *args)
    options = {"xla_cpu_scheduler_type": f"CPU_SCHEDULER_TYPE_{scheduler}"}
    update = lowered.compile(compiler_options=options)
    size = sum(4 * x.size for x in jax.tree.leaves(params))
    found = update.memory_analysis().temp_size_in_bytes / size
    print(f"K = {num}, {scheduler}: {found:.2f} times the parameters")
    assert found <= num + 1


# --- The size of the program


def equations(jaxpr):
    """All equations of a jaxpr, of the inner ones too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            found = getattr(inner, "jaxpr", inner)
            if hasattr(found, "eqns"):
                yield from equations(found)


def traced(fun, *args):
    return list(equations(jax.make_jaxpr(fun)(*args).jaxpr))


def many(num_objectives, num_leaves, form):
    """Every leaf is of one objective, and a trunk of all."""
    params = {
        "trunk": jnp.ones((3, 4)),
        "own": [jnp.ones(4) for _ in range(num_leaves)],
    }

    def losses_fn(params, x):
        features = jnp.tanh(x @ params["trunk"])
        losses = [jnp.zeros(())] * num_objectives
        for i, w in enumerate(params["own"]):
            losses[i % num_objectives] += jnp.mean(features @ w)
        return form(losses)

    return losses_fn, params, jax.ShapeDtypeStruct((4096, 3), jnp.float32)


@pytest.mark.parametrize(
    ("num_objectives", "num_leaves", "form"),
    [
        (40, 500, lambda losses: {str(k): x for k, x in enumerate(losses)}),
        (128, 128, jnp.stack),
    ],
)
def test_many_objectives(num_objectives, num_leaves, form):
    """What is of one objective is evaluated for that one: not K times."""
    losses_fn, params, x = many(num_objectives, num_leaves, form)
    step = mmp.value_and_objective_grads(losses_fn)
    _, grads = jax.eval_shape(step, params, x)
    assert grads["trunk"].shape == (num_objectives, 3, 4)
    assert {w.shape for w in grads["own"]} == {(1, 4)}
    plain = jax.grad(lambda p, x: sum(jax.tree.leaves(losses_fn(p, x))[0].ravel()))
    assert len(traced(step, params, x)) < 25 * num_leaves + 8 * num_objectives
    assert len(traced(step, params, x)) > len(traced(plain, params, x)) / 4


def test_batches_do_not_change_the_program():
    """No size decides over structure: concatenated features, sliced per modality."""

    def losses_fn(params, x):
        f = jnp.concatenate([x @ params["a"], x @ params["b"]], -1)
        return {"joint": jnp.mean(f**2), "a": jnp.mean(f[:, :256])}

    params = {k: jnp.ones((3, 256)) for k in "ab"}
    step = mmp.value_and_objective_grads(losses_fn)
    counts = [
        len(traced(step, params, jax.ShapeDtypeStruct((batch, 3), jnp.float32)))
        for batch in (1, 128, 129, 10**6)
    ]
    assert len(set(counts[1:])) == 1
    assert abs(counts[0] - counts[1]) < 5


def test_prevent_cse_of_single_arguments():
    """As given to ``jax.checkpoint``, where it is given for each argument."""
    w = x = jnp.ones((2, 2))

    def barriers(prevent_cse):
        layer = jax.checkpoint(lambda w, x: jnp.tanh(x @ w), prevent_cse=prevent_cse)
        step = mmp.value_and_objective_grads(
            lambda w, x: {"a": jnp.sum(layer(w, x)), "b": jnp.mean(layer(w, x))}
        )
        found = traced(step, w, x)
        return sum(
            len(e.invars) for e in found if e.primitive.name == "optimization_barrier"
        )

    # Per call w, x and a cotangent.
    assert barriers(True) == barriers((True, True)) == 6
    assert barriers((True, False)) == barriers((False, True)) == 4
    assert barriers(False) == 0


@pytest.mark.parametrize(
    ("num", "loud", "silent"),
    [(2, 3.3, 1.7), (8, 5.2, 2.3), (40, 3.3, 2.7)],
)
def test_leaves_of_one_shape_share_their_program(num, loud, silent):
    """StableHLO lines of a step with MMPareto, and of one that needs no Gramian."""
    params = {
        "trunk": [{"w": jnp.ones((16, 16)), "b": jnp.ones(16)} for _ in range(6)],
        "heads": [jnp.ones((16, 1)) for _ in range(num)],
    }

    def losses_fn(params, x):
        for layer in params["trunk"]:
            x = jnp.tanh(x @ layer["w"] + layer["b"][None])
        return {str(k): jnp.mean((x @ w) ** 2) for k, w in enumerate(params["heads"])}

    x = jnp.ones((4, 16))
    groups = mmp.objective_groups(losses_fn, params, x)
    rows = mmp.value_and_objective_grads(losses_fn, groups)

    def lines(grads_fn, rule):
        tx = optax.chain(rule, optax.adam(1e-3))

        def step(params, state, x):
            updates, state = tx.update(grads_fn(params, x), state, params)
            return optax.apply_updates(params, updates), state

        lowered = jax.jit(step).lower(params, tx.init(params), x)
        return len(lowered.as_text().splitlines())

    plain = lines(
        jax.grad(lambda p, x: sum(losses_fn(p, x).values())), optax.identity()
    )
    quiet = mmp.aggregate(mmp.weightings.uniform(), groups, diagnostics=False)
    assert lines(lambda *a: rows(*a)[1], mmp.mmpareto(groups)) <= loud * plain
    assert lines(lambda *a: rows(*a)[1], quiet) <= silent * plain
