"""Every kind of primitive and wrapper: rows are what ``jax.grad`` of each loss gives.

Each function of the table is a loss that is put into a few combinations with others;
the same program is then run plain, under ``vmap``, inside ``lax.scan`` and inside
``shard_map``, with both pullbacks, in turn.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.ode import odeint
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp
from mmpareto_jax._gradients.backward import pull_back
from mmpareto_jax._gradients.groups import named_leaves
from mmpareto_jax._gradients.mixes import mixes_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]

N = 4


def spd(w):
    return w @ w.T + 3 * jnp.eye(N)


@jax.custom_vjp
def clip_gradient(x):
    return x


clip_gradient.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -0.3, 0.3),))


@jax.custom_vjp
def norm_gradient(x):
    return x


norm_gradient.defvjp(
    lambda x: (x, None), lambda _, g: (g / (1 + jnp.linalg.norm(g + 0 * g)),)
)


@jax.custom_vjp
def reverse_gradient(x):
    return x


reverse_gradient.defvjp(lambda x: (x, None), lambda _, g: (-g,))


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))


@jax.custom_vjp
def with_constant(x):
    return x


with_constant.defvjp(lambda x: (x, None), lambda _, g: (g + 0.1,))


@jax.custom_vjp
def with_aux(x, aux):
    return x


with_aux.defvjp(lambda x, aux: (x, aux), lambda aux, g: (g, jnp.full_like(aux, 0.01)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def scaled_gradient(x, scale):
    return x


scaled_gradient.defvjp(lambda x, s: (x, None), lambda s, _, g: (s * g,))


@jax.custom_jvp
def softsign(x):
    return x / (1 + jnp.abs(x))


softsign.defjvp(lambda p, t: (softsign(p[0]), t[0] / (1 + jnp.abs(p[0])) ** 2))


def conv(w, x):
    return lax.conv_general_dilated(
        x[None, None], w[None, None, :2, :2], (1, 1), "SAME"
    )


def attention(w, x):
    q, k, v = x @ w, x @ w.T, w
    mask = jnp.tril(jnp.ones((N, N), bool))
    return jax.nn.softmax(jnp.where(mask, q @ k.T, -jnp.inf)) @ v


def root(w):
    """The fixed point of a contraction, by lax.custom_root."""
    b = jnp.tanh(w[0])

    def f(y):
        return y - 0.3 * jnp.cos(y) - b

    def solve(f, y):
        return lax.fori_loop(0, 60, lambda _, y: y - f(y) * 0.9, y)

    return lax.custom_root(f, jnp.zeros(N), solve, lambda g, y: y / g(jnp.ones_like(y)))


def linear_solve(w):
    a = spd(w)
    return lax.custom_linear_solve(
        lambda x: a @ x, w[0], lambda _, b: jnp.linalg.solve(a, b), symmetric=True
    )


def searched(w):
    """While runs forward only: its result is not differentiated."""
    n = lax.while_loop(lambda n: n < 3, lambda n: n + 1, jnp.sum(w * 0).astype(int))
    return w * n


def newton(w):
    y = lax.while_loop(
        lambda c: c[0] < 5,
        lambda c: (c[0] + 1, jnp.cos(c[1])),
        (0, lax.stop_gradient(w)),
    )[1]
    return y * w


def map_blocks(w):
    return lax.map(lambda r: jnp.sin(r) * jnp.sum(r), w)


def scan_of_scans(w):
    def outer(c, r):
        inner = lax.scan(lambda d, x: (d * x + c[0], jnp.sin(d)), c[1], r)
        return c + inner[0], inner[1]

    return lax.scan(outer, w[0], w)


def policies(policy):
    return jax.checkpoint(lambda w: jnp.tanh(w @ jnp.sin(w)), policy=policy)


def named(w):
    return jax.checkpoint(
        lambda w: jnp.cos(checkpoint_name(jnp.sin(w), "s")) @ w,
        policy=jax.checkpoint_policies.save_only_these_names("s"),
    )(w)


def pooled(w, init, op):
    return lax.reduce_window(w, init, op, (2, 2), (1, 1), "VALID")


# Functions of w [N, N] and data x [N, N]; what they return is reduced to one loss.
FUNCTIONS = {
    "dense": lambda w, x: jnp.tanh(x @ w),
    "einsum": lambda w, x: jnp.einsum("ij,jk,kl->il", w, x, w),
    "batched_dot": lambda w, x: jnp.matmul(w.reshape(2, 2, N), x),
    "outer": lambda w, x: jnp.outer(w[0], x[0] + w[1]),
    "tensordot": lambda w, x: jnp.tensordot(w, x, axes=([0, 1], [1, 0])),
    "conv": conv,
    "conv_input": lambda w, x: conv(x, w),
    "depthwise": lambda w, x: lax.conv_general_dilated(
        x[None], w[:, None, :2], (1,), "SAME", feature_group_count=N
    ),
    "conv_transpose": lambda w, x: lax.conv_transpose(
        x[None, :, :], w[:2, :, None] * jnp.ones((1, 1, 2)), (2,), "SAME"
    ),
    "gather": lambda w, x: w[jnp.array([0, 2, 2])],
    "gather_data": lambda w, x: w[jnp.argsort(x[0]), 1],
    "two_indices": lambda w, x: w[jnp.array([0, 1]), jnp.array([2, 0])],
    "scatter": lambda w, x: jnp.zeros((N, N)).at[jnp.array([1, 0])].set(w[:2] ** 2),
    "scatter_add": lambda w, x: x.at[jnp.array([1, 1, 0])].add(w[:3]),
    "scatter_mul": lambda w, x: x.at[jnp.array([1, 0])].multiply(
        w[:2], unique_indices=True
    ),
    "scatter_max": lambda w, x: (x + w).at[0].max(w[1]),
    "segment_sum": lambda w, x: jax.ops.segment_sum(w, jnp.array([0, 1, 0, 2]), 3),
    "embedding": lambda w, x: jnp.take(w, jnp.array([3, 1, 1]), axis=0),
    "one_hot": lambda w, x: jax.nn.one_hot(jnp.array([3, 1]), N) @ w,
    "take_along": lambda w, x: jnp.take_along_axis(w, jnp.argsort(x, 1)[:, :1], 1),
    "sort": lambda w, x: jnp.sort(w, axis=1) * x,
    "sort_pairs": lambda w, x: lax.sort((x[0], w[0], w[1]), num_keys=1)[1],
    "top_k": lambda w, x: lax.top_k(w, 2)[0],
    "median": lambda w, x: jnp.median(w, axis=1),
    "cumsum": lambda w, x: jnp.cumsum(w, 0) * x,
    "cumprod": lambda w, x: jnp.cumprod(w, 1),
    "cummax": lambda w, x: lax.cummax(w, 0) * x,
    "logcumsumexp": lambda w, x: lax.cumlogsumexp(w, 1),
    "where": lambda w, x: jnp.where(x > 0, jnp.sin(w), w**2),
    "clip": lambda w, x: jnp.clip(w, -0.5, 0.5) * x,
    "minmax": lambda w, x: jnp.maximum(w, x) * jnp.minimum(w.T, 0.1),
    "abs_sign": lambda w, x: jnp.abs(w) * jnp.sign(x),
    "norm": lambda w, x: jnp.linalg.norm(w, axis=1),
    "norm_2": lambda w, x: jnp.linalg.norm(w, 2),
    "softmax": lambda w, x: jax.nn.softmax(w @ x),
    "log_softmax": lambda w, x: jax.nn.log_softmax(w + x)[jnp.arange(N), 1],
    "logsumexp": lambda w, x: jax.nn.logsumexp(w * x, axis=0),
    "gelu": lambda w, x: jax.nn.gelu(x @ w),
    "silu_glu": lambda w, x: jax.nn.silu(x @ w) * jax.nn.sigmoid(w),
    "elu_leaky": lambda w, x: jax.nn.elu(w) + jax.nn.leaky_relu(w.T),
    "layer_norm": lambda w, x: jax.nn.standardize(x @ w, axis=-1),
    "batch_norm": lambda w, x: (
        (w - w.mean(0, keepdims=True)) * lax.rsqrt(w.var(0, keepdims=True) + 1e-3)
    ),
    "special": lambda w, x: jax.scipy.special.erf(w) + lax.lgamma(w**2 + 1),
    "powers": lambda w, x: (w**2 + 1) ** 1.5 / (1 + jnp.exp(w)) + w**3,
    "hyperbolic": lambda w, x: jnp.arcsinh(w) + jnp.arctan2(w, 2 + x**2) + jnp.cosh(w),
    "logs": lambda w, x: jnp.log1p(w**2) * jnp.expm1(0.1 * w) + jnp.logaddexp(w, x),
    "fft": lambda w, x: jnp.abs(jnp.fft.fft(w * x)) ** 2,
    "rfft": lambda w, x: jnp.fft.irfft(jnp.fft.rfft(w) * (1 + 2j), n=N),
    "complex": lambda w, x: jnp.real((w + 1j * x) ** 3 / (2 + 1j * w**2)),
    "solve": lambda w, x: jnp.linalg.solve(spd(w), x),
    "inverse": lambda w, x: jnp.linalg.inv(spd(w)),
    "cholesky": lambda w, x: jnp.linalg.cholesky(spd(w)),
    "triangular": lambda w, x: jax.scipy.linalg.solve_triangular(spd(w), x),
    "eigh": lambda w, x: jnp.linalg.eigh(spd(w) + jnp.diag(jnp.arange(N) * 2.0))[0],
    "svd": lambda w, x: jnp.linalg.svd(w + jnp.diag(jnp.arange(N) * 3.0))[1],
    "qr": lambda w, x: jnp.abs(jnp.linalg.qr(spd(w))[1]),
    "slogdet": lambda w, x: jnp.linalg.slogdet(spd(w))[1],
    "expm": lambda w, x: jax.scipy.linalg.expm(0.1 * w),
    "while_forward": lambda w, x: searched(w),
    "while_of_stopped": lambda w, x: newton(w),
    "fori": lambda w, x: lax.fori_loop(0, 3, lambda i, h: jnp.sin(h @ w) * x[i, 0], x),
    "scan": lambda w, x: lax.scan(lambda h, r: (jnp.tanh(h * r), h), x[0], w),
    "reverse_scan": lambda w, x: lax.scan(
        lambda h, r: (h * r + 1, r), x[0], w, reverse=True, unroll=2
    ),
    "nested_scan": lambda w, x: scan_of_scans(w),
    "map": lambda w, x: map_blocks(w),
    "associative_scan": lambda w, x: lax.associative_scan(jnp.multiply, w + 2),
    "cond": lambda w, x: lax.cond(x[0, 0] > 0, jnp.sin, lambda w: w * 2, w),
    "cond_of_params": lambda w, x: lax.cond(
        w[0, 0] > 0, lambda w: w**2, lambda w: w[::-1], w
    ),
    "switch": lambda w, x: lax.switch(
        1 + (x[0, 0] > 0).astype(int), [lambda w: w, jnp.sin, jnp.cos], w
    ),
    "checkpoint": lambda w, x: policies(None)(w),
    "dots_saveable": lambda w, x: policies(jax.checkpoint_policies.dots_saveable)(w),
    "everything": lambda w, x: policies(jax.checkpoint_policies.everything_saveable)(w),
    "names_saveable": lambda w, x: named(w),
    "checkpoint_in_scan": lambda w, x: lax.scan(
        jax.checkpoint(lambda h, r: (jnp.sin(h * r), None)), x[0], w
    )[0],
    "custom_jvp": lambda w, x: softsign(w) * x,
    "custom_vjp": lambda w, x: reverse_gradient(jnp.sin(w)),
    "straight_through": lambda w, x: straight_through(2 * w) * x,
    "clipped_gradient": lambda w, x: clip_gradient(w * x),
    "normed_gradient": lambda w, x: norm_gradient(w) * x,
    "nondiff_argument": lambda w, x: scaled_gradient(w, 0.5) * x,
    "constant_part": lambda w, x: with_constant(w) * x,
    "constant_aux": lambda w, x: with_aux(w * x, jnp.sum(w**2)),
    "constant_in_scan": lambda w, x: lax.scan(
        lambda h, r: (with_constant(h * r), None), x[0], w
    )[0],
    "constant_in_checkpoint": lambda w, x: jax.checkpoint(with_constant)(w * w),
    "jit": lambda w, x: jax.jit(lambda w: jnp.sin(w) @ w)(w),
    "nested_jit": lambda w, x: jax.jit(jax.jit(jnp.cos))(w) * x,
    "inlined_jit": lambda w, x: jax.jit(jnp.cos, inline=True)(w) * x,
    "vmap": jax.vmap(lambda a, b: jnp.outer(a, b) ** 2),
    "vmapped_cond": jax.vmap(lambda a, b: lax.cond(b[0] > 0, jnp.sin, jnp.cos, a)),
    "vmapped_scan": lambda w, x: jax.vmap(
        lambda a: lax.scan(lambda c, s: (c * s, c), 1.0, a)
    )(w),
    "named_scope": lambda w, x: jax.named_scope("here")(jnp.sin)(w),
    "named_call": lambda w, x: jax.named_call(jnp.sin, name="sine")(w),
    "stop_gradient": lambda w, x: w * lax.stop_gradient(jnp.exp(w)),
    "barrier": lambda w, x: lax.optimization_barrier((w * x, jnp.sin(w))),
    "dynamic_slice": lambda w, x: lax.dynamic_slice(w, (1, x[0].argmax()), (2, 2)),
    "dynamic_update": lambda w, x: lax.dynamic_update_slice(
        w * x, jnp.sin(w[:2]), (x[0].argmin(), 0)
    ),
    "integer_aux": lambda w, x: w[jnp.round(jnp.abs(x[0])).astype(int) % N],
    "bf16": lambda w, x: (w.astype(jnp.bfloat16) * 2).astype(jnp.float64) * x,
    "f32": lambda w, x: jnp.sin(w.astype(jnp.float32)) @ x.astype(jnp.float32),
    "max_pool": lambda w, x: pooled(w, -jnp.inf, lax.max),
    "sum_pool": lambda w, x: pooled(w * x, 0.0, lax.add),
    "dropout": lambda w, x: (
        w * jax.random.bernoulli(jax.random.key(0), 0.5, w.shape) / 0.5
    ),
    "reparametrised": lambda w, x: (
        w + jnp.exp(w) * jax.random.normal(jax.random.key(1), w.shape)
    ),
    "attention": attention,
    "dot_product_attention": lambda w, x: jax.nn.dot_product_attention(
        (x @ w)[None, :, None], (x @ w.T)[None, :, None], w[None, :, None]
    ),
    "pad_and_slice": lambda w, x: jnp.pad(w, ((1, 2), (0, 1)))[1::2, :3],
    "interior_pad": lambda w, x: lax.pad(w, 0.0, ((1, -1, 1), (-1, 0, 2))) * 2,
    "concatenate": lambda w, x: jnp.concatenate([w[1:], x, w[:2] ** 2]),
    "split": lambda w, x: jnp.split(w, 2)[0] * jnp.split(w, 2, 1)[1].reshape(2, N),
    "stack": lambda w, x: jnp.stack([w[0], x[0], w[1]], 1) ** 2,
    "roll_flip": lambda w, x: jnp.roll(w, 1, 0) * jnp.flip(w) * jnp.rot90(x),
    "tile_repeat": lambda w, x: jnp.tile(w, 2) * jnp.repeat(x, 2, 1),
    "triangles": lambda w, x: jnp.tril(w) @ jnp.triu(w) + jnp.trace(w) + jnp.diag(w[0]),
    "argmax": lambda w, x: w * jnp.argmax(w),
    "prod": lambda w, x: jnp.prod(w, 0) + jnp.prod(w[0] + 2),
    "variance": lambda w, x: jnp.std(w, 0) * jnp.var(x),
    "interpolate": lambda w, x: jnp.interp(x[0], jnp.arange(N) * 1.0, w[0]),
    "polynomial": lambda w, x: jnp.polyval(w[0], x),
    "convolve": lambda w, x: jnp.convolve(w[0], x[0]),
    "map_coordinates": lambda w, x: jax.image.resize(w, (6, 6), "linear"),
    "odeint": lambda w, x: odeint(
        lambda y, t: -jnp.sin(y) * w[0, :2], x[0, :2], jnp.array([0.0, 0.3])
    ),
    "custom_root": lambda w, x: root(w),
    "custom_linear_solve": lambda w, x: linear_solve(w),
    "grad_inside": lambda w, x: jax.grad(lambda v: jnp.sum(jnp.sin(v * w) ** 2))(x),
    "jvp_inside": lambda w, x: jax.jvp(lambda v: jnp.sin(v) @ w, (x,), (w,))[1],
    "hessian_inside": lambda w, x: jax.hessian(lambda v: jnp.sum(jnp.sin(w @ v)))(x[0]),
    "linearize_inside": lambda w, x: jax.linearize(jnp.sin, w)[1](x),
    "einsum_trace": lambda w, x: jnp.einsum("ii->", w @ x)[None],
    "unused_result": lambda w, x: lax.cond(True, lambda w: w, jnp.exp, w)[:0].sum() + w,
    "scalars": lambda w, x: w[0, 0] * w[1, 1] + jnp.float64(2) * w[2, 2],
    "constant": lambda w, x: jnp.ones(2),
}

# --- How losses are combined


def three(f, params, x):
    """Two losses through the function, of a shared trunk; and one beside it."""
    out = f(params["w"] + jnp.tanh(params["v"]), x)
    leaves = [y for y in jax.tree.leaves(out) if jnp.issubdtype(y.dtype, jnp.floating)]
    leaves = [y.astype(jnp.float64) for y in leaves]
    return {
        "sine": sum(jnp.sum(jnp.sin(y)) * (i + 1) for i, y in enumerate(leaves)),
        "square": sum(jnp.mean(y**2) for y in leaves if y.size),
        "other": jnp.sum(params["v"] * x) * params["scale"],
    }


def in_turn(losses, i):
    """A mapping, or an array that is filled in one of several ways."""
    x = list(losses.values())
    forms = [
        lambda: losses,
        lambda: jnp.stack(x),
        lambda: jnp.zeros(3).at[0].set(x[0]).at[1].set(x[1]).at[2].set(x[2]),
        lambda: losses,
        lambda: jnp.concatenate([y[None] for y in x]),
        lambda: functools.reduce(
            lambda out, k: jnp.where(jnp.arange(3) == k, x[k], out),
            range(3),
            jnp.zeros(3),
        ),
    ]
    return forms[i % len(forms)]()


PARAMS = {
    "w": np.random.default_rng(0).normal(size=(N, N)),
    "v": np.random.default_rng(1).normal(size=(N, N)),
    "scale": np.array(1.5),
    "empty": np.zeros((0, 3)),
    "unused": np.ones(2),
}
MODES = ["plain", "vmap", "scan", "shard_map"]


def alone(fun, params, x, k):
    """The truth: one loss, and its own gradient."""

    def loss(params):
        losses = fun(params, x)
        return list(losses.values())[k] if isinstance(losses, dict) else losses[k]

    return jax.value_and_grad(loss)(params)


def within(mode, both):
    """`both`: (params, x [N, N]) -> a tree. Run in a mode, on a batch [8, N, N]."""
    if mode == "plain":
        return lambda params, xs: both(params, xs[0])
    if mode == "vmap":
        return jax.vmap(both, (None, 0))
    if mode == "scan":
        return lambda params, xs: lax.scan(
            lambda c, x: (c, both(params, x)), 0, xs[:2]
        )[1]

    def sharded(params, xs):
        params = lax.pcast(params, "data", to="varying")
        return jax.tree.map(lambda y: y[None], both(params, xs[0]))

    mesh = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    return jax.shard_map(
        sharded, mesh=mesh, in_specs=(P(), P("data")), out_specs=P("data")
    )


ROUNDED = {"bf16": 3e-2, "f32": 1e-5, "dot_product_attention": 1e-5}


def weights_of(objectives):
    """Other ones in every group."""
    return jnp.array([1.5 + 0.25 * i - 0.7 * len(objectives) for i in range(3)])[
        : len(objectives)
    ]


def mixed(fun, params, x, groups, pullback):
    """One gradient, of weights that are known before the backward pass."""
    weights = {name: weights_of(own) for name, own in groups.groups.items()}
    paths = [path for path, _ in named_leaves(params)]
    pulled = pull_back(lambda params: fun(params, x), params, False)
    sums = pulled.mixed(pullback, mixes_of(groups, pulled.names, paths, weights))
    return dict(zip(paths, sums, strict=True))


CASES = [
    pytest.param(name, i, mode, pullback, id=f"{name}-{mode}-{pullback}")
    for i, (name, (mode, pullback)) in enumerate(
        zip(
            FUNCTIONS,
            itertools.cycle(itertools.product(MODES, ["unroll", "vmap"])),
            strict=False,
        )
    )
]


@pytest.mark.parametrize(("name", "i", "mode", "pullback"), CASES)
def test_rows_are_those_of_jax_grad(name, i, mode, pullback):
    f = FUNCTIONS[name]

    def fun(params, x):
        return in_turn(three(f, params, x), i)

    params = jax.tree.map(jnp.asarray, PARAMS)
    xs = jax.random.normal(jax.random.key(7), (8, N, N), jnp.float64)
    groups = mmp.objective_groups(fun, params, xs[0])
    step = mmp.value_and_objective_grads(fun, pullback=pullback)

    def both(params, x):
        losses, grads = step(params, x)
        values = jnp.stack(
            list(losses.values()) if isinstance(losses, dict) else losses
        )
        expected = [alone(fun, params, x, k) for k in range(3)]
        truth = dict(named_leaves(jax.tree.map(lambda *r: jnp.stack(r), *expected)[1]))
        full = {}
        for path, grad in named_leaves(grads):
            own = groups.groups[groups.group_of(path)]
            index = [groups.objectives.index(name) for name in own]
            assert len(grad) == len(index)
            # What has no row is zero in truth.
            full[path] = jnp.zeros_like(truth[path]).at[np.array(index, int)].set(grad)
        sums = {}
        for path, grad in truth.items():
            own = groups.groups[groups.group_of(path)]
            index = np.array([groups.objectives.index(name) for name in own], int)
            sums[path] = jnp.tensordot(weights_of(own), grad[index], 1)
        found = (values, full, mixed(fun, params, x, groups, pullback))
        return found, (jnp.stack([x for x, _ in expected]), truth, sums)

    # Many small programs: what they compute matters, not how fast.
    options = {"xla_backend_optimization_level": "0"}
    run = jax.jit(within(mode, both), compiler_options=options)
    found, expected = run(params, xs)
    for (path, a), (_, b) in zip(
        named_leaves(found), named_leaves(expected), strict=True
    ):
        # Inside of a function of low precision a sum is rounded as its terms are.
        digits = ROUNDED.get(name, 1e-12) if path.startswith("2/") else 1e-12
        scale = digits * np.max(np.abs(b), initial=1e-6)
        np.testing.assert_allclose(a, b, rtol=digits, atol=scale, err_msg=path)
    assert groups.group_of("unused") == "none"
    assert groups.group_of("v") != "none"
