import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp

# On a line, so that distances can be read off.
ROWS = jnp.array([[0.0], [1.0], [1.5], [2.1], [50.0]])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # K - f - 2 = 2 neighbours; scores 3.25, 1.25, 0.61, 1.57, ...
        ((1, 1), [0, 0, 1, 0, 0]),
        ((1, 2), [0, 0.5, 0.5, 0, 0]),
        # 3 neighbours; scores 7.66, 2.46, 2.86, 5.98, ...
        ((0, 1), [0, 1, 0, 0, 0]),
        ((0, 5), [0.2] * 5),
    ],
)
def test_by_hand(arguments, expected):
    weights, _ = mmp.weightings.krum(*arguments).weights(ROWS @ ROWS.T, ())
    np.testing.assert_allclose(weights, expected)


def test_mistakes():
    with pytest.raises(ValueError, match="krum: num_byzantine must be >= 0"):
        mmp.weightings.krum(-1)
    with pytest.raises(ValueError, match="krum: num_selected must be >= 1"):
        mmp.weightings.krum(0, 0)
    for arguments, least in (((3, 1), 6), ((0, 6), 6)):
        with pytest.raises(ValueError, match=f"objectives must be >= {least}, got 5"):
            mmp.weightings.krum(*arguments).weights(jnp.eye(5), ())
