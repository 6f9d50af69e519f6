"""Which objectives reach which parameters: alike at every size and in every form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

import mmpareto_jax as mmp
from mmpareto_jax._gradients import backward
from mmpareto_jax._gradients.groups import named_leaves
from mmpareto_jax.models import ResNet18

PULLBACKS = ["unroll", "vmap"]


def rows_of(fun, params, *args, **kwargs):
    """Per parameter the objectives that reach it."""
    shapes = jax.eval_shape(lambda *x: x, params, *args)
    groups = mmp.objective_groups(fun, *shapes, **kwargs)
    return {
        path: set(groups.groups[groups.group_of(path)])
        for path, _ in named_leaves(params)
    }


def own_gradients(fun, params, *args):
    """The truth: ``jax.grad`` of every loss alone, {objective: tree}."""

    def loss(params, name):
        losses = fun(params, *args)
        return losses[name] if isinstance(losses, dict) else losses[int(name)]

    losses = fun(params, *args)
    names = losses if isinstance(losses, dict) else map(str, range(len(losses)))
    return {name: jax.grad(loss)(params, name) for name in names}


def check(fun, params, *args, expected=None, rtol=1e-12):
    """Rows are jax.grad's; what has no row is zero there. In and outside of jit."""
    rows = rows_of(fun, params, *args)
    if expected is not None:
        assert rows == expected
    truth = own_gradients(fun, params, *args)
    paths = [path for path, _ in named_leaves(params)]
    for pullback in PULLBACKS:
        step = mmp.value_and_objective_grads(fun, pullback=pullback)
        for call in (step, jax.jit(step)):
            _, grads = call(params, *args)
            for path, stack in named_leaves(grads):
                given = iter(stack)
                for name, tree in truth.items():
                    own = dict(named_leaves(tree))[path]
                    found = next(given) if name in rows[path] else jnp.zeros_like(own)
                    np.testing.assert_allclose(
                        found, own, rtol=rtol, atol=1e-14, err_msg=f"{path} {name}"
                    )
                assert next(given, None) is None
    assert set(rows) == set(paths)


# --- The answer does not depend on sizes


