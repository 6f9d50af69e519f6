import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.models import (
    MLP,
    MMTM,
    BottleneckTokens,
    CentralNet,
    MultimodalClassifier,
    SmallCNN,
    TemporalCNN,
)

# Compiled as a whole: op by op, every first call costs seconds.
forward = nnx.jit(lambda encoder, x: encoder(x))


def inputs(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("widths", [(16, 32, 8), (4,)])
def test_shapes(steps, widths):
    encoder = TemporalCNN(3, widths, rngs=nnx.Rngs(0))
    features = forward(encoder, inputs(4, steps, 3))
    assert features.shape == (4, widths[-1]) == (4, encoder.out_features)
    assert features.dtype == jnp.float32


def test_later_blocks_halve_the_steps():
    encoder = TemporalCNN(1, (2, 2, 2), rngs=nnx.Rngs(0))
    x = inputs(4, 9, 1)
    sizes = []
    for index in range(3):
        x = encoder.stage(index, x)
        sizes.append(x.shape)
    assert sizes == [(4, 9, 2), (4, 5, 2), (4, 3, 2)]


def test_values():
    """The formulas of one block in numpy, on a batch."""
    encoder = TemporalCNN(2, (3,), rngs=nnx.Rngs(0))
    x = inputs(4, 7, 2)
    kernel = np.asarray(encoder.convs[0].kernel[...])  # [5, 2, 3]
    padded = np.pad(np.asarray(x), ((0, 0), (2, 2), (0, 0)))
    y = sum(padded[:, k : k + 7] @ kernel[k] for k in range(5))
    y = (y - y.mean(axis=(0, 1))) / np.sqrt(y.var(axis=(0, 1)) + 1e-5)
    expected = np.maximum(y, 0).mean(axis=1)
    np.testing.assert_allclose(forward(encoder, x), expected, atol=1e-5)


def test_time_has_a_direction_and_no_origin():
    """A pulse gives the same features wherever it is, and others backwards."""
    encoder = TemporalCNN(1, (4,), rngs=nnx.Rngs(0))
    encoder.eval()
    pulse = jnp.array([1.0, 2.0, 4.0])
    x = jnp.zeros((3, 40, 1))
    x = x.at[0, 10:13, 0].set(pulse).at[1, 25:28, 0].set(pulse)
    x = x.at[2, 10:13, 0].set(pulse[::-1])
    here, there, backwards = forward(encoder, x)
    np.testing.assert_allclose(here, there, rtol=1e-5)
    assert np.abs(here - backwards).max() > 1e-3


def test_dropout_only_in_training():
    encoder = TemporalCNN(1, (4, 64), dropout=0.5, rngs=nnx.Rngs(0))
    x = inputs(4, 20, 1)
    first, second = forward(encoder, x), forward(encoder, x)
    assert 0.3 < float((first == 0).mean()) < 0.7
    assert not np.array_equal(first == 0, second == 0)
    encoder.eval()
    np.testing.assert_array_equal(forward(encoder, x), forward(encoder, x))
    encoder = TemporalCNN(1, rngs=nnx.Rngs(0))
    assert not jax.tree.leaves(nnx.state(encoder, nnx.RngState))


def test_bfloat16():
    encoder = TemporalCNN(3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    reference = TemporalCNN(3, rngs=nnx.Rngs(0))
    x = inputs(8, 40, 3)
    features, expected = forward(encoder, x), forward(reference, x)
    assert features.dtype == jnp.float32
    assert encoder.convs[0].kernel[...].dtype == jnp.float32
    error = jnp.linalg.norm(features - expected) / jnp.linalg.norm(expected)
    assert 0 < error < 0.05


def test_wrong_input():
    encoder = TemporalCNN(3, rngs=nnx.Rngs(0))
    for shape in ((2, 3), (2, 5, 4), (2, 4, 4, 3)):
        with pytest.raises(ValueError, match=r"TemporalCNN: .* \[B, T, 3\], got"):
            encoder(inputs(*shape))
    with pytest.raises(ValueError, match="TemporalCNN: widths"):
        TemporalCNN(1, (), rngs=nnx.Rngs(0))


# --- Beside encoders of another rank, in interactions

INPUTS = {
    "features": inputs(4, 5),
    "series": inputs(4, 12, 2),
    "image": inputs(4, 8, 8, 1),
}


def three_encoders(rngs, widths=(4, 6, 8)):
    return {
        "features": MLP(5, widths, rngs=rngs),
        "series": TemporalCNN(2, widths, rngs=rngs),
        "image": SmallCNN(1, widths, rngs=rngs),
    }


@pytest.mark.parametrize("interaction", [MMTM, CentralNet])
def test_interactions_of_different_ranks(interaction):
    """Losses reach the encoders as they do between two CNNs."""
    rngs = nnx.Rngs(0)
    encoders = three_encoders(rngs)
    between = interaction(list(encoders.values()), rngs=rngs)
    model = MultimodalClassifier(3, encoders, interaction=between, rngs=rngs)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def losses(params):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        return {name: jnp.sum(z**2) for name, z in merged(INPUTS).items()}

    assert all(np.isfinite(x) for x in jax.jit(losses)(params).values())
    found = mmp.objective_groups(losses, params)
    flat, _ = jax.tree.flatten_with_path(params)
    for path, _ in flat:
        keys = jax.tree_util.keystr(path, simple=True, separator="/")
        name = keys.split("_encoder/")[0]
        if name in encoders:
            expected = ("joint", *encoders) if interaction is MMTM else ("joint", name)
            assert found.groups[found.group_of(keys)] == expected, keys


def test_mmtm_rescales_features_by_its_gate():
    """Of rank two as of any other: the gate of a channel is one factor."""
    rngs = nnx.Rngs(0)
    encoders = [MLP(5, (4,), rngs=rngs), TemporalCNN(2, (4,), rngs=rngs)]
    given = [INPUTS["features"], INPUTS["series"]]
    mmtm = MMTM(encoders, rngs=rngs)
    for module in (*encoders, mmtm):
        module.eval()
    alone = [f(x) for f, x in zip(encoders, given, strict=True)]
    hidden = nnx.relu(mmtm.squeezes[0](jnp.concatenate(alone, axis=-1)))
    found, _ = mmtm(encoders, given)
    for x, y, gate in zip(found, alone, mmtm.excitations[0], strict=True):
        np.testing.assert_allclose(x, 2 * nnx.sigmoid(gate(hidden)) * y, rtol=1e-5)


@pytest.mark.parametrize("names", [("features", "image"), ("series", "series")])
def test_bottleneck_tokens_are_for_tokens(names):
    encoders = [three_encoders(nnx.Rngs(0), (8, 8, 8))[name] for name in names]
    tokens = BottleneckTokens(encoders, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"must map tokens \[B, \d+, 8\] to as many"):
        tokens(encoders, [INPUTS[name] for name in names])
