"""The transformation around a weighting: contract with Optax, errors, diagnostics."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmpareto_jax as mmp

W = mmp.weightings
PARAMS = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(4)}


def stacked(num=2, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        path: jnp.asarray(rng.normal(size=(num, *x.shape)), dtype)
        for path, x in PARAMS.items()
    }


def matrix(grads):
    return np.concatenate([np.asarray(x, float).reshape(len(x), -1) for x in grads], 1)


# --- What it computes


@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize(
    ("weighting", "weights"),
    [(W.uniform, np.ones), (W.mean, lambda k: np.full(k, 1 / k))],
)
def test_fixed_weights(weighting, weights, num):
    grads = stacked(num)
    tx = mmp.aggregate(weighting(), num)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    for path, x in grads.items():
        expected = np.tensordot(weights(num), np.asarray(x), 1)
        np.testing.assert_allclose(updates[path], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num", [2, 3])
def test_mgda(num):
    grads = stacked(num)
    tx = mmp.aggregate(W.mgda(), num)
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    rows = matrix(grads.values())
    out = matrix([x[None] for x in updates.values()])[0]
    inner = rows @ out
    # The point of least norm: no gradient is closer to zero along it.
    np.testing.assert_allclose(inner.min(), out @ out, rtol=1e-5)


@pytest.mark.parametrize("num", [2, 3])
def test_mmpareto_is_such_a_weighting(num):
    grads = stacked(num)
    both = (mmp.mmpareto(num, gamma=2.0), mmp.aggregate(W.mmpareto(2.0), num))
    outs = [tx.update(grads, tx.init(PARAMS), PARAMS)[0] for tx in both]
    chex.assert_trees_all_equal(*outs)


def test_groups_are_weighted_apart():
    groups = mmp.ObjectiveGroups.from_prefixes(
        {"a": ("joint", "audio"), "b": ("joint", "visual"), "c": ("visual",), "d": ()}
    )
    params = PARAMS | {"c": jnp.zeros(()), "d": jnp.zeros((2, 2))}
    grads = stacked() | {"c": jnp.array([7.0]), "d": jnp.zeros((0, 2, 2))}
    tx = mmp.aggregate(W.mgda(), groups)
    updates, state = tx.update(grads, tx.init(params), params)
    for path in PARAMS:
        alone = mmp.aggregate(W.mgda(), 2)
        expected, _ = alone.update(grads[path], alone.init(params[path]))
        np.testing.assert_allclose(updates[path], expected, rtol=1e-6)
    np.testing.assert_array_equal(updates["c"], 7.0)
    np.testing.assert_array_equal(updates["d"], np.zeros((2, 2)))
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    assert list(mmp.diagnostics(state)) == ["a", "b"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_dtypes_are_kept(dtype, x64):
    params = jax.tree.map(lambda x: x.astype(dtype), PARAMS)
    tx = mmp.mmpareto(2)
    state = tx.init(params)
    updates, after = jax.jit(tx.update)(stacked(dtype=dtype), state, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(updates, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    wide = jnp.float64 if dtype == "float64" else jnp.float32
    assert mmp.diagnostics(after)["all"]["weights"].dtype == wide


def test_mixed_dtypes():
    """A bfloat16 leaf beside float32 ones takes part in the same Gramian."""
    grads = stacked() | {"a": stacked(dtype=jnp.bfloat16)["a"]}
    params = {"a": PARAMS["a"].astype(jnp.bfloat16), "b": PARAMS["b"]}
    tx = mmp.mmpareto(2)
    updates, state = tx.update(grads, tx.init(params), params)
    assert updates["a"].dtype == jnp.bfloat16
    norms = np.linalg.norm(matrix(grads.values()), axis=1)
    np.testing.assert_allclose(mmp.diagnostics(state)["all"]["norms"], norms, rtol=1e-5)


def test_an_empty_parameter():
    num = 2
    params = PARAMS | {"empty": jnp.zeros((0, 3))}
    grads = stacked(num) | {"empty": jnp.zeros((num, 0, 3))}
    tx = mmp.mmpareto(num)
    updates, _ = tx.update(grads, tx.init(params), params)
    expected, _ = tx.update(stacked(num), tx.init(PARAMS), PARAMS)
    assert updates["empty"].shape == (0, 3)
    np.testing.assert_allclose(updates["a"], expected["a"])


# --- The Optax contract


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_init_on_shapes(variant):
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), PARAMS)
    tx = mmp.mmpareto(2, gamma=optax.constant_schedule(1.0), variant=variant)
    chex.assert_trees_all_equal(tx.init(shapes), tx.init(PARAMS))
    evaluated = jax.eval_shape(tx.init, PARAMS)
    chex.assert_trees_all_equal_shapes_and_dtypes(evaluated, tx.init(PARAMS))


@pytest.mark.parametrize(
    "weighting", [W.uniform(), W.mgda(), W.mmpareto(lambda step: 1.0 + step)]
)
def test_the_second_update_is_not_compiled_again(weighting):
    tx = optax.chain(mmp.aggregate(weighting, 2), optax.sgd(0.1, momentum=0.9))
    update = jax.jit(tx.update)
    state, params = tx.init(PARAMS), PARAMS
    for seed in range(3):
        updates, state = update(stacked(seed=seed), state, params)
        params = optax.apply_updates(params, updates)
    assert update._cache_size() == 1


def test_scan_over_steps():
    tx = optax.chain(mmp.mmpareto(2), optax.adam(0.1))
    many = jax.tree.map(lambda *x: jnp.stack(x), *(stacked(seed=s) for s in range(3)))

    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), mmp.diagnostics(state)

    start = (PARAMS, tx.init(PARAMS))
    (last, _), found = jax.lax.scan(step, start, many)
    assert found["all"]["weights"].shape == (3, 2)
    carry = start
    step = jax.jit(step)
    for seed in range(3):
        carry, _ = step(carry, stacked(seed=seed))
    chex.assert_trees_all_close(last, carry[0], rtol=1e-5)


def test_extra_arguments_are_ignored():
    tx = mmp.aggregate(W.mean(), 2)
    tx.update(stacked(), tx.init(PARAMS), PARAMS, value=1.0, anything=None)


def test_none_leaves():
    params = PARAMS | {"none": None}
    tx = optax.chain(mmp.mmpareto(2), optax.sgd(0.1))
    updates, _ = tx.update(stacked() | {"none": None}, tx.init(params), params)
    assert updates["none"] is None
    assert updates["a"].shape == (2, 3)


@pytest.mark.parametrize("place", ["within", "first"])
def test_partition(place):
    """Inside a partition the other leaves are MaskedNode; first, it needs no mask."""
    groups = mmp.ObjectiveGroups.from_prefixes({"a": ("x", "y"), "b": ("x",)})
    grads = stacked() | {"b": stacked(1)["b"]}
    rule = mmp.mmpareto(groups)
    labels = {"a": "encoder", "b": "head"}
    if place == "within":
        parts = {
            "encoder": optax.chain(rule, optax.sgd(0.1)),
            "head": optax.chain(mmp.mmpareto(1), optax.sgd(1.0)),
        }
        tx = optax.partition(parts, labels)
    else:
        parts = {"encoder": optax.sgd(0.1), "head": optax.sgd(1.0)}
        tx = optax.chain(rule, optax.partition(parts, labels))
    updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
    alone = mmp.mmpareto(2)
    expected, _ = alone.update(grads["a"], alone.init(PARAMS["a"]))
    np.testing.assert_allclose(updates["a"], -0.1 * expected, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -grads["b"][0], rtol=1e-6)
    assert list(mmp.diagnostics(state)) == ["a"]


def test_named_chain_and_tree_get():
    tx = optax.named_chain(("mmpareto", mmp.mmpareto(2)), ("adam", optax.adam(0.1)))
    state = tx.init(PARAMS)
    _, state = tx.update(stacked(), state, PARAMS)
    assert isinstance(state["mmpareto"], mmp.AggregateState)
    np.testing.assert_array_equal(
        optax.tree.get(state, "cosine"), mmp.diagnostics(state)["all"]["cosine"]
    )
    assert optax.tree.get(state, "diagnostics").keys() == {"all"}
    assert optax.tree.get(state, "count") == 1  # Adam's; ours has no such name


def test_schedule_keeps_count_unambiguous():
    rule = mmp.mmpareto(2, gamma=lambda step: 1.0 + step)
    tx = optax.chain(rule, optax.adam(0.1))
    assert optax.tree.get(tx.init(PARAMS), "count") == 0


def test_multi_steps_after_it():
    tx = optax.chain(
        mmp.mmpareto(2), optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    )
    state = tx.init(PARAMS)
    first, state = tx.update(stacked(), state, PARAMS)
    second, state = tx.update(stacked(seed=1), state, PARAMS)
    assert not np.any(first["a"])
    assert np.all(second["a"])


def test_nnx_optimizer():
    """nnx.Optimizer hands over pure states, `nnx.split` gives Variables (`/value`)."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.encoder = nnx.Linear(3, 2, rngs=rngs)
            self.head = nnx.Linear(2, 1, rngs=rngs)

    model = Model(nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)

    def losses_fn(params):
        model = nnx.merge(graphdef, params, copy=True)
        features = model.encoder(jnp.ones((1, 3)))
        return {"joint": model.head(features).sum(), "audio": (features**2).sum()}

    groups = mmp.objective_groups(losses_fn, params)
    assert groups.group_of("encoder/kernel") == "joint+audio"
    _, grads = mmp.value_and_objective_grads(losses_fn, groups)(params)
    tx = optax.chain(mmp.mmpareto(groups), optax.sgd(0.1))
    before = jax.tree.map(jnp.copy, nnx.as_pure(nnx.state(model, nnx.Param)))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, grads)
    after = nnx.as_pure(nnx.state(model, nnx.Param))
    chex.assert_trees_all_equal_shapes_and_dtypes(before, after)
    expected, _ = tx.update(grads, tx.init(params), params)
    for a, b, c in zip(*map(jax.tree.leaves, (before, after, expected)), strict=True):
        np.testing.assert_allclose(b, a + c, rtol=1e-6, atol=1e-7)
    assert "joint+audio" in mmp.diagnostics(optimizer.opt_state)


