"""Where examples come from: arrays, a grain source, or a function."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import grain
import numpy as np

Batch: TypeAlias = dict[str, np.ndarray]
Record: TypeAlias = Mapping[str, Any]
Generators: TypeAlias = list[np.random.Generator]
Transform: TypeAlias = Callable[[Batch, Generators], Batch]


@runtime_checkable
class Examples(Protocol):
    """What batches are made of: a number of examples, each an array by name."""

    def __len__(self) -> int:
        """The number of examples."""
        ...

    def take(self, rows: np.ndarray, *, seed: int = 0, epoch: int = 0) -> Batch:
        """The examples of these rows, stacked.

        Args:
          rows: integers [B] from 0 to the number of examples − 1.
          seed: of the run; for sources that draw.
          epoch: of the batch, from 0; for sources that draw.

        Returns:
          Name -> array [B, ...].
        """
        ...


Source: TypeAlias = "Mapping[str, np.ndarray] | Sequence[Record] | Examples"


@dataclasses.dataclass(frozen=True)
class ArrayExamples:
    """Examples in arrays of one leading size, in memory or mapped into it."""

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        given: Any = self.arrays
        if not isinstance(given, Mapping):
            raise TypeError(
                f"data: expected a mapping of arrays, got {type(self.arrays).__name__}"
            )
        for name, array in self.arrays.items():
            if not hasattr(array, "dtype") or np.ndim(array) < 1:
                raise TypeError(
                    f"data: {name}: expected an array [N, ...], got "
                    f"{type(array).__name__}"
                )
        sizes = {name: len(array) for name, array in self.arrays.items()}
        if len(set(sizes.values())) != 1 or 0 in sizes.values():
            raise ValueError(
                f"arrays: expected one leading size, at least 1, got {sizes}"
            )

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def take(self, rows: np.ndarray, *, seed: int = 0, epoch: int = 0) -> Batch:
        del seed, epoch
        return {name: array[rows] for name, array in self.arrays.items()}


@dataclasses.dataclass(frozen=True)
class RecordExamples:
    """Examples of a random access source, one record each.

    A ``grain.MapDataset`` is asked for row r of epoch e by its index e·N + r, so that
    what it draws at random differs between epochs. It should not shuffle: the trainer
    does, and a row would be another example in every epoch.
    """

    source: Sequence[Record]

    def __len__(self) -> int:
        return len(self.source)

    def take(self, rows: np.ndarray, *, seed: int = 0, epoch: int = 0) -> Batch:
        del seed
        first = epoch * len(self) if isinstance(self.source, grain.MapDataset) else 0
        return stacked([self.source[first + int(row)] for row in rows])


@dataclasses.dataclass(frozen=True)
class FunctionExamples:
    """Examples that are computed: a pure function of (seed, epoch, index).

    Args:
      function: (seed, epoch, index) -> name -> array or number, the same names, shapes
        and dtypes for all.
      size: N, the number of examples of an epoch.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.data import FunctionExamples
      >>> def draw(seed, epoch, index):
      ...     return {"t": np.random.default_rng([seed, epoch, index]).random()}
      >>> examples = FunctionExamples(draw, size=100)
      >>> len(examples), examples.take(np.arange(3))["t"].shape
      (100, (3,))
    """

    function: Callable[[int, int, int], Record]
    size: int

    def __post_init__(self) -> None:
        given: Any = self.function
        if not callable(given):
            kind = type(given).__name__
            raise TypeError(f"FunctionExamples: expected a function, got {kind}")
        check_integer("FunctionExamples: size", self.size)
        if self.size < 1:
            raise ValueError(
                f"FunctionExamples: size: expected at least 1, got {self.size}"
            )

    def __len__(self) -> int:
        return self.size

    def take(self, rows: np.ndarray, *, seed: int = 0, epoch: int = 0) -> Batch:
        return stacked([self.function(seed, epoch, int(row)) for row in rows])


@dataclasses.dataclass(frozen=True)
class _First:
    """The first examples of others."""

    whole: Examples
    size: int

    def __len__(self) -> int:
        return self.size

    def take(self, rows: np.ndarray, *, seed: int = 0, epoch: int = 0) -> Batch:
        return self.whole.take(rows, seed=seed, epoch=epoch)


def as_examples(source: Source) -> Examples:
    """Examples of whatever a person has.

    Args:
      source: name -> array [N, ...], in memory or mapped; a random access source of
        records, as ``grain.MapDataset`` (neither shuffled nor filtered), a grain data
        source or a list; or what is already `Examples`.

    Returns:
      The examples; nothing is read yet.

    Raises:
      TypeError: something else, or what is no array under a name.
      ValueError: arrays of different leading sizes, or no examples.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.data import as_examples
      >>> examples = as_examples([{"x": 0.0}, {"x": 1.0}, {"x": 2.0}])
      >>> examples.take(np.array([2, 0]))
      {'x': array([2., 0.])}
    """
    if isinstance(source, Mapping):
        return ArrayExamples(source)
    if not isinstance(source, Examples):
        has = hasattr(source, "__len__") and hasattr(source, "__getitem__")
        given: Any = source
        if isinstance(given, str) or not has:
            raise TypeError(
                "data: expected a mapping of arrays, a source with a length and an "
                f"index, or Examples, got {type(source).__name__}"
            )
        source = RecordExamples(source)
    if len(source) < 1:
        raise ValueError("data: expected at least one example, got none")
    return source


def first_examples(source: Source, size: int) -> Source:
    """The first examples of a source.

    Args:
      source: whatever `as_examples` takes.
      size: how many, at least 1.

    Returns:
      The source itself where there are no more; else so many.

    Example:
      >>> first_examples({"x": np.arange(5)}, 2)
      {'x': array([0, 1])}
    """
    whole = as_examples(source)
    check_integer("first_examples: size", size)
    if size < 1:
        raise ValueError(f"first_examples: size: expected at least 1, got {size}")
    if size >= len(whole):
        return source
    if isinstance(source, Mapping):
        return {name: array[:size] for name, array in source.items()}
    return _First(whole, size)


def column(source: Source, name: str, batch_size: int = 1024) -> np.ndarray:
    """One array of all examples, in order.

    Args:
      source: whatever `as_examples` takes.
      name: of the array.
      batch_size: how many examples are taken at a time.

    Returns:
      The array, [N, ...].

    Example:
      >>> column([{"x": 1}, {"x": 3}], "x")
      array([1, 3])
    """
    if isinstance(source, Mapping):
        if name not in source:
            raise ValueError(f"column: expected one of {list(source)}, got {name!r}")
        return np.asarray(source[name])
    examples = as_examples(source)
    check_integer("column: batch_size", batch_size)
    if name not in (known := examples.take(np.arange(1))):
        raise ValueError(f"column: expected one of {list(known)}, got {name!r}")
    rows = np.arange(len(examples))
    parts = [
        examples.take(rows[i : i + batch_size])[name]
        for i in range(0, len(rows), batch_size)
    ]
    return np.concatenate(parts)


def check_integer(argument: str, value: Any) -> None:
    """Raises TypeError for what is no integer."""
    if not isinstance(value, int | np.integer):
        raise TypeError(f"{argument}: expected an integer, got {value!r:.60}")


def stacked(records: Sequence[Any]) -> Batch:
    """A batch of records; an array [B, ...] for each name."""
    first = records[0]
    for record in records:
        if not isinstance(record, Mapping):
            why = "; a source must not be filtered" if record is None else ""
            raise TypeError(
                "data: expected records that map names to arrays, got "
                f"{type(record).__name__}{why}"
            )
        if record.keys() != first.keys():
            raise ValueError(
                f"data: expected the names {sorted(first)} in every record, got "
                f"{sorted(record)}"
            )
    batch = {}
    for name in first:
        arrays = [np.asarray(record[name]) for record in records]
        if len({x.shape for x in arrays}) > 1:
            shapes = sorted({x.shape for x in arrays})
            raise ValueError(
                f"data: {name}: expected one shape in all examples, got "
                f"{', '.join(map(str, shapes))}"
            )
        batch[name] = np.stack(arrays)
    return batch


def as_transform(steps: Transform | Sequence[Any] | None) -> Transform | None:
    """A transform of batches from grain transforms of examples.

    Args:
      steps: ``grain.transforms.Map`` and ``RandomMap``, one or several, of one example
        at a time, with a generator of its own; a transform of batches, or None, is
        returned as it is.

    Returns:
      (batch, generators) -> batch, for `train_batches`; None: nothing is to be done.

    Raises:
      TypeError: a transformation that makes more or fewer examples of them.
    """
    known = (grain.transforms.Map, grain.transforms.RandomMap)
    if isinstance(steps, known):
        steps = [steps]
    if steps is None or callable(steps):
        return steps
    if not isinstance(steps, Sequence):
        raise TypeError(
            "as_transform: expected a function, or grain transforms, got "
            f"{type(steps).__name__}"
        )
    for step in steps:
        if not isinstance(step, known):
            raise TypeError(
                "as_transform: expected grain.transforms.Map or RandomMap, "
                f"got {type(step).__name__}"
            )

    def of_batches(batch: Batch, rngs: Generators) -> Batch:
        records = []
        for row, rng in enumerate(rngs):
            record: Any = {name: array[row] for name, array in batch.items()}
            for step in steps:
                if isinstance(step, grain.transforms.RandomMap):
                    record = step.random_map(record, rng)
                else:
                    record = step.map(record)
            records.append(record)
        return stacked(records)

    return of_batches
