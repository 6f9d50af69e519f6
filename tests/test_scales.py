"""Rows of any scales: each is right, however much longer another is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from promises import METHODS

import mmpareto_jax as mmp
from mmpareto_jax._gramians.gramian import group_gramians
from mmpareto_jax._gramians.min_norm import min_norm

VARIANTS = ["paper", "official"]

# Rules that see one Gramian in one scale: a gradient of less than 1e-19 of the longest
# has no square in it. All others are right at every ratio.
LIMITED = {"cagrad": 1e-9, "aligned_mtl": 1e-9, "modo": 1e-9}
# The system that these solve is not well conditioned for near-parallel gradients.
TOLERANCE = {"upgrad": 3e-4, "dualproj": 3e-4}
GRAMIAN_RULES = [
    "aligned_mtl",
    "cagrad",
    "config",
    "db_mtl",
    "dualproj",
    "fairgrad",
    "gradnorm",
    "gradvac",
    "imtl_g",
    "mean_norm",
    "metabalance",
    "mgda",
    "mmpareto",
    "modo",
    "nash_mtl",
    "normalized_sum",
    "pcd",
    "pcgrad",
    "sdmgrad",
    "upgrad",
]
CLOSED_FORMS = ["mmpareto", "mgda", "pcgrad"]  # for K = 2


@functools.cache
def compiled(name, num, dtype):
    del dtype  # another compilation
    tx = mmp.aggregate(METHODS[name].rule, num)

    @jax.jit
    def update(grads, losses):
        state = tx.init(jax.tree.map(lambda x: x[0], grads))
        updates, state = tx.update(grads, state, losses=losses)
        return updates, mmp.diagnostics(state)["all"]

    return update


@functools.cache
def mmpareto(variant, max_magnitude=None):
    tx = mmp.mmpareto(2, variant=variant, max_magnitude=max_magnitude)
    return jax.jit(lambda grads: tx.update(grads, tx.init(jnp.zeros(2))))


def rows_of(num, exponents, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num, 12))
    rows -= 0.7 * rows.mean(0)
    return (rows * 10.0 ** np.asarray(exponents)[:, None]).astype(np.float32)


def ratios(num):
    """From alike to as far apart as float32 holds, short and long ones first."""
    for far in (0.0, 6.0, 12.0, 20.0, 25.0, 60.0):
        exponents = far * (0.5 - np.arange(num) / (num - 1))
        yield exponents
        yield exponents[::-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "num"),
    [*((name, 4) for name in GRAMIAN_RULES), *((name, 2) for name in CLOSED_FORMS)],
)
def test_every_rule_in_float32_is_what_it_is_in_float64(name, num):
    losses = np.linspace(0.5, 2.0, num, dtype=np.float32)
    for exponents in ratios(num):
        if 10.0 ** -np.ptp(exponents) < LIMITED.get(name, 0):
            continue
        rows = rows_of(num, exponents)
        found, _ = compiled(name, num, "float32")(jnp.asarray(rows), losses)
        with jax.enable_x64(True):
            double = jnp.asarray(rows.astype(np.float64))
            expected, _ = compiled(name, num, "float64")(double, losses)
        expected = np.asarray(expected)
        error = np.linalg.norm(np.asarray(found, np.float64) - expected)
        bound = TOLERANCE.get(name, 2e-5)
        assert error <= bound * np.linalg.norm(expected), (exponents, error)


def test_the_limited_rules_are_a_minority():
    """Nothing is on the list that needs not be: they fail beyond it, if finite."""
    for name in ("cagrad", "aligned_mtl"):
        rows = rows_of(2, [0, -25])
        found, _ = compiled(name, 2, "float32")(jnp.asarray(rows), jnp.ones(2))
        with jax.enable_x64(True):
            double = jnp.asarray(rows.astype(np.float64))
            expected, _ = compiled(name, 2, "float64")(double, jnp.ones(2))
        error = np.linalg.norm(np.asarray(found, np.float64) - np.asarray(expected))
        assert np.isfinite(np.asarray(found)).all()
        assert error > 0.01 * np.linalg.norm(expected), name


@pytest.mark.parametrize("name", ["upgrad", "dualproj", "mgda", "mmpareto"])
@pytest.mark.parametrize("lengths", [(1e10, 1e-10), (1e12, 1e-10), (3e15, 2e-11)])
def test_squares_in_range_whose_ratio_is_not(lengths, name):
    """Neither objective is hurt, though one square is 1e-40 of the other and less."""
    a, b = lengths
    rows = np.array([[a, 0], [-b, b]], np.float32)
    updates, _ = compiled(name, 2, "float32")(jnp.asarray(rows), jnp.ones(2))
    rows, updates = rows.astype(np.float64), np.asarray(updates, np.float64)
    sizes = np.linalg.norm(rows, axis=1) * np.linalg.norm(updates)
    assert sizes.all()
    assert np.min(rows @ updates / sizes) > -1e-5


BY_HAND = [
    # m, u, and the update at γ = 1.5: |m + u| along the min-norm point.
    ([1e6, 0], [-5e-14, 5e-14], [0.125, 1.5e6]),
    ([1e6, 0], [-1e-14, 1e-14], [0.025, 1.5e6]),
    ([1e-10, 0], [-1e-20, 1e-20], [0.0, 1.5e-10]),
    ([1, 0], [-1e-20, 1e-20], [0.0, 1.5]),
    ([1e30, 0], [-1e-30, 1e-30], [0.0, 1.5e30]),
    ([-1e-30, 1e-30], [1e30, 0], [0.0, 1.5e30]),
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("m", "u", "expected"), BY_HAND)
def test_a_conflict_of_lengths_that_are_far_apart(m, u, expected, variant):
    grads = jnp.array([m, u])
    updates, state = mmpareto(variant)(grads)
    found = mmp.diagnostics(state)["all"]
    size = np.linalg.norm(expected)
    np.testing.assert_allclose(updates, expected, atol=2e-7 * size)
    assert found["conflict"]
    np.testing.assert_allclose(found["cosine"], -np.sqrt(0.5), rtol=1e-6)
    norms = np.linalg.norm(np.asarray(grads, np.float64), axis=1)
    np.testing.assert_allclose(found["norms"], norms, rtol=1e-6)
    assert not np.isnan(found["weights"]).any()


@pytest.mark.parametrize("max_magnitude", [1.0, 3.0, 1e30])
def test_a_limit_of_the_magnitude_at_every_ratio(max_magnitude):
    """Without one the update is as long as the sum; with one never longer than that."""
    for exponent in (-3, -15, -25, -35):
        rows = np.array([[1.0, 0.0], [-1.0, 1.0]]) * [[1.0], [10.0**exponent]]
        for variant in VARIANTS:
            grads = jnp.asarray(rows, jnp.float32)
            updates, _ = mmpareto(variant, max_magnitude)(grads)
            # The min-norm point: close to the short gradient, across the long one.
            shortest = 2 * 10.0**exponent
            expected = 1.5 * min(max_magnitude * shortest, 1.0)
            found = np.linalg.norm(np.asarray(updates, np.float64))
            np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.parametrize("num", [2, 3, 8])
def test_common_descent_and_magnitude_at_every_ratio(num):
    """⟨g_k, d⟩ ≥ 0 up to rounding, and |d| = γ |Σ g|."""
    for seed, exponents in enumerate(ratios(num)):
        rows = rows_of(num, exponents, seed)
        updates, found = compiled("mmpareto", num, "float32")(
            jnp.asarray(rows), jnp.ones(num)
        )
        rows, updates = rows.astype(np.float64), np.asarray(updates, np.float64)
        if not found["conflict"] or not updates.any():
            continue
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(updates)
        assert np.min(rows @ updates / lengths) > -1e-5
        size = 1.5 * np.linalg.norm(rows.sum(0))
        np.testing.assert_allclose(np.linalg.norm(updates), size, rtol=1e-4)


@pytest.mark.parametrize("name", ["mmpareto", "mgda", "upgrad", "pcgrad"])
def test_a_zero_row_beside_a_short_and_a_long_one(name):
    rows = np.array([[1e20, 0, 0], [0, 0, 0], [-1e-20, 1e-20, 0]], np.float32)
    updates, found = compiled(name, 3, "float32")(jnp.asarray(rows), jnp.ones(3))
    assert np.isfinite(np.asarray(updates)).all()
    assert not np.isnan(found["weights"]).any()
    assert found["conflict"]


def test_a_row_that_is_not_finite_stays_visible_beside_a_short_one():
    for bad in (np.nan, np.inf):
        rows = np.array([[1e-30, 0], [bad, 1.0]], np.float32)
        updates, _ = compiled("mmpareto", 2, "float32")(jnp.asarray(rows), jnp.ones(2))
        assert np.isnan(np.asarray(updates)).all()


@pytest.mark.parametrize("num", [2, 3, 8])
def test_min_norm_of_rows_in_scales_of_their_own(num, x64):
    """Against the whole Gramian in float64, which holds squares of these."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(num, 2 * num))
        rows -= 0.8 * rows.mean(0)
        scales = 2.0 ** rng.integers(-40, 40, num)
        gram = jnp.asarray(rows @ rows.T)
        found = jax.jit(min_norm)(gram, rows=jnp.asarray(scales))
        whole = jax.jit(min_norm)(gram * scales[:, None] * scales[None, :])
        np.testing.assert_allclose(found.weights, whole.weights, rtol=1e-9, atol=1e-30)
        point = found.shortest * (found.parts @ rows)
        expected = whole.weights @ (rows * scales[:, None])
        np.testing.assert_allclose(point, expected, atol=1e-9 * np.abs(expected).max())


