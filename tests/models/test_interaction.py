"""Fusions and interactions in a whole model: which loss reaches which parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.models import (
    MMTM,
    AVClassifier,
    BottleneckTokens,
    CentralNet,
    ConcatFusion,
    CosineFusion,
    FiLMFusion,
    GatedFusion,
    MultimodalClassifier,
    PatchTransformer,
    SmallCNN,
    SumFusion,
)

FUSIONS = (ConcatFusion, CosineFusion, FiLMFusion, GatedFusion, SumFusion)
AUDIO = jax.random.normal(jax.random.key(0), (3, 16, 12, 1))
VISUAL = jax.random.normal(jax.random.key(1), (3, 2, 8, 8, 1))
INPUTS = {"audio": AUDIO, "visual": VISUAL}


def cnns(rngs, num=2):
    return [SmallCNN(1, (4, 8, 8), rngs=rngs) for _ in range(num)]


def transformers(rngs):
    return [
        PatchTransformer((16, 12, 1), (8, 4), features=8, rngs=rngs),
        PatchTransformer((2, 8, 8, 1), (4, 4), features=8, rngs=rngs),
    ]


def classifier(interaction, encoders=cnns, **options):
    rngs = nnx.Rngs(0)
    audio, visual = encoders(rngs)
    options |= {"interaction": interaction([audio, visual], rngs=rngs)}
    return AVClassifier(
        5, audio_encoder=audio, visual_encoder=visual, rngs=rngs, **options
    )


def groups_of(model, inputs):
    """Path -> the objectives that reach it, of every parameter."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def losses_fn(params, inputs):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        logits = MultimodalClassifier.__call__(merged, inputs)
        return {name: jnp.sum(z**2) for name, z in logits.items()}

    found = mmp.objective_groups(losses_fn, params, inputs)
    flat, _ = jax.tree.flatten_with_path(params)
    paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in flat]
    return {p.removesuffix("/value"): found.groups[found.group_of(p)] for p in paths}


def reached_by(groups, prefix):
    return {objectives for p, objectives in groups.items() if p.startswith(prefix)}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_late_fusions_leave_each_encoder_to_two_objectives(fusion):
    rngs = nnx.Rngs(0)
    audio, visual = cnns(rngs)
    model = AVClassifier(
        5,
        audio_encoder=audio,
        visual_encoder=visual,
        fusion=fusion((8, 8), 5, rngs=rngs),
        rngs=rngs,
    )
    groups = groups_of(model, INPUTS)
    assert reached_by(groups, "audio_encoder") == {("joint", "audio")}
    assert reached_by(groups, "visual_encoder") == {("joint", "visual")}
    assert reached_by(groups, "fusion") == {("joint",)}
    assert reached_by(groups, "audio_head") == {("audio",)}


def test_three_modalities():
    rngs = nnx.Rngs(0)
    names = ("rgb", "flow", "sound")
    encoders = dict(zip(names, cnns(rngs, 3), strict=True))
    model = MultimodalClassifier(5, encoders, rngs=rngs)
    inputs = dict.fromkeys(names, VISUAL[:, 0])
    groups = groups_of(model, inputs)
    for name in names:
        assert reached_by(groups, f"{name}_encoder") == {("joint", name)}
        assert reached_by(groups, f"{name}_head") == {(name,)}
    assert model(inputs)["flow"].shape == (3, 5)


def test_mmtm_lets_every_loss_reach_both_encoders():
    groups = groups_of(classifier(MMTM), INPUTS)
    every = ("joint", "audio", "visual")
    # Exchanges come after the stages 1 and 2; the last one's gates act on one stream.
    for name in ("audio", "visual"):
        assert reached_by(groups, f"{name}_encoder/convs") == {every}
    assert reached_by(groups, "interaction/squeezes") == {every}
    assert reached_by(groups, "interaction/excitations/0") == {every}
    assert reached_by(groups, "interaction/excitations/1/0") == {("joint", "audio")}
    assert reached_by(groups, "audio_head") == {("audio",)}


def test_after_the_last_exchange_a_stream_is_its_own():
    def early(encoders, rngs):
        return MMTM(encoders, stages=(0,), rngs=rngs)

    groups = groups_of(classifier(early), INPUTS)
    assert reached_by(groups, "audio_encoder/convs/0") == {("joint", "audio", "visual")}
    for stage in (1, 2):
        assert reached_by(groups, f"audio_encoder/convs/{stage}") == {
            ("joint", "audio")
        }


