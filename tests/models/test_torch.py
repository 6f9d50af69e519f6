from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import (
    AVClassifier,
    ResNet18,
    SmallCNN,
    load_torch,
    to_torch,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "official_resnet_shared.npz"


def names_and_arrays(model):
    """Random arrays with the names and shapes that torch has for `model`."""
    r = np.random.default_rng(0)
    return {
        name: r.normal(size=value.shape).astype(value.dtype)
        for name, value in to_torch(model).items()
    }


def values(model):
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(model))]


@pytest.fixture(scope="module")
def encoder():
    return ResNet18(1, rngs=nnx.Rngs(0))


def small():
    return SmallCNN(2, (3, 4), rngs=nnx.Rngs(0))


def test_names_are_the_official_ones():
    model = AVClassifier(6, rngs=nnx.Rngs(0))
    with np.load(GOLDEN) as golden:
        official = {n.removeprefix("final/") for n in golden if n.startswith("final/")}
    assert to_torch(model).keys() == official


def test_names_of_one_encoder_are_torchvisions(encoder):
    with np.load(GOLDEN) as golden:
        official = {
            n.removeprefix("final/audio_net.")
            for n in golden
            if n.startswith("final/audio_net.")
        }
    assert to_torch(encoder).keys() == official


def test_layouts():
    model = AVClassifier(
        5,
        audio_encoder=SmallCNN(2, (3,), rngs=nnx.Rngs(0)),
        visual_encoder=SmallCNN(1, (4,), rngs=nnx.Rngs(0)),
        rngs=nnx.Rngs(0),
    )
    arrays = to_torch(model)
    kernel = model.audio_encoder.convs[0].kernel[...]  # [H, W, I, O]
    assert arrays["audio_net.convs.0.weight"].shape == (3, 2, 3, 3)
    assert arrays["audio_net.convs.0.weight"][2, 1, 0, 2] == kernel[0, 2, 1, 2]
    assert arrays["head.weight"].shape == (5, 7)
    assert arrays["head.weight"][4, 6] == model.fusion.linear.kernel[...][6, 4]
    assert arrays["head_audio.weight"].shape == (5, 3)
    assert arrays["head_video.weight"].shape == (5, 4)
    assert all(a.flags.c_contiguous and a.flags.writeable for a in arrays.values())


def cnns(seed):
    rngs = nnx.Rngs(seed)
    return AVClassifier(
        6,
        audio_encoder=SmallCNN(1, (2, 3), param_dtype=jnp.bfloat16, rngs=rngs),
        visual_encoder=SmallCNN(3, (2, 3), param_dtype=jnp.float16, rngs=rngs),
        rngs=rngs,
    )


def resnets(seed):
    return AVClassifier(6, rngs=nnx.Rngs(seed))


@pytest.mark.parametrize("build", [resnets, cnns])
def test_round_trip_is_exact(build):
    source, target = build(0), build(1)
    arrays = names_and_arrays(source)
    load_torch(source, arrays)
    for name, value in to_torch(source).items():
        assert value.dtype == arrays[name].dtype
        np.testing.assert_array_equal(value, arrays[name])
    load_torch(target, to_torch(source))
    for a, b in zip(values(target), values(source), strict=True):
        np.testing.assert_array_equal(a, b)


def test_values_are_cast_to_the_models_types(encoder):
    arrays = {n: v.astype(np.float64) for n, v in names_and_arrays(encoder).items()}
    load_torch(encoder, arrays)
    assert {v.dtype for v in values(encoder)} == {np.dtype("float32")}


def test_state_dicts_as_they_come(encoder):
    arrays = names_and_arrays(encoder)
    extra = {
        "bn1.num_batches_tracked": np.array(7),
        "fc.weight": np.zeros((1000, 512)),
        "fc.bias": np.zeros(1000),
    }
    load_torch(encoder, {f"module.{n}": v for n, v in (arrays | extra).items()})
    np.testing.assert_array_equal(
        to_torch(encoder)["conv1.weight"], arrays["conv1.weight"]
    )


def test_three_channels_into_one(encoder):
    arrays = names_and_arrays(ResNet18(3, rngs=nnx.Rngs(0)))
    before = values(encoder)
    with pytest.raises(
        ValueError,
        match=r"ResNet18:\n  shape mismatches: conv1.weight "
        r"\(expected \(64, 1, 7, 7\), got \(64, 3, 7, 7\)\)$",
    ):
        load_torch(encoder, arrays)
    for a, b in zip(values(encoder), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_problem_is_listed():
    model = small()
    arrays = names_and_arrays(model)
    del arrays["convs.1.weight"], arrays["norms.0.running_var"]
    arrays["fc.weight"] = np.zeros(3)
    arrays["norms.0.bias"] = np.zeros(9)
    with pytest.raises(ValueError, match="load_torch") as error:
        load_torch(model, arrays)
    assert str(error.value).splitlines() == [
        "load_torch: arrays do not fit SmallCNN:",
        "  shape mismatches: norms.0.bias (expected (3,), got (9,))",
        "  missing: convs.1.weight, norms.0.running_var",
        "  unexpected: fc.weight",
    ]


def test_not_strict():
    model = small()
    kernel = np.asarray(model.convs[1].kernel[...])
    arrays = names_and_arrays(model)
    del arrays["convs.1.weight"]
    arrays["fc.weight"] = np.zeros(3)
    load_torch(model, arrays, strict=False)
    np.testing.assert_array_equal(model.convs[1].kernel[...], kernel)
    np.testing.assert_array_equal(
        model.norms[0].mean[...], arrays["norms.0.running_mean"]
    )
    arrays["norms.0.bias"] = np.zeros(9)
    with pytest.raises(ValueError, match=r"shape mismatches: norms\.0\.bias"):
        load_torch(model, arrays, strict=False)


def test_random_state_is_left_alone():
    model = SmallCNN(1, (3,), dropout=0.5, rngs=nnx.Rngs(0))
    assert not any("rngs" in name for name in to_torch(model))
    load_torch(model, names_and_arrays(model))
