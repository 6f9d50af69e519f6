import numpy as np
import pytest

from mmpareto_jax.data import DIGIT_TASKS, load_digit_tasks

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def digits():
    return {split: load_digit_tasks(split) for split in SPLITS}


@pytest.fixture(scope="module")
def ink():
    """Without noise: how far each pixel is from its background, digits positive."""
    data = load_digit_tasks("train", num_examples=1500, noise=0.0)
    image = data.image[..., 0]
    level = np.median(image.reshape(len(image), -1), axis=1)
    sign = 1 - 2 * data.labels["polarity"]
    return data, level, sign[:, None, None] * (image - level[:, None, None])


def test_shapes_types_and_sizes(digits):
    for split, size in zip(SPLITS, (4000, 1000, 2000), strict=True):
        arrays = digits[split].arrays
        assert list(arrays) == ["image", *DIGIT_TASKS]
        assert arrays["image"].shape == (size, 16, 16, 1)
        assert arrays["image"].dtype == np.float32
        assert abs(arrays["image"].mean()) < 0.2
        for task, classes in DIGIT_TASKS.items():
            assert arrays[task].dtype == np.int32
            share = np.bincount(arrays[task], minlength=classes) / size
            np.testing.assert_allclose(share, 1 / classes, atol=0.04)


def test_the_digit_and_what_follows_from_it(digits):
    from sklearn.datasets import load_digits

    target = load_digits().target
    for data in digits.values():
        labels = data.labels
        np.testing.assert_array_equal(labels["digit"], target[data.image_index])
        np.testing.assert_array_equal(labels["parity"], labels["digit"] % 2)
        np.testing.assert_array_equal(labels["high"], labels["digit"] >= 5)


def test_brightness_and_polarity_are_in_the_image(ink):
    data, level, positive = ink
    # Grey 0 to 1 is shown as -2 to 2.
    grey = level / 4 + 0.5
    np.testing.assert_allclose(
        grey, np.array([0.4, 0.5, 0.6])[data.labels["brightness"]], atol=0.0351
    )
    peak = positive.max(axis=(1, 2)) / 4
    assert peak.min() > 0.2
    assert peak.max() <= 0.4001
    assert positive.min() > -1e-5


def test_position_is_where_the_ink_is(ink):
    data, _, positive = ink
    weight = positive / positive.sum(axis=(1, 2), keepdims=True)
    row = (weight.sum(axis=2) * np.arange(16)).sum(axis=1)
    column = (weight.sum(axis=1) * np.arange(16)).sum(axis=1)
    found = 2 * (row > 7.5) + (column > 7.5)
    # The ink's centre of mass is not the digit's centre, but seldom far from it.
    assert (found == data.labels["position"]).mean() > 0.93


def test_size_is_the_spread_of_the_ink(ink):
    data, _, positive = ink
    area = (positive > 0.5).sum(axis=(1, 2))
    for digit in range(10):
        of = data.labels["digit"] == digit
        size = data.labels["size"]
        means = [area[of & (size == k)].mean() for k in range(3)]
        assert means[0] * 1.3 < means[1]
        assert means[1] * 1.2 < means[2]


def test_rotation_turns_counter_clockwise(ink):
    """Zeros are longer than they are wide: their main axis says how they are turned."""
    data, _, positive = ink
    zero = data.labels["digit"] == 0
    rows, columns = np.mgrid[:16, :16]
    angles = [[] for _ in range(4)]
    for image, k in zip(positive[zero], data.labels["rotation"][zero], strict=True):
        weight = image / image.sum()
        y = (weight * rows).sum() - rows  # upwards
        x = columns - (weight * columns).sum()
        covariance = [(weight * a * b).sum() for a, b in ((x, x), (x, y), (y, y))]
        xx, xy, yy = covariance
        # Of the long axis against the vertical, counter-clockwise.
        angles[k].append(np.rad2deg(0.5 * np.arctan2(-2 * xy, yy - xx)))
    medians = np.array([np.median(x) for x in angles])
    np.testing.assert_allclose(medians - medians.mean(), [-36, -12, 12, 36], atol=9)


def test_tasks_are_answered_independently(digits):
    labels = digits["train"].labels
    drawn = [x for x in DIGIT_TASKS if x not in ("parity", "high")]
    for i, one in enumerate(drawn):
        for two in drawn[:i]:
            assert abs(np.corrcoef(labels[one], labels[two])[0, 1]) < 0.06


def test_the_number_of_tasks_and_of_examples_changes_nothing_else(digits):
    part = load_digit_tasks("validation", num_tasks=3, num_examples=20)
    assert list(part.labels) == ["digit", "position", "size"]
    for name, array in part.arrays.items():
        np.testing.assert_array_equal(array, digits["validation"].arrays[name][:20])
    quiet = load_digit_tasks("validation", num_examples=20, noise=0.0)
    for task, label in quiet.labels.items():
        np.testing.assert_array_equal(label, digits["validation"].labels[task][:20])
    noise = (part.image - quiet.image) / 4
    assert noise.std() == pytest.approx(0.04, rel=0.05)


def test_splits_share_no_digit_and_seeds_differ(digits):
    rows = {
        split: {*x.image_index, *load_digit_tasks(split, seed=5).image_index}
        for split, x in digits.items()
    }
    assert not rows["train"] & rows["validation"]
    assert not rows["train"] & rows["test"]
    assert not rows["validation"] & rows["test"]
    other = load_digit_tasks("test", num_examples=50, seed=5)
    assert (other.image_index != digits["test"].image_index[:50]).any()


def test_every_task_can_be_learned_and_some_are_harder(digits):
    from sklearn.ensemble import ExtraTreesClassifier

    train, test = digits["train"], digits["test"]
    x, y = (d.image.reshape(len(d.image), -1) for d in (train, test))
    score = {}
    for task, classes in DIGIT_TASKS.items():
        model = ExtraTreesClassifier(30, random_state=0, n_jobs=1)
        model.fit(x, train.labels[task])
        right = (model.predict(y) == test.labels[task]).mean()
        score[task] = (right - 1 / classes) / (1 - 1 / classes)
    assert min(score.values()) > 0.03, score
    assert score["polarity"] > 0.9
    assert score["position"] > 3 * score["digit"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, r"split: expected one of .* got 'dev'"),
        ({"num_examples": 0}, "num_examples: expected at least 1, got 0"),
        ({"num_tasks": 0}, "num_tasks: expected 1 to 8, got 0"),
        ({"num_tasks": 9}, "num_tasks: expected 1 to 8, got 9"),
        ({"noise": -1.0}, r"noise: expected .* got -1\.0"),
        ({"noise": float("inf")}, "noise: expected .* got inf"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=f"load_digit_tasks: {message}"):
        load_digit_tasks(**{"split": "test"} | options)
