"""Tests for where examples come from."""

import grain
import numpy as np
import pytest

from mmpareto_jax.data import (
    FunctionExamples,
    as_examples,
    as_transform,
    eval_batches,
    random_splits,
    train_batches,
)

X = np.arange(10, dtype=np.float32)
ARRAYS = {"x": X, "label": np.arange(10) % 3}
RECORDS = [{"x": x, "label": int(n)} for x, n in zip(X, ARRAYS["label"], strict=True)]


class Source:
    """A random access source, as grain's are."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return RECORDS[index]


def sources(directory):
    np.save(directory / "x.npy", X)
    mapped = np.load(directory / "x.npy", mmap_mode="r")
    return {
        "arrays": ARRAYS,
        "mapped": ARRAYS | {"x": mapped},
        "list": RECORDS,
        "random access": Source(),
        "map data set": grain.MapDataset.source(Source()),
        "function": FunctionExamples(lambda seed, epoch, i: RECORDS[i], 10),
    }


@pytest.mark.parametrize("split", ["train", "eval", "rest"])
def test_all_sources_give_the_same_batches(split, tmp_path):
    def batches(source):
        if split == "train":
            found = train_batches(source, batch_size=4, seed=3)
            return [next(found) for _ in range(5)]
        return list(eval_batches(source, batch_size=4, fill=split == "eval"))

    found = {name: batches(source) for name, source in sources(tmp_path).items()}
    expected = found.pop("arrays")
    for name, own in found.items():
        assert len(own) == len(expected), name
        for a, b in zip(own, expected, strict=True):
            assert set(a) == set(b)
            for key in a:
                np.testing.assert_array_equal(a[key], b[key], err_msg=name)


def test_the_last_batch_may_be_smaller():
    *_, filled = eval_batches(ARRAYS, batch_size=4)
    *_, small = eval_batches(ARRAYS, batch_size=4, fill=False)
    np.testing.assert_array_equal(filled["mask"], [1, 1, 0, 0])
    np.testing.assert_array_equal(small["mask"], [1, 1])
    np.testing.assert_array_equal(small["x"], [8, 9])


def test_a_function_sees_seed_epoch_and_index():
    examples = FunctionExamples(
        lambda *of: {"of": np.array(of), "x": np.random.default_rng(of).random()}, 6
    )
    found = train_batches(examples, batch_size=3, seed=5)
    first = [next(found) for _ in range(4)]
    assert [set(batch["of"][:, 0]) for batch in first] == [{5}] * 4
    assert [set(batch["of"][:, 1]) for batch in first] == [{0}, {0}, {1}, {1}]
    rows = np.concatenate([batch["of"][:, 2] for batch in first[:2]])
    assert sorted(rows) == list(range(6))
    again = train_batches(examples, batch_size=3, seed=5, start_step=2)
    np.testing.assert_array_equal(next(again)["x"], first[2]["x"])


def test_a_map_data_set_draws_anew_in_each_epoch():
    """As in grain: by position, which goes on from one epoch to the next."""
    noisy = (
        grain.MapDataset.source(Source())
        .seed(0)
        .random_map(lambda record, rng: {"x": record["x"] + rng.random()})
    )
    examples = as_examples(noisy)
    rows = np.arange(10)
    epochs = [examples.take(rows, epoch=e)["x"] for e in (0, 1, 0)]
    assert np.all(np.abs(epochs[0] - X) < 1)
    assert np.all(epochs[0] != epochs[1])
    np.testing.assert_array_equal(epochs[0], epochs[2])


class Scale(grain.transforms.Map):
    def map(self, record):
        return record | {"x": 2 * record["x"]}


class Jitter(grain.transforms.RandomMap):
    def random_map(self, record, rng):
        return record | {"x": record["x"] + np.float32(rng.normal())}


def test_grain_transforms_are_of_examples():
    transform = as_transform([Scale(), Jitter()])

    def batches(start=0):
        found = train_batches(
            ARRAYS, batch_size=5, seed=1, start_step=start, transform=transform
        )
        return [next(found) for _ in range(4)]

    found = batches()
    drawn = {float(x) for batch in found for x in batch["x"] % 1}
    assert len(drawn) == 20  # of each example and epoch its own
    np.testing.assert_array_equal(batches(2)[0]["x"], found[2]["x"])
    assert found[0]["x"].dtype == np.float32


def test_a_transform_of_batches_is_left_alone():
    def own(batch, rngs):
        return batch

    assert as_transform(own) is own
    assert as_transform(None) is None


def test_what_is_refused():
    with pytest.raises(TypeError, match="expected a mapping of arrays, a source"):
        as_examples(3)
    with pytest.raises(ValueError, match="at least one example, got none"):
        as_examples([])
    with pytest.raises(ValueError, match="expected one leading size"):
        as_examples({"x": X, "y": X[:3]})
    with pytest.raises(TypeError, match=r"expected grain\.transforms\.Map or"):
        as_transform([grain.transforms.Batch(3)])


def test_random_splits_keep_classes_and_groups():
    rng = np.random.default_rng(0)
    size = 5_000
    arrays = {
        "x": np.arange(size),
        "label": rng.choice(4, size, p=(0.6, 0.2, 0.15, 0.05)),
        "who": rng.integers(0, 100, size),
    }
    splits = random_splits(arrays, shares=(0.7, 0.2, 0.1), seed=1)
    rows = np.concatenate([x["x"] for x in splits.values()])
    assert sorted(rows) == list(range(size))
    for split, share in zip(splits.values(), (0.7, 0.2, 0.1), strict=True):
        counts = np.bincount(split["label"]) / np.bincount(arrays["label"])
        np.testing.assert_allclose(counts, share, atol=0.01)
        assert np.all(np.diff(split["x"]) > 0)
    splits = random_splits(arrays, group="who", seed=1)
    people = [set(arrays["who"][x["x"]]) for x in splits.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 100
    assert [round(len(x["x"]) / size, 1) for x in splits.values()] == [0.8, 0.1, 0.1]
    again = random_splits(arrays, group="who", seed=1)
    np.testing.assert_array_equal(again["test"]["x"], splits["test"]["x"])
    other = random_splits(arrays, group="who", seed=2)
    assert set(other["test"]["x"]) != set(splits["test"]["x"])
    with pytest.raises(ValueError, match="nothing is left for"):
        random_splits(
            {"x": X, "label": np.zeros(10, int), "g": np.zeros(10)}, group="g"
        )
    with pytest.raises(ValueError, match="shares: expected three above 0"):
        random_splits(ARRAYS, shares=(0.5, 0.5))
    with pytest.raises(ValueError, match="expected an array 'who'"):
        random_splits(ARRAYS, group="who")
    with pytest.raises(ValueError, match="label: expected integers from 0"):
        random_splits({"label": X})


@pytest.mark.parametrize(
    ("source", "error", "match"),
    [
        ([{"x": 1.0}, None], TypeError, "got NoneType; a source must not be filtered"),
        ([{"x": X}, {"x": X[:3]}], ValueError, "x: expected one shape in all examples"),
        ([{"x": 1.0}, {"y": 1.0}], ValueError, "expected the names .* in every record"),
        ((X, X), TypeError, "expected records that map names to arrays, got ndarray"),
    ],
)
def test_records_that_do_not_fit(source, error, match):
    with pytest.raises(error, match=match):
        as_examples(source).take(np.arange(2))


def test_what_is_no_array_is_named():
    for x in ([1, 2, 3], 3.0, np.float32(1)):
        with pytest.raises(TypeError, match=r"data: x: expected an array \[N, ...\]"):
            as_examples({"y": X, "x": x})


def test_a_mask_of_records_is_refused():
    """As of arrays: evaluation adds one."""
    with pytest.raises(ValueError, match='expected no name "mask"'):
        next(eval_batches([{"x": 1.0, "mask": 0.0}], batch_size=1))


def test_a_single_transform_needs_no_list():
    batch = as_transform(Scale())({"x": X}, [None] * 10)
    np.testing.assert_array_equal(batch["x"], 2 * X)
