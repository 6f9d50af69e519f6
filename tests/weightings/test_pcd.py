import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

pcd = mmp.weightings.pcd


def of_rows(rows, **options):
    tx = mmp.aggregate(pcd(**options), len(rows))
    rows = jnp.asarray(rows)
    return tx.update(rows, tx.init(rows[0]))[0]


def test_without_a_conflict_it_is_the_primary_gradient():
    rows = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 5.0]], np.float32)
    np.testing.assert_allclose(of_rows(rows), rows[0], rtol=1e-6)


def test_by_hand():
    """Opposed at 120 degrees, unit lengths: <g_2, d> is τ, at the length of g_1."""
    rows = np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)]], np.float32)
    found = of_rows(rows, tau=0.25)
    d = rows[0] + (0.25 + 0.5) * rows[1]
    np.testing.assert_allclose(found, d / np.linalg.norm(d), rtol=1e-5)


@pytest.mark.parametrize("num", [2, 8, 40])
def test_every_other_objective_makes_its_progress(num, x64):
    """At the first step all gradients count as of unit length."""
    rng = np.random.default_rng(num)
    rows = rng.normal(size=(num, 60)) * np.exp(rng.normal(scale=3, size=(num, 1)))
    found = of_rows(rows, tau=0.1, eps=0.0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(
        np.linalg.norm(found), np.linalg.norm(rows[0]), rtol=1e-9
    )
    # d is known up to its length: its part along the primary has to be the closest.
    weights = np.linalg.lstsq(unit.T, found / np.linalg.norm(rows[0]), rcond=None)[0]
    d = (weights / weights[0]) @ unit
    progress = unit[1:] @ d
    assert progress.min() > 0.1 - 1e-9
    np.testing.assert_allclose(
        (progress - 0.1) * weights[1:] / weights[0], 0, atol=1e-9
    )
    assert weights[1:].min() > -1e-12


def test_where_no_direction_serves_all_it_is_the_primary_gradient():
    rows = np.array([[1.0, 2.0], [3.0, 0.0], [-1.0, 0.0]], np.float32)
    np.testing.assert_allclose(of_rows(rows), rows[0], rtol=1e-6)


def test_zero_has_all_progress_that_none_asks_for():
    """τ = 0 and opposite gradients: the projection is zero, and so is the update."""
    rows = np.array([[1.0, 0.0], [-2.0, 0.0]], np.float32)
    np.testing.assert_array_equal(of_rows(rows, tau=0.0), [0, 0])


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_a_vector_of_tau_and_any_scale(scale):
    rows = np.array([[1.0, 0.0], [-0.5, 1.0], [-0.1, -1.0]], np.float32)
    one = of_rows(rows, tau=[0.3, 0.0], eps=0.0)
    assert not np.allclose(one, of_rows(rows, tau=[0.0, 0.3], eps=0.0))
    np.testing.assert_allclose(
        of_rows(rows * scale, tau=[0.3, 0.0], eps=0.0) / scale, one, rtol=1e-5
    )


def test_the_primary_by_its_place_and_by_its_name():
    rows = jnp.array([[1.0, 2.0, 0.0], [-3.0, 0.1, 1.0], [0.5, -1.0, 1.0]])
    moved = rows[jnp.array([2, 0, 1])]
    first = of_rows(moved)
    np.testing.assert_allclose(of_rows(rows, primary=2), first, rtol=1e-6)
    groups = mmp.ObjectiveGroups.from_prefixes({"w": ("a", "b", "task")})
    tx = mmp.aggregate(pcd(primary="task"), groups)
    found = tx.update({"w": rows}, tx.init({"w": rows[0]}))[0]["w"]
    np.testing.assert_allclose(found, first, rtol=1e-6)


def test_a_zero_primary_and_a_zero_auxiliary():
    np.testing.assert_array_equal(of_rows(np.float32([[0, 0], [1, 0]])), [0, 0])
    rows = np.float32([[1, 2], [0, 0]])
    np.testing.assert_allclose(of_rows(rows), rows[0], rtol=1e-6)


def test_a_step_that_is_not_finite_leaves_the_mean():
    tx = mmp.aggregate(pcd(), 2)
    rows = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    _, before = tx.update(rows, tx.init(rows[0]))
    found, after = tx.update(rows.at[1, 1].set(jnp.nan), before)
    assert jnp.isnan(found).all()
    for a, b in zip(
        jax.tree.leaves(before.weighting), jax.tree.leaves(after.weighting), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tau": 1.5}, r"pcd: tau must be in \[0, 1\], got 1.5"),
        ({"tau": [[0.1]]}, r"pcd: tau must be \[K\], got shape"),
        ({"tau": [0.1, 0.1]}, "pcd: the length of tau must be 1, got 2"),
        ({"beta": 1.0}, "pcd: beta must be in"),
        ({"eps": -1.0}, "pcd: eps must be finite and >= 0"),
        ({"primary": 2}, r"pcd: primary must be in \[0, 2\), got 2"),
        ({"primary": "task"}, "pcd: primary names 'task', which is no objective"),
    ],
)
def test_what_is_out_of_range_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        mmp.aggregate(pcd(**options), 2).init(jnp.zeros(2))
