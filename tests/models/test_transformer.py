import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import PatchTransformer

IMAGE = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))


def encoder(shape=(8, 12, 3), **options):
    return PatchTransformer(
        shape, (4, 4), features=8, depth=2, rngs=nnx.Rngs(0), **options
    )


def test_a_token_sees_its_patch_and_position():
    model = encoder()
    tokens = model.embed(IMAGE)
    assert tokens.shape == (2, 2 * 3, 8)
    kernel, bias = model.patches.kernel[...], model.patches.bias[...]
    patch = IMAGE[:, 4:8, 8:12]  # the last one
    expected = np.einsum("bhwc,hwcd->bd", patch, kernel) + np.asarray(
        bias + model.positions[5]
    )
    np.testing.assert_allclose(tokens[:, 5], expected, rtol=1e-4, atol=1e-5)


def test_without_positions_the_order_of_patches_is_nothing():
    model = encoder()
    turned = IMAGE.reshape(2, 2, 4, 3, 4, 3)[:, ::-1, :, ::-1].reshape(IMAGE.shape)
    assert not np.allclose(model(IMAGE), model(turned), atol=1e-3)
    model.positions[...] = jnp.zeros_like(model.positions[...])
    np.testing.assert_allclose(model(IMAGE), model(turned), rtol=1e-3, atol=1e-4)


def test_frames_are_further_patches():
    model = encoder((2, 8, 12, 3))
    frames = jnp.stack([IMAGE, 2 * IMAGE], axis=1)
    tokens = model.embed(frames)
    assert tokens.shape == (2, 12, 8)
    model.positions[...] = jnp.zeros_like(model.positions[...])
    single = encoder()
    single.positions[...] = jnp.zeros_like(single.positions[...])
    single.patches = model.patches
    expected = single.embed(2 * IMAGE)
    np.testing.assert_allclose(model.embed(frames)[:, 6:], expected, rtol=1e-5)


def test_bfloat16_computes_narrow_and_pools_wide():
    model = encoder(dtype=jnp.bfloat16)
    assert model.stage(0, model.embed(IMAGE)).dtype == jnp.bfloat16
    features = model(IMAGE)
    assert features.dtype == jnp.float32
    params = jax.tree.leaves(nnx.state(model, nnx.Param))
    assert {x.dtype for x in params} == {jnp.dtype("float32")}
    np.testing.assert_allclose(features, encoder()(IMAGE), atol=0.15)


@pytest.mark.parametrize("shape", [(8, 10, 3), (8, 12), (1, 1, 8, 12, 3)])
def test_patches_that_do_not_tile(shape):
    with pytest.raises(ValueError, match="PatchTransformer: input_shape must be"):
        encoder(shape)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 8, 12, 1), (2, 1, 8, 12, 3)])
def test_wrong_inputs(shape):
    with pytest.raises(ValueError, match="PatchTransformer: x must have shape"):
        encoder()(jnp.zeros(shape))