# --- NaN and infinity pass through visibly


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize(
    "rule",
    [
        mmp.mmpareto,
        lambda num: mmp.mmpareto(num, variant="official"),
        lambda num: mmp.aggregate(W.mgda(), num),
        lambda num: mmp.aggregate(W.uniform(), num),
        lambda num: mmp.aggregate(W.mean(), num),
    ],
    ids=["paper", "official", "mgda", "uniform", "mean"],
)
def test_not_finite(rule, bad):
    tx = rule(3)
    update = jax.jit(tx.update)
    grads = stacked(3)
    spoiled = grads | {"a": grads["a"].at[1, 0, 0].set(bad)}
    updates, state = update(spoiled, tx.init(PARAMS), PARAMS)
    assert not np.isfinite(updates["a"][0, 0])
    assert not np.isfinite(mmp.diagnostics(state)["all"]["norms"][1])
    # The state remembers nothing that would spoil the next step.
    after, _ = update(grads, state, PARAMS)
    expected, _ = update(grads, tx.init(PARAMS), PARAMS)
    chex.assert_trees_all_equal(after, expected)


def test_one_group_does_not_spoil_another():
    groups = mmp.ObjectiveGroups.from_prefixes({"a": ("x", "y"), "b": ("x", "z")})
    tx = mmp.mmpareto(groups)
    grads = stacked()
    spoiled = grads | {"a": grads["a"].at[0, 0, 0].set(jnp.nan)}
    updates, _ = tx.update(spoiled, tx.init(PARAMS), PARAMS)
    expected, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert np.isnan(updates["a"]).all()
    np.testing.assert_allclose(updates["b"], expected["b"], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_apply_if_finite_after_it_skips_the_step(bad, variant):
    rule = mmp.mmpareto(2, variant=variant)
    tx = optax.chain(rule, optax.apply_if_finite(optax.sgd(0.1), 3))
    update = jax.jit(tx.update)
    grads, state, params = stacked(), tx.init(PARAMS), PARAMS
    for spoil in (False, True, False):
        now = grads | {"b": grads["b"].at[0, 0].set(bad)} if spoil else grads
        updates, state = update(now, state, params)
        assert np.any(updates["a"]) == (not spoil)
        params = optax.apply_updates(params, updates)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert optax.tree.get(state, "total_notfinite") == 1


# --- Errors


def raises(error, match, grads, params=PARAMS, objectives=2):
    tx = mmp.aggregate(W.uniform(), objectives)
    state = tx.init(params if params is not None else PARAMS)
    with pytest.raises(error, match=match):
        tx.update(grads, state, params)


def test_unstacked_gradients():
    grads = stacked() | {"b": jnp.zeros(4)}
    raises(
        ValueError,
        r"leaf 'b' has its parameter's own shape \(4,\): these gradients are not "
        r"stacked. Expected \(2, 4\)",
        grads,
    )


def test_unstacked_gradients_of_matching_length():
    """A parameter [2, 3] alone could pass for two objectives."""
    raises(ValueError, "leaf 'a' has its parameter's own shape", PARAMS)


@pytest.mark.parametrize(
    ("leaf", "match"),
    [
        (jnp.zeros((3, 4)), r"leaf 'b' must have a leading axis of 2.*\(3, 4\)"),
        (jnp.zeros((1, 4)), r"leaf 'b' must have a leading axis of 2.*\(1, 4\)"),
        (jnp.zeros((0, 4)), r"leaf 'b' must have a leading axis of 2.*\(0, 4\)"),
        (jnp.zeros(()), r"leaf 'b' is a scalar; .* leading axis of 2"),
    ],
)
@pytest.mark.parametrize("params", [PARAMS, None], ids=["params", "no-params"])
def test_leading_axis(leaf, match, params):
    raises(ValueError, f"aggregate: {match}", stacked() | {"b": leaf}, params)


def test_a_scalar_parameter_unstacked():
    params = {"s": jnp.zeros(())}
    raises(ValueError, "leaf 's' has its parameter's own shape", params, params)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64, bool])