def concatenated(split, params, x):
    """Unimodal heads that look at their part of what the joint head sees."""
    f = jnp.concatenate(
        [jnp.tanh(x @ params["audio"]), jnp.tanh(x @ params["visual"])], -1
    )
    audio, visual = split(f, f.shape[-1] // 2)
    return {
        "joint": jnp.mean((f @ params["head"]) ** 2),
        "audio": jnp.mean((audio @ params["head_audio"]) ** 2),
        "visual": jnp.mean((visual @ params["head_visual"]) ** 2),
    }


def by_reshape(f, n):
    both = f.reshape(f.shape[0], 2, n)
    return both[:, 0], both[:, 1]


def by_flattening(f, n):
    flat = jnp.transpose(f).ravel().reshape(2 * n, -1)
    return flat[:n].T, flat[n:].T


def by_mask(f, n):
    first = jnp.arange(2 * n) < n
    return jnp.where(first, f, 0)[:, :n], jnp.where(first, 0.0, f)[:, n:]


SPLITS = {
    "slice": lambda f, n: (f[:, :n], f[:, n:]),
    "split": lambda f, n: jnp.split(f, 2, axis=-1),
    "reshape": by_reshape,
    "flatten": by_flattening,
    "mask": by_mask,
    "rev": lambda f, n: (f[:, ::-1][:, n:], f[:, ::-1][:, :n]),
    "pad": lambda f, n: (jnp.pad(f, ((0, 0), (1, 0)))[:, : n + 1][:, 1:], f[:, n:]),
    "dynamic_slice": lambda f, n: (
        lax.dynamic_slice(f, (0, 0), (f.shape[0], n)),
        lax.dynamic_slice_in_dim(f, n, n, 1),
    ),
    "take": lambda f, n: (f[:, np.arange(n)], jnp.take(f, jnp.arange(n, 2 * n), 1)),
    "strided": lambda f, n: (f[:, : n // 2 * 2 : 1][:, :n], f[:, n::1]),
}
EXPECTED = {
    "audio": {"joint", "audio"},
    "visual": {"joint", "visual"},
    "head": {"joint"},
    "head_audio": {"audio"},
    "head_visual": {"visual"},
}


def concatenated_params(width, inputs=3):
    key = jax.random.key(0)
    shapes = {
        "audio": (inputs, width),
        "visual": (inputs, width),
        "head": (2 * width, 2),
    }
    shapes |= {"head_audio": (width, 2), "head_visual": (width, 2)}
    return {k: jax.random.normal(key, s) for k, s in shapes.items()}


@pytest.mark.parametrize("batch", [1, 128, 129, 10**9])
def test_groups_do_not_depend_on_the_batch(batch):
    params = concatenated_params(256)
    x = jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    fun = functools.partial(concatenated, SPLITS["slice"])
    shapes = jax.eval_shape(lambda x: x, params)
    groups = mmp.objective_groups(fun, shapes, x)
    assert groups.groups[groups.group_of("audio")] == ("joint", "audio")
    assert groups.groups[groups.group_of("visual")] == ("joint", "visual")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("width", [4, 40_000])
def test_groups_of_concatenated_features(split, width):
    params = jax.eval_shape(lambda: concatenated_params(width))
    fun = functools.partial(concatenated, SPLITS[split])
    x = jax.ShapeDtypeStruct((6, 3), jnp.float32)
    assert rows_of(fun, params, x) == EXPECTED


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.usefixtures("x64")
def test_gradients_of_concatenated_features(split):
    fun = functools.partial(concatenated, SPLITS[split])
    x = jax.random.normal(jax.random.key(1), (6, 3))
    check(fun, concatenated_params(4), x, expected=EXPECTED)


@pytest.mark.parametrize("split", ["slice", "split", "reshape", "flatten", "mask"])
@pytest.mark.parametrize("pullback", PULLBACKS)
def test_export_with_a_symbolic_batch(split, pullback):
    fun = functools.partial(concatenated, SPLITS[split])
    params, x = concatenated_params(4), jnp.ones((5, 3))
    step = jax.jit(mmp.value_and_objective_grads(fun, pullback=pullback))
    (batch,) = jax.export.symbolic_shape("batch")
    shapes = jax.eval_shape(lambda x: x, params)
    exported = jax.export.export(step)(
        shapes, jax.ShapeDtypeStruct((batch, 3), jnp.float32)
    )
    found, expected = exported.call(params, x), step(params, x)
    assert found[1]["audio"].shape == (2, 3, 4)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# --- Losses in an array


def alone(params):
    """Three losses; each parameter belongs to one of them, but the trunk."""
    trunk = jnp.tanh(params["trunk"])
    return [jnp.sum((trunk * w) ** 2) for w in params["own"]]


def by_set(losses):
    out = jnp.zeros(len(losses))
    for k, x in enumerate(losses):
        out = out.at[k].set(x)
    return out


def by_negative_set(losses):
    out = jnp.ones(len(losses))
    for k, x in enumerate(losses):
        out = out.at[k - len(losses)].set(x)
    return out


def by_add(losses):
    out = jnp.zeros(len(losses))
    for k, x in enumerate(losses):
        out = out.at[k].add(x)
    return out


def by_update(losses):
    out = jnp.zeros(len(losses))
    for k, x in enumerate(losses):
        out = lax.dynamic_update_slice(out, x[None], (k,))
    return out


def by_where(losses):
    out = jnp.zeros(len(losses))
    for k, x in enumerate(losses):
        out = jnp.where(jnp.arange(len(losses)) == k, x, out)
    return out


def by_rows(losses):
    """A matrix of losses filled by row, reduced at the end."""
    out = jnp.zeros((len(losses), 2))
    for k, x in enumerate(losses):
        out = out.at[k].set(jnp.stack([x, 2 * x]))
    return out.sum(1)


def by_columns(losses):
    out = jnp.zeros((2, len(losses)))
    for k, x in enumerate(losses):
        out = out.at[1, k].set(x)
    return out[1]


def by_order(losses):
    return jnp.stack(losses)[jnp.array([2, 0, 1])][np.array([1, 2, 0])]


def in_a_cond(losses):
    return lax.cond(losses[0] > -1, jnp.stack, lambda x: 2 * jnp.stack(x), losses)


def in_a_scan(losses):
    """Stacked before a scan that carries them element by element."""
    scale = jnp.arange(1.0, 3.0)
    return lax.scan(lambda c, s: (s * c, None), jnp.stack(losses), scale)[0]


def in_a_jit(losses):
    return jax.jit(by_set)(losses)


FORMS = [
    *(by_set, by_negative_set, by_add, by_update, by_where, by_rows, by_columns),
    *(by_order, in_a_cond, in_a_scan, in_a_jit),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("x64")
def test_losses_in_an_array(form):
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "trunk": jax.random.normal(keys[3], (3,)),
        "own": [jax.random.normal(k, (3,)) for k in keys[:3]],
    }
    expected = {f"own/{k}": {str(k)} for k in range(3)} | {"trunk": {"0", "1", "2"}}
    check(lambda p: form(alone(p)), params, expected=expected)


def test_many_losses_filled_in_one_by_one():
    """K = 128: what each lane is, is known before anything is evaluated for it."""
    params = [jnp.ones(2) for _ in range(128)]

    def fun(params):
        out = jnp.zeros(len(params))
        for k, w in enumerate(params):
            out = out.at[k].set(jnp.sum(w**2))
        return out

    step = mmp.value_and_objective_grads(lambda p: jnp.stack([jnp.sum(w) for w in p]))
    assert {x.shape for x in jax.eval_shape(step, params)[1]} == {(1, 2)}
    assert {len(x) for x in rows_of(fun, params).values()} == {1}


def test_an_index_that_is_data_counts_everywhere():
    def fun(params, k):
        return jnp.zeros(2).at[k].set(jnp.sum(params)).at[1].add(1.0)

    assert rows_of(fun, jnp.ones(2), jnp.array(0)) == {"": {"0", "1"}}
    # The same outside of jit, where the index has a value.
    _, grads = mmp.value_and_objective_grads(fun)(jnp.ones(2), jnp.array(0))
    np.testing.assert_array_equal(grads, [[1.0, 1.0], [0.0, 0.0]])


# --- Backward passes with a constant part


@jax.custom_vjp
def with_aux_loss(x, aux):
    return x


with_aux_loss.defvjp(lambda x, aux: (x, None), lambda _, g: (g, 0.01))


@jax.custom_vjp
def shifted(x):
    return x


shifted.defvjp(lambda x: (x, None), lambda _, g: (g + 0.1,))


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.5, 0.5),))


