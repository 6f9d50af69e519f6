import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import MLP

# Compiled as a whole: op by op, every first call costs seconds.
forward = nnx.jit(lambda encoder, x: encoder(x))


def inputs(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize("widths", [(16, 32, 8), (4,)])
@pytest.mark.parametrize("features", [1, 12])
def test_shapes(features, widths):
    encoder = MLP(features, widths, rngs=nnx.Rngs(0))
    found = forward(encoder, inputs(5, features))
    assert found.shape == (5, widths[-1]) == (5, encoder.out_features)
    assert found.dtype == jnp.float32
    assert encoder.stage_widths == widths


def test_values():
    """The formulas of one stage in numpy, on a batch."""
    encoder = MLP(3, (4,), rngs=nnx.Rngs(0))
    x = inputs(6, 3)
    y = np.asarray(x) @ np.asarray(encoder.linears[0].kernel[...])
    y = (y - y.mean(axis=0)) / np.sqrt(y.var(axis=0) + 1e-5)
    np.testing.assert_allclose(forward(encoder, x), np.maximum(y, 0), atol=1e-5)


def test_it_is_its_stages():
    encoder = MLP(3, (4, 2), rngs=nnx.Rngs(0))
    encoder.eval()
    x = inputs(6, 3)
    y = encoder.pool(encoder.stage(1, encoder.stage(0, encoder.embed(x))))
    np.testing.assert_allclose(encoder(x), y, rtol=1e-6)


def test_evaluation_looks_at_one_example_at_a_time():
    encoder = MLP(3, (4, 2), rngs=nnx.Rngs(0))
    x = inputs(6, 3)
    forward(encoder, x)  # running means
    encoder.eval()
    alone = jnp.concatenate([forward(encoder, x[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(forward(encoder, x), alone, rtol=1e-5)


def test_dropout_only_in_training():
    encoder = MLP(3, (64,), dropout=0.5, rngs=nnx.Rngs(0))
    x = inputs(40, 3)
    first, second = forward(encoder, x), forward(encoder, x)
    # ReLU drops a half, and dropout a half of what is left.
    assert 0.65 < float((first == 0).mean()) < 0.85
    assert not np.array_equal(first == 0, second == 0)
    encoder.eval()
    np.testing.assert_array_equal(forward(encoder, x), forward(encoder, x))
    encoder = MLP(3, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(encoder, nnx.RngState))


def test_bfloat16():
    encoder = MLP(3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    reference = MLP(3, rngs=nnx.Rngs(0))
    x = inputs(32, 3)
    features, expected = forward(encoder, x), forward(reference, x)
    assert features.dtype == jnp.float32
    assert encoder.linears[0].kernel[...].dtype == jnp.float32
    error = jnp.linalg.norm(features - expected) / jnp.linalg.norm(expected)
    assert 0 < error < 0.05


def test_wrong_input():
    encoder = MLP(3, rngs=nnx.Rngs(0))
    for shape in ((2, 4), (2, 3, 3), (3,)):
        with pytest.raises(ValueError, match=r"MLP: x must have shape \[B, 3\], got"):
            encoder(inputs(*shape))
    with pytest.raises(ValueError, match="MLP: widths"):
        MLP(3, (), rngs=nnx.Rngs(0))
