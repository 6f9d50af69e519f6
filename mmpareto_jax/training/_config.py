"""The configuration of a run: one frozen dataclass for Python, flags and files."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mmpareto_jax.training._choices import (
    MULTI_TASK,
    MULTIMODAL_METHODS,
    FusionName,
    MethodName,
    SharingName,
    TaskName,
    spelled,
)

# This module is read for `mmpareto --help`, so it imports nothing heavy.

# Training examples of the data that are in the package.
_EMBEDDED = {
    "av-digits": 1000,
    "multi-digits": 2000,
    "digit-tasks": 2000,
    "scenes": 500,
}
# Pairs of MNIST's digits, as many as there are digits to train on.
_MNIST_PAIRS = 54_000


def _option(default: Any, help: str) -> Any:  # noqa: A002
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Config:
    """What a run does; with the package's version it determines every number.

    Raises:
      ValueError: a value that no run can have, named with what was expected.

    Example:
      >>> config = Config(method="uniform", epochs=2)
      >>> config.batch_size
      32
      >>> Config(lr=-1.0)
      Traceback (most recent call last):
      ValueError: lr: expected a finite number > 0, got -1.0
    """

    task: TaskName = _option("av-digits", "what to learn")
    data: str | None = _option(
        None,
        "directory that mmpareto prepare wrote; multi-digits: none, or MNIST's files",
    )
    method: MethodName = _option(
        "mmpareto", "how the objectives' gradients are combined"
    )
    gamma: float = _option(1.5, "MMPareto's factor on the encoders' gradients")
    variant: Literal["paper", "official"] = _option(
        "paper", "see mmpareto_jax.mmpareto"
    )
    conflict_test: bool = _option(
        True, "MMPareto: off takes the min-norm weights at every step"
    )
    magnitude: bool = _option(
        True, "MMPareto: off leaves the direction at its own norm"
    )
    max_magnitude: float | None = _option(
        None, "MMPareto: upper limit of the magnitude factor"
    )
    alpha: float | None = _option(
        None, "strength of OGM, AGM or PMR, λ of Re-learning, ε of Greedy; or their own"
    )
    encoder: Literal["default", "cnn", "transformer", "resnet18", "lenet", "segnet"] = (
        _option(
            "default",
            "of each modality: a small CNN for digits, else ResNet-18; "
            "the trunk of the tasks: a LeNet for digits, else a SegNet",
        )
    )
    fusion: FusionName = _option(
        "concat", "how the encoders meet; bottleneck needs --encoder transformer"
    )
    sharing: SharingName = _option("hard", "multi-task: what the tasks have in common")
    gradients: Literal["parameters", "features"] = _option(
        "parameters", "multi-task: with respect to what they are combined"
    )
    width: int = _option(64, "of the features; the CNN's layers have 1/4, 1/2 and 1/1")
    seed: int = _option(0, "of the parameters and the order of the examples")
    epochs: int = _option(15, "length of the run")
    steps: int | None = _option(None, "length of the run in steps, instead of epochs")
    batch_size: int = _option(32, "examples per step")
    lr: float = _option(0.05, "learning rate")
    schedule: Literal["cosine", "constant"] = _option(
        "cosine", "of the learning rate; the official code keeps it constant"
    )
    momentum: float = _option(0.9, "of SGD")
    weight_decay: float = _option(1e-4, "added after the combination, as in the paper")
    dtype: Literal["float32", "bfloat16"] = _option("float32", "of the computation")
    pullback: Literal["unroll", "vmap"] = _option("unroll", "of the gradient engine")
    train_examples: int | None = _option(
        None,
        "size of the training split; default: 1000 av-digits, 2000 multi-digits and "
        "digit-tasks, 500 scenes, else all there are",
    )
    audio_snr_db: float = _option(3.0, "noise on the spoken digit, dB")
    visual_noise: float = _option(0.3, "noise on the written digit, standard deviation")
    visual_occlusion: int = _option(3, "side of the hidden square, pixels of 8")
    modalities: int = _option(2, "of av-digits; 3: a second image of the digit")
    visual_label_noise: float = _option(
        0.0, "share of training examples with an image of a random digit"
    )
    contradiction: float = _option(
        0.0, "share of examples that show one digit and say another; either is right"
    )

    num_tasks: int = _option(8, "of digit-tasks, the first ones of eight")
    right_noise: float = _option(
        0.3, "multi-digits: share of salt-and-pepper pixels on the right digit"
    )

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            # All that is written and compared has one spelling.
            object.__setattr__(self, "method", spelled(self.method))
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), hints[field.name])
        for name in ("epochs", "batch_size"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        given = self.train_examples
        _check("train_examples", given, given is None or given >= 1, "at least 1")
        needed = self.task not in _EMBEDDED
        there = (self.data is not None) == needed or self.task == "multi-digits"
        expected = "the directory of prepared data" if needed else "nothing"
        _check("data", self.data, there, f"{expected} for {self.task}")
        several = self.task in MULTI_TASK
        other = ("single-task",) if not several else MULTIMODAL_METHODS
        kind = "multi-task" if several else "multimodal"
        fits = self.method not in other
        _check("method", self.method, fits, f"one for {kind} tasks")
        _check("num_tasks", self.num_tasks, 2 <= self.num_tasks <= 8, "2 to 8")
        _check("steps", self.steps, self.steps is None or self.steps >= 1, "at least 1")
        _check("seed", self.seed, 0 <= self.seed < 2**31, "0 to 2**31 - 1")
        fits = self.batch_size <= self.num_train
        _check("batch_size", self.batch_size, fits, "at most train_examples")
        _check("lr", self.lr, 0 < self.lr < math.inf, "a finite number > 0")
        _check("momentum", self.momentum, 0 <= self.momentum < 1, "0 <= momentum < 1")
        limit = self.max_magnitude
        finite = limit is None or 1 <= limit < math.inf
        _check("max_magnitude", limit, finite, "a finite number >= 1")
        alpha = self.alpha
        _check("alpha", alpha, alpha is None or 0 <= alpha < math.inf, "at least 0")
        right = self.width > 0 and self.width % 4 == 0
        _check("width", self.width, right, "a multiple of 4")
        meets = self.fusion != "bottleneck" or self.encoder == "transformer"
        _check("fusion", self.fusion, meets, "another one, or --encoder transformer")
        _check("modalities", self.modalities, self.modalities in (2, 3), "2 or 3")
        for name in ("visual_label_noise", "contradiction", "right_noise"):
            share = getattr(self, name)
            _check(name, share, 0 <= share <= 1, "0 to 1")
        for name in ("gamma", "weight_decay", "visual_noise"):
            value = getattr(self, name)
            _check(name, value, 0 <= value < math.inf, "a finite number >= 0")

    @property
    def num_train(self) -> int:
        """The number of training examples."""
        if self.data is None:
            return self.train_examples or _EMBEDDED[self.task]
        if self.task == "multi-digits":
            return self.train_examples or _MNIST_PAIRS
        return min(self.train_examples or 2**62, _prepared_size(self.data, self.task))

    @property
    def steps_per_epoch(self) -> int:
        """Steps per pass over the training split, full batches only."""
        return self.num_train // self.batch_size

    @property
    def num_steps(self) -> int:
        """The length of the run, in steps."""
        return self.steps or self.epochs * self.steps_per_epoch

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, in order."""
        return dataclasses.asdict(self)


