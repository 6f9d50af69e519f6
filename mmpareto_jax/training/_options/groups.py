"""Whom the options belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any, Literal, NamedTuple, get_args

from mmpareto_jax.training._choices import (
    MULTI_TASK,
    MULTIMODAL,
    TASKS,
    MethodName,
    PaperRule,
    RuleName,
    is_own,
)
from mmpareto_jax.training._options.of_all import Model, Optimisation, Run
from mmpareto_jax.training._options.of_methods import (
    Gamma,
    Imbalance,
    MMPareto,
    Priority,
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
      tasks: the built-in tasks whose runs look at them.
      methods: the methods whose runs look at them.
      own: whether a task of the user's does, too.
    """

    options: type[Any]
    owner: str = ""
    tasks: tuple[str, ...] = TASKS
    methods: tuple[str, ...] = get_args(MethodName)
    own: bool = False

    @property
    def whose(self) -> str:
        """Who has them."""
        few = self.tasks if len(self.tasks) < len(self.methods) else self.methods
        return self.owner or ", ".join(few)

    @property
    def title(self) -> str:
        """Over the options in a help text."""
        return f"options of {self.whose}"


# In the order of the help text and of files.
GROUPS = (
    Group(Run, "the run", own=True),
    Group(Model, "the built-in models"),
    Group(Optimisation, "the optimisation", own=True),
    Group(
        Weights,
        "rules that weight gradients",
        methods=get_args(Literal[RuleName, PaperRule]),
        own=True,
    ),
    Group(Gamma, methods=("mmpareto", "uniform-gamma"), own=True),
    Group(MMPareto, methods=("mmpareto",), own=True),
    Group(Priority, methods=("pcd", "metabalance"), own=True),
    Group(
        Imbalance,
        methods=("ogm", "ogm-ge", "agm", "pmr", "greedy", "relearning"),
        own=True,
    ),
    Group(Multimodal, "multimodal tasks", tasks=MULTIMODAL),
    Group(MultiTask, "multi-task models", tasks=MULTI_TASK),
    Group(AVDigits, tasks=("av-digits",)),
    Group(MultiDigits, tasks=("multi-digits",)),
    Group(DigitTasks, tasks=("digit-tasks",)),
)


def group_of(option: str) -> Group:
    """The group that an option belongs to."""
    return next(
        group
        for group in GROUPS
        if option in {field.name for field in dataclasses.fields(group.options)}
    )


def is_used(option: str, task: str, methods: Collection[str]) -> bool:
    """Whether a run of this task with one of these methods looks at an option."""
    group = group_of(option)
    of_task = group.own if is_own(task) else task in group.tasks
    return of_task and bool(set(methods) & set(group.methods))


def refuse_unused(
    options: Collection[str], task: str, methods: Collection[str]
) -> None:
    """Refuses an option that a run of this task with none of these methods looks at.

    Args:
      options: the names of those that were given.
      task: as a config names it.
      methods: each run has one of these.

    Raises:
      ValueError: names the first such option, and whose it is.
    """
    for option in options:
        if is_used(option, task, methods):
            continue
        what = ", ".join(methods)
        if not is_used(option, task, get_args(MethodName)):
            what = "a task of its own" if is_own(task) else task
        raise ValueError(
            f"{option}: not an option of {what}, but of {group_of(option).whose}"
        )