def mixture_of_experts(params, x):
    gate = jax.nn.softmax(x @ params["router"])
    aux = jnp.sum(gate.mean(0) ** 2)
    h = with_aux_loss(jnp.tanh(x @ params["trunk"]), aux)
    return {"a": jnp.mean((h @ params["a"]) ** 2), "b": jnp.mean(x @ params["b"])}


def constant_in_the_other_row(params, x):
    w = params["w"]
    h = with_aux_loss(w, jnp.sum(w))
    return {"a": jnp.sum(2 * h), "b": jnp.sum(w * x[0, 0])}


def constant_beside_an_array(params, x):
    w = params["w"]
    return jnp.stack([jnp.sum(shifted(w) * x[0, 0]), jnp.sum(w)])


def constant_in_one_of_an_array(params, x):
    return shifted(jnp.stack([jnp.sum(params["w"] * x[0, 0]), jnp.sum(params["v"])]))


def constant_in_a_scan(params, x):
    def step(h, w):
        return with_aux_loss(jnp.tanh(h * w), jnp.sum(w) * 3), None

    h, _ = lax.scan(step, x[0], params["layers"])
    return {"a": jnp.sum(h), "b": jnp.sum(params["layers"][0]), "c": jnp.sum(h**2)}


def constant_in_a_cond(params, x):
    def one(w):
        return with_aux_loss(w, jnp.sum(w))

    h = lax.cond(x[0, 0] > 0, one, lambda w: 2 * w, params["w"])
    return {"a": jnp.sum(h), "b": jnp.sum(params["w"] ** 2)}