def test_centralnet_reads_but_does_not_write():
    groups = groups_of(classifier(CentralNet), INPUTS)
    assert reached_by(groups, "audio_encoder") == {("joint", "audio")}
    assert reached_by(groups, "visual_encoder") == {("joint", "visual")}
    assert reached_by(groups, "interaction") == {("joint",)}


def test_bottleneck_tokens_reach_both_encoders():
    groups = groups_of(classifier(BottleneckTokens, transformers), INPUTS)
    every = ("joint", "audio", "visual")
    assert reached_by(groups, "interaction/tokens") == {every}
    for block in range(3):
        assert reached_by(groups, f"audio_encoder/blocks/{block}/linear1") == {every}
    # What the last block makes of the bottleneck is not used.
    assert reached_by(groups, "audio_encoder/blocks/3/linear1") == {("joint", "audio")}
    assert reached_by(groups, "audio_encoder/norm/") == {("joint", "audio")}


@pytest.mark.parametrize(
    ("interaction", "encoders"),
    [(MMTM, cnns), (CentralNet, cnns), (BottleneckTokens, transformers)],
)
def test_probes_do_not_train_the_encoders(interaction, encoders):
    model = classifier(interaction, encoders)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        return merged(AUDIO, VISUAL, detach_unimodal=True)["audio"].sum()

    grads = nnx.to_pure_dict(jax.jit(jax.grad(loss))(params))
    assert np.any(grads.pop("audio_head")["kernel"])
    assert not any(np.any(x) for x in jax.tree.leaves(grads))


def test_mmtm_by_hand():
    """One exchange after the last stage of encoders that hand their input on."""

    class Identity(nnx.Module):
        out_features, stage_widths = 2, (2,)

        def embed(self, x):
            return x

        def stage(self, index, x):
            return x

        def pool(self, x):
            return x.mean(axis=(1, 2))

    encoders = [Identity(), Identity()]
    mmtm = MMTM(encoders, reduction=4, rngs=nnx.Rngs(0))
    mmtm.squeezes[0].kernel[...] = jnp.array([[1.0], [0.0], [2.0], [0.0]])
    mmtm.squeezes[0].bias[...] = jnp.array([0.5])
    for excitation, row in zip(mmtm.excitations[0], ([1, 0], [0, -1]), strict=True):
        excitation.kernel[...] = jnp.array([row], float)
    x, y = jnp.full((1, 2, 2, 2), 3.0), jnp.full((1, 1, 1, 2), -1.0)
    (a, v), _ = mmtm(encoders, [x, y])
    # hidden = relu(3 - 2 + 0.5) = 1.5; a closed gate of 0 is the factor 1.
    gate = 2 / (1 + np.exp(-1.5))
    np.testing.assert_allclose(a, [[3 * gate, 3]], rtol=1e-5)
    np.testing.assert_allclose(v, [[-1, -(2 - gate)]], rtol=1e-5)


def test_mmtm_cuts_a_modality_off():
    """Its gates are then running means; nothing of the other one reaches it."""
    model = classifier(MMTM)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def run(visual, care, rest):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        merged.interaction.care[...] = jnp.asarray(care)
        logits = merged(AUDIO, visual)
        return logits, nnx.state(merged, nnx.Not(nnx.Param))

    @jax.jit
    def slope(care, rest):
        return jax.grad(lambda v: run(v, care, rest)[0]["audio"].sum())(VISUAL)

    assert np.any(slope(-1, rest))
    assert np.any(slope(1, rest))
    assert not np.any(slope(0, rest))
    # The first running mean is that of the batch, the second of both.
    _, first = run(VISUAL, -1, rest)
    _, second = run(3 * VISUAL, -1, first)
    _, other = run(3 * VISUAL, -1, rest)
    means = [x["interaction"]["means"][0][0][...] for x in (first, second, other)]
    assert np.any(means[0] != means[2])
    np.testing.assert_allclose(means[1], (means[0] + means[2]) / 2, rtol=1e-4)
    assert second["interaction"]["count"][...] == 2
    # Without a batch before it, one example's gate is its own mean.
    one = AUDIO[:1], VISUAL[:1]
    free = nnx.merge(graphdef, params, rest, copy=True)
    held = nnx.merge(graphdef, params, rest, copy=True)
    held.interaction.care[...] = jnp.asarray(0)
    np.testing.assert_allclose(free(*one)["audio"], held(*one)["audio"], rtol=1e-5)
    # Evaluation knows nothing of it.
    model.eval()
    before = model(AUDIO, VISUAL)["audio"]
    model.interaction.care[...] = jnp.asarray(0)
    np.testing.assert_array_equal(model(AUDIO, VISUAL)["audio"], before)
    assert model.interaction.count[...] == 0


