"""The options that every run has."""

from __future__ import annotations

import dataclasses
from typing import Literal

from mmpareto_jax.training._choices import TASKS, MethodName, is_own
from mmpareto_jax.training._options.option import (
    MOST,
    NOT_NEGATIVE,
    POSITIVE,
    SOME,
    Limit,
    option,
)

# Training examples of the data that are in the package.
EMBEDDED: dict[str, int] = {
    "av-digits": 1000,
    "multi-digits": 2000,
    "digit-tasks": 2000,
    "scenes": 500,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """What is learnt, from what, for how long."""

    task: str = option(
        "av-digits",
        "what to learn",
        Limit(
            lambda x: x in TASKS or is_own(x),
            f"one of {', '.join(TASKS)}, or module:function",
        ),
    )
    _: dataclasses.KW_ONLY
    data: str | None = option(
        None,
        "directory that mmpareto prepare wrote; multi-digits: none, or MNIST's files",
    )
    train_examples: int | None = option(
        None,
        "size of the training split; default: "
        f"{', '.join(f'{n} {task}' for task, n in EMBEDDED.items())}, "
        "else all there are",
        SOME,
    )
    seed: int = option(
        0,
        "of the parameters and the order of the examples",
        Limit(lambda x: 0 <= x <= MOST, "0 to 2**31 - 1"),
    )
    epochs: int = option(15, "length of the run", SOME)
    steps: int | None = option(
        None, "length of the run in steps, instead of epochs", SOME
    )
    batch_size: int = option(32, "examples per step", SOME)
    log_every: int | None = option(
        None,
        "steps that a record of metrics.jsonl and TensorBoard is the mean of; "
        "default: as many as give about 500 records",
        SOME,
    )
    probe_every: int = option(
        0,
        "steps between two looks at all objectives' gradients and at the update; "
        "0: none; training does not change",
        Limit(lambda x: 0 <= x <= MOST, "0 to 2**31 - 1"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What every model is made of."""

    encoder: Literal["default", "cnn", "transformer", "resnet18", "lenet", "segnet"] = (
        option(
            "default",
            "of each modality: a small CNN for digits, else ResNet-18 (of arrays: "
            "what fits their shape); "
            "the trunk of the tasks: a LeNet for digits, else a SegNet",
        )
    )
    width: int = option(
        64,
        "of the features; the CNN's layers have 1/4, 1/2 and 1/1",
        Limit(lambda x: 0 < x <= 8192 and x % 4 == 0, "a multiple of 4, up to 8192"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimisation:
    """From gradients to parameters."""

    method: MethodName = option(
        "mmpareto", "how the objectives' gradients are combined"
    )
    lr: float = option(0.05, "learning rate", POSITIVE)
    schedule: Literal["cosine", "constant"] = option(
        "cosine", "of the learning rate; the official code keeps it constant"
    )
    momentum: float = option(
        0.9, "of SGD", Limit(lambda x: 0 <= x < 1, "0 <= momentum < 1")
    )
    weight_decay: float = option(
        1e-4, "added after the combination, as in the paper", NOT_NEGATIVE
    )
    on_nonfinite: Literal["skip", "stop", "continue"] = option(
        "skip",
        "a step whose losses or update are not finite: skip changes nothing; stop ends "
        "the run before it; continue takes it as it is",
    )
    nonfinite_limit: int = option(
        10, "so many of them in a row end a run that skips them", SOME
    )
    pullback: Literal["unroll", "vmap"] = option("unroll", "of the gradient engine")
    precision: Literal["f32", "bf16", "highest"] = option(
        "f32",
        "of the computation; highest: of matrix products too, where a device has less; "
        "bf16: of the built-in models, whose parameters stay float32",
    )
