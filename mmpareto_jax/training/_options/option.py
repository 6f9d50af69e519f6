"""What an option is: a field of a dataclass, with its help and its limit."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple


class Limit(NamedTuple):
    """What a value must fulfil, and how that is said."""

    holds: Callable[[Any], bool]
    expected: str


# What float32 holds: the smallest number that is not denormal, and the largest.
_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
POSITIVE = Limit(
    lambda x: _SMALLEST <= x <= _LARGEST, "a finite number > 0 that float32 holds"
)
NOT_NEGATIVE = Limit(
    lambda x: x == 0 or POSITIVE.holds(x), "a finite number >= 0 that float32 holds"
)
SHARE = Limit(lambda x: 0 <= x <= 1, "0 to 1")
# Steps and examples are counted in int32 on the device.
MOST = 2**31 - 1
SOME = Limit(lambda x: 1 <= x <= MOST, "1 to 2**31 - 1")


def option(default: Any, help: str, limit: Limit | None = None) -> Any:  # noqa: A002
    """A field; where the default is None, None is within the limit."""
    return dataclasses.field(default=default, metadata={"help": help, "limit": limit})


def check(name: str, value: Any, holds: bool, expected: str) -> None:
    """Raises the one error that a config has, where it does not hold."""
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {value}")


def check_option(field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    """Raises where a value is not of the option's type, or beyond its limit."""
    _check_type(field.name, value, hint)
    limit: Limit | None = field.metadata["limit"]
    if limit is not None and value is not None:
        check(field.name, value, limit.holds(value), limit.expected)


def _check_type(name: str, value: Any, hint: Any) -> None:
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        check(name, repr(value), value in options, f"one of {', '.join(options)}")
        return
    union = isinstance(hint, types.UnionType)
    kinds = typing.get_args(hint) if union else (hint,)
    if float in kinds:
        kinds = (*kinds, int)
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    check(name, repr(value), right, " or ".join(k.__name__ for k in kinds))
