import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import (
    ConcatFusion,
    CosineFusion,
    FiLMFusion,
    GatedFusion,
    SumFusion,
)


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


def two_features():
    return [jax.random.normal(jax.random.key(i), (6, n)) for i, n in ((0, 3), (1, 2))]


def numpy_linear(layer, x):
    return np.asarray(x) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_sum():
    fusion, features = SumFusion((3, 2), 5, rngs=nnx.Rngs(0)), two_features()
    fusion.linears[1].bias[...] = jnp.arange(5.0)
    votes = [numpy_linear(f, x) for f, x in zip(fusion.linears, features, strict=True)]
    close(fusion(features), votes[0] + votes[1])


def test_film():
    fusion, features = FiLMFusion((3, 2), 5, rngs=nnx.Rngs(0)), two_features()
    scale, shift = np.split(numpy_linear(fusion.modulation, features[0]), 2, axis=1)
    close(fusion(features), numpy_linear(fusion.linear, scale * features[1] + shift))


def test_gated():
    fusion, features = (
        GatedFusion((3, 2), 5, hidden=4, rngs=nnx.Rngs(0)),
        (two_features()),
    )
    gate, x = (
        numpy_linear(f, x) for f, x in zip(fusion.linears, features, strict=True)
    )
    close(fusion(features), numpy_linear(fusion.linear, x / (1 + np.exp(-gate))))


def test_cosine():
    fusion, features = (
        CosineFusion((3, 2), 5, scale=4, rngs=nnx.Rngs(0)),
        two_features(),
    )
    expected = 0
    for x, kernel in zip(features, fusion.kernels, strict=True):
        w = np.asarray(kernel[...])
        lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(w, axis=0)
        expected = expected + 4 * (np.asarray(x) @ w) / lengths
    close(fusion(features), expected)
    zero = [jnp.zeros((1, 3)), features[1][:1]]
    grads = jax.grad(lambda x: fusion(x).sum())(zero)
    assert all(np.isfinite(x).all() for x in grads)


@pytest.mark.parametrize("fusion", [SumFusion, FiLMFusion, GatedFusion, CosineFusion])
def test_others_refuse_wrong_features_and_take_three(fusion):
    made = fusion((3, 2, 4), 5, rngs=nnx.Rngs(0))
    features = [*two_features(), jnp.ones((6, 4))]
    assert made(features).shape == (6, 5)
    with pytest.raises(ValueError, match=rf"{fusion.__name__}: features must have"):
        made(features[:2])


@pytest.mark.parametrize("fusion", [FiLMFusion, GatedFusion])
def test_one_modality_has_nothing_to_act_on(fusion):
    with pytest.raises(ValueError, match="at least two modalities"):
        fusion((3,), 5, rngs=nnx.Rngs(0))
