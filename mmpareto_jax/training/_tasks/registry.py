"""The task that a config names."""

from __future__ import annotations

from mmpareto_jax.training._choices import MULTI_TASK
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.several_modalities import multimodal_task
from mmpareto_jax.training._tasks.several_tasks import multi_task


def make_task(config: Config) -> Task:
    """The task that a config names.

    Raises:
      ValueError: its data are not there, or do not fit.
    """
    make = multi_task if config.task in MULTI_TASK else multimodal_task
    return make(config)
