"""The task that a config names."""

from __future__ import annotations

from collections.abc import Callable

from mmpareto_jax.training._choices import MULTI_TASK, TaskName
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.several_modalities import (
    av_digits,
    prepared_modalities,
)
from mmpareto_jax.training._tasks.several_tasks import (
    digit_tasks,
    multi_digits,
    prepared_tasks,
    scenes,
)

# Those whose data are in the package.
EMBEDDED: dict[TaskName, Callable[[Config], Task]] = {
    "av-digits": av_digits,
    "multi-digits": multi_digits,
    "digit-tasks": digit_tasks,
    "scenes": scenes,
}


def make_task(config: Config) -> Task:
    """The task that a config names.

    Raises:
      ValueError: its data are not there, or do not fit.
    """
    several = config.task in MULTI_TASK
    prepared = prepared_tasks if several else prepared_modalities
    return EMBEDDED.get(config.task, prepared)(config)
