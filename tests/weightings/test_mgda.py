import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


@pytest.mark.parametrize("num", [1, 2, 4])
def test_orthogonal_gradients_weigh_by_inverse_square(num):
    squares = jnp.arange(1.0, num + 1)
    weights, state = mmp.weightings.mgda().weights(jnp.diag(squares), ())
    expected = 1 / np.asarray(squares)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-5)
    assert state.gap < 1e-6


@pytest.mark.parametrize("normalization", ["none", "l2"])
def test_one_zero_gradient_stops_all(normalization):
    rule = mmp.weightings.mgda(normalization)
    weights, _ = rule.weights(jnp.diag(jnp.array([1.0, 0.0])), ())
    np.testing.assert_array_equal(weights, [0, 1])


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        # Orthogonal, norms 1 and 2, losses 3 and 1: inverse squares of norm / divisor.
        ("none", [1, 1 / 4]),
        ("l2", [1, 1]),
        ("loss", [9, 1 / 4]),
        ("loss+", [9, 1]),
    ],
)
def test_normalizations(normalization, expected):
    rule = mmp.weightings.mgda(normalization)
    extra = {"losses": jnp.array([3.0, 1.0])} if rule.extras else {}
    weights, _ = rule.weights(jnp.diag(jnp.array([1.0, 4.0])), rule.init(2), **extra)
    np.testing.assert_allclose(weights, np.array(expected) / sum(expected), rtol=1e-5)


@pytest.mark.parametrize(("power", "expected"), [(0, 1 / 4), (0.5, 1 / 2), (1, 1)])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_power_of_the_norms(power, expected, scale):
    """Orthogonal, norms 1 and 2."""
    tx = mmp.aggregate(mmp.weightings.mgda("l2", power=power), 2)
    rows = jnp.diag(jnp.array([1.0, 2.0])) * scale
    found, _ = tx.update(rows, tx.init(rows[0]))
    weights = np.array([1, expected]) / (1 + expected)
    np.testing.assert_allclose(found / scale, weights * [1, 2], rtol=1e-5)


def test_mistakes():
    with pytest.raises(ValueError, match="mgda: power must be in"):
        mmp.weightings.mgda("l2", power=2.0)
    with pytest.raises(ValueError, match="mgda: normalization must be one of"):
        mmp.weightings.mgda("l1")
    tx = mmp.aggregate(mmp.weightings.mgda("loss+"), 2)
    with pytest.raises(ValueError, match="mgda: needs the losses"):
        tx.update(jnp.ones((2, 1)), tx.init(jnp.zeros(1)))
