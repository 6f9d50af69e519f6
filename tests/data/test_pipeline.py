from itertools import islice

import numpy as np
import pytest

from mmpareto_jax.data import eval_batches, train_batches


def arrays(size=10):
    rng = np.random.default_rng(0)
    return {
        "audio": rng.standard_normal((size, 3, 2, 1)).astype(np.float32),
        "label": np.arange(size, dtype=np.int32),
    }


def labels(size, steps, **options):
    batches = train_batches(arrays(size), **options)
    return [batch["label"].tolist() for batch in islice(batches, steps)]


def test_train_batches_gather_matching_rows_and_keep_types():
    data = arrays()
    for batch in islice(train_batches(data, batch_size=4, seed=1), 5):
        assert set(batch) == set(data)
        assert batch["audio"].shape == (4, 3, 2, 1)
        assert batch["audio"].dtype == np.float32
        assert batch["label"].dtype == np.int32
        np.testing.assert_array_equal(batch["audio"], data["audio"][batch["label"]])


@pytest.mark.parametrize(("size", "batch_size"), [(10, 3), (12, 4), (7, 7), (5, 1)])
def test_an_epoch_has_no_repeats_and_epochs_differ(size, batch_size):
    per_epoch = size // batch_size
    flat = np.array(labels(size, 6 * per_epoch, batch_size=batch_size, seed=3))
    epochs = flat.reshape(6, -1)
    for epoch in epochs:
        assert len(set(epoch)) == per_epoch * batch_size
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_what_the_remainder_drops_changes_from_epoch_to_epoch():
    seen = np.array(labels(10, 3 * 20, batch_size=3, seed=0))
    assert set(seen.ravel()) == set(range(10))


@pytest.mark.parametrize("start", [0, 1, 2, 3, 4, 7, 100])
def test_starting_at_a_step_continues_bitwise(start):
    # Three batches an epoch: 2, 3 and 4 are around the first boundary.
    whole = islice(train_batches(arrays(), batch_size=3, seed=5), start, start + 7)
    resumed = train_batches(arrays(), batch_size=3, seed=5, start_step=start)
    for want, got in zip(whole, resumed, strict=False):
        assert want.keys() == got.keys()
        for name in want:
            np.testing.assert_array_equal(want[name], got[name])


def test_order_depends_on_the_seed_alone():
    one = labels(64, 8, batch_size=8, seed=0)
    assert one == labels(64, 8, batch_size=8, seed=0)
    assert one != labels(64, 8, batch_size=8, seed=1)


def test_neighbouring_seeds_do_not_share_epochs():
    # grain adds the epoch to a shuffle seed: unhashed, epoch 1 of seed 0 would be
    # epoch 0 of seed 1.
    first = labels(64, 16, batch_size=8, seed=0)
    second = labels(64, 8, batch_size=8, seed=1)
    assert first[8:] != second


def test_batches_are_copies():
    data = arrays()
    batch = next(train_batches(data, batch_size=10, seed=0))
    batch["label"][:] = -1
    np.testing.assert_array_equal(data["label"], np.arange(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 11}, "batch_size: expected at most the 10 examples, got 11"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"seed": -1}, r"seed: expected 0 to 2\*\*32 - 1, got -1"),
        ({"seed": 2**32}, r"seed: expected 0 to 2\*\*32 - 1, got 4294967296"),
        ({"start_step": -1}, "start_step: expected at least 0, got -1"),
    ],
)
def test_train_batches_raises_at_the_call(options, message):
    with pytest.raises(ValueError, match=f"train_batches: {message}"):
        train_batches(arrays(), **{"batch_size": 2, "seed": 0} | options)


@pytest.mark.parametrize(
    "bad", [{}, {"a": np.ones(0)}, {"a": np.ones(2), "b": np.ones(3)}]
)
def test_arrays_must_have_one_size(bad):
    with pytest.raises(ValueError, match="train_batches: arrays: expected one leading"):
        train_batches(bad, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="eval_batches: arrays: expected one leading"):
        eval_batches(bad, batch_size=1)


@pytest.mark.parametrize("batch_size", [1, 3, 5, 10, 16])
def test_eval_batches_are_complete_ordered_and_static(batch_size):
    data = arrays()
    batches = list(eval_batches(data, batch_size=batch_size))
    assert len(batches) == -(-10 // batch_size)
    assert all(batch["audio"].shape == (batch_size, 3, 2, 1) for batch in batches)
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert mask.dtype == np.float32
    assert mask.sum() == 10.0
    for name, array in data.items():
        joined = np.concatenate([batch[name] for batch in batches])
        assert joined.dtype == array.dtype
        np.testing.assert_array_equal(joined[mask == 1.0], array)


def test_eval_batches_keeps_the_name_mask_and_needs_a_size():
    with pytest.raises(ValueError, match='expected no name "mask"'):
        eval_batches({"mask": np.ones(2)}, batch_size=1)
    with pytest.raises(ValueError, match="eval_batches: batch_size: expected"):
        eval_batches(arrays(), batch_size=0)
