"""Multi-task models: shapes, values, and which loss reaches which parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.models import (
    MTAN,
    CrossStitch,
    DenseHead,
    HardSharing,
    LeNet,
    MultitaskModel,
    ResNet18,
    SegNet,
    Separate,
    SmallCNN,
)

TASKS = ("a", "b", "c")
IMAGES = jax.random.normal(jax.random.key(0), (3, 16, 8, 1))


def lenet(rngs):
    return LeNet((16, 8, 1), (4, 6), 10, rngs=rngs)


def segnet(rngs):
    return SegNet(1, (4, 6), rngs=rngs)


def cnn(rngs):
    return SmallCNN(1, (4, 8), rngs=rngs)


def hard(trunk, rngs):
    return HardSharing(trunk(rngs), 3)


def separate(trunk, rngs):
    return Separate(lambda: trunk(rngs), 3)


def stitched(trunk, rngs):
    return CrossStitch(lambda: trunk(rngs), 3)


def mtan(trunk, rngs):
    return MTAN(trunk(rngs), 3, rngs=rngs)


SHARINGS = {"hard": hard, "separate": separate, "stitched": stitched, "mtan": mtan}
TRUNKS = {"lenet": lenet, "segnet": segnet, "cnn": cnn}


def model_of(sharing, trunk):
    rngs = nnx.Rngs(0)
    shared = SHARINGS[sharing](TRUNKS[trunk], rngs)
    head = DenseHead if trunk == "segnet" else nnx.Linear
    heads = {name: head(shared.out_features, 5, rngs=rngs) for name in TASKS}
    return MultitaskModel(shared, heads)


def groups_of(model):
    """Path -> the tasks that reach it, of every parameter."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def losses_fn(params):
        merged = nnx.merge(graphdef, params, rest, copy=True)
        return {name: jnp.sum(z**2) for name, z in merged(IMAGES).items()}

    found = mmp.objective_groups(losses_fn, params)
    flat, _ = jax.tree.flatten_with_path(params)
    paths = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in flat]
    return {p: found.groups[found.group_of(p)] for p in paths}


def reached_by(groups, prefix):
    found = {tasks for p, tasks in groups.items() if p.startswith(prefix)}
    assert found, prefix
    return found


