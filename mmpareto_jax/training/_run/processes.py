"""What the processes of one run tell each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from mmpareto_jax.training._run.placement import Placement

T = TypeVar("T")

# Bytes of what is told; a sentence, or a path.
_LENGTH = 4096
# Steps between two questions whether a process wants to stop.
_ASKED_EVERY = 5


class CommonError(ValueError):
    """A mistake that all processes of a run know of, with the words of one of them."""


def is_first() -> bool:
    """Whether this process writes the files and talks to the person."""
    return jax.process_index() == 0


def told(text: str) -> list[str]:
    """The texts of all processes, cut off at 4096 bytes, in their order.

    It is reached by all of them, or waits.
    """
    if jax.process_count() == 1:
        return [text]
    mine = np.zeros(_LENGTH, np.uint8)
    encoded = text.encode()[:_LENGTH]
    mine[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    texts = np.asarray(multihost_utils.process_allgather(mine))
    return [bytes(x).rstrip(b"\0").decode(errors="ignore") for x in texts]


def agree(what: Mapping[str, Any]) -> None:
    """Refuses a run whose processes were told different things, before any waits.

    Args:
      what: name -> a value that JSON has, or whose text says what it is.

    Raises:
      CommonError: names the first thing that differs, on all of them.
    """
    texts = [json.loads(x) for x in told(_digests(what))]
    for name in what:
        values = [text.get(name) for text in texts]
        if len(set(values)) > 1:
            other = next(i for i, x in enumerate(values) if x != values[0])
            raise CommonError(
                f"{name}: expected the same on all processes, got another one on "
                f"process {other} than on process 0"
            )


def _digests(what: Mapping[str, Any]) -> str:
    """Short enough for `told`, whatever the values are."""
    found = {
        name: hashlib.sha256(json.dumps(x, default=str).encode()).hexdigest()[:16]
        for name, x in what.items()
    }
    return json.dumps(found)


def together(function: Callable[[], T]) -> T:
    """Calls the function on all processes; where it fails on one, it fails on all.

    Raises:
      CommonError: with the first message, where the function raised a ValueError.
    """
    if jax.process_count() == 1:
        return function()
    failure = ""
    try:
        found = function()
    except ValueError as error:
        failure = str(error) or type(error).__name__
    failures = [text for text in told(failure) if text]
    if failures:
        raise CommonError(failures[0])
    return found


def first_alone(function: Callable[[], object]) -> None:
    """Calls the function on the first process, for which the others wait.

    Raises:
      CommonError: as of `together`.
    """
    together(lambda: function() if is_first() else None)


class Stop:
    """Whether to end a run: what one process wants, all do, after the same step."""

    def __init__(self, placement: Placement, wanted: Callable[[], bool]):
        """What is wanted here, of a run that lives there."""
        self._placement, self._wanted = placement, wanted
        self._any = placement.jit(jnp.max)
        self._asked: jax.Array | None = None
        self._steps = 0

    def __call__(self) -> bool:
        """Asked once a step; the device has answered what was asked a step before."""
        if jax.process_count() == 1:
            return self._wanted()
        answer = self._asked is not None and bool(np.asarray(self._asked))
        self._asked = None
        self._steps += 1
        if self._steps % _ASKED_EVERY == 0:
            here = np.asarray(self._wanted(), np.int32)
            self._asked = self._any(self._placement.of_each_device(here))
        return answer
