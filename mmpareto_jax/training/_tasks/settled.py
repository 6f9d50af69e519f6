"""A task and a config as a run needs them: each knows of the other."""

from __future__ import annotations

import dataclasses

from mmpareto_jax.data import as_examples
from mmpareto_jax.training._choices import (
    MULTI_TASK_METHODS,
    MULTIMODAL_METHODS,
    is_own,
)
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._methods.registry import method_of
from mmpareto_jax.training._options.groups import refuse_unused
from mmpareto_jax.training._tasks.base import Task


def settled(task: Task, config: Config) -> tuple[Task, Config]:
    """Fits a task and a config to each other.

    Args:
      task: what is learnt.
      config: how; the name of another task in it is replaced.

    Returns:
      The task, of as many training examples as the config allows; and the config, which
      says how many these are.

    Raises:
      ValueError: an option that no run of the task looks at, or a method that the task
        does not allow.
    """
    config = config_of(task, config)
    config.check_sizes()
    refuse_unused(config.given(), config.task, (config.method,))
    check_method(task, config)
    return task.first(config.num_train), config


def config_of(task: Task, config: Config) -> Config:
    """The config, with the task's name and size."""
    if task.built_in:
        return dataclasses.replace(config, task=task.name)
    by_reference = is_own(config.task) and not config.task.startswith(":")
    name = config.task if by_reference else f":{task.name}"
    return config.settled(name, len(as_examples(task.data["train"])))


def check_method(task: Task, config: Config) -> None:
    """Refuses a method that the task does not allow.

    Raises:
      ValueError: names what the method needs.
    """
    name, method = config.method, method_of(config)
    several = name in MULTIMODAL_METHODS
    if several and task.detached is None:
        raise ValueError(
            f"method: {name} needs a joint objective and its modalities, which "
            f"training.classification has; not {task.name}"
        )
    if name in MULTI_TASK_METHODS and task.sharing is None:
        raise ValueError(
            f"method: {name} needs a built-in multi-task model, not {task.name}"
        )
    for part in ("fusion", "sharing"):
        needed, there = getattr(method, part), getattr(task, part)
        if needed is not None and needed != there:
            raise ValueError(
                f"method: {name} needs {part} {needed}, and {task.name} has {there}"
            )
    if config.precision == "bf16" and is_own(config.task):
        raise ValueError(
            "precision: expected f32 or highest for a task of its own, whose layers "
            "take dtype=jnp.bfloat16 themselves"
        )
