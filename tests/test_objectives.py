"""Per-objective gradients against ``jax.grad`` of each loss, and inferred groups."""

import functools

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
from mmpareto_jax._gradients.groups import named_leaves

PULLBACKS = ["unroll", "vmap"]
WIDTH, BATCH = 4, 3


def array(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def dense(w, x):
    return jnp.tanh(x @ w)


# Every encoder maps (its parameters [2, WIDTH, WIDTH], x [BATCH, WIDTH]) to features.


def plain(w, x):
    return dense(w[1], dense(w[0], x))


def scanned(w, x):
    return lax.scan(lambda h, layer: (dense(layer, h), None), x, w)[0]


def scanned_checkpoint(w, x):
    body = jax.checkpoint(lambda h, layer: (dense(layer, h), None))
    return lax.scan(body, x, w)[0]


def conditional(w, x):
    return lax.cond(x[0, 0] > 0, plain, lambda w, x: 2 * plain(w, x), w, x)


def switched_layer(w, x):
    """One branch does not use its parameters: they are reached all the same."""
    return lax.switch(jnp.argmax(x[0, :2]), [plain, lambda w, x: x], w, x) + x @ w[0]


def looped(w, x):
    return lax.fori_loop(0, 2, lambda i, h: dense(w[i], h), x)


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, x), lambda x, g: (jnp.where(jnp.abs(x) < 1, g, 0.5 * g),))


@jax.custom_jvp
def square(x):
    return x * x


square.defjvp(lambda primals, tangents: (primals[0] ** 2, 2 * primals[0] * tangents[0]))


ENCODERS = {
    "plain": plain,
    "scan": scanned,
    "checkpoint": jax.checkpoint(plain),
    "checkpoint_in_scan": scanned_checkpoint,
    "checkpoint_of_scan": jax.checkpoint(scanned, prevent_cse=False),
    "checkpoint_dots": jax.checkpoint(
        plain, policy=jax.checkpoint_policies.dots_saveable
    ),
    "nested_checkpoint": jax.checkpoint(jax.checkpoint(plain)),
    "jit": jax.jit(jax.jit(plain)),
    "cond": conditional,
    "switch": switched_layer,
    "fori_loop": looped,
    "custom_vjp": lambda w, x: clipped(plain(w, x)),
    "custom_vjp_in_scan": lambda w, x: lax.scan(
        lambda h, layer: (clipped(dense(layer, h)), None), x, w
    )[0],
    "custom_jvp": lambda w, x: square(jax.nn.relu(x @ w[0]) @ w[1]),
    "gelu": lambda w, x: jax.nn.gelu(x @ w[0]) @ w[1],
    "vmap": jax.vmap(plain, in_axes=(None, 0)),
    "convolution": lambda w, x: lax.conv_general_dilated(
        x[:, None], w[:, :1], (1,), "SAME", dimension_numbers=("NCH", "OIH", "NCH")
    ).mean(1),
    "sort_and_gather": lambda w, x: jnp.sort(plain(w, x), axis=1)[:, ::-1],
}

PARAMS = {
    "audio": array(0, 2, WIDTH, WIDTH),
    "visual": array(1, 2, WIDTH, WIDTH),
    "heads": {
        "joint": [array(2, WIDTH, 2), array(3, WIDTH, 2)],
        "audio": array(4, WIDTH, 2),
        "visual": array(5, WIDTH, 2),
    },
    "unused": array(6, 2),
}
GROUPS = {
    "audio": {"joint", "audio"},
    "visual": {"joint", "visual"},
    "heads/joint/0": {"joint"},
    "heads/joint/1": {"joint"},
    "heads/audio": {"audio"},
    "heads/visual": {"visual"},
    "unused": set(),
}
INPUTS = (array(7, BATCH, WIDTH), array(8, BATCH, WIDTH))


def audio_visual(encode, params, inputs):
    """Per-example losses [BATCH] of the joint and the two unimodal heads."""
    a, v = encode(params["audio"], inputs[0]), encode(params["visual"], inputs[1])
    heads = params["heads"]
    logits = {
        "joint": a @ heads["joint"][0] + v @ heads["joint"][1],
        "audio": a @ heads["audio"],
        "visual": v @ heads["visual"],
    }
    return {name: jnp.mean((x - 0.3) ** 2, axis=1) for name, x in logits.items()}


def losses_fn(encode, params, inputs):
    return {k: jnp.mean(x) for k, x in audio_visual(encode, params, inputs).items()}