def constant_in_a_checkpoint(params, x):
    h = jax.checkpoint(lambda w: with_aux_loss(jnp.sin(w), jnp.sum(w)))(params["w"])
    return {"a": jnp.sum(h), "b": jnp.sum(params["w"] ** 2)}


def constant_in_a_jit(params, x):
    return jax.jit(constant_in_a_checkpoint)(params, x)


W = {"w": np.array([0.3, -0.7])}
CONSTANTS = {
    mixture_of_experts: (
        {
            "router": np.linspace(-1, 1, 12).reshape(3, 4),
            "trunk": np.linspace(0, 1, 15).reshape(3, 5),
            "a": np.ones((5, 1)),
            "b": np.ones((3, 1)),
        },
        {"router": {"a"}, "trunk": {"a"}, "a": {"a"}, "b": {"b"}},
    ),
    constant_in_the_other_row: (W, {"w": {"a", "b"}}),
    constant_beside_an_array: (W, {"w": {"0", "1"}}),
    constant_in_one_of_an_array: (
        W | {"v": np.ones(2)},
        {"w": {"0", "1"}, "v": {"0", "1"}},
    ),
    constant_in_a_scan: (
        {"layers": np.linspace(0.1, 1, 6).reshape(2, 3)},
        {"layers": {"a", "b", "c"}},
    ),
    constant_in_a_cond: (W, {"w": {"a", "b"}}),
    constant_in_a_checkpoint: (W, {"w": {"a", "b"}}),
    constant_in_a_jit: (W, {"w": {"a", "b"}}),
}


@pytest.mark.parametrize("fun", CONSTANTS)
@pytest.mark.usefixtures("x64")
def test_a_backward_pass_with_a_constant_part(fun):
    params, expected = CONSTANTS[fun]
    x = jnp.linspace(0.1, 1.0, 6).reshape(2, 3)
    check(fun, jax.tree.map(jnp.asarray, params), x, expected=expected)


@pytest.mark.parametrize("pullback", PULLBACKS)
def test_a_constant_part_with_aux_and_given_groups(pullback, x64):
    """aux comes once; K names give every parameter K rows."""

    def fun(params, x):
        losses = constant_in_the_other_row(params, x)
        return losses, {"sum": jnp.sum(params["w"])}

    params, x = {"w": jnp.array([0.3, -0.7]), "unused": jnp.ones(1)}, jnp.ones((1, 1))
    step = jax.jit(
        mmp.value_and_objective_grads(fun, ("b", "a"), has_aux=True, pullback=pullback)
    )
    (losses, aux), grads = step(params, x)
    assert set(losses) == {"a", "b"}
    np.testing.assert_allclose(aux["sum"], -0.4, rtol=1e-12)
    np.testing.assert_allclose(grads["w"], [[1.0, 1.0], [2.01, 2.01]], rtol=1e-12)
    np.testing.assert_array_equal(grads["unused"], np.zeros((2, 1)))
    rows = jax.vmap(step, (None, 0))(params, jnp.ones((3, 1, 1)))[1]["w"]
    np.testing.assert_allclose(rows, np.tile(grads["w"], (3, 1, 1)), rtol=1e-12)