@pytest.mark.parametrize("trunk", TRUNKS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_shapes(sharing, trunk):
    found = jax.eval_shape(lambda: model_of(sharing, trunk)(IMAGES))
    assert list(found) == list(TASKS)
    shape = (3, 16, 8, 5) if trunk == "segnet" else (3, 5)
    assert {z.shape for z in found.values()} == {shape}
    assert {z.dtype for z in found.values()} == {jnp.dtype("float32")}


@pytest.mark.parametrize("sharing", SHARINGS)
def test_heads_are_their_own(sharing):
    groups = groups_of(model_of(sharing, "lenet"))
    for name in TASKS:
        assert reached_by(groups, f"{name}_head") == {(name,)}


def test_hard_sharing_is_shared():
    groups = groups_of(model_of("hard", "lenet"))
    assert reached_by(groups, "sharing") == {TASKS}


def test_separate_trunks_share_nothing():
    groups = groups_of(model_of("separate", "lenet"))
    for number, name in enumerate(TASKS):
        assert reached_by(groups, f"sharing/trunks/{number}") == {(name,)}


def test_cross_stitch_shares_all_but_what_follows_the_last_stitch():
    groups = groups_of(model_of("stitched", "lenet"))
    assert reached_by(groups, "sharing/mixings") == {TASKS}
    for number, name in enumerate(TASKS):
        assert reached_by(groups, f"sharing/trunks/{number}/convs") == {TASKS}
        assert reached_by(groups, f"sharing/trunks/{number}/linear") == {(name,)}


@pytest.mark.parametrize("trunk", ["lenet", "segnet"])
def test_mtan_shares_the_trunk_and_not_the_attention(trunk):
    groups = groups_of(model_of("mtan", trunk))
    assert reached_by(groups, "sharing/trunk") == {TASKS}
    for number, name in enumerate(TASKS):
        assert reached_by(groups, f"sharing/attentions/{number}") == {(name,)}


def test_cross_stitch_by_hand():
    """Without mixing it is the trunks; with a permutation it exchanges their maps."""
    sharing = stitched(cnn, nnx.Rngs(0))
    alone = [trunk(IMAGES) for trunk in sharing.trunks]
    for mixing in sharing.mixings:
        np.testing.assert_allclose(mixing[...].sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(np.diag(mixing[...]), 0.9, rtol=1e-6)
        mixing[...] = jnp.eye(3)
    for found, wanted in zip(sharing(IMAGES), alone, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    sharing.mixings[-1][...] = jnp.eye(3)[jnp.array([1, 2, 0])]
    for found, wanted in zip(sharing(IMAGES), (*alone[1:], alone[0]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_an_open_mask_is_the_trunk():
    """Masks of one leave the last map of the trunk to every task."""
    sharing = mtan(cnn, nnx.Rngs(0))
    for own in sharing.attentions:
        for attention in own:
            norm = attention.mask.norm
            norm.scale[...] = jnp.zeros_like(norm.scale)
            norm.bias[...] = jnp.full_like(norm.bias, 100.0)
    alone = sharing.trunk(IMAGES)
    for found in sharing(IMAGES):
        np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)
    closed = sharing.attentions[1][-1].mask.norm
    closed.bias[...] = jnp.full_like(closed.bias, -100.0)
    first, second, _ = sharing(IMAGES)
    np.testing.assert_allclose(first, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second, 0, atol=1e-6)


def test_hard_sharing_runs_its_trunk_once():
    model = model_of("hard", "cnn")
    before = model.sharing.trunk.norms[0].mean[...]
    model(IMAGES)
    once = model.sharing.trunk.norms[0].mean[...]
    other = cnn(nnx.Rngs(0))
    np.testing.assert_array_equal(before, other.norms[0].mean[...])
    other(IMAGES)
    np.testing.assert_array_equal(once, other.norms[0].mean[...])


def test_features_then_heads_is_the_model():
    model = model_of("hard", "lenet")
    whole, halves = model(IMAGES), model.heads(model.trunk(IMAGES)).logits
    for name in TASKS:
        np.testing.assert_array_equal(whole[name], halves[name])
    with pytest.raises(ValueError, match="only with HardSharing"):
        model_of("mtan", "lenet").trunk(IMAGES)


def test_resnet_as_a_trunk():
    def trunk(rngs):
        return ResNet18(1, rngs=rngs)

    def build():
        rngs = nnx.Rngs(0)
        heads = {n: nnx.Linear(512, 5, rngs=rngs) for n in TASKS}
        return MultitaskModel(hard(trunk, rngs), heads)(jnp.ones((2, 32, 32, 1)))

    assert jax.eval_shape(build)["a"].shape == (2, 5)


def test_bfloat16_predictions_are_float32():
    rngs = nnx.Rngs(0)
    for trunk in (
        LeNet((16, 8, 1), dtype=jnp.bfloat16, rngs=rngs),
        SegNet(1, (4,), dtype=jnp.bfloat16, rngs=rngs),
    ):
        assert trunk(IMAGES).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda r: LeNet((2, 2, 1), (4, 4), rngs=r), "LeNet: shape must leave"),
        (lambda r: lenet(r)(jnp.ones((3, 8, 8, 1))), r"x must have shape \[B, 16, 8"),
        (lambda r: SegNet(1, (), rngs=r), "SegNet: widths"),
        (lambda r: segnet(r)(jnp.ones((3, 6, 8, 1))), "multiples of 4"),
        (lambda r: MultitaskModel(hard(lenet, r), {}), "at least one task"),
    ],
)
def test_mistakes(make, match):
    with pytest.raises(ValueError, match=match):
        make(nnx.Rngs(0))
