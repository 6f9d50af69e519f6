"""A run from its beginning to its result, with its files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from jax.sharding import Mesh

from mmpareto_jax.training._config import Config
from mmpareto_jax.training._run.callbacks import Callback, Callbacks, Start
from mmpareto_jax.training._run.circumstances import circumstances
from mmpareto_jax.training._run.closing import closed_at_last
from mmpareto_jax.training._run.fit import fit
from mmpareto_jax.training._run.lock import locked
from mmpareto_jax.training._run.placement import (
    Shard,
    placement_of,
)
from mmpareto_jax.training._run.processes import (
    Stop,
    agree,
    first_alone,
    is_first,
    together,
)
from mmpareto_jax.training._run.result import Result
from mmpareto_jax.training._run.resuming import Resuming
from mmpareto_jax.training._run.run import Run
from mmpareto_jax.training._run.signals import heard_interrupts, stop_signals
from mmpareto_jax.training._run.state import TrainState, diverged
from mmpareto_jax.training._run.tally import (
    forget_cut,
    read_cut,
    write_cut,
)
from mmpareto_jax.training._run.workdir import (
    claim,
    forget_result,
    now,
    refuse_other_run,
    refuse_other_task,
    unclaim,
    versions,
    write_result,
)
from mmpareto_jax.training._run.writers import JsonLines, TensorBoard
from mmpareto_jax.training._tasks.base import Task, digest
from mmpareto_jax.training._tasks.settled import config_of


@overload
def train(
    task: Task,
    config: Config,
    workdir: str | Path,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    mesh: Mesh | str | None = None,
    shard: Shard | None = None,
) -> Result: ...


@overload
def train(
    config: Config,
    workdir: str | Path,
    /,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    mesh: Mesh | str | None = None,
    shard: Shard | None = None,
) -> Result: ...


def train(
    task: Any = None,
    config: Any = None,
    workdir: Any = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    mesh: Mesh | str | None = None,
    shard: Shard | None = None,
) -> Result:
    """Trains, and evaluates the checkpoint that was best on validation.

    Ctrl-C (or SIGTERM, or SIGHUP) ends the run after the current step, with a
    checkpoint. While it goes on no other run writes to its directory. A step whose
    losses or update are not finite is skipped, unless ``config.on_nonfinite`` says
    otherwise; where a run had any, it warns at the end.

    Args:
      task: what to learn; left out (``train(config, workdir)``), what the config names.
      config: how.
      workdir: a directory for the run: ``config.json``, ``metrics.jsonl``,
        ``tensorboard/``, ``checkpoints/``, and ``result.json`` at its end. Created if
        it does not exist.
      resume: go on from the latest checkpoint. The final parameters are bitwise those
        of a run that was not interrupted. What of the directory cannot be read is moved
        to ``damaged/`` in it, with a warning; where the latest checkpoint is damaged
        the run goes on from the one before.
      callbacks: hear of the run, in this order, after those that write the files; of
        several processes only in the first, where they compute nothing on the mesh.
      mesh: the devices: sizes of the axes, as "data=8" or "data=4,model=2"; "auto", all
        devices along "data"; or a mesh with these axes. Batches are divided along
        "data", the last dimensions of parameters along "model". None: one device; of
        several processes as "auto". It is no part of the config: a run may go on on
        other devices.
      shard: "params" divides parameters and the optimiser's state along "data", too.

    Returns:
      The result; its ``state`` is the last one, its scores are the best checkpoint's,
      or the latest one's where none has a finite score: in a run that was stopped
      before its first epoch ended, for one.

    Raises:
      ValueError: the workdir holds a run and `resume` is False, or holds none, or
        one of another configuration, and `resume` is True; another process writes to
        it; all of its checkpoints are damaged or gone; the data are not there; an
        option is of another task or method, or the method does not fit the task or its
        model (OGM without a fusion that adds); or there are fewer devices than `mesh`
        has, or they do not divide the batch. Nothing is changed then.
    """
    if isinstance(task, Config):
        task, config, workdir = None, task, config
    _check_types(task, config, workdir, callbacks)
    workdir = Path(workdir)
    asked = config if task is None else config_of(task, config)
    told = {"resume": resume, "mesh": mesh, "shard": shard, "workdir": workdir}
    agree({**asked.to_dict(), **told})
    first_alone(lambda: refuse_other_run(workdir, asked, resume))
    with contextlib.ExitStack() as stack:
        raise_again = stack.enter_context(heard_interrupts())
        first_alone(lambda: stack.enter_context(locked(workdir)))
        placement = placement_of(mesh, shard)
        run = together(lambda: Run(workdir, config, task, placement))
        agree({"the data": digest(run.task)})
        return _train(run, resume, callbacks, raise_again)


def _train(
    run: Run,
    resume: bool,
    callbacks: Sequence[Callback],
    raise_again: Callable[[], None],
) -> Result:
    """Trains, in a workdir that is this run's alone.

    Args:
      run: its parts.
      resume: whether it goes on.
      callbacks: of the user.
      raise_again: raises a Ctrl-C that came until now and was dropped.
    """
    workdir, config, task, program = run.workdir, run.config, run.task, run.program
    with (
        closed_at_last(run.checkpoints) as checkpoints,
        _unclaimed_without_a_step(workdir, resume) as counted,
        closed_at_last(_hearing(counted, callbacks)) as hear,
    ):
        state = program.state
        if resume:
            first_alone(lambda: refuse_other_task(workdir, task))
        resuming = Resuming(workdir, checkpoints) if resume else None
        if resuming and resuming.step:
            state = checkpoints.restore(state, resuming.step)
            state = _on_another_try(state, config)
        first = int(state.step)
        # From here on the directory is written to.
        began = {"versions": versions(), **run.placement.describe()}
        began |= {**circumstances(), "started": now()}
        first_alone(lambda: claim(workdir, config, task, resume=resume, began=began))
        if resuming:
            first_alone(resuming.clear)
            first_alone(lambda: read_cut(workdir, first))
        checkpoints.open()
        hear.on_start(Start(config, task, program.groups, workdir, first))
        if first < config.num_steps:
            first_alone(lambda: forget_result(workdir))

        def on_pause(state: TrainState, scores: dict[str, float] | None) -> None:
            step, score = int(state.step), None
            # Then a record of scores says that the checkpoint before it is complete.
            checkpoints.wait()
            if scores is not None:
                hear.on_epoch(step, scores)
                score = task.better(scores)
            hear.on_save(step)
            checkpoints.save(state, step, score)

        with stop_signals() as stopped:
            raise_again()
            state = fit(
                program,
                config,
                task,
                state,
                on_step=hear.on_step,
                on_pause=on_pause,
                on_tick=hear.on_tick,
                on_probe=hear.on_probe,
                on_cut=functools.partial(write_cut, workdir) if is_first() else None,
                cut=read_cut(workdir, first),
                stopped=Stop(run.placement, stopped.is_set),
                placement=run.placement,
            )
        together(lambda: None)  # the first has written what the others read now
        result = run.result("best")
        finished = int(state.step) >= config.num_steps
        # At its end; the best checkpoint may be of before.
        bad = bool(diverged(int(state.streak), config.ends_after))
        finished = finished and not (bad and config.ends_after)
        result = dataclasses.replace(
            result,
            finished=finished,
            diverged=bad or result.is_unscored,
            state=state,
        )
        first_alone(lambda: write_result(result))
        if finished and is_first():
            forget_cut(workdir)
        hear.on_end(result)
    if result.nonfinite.steps and is_first():
        warnings.warn(result.nonfinite.said(config.on_nonfinite), stacklevel=3)
    return result


def _on_another_try(state: TrainState, config: Config) -> TrainState:
    """The state of a run that goes on, where it had been ended: it counts anew."""
    over = int(state.step) >= config.num_steps
    ended = config.ends_after and diverged(int(state.streak), config.ends_after)
    if ended and not over:
        return state._replace(streak=state.streak * 0)
    return state


def _hearing(counted: Callback, callbacks: Sequence[Callback]) -> Callbacks:
    """All that hear of a run, in this process."""
    first = [JsonLines(), TensorBoard(), *callbacks] if is_first() else []
    return Callbacks([counted, *first])


def _check_types(task: Any, config: Any, workdir: Any, callbacks: Any) -> None:
    """Refuses arguments in another order.

    Raises:
      TypeError: names what was expected.
    """
    there = task is None or isinstance(task, Task)
    if not (there and isinstance(config, Config) and isinstance(workdir, str | Path)):
        found = ", ".join(type(x).__name__ for x in (task, config, workdir))
        raise TypeError(
            "train: expected (config, workdir) or (task, config, workdir), a Task, a "
            f"Config and a path, got {found}"
        )
    if not str(workdir) or "\0" in str(workdir):
        raise ValueError(f"workdir: expected a path, got {str(workdir)!r}")
    several = isinstance(callbacks, Sequence) and not isinstance(callbacks, str)
    for callback in callbacks if several else [callbacks]:
        if not isinstance(callback, Callback) or not several:
            raise TypeError(
                "train: callbacks: expected a list of training.Callback, got "
                f"{type(callback).__name__}"
            )


@contextlib.contextmanager
def _unclaimed_without_a_step(workdir: Path, resume: bool) -> Iterator[Callback]:
    """Where the first step fails the workdir is left as it was found."""

    class Counted(Callback):
        steps = 0

        def on_tick(self, step: int) -> None:
            self.steps = step

    counted = Counted()
    try:
        yield counted
    except Exception:
        if not (resume or counted.steps) and is_first():
            unclaim(workdir)
        raise
