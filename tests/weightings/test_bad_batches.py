"""Batches with a loss of exactly 0, or of NaN: what is left of them in the rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import promises
import pytest

import mmpareto_jax as mmp

W = mmp.weightings
SGD = optax.sgd(0.1)
RULES = {
    name: method.rule
    for name, method in promises.METHODS.items()
    if "losses" in method.note or name == "metabalance"
} | {
    # Whose state does not move where a slope is zero.
    "uncertainty": W.uncertainty(SGD),
    "imtl_l": W.imtl_l(SGD),
    "gradnorm": W.gradnorm(optimizer=SGD),
}
BOUNDED = ("db_mtl", "famo", "geometric_mean", "gradnorm")
NAMES = ("c", "a", "b")  # not sorted, as jit would have them
CENTRES = jax.random.normal(jax.random.key(0), (3, 4))
GOOD = [np.array(x) for x in ([1.0, 2.0, 0.5], [2.0, 1.0, 1.0], [0.5, 1.0, 2.0])]
BAD = {
    "zero": np.array([1.5, 0.0, 1.0]),
    "all zero": np.zeros(3),
    "nan": np.array([1.5, np.nan, 1.0]),
    "infinite": np.array([1.5, np.inf, 1.0]),
}


def losses_of(p, scale):
    return scale * (0.5 * jnp.sum((p[None] - CENTRES) ** 2, axis=1) + 0.1)


def scalarized(rule):
    def fun(p, scale):
        return dict(zip(NAMES, losses_of(p, scale), strict=True))

    loss_fn = mmp.scalarize(rule, fun)

    @jax.jit
    def step(p, state, scale):
        grads, (_, state) = jax.grad(loss_fn, has_aux=True)(p, state, scale)
        return grads, state

    return step, rule.init(3), lambda state: state


def aggregated(rule):
    tx = mmp.aggregate(rule, NAMES)

    @jax.jit
    def step(p, state, scale):
        grads = jax.jacrev(losses_of)(p, scale)
        losses = dict(zip(NAMES, losses_of(p, scale), strict=True))
        return tx.update(grads, state, losses=losses)

    return step, tx.init(jnp.zeros(4)), lambda state: state.weighting


WAYS = [
    pytest.param(name, way, id=f"{name}-{way.__name__}")
    for name, rule in RULES.items()
    for way in (scalarized, aggregated)
    if isinstance(rule, mmp.LossWeighting) or way is aggregated
]


@functools.cache
def program(way, name):
    """Compiled once for all its runs."""
    return way(RULES[name])


def run(way, name, batches):
    """The updates and the rule's state after every batch; NaN is not applied."""
    step, state, own = program(way, name)
    p, found = jnp.zeros(4), []
    for scale in batches:
        update, state = step(p, state, jnp.asarray(scale, jnp.float32))
        if np.isfinite(update).all():
            p -= 0.1 * update
        found.append((np.asarray(update), own(state)))
    return found


def is_finite(tree):
    return all(np.isfinite(np.asarray(x)).all() for x in jax.tree.leaves(tree))


def assert_same(found, expected):
    """Updates and states, to the last bit."""
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("where", [0, 2])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("name", "way"), WAYS)
def test_nothing_is_left_of_a_bad_batch(name, way, bad, where):
    batches = [*GOOD[:where], BAD[bad], *GOOD[where:]]
    found = run(way, name, batches)
    plain = run(way, name, GOOD)
    assert all(is_finite(state) for _, state in found)
    update = found.pop(where)[0]
    assert all(is_finite(u) for u, _ in found)
    if bad == "all zero" and name == "moco":
        assert where == 0 or np.any(update != 0)  # what it has tracked goes on
    elif bad == "all zero":
        np.testing.assert_array_equal(update, 0)
        if name in ("db_mtl", "geometric_mean", "gradnorm", "imtl_l", "stch"):
            assert_same(found, plain)
    elif bad == "zero":
        assert is_finite(update)
        assert np.any(update != 0)
    elif name != "metabalance":  # which reads no losses
        assert not is_finite(update)
        assert_same(found, plain)


def begun(rule, num, dtype):
    if isinstance(rule, mmp.Aggregator):
        return rule.init([jax.ShapeDtypeStruct((num, 5), dtype)])
    return rule.init(num)


def combined(rule, grads, losses, state):
    if isinstance(rule, mmp.Aggregator):
        (update,), state = rule.combine([grads], state, losses=losses)
        return update, state
    if isinstance(rule, mmp.LossWeighting):
        weights, state = rule.weights(losses, state)
    else:
        weights, state = rule.weights(grads @ grads.T, state, losses=losses)
    return weights @ grads, state


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 8, 40])
@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_others_are_weighted_as_if_it_were_not_there(name, num, dtype, x64):
    """Four steps, in which one more objective has a gradient and the loss 0."""
    if name == "db_mtl" and num == 40:
        num = 12  # it computes a Gramian itself, operation by operation here
    rule, rng, where = RULES[name], np.random.default_rng(num), num // 2
    step = jax.jit(functools.partial(combined, rule))
    with_it, without = begun(rule, num + 1, dtype), begun(rule, num, dtype)
    rtol = 1e-4 if dtype == "float32" else 1e-10
    for _ in range(4):
        grads = jnp.asarray(rng.normal(size=(num + 1, 5)), dtype)
        losses = rng.uniform(0.5, 2, size=num + 1)
        losses[where] = 0
        few = np.delete(losses, where)
        found, with_it = step(grads, jnp.asarray(losses, dtype), with_it)
        expected, without = step(
            jnp.delete(grads, where, 0), jnp.asarray(few, dtype), without
        )
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", BOUNDED)
def test_a_negative_loss_is_seen_and_forgotten(name):
    tx = mmp.aggregate(RULES[name], 2)
    step, grads, state = jax.jit(tx.update), jnp.eye(2), tx.init(jnp.zeros(2))
    _, state = step(grads, state, losses=jnp.array([1.0, 2.0]))
    update, after = step(grads, state, losses=jnp.array([1.0, -2.0]))
    assert not is_finite(update)
    assert_same(after.weighting, state.weighting)


@pytest.mark.parametrize(
    ("name", "losses", "expected"),
    [
        ("famo", [0.0, 1.0, 3.0], [0, 3 / 4, 1 / 4]),
        ("famo", [0.0, 0.0, 3.0], [0, 0, 1]),
        ("famo", [2e-38, 1.0, 0.0], [1, 0, 0]),
        ("geometric_mean", [0.0, 1.0, 4.0], [0, 1, 1 / 4]),
        ("geometric_mean", [0.0, 0.0, 4.0], [0, 0, 1]),
        ("geometric_mean", [0.0, 0.0, 0.0], [0, 0, 0]),
        ("famo", [0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_weights_at_the_bound(name, losses, expected):
    rule = RULES[name]
    weights, _ = rule.weights(jnp.array(losses), rule.init(3))
    np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-30)
