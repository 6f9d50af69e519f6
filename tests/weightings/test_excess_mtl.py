import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

excess_mtl = mmp.weightings.excess_mtl


def run(rule, steps):
    """The update of the last of some stacked gradients."""
    tx = mmp.aggregate(rule, len(steps[0]))
    state = tx.init(jnp.zeros(steps[0].shape[1]))
    for rows in steps:
        found, state = tx.update(jnp.asarray(rows), state)
    return found, state


def test_by_hand(x64):
    """Diagonal gradients a, then b: e = b²/√(a² + b²), relative to a."""
    a, b = np.array([1.0, 2.0]), np.array([3.0, 0.5])
    found, _ = run(excess_mtl(0.7), [np.diag(a), np.diag(b)])
    relative = b**2 / np.sqrt(a**2 + b**2 + 1e-7) / (a**2 / np.sqrt(a**2 + 1e-7) + 1e-7)
    weights = np.exp(0.7 * relative) / np.exp(0.7 * relative).sum()
    np.testing.assert_allclose(found, weights * b, rtol=1e-9)


@pytest.mark.parametrize("warmup", [1, 3])
def test_equal_weights_while_it_looks(warmup):
    rows = np.float32(np.diag([1.0, 2.0, 4.0]))
    found, state = run(excess_mtl(warmup=warmup), [rows] * warmup)
    np.testing.assert_allclose(found, np.diag(rows) / 3, rtol=1e-6)
    _, later = run(excess_mtl(warmup=warmup), [rows] * (warmup + 1))
    np.testing.assert_array_equal(
        state.weighting["all"].baseline, later.weighting["all"].baseline
    )


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_squares_that_no_float32_holds(scale):
    """Far above the 1e-7 in the root the weights do not depend on the scale."""
    rng = np.random.default_rng(0)
    steps = [rng.normal(size=(3, 5)).astype(np.float32) for _ in range(4)]
    found, _ = run(excess_mtl(), [x * np.float32(scale) for x in steps])
    assert jnp.isfinite(found).all()
    if scale > 1:
        np.testing.assert_allclose(
            found / scale, run(excess_mtl(), steps)[0], rtol=1e-3
        )


def test_an_objective_that_begins_to_move_takes_all_and_stays_finite():
    still, moving = np.float32([[1, 0], [0, 0]]), np.float32([[1, 0], [0, 1]])
    found, _ = run(excess_mtl(), [still, moving, moving])
    np.testing.assert_allclose(found, [0, 1], atol=1e-6)


def test_ranges():
    with pytest.raises(ValueError, match="excess_mtl: warmup must be >= 1, got 0"):
        excess_mtl(warmup=0)
    with pytest.raises(ValueError, match="excess_mtl: learning_rate must be finite"):
        excess_mtl(-1.0)
