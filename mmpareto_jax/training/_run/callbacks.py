"""What a run tells while it goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mmpareto_jax as mmp
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._tasks.base import Task

if TYPE_CHECKING:
    from mmpareto_jax.training._run.result import Result


class Start(NamedTuple):
    """A run that begins, or goes on.

    Attributes:
      config: of the run.
      task: what it learns.
      groups: which objectives act on which parameters.
      workdir: where its files are.
      step: the number of steps that are done: 0, unless it is resumed.
    """

    config: Config
    task: Task
    groups: mmp.ObjectiveGroups
    workdir: Path
    step: int


class Callback:
    """Hears of a run; a class with any of these methods, which do nothing here.

    ``train`` calls each in the order of its callbacks, first its own two, ``JsonLines``
    and ``TensorBoard``. An exception in one ends the run, once all are closed.

    Example:
      >>> from mmpareto_jax.training import Callback
      >>> class Printed(Callback):
      ...     def on_step(self, step, metrics):
      ...         print(f"up to {step}: {metrics['loss/joint']:.2f}")
      ...     def on_epoch(self, step, scores):
      ...         print(f"after {step}: {scores['accuracy/joint']:.2f}")
      >>> from mmpareto_jax.training import Config, train
      >>> import tempfile
      >>> config = Config(train_examples=64, width=8, steps=2, log_every=2)
      >>> with tempfile.TemporaryDirectory() as workdir:
      ...     _ = train(config, workdir, callbacks=[Printed()])  # doctest: +ELLIPSIS
      up to 2: ...
      after 2: 0...
    """

    def on_start(self, run: Start) -> None:
        """Before the first step.

        Args:
          run: what begins.
        """

    def on_tick(self, step: int) -> None:
        """After each step was given to the device: for progress bars.

        Args:
          step: its number, from 1. Nothing of it is known yet.
        """

    def on_step(self, step: int, metrics: dict[str, Any]) -> None:
        """Every ``log_every`` steps, and where an epoch or the run ends.

        It is called after the next step was given to the device, which does not wait.

        Args:
          step: the last of the steps that this is the mean of, from 1.
          metrics: name -> float: losses, measures and the diagnostics of every group;
            None where nothing was finite. Of a single step the values themselves, among
            which conflicts are bools. Of more also "steps", how many they are,
            "GROUP/cosine_min" and "GROUP/magnitude_max"; and "GROUP/conflict_count",
            how many steps the share of conflicts is of, where it is not of all.
        """

    def on_probe(self, step: int, probe: mmp.Probe) -> None:
        """Every ``probe_every`` steps.

        Args:
          step: the number of the step on whose batch it looks.
          probe: what it has seen, on the host.
        """

    def on_epoch(self, step: int, scores: dict[str, float]) -> None:
        """After each epoch, and at the end of the run.

        Args:
          step: the number of steps done.
          scores: losses and measures on the validation split.
        """

    def on_save(self, step: int) -> None:
        """Before a checkpoint: a run that goes on from it repeats no earlier call.

        Args:
          step: the number of steps done.
        """

    def on_end(self, result: Result) -> None:
        """When the run is over, or was stopped.

        Args:
          result: what it came to.
        """

    def close(self) -> None:
        """At last, whatever has happened; it may come without `on_start`."""


class Callbacks(Callback):
    """Several of them, in their order."""

    def __init__(self, callbacks: Sequence[Callback]):
        self._all = tuple(callbacks)

    def on_start(self, run: Start) -> None:
        for callback in self._all:
            callback.on_start(run)

    def on_tick(self, step: int) -> None:
        for callback in self._all:
            callback.on_tick(step)

    def on_step(self, step: int, metrics: dict[str, Any]) -> None:
        for callback in self._all:
            callback.on_step(step, metrics)

    def on_probe(self, step: int, probe: mmp.Probe) -> None:
        for callback in self._all:
            callback.on_probe(step, probe)

    def on_epoch(self, step: int, scores: dict[str, float]) -> None:
        for callback in self._all:
            callback.on_epoch(step, scores)

    def on_save(self, step: int) -> None:
        for callback in self._all:
            callback.on_save(step)

    def on_end(self, result: Result) -> None:
        for callback in self._all:
            callback.on_end(result)

    def close(self) -> None:
        """Closes all, also where one of them fails."""
        with contextlib.ExitStack() as stack:
            for callback in reversed(self._all):
                stack.callback(callback.close)
