"""Whom the options belong to."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from mmpareto_jax.training._choices import (
    MULTI_TASK,
    MULTIMODAL,
    MethodName,
    TaskName,
)
from mmpareto_jax.training._options.of_all import Model, Optimisation, Run
from mmpareto_jax.training._options.of_methods import (
    Gamma,
    Imbalance,
    MMPareto,
    Weights,
)
from mmpareto_jax.training._options.of_tasks import (
    AVDigits,
    DigitTasks,
    MultiDigits,
    Multimodal,
    MultiTask,
)


class Group(NamedTuple):
    """Options with one owner.

    Attributes:
      options: the dataclass that has them.
      owner: what people call it; "": by the names that follow.
      tasks: the tasks whose runs look at them.
      methods: the methods whose runs look at them.
    """

    options: type[Any]
    owner: str = ""
    tasks: tuple[TaskName, ...] = get_args(TaskName)
    methods: tuple[MethodName, ...] = get_args(MethodName)

    @property
    def title(self) -> str:
        """Over the options in a help text."""
        few = min(self.tasks, self.methods, key=len)
        return f"options of {self.owner or ', '.join(few)}"


# In the order of the help text and of files.
GROUPS = (
    Group(Run, "the run"),
    Group(Model, "the model"),
    Group(Optimisation, "the optimisation"),
    Group(Weights, "rules that weight gradients"),
    Group(Gamma, methods=("mmpareto", "uniform-gamma")),
    Group(MMPareto, methods=("mmpareto",)),
    Group(Imbalance, methods=("ogm", "ogm-ge", "agm", "pmr", "greedy", "relearning")),
    Group(Multimodal, "multimodal tasks", tasks=MULTIMODAL),
    Group(MultiTask, "multi-task models", tasks=MULTI_TASK),
    Group(AVDigits, tasks=("av-digits",)),
    Group(MultiDigits, tasks=("multi-digits",)),
    Group(DigitTasks, tasks=("digit-tasks",)),
)
