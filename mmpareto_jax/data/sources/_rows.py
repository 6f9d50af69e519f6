"""Arrays that need not fit in memory: some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

# Of the rows that are in memory at a time.
_BYTES = 2**22


def blocks(
    array: np.ndarray, rows: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Some rows at a time.

    Args:
      array: [N, ...], mapped into memory or not.
      rows: which of them, in this order; None: all.

    Yields:
      The number of rows that came before, and some rows.
    """
    size = len(array) if rows is None else len(rows)
    step = max(1, _BYTES // max(1, array[:1].nbytes))
    for start in range(0, size, step):
        stop = min(start + step, size)
        yield start, array[start:stop] if rows is None else array[rows[start:stop]]


def not_finite(array: np.ndarray, dtype: DTypeLike | None = None) -> tuple[int, int]:
    """How many values are NaN or infinite, and the first row that has one.

    Args:
      array: [N, ...] of floats.
      dtype: whether they are once they have this type; None: as they are.

    Returns:
      Their number, and the row; -1 where there is none.

    Example:
      >>> not_finite(np.array([[0.0, 1.0], [np.inf, np.nan]]))
      (2, 1)
    """
    number, first = 0, -1
    for start, block in blocks(array):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(np.asarray(block, dtype))
        if bad.any():
            rows = bad.reshape(len(bad), -1).any(axis=1)
            first = start + int(rows.argmax()) if first < 0 else first
            number += int(bad.sum())
    return number, first
