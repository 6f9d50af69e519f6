"""Micro-batches combined once equal the large batch; combined each they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp

KEYS = jax.random.split(jax.random.key(3), 4)
PARAMS = {
    "encoder": jax.random.normal(KEYS[0], (3, 4)),
    "heads": {k: jax.random.normal(KEYS[1], (4,)) for k in ("a", "b", "c")},
}
BATCH = {
    "x": jax.random.normal(KEYS[2], (12, 3)),
    "y": jax.random.normal(KEYS[3], (12, 3)),
}


def losses_fn(params, batch):
    features = jnp.tanh(batch["x"] @ params["encoder"])
    return {
        name: jnp.mean((features @ head - batch["y"][:, k]) ** 2)
        for k, (name, head) in enumerate(params["heads"].items())
    }


GROUPS = mmp.objective_groups(losses_fn, PARAMS, BATCH)
STEP = mmp.value_and_objective_grads(losses_fn, GROUPS)


def close(a, b, rtol=1e-5):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6), a, b
    )


@pytest.mark.parametrize("num", [1, 2, 3, 12])
def test_equals_the_large_batch(num):
    close(jax.jit(mmp.accumulate(STEP, num))(PARAMS, BATCH), STEP(PARAMS, BATCH))


@pytest.mark.parametrize(
    "rule", [mmp.mmpareto(GROUPS), mmp.mmpareto(GROUPS, variant="official")]
)
def test_the_update_is_that_of_the_large_batch(rule):
    """And not the mean of the micro-batches' updates, each with its own conflicts."""
    _, large = STEP(PARAMS, BATCH)
    _, summed = jax.jit(mmp.accumulate(STEP, 4))(PARAMS, BATCH)
    state = rule.init(PARAMS)
    expected, _ = rule.update(large, state, PARAMS)
    close(rule.update(summed, state, PARAMS)[0], expected, 1e-4)

    after = optax.MultiSteps(optax.sgd(-1.0), 4)
    tx = optax.chain(rule, after.gradient_transformation())
    state = tx.init(PARAMS)
    for i in range(4):
        part = jax.tree.map(lambda x, i=i: x[3 * i : 3 * i + 3], BATCH)
        updates, state = tx.update(STEP(PARAMS, part)[1], state, PARAMS)
    error = np.linalg.norm(updates["encoder"] - expected["encoder"])
    assert error > 1e-2 * np.linalg.norm(expected["encoder"])


def test_aux_is_stacked_and_other_arguments_are_shared():
    def fun(params, scale, batch):
        losses = {k: scale * x for k, x in losses_fn(params, batch).items()}
        return losses, {"mean": batch["x"].mean()}

    step = mmp.value_and_objective_grads(fun, GROUPS, has_aux=True)
    parts = mmp.accumulate(step, 3, argnum=2, has_aux=True)
    (losses, aux), grads = jax.jit(parts)(PARAMS, 2.0, BATCH)
    (large, _), expected = step(PARAMS, 2.0, BATCH)
    close((losses, grads), (large, expected))
    np.testing.assert_allclose(
        aux["mean"], BATCH["x"].reshape(3, -1).mean(1), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("argnum", [-1, -2, 1])
def test_the_batch_may_be_counted_from_the_end(argnum):
    """With further arguments that have a default, after it or before."""

    def last(params, scale, batch, power=1.0):
        return {k: (scale * x) ** power for k, x in losses_fn(params, batch).items()}

    def first(params, batch, scale=2.0, power=1.0):
        return last(params, scale, batch, power)

    order = {-1: (2.0, BATCH), -2: (BATCH, 2.0), 1: (BATCH,)}[argnum]
    step = mmp.value_and_objective_grads(last if argnum == -1 else first, GROUPS)
    parts = jax.jit(mmp.accumulate(step, 3, argnum=argnum))
    close(parts(PARAMS, *order), step(PARAMS, *order))


def test_a_batch_that_is_not_where_argnum_says():
    sentence = r"accumulate: argnum=1 .*1 positional argument\(s\) .*\('batch',\); give"
    with pytest.raises(ValueError, match=sentence):
        mmp.accumulate(STEP, 2)(PARAMS, batch=BATCH)
    for argnum in (2, 7, -2, -3):
        with pytest.raises(ValueError, match=f"accumulate: argnum={argnum} must be"):
            mmp.accumulate(STEP, 2, argnum=argnum)(PARAMS, BATCH)
    with pytest.raises(ValueError, match="argnum must be the position of the batch"):
        mmp.accumulate(STEP, 2, argnum=0)
    with pytest.raises(ValueError, match=r"argument 1, must have arrays .*got None"):
        mmp.accumulate(STEP, 2)(PARAMS, None)


def test_sums_are_float32_and_gradients_keep_their_dtype():
    def tenth(w, x):
        return {"a": jnp.mean(x) * w, "b": jnp.mean(x) * w}

    step = mmp.accumulate(mmp.value_and_objective_grads(tenth), 256)
    grads = step(jnp.ones((), jnp.bfloat16), jnp.full((256,), 0.1, jnp.bfloat16))[1]
    assert grads.dtype == jnp.bfloat16
    # A bfloat16 sum would stop growing at 32.
    np.testing.assert_allclose(np.asarray(grads, float), 0.1, rtol=1e-2)


def test_the_memory_is_that_of_a_part():
    """The activations of one part are live at a time."""
    params = {"encoder": jnp.ones((64, 64)), "heads": {k: jnp.ones(64) for k in "abc"}}
    batch = {"x": jnp.ones((4096, 64)), "y": jnp.ones((4096, 3))}

    def temporary(step):
        compiled = jax.jit(step).lower(params, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(mmp.accumulate(STEP, 16)) < 0.3 * temporary(STEP)


def test_errors():
    with pytest.raises(ValueError, match="num_micro_batches must be >= 1, got 0"):
        mmp.accumulate(STEP, 0)
    with pytest.raises(
        ValueError, match=r"leaf 'x' of the batch \(argument 1\) has shape \(12, 3\)"
    ):
        mmp.accumulate(STEP, 5)(PARAMS, BATCH)
    scalar = BATCH | {"weight": jnp.ones(())}
    with pytest.raises(
        ValueError, match=r"leaf 'weight' of the batch \(argument 1\) has shape \(\)"
    ):
        mmp.accumulate(STEP, 2)(PARAMS, scalar)
