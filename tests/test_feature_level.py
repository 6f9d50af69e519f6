"""Gradients at shared features: exact for what they are, at the cost of one loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

TASKS = ("a", "b", "c")
X = jax.random.normal(jax.random.key(0), (6, 5))


def make_params(depth=3, width=5, num=3):
    keys = jax.random.split(jax.random.key(1), depth + num)
    trunk = [jax.random.normal(k, (width, width)) / width**0.5 for k in keys[:depth]]
    heads = {
        n: jax.random.normal(k, (width,))
        for n, k in zip(TASKS, keys[depth:], strict=True)
    }
    return {"trunk": trunk, "heads": heads}


def features_fn(params, x):
    for w in params["trunk"]:
        x = jnp.tanh(x @ w)
    return x


def losses_fn(params, features, x):
    del x
    return {
        name: jnp.mean((features @ params["heads"][name] - k) ** 2)
        for k, name in enumerate(TASKS)
    }


def whole(params, x):
    return losses_fn(params, features_fn(params, x), x)


RULES = {
    "mmpareto": mmp.mmpareto,
    "mgda": functools.partial(mmp.aggregate, mmp.weightings.mgda()),
    "cagrad": functools.partial(mmp.aggregate, mmp.weightings.cagrad()),
    "graddrop": functools.partial(mmp.aggregate, mmp.weightings.graddrop()),
    "dwa": functools.partial(mmp.aggregate, mmp.weightings.dwa(steps_per_epoch=1)),
}


@pytest.mark.parametrize("rule", RULES)
def test_it_is_the_rule_on_the_features_and_their_pull_back(rule, x64):
    """Against autodiff of each piece by itself."""
    params = jax.tree.map(lambda v: v.astype(jnp.float64), make_params())
    x = X.astype(jnp.float64)
    level = mmp.feature_level(features_fn, losses_fn, RULES[rule])
    (losses, grads), _ = level.value_and_grads(level.init(params, x), params, x)

    features, back = jax.vjp(lambda p: features_fn(p, x), params)
    each = jax.jacrev(lambda z: losses_fn(params, z, x))(features)
    stacked = jnp.stack([each[name] for name in TASKS])
    tx = RULES[rule](TASKS)
    combined, _ = tx.update(stacked, tx.init(features), features, losses=losses)
    (expected,) = back(combined)
    for found, wanted in zip(grads["trunk"], expected["trunk"], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    if rule != "dwa":  # which weights single objectives too; by 1 at first
        own = jax.grad(lambda p: sum(whole(p, x).values()))(params)["heads"]
        for name in TASKS:
            np.testing.assert_allclose(grads["heads"][name], own[name], rtol=1e-9)
    for name, value in whole(params, x).items():
        np.testing.assert_allclose(losses[name], value, rtol=1e-12)


def test_the_plain_sum_is_the_plain_gradient(x64):
    """Where the rule does not look at the Gramian, both levels are one."""
    params = jax.tree.map(lambda v: v.astype(jnp.float64), make_params())
    rule = functools.partial(mmp.aggregate, mmp.weightings.uniform())
    level = mmp.feature_level(features_fn, losses_fn, rule)
    (_, grads), _ = level.value_and_grads(level.init(params, X), params, X)
    expected = jax.grad(lambda p: sum(whole(p, X).values()))(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13),
        grads,
        expected,
    )


def test_the_bound_of_mgda_ub(x64):
    """Σ a ∇θ L is at most the largest singular value of ∂z/∂θ times Σ a ∇z L."""
    params = jax.tree.map(lambda v: v.astype(jnp.float64), make_params(depth=1))
    level = mmp.feature_level(features_fn, losses_fn, RULES["mgda"])
    (_, grads), state = level.value_and_grads(level.init(params, X), params, X)
    weights = mmp.diagnostics(state)["a+b+c"]["weights"]
    features, _ = jax.vjp(lambda p: features_fn(p, X), params)
    each = jax.jacrev(lambda z: losses_fn(params, z, X))(features)
    at_features = sum(w * each[n] for w, n in zip(weights, TASKS, strict=True))
    jacobian = jax.jacrev(lambda w: features_fn({"trunk": [w]}, X).ravel())(
        params["trunk"][0]
    ).reshape(features.size, -1)
    bound = np.linalg.norm(jacobian, 2) * np.linalg.norm(at_features)
    assert 0 < np.linalg.norm(grads["trunk"][0]) <= bound


def test_groups_and_diagnostics_are_those_of_the_features():
    params = make_params()
    level = mmp.feature_level(features_fn, losses_fn, mmp.mmpareto)
    groups = level.groups(params, X)
    assert groups.groups[groups.group_of("features")] == TASKS
    assert groups.groups[groups.group_of("params/heads/b")] == ("b",)
    assert groups.groups[groups.group_of("params/trunk/0")] == ()
    shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype), params)
    like = jax.ShapeDtypeStruct(X.shape, X.dtype)
    state = level.init(shapes, like)
    structure = jax.tree.structure(level.init(params, X))
    assert jax.tree.structure(state) == structure
    (_, _), state = level.value_and_grads(level.init(params, X), params, X)
    assert mmp.diagnostics(state)["a+b+c"]["norms"].shape == (3,)


def test_a_conflict_at_the_features_takes_the_conflict_branch():
    """Opposite heads: the plain sum is far from what comes out."""
    params = {"trunk": jnp.array([1.0]), "heads": {}}

    def features(params, x):
        return params["trunk"] * x

    def losses(params, z, x):
        return {"a": jnp.sum(z * jnp.array([1.0, 0.0])), "b": -0.1 * jnp.sum(z)}

    x = jnp.array([1.0, 2.0])
    level = mmp.feature_level(features, losses, mmp.mmpareto)
    _, state = level.value_and_grads(level.init(params, x), params, x)
    seen = mmp.diagnostics(state)["a+b"]
    assert bool(seen["conflict"])
    assert seen["weights"][1] > 5 * seen["weights"][0]


def test_aux_goes_from_the_features_to_the_losses():
    params = make_params()

    def features_and_count(params, count, x):
        return features_fn(params, x), count + 1

    def losses_and_count(params, features, between, count, x):
        return losses_fn(params, features, x), (between, count)

    level = mmp.feature_level(
        features_and_count, losses_and_count, mmp.mmpareto, has_aux=True
    )
    count = jnp.asarray(3)
    state = level.init(params, count, X)
    ((losses, aux), grads), _ = jax.jit(level.value_and_grads)(state, params, count, X)
    assert (int(aux[0]), int(aux[1])) == (4, 3)
    plain = mmp.feature_level(features_fn, losses_fn, mmp.mmpareto)
    (wanted, expected), _ = plain.value_and_grads(plain.init(params, X), params, X)
    for name in TASKS:
        np.testing.assert_allclose(losses[name], wanted[name], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        grads,
        expected,
    )


def penalised(params, x):
    """Two penalties in aux, one of the weights and one of the activations, and data."""
    z = features_fn(params, x)
    stop = jax.lax.stop_gradient
    return z, {
        "weights": sum(jnp.sum(w**2) for w in params["trunk"]),
        "activations": {"early": jnp.tanh(x @ params["trunk"][0])},
        "statistics": z.mean(0),
        "temperature": jnp.asarray(2.0, x.dtype),
        "stopped": stop(z[0, 0]),
        "count": jnp.asarray(3),
        "key": jax.random.key(0),
        "mode": "train",
        "depth": len(params["trunk"]),
        "nothing": None,
    }


def losses_of_penalised(params, z, aux, x):
    assert aux["mode"] == "train"
    assert aux["nothing"] is None
    assert isinstance(aux["depth"], int)
    losses = losses_fn(params, z, x)
    losses["a"] += 0.1 * aux["weights"] * aux["temperature"] + 0.1 * aux["stopped"]
    losses["b"] += jnp.mean(aux["activations"]["early"] ** 2)
    noise = jax.random.normal(aux["key"], (), x.dtype)
    return losses, {**aux, "count": aux["count"] + 1, "noise": noise}


UNIFORM = functools.partial(mmp.aggregate, mmp.weightings.uniform())


@pytest.mark.parametrize("pullback", ["unroll", "vmap"])
@pytest.mark.parametrize("jitted", [False, True])
def test_a_loss_reads_the_trunk_through_its_aux(pullback, jitted, x64):
    """The sum of all gradients is the gradient of the sum, the penalties' too."""
    params = jax.tree.map(lambda v: v.astype(jnp.float64), make_params())
    x = X.astype(jnp.float64)

    def losses(params, z, aux, x):
        losses, aux = losses_of_penalised(params, z, aux, x)
        return losses, {"count": aux["count"], "weights": aux["weights"]}

    level = mmp.feature_level(
        penalised, losses, UNIFORM, has_aux=True, pullback=pullback
    )
    step = jax.jit(level.value_and_grads) if jitted else level.value_and_grads
    ((found, aux), grads), _ = step(level.init(params, x), params, x)

    def total(params):
        z, aux = penalised(params, x)
        losses, _ = losses_of_penalised(params, z, aux, x)
        return sum(losses.values()), losses

    expected, each = jax.grad(total, has_aux=True)(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14),
        (grads, found),
        (expected, each),
    )
    assert int(aux["count"]) == 4
    np.testing.assert_allclose(aux["weights"], penalised(params, x)[1]["weights"])


