"""Batches of examples: shuffled and endless for training, in order for evaluation."""

from collections.abc import Callable, Iterator, Mapping

import grain
import numpy as np

from ._examples import (
    Batch,
    Examples,
    Source,
    Transform,
    as_examples,
    check_integer,
)


def all_rows(size: int) -> np.ndarray:
    """The rows of a batch that one process needs: all of them."""
    return np.arange(size)


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    transform: Transform | None = None,
    rows: Callable[[int], np.ndarray] = all_rows,
) -> Iterator[Batch]:
    """Endless batches in an order fixed by the seed, from any step.

    Every epoch has its own permutation and leaves out its last
    ``N mod batch_size`` examples. Batch number t is a function of (seed, t) alone, so
    that a resumed run needs no iterator state::

        train_batches(..., start_step=t)  # what follows after t batches

    Args:
      source: Arrays by name, ``[N, ...]``, any dtype, not copied until a batch is
        taken; or whatever `as_examples` takes.
      batch_size: B, at most N.
      seed: 0 to 2³² - 1.
      start_step: Batches to skip, at no cost.
      transform: ``(batch, generators) -> batch``, with a random generator for each
        example that depends on (seed, epoch, row) alone.
      rows: batch size -> the rows of every batch to make, by default all: what one of
        several processes needs. Only these are read.

    From arrays, without a transform, a batch is gathered when it is asked for; else two
    batches ahead are made in the background.

    Returns:
      An iterator over name → ``[B, ...]``, or as many as `rows` has.

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
    examples = _examples_of("train_batches", source, batch_size)
    size = len(examples)
    if batch_size > size:
        raise ValueError(
            f"train_batches: batch_size: expected at most the {size} examples, "
            f"got {batch_size}"
        )
    for name, number in (("seed", seed), ("start_step", start_step)):
        check_integer(f"train_batches: {name}", number)
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
    order = (
        grain.MapDataset.range(size)
        .seed(seed)
        .shuffle()
        .batch(batch_size, drop_remainder=True)
        .repeat()
    )

    wanted = rows(batch_size)

    def make(step: int, whole: np.ndarray) -> Batch:
        index = whole[wanted]
        epoch = step // (size // batch_size)
        batch = examples.take(index, seed=seed, epoch=epoch)
        if transform is None:
            return batch
        rngs = [np.random.default_rng([seed, epoch, row]) for row in index]
        return transform(batch, rngs)

    if transform is None and isinstance(source, Mapping):
        # No prefetch threads: a gather of a batch from memory takes microseconds.
        return (make(t, order[t]) for t in range(start_step, len(order)))
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    batches = order.map_with_index(make).slice(slice(start_step, len(order)))
    return iter(batches.to_iter_dataset(options))


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    fill: bool = True,
    rows: Callable[[int], np.ndarray] = all_rows,
) -> Iterator[Batch]:
    """All examples once, in order, in batches of one static shape.

    The last batch is filled up with copies of the last example; ``"mask"`` is 1 for
    examples and 0 for filling, so that a masked sum over batches is a sum over the
    examples.

    Args:
      source: Arrays by name, ``[N, ...]``, any dtype, N at least 1, no name
        ``"mask"``; or whatever `as_examples` takes.
      batch_size: B; may exceed N.
      fill: False leaves the last batch as small as it is, for what a mask cannot
        undo.
      rows: size of a batch -> the rows of it to make, by default all.

    Returns:
      An iterator over name → ``[B, ...]`` and ``"mask"`` → float32 ``[B]``; or as many
      as `rows` has.

    Raises:
      ValueError: When the arrays differ in length, one is called ``"mask"`` or
        ``batch_size`` is not positive; at the call.

    Example:
      >>> for batch in eval_batches({"x": np.arange(5)}, batch_size=3):
      ...     print(batch["x"], batch["mask"])
      [0 1 2] [1. 1. 1.]
      [3 4 4] [1. 1. 0.]
    """
    if isinstance(source, Mapping) and "mask" in source:
        raise ValueError(
            'eval_batches: arrays: expected no name "mask" (it is added), '
            f"got {sorted(source)}"
        )
    examples = _examples_of("eval_batches", source, batch_size)
    return _in_order(examples, batch_size, fill, rows)


def _in_order(
    examples: Examples,
    batch_size: int,
    fill: bool,
    rows: Callable[[int], np.ndarray],
) -> Iterator[Batch]:
    size = len(examples)
    for begin in range(0, size, batch_size):
        index = np.arange(begin, begin + batch_size)
        index = index if fill else index[index < size]
        index = index[rows(len(index))]
        batch = examples.take(np.minimum(index, size - 1))
        if "mask" in batch:
            raise ValueError(
                'eval_batches: expected no name "mask" (it is added), '
                f"got {sorted(batch)}"
            )
        yield batch | {"mask": (index < size).astype(np.float32)}


def _examples_of(function: str, source: Source, batch_size: int) -> Examples:
    try:
        examples = as_examples(source)
    except ValueError as error:
        raise ValueError(f"{function}: {error}") from None
    check_integer(f"{function}: batch_size", batch_size)
    if batch_size < 1:
        raise ValueError(
            f"{function}: batch_size: expected at least 1, got {batch_size}"
        )
    return examples
