"""The small problems on a Gramian, solved up to rounding: by what solutions satisfy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import as_held, rows
from hypothesis import given
from hypothesis import strategies as st

from mmpareto_jax._gramians.active_set import nonnegative_qp
from mmpareto_jax._gramians.balance import balance
from mmpareto_jax._gramians.gramian import combine, group_gramians
from mmpareto_jax._gramians.linalg import eigen
from mmpareto_jax._gramians.min_norm import min_norm

SIZE = 9
NUMS = (2, 3, 8, 40)
EPS = float(jnp.finfo(jnp.float32).eps)


@functools.cache
def gramians(num):
    del num  # another compilation
    return jax.jit(lambda x: group_gramians([[x]])[0])


@functools.cache
def solved(num):
    del num
    return jax.jit(lambda total, rows: min_norm(total, rows=rows))


def exact_gramian(divided):
    """Inner products of rows that are near 1, in float64."""
    return divided @ divided.T


@pytest.mark.parametrize("num", NUMS)
@given(data=st.data())
def test_gramians(num, data):
    """Every product is right to some ulps of the two lengths, at every scale."""
    drawn = data.draw(rows(num, SIZE))
    found = gramians(num)(drawn)
    scales = np.asarray(found.rows, np.float64)
    divided = drawn.astype(np.float64) / scales[:, None]
    expected = exact_gramian(divided)
    lengths = np.sqrt(np.diag(expected))
    tiny = 4 * SIZE * float(jnp.finfo(jnp.float32).smallest_normal)
    far = np.abs(np.asarray(found.total, np.float64) - expected)
    # Of the partial sums of a row, each rounded once.
    assert np.all(far <= SIZE * EPS * np.outer(lengths, lengths) + tiny)
    np.testing.assert_array_equal(found.total, found.total.T)


@pytest.mark.parametrize("num", NUMS)
@given(data=st.data())
def test_min_norm(num, data):
    """On the simplex, and no gradient has a smaller product with it than its square.

    ⟨g_k, d⟩ ≥ |d|² for all k is what the point of least norm satisfies, and no other.
    It holds to some ulps of |g_k| times the longest of those that it is made of: their
    products are no more exact than that.
    """
    drawn = data.draw(rows(num, SIZE))
    g = gramians(num)(drawn)
    found = solved(num)(g.total, g.rows)
    weights, parts = (np.asarray(x, np.float64) for x in (found.weights, found.parts))
    assert np.isfinite(weights).all()
    assert np.isfinite(parts).all()
    assert np.all(parts >= 0)
    np.testing.assert_allclose(weights.sum(), 1, rtol=4 * num * EPS)
    scales = np.asarray(g.rows, np.float64)
    exact = drawn.astype(np.float64)
    point = float(found.shortest) * (parts @ (exact / scales[:, None]))
    lengths = np.linalg.norm(exact, axis=1)
    reach = float(found.shortest) * (parts @ (lengths / scales))
    unit = exact / np.where(lengths > 0, lengths, 1)[:, None]
    alive = lengths > 0
    if alive.all():
        # Divided by the gradient's length, and by that of the point's terms.
        low = unit @ point - (point @ point) / lengths
        assert np.min(low) >= -64 * EPS * reach
    else:
        assert not point.any()


def test_min_norm_of_a_zero_row_beside_rows_that_are_far_apart():
    """The search found NaN here: the ratio of the scales is beyond float32."""
    drawn = np.zeros((3, SIZE), np.float32)
    drawn[0, :2], drawn[1, 2] = 9e17, 1e-22
    g = gramians(3)(drawn)
    np.testing.assert_array_equal(solved(3)(g.total, g.rows).weights, [0, 0, 1])


@pytest.mark.parametrize("num", [3, 8])
@given(data=st.data())
def test_nonnegative_qp(num, data):
    """x ≥ 0, slopes ≥ 0 and one of the two 0: to rounding of the slopes' terms."""
    unit = data.draw(rows(num, SIZE, least=0, most=0)).astype(np.float64)
    lengths = np.linalg.norm(unit, axis=1)
    unit = unit / np.where(lengths > 0, lengths, 1)[:, None]
    matrix = exact_gramian(unit) + 1e-3 * np.eye(num)
    linear = np.array(
        data.draw(st.lists(st.floats(-1, 1, width=32), min_size=num, max_size=num))
    )
    matrix, linear = (np.asarray(x, np.float32) for x in (matrix, linear))
    found, systems = jax.jit(nonnegative_qp)(matrix, linear)
    x = np.asarray(found, np.float64)
    slopes = matrix.astype(np.float64) @ x - linear
    noise = 16 * EPS * (np.abs(linear) + np.abs(matrix) @ x) + 1e-30
    assert np.all(x >= 0)
    assert np.all(slopes >= -noise)
    assert np.all(slopes[x > 0] <= noise[x > 0])
    assert systems < 200


@pytest.mark.parametrize("num", [2, 4])
@given(data=st.data())
def test_balance(num, data):
    """It is positive and finite, of equal and opposite gradients, too."""
    kinds = ("normal", "again", "opposite", "near", "dependent")
    drawn = data.draw(rows(num, SIZE, kinds=kinds))
    g = gramians(num)(drawn)
    alpha = data.draw(st.sampled_from([0.5, 1.0, 2.0]))
    found, report = jax.jit(balance)(g.total, alpha, g.rows)
    assert np.isfinite(found).all()
    assert np.all(np.asarray(found) > 0)
    assert np.isfinite(report.gap)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_balance_of_two_equal_gradients_and_one_that_is_far_shorter(alpha):
    """The search found a system that is singular in float32, and no step taken."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, SIZE))
    last = rng.normal(size=SIZE) - 3 * second
    drawn = np.array([1e3 * first, 1e3 * second, 1e3 * second, 1e-36 * last])
    g = gramians(4)(drawn.astype(np.float32))
    found, report = jax.jit(balance)(g.total, alpha, g.rows)
    assert np.isfinite(found).all()
    assert report.iterations > 0
    assert report.gap < 1e-5


@given(rows(5, SIZE))
def test_eigen(drawn):
    """V diag(values) Vᵀ is the matrix, and the columns of V are orthogonal."""
    total = gramians(5)(drawn).total
    values, vectors, _ = (np.asarray(x, np.float64) for x in jax.jit(eigen)(total))
    total = np.asarray(total, np.float64)
    largest = max(np.diag(total).max(), 1e-37)
    assert np.abs(vectors @ np.diag(values) @ vectors.T - total).max() <= (
        64 * EPS * largest
    )
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(5), atol=64 * EPS)


@pytest.mark.parametrize("num", [2, 40])
@given(data=st.data())
def test_no_term_is_lost(num, data):
    """Of a sum of divided rows every number is right to some ulps of its own terms."""
    drawn = data.draw(rows(num, SIZE, most=25))
    g = gramians(num)(drawn)
    factors = data.draw(
        st.lists(st.sampled_from([0.0, 1.5, -1.0]), min_size=num, max_size=num)
    )
    weights = as_held(np.array(factors) * np.asarray(g.rows), np.float32)
    found = np.asarray(jax.jit(combine)(weights, drawn, g.rows), np.float64)
    terms = np.array(factors)[:, None] * drawn.astype(np.float64)
    tiny = 2 * num * float(jnp.finfo(jnp.float32).smallest_normal)
    bound = num * EPS * np.abs(terms).sum(0) + tiny
    assert np.all(np.abs(found - terms.sum(0)) <= bound)
