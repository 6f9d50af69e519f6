"""Batches from arrays: shuffled and endless for training, in order for evaluation."""

from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np

Batch = dict[str, np.ndarray]
Transform = Callable[[Batch, list[np.random.Generator]], Batch]


def train_batches(
    arrays: Mapping[str, np.ndarray],
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    transform: Transform | None = None,
) -> Iterator[Batch]:
    """Endless batches in an order fixed by the seed, from any step.

    Every epoch has its own permutation and leaves out its last
    ``N mod batch_size`` examples. Batch number t is a function of (seed, t) alone, so
    that a resumed run needs no iterator state::

        train_batches(..., start_step=t)  # what follows after t batches

    Args:
      arrays: Name → ``[N, ...]``, any dtype; not copied until a batch is taken.
      batch_size: B, at most N.
      seed: 0 to 2³² - 1.
      start_step: Batches to skip, at no cost.
      transform: ``(batch, generators) -> batch``, with a random generator for each
        example that depends on (seed, epoch, row) alone. Two batches ahead are then
        made in the background.

    Returns:
      An iterator over name → ``[B, ...]``.

    Raises:
      ValueError: When the arrays differ in length or an argument is out of range;
        at the call, not at the first batch.

    Example:
      >>> batches = train_batches({"x": np.arange(5)}, batch_size=2, seed=0)
      >>> [next(batches)["x"].tolist() for _ in range(4)]
      [[1, 2], [4, 0], [0, 3], [1, 4]]
      >>> resumed = train_batches(
      ...     {"x": np.arange(5)}, batch_size=2, seed=0, start_step=3
      ... )
      >>> next(resumed)["x"].tolist()
      [1, 4]
    """
    size = _num_examples("train_batches", arrays, batch_size)
    if batch_size > size:
        raise ValueError(
            f"train_batches: batch_size: expected at most the {size} examples, "
            f"got {batch_size}"
        )
    if not 0 <= seed < 2**32:
        raise ValueError(f"train_batches: seed: expected 0 to 2**32 - 1, got {seed}")
    if start_step < 0:
        raise ValueError(
            f"train_batches: start_step: expected at least 0, got {start_step}"
        )
    # The data set is one of row numbers, and a batch of them gathers its rows in one
    # indexing: no record is ever stacked. The seed goes through .seed(), which hashes
    # it; shuffle(seed) would use seed + epoch, and neighbouring seeds would then see
    # each other's epochs. Batching comes before repeat so that none spans two epochs.
    rows = (
        grain.MapDataset.range(size)
        .seed(seed)
        .shuffle()
        .batch(batch_size, drop_remainder=True)
        .repeat()
    )
    if transform is None:
        # No prefetch threads: a gather of a batch from memory takes microseconds.
        return (_take(arrays, rows[t]) for t in range(start_step, len(rows)))

    def make(step: int, index: np.ndarray) -> Batch:
        epoch = step // (size // batch_size)
        rngs = [np.random.default_rng([seed, epoch, row]) for row in index]
        return transform(_take(arrays, index), rngs)

    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    batches = rows.map_with_index(make).slice(slice(start_step, len(rows)))
    return iter(batches.to_iter_dataset(options))


def _take(arrays: Mapping[str, np.ndarray], index: np.ndarray) -> Batch:
    return {name: array[index] for name, array in arrays.items()}


def eval_batches(
    arrays: Mapping[str, np.ndarray], *, batch_size: int
) -> Iterator[Batch]:
    """All examples once, in order, in batches of one static shape.

    The last batch is filled up with copies of the last example; ``"mask"`` is 1 for
    examples and 0 for filling, so that a masked sum over batches is a sum over the
    examples.

    Args:
      arrays: Name → ``[N, ...]``, any dtype, N at least 1; no name may be ``"mask"``.
      batch_size: B; may exceed N.

    Returns:
      An iterator over name → ``[B, ...]`` and ``"mask"`` → float32 ``[B]``.

    Raises:
      ValueError: When the arrays differ in length, one is called ``"mask"`` or
        ``batch_size`` is not positive; at the call.

    Example:
      >>> for batch in eval_batches({"x": np.arange(5)}, batch_size=3):
      ...     print(batch["x"], batch["mask"])
      [0 1 2] [1. 1. 1.]
      [3 4 4] [1. 1. 0.]
    """
    if "mask" in arrays:
        raise ValueError(
            'eval_batches: arrays: expected no name "mask" (it is added), '
            f"got {sorted(arrays)}"
        )
    size = _num_examples("eval_batches", arrays, batch_size)
    return _pad(arrays, size, batch_size)


def _pad(
    arrays: Mapping[str, np.ndarray], size: int, batch_size: int
) -> Iterator[Batch]:
    for begin in range(0, size, batch_size):
        index = np.arange(begin, begin + batch_size)
        rows = np.minimum(index, size - 1)
        batch = {name: array[rows] for name, array in arrays.items()}
        yield batch | {"mask": (index < size).astype(np.float32)}


def _num_examples(
    function: str, arrays: Mapping[str, np.ndarray], batch_size: int
) -> int:
    sizes = {name: len(array) for name, array in arrays.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(
            f"{function}: arrays: expected one leading size, at least 1, got {sizes}"
        )
    if batch_size < 1:
        raise ValueError(
            f"{function}: batch_size: expected at least 1, got {batch_size}"
        )
    return next(iter(sizes.values()))