def test_the_rule_sees_what_losses_read_of_aux():
    """A leaf of aux has the rows of the losses that read it; data has none."""
    params = make_params()
    level = mmp.feature_level(
        penalised, losses_of_penalised, mmp.mmpareto, has_aux=True
    )
    groups = level.groups(params, X)
    assert groups.groups[groups.group_of("aux/weights")] == ("a",)
    assert groups.groups[groups.group_of("aux/activations/early")] == ("b",)
    assert groups.groups[groups.group_of("features")] == TASKS
    assert sorted(x for x in groups.members if x.startswith("aux")) == [
        "aux/activations/early",
        "aux/weights",
    ]
    state = level.init(params, X)
    ((_, aux), _), after = level.value_and_grads(state, params, X)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert aux["mode"] == "train"


@pytest.mark.parametrize("rule", ["mmpareto", "mgda"])
def test_the_features_may_come_as_aux(rule, x64):
    """Which way they come is no matter: the rule's Gramian is the same."""
    params = jax.tree.map(lambda v: v.astype(jnp.float64), make_params())
    x = X.astype(jnp.float64)

    def halves(params, x):
        z = features_fn(params, x)
        return z[:, :2], {"rest": z[:, 2:]}

    def losses(params, z, aux, x):
        return losses_fn(params, jnp.concatenate([z, aux["rest"]], 1), x), None

    split = mmp.feature_level(halves, losses, RULES[rule], has_aux=True)
    (_, grads), _ = split.value_and_grads(split.init(params, x), params, x)
    plain = mmp.feature_level(features_fn, losses_fn, RULES[rule])
    (_, expected), _ = plain.value_and_grads(plain.init(params, x), params, x)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        grads,
        expected,
    )


