"""Where a value can be non-zero, against where it is: one primitive after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from supports import dense

from mmpareto_jax._gradients import boxes, runs
from mmpareto_jax._gradients.reach import Fact, trace

SHAPE = (4, 6)


def nonzero(f, mask, seed):
    """Where outputs are non-zero, for one input that is non-zero where `mask` is."""
    x = np.random.default_rng(seed).uniform(0.5, 1.5, mask.shape) * mask
    return [np.asarray(y) != 0 for y in jax.tree.leaves(f(jnp.asarray(x)))]


ROWS, I = np.array([2, 0, 3]), np.arange(6)  # noqa: E741
# What is followed exactly: the support is where the value is non-zero.
EXACT = {
    "neg": lambda x: -x,
    "mul": lambda x: 3 * x * np.arange(1.0, 5.0)[:, None],
    "mask": lambda x: x * np.array([[1.0, 0, 1, 1, 0, 0]]),
    "where": lambda x: jnp.where(jnp.arange(6)[None] < 3, x, 0),
    "where_rows": lambda x: jnp.where(jnp.arange(4)[:, None] == 2, 0, x),
    "where_both": lambda x: jnp.where(
        (jnp.arange(4)[:, None] >= 1) & (jnp.arange(6)[None] != 2), x, 0
    ),
    "where_diagonal": lambda x: jnp.where(
        jnp.arange(4)[:, None] == jnp.arange(6)[None], x, 0
    ),
    "add": lambda x: x + x[::-1],
    "sum": lambda x: (x.sum(0), x.sum(1), x.sum(1, keepdims=True)),
    "reshape": lambda x: (x.reshape(2, 12), x.reshape(8, 3).T, x.ravel()[5:17]),
    "transpose": lambda x: x.T.reshape(3, 8)[1:],
    "broadcast": lambda x: jnp.broadcast_to(x[None, :, None], (2, 4, 3, 6)),
    "slice": lambda x: (x[1:3], x[:, ::2], x[1::3, 1:5:3]),
    "rev": lambda x: x[::-1, ::-1],
    "pad": lambda x: lax.pad(x, 0.0, ((1, -1, 0), (-1, 2, 2))),
    "concatenate": lambda x: jnp.concatenate([x, jnp.zeros((2, 6)), x[1:]]),
    "stack": lambda x: jnp.stack([x, 0 * x, x[::-1]], 1),
    "split": lambda x: jnp.split(x, [1, 4], 1),
    "unstack": lambda x: jnp.unstack(x, axis=1),
    "squeeze": lambda x: x[:, None, :1].squeeze(2),
    "row": lambda x: x[2],
    "element": lambda x: x[2, -1],
    "rows": lambda x: x[ROWS],
    "columns": lambda x: x[:, ROWS],
    "take": lambda x: jnp.take(x, ROWS, axis=1),
    "rows_of_matrix": lambda x: x[np.array([[1, 1], [0, 2]])],
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (1, 4), (2, 3)),
    "dynamic_update": lambda x: lax.dynamic_update_slice(
        x, jnp.zeros((2, 3)), (3, jnp.int32(1) + 1)
    ),
    "update_of_zeros": lambda x: lax.dynamic_update_slice(jnp.zeros((9, 9)), x, (3, 2)),
    "set_row": lambda x: x.at[1].set(0),
    "set_element": lambda x: x.at[1, 2].set(0),
    "set_other_row": lambda x: x.at[1].set(x[2]),
    "set_rows": lambda x: jnp.zeros((5, 6)).at[ROWS].set(x[:3]),
    "add_rows": lambda x: x.at[ROWS].add(x[1:]),
    "set_column": lambda x: jnp.zeros((4, 3)).at[:, 1].set(x[:, 0]),
    "add_column": lambda x: jnp.zeros((4, 3)).at[:, -1].add(x[:, 0]),
    "cond": lambda x: lax.cond(jnp.ones(()) > 0, lambda x: x, lambda x: 2 * x, x),
    "jit": jax.jit(lambda x: x[1:]),
    "barrier": lambda x: lax.optimization_barrier((x, x[0])),
    "clip": lambda x: jnp.clip(x, -0.3, 0.3),
    "relu": jax.nn.relu,
}
# What is followed, but not element by element: nothing may be missed.
ABOVE = {
    "dot": lambda x: (x @ x.T, x @ np.ones((6, 2)), np.ones((2, 4)) @ x),
    "batched": lambda x: jnp.einsum("bi,bj->bij", x, np.ones((4, 2))),
    "conv": lambda x: lax.conv(x[:, None], np.ones((2, 1, 3)), (1,), "SAME"),
    "cumsum": lambda x: (jnp.cumsum(x, 1), jnp.cumsum(x[::-1], 0)),
    "sort": lambda x: (jnp.sort(x, 1), lax.sort((x, x[::-1]), num_keys=1)),
    "roll": lambda x: jnp.roll(x, 2, 1),
    "computed_rows": lambda x: x[jnp.argsort(x[:, 0])],
    "computed_start": lambda x: lax.dynamic_slice(x, (jnp.argmax(x[0]), 1), (2, 3)),
    "computed_set": lambda x: x.at[jnp.argmax(x[:, 0])].set(x[0]),
    "computed_update": lambda x: lax.dynamic_update_slice(
        x, x[:1, :2], (jnp.argmax(x[:, 0]), 1)
    ),
    "points": lambda x: x[np.array([0, 1]), np.array([2, 3])],
    "set_points": lambda x: x.at[np.array([0, 1]), np.array([2, 3])].set(1.5),
    "out_of_bounds": lambda x: (x.at[7].set(0), x.at[9, 1].add(x[0, 0])),
    "repeated": lambda x: jnp.zeros((4, 6)).at[np.array([1, 1, 0])].set(x[:3]),
    "take_along": lambda x: jnp.take_along_axis(x, jnp.argsort(x, 1), 1),
    "batched_gather": lambda x: jax.vmap(lambda r, i: r[i])(x, np.arange(4) % 3),
    "batched_scatter": lambda x: jax.vmap(lambda r, i: r.at[i].set(r[0]))(
        x, np.arange(4)
    ),
    "constants": lambda x: (x + 1, jnp.cos(x), jnp.concatenate([x, np.ones((1, 6))])),
    "scan": lambda x: lax.scan(lambda c, r: (c, 2 * r), 0.0, x.T)[1],
    "growing": lambda x: lax.scan(
        lambda c, _: (jnp.roll(c, 1, 0) + c, c), x, None, length=3
    ),
    "while": lambda x: lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x[::-1] + 3, x),
    "fori": lambda x: lax.fori_loop(0, 2, lambda i, x: x.at[i].set(x[3]), x),
    "choice": lambda x: lax.cond(x[0, 0] > 0, lambda x: x * 0, lambda x: x, x),
    "fft": lambda x: jnp.fft.fft(x).real,
    "tril": jnp.tril,
    "pool": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "VALID"),
    "softmax": jax.nn.softmax,
    "norm": lambda x: x / (1 + jnp.linalg.norm(x)),
}


@pytest.mark.parametrize("name", [*EXACT, *ABOVE])
def test_supports(name):
    f = {**EXACT, **ABOVE}[name]
    closed = jax.make_jaxpr(f)(jnp.ones(SHAPE))
    rng = np.random.default_rng(0)
    for seed in range(4):
        sets = [runs.of_mask(rng.random(n) < 0.6) for n in SHAPE]
        if seed < 2:
            sets[seed] = ((0, SHAPE[seed]),)
        where = boxes.support([tuple(map(boxes.axis, SHAPE, sets))])
        found = trace(closed, [Fact({5: where}, zero=True)])
        true = nonzero(f, dense(where, SHAPE), seed)
        at_zero = nonzero(f, np.zeros(SHAPE, bool), seed)
        for fact, mask, rest in zip(found, true, at_zero, strict=True):
            assert set(fact.where) <= {5}
            possible = dense(fact.term(5), mask.shape)
            assert np.all(possible >= mask)
            if name in EXACT:
                np.testing.assert_array_equal(possible, mask)
            assert not (fact.zero and np.any(rest))
