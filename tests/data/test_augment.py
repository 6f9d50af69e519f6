from itertools import islice

import numpy as np

from mmpareto_jax.data import (
    augmentation,
    crop_box,
    middle_frames,
    random_frames,
    train_batches,
)


def rngs(number, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(number)]


def frames(number=3, candidates=3):
    """Every frame is a ramp; its blue is the candidate's number."""
    ramp = np.linspace(0, 200, 32)
    image = np.zeros((number, 2, candidates, 32, 32, 3), np.uint8)
    image[..., 0], image[..., 1] = ramp[None, :], ramp[:, None]
    image[..., 2] = np.arange(candidates)[:, None, None]
    return image


def test_middle_frames():
    for candidates, middle in ((1, 0), (2, 0), (3, 1), (5, 2)):
        assert np.all(middle_frames(frames(candidates=candidates))[..., 2] == middle)


def test_crops_are_parts_of_the_image_in_the_ranges():
    boxes = np.array([crop_box(rng, 224, 224) for rng in rngs(300)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0
    assert boxes.max() <= 224
    area = width * height / 224**2
    assert 0.07 < area.min() < 0.12
    assert 0.9 < area.max() <= 1
    ratio = width / height
    assert 0.73 < ratio.min() < 0.78
    assert 1.28 < ratio.max() < 1.36


def test_a_crop_that_does_not_fit_is_the_whole_image():
    assert crop_box(np.random.default_rng(0), 1, 1000) == (0, 0, 1000, 1)


def test_random_frames():
    found = random_frames(frames(200), rngs(200), 16)
    assert found.shape == (200, 2, 16, 16, 3)
    assert found.dtype == np.uint8
    # All candidates occur, one for each part; about half of them are flipped.
    chosen = found[..., 2].reshape(400, -1)
    assert np.all(chosen == chosen[:, :1])
    assert set(chosen[:, 0]) == {0, 1, 2}
    slope = found[:, :, 8, -1, 0].astype(int) - found[:, :, 8, 0, 0]
    assert 0.4 < (slope < 0).mean() < 0.6
    down = found[:, :, -1, 8, 1].astype(int) - found[:, :, 0, 8, 1]
    assert np.all(down > 0)


def test_batches_depend_on_seed_epoch_and_row_alone():
    arrays = {"visual": frames(10), "label": np.arange(10)}
    transform = augmentation({"visual": 8})

    def batches(seed, number, start=0, size=4):
        made = train_batches(
            arrays, batch_size=size, seed=seed, start_step=start, transform=transform
        )
        return list(islice(made, number))

    whole, resumed = batches(0, 6), batches(0, 3, start=3)
    for want, got in zip(whole[3:], resumed, strict=True):
        for name in want:
            np.testing.assert_array_equal(want[name], got[name])
    plain = list(islice(train_batches(arrays, batch_size=4, seed=0), 6))
    for want, got in zip(plain, whole, strict=True):
        np.testing.assert_array_equal(want["label"], got["label"])
    # Rows of one epoch look the same whatever the batch size, and change with it.
    by_row = {
        row: image
        for batch in batches(0, 10, size=1)
        for row, image in zip(batch["label"], batch["visual"], strict=True)
    }
    for batch in whole[:2]:
        for row, image in zip(batch["label"], batch["visual"], strict=True):
            np.testing.assert_array_equal(image, by_row[row])
    later = {
        row: image
        for batch in batches(0, 5, start=2)
        for row, image in zip(batch["label"], batch["visual"], strict=True)
    }
    assert any(np.any(later[row] != by_row[row]) for row in later)
    other = batches(1, 1)
    assert np.any(other[0]["visual"] != whole[0]["visual"])
