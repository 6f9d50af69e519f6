"""The configuration of a run: one frozen dataclass for Python, flags and files."""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpareto_jax._whole_files import read_json
from mmpareto_jax.training._choices import (
    MULTI_TASK,
    MULTI_TASK_METHODS,
    MULTIMODAL_METHODS,
    is_own,
    spelled,
)
from mmpareto_jax.training._options.of_all import EMBEDDED, Model, Optimisation, Run
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
from mmpareto_jax.training._options.option import MOST, check, check_option

# This module is read for `mmpareto --help`, so it imports nothing heavy.

# Records that a run of any length leaves, about.
_RECORDS = 500
# Bytes of a config's file.
_LARGEST_FILE = 2**20
# And of the index of prepared data.
_LARGEST_INDEX = 2**30
# Pairs of MNIST's digits, as many as there are digits to train on.
_MNIST_PAIRS = 54_000


# From right to left: dataclasses takes the fields of the last base first.
@dataclasses.dataclass(frozen=True)
class Config(
    DigitTasks,
    MultiDigits,
    AVDigits,
    MultiTask,
    Multimodal,
    Imbalance,
    Priority,
    MMPareto,
    Gamma,
    Weights,
    Optimisation,
    Model,
    Run,
):
    """What a run does; with the package's version it determines every number.

    One flat bag of the options of every task and method, each with a default and with
    the name of its flag: ``mmpareto train --help`` says what they are, under whom they
    belong to. ``train`` and ``Comparison`` refuse one that has another value than its
    default and belongs to another task or method.

    Args:
      task: what to learn, the only argument that has a place: a built-in task, or
        ``module:function``, which returns a ``Task``. A ``Task`` that is given to
        ``train`` itself takes its place.
      **options: all others, by name.

    Raises:
      ValueError: a value of another type, one that is not among the choices, or one
        that no run can have, named with what was expected; or two that do not go
        together: ``data`` that the task does not have or need, or which are those of
        another task; a ``method`` for another kind of task; a ``fusion`` that the
        ``encoder`` does not allow; a ``batch_size`` above ``train_examples``.
      TypeError: an unknown name, or a second argument without one.

    Example:
      >>> from mmpareto_jax.training import Config
      >>> config = Config("multi-digits", method="uniform", epochs=2)
      >>> config.batch_size, config.num_train, config.num_steps
      (32, 2000, 124)
      >>> Config(lr=-1.0)
      Traceback (most recent call last):
      ValueError: lr: expected a finite number > 0 that float32 holds, got -1.0
      >>> Config("multi-digits", method="ogm")
      Traceback (most recent call last):
      ValueError: method: expected one for multi-task tasks, got ogm
    """

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            # All that is written and compared has one spelling.
            object.__setattr__(self, "method", spelled(self.method))
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check_option(field, hints[field.name], getattr(self, field.name))
        self._check_together()

    def _check_together(self) -> None:
        """What an option alone cannot say."""
        if not is_own(self.task):
            needed = self.task not in EMBEDDED
            there = (self.data is not None) == needed or self.task == "multi-digits"
            expected = "the directory of prepared data" if needed else "nothing"
            check("data", self.data, there, f"{expected} for {self.task}")
            several = self.task in MULTI_TASK
            other = MULTIMODAL_METHODS if several else MULTI_TASK_METHODS
            fits = self.method not in other
            kind = "multi-task" if several else "multimodal"
            check("method", self.method, fits, f"one for {kind} tasks")
        meets = self.fusion != "bottleneck" or self.encoder == "transformer"
        check("fusion", self.fusion, meets, "another one, or --encoder transformer")
        same = self.method != "mmpareto" or self.variant == "paper"
        expected = "none with variant official"
        check("smooth", self.smooth, self.smooth is None or same, expected)
        free = self.refresh == 1 or self.gradients == "parameters"
        check("refresh", self.refresh, free, "1 with gradients features")
        if self.steps is not None:
            self._check_probe(self.steps)
        # Otherwise a user's task may take the place of a built-in one, and has its own.
        says = self.train_examples is not None or self.data is not None
        if says and self.is_sized:
            self.check_sizes()

    def _check_probe(self, steps: int) -> None:
        seen = self.probe_every <= steps
        check("probe_every", self.probe_every, seen, f"at most {steps} steps")

    def check_sizes(self) -> None:
        """Refuses what the training examples are too few for; every run does so.

        Raises:
          ValueError: a ``batch_size`` above their number, or a ``probe_every`` above
            the number of steps.
        """
        fits = self.batch_size <= self.num_train
        expected = f"at most the {self.num_train} training examples"
        check("batch_size", self.batch_size, fits, expected)
        few = self.num_steps <= MOST
        check("epochs", self.epochs, few, f"at most {MOST} steps in all")
        self._check_probe(self.num_steps)

    @property
    def is_sized(self) -> bool:
        """Whether it says how many training examples there are."""
        return not is_own(self.task) or self.train_examples is not None

    @property
    def num_train(self) -> int:
        """The number of training examples.

        Raises:
          ValueError: only the task knows, see `settled`.
        """
        if is_own(self.task):
            known = self.train_examples
            check("train_examples", known, known is not None, f"those of {self.task}")
            return known or 0
        if self.data is None:
            return self.train_examples or EMBEDDED[self.task]
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

    @property
    def ends_after(self) -> int | None:
        """The steps in a row, not finite, that end the run; None: none do."""
        limits = {"skip": self.nonfinite_limit, "stop": 1, "continue": None}
        return limits[self.on_nonfinite]

    @property
    def record_steps(self) -> int:
        """The steps that a record is the mean of."""
        return self.log_every or max(1, self.num_steps // _RECORDS)

    def ends_epoch(self, step: int) -> bool:
        """Whether a validation follows.

        Args:
          step: its number, from 1.

        Returns:
          True for the last step of an epoch, and of the run.
        """
        return step % self.steps_per_epoch == 0 or step == self.num_steps

    def ends_record(self, step: int) -> bool:
        """Whether a record is complete: no epoch's end lies inside of one.

        Args:
          step: its number, from 1.

        Returns:
          True for every `record_steps`-th step, and for those that end an epoch.
        """
        return step % self.record_steps == 0 or self.ends_epoch(step)

    def settled(self, task: str, num_train: int) -> Config:
        """The config of a run of this task.

        Args:
          task: its name; it replaces one that is no built-in task's.
          num_train: how many training examples there are.

        Returns:
          The config; of a user's task it says how many examples a run has.
        """
        if not is_own(task):
            return self
        size = min(self.train_examples or num_train, num_train)
        return dataclasses.replace(self, task=task, train_examples=size)

    def given(self) -> tuple[str, ...]:
        """The options that are not at their default, but for task and method.

        Returns:
          Their names, in order.
        """
        return tuple(
            field.name
            for field in dataclasses.fields(self)
            if field.name not in ("task", "method")
            and getattr(self, field.name) != field.default
        )

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
      TypeError: an argument is of another type.
      ValueError: not readable, of more than 1 MiB, not of that format, or an unknown
        field, or one twice.
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"load_config: expected a path, got {type(path).__name__}")
    path = Path(path)
    try:
        with path.open("rb") as file:  # which may have no end, as /dev/zero
            content = file.read(_LARGEST_FILE + 1)
        if len(content) > _LARGEST_FILE:
            raise ValueError(f"expected at most {_LARGEST_FILE} bytes")
        text = content.decode("utf-8-sig")  # as editors on Windows write it
        if path.suffix == ".json":
            values = json.loads(text, object_pairs_hook=_each_once)
        else:
            values = tomllib.loads(text)
    except OSError as error:
        raise ValueError(f"config {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"config {path}: {error}") from error
    except RecursionError:
        raise ValueError(f"config {path}: values are nested too deep") from None
    if not isinstance(values, Mapping):
        raise ValueError(f"config {path}: expected names and values")
    values = renamed(values)
    known = {field.name for field in dataclasses.fields(Config)}
    for name in values:
        if name not in known:
            raise ValueError(
                f"config {path}: unknown name {name!r}; known are {sorted(known)}"
            )
    return dict(values)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; Python's own reader takes the last of equal names."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands there twice")
    return values


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as files of before have them, under the names of today."""
    values = dict(values)
    if "dtype" in values:
        values["precision"] = {"bfloat16": "bf16"}.get(values.pop("dtype"), "f32")
    return values


@functools.lru_cache(maxsize=8)
def _prepared_size(directory: str, task: str) -> int:
    """Training examples of a prepared data set, without opening its arrays."""
    try:
        index = read_json(Path(directory) / "index.json", _LARGEST_INDEX)
        name, counts = index["dataset"], index["counts"]["train"]
        size = sum(operator.index(count) for count in counts.values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"data: {directory} holds no prepared data: {error}; mmpareto check "
            f"{directory} says more"
        ) from None
    check("data", directory, name == task, f"prepared data of {task}, not {name}")
    return size
