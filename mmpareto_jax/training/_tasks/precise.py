"""A task whose matrix products are as precise as its numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from mmpareto_jax.training._tasks.base import Task


def precise(task: Task) -> Task:
    """The task with float32 products, forward and backward, where a device has less."""

    def highest(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def inside(*args: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                return function(*args)

        return inside

    names = ("outputs", "trunk", "heads", "detached")
    there = {name: f for name in names if (f := getattr(task, name)) is not None}
    return dataclasses.replace(task, **{k: highest(f) for k, f in there.items()})
