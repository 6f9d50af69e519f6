"""What a run tells while it goes on."""

from __future__ import annotations

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

    Example:
      >>> from mmpareto_jax.training import Callback
      >>> class Printed(Callback):
      ...     def on_epoch(self, step, scores):
      ...         print(step, scores["accuracy/joint"])
      >>> Printed().on_epoch(31, {"accuracy/joint": 0.75})
      31 0.75
    """

    def on_start(self, run: Start) -> None:
        """Before the first step.

        Args:
          run: what begins.
        """

    def on_step(self, step: int, metrics: dict[str, Any]) -> None:
        """After a step, and after the next one was given to the device.

        Args:
          step: its number, from 1.
          metrics: scalars on the device by name; fetching one waits for the step.
        """

    def on_probe(self, step: int, probe: mmp.Probe) -> None:
        """Every ``probe_every`` steps.

        Args:
          step: the number of the step on whose batch it looks.
          probe: what it has seen, on the device.
        """

    def on_epoch(self, step: int, scores: dict[str, float]) -> None:
        """After each epoch, and at the end of the run.

        Args:
          step: the number of steps done.
          scores: losses and measures on the validation split.
        """

    def on_end(self, result: Result) -> None:
        """When the run is over, or was stopped.

        Args:
          result: what it came to.
        """
