import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import ResNet18

# Compiled as a whole: op by op, every first call costs seconds.
forward = nnx.jit(lambda encoder, x: (encoder(x), encoder.feature_map(x)))


@pytest.fixture(scope="module")
def encoder():
    return ResNet18(3, rngs=nnx.Rngs(0))


def images(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(
    ("shape", "feature_map"),
    [
        ((2, 32, 32, 3), (2, 1, 1, 512)),
        ((2, 65, 33, 3), (2, 3, 2, 512)),
        ((2, 4, 64, 48, 3), (2, 4, 2, 2, 512)),
        ((1, 1, 1, 1, 3), (1, 1, 1, 1, 512)),
    ],
)
def test_shapes(encoder, shape, feature_map):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    fmap = nnx.eval_shape(lambda m, x: m.feature_map(x), encoder, x)
    features = nnx.eval_shape(lambda m, x: m(x), encoder, x)
    assert fmap.shape == feature_map
    assert features.shape == (shape[0], encoder.out_features) == (shape[0], 512)


def test_parameter_count():
    # torchvision's resnet18 has 11,689,512, of which fc 513,000.
    encoder = nnx.eval_shape(lambda: ResNet18(3, rngs=nnx.Rngs(0)))
    sizes = [p.size for p in jax.tree.leaves(nnx.state(encoder, nnx.Param))]
    assert sum(sizes) == 11_689_512 - 513_000


def test_features_are_the_mean_over_frames_and_positions(encoder):
    encoder.eval()
    x = images(2, 3, 32, 48, 3)
    maps = [forward(encoder, x[:, t])[1] for t in range(3)]
    expected = np.stack(maps, axis=1).mean((1, 2, 3))
    features, _ = forward(encoder, x)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 32, 32, 1), (32, 32, 3), (1, 2, 2, 32, 32, 3)])
def test_wrong_input(encoder, shape):
    with pytest.raises(ValueError, match=r"ResNet18: x must have shape \[B, H, W, 3\]"):
        encoder(jnp.zeros(shape))


def test_initialisation(encoder):
    for path, p in nnx.to_flat_state(nnx.state(encoder, nnx.Param)):
        value = np.asarray(p[...])
        if path[-1] == "kernel":
            height, width, _, features = value.shape
            expected = np.sqrt(2 / (height * width * features))
            # The standard error of a standard deviation over n values.
            np.testing.assert_allclose(value.std(), expected, rtol=4 / value.size**0.5)
            assert np.abs(value).max() > 2.5 * expected, "not truncated"
        else:
            assert np.all(value == (1 if path[-1] == "scale" else 0)), path


def test_bfloat16_keeps_parameters_statistics_and_features_in_float32():
    encoder = ResNet18(1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = images(4, 32, 32, 1)
    features, feature_map = forward(encoder, x)
    assert feature_map.dtype == jnp.bfloat16
    assert features.dtype == jnp.float32
    for leaf in jax.tree.leaves(nnx.state(encoder, (nnx.Param, nnx.BatchStat))):
        assert leaf.dtype == jnp.float32
    encoder.eval()
    single = ResNet18(1, rngs=nnx.Rngs(0))
    nnx.update(single, nnx.state(encoder))
    single.eval()
    features, _ = forward(encoder, x)
    expected, feature_map = forward(single, x)
    assert feature_map.dtype == jnp.float32
    error = jnp.linalg.norm(features - expected) / jnp.linalg.norm(expected)
    assert 0 < error < 0.05


def test_float64_statistics():
    with jax.enable_x64(True):
        encoder = nnx.eval_shape(
            lambda: ResNet18(1, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        )
        leaves = jax.tree.leaves(nnx.state(encoder, (nnx.Param, nnx.BatchStat)))
        assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float64")}
