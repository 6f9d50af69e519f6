"""The loop over steps: batches in, records and pauses out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

import mmpareto_jax as mmp
from mmpareto_jax.data import train_batches
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._run.damaged import say
from mmpareto_jax.training._run.placement import ONE_DEVICE, Placement
from mmpareto_jax.training._run.state import TrainState
from mmpareto_jax.training._run.step import Program
from mmpareto_jax.training._run.tally import Cut, Tally
from mmpareto_jax.training._tasks.base import Task


def fit(
    program: Program,
    config: Config,
    task: Task,
    state: TrainState,
    *,
    on_step: Callable[[int, dict[str, Any]], None],
    on_pause: Callable[[TrainState, dict[str, float] | None], None],
    on_tick: Callable[[int], None] | None = None,
    on_probe: Callable[[int, mmp.Probe], None] | None = None,
    on_cut: Callable[[Cut], None] | None = None,
    cut: Cut | None = None,
    stopped: Callable[[], bool] = lambda: False,
    placement: Placement = ONE_DEVICE,
) -> TrainState:
    """The loop, from `state` to the end of the run.

    Args:
      program: the compiled functions.
      config: length, batch size and seed of the run; the steps of a record.
      task: its data.
      state: where to begin.
      on_step: called with the number of the last step of a record, and the record, one
        step late, so that the device never waits.
      on_pause: called with the state, and its scores on the validation split, at the
        end of each epoch and of the run; and, without scores, where it is stopped, or
        ended by steps that were not finite: that is heard of when a record is complete,
        and after the last of these steps the state does not change.
      on_tick: called with the number of every step that the device was given.
      on_probe: called with the number of a step and what a probe has seen before it, on
        its batch, every ``config.probe_every`` steps.
      on_cut: called with the record, which is not complete, where the run is stopped.
      cut: that of the run that goes on.
      stopped: whether to end the run after the current step.
      placement: of the batches.

    Returns:
      The state at the end.
    """
    start = int(state.step)
    batches = train_batches(
        task.data["train"],
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        transform=task.transform,
        rows=placement.rows,
    )
    steps = _Steps(program, on_step, cut)
    for step in range(start + 1, config.num_steps + 1):
        epoch, within = divmod(step - 1, config.steps_per_epoch)
        if program.between_epochs and epoch and not within:
            state = program.between_epochs(state, config, epoch, task.data)
        batch = placement.batch(next(batches), config.batch_size)
        due = on_probe and config.probe_every and step % config.probe_every == 0
        probed = program.probe(state, batch) if due else None
        state = steps.take(state, batch)
        if on_probe and probed:
            on_probe(step, jax.device_get(probed))
        if on_tick:
            on_tick(step)
        at_end, stop = config.ends_epoch(step), stopped()
        if config.ends_record(step):
            steps.end_record(step)
        elif stop:
            if on_cut:
                on_cut(steps.cut(step))
            steps.end_record(step)
        if at_end or stop:
            steps.tell()
        if steps.last:
            if on_cut and not config.ends_record(steps.last.step):
                on_cut(steps.last)
            on_pause(state, None)
            break
        if at_end or stop:
            held_out = task.data["validation"]
            on_pause(state, program.evaluate(state, held_out) if at_end else None)
        if stop:
            break
    return state


class _Steps:
    """Takes steps, and tells of each record while the next step is taken.

    Attributes:
      last: the record in which the run was ended by steps that were not finite, up to
        the last of them; None: it goes on.
    """

    def __init__(
        self,
        program: Program,
        on_step: Callable[[int, dict[str, Any]], None],
        cut: Cut | None,
    ):
        self._program, self._on_step = program, on_step
        self._packing: Tally | None = None
        self._before = cut
        self._tally: Any = None
        self._count = 0
        self._ended: Cut | None = None
        self.last: Cut | None = None

    def take(self, state: TrainState, batch: Batch) -> TrainState:
        """The step, then the record before it, if that is complete."""
        if self._packing is None:
            self._packing = self._program.tally(state, batch)
            self._go_on(self._packing)
        if self._tally is None:
            self._tally = self._packing.empty()
        state, self._tally = self._program.logged(state, self._tally, batch)
        self._count += 1
        self.tell()
        return state

    def _go_on(self, packing: Tally) -> None:
        """Takes up the record that was cut off, if it is one of these metrics."""
        if self._before is None:
            return
        if packing.fits(self._before):
            self._tally, self._count = self._before.tally, self._before.steps
        else:
            say(
                f"the unfinished record of step {self._before.step} is of other "
                "metrics, as another version has them: it is left out"
            )

    def end_record(self, step: int) -> None:
        """The record of the steps up to this one is complete."""
        self._ended = Cut(step, self._count, self._tally)
        self._tally, self._count = None, 0

    def tell(self) -> None:
        """Fetches a complete record, which waits for its last step."""
        if self._ended is None or self._packing is None:
            return
        step, count, tally, _ = self._ended
        self._ended = None
        found = jax.device_get(tally)
        steps = self._packing.steps(found)
        step -= count - steps
        if self._packing.ended(found):
            going_on = self._packing.going_on(found)
            self.last = Cut(step, steps, going_on, self._packing.names)
        self._on_step(step, self._packing.record(found, steps))

    def cut(self, step: int) -> Cut:
        """The record as it is, on the host."""
        names = self._packing.names if self._packing else ()
        return Cut(step, self._count, jax.device_get(self._tally), names)
