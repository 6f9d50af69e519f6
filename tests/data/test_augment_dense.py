from itertools import islice

import numpy as np
import pytest

from mmpareto_jax.data import dense_augmentation, load_scenes, train_batches

H, W = 36, 48


def rngs(number, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(number)]


def fields(number=40, dtype=np.float32):
    """Everything tells its place: ramps, and the pixel's number as the label."""
    y, x = np.mgrid[:H, :W]
    image = np.stack([x, y, np.full_like(x, 7)], axis=-1).astype(dtype)
    normal = np.stack([x - W / 2, y - H / 2, np.full(x.shape, 20.0)], axis=-1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    one = {
        "image": image,
        "segmentation": (y * W + x).astype(np.int32),
        "depth": (y * W + x + 1).astype(np.float32)[..., None],
        "normal": normal.astype(np.float32),
    }
    return {name: np.repeat(a[None], number, axis=0) for name, a in one.items()}


def scale_of(segmentation):
    """How many times wider a row is than what it shows; negative: mirrored."""
    columns = segmentation[0] % W
    width = columns.max() - columns.min() + 1
    return W / width * (1 if columns[0] < columns[-1] else -1)


def test_every_array_shows_the_same_view():
    batch = fields()
    out = dense_augmentation()(batch, rngs(40))
    assert {k: (v.shape, v.dtype) for k, v in out.items()} == {
        k: (v.shape, v.dtype) for k, v in batch.items()
    }
    y, x = np.divmod(out["segmentation"], W)
    # The nearest pixel is never further than half a pixel from the place.
    assert np.abs(out["image"][..., 0] - x).max() <= 0.5 + 1e-5
    assert np.abs(out["image"][..., 1] - y).max() <= 0.5 + 1e-5
    np.testing.assert_allclose(out["image"][..., 2], 7, atol=1e-5)
    for i in range(40):
        scale = scale_of(out["segmentation"][i])
        want = (out["segmentation"][i] + 1) / abs(scale)
        np.testing.assert_allclose(out["depth"][i, ..., 0], want, rtol=1e-5)
        # The mirror turns the first component, and with it the field.
        place = out["image"][i]
        sign = np.sign(scale)
        vector = np.stack(
            [
                sign * (place[..., 0] - W / 2),
                place[..., 1] - H / 2,
                np.full((H, W), 20.0),
            ],
            axis=-1,
        )
        vector /= np.linalg.norm(vector, axis=-1, keepdims=True)
        np.testing.assert_allclose(out["normal"][i], vector, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(out["normal"], axis=-1), 1, atol=1e-6)


def test_scales_places_and_flips_all_occur():
    out = dense_augmentation()(fields(300), rngs(300))
    scales = np.array([scale_of(x) for x in out["segmentation"]])
    values, counts = np.unique(np.abs(scales), return_counts=True)
    np.testing.assert_allclose(values, (1.0, 1.2, 1.5))
    assert counts.min() > 70
    assert 0.4 < (scales < 0).mean() < 0.6
    corners = out["segmentation"].min(axis=(1, 2))
    top, left = np.divmod(corners[np.abs(scales) > 1.4], W)
    assert (top.min(), top.max()) == (0, H - 24)
    assert (left.min(), left.max()) == (0, W - 32)


def test_without_scales_only_the_mirror_is_left():
    batch = fields()
    out = dense_augmentation(scales=(1.0,))(batch, rngs(40))
    flipped = out["segmentation"][:, 0, 0] != 0
    assert set(flipped) == {True, False}
    for i, flip in enumerate(flipped):
        step = -1 if flip else 1
        for name in ("image", "segmentation", "depth"):
            np.testing.assert_array_equal(out[name][i], batch[name][i, :, ::step])
        want = batch["normal"][i, :, ::step] * ((step, 1, 1))
        np.testing.assert_allclose(out["normal"][i], want, atol=1e-6)


def test_gaps_stay_gaps():
    batch = fields()
    batch["segmentation"][:, 10:20, 10:20] = -1
    batch["depth"][:, 10:20, 10:20] = 0
    batch["normal"][:, 10:20, 10:20] = 0
    out = dense_augmentation()(batch, rngs(40))
    gap = out["segmentation"] == -1
    np.testing.assert_array_equal(out["depth"][..., 0] == 0, gap)
    length = np.linalg.norm(out["normal"], axis=-1)
    np.testing.assert_array_equal(length == 0, gap)
    np.testing.assert_allclose(length[~gap], 1, atol=1e-6)


def test_inverse_depth_grows_as_things_come_closer():
    one, other = (
        dense_augmentation(scales=(1.5,), inverse_depth=inverse)(fields(4), rngs(4))
        for inverse in (False, True)
    )
    np.testing.assert_allclose(other["depth"], one["depth"] * 1.5**2, rtol=1e-6)
    np.testing.assert_array_equal(other["image"], one["image"])


def test_bytes_and_small_integers_stay_what_they_are():
    batch = fields(dtype=np.uint8)
    batch["segmentation"] = (batch["segmentation"] % 13).astype(np.int8)
    out = dense_augmentation()(batch, rngs(40))
    assert out["image"].dtype == np.uint8
    assert out["segmentation"].dtype == np.int8
    want = dense_augmentation()(fields(), rngs(40))["image"]
    assert np.abs(out["image"].astype(float) - want).max() <= 0.5 + 1e-5


def test_geometry_of_scenes_survives():
    """In a view, neighbours of one normal still lie in its plane."""
    scenes = load_scenes("test", num_examples=30)
    scale = 1.5
    out = dense_augmentation(scales=(scale,))(scenes.arrays, rngs(30))
    whole = scenes.depth.max(axis=(1, 2, 3))
    assert (out["depth"].max(axis=(1, 2, 3)) <= whole / scale + 1e-5).all()
    # A mirrored floor still faces up and a mirrored left wall is a right wall.
    floor = out["segmentation"] == 0
    up = out["normal"][floor]
    assert np.median(up[:, 1]) > 0.9


def test_it_is_a_transform_of_train_batches():
    arrays = fields(20) | {"row": np.arange(20)}
    options = {"batch_size": 5, "seed": 3, "transform": dense_augmentation()}
    first = list(islice(train_batches(arrays, **options), 8))
    late = list(islice(train_batches(arrays, start_step=5, **options), 3))
    for want, got in zip(first[5:], late, strict=True):
        for name, array in want.items():
            np.testing.assert_array_equal(array, got[name])
    views = {}
    for epoch in (first[:4], first[4:]):
        for batch in epoch:
            for row, view in zip(batch["row"], batch["segmentation"], strict=True):
                views.setdefault(int(row), []).append(view)
    assert any((a != b).any() for a, b in views.values())
    np.testing.assert_array_equal(arrays["segmentation"], fields(20)["segmentation"])


def test_what_is_not_there_is_not_missed():
    batch = {"image": fields(3)["image"], "label": np.arange(3)}
    out = dense_augmentation()(batch, rngs(3))
    assert set(out) == {"image", "label"}
    np.testing.assert_array_equal(out["label"], np.arange(3))
    assert dense_augmentation()({"x": np.ones(2)}, rngs(2))["x"].sum() == 2


def test_errors():
    for scales in ((), (1.0, 0.9)):
        with pytest.raises(ValueError, match="dense_augmentation: scales: expected"):
            dense_augmentation(scales=scales)
    batch = fields(2)
    batch["depth"] = batch["depth"][:, :-1]
    with pytest.raises(ValueError, match=r"expected one height and width, got .*35"):
        dense_augmentation()(batch, rngs(2))
