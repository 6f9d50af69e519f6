"""Parts of a data set that are held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def held_out(groups: Sequence[str], share: float, seed: int) -> set[str]:
    """A share of the different names, at least one, drawn by a seed.

    Example:
      >>> len(held_out(["a", "a", "b", "c", "d"], 0.5, seed=0))
      2
    """
    names = sorted(set(groups))
    number = max(1, round(share * len(names)))
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[i] for i in order[:number]}


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