def reference(fun, params, *args):
    """The losses, and each objective's own gradient as {name: tree}."""

    def as_dict(params):
        losses = fun(params, *args)
        if isinstance(losses, dict):
            return losses, losses
        return {str(k): losses[k] for k in range(len(losses))}, losses

    jacobian, losses = jax.jit(jax.jacrev(as_dict, has_aux=True))(params)
    return losses, jacobian


def check(fun, params, args, expected, *, groups=None):
    """Values, gradients and groups of `fun`, everything that this module is about."""
    given = mmp.objective_groups(fun, params, *args) if groups is None else groups
    values, jacobian = reference(fun, params, *args)
    rows = {name: dict(named_leaves(tree)) for name, tree in jacobian.items()}
    leaves = dict(named_leaves(params))
    for pullback in PULLBACKS:
        step = mmp.value_and_objective_grads(fun, groups, pullback=pullback)
        losses, grads = jax.jit(step)(params, *args)
        assert jax.tree.structure(losses) == jax.tree.structure(values)
        for x, y in zip(jax.tree.leaves(losses), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5)
        for path, grad in named_leaves(grads):
            objectives = given.groups[given.group_of(path)]
            assert set(objectives) == expected[path], path
            assert grad.shape == (len(objectives), *leaves[path].shape)
            assert grad.dtype == leaves[path].dtype
            for name, row in zip(objectives, grad, strict=True):
                np.testing.assert_allclose(
                    row, rows[name][path], rtol=1e-4, atol=1e-6, err_msg=pullback
                )


# --- What the function may contain


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders(name):
    fun = functools.partial(losses_fn, ENCODERS[name])
    check(fun, PARAMS, (INPUTS,), GROUPS)


def one_scan_for_both(params, inputs):
    def layer(carry, w):
        a, v = carry
        return (dense(w[0], a), dense(w[1], v)), None

    (a, v), _ = lax.scan(layer, inputs, (params["audio"], params["visual"]))
    joint = a @ params["heads"]["joint"][0] + v @ params["heads"]["joint"][1]
    return {
        "joint": jnp.mean(joint**2),
        "audio": jnp.mean((a @ params["heads"]["audio"]) ** 2),
        "visual": jnp.mean((v @ params["heads"]["visual"]) ** 2),
    }


def shared_recomputation(params, inputs):
    """One jax.checkpoint around everything that the three losses need."""
    return jax.checkpoint(functools.partial(losses_fn, plain))(params, inputs)


def one_cond_for_all(params, inputs):
    return lax.cond(
        inputs[0][0, 0] > 0,
        functools.partial(losses_fn, plain),
        lambda p, x: jax.tree.map(lambda y: 2 * y, losses_fn(plain, p, x)),
        params,
        inputs,
    )


def one_jit_for_all(params, inputs):
    return jax.jit(functools.partial(losses_fn, plain))(params, inputs)


@pytest.mark.parametrize(
    "fun", [one_scan_for_both, shared_recomputation, one_cond_for_all, one_jit_for_all]
)
def test_both_encoders_in_one_call(fun):
    check(fun, PARAMS, (INPUTS,), GROUPS)


def as_stack(losses):
    return jnp.stack(list(losses.values())).mean(1)


def as_matrix(losses):
    return jnp.stack(list(losses.values()), axis=1).mean(axis=0)


def as_weighted_matrix(losses):
    matrix = jnp.stack(list(losses.values()), axis=1)
    return jnp.sum(matrix * jnp.array([[1.0], [0.5], [2.0]]), axis=0) / BATCH


def as_array(losses):
    return jnp.array([x.mean() for x in losses.values()])


def as_concatenation(losses):
    return jnp.concatenate([x.mean(keepdims=True) for x in losses.values()])


ARRAYS = [as_stack, as_matrix, as_weighted_matrix, as_array, as_concatenation]


@pytest.mark.parametrize("form", ARRAYS)
def test_losses_as_an_array(form):
    def fun(params, inputs):
        return form(audio_visual(plain, params, inputs))

    numbers = {"joint": "0", "audio": "1", "visual": "2"}
    expected = {path: {numbers[n] for n in names} for path, names in GROUPS.items()}
    check(fun, PARAMS, (INPUTS,), expected)


