"""The three splits that every data set of the package has."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

Split = Literal["train", "validation", "test"]

SPLITS: tuple[str, ...] = get_args(Split)


def check_split(function: str, split: str) -> None:
    """Refuses what is no split.

    Raises:
      ValueError: with the name of ``function``.
    """
    if split not in SPLITS:
        raise ValueError(f"{function}: split: expected one of {SPLITS}, got {split!r}")


def check_number(argument: str, value: object) -> None:
    """Raises TypeError for what is no number."""
    if not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{argument}: expected a number, got {value!r:.60}")


def check_request(
    function: str,
    split: str,
    num_examples: int | None,
    default: Mapping[str, int],
    seed: int,
) -> int:
    """How many examples a loader has been asked for.

    Args:
      function: the loader, for messages.
      split: of the request.
      num_examples: of the request; None: by default.
      default: split -> number.
      seed: of the request.

    Raises:
      ValueError: ``split`` is none of the three, ``num_examples`` not positive or
        ``seed`` negative.
    """
    check_split(function, split)
    for name, number in (("num_examples", num_examples), ("seed", seed)):
        if not isinstance(number, int | np.integer | None):
            raise TypeError(
                f"{function}: {name}: expected an integer, got {number!r:.60}"
            )
    if num_examples is not None and num_examples < 1:
        raise ValueError(
            f"{function}: num_examples: expected at least 1, got {num_examples}"
        )
    if seed < 0:
        raise ValueError(f"{function}: seed: expected at least 0, got {seed}")
    return default[split] if num_examples is None else num_examples
