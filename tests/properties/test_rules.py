"""Every rule on gradients of every kind keeps what ``promises.py`` says of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import TREES, cut, joined, rows, size_of
from hypothesis import given
from hypothesis import strategies as st
from promises import METHODS
from test_scales import LIMITED

import mmpareto_jax as mmp

NUM, TREE = 4, "six"
ULPS = 64

# Which weights, or divisors, are a loss to some power: beyond the range of float32 if
# losses are. They are tried with losses from 1e-6 to 1e6.
OF_LOSSES = ("db_mtl", "geometric_mean")


@functools.cache
def program(name):
    """Gradients, losses and a state to the update, the state, weights and rows."""
    tx = mmp.aggregate(METHODS[name].rule, NUM)

    @jax.jit
    def update(grads, losses, state):
        found = tx.combine_rows(grads, state, losses=losses)
        weights, gramians = found.weights["all"], found.gramians["all"]
        group = None if weights is None else weights.group
        return found.updates, found.state, group, gramians.rows

    return update, tx.init({k: jnp.zeros(x) for k, x in TREES[TREE].items()})


class Outcome:
    """An update from the first state, in float64, and its reach."""

    def __init__(self, name, rows, losses):
        update, state = program(name)
        found, self.state, weights, scales = update(cut(rows, TREE), losses, state)
        self.update, self.rows = joined(found), rows.astype(np.float64)
        self.lengths = np.linalg.norm(self.rows, axis=1)
        self.reach = np.linalg.norm(self.update)
        if weights is not None:
            weights, scales = (np.asarray(x, np.float64) for x in (weights, scales))
            self.reach = np.sum(np.abs(weights) * (self.lengths / scales))
        self.eps = ULPS * float(jnp.finfo(jnp.float32).eps)
        self.tiny = 4 * float(jnp.finfo(jnp.float32).smallest_normal) * NUM

    @property
    def seen(self):
        return mmp.diagnostics(self.state)["all"]


@st.composite
def losses(draw, name):
    far = 6 if name in OF_LOSSES else 30
    powers = draw(st.lists(st.integers(-far, far), min_size=NUM, max_size=NUM))
    digits = st.sampled_from([1.0, 0.0, 3.0])
    found = draw(st.lists(digits, min_size=NUM, max_size=NUM))
    return (np.array(found) * 10.0 ** np.array(powers)).astype(np.float32)


def numbers(tree):
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    return [x for x in leaves if x.dtype.kind == "f"]


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
def test_finite_and_never_ascending(name, data):
    """The update, the state and the diagnostics, with losses as unlike as gradients."""
    drawn = data.draw(rows(NUM, size_of(TREE)))
    found = Outcome(name, drawn, data.draw(losses(name)))
    assert np.isfinite(found.update).all()
    assert not any(np.isnan(x).any() for x in numbers((found.state, found.seen)))
    if METHODS[name].descends:
        unit = found.rows / np.where(found.lengths > 0, found.lengths, 1)[:, None]
        assert np.min(unit @ found.update) >= -(found.eps * found.reach + found.tiny)


@pytest.mark.parametrize("name", METHODS)
@given(data=st.data())
def test_nothing_of_a_bad_step_is_kept(name, data):
    drawn = data.draw(rows(NUM, size_of(TREE), least=-10, most=10))
    given_losses = np.ones(NUM, np.float32)
    (update, state) = program(name)
    bad = drawn.copy()
    k, p = data.draw(st.integers(0, NUM - 1)), data.draw(st.integers(0, 10))
    bad[k, p] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    found, after, *_ = update(cut(bad, TREE), given_losses, state)
    if name != "trimmed_mean" or np.isnan(bad[k, p]):
        assert not np.isfinite(joined(found)[p])
    if not isinstance(METHODS[name].rule, mmp.LossWeighting):
        for a, b in zip(
            numbers(after.weighting), numbers(state.weighting), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if m.scales])
@given(data=st.data())
def test_scale_equivariant(name, data):
    """A power of two, of all gradients: no digit changes but by what underflows.

    Of dependent gradients rounding would decide what rank they have.
    """
    far = 4 if name in LIMITED else 12
    kinds = ("normal", "zero")
    drawn = data.draw(rows(NUM, size_of(TREE), kinds=kinds, least=-far, most=far))
    factor = 2.0 ** data.draw(st.integers(-40, 40))
    one = np.ones(NUM, np.float32)
    first = Outcome(name, drawn, one)
    second = Outcome(name, np.float32(factor) * drawn, one)
    reach = max(first.reach, second.reach / factor)
    tiny = first.tiny * max(1, 1 / factor)
    far = np.abs(second.update / factor - first.update).max()
    assert far <= np.sqrt(first.eps) * reach + tiny