def test_an_array_filled_by_indexing():
    """With numbers of Python, as in a loop over the losses."""

    def fun(params, inputs):
        losses = jnp.zeros(3)
        for k, x in enumerate(losses_fn(plain, params, inputs).values()):
            losses = losses.at[k].set(x)
        return losses

    numbers = {"joint": "0", "audio": "1", "visual": "2"}
    expected = {path: {numbers[n] for n in names} for path, names in GROUPS.items()}
    check(fun, PARAMS, (INPUTS,), expected)


def test_multi_task():
    def fun(params, x):
        features = dense(params["trunk"], x)
        return {k: jnp.mean((features @ w) ** 2) for k, w in params["tasks"].items()}

    params = {
        "trunk": array(0, WIDTH, WIDTH),
        "tasks": {k: array(i, WIDTH, 1) for i, k in enumerate("abcd")},
    }
    expected = {"trunk": set("abcd")} | {f"tasks/{k}": {k} for k in "abcd"}
    check(fun, params, (INPUTS[0],), expected)


def test_tied_parameters():
    """One matrix in the encoder of one objective and the head of the other."""

    def fun(params, x):
        hidden = dense(params["tied"], x)
        return {
            "reconstruction": jnp.mean((hidden @ params["tied"].T - x) ** 2),
            "label": jnp.mean((hidden @ params["head"]) ** 2),
        }

    params = {"tied": array(0, WIDTH, WIDTH), "head": array(1, WIDTH, 2)}
    both = {"reconstruction", "label"}
    expected = {"tied": both, "head": {"label"}}
    check(fun, params, (INPUTS[0],), expected)


def test_stop_gradient():
    def fun(params, inputs):
        a, v = plain(params[0], inputs[0]), plain(params[1], inputs[1])
        return {
            "joint": jnp.mean((lax.stop_gradient(a) + v) ** 2),
            "audio": jnp.mean(a**2),
            "none": jnp.mean(lax.stop_gradient(v)),
        }

    expected = {"0": {"audio"}, "1": {"joint"}}
    params = [PARAMS["audio"], PARAMS["visual"]]
    check(fun, params, (INPUTS,), expected)


def test_a_bare_array_as_parameters():
    def fun(w, x):
        return jnp.stack([jnp.sum(plain(w, x)), jnp.sum(w)])

    check(fun, PARAMS["audio"], (INPUTS[0],), {"": {"0", "1"}})


@pytest.mark.parametrize("pullback", PULLBACKS)
def test_low_precision_parameters(pullback):
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    fun = functools.partial(losses_fn, plain)
    _, grads = mmp.value_and_objective_grads(fun, pullback=pullback)(params, INPUTS)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


# --- Flax NNX


class AudioVisual(nnx.Module):
    def __init__(self, rngs):
        def encoder():
            return nnx.Sequential(
                nnx.Linear(WIDTH, WIDTH, rngs=rngs),
                nnx.BatchNorm(WIDTH, rngs=rngs),
                nnx.Dropout(0.5, rngs=rngs),
            )

        self.audio, self.visual = encoder(), encoder()
        self.head = nnx.Linear(2 * WIDTH, 2, rngs=rngs)
        self.head_audio = nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, inputs):
        a, v = self.audio(inputs[0]), self.visual(inputs[1])
        joint = self.head(jnp.concatenate([a, v], axis=1))
        return {"joint": jnp.mean(joint**2), "audio": jnp.mean(self.head_audio(a) ** 2)}


