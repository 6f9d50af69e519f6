"""MMPareto on gradients of every kind: what it promises, to a stated rounding error.

A Gramian's entry is wrong by some eps |g_i| |g_j|, so all that is computed from it is
wrong by some eps of the *reach* of an update, the sum of its terms' lengths, and not of
its own length: no rule that reads a Gramian can do better. ULPS is how many.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import TREES, as_held, cut, joined, rows, size_of
from hypothesis import assume, given
from hypothesis import strategies as st

import mmpareto_jax as mmp

STRUCTURES = (
    (2, "scalar"),
    (2, "six"),
    (3, "three"),
    (5, "vector"),
    (8, "six"),
    (40, "vector"),
)
HALVES = {"bfloat16": (-30, 30), "float16": (-7, 2)}
GAMMA = 1.5
ULPS = 16


@functools.cache
def program(num, tree, dtype="float32", **options):
    """Stacked gradients to the update, [K] weights and rows, and the diagnostics."""
    tx = mmp.mmpareto(num, gamma=GAMMA, **options)
    params = {name: jnp.zeros(shape, dtype) for name, shape in TREES[tree].items()}
    state = tx.init(params)

    @jax.jit
    def update(grads):
        found = tx.combine_rows(grads, state)
        weights, gramians = found.weights["all"], found.gramians["all"]
        seen = mmp.diagnostics(found.state)["all"]
        return found.updates, weights.group, gramians.rows, seen

    return update


class Outcome:
    """An update, and what of it the rule speaks of, in float64."""

    def __init__(self, rows, tree, **options):
        dtype = rows.dtype.name
        found = program(len(rows), tree, dtype, **options)(cut(rows, tree))
        self.update, self.seen = joined(found[0]), found[3]
        self.rows = rows.astype(np.float64)
        self.lengths = np.linalg.norm(self.rows, axis=1)
        weights, scales = (np.asarray(x, np.float64) for x in found[1:3])
        # Of divided rows: the weights of the rows themselves may be beyond any range.
        self.reach = np.sum(np.abs(weights) * (self.lengths / scales))
        self.sum = GAMMA * self.rows.sum(0)
        self.sum_reach = GAMMA * self.lengths.sum()
        wide = jnp.promote_types(dtype, "float32")
        self.eps = ULPS * float(jnp.finfo(wide).eps)
        self.own_eps = float(jnp.finfo(dtype).eps)  # of what is written down
        self.tiny = 4 * float(jnp.finfo(dtype).smallest_normal) * np.sqrt(rows.shape[1])

    @property
    def conflict(self):
        return bool(self.seen["conflict"])

    def cosine(self):
        """The smallest between two gradients that are there."""
        unit = self.rows[self.lengths > 0]
        unit = unit / np.linalg.norm(unit, axis=1)[:, None]
        cosines = unit @ unit.T + 2 * np.eye(len(unit))
        return cosines.min(initial=1)


def check_finite(found):
    assert np.isfinite(found.update).all()
    for name, value in found.seen.items():
        assert not np.isnan(value).any(), name


def check_descent(found):
    """No objective rises: ⟨g_k, d⟩ ≥ 0, but for rounding errors of the terms of d."""
    unit = found.rows / np.where(found.lengths > 0, found.lengths, 1)[:, None]
    written = found.own_eps * np.linalg.norm(found.update) + found.tiny
    assert np.min(unit @ found.update) >= -(found.eps * found.reach + written)


def check_magnitude(found):
    """|d| = γ |Σ g|, in squares: both are differences of terms of the reach squared."""
    square, expected = found.update @ found.update, found.sum @ found.sum
    terms = found.reach**2 + found.sum_reach**2
    written = 4 * found.own_eps * expected + found.tiny**2
    assert abs(square - expected) <= found.eps * terms + written


def check_sum(found):
    """Without conflict, in every number: γ Σ g."""
    terms = GAMMA * np.abs(found.rows).sum(0)
    bound = found.eps * terms + found.own_eps * np.abs(found.sum) + found.tiny
    assert np.all(np.abs(found.update - found.sum) <= bound)


def check_paper(rows, tree):
    found = Outcome(rows, tree)
    check_finite(found)
    check_descent(found)
    cosine = found.cosine()
    if abs(cosine) > found.eps:  # of one that is nearly 0 rounding decides
        assert found.conflict == (cosine < 0)
    if not found.conflict:
        check_sum(found)
    elif found.update.any():
        check_magnitude(found)


@st.composite
def drawn(draw, structures=STRUCTURES, **options):
    """Rows, and the tree that they are cut into."""
    num, tree = draw(st.sampled_from(structures))
    return draw(rows(num, size_of(tree), **options)), tree


@given(drawn())
def test_paper(example):
    check_paper(*example)


@pytest.mark.parametrize("dtype", HALVES)
@given(data=st.data())
def test_paper_in_half_precision(dtype, data):
    least, most = HALVES[dtype]
    options = {"least": least, "most": most, "dtype": dtype}
    check_paper(*data.draw(drawn(((2, "six"), (3, "three")), **options)))


@given(drawn(((2, "six"), (3, "three")), dtype="float64", least=-100, most=100))
def test_paper_in_double_precision(example):
    with jax.enable_x64(True):
        check_paper(*example)


VARIANTS = {
    "official": {"variant": "official"},
    "official, limited": {"variant": "official", "max_magnitude": 3.0},
    "always": {"conflict_test": False},
    "plain": {"magnitude": False},
    "limited": {"max_magnitude": 3.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
@given(example=drawn(((2, "six"), (3, "three"), (8, "six"))))
def test_variants(variant, example):
    """Finite; all but "official" descend; a limited update is not longer than that."""
    found = Outcome(*example, **VARIANTS[variant])
    check_finite(found)
    if "official" not in variant:
        check_descent(found)
    if "official" in variant and not found.conflict and found.cosine() > found.eps:
        check_sum(found)
    if variant == "limited":
        square, largest = found.update @ found.update, found.sum @ found.sum
        terms = found.reach**2 + found.sum_reach**2
        assert square <= largest + found.eps * terms + found.tiny**2


@given(drawn(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_what_is_not_finite_is_seen_everywhere(example, bad, data):
    rows, tree = example
    k = data.draw(st.integers(0, len(rows) - 1))
    p = data.draw(st.integers(0, rows.shape[1] - 1))
    rows = rows.copy()
    rows[k, p] = bad
    found = program(len(rows), tree)(cut(rows, tree))[0]
    assert np.isnan(joined(found)).all()


def differ_by(first, second):
    """How far two updates are apart, in ulps of what they may be apart.

    The min-norm point is within the root of its Gramian's error, and the update is that
    point made as long as the sum is: so the closer the point is to zero, the less is
    known of its direction.
    """
    far = np.linalg.norm(first.update - second.update)
    size = max(np.linalg.norm(x.update) for x in (first, second))
    reach = max(max(x.reach, x.sum_reach) for x in (first, second))
    eps = max(first.eps, second.eps)
    if not first.conflict:
        return far / (eps * reach + first.tiny)
    return far / (np.sqrt(eps) * reach * (1 + size / reach) + first.tiny)


def check_same(first, second, exact=False):
    """Two updates that are to be one, unless rounding decides which."""
    assume(abs(first.cosine()) > first.eps)
    if exact:
        np.testing.assert_array_equal(second.update, first.update)
    elif first.update.any() and second.update.any():
        assert differ_by(first, second) <= 1


@given(drawn(), st.randoms(use_true_random=False))
def test_any_order(example, random):
    """Of two objectives to the last bit: a sum of two has no order."""
    rows, tree = example
    order = random.sample(range(len(rows)), len(rows))
    turned = rows[order]
    check_same(Outcome(rows, tree), Outcome(turned, tree), exact=len(rows) == 2)


@given(drawn(((2, "six"), (5, "six"))))
def test_cut_into_other_leaves(example):
    """The group is one vector, wherever it is cut."""
    rows, tree = example
    whole = np.concatenate(
        [np.asarray(x).reshape(len(rows), -1) for x in cut(rows, tree).values()], 1
    )
    check_same(Outcome(rows, tree), Outcome(whole, "one"))


@given(drawn(least=-15, most=15), st.integers(-45, 45))
def test_scale_equivariant(example, power):
    """A power of two changes no digit of any row, wherever nothing underflows."""
    rows, tree = example
    larger = as_held(np.float32(2.0**power) * rows, rows.dtype)
    first, second = Outcome(rows, tree), Outcome(larger, tree)
    second.update /= 2.0**power
    second.reach, second.sum_reach = (
        x / 2.0**power for x in (second.reach, second.sum_reach)
    )
    first.tiny *= max(1.0, 2.0**-power)
    check_same(first, second)
