"""Where methods end: what holds of MMPareto and its relatives, and what does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mmpareto_jax as mmp
from mmpareto_jax import problems
from mmpareto_jax.problems._problem import decaying

PROBLEMS = {name: make() for name, make in problems.PROBLEMS.items()}
# These rules arrive in half of the steps; it is the time of the tests.
PROBLEMS |= {"toy": problems.toy(steps=50_000)}
PROBLEMS |= {"toy-scaled": problems.toy(0.1, steps=50_000)}
# MGDA's direction is as short as the shortest gradient: too slow for the scaled bowls.
RUNS = [(problem, method) for problem in PROBLEMS for method in ("mgda", "mmpareto")]
RUNS.remove(("two-quadratics-scaled", "mgda"))


@functools.cache
def limits(problem, method):
    """The rows of one method, in float64, computed once for all tests."""
    with jax.enable_x64(True):
        return problems.compare_trajectories(PROBLEMS[problem], [method]).limits


@functools.cache
def jacobian(problem):
    return jax.enable_x64(True)(jax.jit(PROBLEMS[problem].jacobian))


def lengths_at_the_start(problem, limit):
    return np.linalg.norm(jacobian(problem)(limit.start), axis=1).max()


def sum_gradient(problem, params):
    return np.linalg.norm(np.asarray(jacobian(problem)(params)).sum(0))


@pytest.mark.parametrize(("problem", "method"), RUNS)
def test_limits_are_pareto_stationary_from_every_start(problem, method):
    for limit in limits(problem, method):
        bound = 1e-6 * lengths_at_the_start(problem, limit)
        assert limit.stationarity <= bound, limit


@pytest.mark.parametrize("problem", ["two-quadratics", "element-wise"])
@pytest.mark.parametrize("method", ["nash-mtl", "upgrad", "pcgrad"])
def test_so_are_those_of_others_on_convex_problems(problem, method):
    for limit in limits(problem, method):
        bound = 1e-5 * lengths_at_the_start(problem, limit)
        assert limit.stationarity <= bound, limit
        assert limit.distance < 1e-2


def test_mmpareto_leaves_the_valleys_where_uniform_stalls():
    uniform, ours = limits("toy", "uniform"), limits("toy", "mmpareto")
    stalled = [row for row in uniform if row.distance > 10]
    assert [row.start.tolist() for row in stalled] == [[-8.5, 7.5], [9.0, 9.0]]
    assert all(row.params[1] > 1 for row in stalled)
    assert all(row.distance < 0.01 for row in ours)


def test_uniform_ends_where_the_sum_is_least_whatever_the_start():
    rows = limits("two-quadratics-scaled", "uniform")
    ends = np.stack([row.params for row in rows])
    np.testing.assert_allclose(ends, ends[:1].repeat(len(ends), 0), atol=1e-6)
    assert all(sum_gradient("two-quadratics-scaled", x) < 1e-6 for x in ends)
    # The objective with the small loss pays: this is near the other's end.
    assert rows[0].balance < 0.4


def test_mmpareto_ends_where_its_start_leads_it_not_in_balance():
    """It makes no promise of balance: on the same problem it ends at both ends."""
    rows = limits("two-quadratics-scaled", "mmpareto")
    ends = np.stack([row.params for row in rows])
    assert ends[:, 0].min() < -0.8
    assert ends[:, 0].max() > 0.6
    assert all(row.distance < 1e-2 for row in rows)
    assert max(sum_gradient("two-quadratics-scaled", x) for x in ends) > 0.1


def test_without_conflict_mmpareto_is_the_sum():
    """So both end in the same point of a problem without any conflict."""
    for ours, uniform in zip(
        limits("element-wise", "mmpareto"),
        limits("element-wise", "uniform"),
        strict=True,
    ):
        np.testing.assert_allclose(ours.params, uniform.params, atol=1e-6)
        assert ours.losses.max() < 1e-12


def test_an_objective_that_is_done_stops_mgda_and_not_mmpareto():
    [mgda] = [r for r in limits("element-wise", "mgda") if r.start[0] == 0]
    assert mgda.params.tolist() == mgda.start.tolist()
    assert mgda.stationarity == 0
    [ours] = [r for r in limits("element-wise", "mmpareto") if r.start[0] == 0]
    assert np.abs(ours.params).max() < 1e-6


def test_from_the_middle_symmetry_keeps_mmpareto_in_the_middle():
    [row] = [r for r in limits("toy", "mmpareto") if not r.start.any()]
    np.testing.assert_allclose(row.params, [0, -8.3552], atol=1e-3)
    assert row.balance == pytest.approx(1, abs=1e-3)


def test_the_step_size_moves_the_limit_of_mmpareto_along_the_front():
    """With its restored magnitude it crosses the front, and each crossing moves it."""
    problem = PROBLEMS["two-quadratics"]
    coarse = limits("two-quadratics", "mmpareto")[0]
    steps = 10 * problem.steps
    with jax.enable_x64(True):
        path = problems.trajectory(
            problem,
            mmp.mmpareto(2),
            jnp.asarray(coarse.start),
            steps,
            optax.sgd(decaying(steps, 1e-3)),
        )
        fine = np.asarray(path.params[-1])
        end = float(problems.pareto_stationarity(jacobian("two-quadratics")(fine)))
    assert max(coarse.stationarity, end) < 1e-6
    assert fine[0] > coarse.params[0] + 0.1


def test_the_table_has_a_row_per_method_and_start():
    problem = PROBLEMS["two-quadratics"]
    found = problems.compare_trajectories(problem, ["uniform", "pareto"], steps=5)
    lines = found.table().splitlines()
    assert len(lines) == 2 + 2 * len(problem.starts)
    assert "| method | start | end | L1 | L2 | to front |" in lines[0]
    assert [r.method for r in found.limits[:: len(problem.starts)]] == [
        "uniform",
        "pareto",
    ]
    assert list(found.trajectories) == ["uniform", "pareto"]


def test_methods_can_be_given_as_transformations():
    problem = PROBLEMS["two-quadratics"]
    own = {"γ = 1": mmp.mmpareto(2, gamma=1.0)}
    found = problems.compare_trajectories(problem, own, steps=5)
    assert {limit.method for limit in found.limits} == {"γ = 1"}


def test_no_balance_where_the_front_is_a_point():
    row = limits("element-wise", "uniform")[0]
    assert np.isnan(row.balance)
    assert row.distance < 1e-9


def test_a_method_of_two_spellings_is_one():
    with pytest.raises(ValueError, match="methods must differ, got nash_mtl, nash-mtl"):
        problems.compare_trajectories(problems.toy(), ("nash_mtl", "nash-mtl"), steps=1)


def test_no_method_is_refused():
    with pytest.raises(ValueError, match="methods must name one, got none"):
        problems.compare_trajectories(PROBLEMS["element-wise"], [])


@pytest.mark.parametrize("name", ["nothing", "constant", "jax", "Weighting", "_krum"])
def test_an_unknown_method_is_named(name):
    with pytest.raises(ValueError, match=f"unknown method '{name}'.*mgda"):
        problems.combination_of(name, ("L1", "L2"))
