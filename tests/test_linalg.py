import jax.numpy as jnp
import numpy as np
import pytest

from mmpareto_jax._gramians.linalg import eigen, psd_solve


def gramian(case):
    rng = np.random.default_rng(0)
    rows = {
        "normal": rng.normal(size=(5, 8)),
        "repeated": np.eye(5) * 2,
        "unequal": rng.normal(size=(4, 9)) * [[1e-6], [1], [1e3], [1e5]],
        "low rank": rng.normal(size=(6, 2)) @ rng.normal(size=(2, 9)),
        "with a zero": rng.normal(size=(3, 5)) * [[1], [0], [1]],
        "one": rng.normal(size=(1, 3)),
        "nothing": np.zeros((3, 3)),
    }[case]
    return rows @ rows.T


CASES = ("normal", "repeated", "unequal", "low rank", "with a zero", "one", "nothing")


@pytest.mark.parametrize("case", CASES)
def test_eigen(case, x64):
    matrix = gramian(case)
    values, vectors, kept = (np.asarray(x) for x in eigen(jnp.asarray(matrix)))
    size = max(matrix.max(), 1e-300)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(matrix)), atol=1e-13)
    np.testing.assert_allclose(
        (vectors * values) @ vectors.T, matrix, atol=1e-13 * size
    )
    expected = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(np.sort(values), expected, atol=1e-13 * size)
    rank = {"low rank": 2, "with a zero": 2, "nothing": 0}.get(case, len(matrix))
    assert kept.sum() == rank
    assert np.all(values[kept] > 0)


def test_small_eigenvalues_have_their_own_digits():
    """In float32, of gradients from 1 to 1e-8 long; a plain solver gives noise."""
    matrix = np.array([[1.0, 5e-9], [5e-9, 1e-16]])  # 1e-16 - 5e-9² is left
    values, _, kept = eigen(jnp.asarray(matrix, jnp.float32))
    np.testing.assert_allclose(np.sort(values)[0], 0.75e-16, rtol=1e-5)
    assert kept.all()


@pytest.mark.parametrize("case", CASES)
def test_psd_solve(case, x64):
    matrix = gramian(case)
    right = matrix @ np.arange(1.0, len(matrix) + 1)
    found = np.asarray(psd_solve(jnp.asarray(matrix), jnp.asarray(right)))
    np.testing.assert_allclose(matrix @ found, right, rtol=1e-9, atol=1e-9)
    if case != "unequal":
        expected = np.linalg.pinv(matrix, rcond=1e-10) @ right
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_psd_solve_leaves_out_what_it_cannot_reach():
    """It projects on (1, 1), eigenvalue 1; the nearest there to (3, 1) is (2, 2)."""
    found = psd_solve(jnp.full((2, 2), 0.5), jnp.array([3.0, 1.0]))
    np.testing.assert_allclose(found, [2, 2], rtol=1e-6)
