"""Which encoder examples of a shape get, and what it sees of them."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.data.sources import plan_of, prepare
from mmpareto_jax.models import MLP, PatchTransformer, ResNet18, SmallCNN, TemporalCNN
from mmpareto_jax.training import Config
from mmpareto_jax.training._tasks.architecture import default_encoder
from mmpareto_jax.training._tasks.registry import make_task

SHAPES = {
    (5,): MLP,
    (1,): MLP,
    (50, 3): TemporalCNN,
    (8, 8, 1): SmallCNN,
    (63, 63, 3): SmallCNN,
    (2, 8, 8, 3): SmallCNN,
    (100, 8, 8, 3): SmallCNN,
    (64, 63, 3): ResNet18,
    (8, 257, 1): ResNet18,
    (3, 64, 64, 3): ResNet18,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_default_encoder_takes_its_shape(shape):
    def features(x):
        encoder = default_encoder(shape, 16, jnp.float32, nnx.Rngs(0))
        assert isinstance(encoder, SHAPES[shape])
        assert SHAPES[shape] is ResNet18 or encoder.out_features == 16
        return encoder(x)

    found = nnx.eval_shape(features, jnp.zeros((2, *shape)))
    assert found.shape == (2, 512 if SHAPES[shape] is ResNet18 else 16)


@pytest.mark.parametrize("shape", [(), (1, 2, 8, 8, 3)])
def test_a_shape_without_encoder(shape):
    with pytest.raises(ValueError, match=r"expected examples of shape \[F\], \[T, C\]"):
        default_encoder(shape, 16, jnp.float32, nnx.Rngs(0))


def own_task(tmp_path, arrays, **options):
    np.savez(tmp_path / "raw.npz", label=np.arange(60) % 3, **arrays)
    prepare(plan_of("arrays", tmp_path / "raw.npz"), tmp_path / "data")
    given = {"data": str(tmp_path / "data"), "batch_size": 4, "width": 8} | options
    return make_task(Config("arrays", **given))


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        ("cnn", (5,)),
        ("resnet18", (6, 3)),
        ("lenet", (5,)),
        ("lenet", (2, 8, 8, 1)),
        ("transformer", (6, 3)),
    ],
)
def test_an_encoder_of_another_shape_is_refused(tmp_path, encoder, shape):
    arrays = {"x": np.zeros((60, *shape), np.float32)}
    task = own_task(tmp_path, arrays, encoder=encoder)
    expected = rf"encoder: {encoder} is not for examples of shape \[{shape[0]}"
    with pytest.raises(ValueError, match=expected):
        nnx.eval_shape(lambda: task.make_model(nnx.Rngs(0)))


def test_pixels_are_standardised_and_other_arrays_are_not(tmp_path):
    """Seen through encoders that hand on what they get."""
    rng = np.random.default_rng(0)
    arrays = {
        "picture": rng.integers(256, size=(60, 8, 8, 3), dtype=np.uint8),
        "gray": rng.integers(256, size=(60, 8, 8, 1), dtype=np.uint8),
        "visual": rng.normal(size=(60, 8, 8, 3)).astype(np.float32),
        "planes": rng.integers(9, size=(60, 8, 8, 4), dtype=np.uint8),
        "counts": rng.integers(9, size=(60, 3), dtype=np.uint8),
    }
    task = own_task(tmp_path, arrays)
    seen = {}

    class Recorder:
        def outputs(self, inputs, detach_unimodal):
            seen.update(inputs)

    batch = {name: jnp.asarray(x[:4]) for name, x in arrays.items()}
    task.outputs(Recorder(), batch)
    expected = {name: x[:4].astype(np.float32) for name, x in arrays.items()}
    expected["picture"] = expected["picture"] / 127.5 - 1
    expected["gray"] = (expected["gray"] / 255 - 0.1307) / 0.3081  # a name it knows
    for name, x in expected.items():
        np.testing.assert_allclose(seen[name], x, rtol=1e-5, atol=1e-5, err_msg=name)


def test_small_images_take_small_patches(tmp_path):
    task = own_task(
        tmp_path, {"x": np.zeros((60, 2, 8, 1), np.float32)}, encoder="transformer"
    )
    model = nnx.eval_shape(lambda: task.make_model(nnx.Rngs(0)))
    assert isinstance(model.x_encoder, PatchTransformer)
