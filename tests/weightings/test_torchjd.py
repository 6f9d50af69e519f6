"""Parity with TorchJD 0.18 on eleven Jacobians, recorded in `golden/`."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

W = mmp.weightings
GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "torchjd_shared.npz")
CASES = sorted({name.split("/")[0] for name in GOLDEN.files})
STATIONARY = "10_lowrank_6x20"
TorchJD = 1e-4  # its regularisation of UPGrad and DualProj

# name in the record -> the rule, relative tolerance in float64
EXACT = {
    "mean": (W.mean(), 1e-14),
    "sum": (W.uniform(), 1e-14),
    "pcgrad": (W.pcgrad(), 1e-14),
    "trimmed_mean_1": (W.trimmed_mean(1), 1e-14),
    "krum": (W.krum(0, 1), 1e-14),
    "upgrad": (W.upgrad(reg_eps=TorchJD), 1e-11),
    "dualproj": (W.dualproj(reg_eps=TorchJD), 1e-11),
    "config": (W.config(), 1e-11),
    "aligned_mtl": (W.aligned_mtl(), 1e-12),
    # TorchJD inverts badly scaled Gramians by a standard eigensolver.
    "imtl_g": (W.imtl_g(), 1e-9),
}
# As they are without TorchJD's regularisation and early stops. Each is compiled once.
OWN = {
    "upgrad": W.upgrad(),
    "dualproj": W.dualproj(),
    "cagrad": W.cagrad(0.5),
    "fairgrad": W.fairgrad(1.0),
    "nash_mtl": W.nash_mtl(),
}
WIDTH = 100  # of the widest record
FLOAT32 = {"upgrad": 2e-3, "dualproj": 1e-3, "aligned_mtl": 1e-4, "imtl_g": 1e-4}


@functools.cache
def update(rule, num, dtype):
    del dtype  # one compilation each
    return jax.jit(mmp.aggregate(rule, num).update)


def aggregated(rule, case, dtype="float64"):
    """Of rows that zeros make equally long, so that a program serves many cases."""
    rows = GOLDEN[f"{case}/J"]
    num, size = rows.shape
    rows = jnp.asarray(np.pad(rows, ((0, 0), (0, WIDTH - size))), dtype)
    state = mmp.aggregate(rule, num).init(rows[0])
    found, state = update(rule, num, dtype)(rows, state)
    assert not found[size:].any()
    return np.asarray(found, np.float64)[:size], state


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EXACT)
def test_the_same(name, dtype):
    rule, tolerance = EXACT[name]
    if dtype == "float32":
        tolerance = FLOAT32.get(name, 1e-5)
    cases = [case for case in CASES if f"{case}/{name}" in GOLDEN.files]
    assert cases
    with jax.enable_x64(dtype == "float64"):
        errors = {
            case: error(aggregated(rule, case, dtype)[0], GOLDEN[f"{case}/{name}"])
            for case in cases
        }
    print(f"{name} {dtype}: worst {max(errors.values()):.0e}")
    assert max(errors.values()) < tolerance, errors


@pytest.mark.parametrize("case", CASES)
def test_unregularised_projections_are_close_and_never_conflict(case, x64):
    """TorchJD's 1e-4 lets a little conflict pass; without it there is none."""
    rows = GOLDEN[f"{case}/J"]
    for name in ("upgrad", "dualproj"):
        found, _ = aggregated(OWN[name], case)
        lengths = np.linalg.norm(rows, axis=1)
        floor = 1e-7 * lengths * np.linalg.norm(found) + 1e-13 * lengths * lengths.max()
        assert np.all(rows @ found >= -floor)
        if case != STATIONARY:
            assert error(found, GOLDEN[f"{case}/{name}"]) < 0.1


@pytest.mark.parametrize("case", CASES)
def test_cagrad_is_at_least_as_good(case, x64):
    """The objective that CAGrad maximises, within its ball; and so almost the same."""
    rows, recorded = GOLDEN[f"{case}/J"], GOLDEN[f"{case}/cagrad_c0.5"]
    found, _ = aggregated(OWN["cagrad"], case)
    mean = rows.mean(0)
    radius = 0.5 * np.linalg.norm(mean)
    assert np.linalg.norm(found - mean) <= radius * (1 + 1e-12)
    worst, theirs = (rows @ found).min(), (rows @ recorded).min()
    assert worst >= theirs - 1e-12 * np.abs(rows @ recorded).max()
    if recorded.any():  # TorchJD gives up where |g_w| < 1e-4 of the norms
        assert error(found, recorded) < 1e-3


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["fairgrad", "nash_mtl"])
def test_bargains_solve_their_equation(name, case, x64):
    """And are the record, wherever the record solves it too."""
    rows, recorded = GOLDEN[f"{case}/J"], GOLDEN[f"{case}/{name}"]
    found, state = aggregated(OWN[name], case)
    if case == STATIONARY:  # zero lies in the hull: there is no solution
        assert not found.any()
        return
    gram = rows @ rows.T

    def residual(direction):
        """Of (G w)_k w_k equal for all k, which does not depend on the length of w."""
        weights = np.linalg.lstsq(rows.T, direction, rcond=None)[0]
        products = gram @ weights * weights
        return np.abs(products / products.mean() - 1).max()

    assert mmp.diagnostics(state)["all"]["gap"] < 1e-12
    assert residual(found) < 1e-9
    if residual(recorded) < 1e-4:
        assert error(found, recorded) < 1e-6
    else:
        assert name == "nash_mtl"  # its loop of 20 solves stops too early
    if name == "nash_mtl":
        assert np.linalg.norm(found) <= 1 + 1e-12