def test_gramians_of_rows_in_scales_of_their_own():
    rows = rows_of(3, [30, 0, -30])
    leaves = [jnp.asarray(rows[:, :5]), jnp.asarray(rows[:, 5:])]
    (found,) = jax.jit(group_gramians)([leaves])
    assert np.all(np.log2(found.rows) == np.round(np.log2(found.rows)))
    exact = rows.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-6)
    own = np.sqrt(np.diag(found.total))
    cosines = exact @ exact.T / np.outer(norms, norms)
    np.testing.assert_allclose(found.total / np.outer(own, own), cosines, atol=1e-6)
    np.testing.assert_allclose(sum(found.leaves), found.total, rtol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_terms_beyond_the_range_cancel(variant):
    """Each is 3e38 and more, their sum is not."""
    rows = np.array([[2e38, 2e38], [-2e38, -1e38]])
    tx = mmp.mmpareto(2, variant=variant)
    found, _ = jax.jit(tx.update)(jnp.asarray(rows, "float32"), tx.init(jnp.zeros(2)))
    small, _ = jax.jit(tx.update)(jnp.asarray(rows * 1e-38), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(np.asarray(found, np.float64) * 1e-38, small, rtol=1e-4)
    np.testing.assert_allclose(found, [-9.0e37, 1.2e38], rtol=1e-4)


@pytest.mark.parametrize("largest", [1e3, 1e20, 1e36])
@pytest.mark.parametrize("name", ["stch", "dwa", "soft_adapt", "relobralo"])
def test_losses_of_unlike_scales(name, largest):
    """The softmax of what a compiler may round twice, in two ways."""
    tx = mmp.aggregate(METHODS[name].rule, 3)
    grads = jnp.eye(3, 5)

    @jax.jit
    def update(losses, state):
        return tx.update(grads, state, losses=losses)

    state = tx.init(grads[0])
    for losses in ([1.0, 1.0, 1.0], [1.0, 1.0, largest], [1.0, 1.0, largest]):
        found, state = update(jnp.array(losses), state)
        assert np.isfinite(found).all()
    if name == "stch":
        np.testing.assert_allclose(found[:3], [0, 0, 1 / 3], atol=1e-6)
