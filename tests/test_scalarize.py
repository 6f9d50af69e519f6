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
