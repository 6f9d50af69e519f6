import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models._layers import batch_norm, conv, global_mean, per_frame

TYPES = {"dtype": None, "param_dtype": jnp.float32}


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(8, 8), (7, 6)])
def test_conv_samples_where_pytorch_does(size, stride, shape):
    layer = conv(2, 3, size, stride=stride, **TYPES, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(1, *shape, 2)).astype(np.float32)
    kernel = np.asarray(layer.kernel[...])
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    # By definition: output (i, j) is the window whose corner is (i, j) * stride.
    expected = np.array(
        [
            [
                np.tensordot(padded[0, i : i + size, j : j + size], kernel, axes=3)
                for j in range(0, shape[1], stride)
            ]
            for i in range(0, shape[0], stride)
        ]
    )
    assert layer.bias is None
    np.testing.assert_allclose(layer(x)[0], expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_normalises_and_tracks_the_biased_variance():
    layer = batch_norm(3, **TYPES, rngs=nnx.Rngs(0))
    # A mean far from zero: the one-pass variance would lose its digits.
    x = 1000 + np.random.default_rng(0).normal(size=(4, 5, 6, 3)).astype(np.float32)
    mean, var = (
        x.astype(np.float64).mean((0, 1, 2)),
        x.astype(np.float64).var((0, 1, 2)),
    )
    expected = (x - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(layer.mean[...], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.var[...], 0.9 + 0.1 * var, rtol=1e-5)


def test_batch_norm_in_bfloat16_evaluates_with_float32_statistics():
    layer = batch_norm(1, dtype=jnp.bfloat16, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.mean.set_value(jnp.array([257.0]))  # bfloat16 would read 256
    layer.eval()
    y = layer(jnp.full((1, 1, 1, 1), 256, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0, 0, 0]) == -1


def test_frames_fold_in_order():
    x = jnp.arange(2 * 3 * 4).reshape(2, 3, 2, 2, 1)
    seen = []

    def layer(x):
        seen.append(x)
        return jnp.concatenate([x, x], axis=-1)[:, :1]

    y = per_frame(layer, x)
    np.testing.assert_array_equal(seen[0][4], x[1, 1])
    np.testing.assert_array_equal(y, jnp.concatenate([x, x], axis=-1)[:, :, :1])
    assert per_frame(layer, x[:, 0]).shape == (2, 1, 2, 2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_global_mean_is_float32(dtype):
    features = global_mean(jnp.ones((2, 3, 40, 40, 5), dtype))
    assert features.shape == (2, 5)
    assert features.dtype == jnp.float32
    np.testing.assert_allclose(features, 1)
    assert jax.eval_shape(global_mean, jnp.ones((2, 4, 4, 5))).shape == (2, 5)
