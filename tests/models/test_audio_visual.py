import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpareto_jax.models import AVClassifier, ResNet18, SmallCNN

# Compiled as a whole: op by op, every first call costs seconds.
forward = nnx.jit(lambda model, audio, visual: model(audio, visual))


def small(num_classes=5, **options):
    rngs = nnx.Rngs(0)
    return AVClassifier(
        num_classes,
        audio_encoder=SmallCNN(1, (4, 8), rngs=rngs, **options),
        visual_encoder=SmallCNN(3, (4, 6), rngs=rngs, **options),
        rngs=rngs,
    )


def batch(seed=0):
    audio, visual = jax.random.split(jax.random.key(seed))
    return (
        jax.random.normal(audio, (4, 32, 24, 1)),
        jax.random.normal(visual, (4, 2, 16, 16, 3)),
    )


def test_the_default_is_the_official_network():
    model = nnx.eval_shape(lambda: AVClassifier(6, rngs=nnx.Rngs(0)))
    assert isinstance(model.audio_encoder, ResNet18)
    assert isinstance(model.visual_encoder, ResNet18)
    assert model.audio_encoder.in_channels == 1
    assert model.visual_encoder.in_channels == 3
    assert model.fusion.linear.kernel.shape == (1024, 6)
    assert model.audio_head.kernel.shape == (512, 6)
    assert model.visual_head.kernel.shape == (512, 6)
    audio = jax.ShapeDtypeStruct((2, 257, 188, 1), jnp.float32)
    visual = jax.ShapeDtypeStruct((2, 3, 224, 224, 3), jnp.float32)
    logits = nnx.eval_shape(lambda m, a, v: m(a, v), model, audio, visual)
    assert {name: z.shape for name, z in logits.items()} == {
        "joint": (2, 6),
        "audio": (2, 6),
        "visual": (2, 6),
    }


def test_logits_come_in_order():
    # Traced without a pytree boundary, which would sort the keys.
    def keys_and_shapes():
        logits = small()(*batch())
        assert list(logits) == ["joint", "audio", "visual"]
        assert {z.shape for z in logits.values()} == {(4, 5)}

    jax.eval_shape(keys_and_shapes)


@pytest.mark.parametrize("training", [True, False])
def test_each_head_sees_its_own_modality(training):
    def logits(audio, visual):
        model = small()
        if not training:
            model.eval()
        return forward(model, audio, visual)

    (audio, visual), (other_audio, other_visual) = batch(0), batch(1)
    reference = logits(audio, visual)
    for name, changed in {
        "audio": logits(audio, other_visual),
        "visual": logits(other_audio, visual),
    }.items():
        other = {"audio": "visual", "visual": "audio"}[name]
        np.testing.assert_array_equal(changed[name], reference[name])
        assert np.all(changed[other] != reference[other])
        assert np.all(changed["joint"] != reference["joint"])


def test_which_parameters_each_objective_reaches():
    model = small()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def losses(params):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        return {name: (z**2).sum() for name, z in merged(*batch()).items()}

    reached = {}
    for name, gradient in jax.jit(jax.jacrev(losses))(params).items():
        for path, g in nnx.to_flat_state(gradient):
            if np.any(g[...]):
                reached.setdefault(path[0], set()).add(name)
    assert reached == {
        "audio_encoder": {"joint", "audio"},
        "visual_encoder": {"joint", "visual"},
        "fusion": {"joint"},
        "audio_head": {"audio"},
        "visual_head": {"visual"},
    }


def test_statistics_advance_once_per_call_and_only_in_training():
    model = small()
    audio, visual = batch()

    def means():
        return [
            np.asarray(encoder.norms[0].mean[...])
            for encoder in (model.audio_encoder, model.visual_encoder)
        ]

    expected = [
        0.1 * np.asarray(encoder.convs[0](x)).reshape(-1, 4).mean(0)
        for encoder, x in (
            (model.audio_encoder, audio),
            (model.visual_encoder, visual.reshape(-1, 16, 16, 3)),
        )
    ]
    forward(model, audio, visual)
    for found, once in zip(means(), expected, strict=True):
        np.testing.assert_allclose(found, once, rtol=1e-4, atol=1e-6)
    before = means()
    model.eval()
    forward(model, audio, visual)
    for found, same in zip(means(), before, strict=True):
        np.testing.assert_array_equal(found, same)


def test_jitted_training_step_keeps_types_and_compiles_once():
    graphdef, params, rest = nnx.split(small(dtype=jnp.bfloat16), nnx.Param, ...)

    traces = []

    @jax.jit
    def step(params, rest, audio, visual):
        traces.append(1)

        def loss_fn(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            loss = sum((z**2).mean() for z in model(audio, visual).values())
            return loss, nnx.state(model, nnx.Not(nnx.Param))

        grads, rest_ = jax.grad(loss_fn, has_aux=True)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), rest_

    types = jax.tree.map(jax.typeof, (params, rest))
    for seed in range(3):
        params, rest = step(params, rest, *batch(seed))
    assert jax.tree.map(jax.typeof, (params, rest)) == types
    assert len(traces) == 1


def test_bfloat16_is_one_setting():
    model = nnx.eval_shape(
        lambda: AVClassifier(6, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    )
    for leaf in jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat))):
        assert leaf.dtype == jnp.float32
    x = jax.ShapeDtypeStruct((2, 32, 32, 1), jnp.float32)
    fmap = nnx.eval_shape(lambda m, x: m.feature_map(x), model.audio_encoder, x)
    assert fmap.dtype == jnp.bfloat16
    frames = jax.ShapeDtypeStruct((2, 1, 32, 32, 3), jnp.float32)
    logits = nnx.eval_shape(lambda m, a, v: m(a, v), model, x, frames)
    assert {z.dtype for z in logits.values()} == {jnp.dtype("float32")}


def test_a_fusion_of_ones_own():
    class Mean(nnx.Module):
        def __call__(self, features):
            return sum(f.mean(-1, keepdims=True) for f in features)

    model = AVClassifier(
        1,
        audio_encoder=SmallCNN(1, (4,), rngs=nnx.Rngs(0)),
        visual_encoder=SmallCNN(3, (4,), rngs=nnx.Rngs(1)),
        fusion=Mean(),
        rngs=nnx.Rngs(2),
    )
    assert forward(model, *batch())["joint"].shape == (4, 1)
