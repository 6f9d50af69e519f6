"""The parts of a run, and what its checkpoints are worth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jax.sharding import Mesh

from mmpareto_jax.training._config import Config
from mmpareto_jax.training._run.checkpoint import Checkpoints, UnreadableError, Which
from mmpareto_jax.training._run.closing import closed_at_last
from mmpareto_jax.training._run.counts import Nonfinite
from mmpareto_jax.training._run.metrics import conflict_share, read_metrics
from mmpareto_jax.training._run.placement import Placement, Shard, placement_of
from mmpareto_jax.training._run.result import Result
from mmpareto_jax.training._run.state import diverged
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._run.workdir import (
    read_config,
    refuse_other_task,
    workdir_of,
)
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.registry import make_task
from mmpareto_jax.training._tasks.settled import settled


class Run:
    """The parts of a run, as training and evaluation both need them."""

    def __init__(
        self, workdir: Path, config: Config, task: Task | None, placement: Placement
    ):
        self.workdir, self.placement = workdir, placement
        self.task, self.config = settled(task or make_task(config), config)
        self.program = make_program(self.config, self.task, placement=placement)
        self.checkpoints = Checkpoints(workdir / "checkpoints")

    def result(self, which: Which) -> Result:
        """Evaluates a checkpoint; the latest where none has a finite score yet.

        Raises:
          ValueError: there is none, or it cannot be read, and what else can be done.
        """
        checkpoints = self.checkpoints
        latest = checkpoints.latest_step()
        if latest is None:
            raise ValueError(f"workdir {self.workdir}: holds no checkpoint yet")
        try:
            best = checkpoints.best_step() if which == "best" else None
            step, which = (latest, "latest") if best is None else (best, "best")
            state = checkpoints.restore(self.program.state, step)
        except UnreadableError as error:
            sound = checkpoints.sound_steps()
            way_out = "no other is sound: put a copy of one back"
            if sound:
                way_out = f"train --resume goes on from checkpoint {sound[-1]}"
            if sound and sound[-1] == latest:
                way_out = f"--checkpoint latest reads checkpoint {latest}"
            raise UnreadableError(f"{error}; {way_out}") from None
        steps = [r for r in read_metrics(self.workdir) if r["split"] == "train"]
        found = Result(
            workdir=self.workdir,
            config=self.config,
            checkpoint=which,
            step=int(state.step),
            finished=True,
            scores={
                split: self.program.evaluate(state, self.task.data[split])
                for split in ("validation", "test")
            },
            conflicts={
                group: share
                for group in self.program.groups.groups
                if (share := conflict_share(steps, group)) is not None
            },
            nonfinite=Nonfinite.of(
                steps, self.program.groups.objectives, self.program.groups.groups
            ),
            diverged=bool(diverged(int(state.streak), self.config.ends_after)),
            groups=self.program.groups,
            measures=self.task.measures,
            state=state,
        )
        return dataclasses.replace(found, diverged=found.diverged or found.is_unscored)


def evaluate(
    workdir: str | Path,
    which: Which = "best",
    *,
    task: Task | None = None,
    mesh: Mesh | str | None = None,
    shard: Shard | None = None,
) -> Result:
    """Evaluates a checkpoint of a finished or stopped run.

    Args:
      workdir: the run's directory; the data that it was trained on must be there.
      which: "best" on validation, or "latest". Where none has a finite score yet, the
        latest stands in for the best.
      task: what it was trained on, where that was made in Python.
      mesh: the devices, as of ``train``; not necessarily those it was trained on.
      shard: as of ``train``.

    Returns:
      The result; its ``state`` is the checkpoint's, its ``checkpoint`` the one that was
      found, and its ``finished`` True whatever became of the run.

    Raises:
      TypeError: an argument is of another type.
      ValueError: the directory holds no run, one that is not readable, or no
        checkpoint, or one that is damaged or has other parameters; or the data are not
        there.
    """
    if which not in ("best", "latest"):
        raise ValueError(f"which: expected best or latest, got {which!r:.60}")
    if not isinstance(task, Task | None):
        raise TypeError(f"task: expected a Task, got {type(task).__name__}")
    workdir = workdir_of("evaluate", workdir)
    placement = placement_of(mesh, shard)
    run = Run(workdir, read_config(workdir), task, placement)
    refuse_other_task(workdir, run.task)
    with closed_at_last(run.checkpoints):
        return run.result(which)