def fallbacks(monkeypatch, fun, params, *args, **kwargs):
    """How often the function was pulled back, beyond once."""
    calls = []
    linearised = backward._linearised

    def counted(*args):
        calls.append(1)
        return linearised(*args)

    monkeypatch.setattr(backward, "_linearised", counted)
    mmp.objective_groups(fun, params, *args, **kwargs)
    return len(calls) - 1


def test_a_constant_part_is_noticed(monkeypatch):
    params, _ = CONSTANTS[mixture_of_experts]
    params = jax.tree.map(jnp.asarray, params)
    assert fallbacks(monkeypatch, mixture_of_experts, params, jnp.ones((2, 3))) == 2


def transformer(params, x):
    def attention(w, h):
        q, k, v = jnp.split(h @ w["qkv"], 3, axis=-1)
        mask = jnp.tril(jnp.ones((h.shape[0], h.shape[0]), bool))
        scores = jnp.where(mask, q @ k.T, -jnp.inf)
        return jax.nn.softmax(scores, axis=-1) @ v

    def block(h, w):
        h = h + attention(w, jax.nn.standardize(h))
        return h + jax.nn.gelu(h @ w["up"]) @ w["down"], None

    h = params["embedding"][x]
    h, _ = lax.scan(jax.checkpoint(block), h, params["blocks"])
    logits = h @ params["embedding"].T
    return {
        "next": -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(x)), x]),
        "pooled": jnp.mean((h.mean(0) @ params["head"]) ** 2),
        "z": jnp.mean(jax.nn.logsumexp(logits, axis=-1) ** 2),
    }


def transformer_problem():
    shapes = {
        "embedding": (7, 4),
        "blocks": {"qkv": (2, 4, 12), "up": (2, 4, 8), "down": (2, 8, 4)},
        "head": (4, 2),
    }
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda x: isinstance(x, tuple))
    return transformer, (params, jnp.arange(5)), {}


def mlp_problem():
    return (
        concatenated_of(SPLITS["slice"]),
        (concatenated_params(4), jnp.ones((2, 3))),
        {},
    )


def concatenated_of(split):
    return functools.partial(concatenated, split)


def array_problem(form):
    params = {"trunk": jnp.ones(3), "own": [jnp.ones(3)] * 3}
    return lambda p: form(alone(p)), (params,), {}


def clipped_problem():
    """A clipped cotangent is zero where there is none."""

    def fun(w, x):
        h = clipped(w * x)
        return {"a": jnp.sum(h), "b": jnp.sum(jnp.where(h > 0, h, 0.0))}

    return fun, (jnp.ones(3), jnp.ones(3)), {}


def control_flow_problem():
    def fun(w, x):
        h = lax.cond(x[0] > 0, jnp.sin, lambda w: w, w)
        h, hs = lax.scan(lambda c, x: (jnp.tanh(c * x), jnp.sum(c)), h, x)
        h = lax.fori_loop(0, 3, lambda i, c: c * jnp.exp(-c), h)
        picked = lax.top_k(h, 2)[0]
        return {"a": jnp.sum(h) + jnp.sum(hs), "b": jnp.sum(jnp.sort(h)[1:] + picked)}

    return fun, (jnp.ones(3), jnp.ones(3)), {}