@pytest.mark.parametrize("pure", [False, True])
@pytest.mark.parametrize("pullback", PULLBACKS)
def test_nnx_statistics_and_keys_advance_once(pullback, pure):
    model = AudioVisual(nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    if pure:
        params = nnx.as_pure(params)

    def fun(params, inputs):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        losses = merged(inputs)
        return losses, nnx.state(merged, nnx.Not(nnx.Param))

    groups = mmp.objective_groups(fun, params, INPUTS, has_aux=True)
    assert groups.group_of("audio/layers/0/kernel") == "joint+audio"
    assert groups.group_of("visual/layers/1/scale") == "joint"
    step = mmp.value_and_objective_grads(fun, groups, has_aux=True, pullback=pullback)
    (losses, state), grads = jax.jit(step)(params, INPUTS)
    assert grads["audio"]["layers"][0]["kernel"].shape == (2, WIDTH, WIDTH)

    # The same model called once: same dropout mask, same statistics, same key.
    expected = model(INPUTS)
    for name, x in losses.items():
        np.testing.assert_allclose(x, expected[name], rtol=1e-5)
    nnx.update(model, state)
    fresh = AudioVisual(nnx.Rngs(0))
    fresh(INPUTS)
    mean = np.asarray(fresh.audio.layers[1].mean[...])
    assert np.any(mean)
    np.testing.assert_allclose(model.audio.layers[1].mean[...], mean, rtol=1e-5)
    counts = [m.audio.layers[2].rngs.count[...] for m in (model, fresh)]
    assert counts[0] == counts[1] == 1


# --- Groups, by hand and inferred


BY_HAND = {
    "audio": ("joint", "audio"),
    "visual": ("visual", "joint"),
    "heads/joint": ("joint",),
    "heads/audio": ("audio",),
    "heads/visual": ("visual",),
    "unused": (),
}
FUN = functools.partial(losses_fn, plain)


def test_groups_by_prefix():
    """Also in another order than the function's."""
    groups = mmp.ObjectiveGroups.from_prefixes(BY_HAND, ("visual", "joint", "audio"))
    check(FUN, PARAMS, (INPUTS,), GROUPS, groups=groups)


def test_groups_by_label():
    labels = {"audio": "a", "visual": "v", "unused": "none"}
    labels["heads"] = {"joint": ["j", "j"], "audio": "ha", "visual": "hv"}
    names = {"a": "audio", "v": "visual", "j": "heads/joint", "none": "unused"}
    names |= {"ha": "heads/audio", "hv": "heads/visual"}
    groups = mmp.ObjectiveGroups.from_labels(
        labels, {label: BY_HAND[path] for label, path in names.items()}
    )
    check(FUN, PARAMS, (INPUTS,), GROUPS, groups=groups)


@pytest.mark.parametrize(
    ("path", "objectives"),
    [
        ("audio", ("joint",)),
        ("audio", ("joint", "audio", "visual")),
        ("heads/joint", ("joint", "audio")),
        ("unused", ("joint",)),
        ("heads/visual", ()),
    ],
)
def test_groups_that_disagree(path, objectives):
    groups = mmp.ObjectiveGroups.from_prefixes(BY_HAND | {path: objectives})
    with pytest.raises(ValueError, match=f"parameter '{path}.* it is reached by"):
        mmp.value_and_objective_grads(FUN, groups)(PARAMS, INPUTS)


def test_a_parameter_without_a_group():
    rest = {path: names for path, names in BY_HAND.items() if path != "visual"}
    groups = mmp.ObjectiveGroups.from_prefixes(rest)
    with pytest.raises(ValueError, match="parameter 'visual' belongs to no group"):
        mmp.value_and_objective_grads(FUN, groups)(PARAMS, INPUTS)


@pytest.mark.parametrize("names", [("joint", "audio"), ("joint", "audio", "text")])
def test_unknown_objectives(names):
    for groups in (names, mmp.ObjectiveGroups.from_prefixes({"": names})):
        with pytest.raises(ValueError, match="unknown objective: the groups are for"):
            mmp.value_and_objective_grads(FUN, groups)(PARAMS, INPUTS)


@pytest.mark.parametrize("pullback", PULLBACKS)
@pytest.mark.parametrize("groups", [3, ("audio", "joint", "visual")])
def test_all_objectives_on_all_parameters(groups, pullback):
    """K or K names: rows for all, zero where an objective does not reach."""
    step = mmp.value_and_objective_grads(FUN, groups, pullback=pullback)
    _, grads = jax.jit(step)(PARAMS, INPUTS)
    _, jacobian = reference(FUN, PARAMS, INPUTS)
    names = ("joint", "audio", "visual") if groups == 3 else groups
    expected = jax.tree.map(
        lambda *rows: jnp.stack(rows), *(jacobian[name] for name in names)
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        grads,
        expected,
    )
    assert not np.any(grads["unused"])
    tx = mmp.mmpareto(groups)
    jax.eval_shape(tx.update, grads, tx.init(PARAMS), PARAMS)


def test_the_wrong_number_of_objectives():
    with pytest.raises(ValueError, match="unknown objective"):
        mmp.value_and_objective_grads(FUN, 2)(PARAMS, INPUTS)


def test_groups_from_shapes():
    shapes, inputs = jax.eval_shape(lambda *x: x, PARAMS, INPUTS)
    assert mmp.objective_groups(FUN, shapes, inputs) == mmp.objective_groups(
        FUN, PARAMS, INPUTS
    )


def test_groups_with_static_and_keyword_arguments():
    def fun(params, inputs, *, mode, scale):
        assert mode == "train"
        return {k: scale * x for k, x in FUN(params, inputs).items()}, None

    groups = mmp.objective_groups(
        fun, PARAMS, INPUTS, mode="train", scale=2.0, has_aux=True
    )
    assert groups == mmp.objective_groups(FUN, PARAMS, INPUTS)
    step = mmp.value_and_objective_grads(fun, groups, has_aux=True)
    (losses, aux), _ = step(PARAMS, INPUTS, mode="train", scale=2.0)
    assert aux is None
    np.testing.assert_allclose(losses["joint"], 2 * FUN(PARAMS, INPUTS)["joint"])


def test_inferred_groups_are_named_and_ordered():
    groups = mmp.objective_groups(FUN, PARAMS, INPUTS)
    assert list(groups.groups) == [
        "joint+audio",
        "joint+visual",
        "joint",
        "audio",
        "visual",
        "none",
    ]
    assert groups.objectives == ("joint", "audio", "visual")


# --- Under other transformations


@pytest.mark.parametrize("pullback", PULLBACKS)
def test_second_order(pullback):
    """The gradient of the update's norm: all of it is differentiable."""

    def fun(w, x):
        return {"a": jnp.sum(plain(w, x) ** 2), "b": jnp.sum(jnp.cos(plain(w, x)))}

    def inner(w, gradients):
        g = gradients(w, INPUTS[0])
        return jnp.sum(g[0] * g[1])

    def ours(w, x):
        return mmp.value_and_objective_grads(fun, pullback=pullback)(w, x)[1]

    def direct(w, x):
        jacobian = jax.jacrev(fun)(w, x)
        return [jacobian["a"], jacobian["b"]]

    w = PARAMS["audio"]
    outer = jax.jit(jax.grad(inner), static_argnums=1)
    np.testing.assert_allclose(outer(w, ours), outer(w, direct), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pullback", PULLBACKS)
@pytest.mark.parametrize("name", ["checkpoint", "scan"])
def test_under_vmap(name, pullback):
    """Per-example gradients of every objective."""
    fun = functools.partial(losses_fn, ENCODERS[name])
    step = mmp.value_and_objective_grads(fun, pullback=pullback)
    one = jax.tree.map(lambda x: x[:, None], INPUTS)
    _, grads = jax.jit(jax.vmap(step, in_axes=(None, 0)))(PARAMS, one)
    _, whole = jax.jit(step)(PARAMS, INPUTS)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x.mean(0), y, rtol=1e-4, atol=1e-6),
        grads,
        whole,
    )


