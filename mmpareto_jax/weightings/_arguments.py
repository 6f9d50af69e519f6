"""The arguments of rules: what they must be, and the sentences for what they are not.

A number may be traced, as under ``optax.inject_hyperparams``: then nothing is known of
it, and nothing is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax


def check(name: str, argument: str, value: Any, valid: bool, expected: str) -> None:
    """Raises ValueError unless `valid`; call it for values that are known only."""
    if not valid:
        raise ValueError(f"{name}: {argument} must be {expected}, got {value}.")


def is_known(value: Any) -> bool:
    """Whether a hyperparameter is a number now; a traced one cannot be checked."""
    return not isinstance(value, jax.core.Tracer)


def check_number(
    name: str, argument: str, value: Any, valid: Callable[[Any], Any], expected: str
) -> None:
    """Refuses a known value that is no number, or not one of those expected.

    Raises:
      TypeError: it is no real number.
      ValueError: `valid` of it is False.
    """
    if not is_known(value):
        return
    numbers = int | float | np.number | np.ndarray | jax.Array
    if not isinstance(value, numbers) or np.shape(value) or np.iscomplexobj(value):
        raise TypeError(f"{name}: {argument} must be a number, got {value!r:.60}.")
    check(name, argument, value, bool(valid(value)), expected)


def check_at_least(name: str, argument: str, value: Any, bound: float) -> None:
    """As `check_number`; it must be finite, and not below `bound`."""
    expected = f"finite and >= {bound}"
    check_number(
        name, argument, value, lambda x: np.isfinite(x) and x >= bound, expected
    )


def check_positive(name: str, argument: str, value: Any) -> None:
    """As `check_number`; it must be finite, and above 0."""
    expected = "positive and finite"
    check_number(name, argument, value, lambda x: np.isfinite(x) and x > 0, expected)


def check_decay(name: str, argument: str, value: Any) -> None:
    """As `check_number`; it must be in [0, 1)."""
    check_number(name, argument, value, lambda x: 0 <= x < 1, "in [0, 1)")


def check_share(name: str, argument: str, value: Any) -> None:
    """As `check_number`; it must be in [0, 1]."""
    check_number(name, argument, value, lambda x: 0 <= x <= 1, "in [0, 1]")


def check_integer(
    name: str, argument: str, value: Any, least: int | None = None
) -> None:
    """Refuses a known value that is no integer, or below `least`.

    Raises:
      TypeError, ValueError: as the sentence says.
    """
    if not is_known(value):
        return
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}: {argument} must be an integer, got {value!r:.60}."
        ) from None
    if least is not None:
        check(name, argument, value, number >= least, f">= {least}")


def check_vector(name: str, argument: str, value: Any) -> None:
    """Refuses what is no vector of real numbers; None stands for the default.

    Raises:
      TypeError: it has something else in it.
      ValueError: it is no vector, or has nothing in it.
    """
    if value is None or not all(is_known(x) for x in jax.tree.leaves(value)):
        return
    try:
        numbers = np.asarray(value)
        real = numbers.dtype != object and np.isreal(numbers.astype(complex)).all()
    except (TypeError, ValueError):
        real = False
    if not real:
        raise TypeError(
            f"{name}: {argument} must be a vector of numbers, got {value!r:.60}."
        )
    if numbers.ndim != 1 or not numbers.size:
        shape = numbers.shape
        raise ValueError(f"{name}: {argument} must be [K], got shape {shape}.")


def check_optimizer(name: str, optimizer: Any) -> None:
    """Refuses what is no optimiser; None stands for the default.

    Raises:
      TypeError: says what it is.
    """
    if optimizer is not None and not isinstance(
        optimizer, optax.GradientTransformation
    ):
        raise TypeError(
            f"{name}: optimizer must be an optax.GradientTransformation, as "
            f"optax.adam(0.1) returns one, got {type(optimizer).__name__}."
        )
