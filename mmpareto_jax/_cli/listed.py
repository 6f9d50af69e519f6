"""Types of flags with values between commas."""

from __future__ import annotations

import argparse
import typing
from typing import Any

from mmpareto_jax._cli.nearest import unknown
from mmpareto_jax.training._choices import MethodName, spelled


def listed(kind: Any) -> Any:
    """The type of a flag with values between commas."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(x) for x in text.split(","))

    parse.__name__ = f"list of {kind.__name__}"
    return parse


def methods_named(text: str) -> tuple[str, ...]:
    """The type of a flag with methods between commas."""
    known = typing.get_args(MethodName)
    names = tuple(spelled(name) for name in text.split(","))
    for name in names:
        if name not in known:
            message = unknown("method", name, known, "mmpareto methods")
            raise argparse.ArgumentTypeError(message)
    return names
