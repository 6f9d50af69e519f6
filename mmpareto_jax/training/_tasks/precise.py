"""A task whose matrix products are as precise as its numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

from mmpareto_jax._gramians.exactly import exactly
from mmpareto_jax.training._tasks.base import Task


def precise(task: Task) -> Task:
    """The task with float32 products, forward and backward, where a device has less."""
    names = ("outputs", "trunk", "heads", "detached")
    there: dict[str, Any] = {
        name: exactly(function)
        for name in names
        if (function := getattr(task, name)) is not None
    }
    return dataclasses.replace(task, **there)
