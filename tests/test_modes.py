"""JAX's other modes: strict promotion, checks, export, pmap, a first NaN that stops."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from promises import METHODS

import mmpareto_jax as mmp


@pytest.fixture
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield


def losses_fn(params, batch):
    features = jnp.tanh(batch @ params["trunk"])
    left = features @ params["left"]
    return {"left": jnp.mean(left**2), "right": jnp.sum(jnp.abs(features)) * 0.1}


def problem(dtype="float32"):
    rng = np.random.default_rng(0)
    shapes = {"trunk": (3, 4), "left": (4, 2)}
    params = {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in shapes.items()}
    return params, jnp.asarray(rng.normal(size=(8, 3)), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_every_rule_under_strict_promotion(name, dtype, strict):
    """Half precision beside single in one group, losses in half precision."""
    num = METHODS[name].num
    grads = {"a": jnp.ones((num, 3), dtype), "b": jnp.ones((num, 2), "float32")}
    params = jax.tree.map(lambda x: x[0], grads)
    tx = mmp.aggregate(METHODS[name].rule, num)
    state = tx.init(params)
    out, after = jax.eval_shape(
        lambda g: tx.update(g, state, params, losses=jnp.ones(num, dtype)), grads
    )
    assert {k: x.dtype for k, x in out.items()} == {"a": dtype, "b": "float32"}
    alike = jax.tree.map(lambda x, y: x.dtype == y.dtype, after, state)
    assert all(jax.tree.leaves(alike))


@pytest.mark.parametrize("name", METHODS)
def test_every_product_of_a_rule_is_exact(name):
    """Also where a device has TF32 or bfloat16 for products by default."""
    num = METHODS[name].num
    grads = {"a": jnp.ones((num, 3)), "b": jnp.ones((num, 2))}
    params = jax.tree.map(lambda x: x[0], grads)
    tx = mmp.aggregate(METHODS[name].rule, num)

    def update(grads, state):
        return tx.update(grads, state, params, losses=jnp.ones(num))

    text = jax.jit(update).lower(grads, tx.init(params)).as_text()
    assert re.findall(r".*dot_general.*DEFAULT.*", text) == []


def test_products_of_the_min_norm_point_are_exact():
    text = jax.jit(mmp.min_norm_weights).lower(jnp.eye(4)).as_text()
    products = re.findall(r".*dot_general.*", text)
    assert products
    assert all("HIGHEST" in x for x in products)


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_under_strict_promotion(dtype, pullback, strict):
    params, batch = problem(dtype)
    groups = mmp.objective_groups(losses_fn, params, batch)
    tx = optax.chain(
        mmp.mmpareto(groups, gamma=jnp.float32(1.5), max_magnitude=3.0), optax.sgd(0.1)
    )
    grad_fn = mmp.value_and_objective_grads(losses_fn, groups, pullback=pullback)

    @jax.jit
    def step(params, batch):
        losses, grads = mmp.accumulate(grad_fn, 2)(params, batch)
        return losses, tx.update(grads, tx.init(params), params)[0]

    losses, updates = step(params, batch)
    assert {k: x.dtype for k, x in updates.items()} == dict.fromkeys(params, dtype)
    assert all(np.isfinite(x) for x in losses.values())


def step_of(tx, params, batch):
    losses, grads = mmp.value_and_objective_grads(losses_fn)(params, batch)
    updates, state = tx.update(grads, tx.init(params), params)
    return losses, optax.apply_updates(params, updates), state


def step_and_arguments():
    params, batch = problem()
    groups = mmp.objective_groups(losses_fn, params, batch)
    tx = optax.chain(mmp.mmpareto(groups), optax.sgd(0.1, momentum=0.9))
    return functools.partial(step_of, tx), params, batch


def test_with_checks_of_every_equation():
    step, params, batch = step_and_arguments()
    expected = jax.jit(step)(params, batch)
    jax.clear_caches()
    with jax.enable_checks(True):
        found = jax.jit(step)(params, batch)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_no_nan_on_the_way(scale):
    """``jax_debug_nans`` stops at the first one, also one that `where` would hide."""
    rows = np.array([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]) * scale
    with jax.debug_nans(True):
        for variant in ("paper", "official"):
            tx = mmp.mmpareto(3, variant=variant)
            jax.jit(tx.update)(jnp.asarray(rows, jnp.float32), tx.init(jnp.zeros(3)))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_whole_step_exports(platform):
    step, params, batch = step_and_arguments()
    (batch_size,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch_size, *batch.shape[1:]), batch.dtype)
    exported = jax.export.export(jax.jit(step), platforms=[platform])(params, shape)
    assert exported.platforms == (platform,)
    if platform == "cpu":
        losses, new, _ = exported.call(params, batch)
        expected, moved, _ = jax.jit(step)(params, batch)
        np.testing.assert_allclose(losses["left"], expected["left"], rtol=1e-6)
        np.testing.assert_allclose(new["trunk"], moved["trunk"], rtol=1e-5, atol=1e-7)


def test_pmap():
    step, params, batch = step_and_arguments()
    many = jnp.stack([batch, 2 * batch])
    found = jax.pmap(lambda p, b: step(p, b)[1], in_axes=(None, 0))(params, many)
    expected = jax.jit(step)(params, 2 * batch)[1]
    for key, x in expected.items():
        np.testing.assert_allclose(found[key][1], x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["mean", "mgda", "mmpareto", "normalized_sum", "pcd", "upgrad"]
)
def test_the_program_does_not_grow_with_the_number_of_objectives(name):
    def lines(num):
        tx = mmp.aggregate(METHODS[name].rule, num)
        params = {"a": jnp.zeros((3, 4)), "b": jnp.zeros(5)}
        grads = jax.tree.map(lambda x: jnp.zeros((num, *x.shape)), params)
        lowered = jax.jit(tx.update).lower(grads, tx.init(params))
        return len(lowered.as_text().splitlines())

    assert lines(96) <= 1.05 * lines(16)


@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_many_objectives(scale):
    """K = 40: one product for all pairs, and the same numbers as in float64."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 300)).astype(np.float32) * np.float32(scale)
    tx = mmp.mmpareto(40)

    def update(rows):
        leaves = {"a": rows[:, :10], "b": rows[:, 10:].reshape(40, 29, 10)}
        params = jax.tree.map(lambda x: x[0], leaves)
        updates, state = tx.update(leaves, tx.init(params))
        flat = jnp.concatenate([x.ravel() for x in jax.tree.leaves(updates)])
        return flat, mmp.diagnostics(state)["all"]

    found, seen = jax.jit(update)(jnp.asarray(rows))
    with jax.enable_x64(True):
        expected, _ = jax.jit(update)(jnp.asarray(rows.astype(np.float64)))
    assert seen["conflict"]
    assert seen["gap"] < 1e-6
    found, expected = np.asarray(found, np.float64), np.asarray(expected)
    size = np.linalg.norm(expected)
    np.testing.assert_allclose(found / size, expected / size, atol=1e-5)
    np.testing.assert_allclose(
        seen["norms"], np.linalg.norm(rows / scale, axis=1) * scale, rtol=1e-5
    )


