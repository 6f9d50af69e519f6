import struct

import numpy as np
import pytest
from written import mnist

from mmpareto_jax.data import load_multi_digits
from mmpareto_jax.data._digit_images import mnist_digits, read_idx

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def digits():
    return {split: load_multi_digits(split) for split in SPLITS}


@pytest.fixture(scope="module")
def pixels():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8) / 16, labels


def standardised(image):
    return (image - image.mean()) / image.std()


def test_shapes_types_and_sizes(digits):
    for split, size in zip(SPLITS, (2000, 600, 1000), strict=True):
        arrays = digits[split].arrays
        assert arrays["image"].shape == (size, 12, 12, 1)
        assert arrays["image"].dtype == np.float32
        flat = arrays["image"].reshape(size, -1)
        np.testing.assert_allclose(flat.mean(axis=1), 0, atol=1e-4)
        np.testing.assert_allclose(flat.std(axis=1), 1, atol=1e-4)
        for side in ("left", "right"):
            assert arrays[side].shape == (size,)
            assert arrays[side].dtype == np.int32
            share = np.bincount(arrays[side], minlength=10) / size
            np.testing.assert_allclose(share, 0.1, atol=0.04)


def test_an_image_is_the_brighter_of_its_two_digits(digits, pixels):
    images, labels = pixels
    for data in digits.values():
        np.testing.assert_array_equal(data.left, labels[data.left_index])
        np.testing.assert_array_equal(data.right, labels[data.right_index])
        assert (data.left_index != data.right_index).all()
        for i in range(20):
            first, second = np.zeros((2, 12, 12))
            first[:8, :8] = images[data.left_index[i]]
            second[4:, 4:] = images[data.right_index[i]]
            want = standardised(np.maximum(first, second))
            np.testing.assert_allclose(data.image[i, ..., 0], want, atol=1e-5)


def test_the_two_digits_are_independent(digits):
    train = digits["train"]
    assert (train.left == train.right).mean() == pytest.approx(0.1, abs=0.03)


def test_splits_share_no_image_under_any_seed(digits, pixels):
    used = []
    for split, data in digits.items():
        other = load_multi_digits(split, seed=7)
        rows = np.concatenate([data.left_index, data.right_index])
        rows = np.concatenate([rows, other.left_index, other.right_index])
        used.append({pixels[0][row].tobytes() for row in rows})
    assert not used[0] & used[1]
    assert not used[0] & used[2]
    assert not used[1] & used[2]


def test_a_smaller_load_is_a_prefix_and_the_seed_counts(digits):
    part = load_multi_digits("validation", num_examples=37)
    for name, array in part.arrays.items():
        np.testing.assert_array_equal(array, digits["validation"].arrays[name][:37])
    other = load_multi_digits("validation", num_examples=37, seed=1)
    assert (part.left_index != other.left_index).any()


@pytest.mark.parametrize("split", SPLITS)
def test_noise_hits_the_right_digit_only_and_its_share(split, digits):
    clean = digits[split]
    noisy = load_multi_digits(split, noise=0.4)
    np.testing.assert_array_equal(noisy.left_index, clean.left_index)
    np.testing.assert_array_equal(noisy.right_index, clean.right_index)

    def grey(data):
        """Undoes the standardisation: the darkest corner is 0, the brightest 1."""
        image = data.image[..., 0]
        low = image[:, :1, -1:]
        return (image - low) / (image.max(axis=(1, 2), keepdims=True) - low)

    # Full ink on the left keeps the scale of an example.
    full = clean.image.max(axis=(1, 2, 3)) == clean.image[:, :8, :8].max(axis=(1, 2, 3))
    before, after = grey(clean)[full], grey(noisy)[full]
    own = np.zeros((12, 12), bool)
    own[4:, 4:] = True
    np.testing.assert_allclose(before[:, ~own], after[:, ~own], atol=0.07)
    # Below the overlay every pixel of the right digit is seen: half of the hits turn
    # an empty pixel white.
    empty = before[:, 8:, 8:] < 0.01
    white = after[:, 8:, 8:][empty] > 0.9
    assert white.mean() == pytest.approx(0.2, abs=0.02)


def test_more_noise_spares_no_pixel_that_less_noise_hit():
    levels = [
        load_multi_digits("test", num_examples=50, noise=noise).image[..., 0]
        for noise in (0.0, 0.3, 0.6)
    ]
    clean, some, much = (x - x[:, :1, -1:] > 0.05 for x in levels)
    hit = some[:, 8:, 8:] != clean[:, 8:, 8:]
    assert hit.any()
    np.testing.assert_array_equal(much[:, 8:, 8:][hit], some[:, 8:, 8:][hit])


@pytest.mark.parametrize("pack", [False, True])
def test_mnist(tmp_path, pack):
    raw = mnist(tmp_path / "raw", pack)
    found = {split: load_multi_digits(split, raw=raw) for split in SPLITS}
    assert [len(x.left) for x in found.values()] == [54, 6, 60]
    rows = {
        split: {*x.left_index.tolist(), *x.right_index.tolist()}
        for split, x in found.items()
    }
    assert not rows["train"] & rows["validation"]
    for data in found.values():
        assert data.image.shape[1:] == (36, 36, 1)
        np.testing.assert_array_equal(data.left, (100 + data.left_index) % 10)
        image, row = data.image[0, ..., 0], data.left_index[0]
        other = data.right_index[0]
        grey = (image - image[0, 0]) / (image[10, 10] - image[0, 0]) * 255
        assert grey[4, 4] == pytest.approx(100 + row, abs=0.01)
        assert grey[30, 30] == pytest.approx(100 + other, abs=0.01)
        assert grey[15, 15] == pytest.approx(100 + max(row, other), abs=0.01)
        assert not grey[:4, 8:].any()
        assert grey[18, 18] == pytest.approx(255)


def test_idx_files_that_do_not_belong_together(tmp_path):
    raw = mnist(tmp_path / "raw")
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(struct.pack(">HBBI", 0, 8, 1, 3) + bytes(3))
    with pytest.raises(ValueError, match=r"^raw: .* \[60, 28, 28\]"):
        mnist_digits(raw, "test")
    labels.unlink()
    with pytest.raises(ValueError, match=r"^raw: .* is missing \(also as \.gz\)"):
        load_multi_digits("test", raw=raw)
    labels.write_bytes(b"\0\0")
    with pytest.raises(ValueError, match="no IDX file of bytes"):
        read_idx(raw, labels.name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tset"}, r"split: expected one of .* got 'tset'"),
        ({"num_examples": 0}, "num_examples: expected at least 1, got 0"),
        ({"noise": 1.1}, r"noise: expected a share from 0 to 1, got 1\.1"),
        ({"noise": float("nan")}, "noise: expected .* got nan"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=f"load_multi_digits: {message}"):
        load_multi_digits(**{"split": "test"} | options)