def test_aux_alone_may_be_read():
    """Also where it is a bare array, and the features are read by no loss."""
    params = {"w": jnp.array([1.0, 2.0])}
    level = mmp.feature_level(
        lambda p: (jnp.zeros(()), p["w"] ** 2),
        lambda p, z, aux: ({"a": aux.sum(), "b": 3 * aux[0]}, None),
        UNIFORM,
        has_aux=True,
    )
    (_, grads), _ = level.value_and_grads(level.init(params), params)
    np.testing.assert_allclose(grads["w"], [8.0, 4.0])
    groups = level.groups(params)
    assert groups.groups[groups.group_of("aux")] == ("a", "b")


def test_aux_that_no_loss_is_differentiated_by_costs_nothing():
    """Batch statistics: the same groups, state, gradients and FLOPs as without."""
    params, x = make_params(depth=6, width=32), jnp.ones((16, 32))

    def with_statistics(params, x):
        z = features_fn(params, x)
        return z, {"mean": z.mean(0), "var": z.var(0)}

    def losses(params, z, aux, x):
        return losses_fn(params, z, x), aux

    def beside(params, z, aux, x):
        del aux
        return losses_fn(params, z, x), None

    level = mmp.feature_level(with_statistics, losses, mmp.mmpareto, has_aux=True)
    plain = mmp.feature_level(features_fn, losses_fn, mmp.mmpareto)
    assert level.groups(params, x) == plain.groups(params, x)
    state = plain.init(params, x)
    assert jax.tree.structure(level.init(params, x)) == jax.tree.structure(state)
    ((_, aux), grads), _ = level.value_and_grads(state, params, x)
    (_, expected), _ = plain.value_and_grads(state, params, x)
    jax.tree.map(np.testing.assert_array_equal, grads, expected)
    np.testing.assert_allclose(aux["mean"], features_fn(params, x).mean(0))
    unread = mmp.feature_level(with_statistics, beside, mmp.mmpareto, has_aux=True)
    ours = flops(unread.value_and_grads, state, params, x)
    assert ours <= 1.001 * flops(plain.value_and_grads, state, params, x)


