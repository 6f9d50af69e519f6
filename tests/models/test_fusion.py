import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import ConcatFusion


@pytest.mark.parametrize("widths", [(3,), (3, 2), (3, 2, 4)])
def test_is_the_sum_of_one_linear_map_per_modality(widths):
    fusion = ConcatFusion(list(widths), 5, rngs=nnx.Rngs(0))
    features = [
        jax.random.normal(jax.random.key(i), (6, width))
        for i, width in enumerate(widths)
    ]
    blocks = np.split(np.asarray(fusion.linear.kernel[...]), np.cumsum(widths)[:-1])
    expected = sum(np.asarray(f) @ w for f, w in zip(features, blocks, strict=True))
    np.testing.assert_allclose(fusion(features), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widths", [(3,), (2, 3), (3, 2, 1)])
def test_wrong_features(widths):
    fusion = ConcatFusion((3, 2), 5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"ConcatFusion: features .*\(3, 2\)"):
        fusion([jnp.zeros((6, width)) for width in widths])


def test_initialisation():
    fusion = ConcatFusion((300, 200), 100, rngs=nnx.Rngs(0))
    deviation = np.asarray(fusion.linear.kernel[...]).std()
    np.testing.assert_allclose(deviation, np.sqrt(2 / (500 + 100)), rtol=0.02)
    assert not np.any(fusion.linear.bias[...])
