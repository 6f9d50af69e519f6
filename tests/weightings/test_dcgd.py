import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

KINDS = ["center", "projection", "average"]


def update(kind, rows):
    tx = mmp.aggregate(mmp.weightings.dcgd(kind), 2)
    return tx.update(jnp.asarray(rows), tx.init(jnp.zeros(rows.shape[1])))[0]


def by_hand(kind, a, b):
    size = np.linalg.norm
    total = a + b
    if kind == "center":
        return (size(a) + size(b)) / 2 * (a / size(a) + b / size(b))
    a_off_b, b_off_a = a - (a @ b) / (b @ b) * b, b - (a @ b) / (a @ a) * a
    if total @ a >= 0 and total @ b >= 0:
        return total
    if kind == "average":
        return (a_off_b + b_off_a) / 2
    return b_off_a if total @ a < 0 else a_off_b


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(1, 1), (1, 7), (5, 0.2)])
def test_by_hand(kind, lengths, x64):
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(20):
        rows = rng.normal(size=(2, 3)) * np.array(lengths)[:, None]
        found = update(kind, rows)
        np.testing.assert_allclose(found, by_hand(kind, *rows), rtol=1e-9, atol=1e-12)
        assert (rows @ found).min() > -1e-9
        seen.add(bool((rows @ rows.sum(0)).min() < 0))
    assert lengths == (1, 1) or seen == {False, True}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [1e-30, 1e-12, 1e12, 1e30])
def test_lengths_far_apart(kind, ratio):
    rows = np.array([[-0.5, np.sqrt(0.75)], [1, 0]]) * np.array([[ratio], [1.0]])
    expected = by_hand(kind, *rows)
    found = update(kind, rows.astype(np.float32))
    size = np.linalg.norm(expected)
    np.testing.assert_allclose(found / size, expected / size, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_is_zero_opposite_ones_and_nan(kind):
    alone = np.float32([[0, 0], [1, 2]])
    np.testing.assert_array_equal(update(kind, alone), alone[1])
    np.testing.assert_array_equal(update(kind, np.float32([[1, 0], [-3, 0]])), [0, 0])
    assert jnp.isnan(update(kind, np.float32([[1, 0], [np.nan, 0]]))).all()


def test_two_objectives_and_a_known_kind():
    with pytest.raises(ValueError, match="number of objectives must be 2, got 3"):
        mmp.aggregate(mmp.weightings.dcgd(), 3).init(jnp.zeros(2))
    with pytest.raises(ValueError, match="kind must be one of center, projection, ave"):
        mmp.weightings.dcgd("middle")
