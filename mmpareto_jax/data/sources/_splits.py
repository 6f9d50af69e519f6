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
