import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

# The dual cone is 0 <= y_1 <= y_2 / 4.
ROWS = np.array([[1.0, 0.0], [-4.0, 1.0]])


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        (None, [0, 0.5]),  # of the mean (-1.5, 0.5): on the edge y_1 = 0
        ([1.0, 0.0], [1 / 17, 4 / 17]),  # of (1, 0): on the edge along (1, 4)
        ([9.0, 2.0], [9 / 17, 36 / 17]),  # of (1, 2): the same edge
    ],
)
def test_by_hand(preference, expected, x64):
    rule = mmp.weightings.dualproj(preference)
    weights, _ = rule.weights(jnp.asarray(ROWS @ ROWS.T), ())
    np.testing.assert_allclose(weights @ ROWS, expected, rtol=1e-9, atol=1e-12)


def test_inside_the_cone_nothing_changes():
    weights, _ = mmp.weightings.dualproj([3.0, 1.0]).weights(jnp.eye(2), ())
    np.testing.assert_allclose(weights, [3, 1], rtol=1e-6)


def test_regularised():
    """Trace 20, so 1 on the diagonal: v minimises 2a² - 8ab + 20b² over a, b >= 1/2."""
    gramian = jnp.array([[1.0, -4.0], [-4.0, 19.0]])
    weights, _ = mmp.weightings.dualproj(reg_eps=0.05).weights(gramian, ())
    np.testing.assert_allclose(weights, [1, 0.5], rtol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match="dualproj: reg_eps must be finite and >= 0"):
        mmp.weightings.dualproj(reg_eps=-1.0)
    with pytest.raises(ValueError, match=r"dualproj: preference .*\(2,\)"):
        mmp.weightings.dualproj([1.0]).weights(jnp.eye(2), ())