def test_not_real_floating(dtype):
    grads = stacked() | {"b": jnp.zeros((2, 4), dtype)}
    raises(TypeError, "leaf 'b' must be real and floating, got", grads)


def test_another_shape_than_the_parameter():
    grads = stacked() | {"b": jnp.zeros((2, 5))}
    raises(ValueError, r"leaf 'b' has shape \(2, 5\).*expected \(2, 4\)", grads)


def test_nested_paths_are_named():
    params = {"layers": [{"kernel": jnp.zeros(3)}, {"kernel": jnp.zeros(3)}]}
    grads = {"layers": [{"kernel": jnp.zeros((2, 3))}, {"kernel": jnp.zeros((2, 4))}]}
    raises(ValueError, "leaf 'layers/1/kernel' has shape", grads, params)


def test_a_parameter_of_no_group():
    groups = mmp.ObjectiveGroups.from_prefixes({"a": ("x", "y")})
    tx = mmp.aggregate(W.uniform(), groups)
    with pytest.raises(ValueError, match="parameter 'b' belongs to no group"):
        tx.init(PARAMS)


@pytest.mark.parametrize("objectives", [0, -2, ()])
def test_too_few_objectives(objectives):
    with pytest.raises(ValueError, match="aggregate: needs at least one objective"):
        mmp.aggregate(W.uniform(), objectives)