def load_config(path: str | Path) -> dict[str, Any]:
    """Reads values for a ``Config`` from a TOML or JSON file.

    Args:
      path: the file; JSON when it ends in ``.json``, otherwise TOML.

    Returns:
      Field name -> value, for the fields that the file has.

    Raises:
      ValueError: not readable, not of that format, or an unknown field.
    """
    path = Path(path)
    try:
        text = path.read_text()
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"config {path}: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"config {path}: expected names and values")
    known = {field.name for field in dataclasses.fields(Config)}
    for name in values:
        if name not in known:
            raise ValueError(
                f"config {path}: unknown name {name!r}; known are {sorted(known)}"
            )
    return dict(values)


@functools.lru_cache(maxsize=8)
def _prepared_size(directory: str, task: str) -> int:
    """Training examples of a prepared data set, without opening its arrays."""
    try:
        index = json.loads((Path(directory) / "index.json").read_text())
        name, counts = index["dataset"], index["counts"]["train"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"data: {directory} holds no prepared data: {error}") from None
    _check("data", directory, name == task, f"prepared data of {task}, not {name}")
    return int(sum(counts.values()))


def _check(name: str, value: Any, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {value}")


def _check_type(name: str, value: Any, hint: Any) -> None:
    if typing.get_origin(hint) is Literal:
        options = typing.get_args(hint)
        _check(name, repr(value), value in options, f"one of {', '.join(options)}")
        return
    union = isinstance(hint, types.UnionType)
    kinds = typing.get_args(hint) if union else (hint,)
    if float in kinds:
        kinds = (*kinds, int)
    right = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
    _check(name, repr(value), right, " or ".join(k.__name__ for k in kinds))
