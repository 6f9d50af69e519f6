"""The min-norm point is optimal: its duality gap, on everything that is hard."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp
from mmpareto_jax._gramians.min_norm import min_norm

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "torchjd_shared.npz")
GAP = {"float32": 1e-6, "float64": 1e-12}
SIZES = [2, 3, 5, 8, 16, 32, 64]
REPEATS = 8


def jacobian(family, num, rng):
    size = 2 * num
    rows = rng.normal(size=(num, size))
    if family == "conflict":
        rows -= rows.mean(0) * rng.uniform(0.5, 0.99)
    elif family == "rank_deficient":
        rows = rows[:, : max(1, num // 2)] @ rng.normal(size=(max(1, num // 2), size))
    elif family == "nearly_parallel":
        rows = rows[:1] + 10 ** rng.uniform(-6, -2) * rows
    elif family == "nearly_parallel_unequal":
        rows = (rows[:1] + 1e-4 * rows) * rng.uniform(0.5, 2, size=(num, 1))
    elif family == "duplicate":
        rows = rows[rng.integers(0, max(1, num // 2), num)]
    elif family == "zero_rows":
        rows[rng.integers(0, num, max(1, num // 3))] = 0
    elif family == "all_zero":
        rows *= 0
    elif family == "row_scales":
        rows *= 10 ** rng.uniform(-8, 8, size=(num, 1))
    elif family == "tiny":
        rows *= 1e-8
    elif family == "huge":
        rows *= 1e8
    elif family == "opposite":
        rows[1::2] = -rows[: num // 2 * 2 : 2] * rng.uniform(0.3, 3)
    elif family == "zero_in_hull":
        rows[-1] = -rng.uniform(0.1, 1, num - 1) @ rows[:-1]
    elif family == "orthogonal":
        rows = np.eye(num, size) * rng.uniform(0.1, 10, size=(num, 1))
    return rows


FAMILIES = [
    "random",
    "conflict",
    "rank_deficient",
    "nearly_parallel",
    "nearly_parallel_unequal",
    "duplicate",
    "zero_rows",
    "all_zero",
    "row_scales",
    "tiny",
    "huge",
    "opposite",
    "zero_in_hull",
    "orthogonal",
]


@functools.cache
def solver(num, dtype):
    del num, dtype  # one compilation each
    return jax.jit(jax.vmap(mmp.min_norm_weights))


def gaps(grams, weights):
    """Relative duality gaps (wᵀGw − minᵢ(Gw)ᵢ) / tr G, in float64."""
    grams, weights = np.asarray(grams, np.float64), np.asarray(weights, np.float64)
    inner = np.einsum("nij,nj->ni", grams, weights)
    square = np.einsum("ni,ni->n", inner, weights)
    trace = np.trace(grams, axis1=1, axis2=2)
    return (square - inner.min(1)) / np.where(trace > 0, trace, 1)


@pytest.mark.parametrize("num", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_duality_gap(num, dtype):
    rng = np.random.default_rng(num)
    rows = np.stack(
        [jacobian(family, num, rng) for family in FAMILIES for _ in range(REPEATS)]
    )
    with jax.enable_x64(dtype == "float64"):
        grams = jnp.asarray(rows @ rows.transpose(0, 2, 1), dtype)
        weights = solver(num, dtype)(grams)
        assert weights.dtype == grams.dtype
    weights = np.asarray(weights, np.float64)
    found = gaps(grams, weights).reshape(len(FAMILIES), REPEATS).max(1)
    worst = dict(zip(FAMILIES, found, strict=True))
    print(f"K = {num} {dtype}: worst gap {found.max():.1e} {max(worst, key=worst.get)}")
    assert np.all(weights >= 0)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=10 * np.finfo(dtype).eps)
    assert {k: x for k, x in worst.items() if not x <= GAP[dtype]} == {}


CASES = sorted({name.split("/")[0] for name in GOLDEN.files})


@pytest.mark.parametrize("case", CASES)
def test_golden(case, x64):
    """Where the point is unique its weights are those of the exact enumeration."""
    rows = GOLDEN[f"{case}/J"]
    found = solver(len(rows), "float64")(jnp.asarray(rows @ rows.T)[None])[0]
    expected = GOLDEN[f"{case}/min_norm_weights"]
    scale = np.linalg.norm(rows, axis=1).max()
    np.testing.assert_allclose(found @ rows, expected @ rows, atol=1e-7 * scale)
    if np.linalg.matrix_rank(rows) == len(rows):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [2.0**k for k in (-56, -10, 10, 49)])
@pytest.mark.parametrize("num", [2, 3, 8])
def test_scale(num, scale):
    """As far as a float32 Gramian has exponents; `aggregate` goes further."""
    rows = np.random.default_rng(num).normal(size=(4, num, 20))
    grams = jnp.asarray(rows @ rows.transpose(0, 2, 1), jnp.float32)
    square = jnp.float32(scale) ** 2
    found = solver(num, "float32")(grams * square)
    expected = solver(num, "float32")(grams)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num", [1, 2, 3, 8])
def test_the_report_is_the_duality_gap(num):
    rows = np.random.default_rng(num).normal(size=(num, 20))
    gram = jnp.asarray(rows @ rows.T, jnp.float32)
    weights, *_, report = min_norm(gram)
    gap = gaps(np.asarray(gram)[None], np.asarray(weights)[None])[0]
    np.testing.assert_allclose(report.gap, gap, atol=2e-7)
    assert report.gap < 1e-6
    assert (report.iterations > 0) == (num > 2)
    assert report.iterations <= 6 * num


def test_by_hand():
    rows = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    weights = mmp.min_norm_weights(rows @ rows.T)
    np.testing.assert_allclose(weights, [0.6, 0.4], rtol=1e-6)
    np.testing.assert_allclose(weights @ rows, [0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("num", [1, 2, 3, 5])
def test_one_gradient_zero_is_the_point_itself(num):
    rows = np.random.default_rng(0).normal(size=(num, 6))
    rows[-1] = 0
    weights = mmp.min_norm_weights(jnp.asarray(rows @ rows.T, jnp.float32))
    np.testing.assert_allclose(weights, np.eye(num)[-1], atol=1e-6)


@pytest.mark.parametrize("num", [2, 3])
def test_among(num):
    """A gradient that is left out has no weight; the others are solved alone."""
    rng = np.random.default_rng(num)
    rows = jacobian("conflict", num + 1, rng)
    gram = jnp.asarray(rows @ rows.T, jnp.float32)
    among = jnp.arange(num + 1) != 1
    kept = np.flatnonzero(among)
    found = mmp.min_norm_weights(gram, among=among)
    expected = mmp.min_norm_weights(gram[np.ix_(kept, kept)])
    np.testing.assert_allclose(found[kept], expected, rtol=1e-4, atol=1e-6)
    assert found[1] == 0


@pytest.mark.parametrize("num", [2, 3])
def test_permutation(num):
    rows = jacobian("conflict", num, np.random.default_rng(0))
    gram = jnp.asarray(rows @ rows.T, jnp.float32)
    order = np.roll(np.arange(num), 1)
    np.testing.assert_allclose(
        mmp.min_norm_weights(gram[np.ix_(order, order)]),
        mmp.min_norm_weights(gram)[order],
        rtol=1e-5,
    )


@pytest.mark.parametrize("num", [1, 2, 3])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_finite(num, bad):
    gram = jnp.eye(num).at[0, 0].set(bad)
    assert np.isnan(mmp.min_norm_weights(gram)).all()


def test_in_scan():
    rows = np.random.default_rng(0).normal(size=(4, 3, 6))
    grams = jnp.asarray(rows @ rows.transpose(0, 2, 1), jnp.float32)
    _, found = jax.lax.scan(lambda c, g: (c, mmp.min_norm_weights(g)), 0, grams)
    expected = jax.vmap(mmp.min_norm_weights)(grams)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0, 0), (2, 2, 2)])
def test_errors(shape):
    with pytest.raises(ValueError, match=r"min_norm_weights: expected a Gramian \[K"):
        mmp.min_norm_weights(jnp.zeros(shape))
