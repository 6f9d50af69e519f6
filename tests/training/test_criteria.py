"""Losses and measures: by hand, and from sums over uneven batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmpareto_jax.training._tasks.criteria import computed, labels
from mmpareto_jax.training._tasks.dense_criteria import depth, normals, segmentation

CLASSES = 4


def dense_case(kind, size, seed=0):
    """Predictions, targets with gaps, and the criterion."""
    rng = np.random.default_rng(seed)
    shape = (size, 5, 6)
    gaps = rng.random(shape) < 0.2
    if kind == "classification":
        z = rng.normal(size=(size, CLASSES)).astype(np.float32)
        return z, rng.integers(CLASSES, size=size), labels("x")
    if kind == "segmentation":
        z = rng.normal(size=(*shape, CLASSES)).astype(np.float32)
        label = np.where(gaps, -1, rng.integers(CLASSES - 1, size=shape))
        return z, label, segmentation("x", CLASSES)
    if kind == "depth":
        wanted = np.where(gaps, 0, rng.uniform(1, 4, shape)).astype(np.float32)
        found = wanted + rng.normal(size=shape).astype(np.float32)
        return found[..., None], wanted[..., None], depth("x")
    wanted = rng.normal(size=(*shape, 3))
    wanted /= np.linalg.norm(wanted, axis=-1, keepdims=True)
    found = 3 * (wanted + 0.5 * rng.normal(size=wanted.shape))
    wanted[gaps] = 0
    return found.astype(np.float32), wanted.astype(np.float32), normals("x")


KINDS = ("classification", "segmentation", "depth", "normal")


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_batches_are_the_whole(kind):
    """A last batch that is filled up changes nothing, nor do uneven gaps."""
    found, wanted, criterion = dense_case(kind, 7)
    whole = criterion.scores(criterion.sums(found, wanted, jnp.ones(7)))
    parts = []
    for rows, real in (([0, 1, 2, 3], [1, 1, 1, 1]), ([4, 5, 6, 6], [1, 1, 1, 0])):
        mask = jnp.array(real, jnp.float32)
        parts.append(criterion.sums(found[rows], wanted[rows], mask))
    added = jax.tree.map(lambda *x: sum(np.asarray(v, float) for v in x), *parts)
    scores = criterion.scores(added)
    assert set(scores) == set(whole)
    assert set(criterion.kinds) < set(scores)
    for name, value in scores.items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_reported_one(kind):
    found, wanted, criterion = dense_case(kind, 3)
    scores = criterion.scores(criterion.sums(found, wanted, jnp.ones(3)))
    np.testing.assert_allclose(criterion.loss(found, wanted), scores["loss"], rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_what_is_not_valid_has_no_gradient(kind):
    found, wanted, criterion = dense_case(kind, 3)
    grads = np.asarray(jax.grad(criterion.loss)(jnp.asarray(found), wanted))
    missing = {"segmentation": wanted == -1, "depth": wanted[..., 0] == 0}.get(
        kind, (wanted == 0).all(-1)
    )
    assert missing.any()
    assert not grads[missing].any()
    assert grads[~missing].any(-1).all()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_nothing_valid_is_finite(kind):
    found, wanted, criterion = dense_case(kind, 2)
    nothing = np.full_like(wanted, -1 if kind == "segmentation" else 0)
    value, grads = jax.value_and_grad(criterion.loss)(jnp.asarray(found), nothing)
    assert value == 0
    assert not np.asarray(grads).any()


def test_segmentation_by_hand():
    label = np.array([[[0, 0, 1, -1]]])
    found = jax.nn.one_hot(np.array([[[0, 1, 1, 2]]]), CLASSES) * 10.0
    criterion = segmentation("x", CLASSES)
    scores = criterion.scores(criterion.sums(found, label, jnp.ones(1)))
    # Class 0: 1 of 2. Class 1: 1 of 2. Classes 2 and 3 do not occur: the pixel that
    # is called 2 has no label.
    np.testing.assert_allclose(scores["miou"], 0.5)
    np.testing.assert_allclose(scores["pixel_accuracy"], 2 / 3)
    wrong = jax.nn.one_hot(np.array([[[0, 3, 1, 2]]]), CLASSES) * 10.0
    scores = criterion.scores(criterion.sums(wrong, label, jnp.ones(1)))
    np.testing.assert_allclose(scores["miou"], (1 / 2 + 1 + 0) / 3, rtol=1e-6)


def test_depth_by_hand():
    criterion = depth("x")
    wanted = np.array([1.0, 2.0, 0.0, 4.0], np.float32).reshape(1, 2, 2, 1)
    found = np.array([2.0, 2.0, 9.0, 2.0], np.float32).reshape(1, 2, 2, 1)
    scores = criterion.scores(criterion.sums(found, wanted, jnp.ones(1)))
    np.testing.assert_allclose(scores["absolute_error"], 1.0)
    np.testing.assert_allclose(scores["relative_error"], (1 + 0 + 0.5) / 3)


def test_normals_by_hand():
    degrees = np.array([0.0, 10.0, 20.0, 25.0, 90.0])
    angle = np.deg2rad(degrees)
    found = np.stack([np.sin(angle), 0 * angle, np.cos(angle)], -1)[None, None] * 7
    wanted = np.broadcast_to([0.0, 0.0, 1.0], found.shape)
    criterion = normals("x")
    scores = criterion.scores(criterion.sums(found, wanted, jnp.ones(1)))
    np.testing.assert_allclose(scores["mean_angle"], degrees.mean(), rtol=1e-5)
    np.testing.assert_allclose(scores["median_angle"], 20.0, atol=0.1)
    shares = [scores[f"within_{x}"] for x in ("11.25", "22.5", "30")]
    np.testing.assert_allclose(shares, [0.4, 0.6, 0.8])
    np.testing.assert_allclose(scores["loss"], (1 - np.cos(angle)).mean(), atol=1e-6)


def test_median_of_many_angles():
    found, wanted, criterion = dense_case("normal", 40)
    scores = criterion.scores(criterion.sums(found, wanted, jnp.ones(40)))
    valid = (wanted != 0).any(-1)
    unit = found / np.linalg.norm(found, axis=-1, keepdims=True)
    angles = np.degrees(np.arccos(np.clip((unit * wanted).sum(-1), -1, 1)))[valid]
    np.testing.assert_allclose(scores["median_angle"], np.median(angles), atol=0.15)
    np.testing.assert_allclose(scores["mean_angle"], angles.mean(), rtol=1e-5)


def spoiled(kind, value, counts):
    """A case with one such prediction, of what counts or of what does not."""
    found, wanted, criterion = dense_case(kind, 4)
    valid = np.ones(4, bool)
    if kind == "segmentation":
        valid = wanted >= 0
    elif kind != "classification":
        valid = np.any(wanted != 0, axis=-1)
    if kind == "classification" and not counts:
        valid[3] = False
    found[tuple(np.argwhere(valid == counts)[0])] = value
    mask = jnp.array([1, 1, 1, float(counts or kind != "classification")])
    return criterion.scores(criterion.sums(found, wanted, mask))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_no_score_is_a_number_where_a_prediction_is_none(kind, value):
    """Where argmax gives the first class, and histograms count NaN in the first bin."""
    scores = spoiled(kind, value, counts=True)
    assert not any(np.isfinite(x) for x in scores.values()), scores


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_count_may_be_anything(kind):
    scores = spoiled(kind, np.nan, counts=False)
    assert all(np.isfinite(x) for x in scores.values()), scores


def test_a_class_may_be_impossible():
    z = jnp.array([[0.0, 1.0, -jnp.inf], [2.0, 1.0, -jnp.inf]])
    criterion = labels("x")
    scores = criterion.scores(criterion.sums(z, jnp.array([1, 1]), jnp.ones(2)))
    assert scores["accuracy"] == 0.5
    assert np.isfinite(scores["loss"])


def test_a_users_measure_of_outputs_that_are_nan_is_nan():
    """Whatever it makes of them."""

    def right(outputs, batch):
        return outputs.argmax(-1) == batch["y"]

    criterion = computed(
        "right", right, score="value", kinds={"value": ("right", True, True)}
    )
    batch = {"y": jnp.zeros(2, int)}
    outputs = jnp.array([[1.0, -jnp.inf], [2.0, 0.0]])

    def score(outputs):
        return criterion.scores(criterion.sums(outputs, batch, jnp.ones(2)))["value"]

    assert score(outputs) == 1.0
    assert np.isnan(score(outputs.at[1].set(jnp.nan)))