@pytest.mark.parametrize("pullback", PULLBACKS)
@pytest.mark.parametrize("name", ["checkpoint", "scan", "switch"])
def test_inside_shard_map(name, pullback):
    mesh = jax.make_mesh((3,), ("data",), (jax.sharding.AxisType.Auto,))
    fun = functools.partial(losses_fn, ENCODERS[name])

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(), P("data")), out_specs=P()
    )
    def step(params, inputs):
        # Varying parameters keep each device's own gradients until the pmean.
        params = lax.pcast(params, "data", to="varying")
        found = mmp.value_and_objective_grads(fun, pullback=pullback)(params, inputs)
        return lax.pmean(found, "data")

    found = step(PARAMS, INPUTS)
    alone = jax.jit(mmp.value_and_objective_grads(fun))
    per_example = [
        alone(PARAMS, jax.tree.map(lambda x, i=i: x[i : i + 1], INPUTS))
        for i in range(3)
    ]
    expected = jax.tree.map(lambda *x: sum(x) / 3, *per_example)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
        found,
        expected,
    )


@pytest.mark.parametrize("pullback", PULLBACKS)
def test_debug_nans(pullback):
    fun = functools.partial(losses_fn, jax.checkpoint(scanned))
    groups = mmp.objective_groups(fun, PARAMS, INPUTS)
    tx = optax.chain(mmp.mmpareto(groups), optax.sgd(0.1))

    def step(params, state):
        _, grads = mmp.value_and_objective_grads(fun, groups, pullback=pullback)(
            params, INPUTS
        )
        return tx.update(grads, state, params)

    with jax.debug_nans(True):
        for call in (step, jax.jit(step)):
            updates, _ = call(PARAMS, tx.init(PARAMS))
    assert not np.any(updates["unused"])


def test_the_forward_pass_runs_once():
    calls = []

    def fun(params, inputs):
        jax.debug.callback(lambda: calls.append(1))
        return FUN(params, inputs)

    jax.block_until_ready(jax.jit(mmp.value_and_objective_grads(fun))(PARAMS, INPUTS))
    jax.effects_barrier()
    assert len(calls) == 1


