"""What ``mmpareto train`` says while it trains."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mmpareto_jax._cli.line import Line
from mmpareto_jax._cli.progress import Clock, Display
from mmpareto_jax.training._run.callbacks import Callback, Start

if TYPE_CHECKING:
    from rich.console import Console

    from mmpareto_jax.training import Result


class TrainingProgress(Callback):
    """Says how far a training is: a callback of ``train``.

    Args:
      console: where; None: standard error.
      clock: seconds.
    """

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic):
        self._console, self._clock = console, clock
        self._display: Display | None = None
        self._bad = 0

    def on_start(self, run: Start) -> None:
        """How long the run is; then its line."""
        config = run.config
        self._run = run
        self._epochs = self._epoch(config.num_steps)
        self._line = Line(
            f"{config.task} {config.method}",
            "steps",
            config.num_steps,
            run.step,
            self._clock,
        )
        self._line.note = "compiling"
        self._display = Display(self._line, self._console)
        goes_on = f", from step {run.step}" if run.step else ""
        epochs = f"{self._epochs} epoch{'s' if self._epochs > 1 else ''}"
        self._display.announce(f"{epochs}, {config.num_steps} steps{goes_on}")
        self._display.start()

    def on_tick(self, step: int) -> None:
        """The first one comes when the step is compiled."""
        if self._line.note == "compiling":
            self._line.note = ""
            self._line.restart(step)
        self._line.update(step)

    def on_step(self, step: int, metrics: dict[str, Any]) -> None:
        """The first steps that were not finite, and how many there are."""
        from mmpareto_jax.training._run.counts import Nonfinite

        if "nonfinite" not in metrics or self._display is None:
            return
        groups = self._run.groups
        found = Nonfinite.of([metrics], groups.objectives, groups.groups)
        if not self._bad:
            said = found.said(self._run.config.on_nonfinite)
            self._display.say(f"up to step {step}: {said}")
        self._bad += found.steps
        self._line.note = f"{self._bad} steps not finite"

    def on_epoch(self, step: int, scores: dict[str, float]) -> None:
        """The main measure on validation, and a line where there is no terminal."""
        self._line.update(step)
        for measure in self._run.task.measures[:1]:
            if (value := scores.get(measure.name)) is not None:
                unit = " %" if measure.percent else ""
                number = f"{measure.shown(value):{'.1f' if measure.percent else '.4g'}}"
                self._line.note = f"{measure.title} {number}{unit}"
                if self._bad:
                    self._line.note += f", {self._bad} steps not finite"
        if self._display is not None:
            total = self._run.config.num_steps
            count = f"epoch {self._epoch(step)}/{self._epochs}  step {step}/{total}"
            self._display.report(count)

    def on_end(self, result: Result) -> None:
        """The line stays as it is."""
        del result
        self.close()

    def close(self) -> None:
        """Gives the terminal back; a second time does nothing."""
        if self._display is not None:
            self._display.close()
            self._display = None

    def _epoch(self, step: int) -> int:
        """The number of the epoch that a step is in, from 1."""
        each = max(1, self._run.config.steps_per_epoch)
        return -(-step // each)
