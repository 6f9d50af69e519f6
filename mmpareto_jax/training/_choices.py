"""What a config can name: tasks, methods, fusions, sharings."""

from __future__ import annotations

from typing import Literal

# This module is read for `mmpareto --help`, so it imports nothing heavy.

TaskName = Literal[
    "av-digits",
    "crema-d",
    "kinetics-sounds",
    "colored-digits",
    "modelnet40",
    "ucf-101",
    "multi-digits",
    "digit-tasks",
    "scenes",
    "nyuv2",
    "cityscapes",
]
MethodName = Literal[
    "joint",
    "uniform",
    "uniform-gamma",
    "pareto",
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
    "fairgrad",
    "db-mtl",
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
    "famo",
    "imtl-l",
    "rlw",
    "ogm",
    "ogm-ge",
    "agm",
    "pmr",
    "mmcosine",
    "greedy",
    "g-blending",
    "relearning",
    "single-task",
]
FusionName = Literal[
    "concat", "sum", "film", "gated", "cosine", "mmtm", "central", "bottleneck"
]
SharingName = Literal["hard", "cross-stitch", "mtan", "separate"]

# Several tasks of one input, instead of several modalities of one task.
MULTI_TASK = ("multi-digits", "digit-tasks", "scenes", "nyuv2", "cityscapes")
# Methods that are about a joint objective and its modalities, and the one that is not.
MULTIMODAL_METHODS = (
    "joint",
    "ogm",
    "ogm-ge",
    "agm",
    "pmr",
    "mmcosine",
    "greedy",
    "g-blending",
    "relearning",
)


def spelled(method: str) -> str:
    """The one spelling of a method, whether it is written as a flag or as in Python."""
    return method.replace("_", "-")
