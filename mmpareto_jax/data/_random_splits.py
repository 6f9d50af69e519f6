"""Three splits of one: by shares of every class, and no group in two of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from ._examples import ArrayExamples, check_integer
from ._split import SPLITS


def random_splits(
    arrays: Mapping[str, np.ndarray],
    *,
    shares: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    label: str | None = "label",
    group: str | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Divides examples at random into training, validation and test.

    Args:
      arrays: Name → ``[N, ...]``.
      shares: Of training, validation and test, each above 0; they add up to 1.
      seed: Of the order.
      label: The array of integers whose values have about the same shares in each
        split; None: no such array.
      group: An array ``[N]`` of which no value is in two splits (a person, say); it is
        left out of what is returned. None: examples are divided one by one.

    Returns:
      ``"train"``, ``"validation"`` and ``"test"`` → name → rows of the arrays, copied,
      in their old order.

    Raises:
      ValueError: When arrays differ in length, shares do not add up, ``label`` or
        ``group`` is no array, or nothing is left for a split.

    Example:
      >>> x = np.arange(100)
      >>> splits = random_splits({"x": x, "label": x % 4, "who": x // 10}, group="who")
      >>> {split: len(arrays["x"]) for split, arrays in splits.items()}
      {'train': 80, 'validation': 10, 'test': 10}
      >>> sorted(splits["test"])
      ['label', 'x']
    """
    number = len(ArrayExamples(arrays))
    numbers = isinstance(shares, Sequence) and not isinstance(shares, str)
    if not (numbers and all(isinstance(x, int | float) for x in shares)):
        raise TypeError(f"shares: expected three numbers, got {shares!r:.60}")
    check_integer("random_splits: seed", seed)
    if seed < 0:
        raise ValueError(f"random_splits: seed: expected at least 0, got {seed}")
    fit = len(shares) == 3 and min(shares) > 0 and abs(sum(shares) - 1) < 1e-6
    if not fit:
        raise ValueError(
            f"shares: expected three above 0 that add up to 1, got {tuple(shares)}"
        )
    for name in filter(None, (label, group)):
        if name not in arrays:
            raise ValueError(
                f"random_splits: expected an array {name!r}, got {sorted(arrays)}"
            )
    labels = np.zeros(number, int) if label is None else np.asarray(arrays[label])
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"random_splits: {label}: expected integers from 0")
    groups = np.arange(number) if group is None else np.asarray(arrays[group])
    part = stratified(labels, groups, shares, seed)
    found = {}
    for k, split in enumerate(SPLITS):
        rows = np.flatnonzero(part == k)
        if not len(rows):
            raise ValueError(
                f"random_splits: nothing is left for {split}: {number} examples in "
                f"{len(np.unique(groups))} groups"
            )
        found[split] = {
            name: np.asarray(x[rows]) for name, x in arrays.items() if name != group
        }
    return found


def stratified(
    labels: np.ndarray, groups: np.ndarray, shares: Sequence[float], seed: int
) -> np.ndarray:
    """Parts of given shares, with all classes in each, and no group in two of them.

    Groups go, in random order but class by class, each to the part that lacks most of
    its share so far; the first one that has a class goes to the first part.

    Args:
      labels: the class of each example, integers [N].
      groups: what stays together, [N]; different for all where nothing has to.
      shares: of the parts; they add up to one, and the first is not zero.
      seed: of the order.

    Returns:
      The part of each example, [N]. A part may be empty where groups are few.

    Example:
      >>> parts = stratified(np.arange(100) % 2, np.arange(100), (0.8, 0.1, 0.1), 0)
      >>> np.bincount(parts).tolist(), np.bincount(parts[::2]).tolist()
      ([80, 10, 10], [40, 5, 5])
    """
    _, first, group, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(labels[first[order]], kind="stable")]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    earliest = np.full(int(labels.max()) + 1, len(order))
    np.minimum.at(earliest, labels, rank[group])
    to_first = set(earliest.tolist())
    goals = _goals(len(labels), np.asarray(shares)) / len(labels)
    part_of = np.zeros(len(order), np.int64)
    there, seen = np.zeros(len(goals)), 0
    for position, number in enumerate(order):
        seen += sizes[number]
        if position not in to_first:
            part_of[number] = np.argmax(goals * seen - there)
        there[part_of[number]] += sizes[number]
    return part_of[group]


def _goals(number: int, shares: np.ndarray) -> np.ndarray:
    """Whole numbers that add up; at least one where there is a share."""
    goals = np.maximum(np.round(shares * number), shares > 0)
    goals[0] = number - goals[1:].sum()
    return goals
