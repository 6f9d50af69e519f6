"""What a config can name: tasks, methods, fusions, sharings.

Every name stands in one Literal, once: type checkers read nothing else, and what needs
the names at run time takes them from there. Tables from a name to what it stands for
are typed by these Literals, and `tests/training/test_choices.py` finds them complete.
"""

from __future__ import annotations

from typing import Literal, get_args

from mmpareto_jax._published import PublishedModalities, PublishedTasks

# This module is read for `mmpareto --help`, so it imports nothing heavy.

# --- Tasks: several modalities of one label, or several tasks of one input. Data are in
# the package, or published and prepared.

EmbeddedModalities = Literal["av-digits"]
EmbeddedTasks = Literal["multi-digits", "digit-tasks", "scenes"]
EmbeddedName = Literal[EmbeddedModalities, EmbeddedTasks]
TaskName = Literal[
    EmbeddedModalities, PublishedModalities, EmbeddedTasks, PublishedTasks
]
TASKS: tuple[str, ...] = get_args(TaskName)

MULTIMODAL: tuple[TaskName, ...] = get_args(
    Literal[EmbeddedModalities, PublishedModalities]
)
MULTI_TASK: tuple[TaskName, ...] = get_args(Literal[EmbeddedTasks, PublishedTasks])


def is_own(task: str) -> bool:
    """Whether it is a user's: ``module:function``, or a name after a colon.

    The latter stands for a ``Task`` that was made in Python, and can be found nowhere.
    """
    return ":" in task


# --- Methods

# About a joint objective and its modalities.
MultimodalMethod = Literal[
    "joint",
    "ogm",
    "ogm-ge",
    "agm",
    "pmr",
    "mmcosine",
    "greedy",
    "g-blending",
    "relearning",
]
# The functions of `weightings`, which cannot be asked: it imports jax.
RuleName = Literal[
    "uniform",
    "mmpareto",
    "mean",
    "random",
    "mgda",
    "pcgrad",
    "gradvac",
    "cagrad",
    "imtl-g",
    "nash-mtl",
    "aligned-mtl",
    "upgrad",
    "dualproj",
    "config",
    "normalized-sum",
    "mean-norm",
    "dcgd",
    "pcd",
    "fairgrad",
    "db-mtl",
    "moco",
    "excess-mtl",
    "modo",
    "sdmgrad",
    "gradnorm",
    "metabalance",
    "graddrop",
    "trimmed-mean",
    "krum",
    "uncertainty",
    "dwa",
    "geometric-mean",
    "stch",
    "cosmos",
    "pbi",
    "soft-adapt",
    "relobralo",
    "famo",
    "imtl-l",
    "rlw",
]
# Rules under a name of the MMPareto paper.
PaperRule = Literal["uniform-gamma", "pareto"]
# About several tasks.
MultiTaskMethod = Literal["single-task"]
MethodName = Literal[MultimodalMethod, RuleName, PaperRule, MultiTaskMethod]

MULTIMODAL_METHODS: tuple[MethodName, ...] = get_args(MultimodalMethod)
MULTI_TASK_METHODS: tuple[MethodName, ...] = get_args(MultiTaskMethod)

# --- Parts of a model

HeadName = Literal["concat", "sum", "film", "gated", "cosine"]
InteractionName = Literal["mmtm", "central", "bottleneck"]
FusionName = Literal[HeadName, InteractionName]
SharingName = Literal["hard", "cross-stitch", "mtan", "separate"]


def spelled(method: str) -> str:
    """The one spelling of a method, whether it is written as a flag or as in Python."""
    return method.replace("_", "-")