def test_bottleneck_is_the_mean_over_modalities():
    """With blocks that add a constant of their modality to every token."""

    class Shift(nnx.Module):
        out_features, stage_widths = 2, (2, 2)

        def __init__(self, by):
            self.by = by

        def embed(self, x):
            return x

        def stage(self, index, x):
            self.seen = nnx.data(x)
            return x + self.by

        def pool(self, x):
            return x.mean(axis=1)

    encoders = [Shift(1.0), Shift(3.0)]
    tokens = BottleneckTokens(encoders, num_tokens=2, first=0, rngs=nnx.Rngs(0))
    inputs = [jnp.zeros((1, 4, 2)), jnp.zeros((1, 3, 2))]
    (a, v), _ = tokens(encoders, inputs)
    np.testing.assert_allclose(a, [[2, 2]])
    np.testing.assert_allclose(v, [[6, 6]])
    expected = tokens.tokens[...] + 2
    np.testing.assert_allclose(encoders[0].seen[0, 4:], expected, rtol=1e-6)
    np.testing.assert_allclose(encoders[1].seen[0, 3:], expected, rtol=1e-6)


def test_centralnet_by_hand():
    """Stage means of 1 and 2, projections and linear maps of ones."""
    encoders = cnns(nnx.Rngs(0))
    central = CentralNet(encoders, features=2, rngs=nnx.Rngs(0))

    class Constant(nnx.Module):
        stage_widths = (1, 1)

        def __init__(self, value):
            self.value = value

        def embed(self, x):
            return jnp.full((1, 2, 2, 1), self.value)

        def stage(self, index, x):
            return x

        def pool(self, x):
            return x.mean(axis=(1, 2))

    encoders = [Constant(1.0), Constant(2.0)]
    central = CentralNet(encoders, features=2, rngs=nnx.Rngs(0))
    for stage in range(2):
        central.gains[stage][...] = jnp.array([0.5, 1.0, 2.0])
        for projection in central.projections[stage]:
            projection.kernel[...] = jnp.ones((1, 2))
        central.linears[stage].kernel[...] = jnp.eye(2)
    _, (found,) = central(encoders, [jnp.zeros((1, 1))] * 2)
    # 1 + 2 · 2 = 5, then 5 / 2 + 5.
    np.testing.assert_allclose(found, [[7.5, 7.5]])


@pytest.mark.parametrize("interaction", [MMTM, CentralNet, BottleneckTokens])
def test_encoders_of_different_depth(interaction):
    rngs = nnx.Rngs(0)
    encoders = [SmallCNN(1, (4,), rngs=rngs), SmallCNN(1, (4, 4), rngs=rngs)]
    with pytest.raises(ValueError, match=r"equally many stages, got \[1, 2\]"):
        interaction(encoders, rngs=rngs)


def test_mistakes():
    rngs = nnx.Rngs(0)
    with pytest.raises(ValueError, match=r"stages must be of 0 to 2, got \(3,\)"):
        MMTM(cnns(rngs), stages=(3,), rngs=rngs)
    with pytest.raises(ValueError, match="encoders must have one width"):
        BottleneckTokens(cnns(rngs), rngs=rngs)
    with pytest.raises(ValueError, match="first must be of 0 to 3, got 4"):
        BottleneckTokens(transformers(rngs), first=4, rngs=rngs)
    for encoders in ({}, {"joint": cnns(rngs)[0]}):
        with pytest.raises(ValueError, match="at least one modality, none of them"):
            MultimodalClassifier(5, encoders, rngs=rngs)
    model = MultimodalClassifier(5, {"rgb": cnns(rngs)[0]}, rngs=rngs)
    with pytest.raises(ValueError, match=r"must have the names \['rgb'\]"):
        model({"depth": AUDIO})