# --- Diagnostics


def test_diagnostics():
    groups = mmp.ObjectiveGroups.from_prefixes({"a": ("x", "y"), "b": ("x", "z", "y")})
    tx = optax.chain(mmp.mmpareto(groups), optax.adam(0.1))
    state = tx.init(PARAMS)
    before = mmp.diagnostics(state)
    assert all(not np.any(x) for x in jax.tree.leaves(before))
    grads = {"a": stacked()["a"], "b": stacked(3)["b"]}
    _, state = tx.update(grads, state, PARAMS)
    found = mmp.diagnostics(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(before, found)
    for path, x in grads.items():
        rows = matrix([x])
        norms = np.linalg.norm(rows, axis=1)
        cosines = rows @ rows.T / np.outer(norms, norms)
        cosine = cosines[np.triu_indices(len(rows), 1)].min()
        d = found[path]
        of_update = {"weights", "norms", "cosine", "conflict", "magnitude"}
        assert set(d) == of_update | {"gap", "iterations"}
        assert 0 <= d["gap"] < 1e-6
        assert (d["iterations"] > 0) == (len(rows) > 2)
        np.testing.assert_allclose(d["norms"], norms, rtol=1e-5)
        np.testing.assert_allclose(d["cosine"], cosine, rtol=1e-5)
        assert d["conflict"] == (cosine < 0)
        np.testing.assert_allclose(d["magnitude"], d["weights"].mean(), rtol=1e-6)


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_diagnostic_weights_describe_the_update(variant):
    """Exactly for `paper`; in norm for `official`, whose magnitude is per leaf."""
    grads = stacked(seed=3)
    tx = mmp.mmpareto(2, variant=variant)
    updates, state = tx.update(grads, tx.init(PARAMS), PARAMS)
    weights = np.asarray(mmp.diagnostics(state)["all"]["weights"], float)
    out = matrix([x[None] for x in updates.values()])[0]
    described = weights @ matrix(grads.values())
    np.testing.assert_allclose(
        np.linalg.norm(described), np.linalg.norm(out), rtol=1e-5
    )
    if variant == "paper":
        np.testing.assert_allclose(described, out, rtol=1e-4, atol=1e-6)


def test_diagnostics_of_another_state():
    with pytest.raises(ValueError, match="contains no AggregateState"):
        mmp.diagnostics(optax.adam(0.1).init(PARAMS))


def test_diagnostics_of_two_aggregations():
    states = [mmp.mmpareto(2).init(PARAMS)] * 2
    with pytest.raises(ValueError, match="two aggregations have a group 'all'"):
        mmp.diagnostics(states)
    assert "all" in mmp.diagnostics(states[0])
