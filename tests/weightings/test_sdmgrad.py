import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


def project(x):
    """On the simplex, by bisection of the shift."""
    low, high = x.min() - 1, x.max()
    for _ in range(100):
        middle = (low + high) / 2
        above = np.maximum(x - middle, 0).sum() > 1
        low, high = (middle, high) if above else (low, middle)
    return np.maximum(x - low, 0)


@pytest.mark.parametrize("independent", [False, True])
def test_two_steps_in_numpy(independent):
    lam, lr, momentum, p = 0.4, 0.3, 0.5, np.array([0.2, 0.3, 0.5])
    rule = mmp.weightings.sdmgrad(
        lam, learning_rate=lr, momentum=momentum, num_steps=3, preference=p
    )
    rng = np.random.default_rng(0)
    state, w = rule.init(3), np.full(3, 1 / 3)
    for _ in range(2):
        rows, others = rng.normal(size=(2, 3, 5))
        products = rows @ (others if independent else rows).T
        if independent:
            products += 5 * np.eye(3)  # a diagonal of squared norms is positive
        gram = products / np.sqrt(np.diagonal(products)).mean() ** 2
        velocity = np.zeros(3)
        for _ in range(3):
            velocity = momentum * velocity + gram @ (w + lam * p)
            w = project(w - lr * velocity)
        cross = jnp.asarray(products, jnp.float32) if independent else None
        weights, state = rule.weights(
            jnp.asarray(rows @ rows.T, jnp.float32), state, cross=cross
        )
        np.testing.assert_allclose(weights, (w + lam * p) / (1 + lam), atol=1e-5)


def test_finds_the_minimum_in_the_end():
    """Orthogonal: w_k a_k + λ p_k a_k equal for all k."""
    rule = mmp.weightings.sdmgrad(0.3, learning_rate=0.5, num_steps=200)
    squares = np.array([1.0, 2.0])
    gramian = jnp.diag(jnp.asarray(squares, jnp.float32))
    weights, _ = rule.weights(gramian, rule.init(2))
    total = np.asarray(weights) * 1.3 * squares
    np.testing.assert_allclose(total[0], total[1], rtol=1e-3)


def test_mistakes():
    for name, value in (("lam", -1.0), ("learning_rate", -1.0)):
        with pytest.raises(ValueError, match=f"sdmgrad: {name} must be finite"):
            mmp.weightings.sdmgrad(**{name: value})
    with pytest.raises(ValueError, match="sdmgrad: num_steps must be >= 1"):
        mmp.weightings.sdmgrad(num_steps=0)
    with pytest.raises(ValueError, match=r"sdmgrad: momentum must be in \[0, 1\)"):
        mmp.weightings.sdmgrad(momentum=1.0)
