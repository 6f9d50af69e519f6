"""Parity with TorchJD 0.18 of rules with a memory and of losses, recorded in `golden/`.

Recorded on the Jacobians of `torchjd_shared.npz`, of K rows numbered from 0: PCD(tau)
at its third step, with row k times 1 + t k in step t; ExcessMTL(0.1, n_warmup_steps=2)
at its fifth, with row k over 1 + t k; the gradients of COSMOS(2, w) and PBI(5, w, z) by
the losses.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

W = mmp.weightings
HERE = pathlib.Path(__file__).parents[1] / "golden"
SHARED = np.load(HERE / "torchjd_shared.npz")
GOLDEN = np.load(HERE / "torchjd_more.npz")
CASES = sorted({name.split("/")[0] for name in SHARED.files})
WIDTH = 100  # of the widest record
RULES = {
    "pcd_0.02": (W.pcd(), [lambda t, k: 1 + t * k] * 3),
    "pcd_0.5": (W.pcd(0.5), [lambda t, k: 1 + t * k] * 3),
    "excess_mtl": (W.excess_mtl(0.1, warmup=2), [lambda t, k: 1 / (1 + t * k)] * 5),
}


@functools.cache
def update(name, num):
    """Compiled once: zeros make all rows equally long."""
    return jax.jit(mmp.aggregate(RULES[name][0], num).update)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", RULES)
def test_the_same_after_some_steps(name, case, x64):
    rows = SHARED[f"{case}/J"]
    num, size = rows.shape
    rule, steps = RULES[name]
    state = mmp.aggregate(rule, num).init(jnp.zeros(WIDTH))
    for t, factor in enumerate(steps):
        scaled = rows * np.array([factor(t, k) for k in range(num)])[:, None]
        padded = jnp.asarray(np.pad(scaled, ((0, 0), (0, WIDTH - size))))
        found, state = update(name, num)(padded, state)
    assert not found[size:].any()
    recorded = GOLDEN[f"{case}/{name}"]
    error = np.linalg.norm(found[:size] - recorded) / np.linalg.norm(recorded)
    assert error < 1e-9


@pytest.mark.parametrize("num", [2, 3, 8])
@pytest.mark.parametrize("name", ["cosmos", "pbi"])
def test_the_gradient_of_a_scalarised_loss(name, num, x64):
    of = functools.partial(lambda key: GOLDEN[f"{name}_{num}/{key}"])
    rule = {
        "cosmos": lambda: W.cosmos(2.0, preference=of("preference")),
        "pbi": lambda: W.pbi(5.0, preference=of("preference"), ideal=of("ideal")),
    }[name]()
    weights, _ = rule.weights(jnp.asarray(of("losses")), ())
    np.testing.assert_allclose(weights, of("weights"), rtol=1e-12)
