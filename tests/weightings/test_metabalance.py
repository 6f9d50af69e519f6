import jax.numpy as jnp
import numpy as np
import pytest

import mmpareto_jax as mmp


@pytest.mark.parametrize("strategy", ["reduce", "enlarge", "both"])
@pytest.mark.parametrize("target", [0, 2])
def test_three_steps_in_numpy(strategy, target):
    relax, beta = 0.6, 0.8
    rule = mmp.weightings.metabalance(
        relax, beta=beta, strategy=strategy, target=target
    )
    state, means = rule.init(3), np.zeros(3)
    steps = ([1.0, 4.0, 2.0], [2.0, 4.0, 1.0], [1.0, 0.5, 3.0])
    # The means are of the true norms, so another scale at each step is no matter.
    for norms, scale in zip(steps, (3.0, 0.5, 2.0), strict=True):
        means = beta * means + (1 - beta) * np.array(norms)
        ratio = means[target] / means
        changed = {"reduce": ratio < 1, "enlarge": ratio > 1, "both": ratio > 0}
        expected = np.where(changed[strategy], relax * ratio + 1 - relax, 1)
        gramian = jnp.diag(jnp.array(norms) ** 2) / scale**2
        rows = jnp.full(3, scale)
        weights, state = rule.weights(gramian, state, rows=rows)
        weights = weights / rows
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
        assert weights[target] == 1


def test_a_gradient_of_zero_stays_zero():
    """Although its dying mean has an infinite ratio to the target's."""
    rule = mmp.weightings.metabalance()
    state = rule.init(2)._replace(means=jnp.array([100.0, 2e-38]))
    weights, state = rule.weights(jnp.diag(jnp.array([1.0, 0.0])), state)
    np.testing.assert_array_equal(weights, [1, 1])
    assert np.isfinite(state.means).all()


def test_mistakes():
    with pytest.raises(ValueError, match=r"relax must be in \[0, 1\], got 2"):
        mmp.weightings.metabalance(2.0)
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\), got 1"):
        mmp.weightings.metabalance(beta=1.0)
    with pytest.raises(ValueError, match="strategy must be one of"):
        mmp.weightings.metabalance(strategy="none")
    for target in (-1, 2):
        with pytest.raises(ValueError, match=r"target must be in \[0, 2\)"):
            mmp.weightings.metabalance(target=target).init(2)