class Norms(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.layer = nnx.LayerNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        h = nnx.max_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
        return self.head(self.layer(self.drop(h.mean((1, 2)))))


def nnx_problem(model, inputs):
    abstract = nnx.eval_shape(model)
    graphdef, params, rest = nnx.split(abstract, nnx.Param, ...)

    def fun(params, rest, x):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        out = merged(x)
        losses = {"a": jnp.mean(out**2), "b": jnp.mean(jnp.abs(out - 1))}
        return losses, nnx.state(merged, nnx.Not(nnx.Param))

    return fun, (params, rest, inputs), {"has_aux": True}


def resnet_problem():
    return nnx_problem(lambda: ResNet18(3, rngs=nnx.Rngs(0)), jnp.ones((1, 32, 32, 3)))


ORDINARY = {
    "mlp": mlp_problem,
    "transformer": transformer_problem,
    "clipped": clipped_problem,
    "control_flow": control_flow_problem,
    "nnx": lambda: nnx_problem(Norms, jnp.ones((2, 8, 8, 2))),
    "resnet18": resnet_problem,
    **{form.__name__: functools.partial(array_problem, form) for form in FORMS},
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_models_are_pulled_back_in_one_sweep(monkeypatch, name):
    fun, args, kwargs = ORDINARY[name]()
    assert fallbacks(monkeypatch, fun, *args, **kwargs) == 0


# --- Names, orders, platforms


def test_groups_of_objectives_with_odd_names():
    def fun(params):
        a, b = jnp.sum(params["a"] + params["both"]), jnp.sum(params["b"])
        both = jnp.sum(params["both"])
        return {
            "a": a + both,
            "b": b + both,
            "a+b": jnp.sum(params["sum"]),
            "none": jnp.sum(params["of_none"]),
            "'a'": jnp.sum(params["quoted"]),
        }

    names = ("a", "b", "both", "sum", "of_none", "quoted", "unused")
    params = {k: jnp.ones(2) for k in names}
    groups = mmp.objective_groups(fun, params)
    found = {k: groups.groups[groups.group_of(k)] for k in names}
    assert found == {
        "a": ("a",),
        "b": ("b",),
        "both": ("a", "b"),
        "sum": ("a+b",),
        "of_none": ("none",),
        "quoted": ("'a'",),
        "unused": (),
    }
    assert groups.group_of("both") == "a+b"
    assert groups.group_of("sum") == "'a+b'"
    mmp.value_and_objective_grads(fun, groups)(params)


@pytest.mark.parametrize("has_aux", [False, True])
def test_losses_come_back_in_their_own_order(has_aux):
    def fun(w):
        losses = {"z": jnp.sum(w), "a": jnp.sum(w**2), "m": jnp.sum(w**3)}
        return (losses, None) if has_aux else losses

    values, _ = mmp.value_and_objective_grads(fun, has_aux=has_aux)(jnp.ones(2))
    losses = values[0] if has_aux else values
    assert list(losses) == ["z", "a", "m"]
    assert list(mmp.objective_groups(fun, jnp.ones(2), has_aux=has_aux).objectives) == [
        "z",
        "a",
        "m",
    ]


@pytest.mark.parametrize("pullback", PULLBACKS)
def test_branches_of_other_platforms_are_not_lowered(pullback):
    """As a kernel for one platform: elsewhere there is nothing to lower it to."""

    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    def kernel(x, g):
        def body(x, g, out):
            out[...] = jnp.cos(x[...]) * g[...]

        from jax.experimental import pallas as pl

        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(body, out_shape=shape)(x, g)

    def bwd(x, g):
        return (
            lax.platform_dependent(
                x, g, tpu=kernel, default=lambda x, g: jnp.cos(x) * g
            ),
        )

    f.defvjp(lambda x: (jnp.sin(x), x), bwd)

    def fun(w):
        h = f(w)
        return {"a": jnp.sum(h), "b": jnp.sum(h**2)}

    w = jnp.ones((8, 128))
    step = jax.jit(mmp.value_and_objective_grads(fun, pullback=pullback))
    _, grads = step(w)
    np.testing.assert_allclose(grads[0], jnp.cos(w), rtol=1e-6)
    text = {p: jax.export.export(step, platforms=[p])(w) for p in ("cpu", "tpu")}
    assert "tpu_custom_call" not in text["cpu"].mlir_module()
    assert "tpu_custom_call" in text["tpu"].mlir_module()
