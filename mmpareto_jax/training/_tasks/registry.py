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

    Args:
      config: of a run: its task, data and model; and its method, which may ask for a
        fusion or a sharing of its own.

    Returns:
      A frozen dataclass: a function that makes the model, the arrays of the splits
      ("train", "validation", "test"), and of every objective the loss and the measures,
      all of them in ``measures``, the main one first. No model is made yet.

    Raises:
      ValueError: its data are not there, or do not fit.

    Example:
      >>> from mmpareto_jax.training import Config, make_task
      >>> [m.name for m in make_task(Config(train_examples=32)).measures]
      ['accuracy/joint', 'accuracy/audio', 'accuracy/visual']
    """
    several = config.task in MULTI_TASK
    prepared = prepared_tasks if several else prepared_modalities
    return EMBEDDED.get(config.task, prepared)(config)
