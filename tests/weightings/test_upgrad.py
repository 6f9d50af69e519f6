import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

# The dual cone is 0 <= y_1 <= y_2 / 4; the projections of the rows on it:
ROWS = np.array([[1.0, 0.0], [-4.0, 1.0]])
PROJECTED = np.array([[1 / 17, 4 / 17], [0.0, 1.0]])


@pytest.mark.parametrize("preference", [None, [0.2, 3.0]])
def test_projects_each_gradient(preference, x64):
    p = np.array([0.5, 0.5] if preference is None else preference)
    weights, _ = mmp.weightings.upgrad(preference).weights(
        jnp.asarray(ROWS @ ROWS.T), ()
    )
    np.testing.assert_allclose(weights @ ROWS, p @ PROJECTED, rtol=1e-9, atol=1e-12)


def test_without_conflict_it_is_the_mean():
    gramian = jnp.array([[1.0, 0.5], [0.5, 9.0]])
    weights, _ = mmp.weightings.upgrad().weights(gramian, ())
    np.testing.assert_allclose(weights, [0.5, 0.5], rtol=1e-6)


def test_mistakes():
    with pytest.raises(ValueError, match="upgrad: reg_eps must be finite and >= 0"):
        mmp.weightings.upgrad(reg_eps=np.nan)
    with pytest.raises(ValueError, match=r"upgrad: preference .*\(2,\)"):
        mmp.weightings.upgrad([1.0]).weights(jnp.eye(2), ())


@pytest.mark.parametrize("num", [3, 8, 80])
@pytest.mark.parametrize("rule", ["upgrad", "dualproj"])
def test_the_report(rule, num):
    """Of the worst projection; above K = 64 they are made one by one."""
    rows = np.random.default_rng(num).normal(size=(num, 2 * num))
    rows -= 0.9 * rows.mean(0)
    tx = mmp.aggregate(getattr(mmp.weightings, rule)(), num)
    grads = jnp.asarray(rows, jnp.float32)
    update, state = jax.jit(tx.update)(grads, tx.init(grads[0]))
    found = mmp.diagnostics(state)["all"]
    assert 0 <= found["gap"] < 2e-4  # in float32, of 80 that are nearly dependent
    assert 0 < found["iterations"] <= 200
    cosines = rows @ np.asarray(update) / np.linalg.norm(rows, axis=1)
    assert cosines.min() > -1e-4 * np.linalg.norm(rows, axis=1).mean()
