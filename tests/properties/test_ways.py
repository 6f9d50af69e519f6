"""One update by every way: jitted or not, in a batch, on a mesh, in two passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from drawn import TREES, cut, joined, rows, size_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import mmpareto_jax as mmp

EPS = float(jnp.finfo(jnp.float32).eps)
FEW = settings(max_examples=max(20, settings().max_examples // 5))
WIDTH = 8  # of a leaf that eight devices share


@functools.cache
def programs(num, tree):
    tx = mmp.mmpareto(num)
    state = tx.init({k: jnp.zeros(x) for k, x in TREES[tree].items()})

    def update(grads):
        return tx.update(grads, state)[0]

    return update, jax.jit(update), jax.jit(jax.vmap(update))


def borderline(drawn):
    """Whether rounding decides: of a conflict, or of what is left where all cancels."""
    unit = drawn.astype(np.float64)
    unit = unit[unit.any(1)]
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    if len(unit) < 2:
        return False
    cosines = unit @ unit.T
    least = np.min(cosines + 2 * np.eye(len(unit)))
    values = np.linalg.eigvalsh(cosines)
    return abs(least) < 1e-5 or values[0] < 1e-2


def check_close(found, expected, drawn):
    """Some ulps of the longest gradient, by which the sum's magnitude is wrong.

    Ways differ in the order of sums, and so in last digits. Of gradients that are
    nearly dependent these would be many more digits of the min-norm point.
    """
    longest = np.linalg.norm(drawn.astype(np.float64), axis=1).max(initial=0)
    far = np.abs(found - expected).max(initial=0)
    assert far <= 1e-4 * longest + 1e-36


@given(st.data())
def test_in_a_batch_with_zeros_and_with_nan(data):
    """Each is what it is alone; and NaN stays where it is."""
    num, tree = data.draw(st.sampled_from([(2, "six"), (3, "three")]))
    one = data.draw(rows(num, size_of(tree)))
    other = data.draw(rows(num, size_of(tree)))
    bad = one.copy()
    bad[0, 0] = np.nan
    every = np.stack([one, np.zeros_like(one), bad, other])
    _, jitted, batched = programs(num, tree)
    found = batched(cut(every, tree))
    each = [joined(jax.tree.map(lambda x, i=i: x[i], found)) for i in range(4)]
    assert not each[1].any()
    assert np.isnan(each[2]).all()
    for drawn, own in ((one, each[0]), (other, each[3])):
        assert np.isfinite(own).all()
        if not borderline(drawn):
            check_close(own, joined(jitted(cut(drawn, tree))), drawn)


@FEW
@given(rows(3, size_of("three")))
def test_without_jit(drawn):
    assume(not borderline(drawn))
    update, jitted, _ = programs(3, "three")
    grads = cut(drawn, "three")
    check_close(joined(update(grads)), joined(jitted(grads)), drawn)


@functools.cache
def on_a_mesh():
    """The same update where eight devices have a part of every gradient each."""
    mesh = jax.make_mesh((8,), ("x",))
    tx = mmp.mmpareto(3, axis_name="x")

    def update(grads):
        return tx.update(grads, tx.init(grads[0]))[0]

    apart = jax.jit(
        jax.shard_map(update, mesh=mesh, in_specs=P(None, "x"), out_specs=P("x"))
    )
    place = NamedSharding(mesh, P(None, "x"))
    whole = mmp.mmpareto(3)
    plain = jax.jit(lambda grads: whole.update(grads, whole.init(grads[0]))[0])
    return lambda x: apart(jax.device_put(x, place)), plain


@FEW
@given(rows(3, WIDTH))
def test_on_a_mesh(drawn):
    """Also where one device has all that is not zero: scales are common ones."""
    apart, plain = on_a_mesh()
    found = np.asarray(apart(jnp.asarray(drawn)), np.float64)
    assert np.isfinite(found).all()
    if not borderline(drawn):
        check_close(found, np.asarray(plain(jnp.asarray(drawn)), np.float64), drawn)


@functools.cache
def combined(keep):
    """Of losses that are linear: their gradients are the rows themselves."""

    def losses_fn(params, rows):
        flat = jnp.concatenate([params["v"], params["w"].ravel()])
        return {str(k): rows[k] @ flat for k in range(3)}

    params = {"v": jnp.zeros(3), "w": jnp.zeros((2, 3))}
    step = mmp.combined_grads(losses_fn, mmp.mmpareto, keep=keep)
    state, plain = step.init(params, jnp.zeros((3, 9))), mmp.mmpareto(3)

    @jax.jit
    def both(rows):
        (_, grads), _ = step.value_and_grads(state, params, rows)
        whole = plain.update(rows, plain.init(rows[0]))[0]
        return jnp.concatenate([grads["v"], grads["w"].ravel()]), whole

    return both


@given(rows(3, 9), st.sampled_from(["rows", "gramian"]))
def test_combined_grads(drawn, keep):
    """Whether rows are there, or a second pass begins with the weights."""
    found, expected = (np.asarray(x, np.float64) for x in combined(keep)(drawn))
    assert np.isfinite(found).all()
    if not borderline(drawn):
        check_close(found, expected, drawn)


def test_a_short_gradient_alone_beside_a_long_one():
    """Where the long one is zero there is the short one, however short it is."""
    drawn = np.zeros((3, 9), np.float32)
    drawn[:, 0] = [1e25, 1e-25, 0]
    drawn[1, 4], drawn[2, 7] = 2e-25, 3.0
    expected = 1.5 * drawn.astype(np.float64).sum(0)
    for keep in ("rows", "gramian"):
        for found in combined(keep)(drawn):
            np.testing.assert_allclose(found, expected, rtol=4 * EPS)
    tx = mmp.mmpareto(2, variant="official")
    found, state = jax.jit(tx.update)(drawn[:2], tx.init(jnp.zeros(9)))
    expected = 1.5 * drawn[:2].astype(np.float64).sum(0)
    np.testing.assert_allclose(found, expected, rtol=4 * EPS)
    np.testing.assert_allclose(mmp.diagnostics(state)["all"]["weights"], 1.5, 1e-6)
