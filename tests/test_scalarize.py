"""Loss weightings: before differentiation and on the gradients, the same update."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp

W = mmp.weightings
RULES = {
    "uncertainty": W.uncertainty(optax.sgd(0.1)),
    "imtl_l": W.imtl_l(optax.sgd(0.1)),
    "dwa": W.dwa(),
    "geometric_mean": W.geometric_mean(),
    "stch": W.stch(0.1),
    "famo": W.famo(),
    "rlw": W.rlw(),
}
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "encoder": jax.random.normal(KEYS[0], (3, 4)),
    "heads": {k: jax.random.normal(KEYS[1], (4, 2)) for k in ("a", "b", "c")},
    "unused": jnp.ones(2),
}
BATCH = jax.random.normal(KEYS[2], (6, 3))


def losses_fn(params, x):
    features = jnp.tanh(x @ params["encoder"])
    return {
        name: jnp.mean((features @ head - k) ** 2)
        for k, (name, head) in enumerate(params["heads"].items())
    }


def close(a, b):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b
    )


@pytest.mark.parametrize("name", RULES)
def test_both_ways_are_one(name):
    """Three steps: parameters, the heads' too, and the weighting's state."""
    rule = RULES[name]
    groups = mmp.objective_groups(losses_fn, PARAMS, BATCH)
    tx = optax.chain(mmp.aggregate(rule, groups), optax.sgd(0.1))
    value_and_grads = mmp.value_and_objective_grads(losses_fn, groups)
    loss_fn = mmp.scalarize(rule, losses_fn)

    @jax.jit
    def after(params, state):
        losses, grads = value_and_grads(params, BATCH)
        updates, state = tx.update(grads, state, params, losses=losses)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def before(params, state):
        grads, (_, state) = jax.grad(loss_fn, has_aux=True)(params, state, BATCH)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), state

    one, one_state = PARAMS, tx.init(PARAMS)
    two, two_state = PARAMS, rule.init(3)
    for _ in range(3):
        one, one_state = after(one, one_state)
        two, two_state = before(two, two_state)
    close(one, two)
    close(one_state[0].weighting, two_state)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), one, PARAMS)
    assert moved["encoder"]
    assert all(moved["heads"].values())
    assert not moved["unused"]


def test_one_backward_pass():
    """The FLOPs of the plain sum, and far below those of all gradients."""
    params = {
        "encoder": jnp.ones((64, 64)),
        "heads": {k: jnp.ones((64, 2)) for k in ("a", "b", "c")},
    }
    batch = jnp.ones((32, 64))

    def flops(fun, *args):
        analysis = jax.jit(fun).lower(*args).compile().cost_analysis()
        return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]

    def plain(params, x):
        return sum(losses_fn(params, x).values())

    rule = W.geometric_mean()
    loss_fn = mmp.scalarize(rule, losses_fn)
    ours = flops(jax.grad(loss_fn, has_aux=True), params, rule.init(3), batch)
    assert ours <= 1.02 * flops(jax.grad(plain), params, batch)
    assert ours <= 0.7 * flops(mmp.value_and_objective_grads(losses_fn), params, batch)


def test_aux_and_extra_losses():
    rule = W.famo()

    def with_aux(params, x):
        return losses_fn(params, x), {"mean": x.mean()}

    loss_fn = mmp.scalarize(rule, with_aux, has_aux=True)
    state = rule.init(3)
    _, (losses, state, aux) = loss_fn(PARAMS, state, BATCH)
    assert set(losses) == {"a", "b", "c"}
    np.testing.assert_allclose(aux["mean"], BATCH.mean(), rtol=1e-6)
    better = {"a": losses["a"] / 2, "b": losses["b"], "c": losses["c"]}
    _, (_, state, _) = loss_fn(PARAMS, state, BATCH, last_batch_losses=better)
    logits = state.logits.value
    assert logits[0] < logits[1]  # what has improved is weighted less


def test_an_array_of_losses():
    loss_fn = mmp.scalarize(W.stch(), lambda w: jnp.stack([w.sum(), (w**2).sum()]))
    grads, (losses, _) = jax.grad(loss_fn, has_aux=True)(jnp.ones(2), ())
    assert losses.shape == (2,)
    np.testing.assert_allclose(grads, [0.75, 0.75])


def test_mappings_are_aligned_by_name():
    """In jit a dictionary comes sorted, while `fun` has its own order."""
    names = ("z", "a", "m")
    rule = W.famo(optax.sgd(1.0))

    def fun(p):
        return {name: p[k] ** 2 for k, name in enumerate(names)}

    loss_fn = mmp.scalarize(rule, fun)
    p = jnp.array([1.0, 2.0, 3.0])
    _, (_, first) = loss_fn(p, rule.init(3))
    again = {"m": 9.0, "z": 0.25, "a": 4.0}  # z has improved
    found = [
        step(p, first, last_batch_losses=given)[1][1].logits.value
        for step in (loss_fn, jax.jit(loss_fn))
        for given in (again, jax.jit(lambda x: x)(again), jnp.array([0.25, 4.0, 9.0]))
    ]
    # z = 1/3 each, and log 4 for the first: z (d - mean d) = log 4 (2, -1, -1) / 9.
    for logits in found:
        expected = -np.log(4) * np.array([2, -1, -1]) / 9
        np.testing.assert_allclose(logits, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"a": 1.0, "b": 1.0}, "scalarize: last_batch_losses has no 'c'"),
        ({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}, "has an unknown 'd'"),
        (jnp.ones(2), r"a scalar for each of the losses .*got shape \(2,\)"),
    ],
)
def test_losses_that_do_not_fit(given, match):
    rule = W.famo()
    with pytest.raises(ValueError, match=match):
        mmp.scalarize(rule, losses_fn)(
            PARAMS, rule.init(3), BATCH, last_batch_losses=given
        )


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("name", ["famo", "dwa", "uncertainty", "imtl_l"])
@pytest.mark.parametrize("num", [1, 2, 4])
def test_a_state_for_another_number_of_losses(name, num, jitted):
    rule = RULES[name]
    loss_fn = mmp.scalarize(rule, losses_fn)
    loss_fn = jax.jit(loss_fn) if jitted else loss_fn
    match = rf"state must be weighting.init\(3\), for .*'c'.*shape \({num},\) instead"
    with pytest.raises(ValueError, match=match):
        loss_fn(PARAMS, rule.init(num), BATCH)
    with pytest.raises(ValueError, match="got another structure"):
        loss_fn(PARAMS, (jnp.zeros(3),), BATCH)


def dtypes_of(tree):
    return [x.dtype for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize(
    "dtypes", ["bfloat16", "float16", "float32", ("bfloat16", "float32")]
)
@pytest.mark.parametrize("name", RULES)
def test_losses_of_low_precision(name, dtypes):
    """The rule sees float32, its state keeps its types, and a scan accepts it."""
    a, b = (dtypes, dtypes) if isinstance(dtypes, str) else dtypes

    def fun(p, x):
        return {"b": (p[0] * x).astype(b) ** 2, "a": ((p[1] - x) ** 2).astype(a)}

    rule, p = RULES[name], jnp.array([1.0, 3.0])

    def step(state, x):
        # Optax's Adam does not live under this rule.
        with jax.numpy_dtype_promotion("standard" if name == "famo" else "strict"):
            loss_fn = mmp.scalarize(rule, fun)
            grad = jax.value_and_grad(loss_fn, has_aux=True)
            (loss, (losses, state)), grads = grad(p, state, x)
        assert (losses["a"].dtype, losses["b"].dtype) == (a, b)
        return state, (loss, grads)

    state = rule.init(2)
    xs = jnp.array([1.0, 0.5, 2.0])
    after, (loss, grads) = jax.jit(lambda s: jax.lax.scan(step, s, xs))(state)
    assert loss.dtype == grads.dtype == jnp.float32
    assert dtypes_of(after) == dtypes_of(state)
    assert not any(x.weak_type for x in jax.tree.leaves(after))
    expected = state
    for k, x in enumerate(xs):
        values = jnp.stack([y.astype(jnp.float32) for y in fun(p, x).values()])
        weights, expected = rule.weights(values, expected)
        np.testing.assert_allclose(loss[k], weights @ values, rtol=1e-2)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-2, atol=1e-3),
        after,
        expected,
    )


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_the_state_keeps_its_types(name, wide, x64):
    """Made with x64 or before it, for losses of the other width."""
    rule = RULES[name]
    with jax.enable_x64(wide):
        state = rule.init(2)
    dtype = "float32" if wide else "float64"
    values = jnp.array([1.0, 2.0], dtype)
    with jax.numpy_dtype_promotion("standard" if name == "famo" else "strict"):
        loss, (_, after) = mmp.scalarize(rule, lambda v: v)(values, state)
    assert loss.dtype == dtype
    assert dtypes_of(after) == dtypes_of(state)


@pytest.mark.parametrize("name", RULES)
def test_many_runs_in_vmap(name):
    """Each has its own state; a NaN in one is no matter to the other."""
    rule = RULES[name]
    loss_fn = mmp.scalarize(rule, lambda v: {"b": v[0] ** 2, "a": v[1] ** 2})
    grad = jax.grad(loss_fn, has_aux=True)
    values = jnp.array([[1.0, 2.0], [jnp.nan, 1.0]])
    states = jax.tree.map(lambda x: jnp.stack([x, x]), rule.init(2))
    grads, (_, after) = jax.jit(jax.vmap(grad))(values, states)
    one, (_, expected) = grad(values[0], rule.init(2))
    np.testing.assert_allclose(grads[0], one, rtol=1e-6)
    jax.tree.map(
        lambda x, y, z: (
            np.testing.assert_allclose(x[0], y, rtol=1e-6),
            np.testing.assert_array_equal(x[1], z),
        ),
        after,
        expected,
        rule.init(2),
    )


@pytest.mark.parametrize("num", [2, 8, 40])
@pytest.mark.parametrize("name", RULES)
def test_an_array_is_the_mapping(name, num):
    rule, values = RULES[name], jnp.linspace(0.5, 2.0, num)
    names = [f"loss {num - k}" for k in range(num)]

    def outputs(fun):
        state, found = rule.init(num), []
        for x in (1.0, 2.0):
            grads, (_, state) = jax.grad(mmp.scalarize(rule, fun), has_aux=True)(
                values, state, x
            )
            found.append((grads, state))
        return found

    by_array = outputs(lambda v, x: v**x)
    by_mapping = outputs(lambda v, x: dict(zip(names, v**x, strict=True)))
    close(by_array, by_mapping)


def test_a_new_state_that_is_not_finite_is_refused():
    """Although the losses are; and an infinity that was there from the start stays."""

    def weights(losses, state):
        best = jnp.minimum(state["best"], losses)
        return losses, {"best": best, "last": jnp.log(losses - 1)}

    start = {"best": jnp.full((2,), jnp.inf), "last": jnp.zeros(2)}
    rule = mmp.LossWeighting(lambda _: start, weights)
    loss_fn = mmp.scalarize(rule, lambda v: v)
    _, (_, state) = loss_fn(jnp.array([1.0, 2.0]), start)
    jax.tree.map(np.testing.assert_array_equal, state, start)
    _, (_, state) = loss_fn(jnp.array([3.0, 2.0]), start)
    np.testing.assert_array_equal(state["best"], [3.0, 2.0])


def test_weightings_of_gradients_are_refused():
    with pytest.raises(TypeError, match=r"must be a LossWeighting.*got Weighting"):
        mmp.scalarize(W.mgda(), losses_fn)


@pytest.mark.parametrize(
    ("losses", "match"),
    [
        (None, r"call tx.update\(grads, state, params, losses=losses\)"),
        ({"a": 1.0, "b": 2.0}, "losses has no 'c'"),
        (jnp.ones(2), r"a scalar for each of .*got shape \(2,\)"),
    ],
)
@pytest.mark.parametrize("rule", [W.dwa(), W.mgda("loss"), W.gradnorm(), W.db_mtl()])
def test_missing_losses(rule, losses, match):
    tx = mmp.aggregate(rule, ("a", "b", "c"))
    grads, params = jnp.ones((3, 2)), jnp.ones(2)
    extra = {} if losses is None else {"losses": losses}
    with pytest.raises(ValueError, match=match):
        tx.update(grads, tx.init(params), params, **extra)


def test_each_group_gets_its_own_losses():
    groups = mmp.ObjectiveGroups.from_prefixes(
        {"x": ("joint", "audio"), "y": ("visual", "joint"), "h": ("visual",)},
        ("joint", "audio", "visual"),
    )
    losses = {"visual": 4.0, "audio": 2.0, "joint": 1.0}
    seen = []

    def weights(gramian, state, losses):
        seen.append(np.asarray(losses).tolist())
        return losses, state

    rule = mmp.Weighting(lambda _: (), weights, ("losses",))
    params = {k: jnp.zeros(1) for k in "xyh"}
    grads = {"x": jnp.ones((2, 1)), "y": jnp.ones((2, 1)), "h": jnp.ones((1, 1))}
    tx = mmp.aggregate(rule, groups)
    updates, _ = tx.update(grads, tx.init(params), params, losses=losses)
    assert seen == [[1.0, 2.0], [4.0, 1.0]]
    assert [float(updates[k][0]) for k in "xyh"] == [3.0, 5.0, 1.0]

    rule = mmp.LossWeighting(lambda _: (), lambda losses, state: (losses, state))
    tx = mmp.aggregate(rule, groups)
    updates, _ = tx.update(grads, tx.init(params), params, losses=losses)
    assert [float(updates[k][0]) for k in "xyh"] == [3.0, 5.0, 4.0]


def test_unknown_extra():
    rule = mmp.Weighting(lambda _: (), lambda g, s: (g[0], s), ("gradients",))
    tx = mmp.aggregate(rule, 2)
    with pytest.raises(ValueError, match="unknown extra 'gradients'"):
        tx.update(jnp.ones((2, 1)), tx.init(jnp.ones(1)))