def test_a_thousand_leaves():
    rng = np.random.default_rng(0)
    leaves = {f"w{i}": np.float32(rng.normal(size=(2, 2))) for i in range(1000)}
    tx = mmp.mmpareto(2)
    params = {k: x[0] for k, x in leaves.items()}
    _, after = jax.eval_shape(tx.update, leaves, tx.init(params), params)
    assert jax.tree.structure(after) == jax.tree.structure(tx.init(params))


def test_two_parameters_of_one_path():
    """A key "a/b", and "b" under "a": each has its own update, and its own group."""

    def fun(params):
        whole, nested = params["a/b"], params["a"]["b"]
        return {
            "both": jnp.sum(whole**2) + jnp.sum(nested**2),
            "one": jnp.sum((nested - 1) ** 2),
        }

    params = {"a/b": jnp.arange(3.0), "a": {"b": jnp.array([0.2, 0.3])}}
    groups = mmp.objective_groups(fun, params)
    assert groups.group_of("a/b/['a/b']") == "both"
    assert groups.group_of("a/b/['a']['b']") == "both+one"
    tx = mmp.mmpareto(groups)
    _, grads = mmp.value_and_objective_grads(fun, groups)(params)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["a/b"], 2 * np.arange(3.0))
    alone = mmp.mmpareto(2)
    expected, _ = alone.update(grads["a"]["b"], alone.init(params["a"]["b"]))
    np.testing.assert_allclose(updates["a"]["b"], expected, rtol=1e-6)

    # By hand: a prefix holds for both; the whole name for one of them.
    prefixes = {"a": ("x", "y"), "a/b/['a/b']": ("x",)}
    by_hand = mmp.ObjectiveGroups.from_prefixes(prefixes)
    assert by_hand.group_of("a/b/['a']['b']") == "a"
    assert by_hand.group_of("a/b/['a/b']") == "a/b/['a/b']"
    labels = {"a/b": "whole", "a": {"b": "nested"}}
    labelled = mmp.ObjectiveGroups.from_labels(
        labels, {"whole": ("x",), "nested": ("x", "y")}
    )
    tx = mmp.mmpareto(labelled)
    state = tx.init(params)
    assert set(state.diagnostics) == {"nested"}


def test_a_parameter_that_is_called_like_another_ones_path():
    """The names that tell two paths apart may themselves be taken."""
    params = {"a/b": jnp.ones(2), "a": {"b": jnp.ones(2)}, "a/b/['a/b']": jnp.ones(2)}

    def fun(p):
        left = jnp.sum(2 * p["a/b"] + p["a"]["b"] ** 2) + 3 * jnp.sum(p["a/b/['a/b']"])
        return {"left": left, "right": jnp.sum(p["a/b"] ** 3)}

    groups = mmp.objective_groups(fun, params)
    _, grads = mmp.value_and_objective_grads(fun, groups)(params)
    tx = mmp.aggregate(mmp.weightings.uniform(), groups)
    updates, _ = tx.update(grads, tx.init(params), params)
    expected = jax.grad(lambda p: sum(fun(p).values()))(params)
    for found, x in zip(*map(jax.tree.leaves, (updates, expected)), strict=True):
        np.testing.assert_allclose(found, x)