# --- Errors


def grads_of(fun, params=None, **kwargs):
    params = {"w": jnp.ones(2)} if params is None else params
    return mmp.value_and_objective_grads(fun, **kwargs)(params)


@pytest.mark.parametrize(
    ("losses", "error", "match"),
    [
        (lambda p: jnp.sum(p["w"]), ValueError, r"or an array \[K\], got an array of"),
        (lambda p: p["w"][None], ValueError, r"got an array of shape \(1, 2\)"),
        (lambda p: [jnp.sum(p["w"])], ValueError, "got list"),
        (lambda p: {}, ValueError, "it returned no loss"),
        (lambda p: {"a": p["w"]}, ValueError, r"loss 'a' must be a scalar, got shape"),
        (lambda p: {"a": 1}, TypeError, "loss 'a' must be real and floating, got int"),
        (lambda p: {"a": jnp.sum(p["w"]) * 1j}, TypeError, "real and floating, got co"),
    ],
)
@pytest.mark.parametrize("infer", [False, True])
def test_bad_losses(losses, error, match, infer):
    call = functools.partial(mmp.objective_groups, params={"w": jnp.ones(2)})
    with pytest.raises(error, match=match):
        (call if infer else grads_of)(losses)


@pytest.mark.parametrize("leaf", [jnp.ones(2, int), jnp.ones(2, complex), 1.0])
def test_bad_parameters(leaf):
    params = {"layers": [{"w": leaf}]}

    def fun(params):
        return {"a": jnp.ones(())}

    match = "parameter 'layers/0/w' must be a real floating array"
    with pytest.raises(TypeError, match=f"value_and_objective_grads: {match}"):
        grads_of(fun, params)
    with pytest.raises(TypeError, match=f"objective_groups: {match}"):
        mmp.objective_groups(fun, params)


def test_has_aux_without_a_pair():
    with pytest.raises(TypeError, match=r"a pair \(losses, aux\), got dict"):
        grads_of(lambda p: {"a": jnp.sum(p["w"])}, has_aux=True)


def test_unknown_pullback():
    with pytest.raises(ValueError, match="`pullback` must be 'unroll' or 'vmap'"):
        grads_of(lambda p: {"a": jnp.sum(p["w"])}, pullback="scan")


@pytest.mark.parametrize("groups", ["joint", 1.5, True])
def test_bad_groups(groups):
    with pytest.raises(TypeError, match="value_and_objective_grads: `objectives`"):
        grads_of(lambda p: {"a": jnp.sum(p["w"])}, groups=groups)


# --- A loss of each example


def instances(params, x):
    return (jnp.tanh(x @ params["w"]) @ params["v"] - 1) ** 2


def instance_problem(num):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "w": jax.random.normal(keys[0], (3, 4)),
        "v": jax.random.normal(keys[1], (4,)),
    }
    return params, jax.random.normal(keys[2], (num, 3))


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
def test_many_losses_in_one_array(pullback):
    params, x = instance_problem(40)
    run = jax.jit(mmp.value_and_objective_grads(instances, pullback=pullback))
    losses, grads = run(params, x)
    chex.assert_trees_all_close(losses, instances(params, x), rtol=1e-6)
    expected = jax.jacrev(instances)(params, x)
    chex.assert_trees_all_close(grads, expected, rtol=1e-4, atol=1e-5)


def test_the_program_of_an_array_of_losses_does_not_grow():
    """1,024 of them take one pass of a batch of cotangents, and no slice for each."""

    def lines(num):
        params, x = instance_problem(num)
        step = mmp.combined_grads(
            instances,
            functools.partial(mmp.aggregate, mmp.weightings.mean()),
            pullback="vmap",
        )
        state = jax.eval_shape(step.init, params, x)
        lowered = jax.jit(step.value_and_grads).lower(state, params, x)
        return len(lowered.as_text().splitlines())

    assert lines(1024) <= 1.05 * lines(16)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
def test_losses_in_an_array_that_is_sharded(kind, pullback):
    params, x = instance_problem(16)
    mesh = jax.make_mesh((8,), ("data",), (kind,))
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, P("data")))
        step = mmp.value_and_objective_grads(instances, pullback=pullback)
        _, grads = jax.jit(step)(params, placed)
    expected = jax.jacrev(instances)(params, x)
    chex.assert_trees_all_close(grads, expected, rtol=1e-4, atol=1e-5)