def test_arguments_that_are_no_arrays():
    def features(params, mode, times, x):
        assert mode == "train"
        return params["w"] * x * len(range(times))

    def losses(params, z, mode, times, x):
        return {"a": z.sum() / times, "b": (z**2).sum()}

    params, args = {"w": jnp.ones(2)}, ("train", 3, jnp.ones(2))
    level = mmp.feature_level(features, losses, UNIFORM)
    (_, grads), _ = level.value_and_grads(level.init(params, *args), params, *args)
    np.testing.assert_allclose(grads["w"], [19.0, 19.0])


def test_a_parameter_of_both_sides_gets_both_gradients(x64):
    """A weight in the trunk and in a head."""
    params = {"w": jnp.array([0.5, -2.0])}

    def features(params, x):
        return params["w"] * x

    def losses(params, z, x):
        return {"a": jnp.sum(z * params["w"]), "b": jnp.sum(z**2)}

    x = jnp.array([3.0, 1.0])
    rule = functools.partial(mmp.aggregate, mmp.weightings.uniform())
    level = mmp.feature_level(features, losses, rule)
    (_, grads), _ = level.value_and_grads(level.init(params, x), params, x)
    expected = jax.grad(lambda p: sum(losses(p, features(p, x), x).values()))(params)
    np.testing.assert_allclose(grads["w"], expected["w"], rtol=1e-12)


def flops(fun, *args):
    return jax.jit(fun).lower(*args).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("rule", ["mmpareto", "mgda"])
def test_cost_of_eight_objectives_on_a_deep_trunk(rule, capsys):
    """At most 1.05 of the plain sum, whatever K is; by parameters it is far more."""
    depth, width, batch, num = 8, 128, 128, 8
    names = tuple(f"t{k}" for k in range(num))
    key = jax.random.key(0)
    params = {
        "trunk": list(jax.random.normal(key, (depth, width, width)) / width**0.5),
        "heads": {n: jax.random.normal(key, (width, 4)) for n in names},
    }
    x = jax.random.normal(key, (batch, width))

    def losses(params, z, x):
        return {n: jnp.mean((z @ params["heads"][n] - 1) ** 2) for n in names}

    def total(params, x):
        return sum(losses(params, features_fn(params, x), x).values())

    level = mmp.feature_level(features_fn, losses, RULES[rule])
    state = level.init(params, x)
    plain = flops(jax.value_and_grad(total), params, x)
    ratio = flops(level.value_and_grads, state, params, x) / plain

    def by_parameters(params, x):
        fun = lambda p, x: losses(p, features_fn(p, x), x)  # noqa: E731
        losses_, grads = mmp.value_and_objective_grads(fun)(params, x)
        tx = RULES[rule](mmp.objective_groups(fun, params, x))
        return tx.update(grads, tx.init(params), params, losses=losses_)[0]

    full = flops(by_parameters, params, x) / plain
    with capsys.disabled():
        print(f"\n{rule}, K = 8: features {ratio:.3f}, parameters {full:.3f}")
    assert ratio <= 1.05
    assert full > 3
