import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import SmallCNN

# Compiled as a whole: op by op, every first call costs seconds.
forward = nnx.jit(lambda encoder, x: encoder(x))


def inputs(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize(
    "shape", [(3, 32, 32, 1), (3, 2, 8, 8, 1), (3, 4, 16, 16, 2), (3, 1, 5, 7, 3)]
)
@pytest.mark.parametrize("widths", [(16, 32, 64), (4,)])
def test_shapes(shape, widths):
    encoder = SmallCNN(shape[-1], widths, rngs=nnx.Rngs(0))
    features = forward(encoder, inputs(*shape))
    assert features.shape == (3, widths[-1]) == (3, encoder.out_features)
    assert features.dtype == jnp.float32


def test_later_blocks_halve_the_resolution():
    encoder = SmallCNN(1, (2, 2, 2), rngs=nnx.Rngs(0))
    x = inputs(1, 9, 8, 1)
    sizes = []
    for convolution in encoder.convs:
        x = nnx.eval_shape(lambda m, x: m(x), convolution, x)
        sizes.append(x.shape[1:3])
    assert sizes == [(9, 8), (5, 4), (3, 2)]


def test_wrong_input():
    encoder = SmallCNN(1, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"SmallCNN: .*got \[2, 8, 8, 3\]"):
        encoder(inputs(2, 8, 8, 3))
    with pytest.raises(ValueError, match="SmallCNN: widths"):
        SmallCNN(1, (), rngs=nnx.Rngs(0))


def test_dropout_only_in_training():
    encoder = SmallCNN(1, (4, 64), dropout=0.5, rngs=nnx.Rngs(0))
    x = inputs(4, 8, 8, 1)
    first, second = forward(encoder, x), forward(encoder, x)
    # ReLU and the mean give positive features, so that a zero was dropped.
    assert 0.3 < float((first == 0).mean()) < 0.7
    assert not np.array_equal(first == 0, second == 0)
    encoder.eval()
    features = forward(encoder, x)
    np.testing.assert_array_equal(features, forward(encoder, x))
    assert float((features == 0).mean()) < 0.05


def test_no_dropout_carries_no_random_state():
    encoder = SmallCNN(1, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(encoder, nnx.RngState))


def test_bfloat16():
    encoder = SmallCNN(1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    reference = SmallCNN(1, rngs=nnx.Rngs(0))
    x = inputs(4, 16, 16, 1)
    features, expected = forward(encoder, x), forward(reference, x)
    assert features.dtype == jnp.float32
    assert encoder.convs[0].kernel[...].dtype == jnp.float32
    error = jnp.linalg.norm(features - expected) / jnp.linalg.norm(expected)
    assert 0 < error < 0.05
