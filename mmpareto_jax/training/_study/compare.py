"""Comparisons of methods: tuned alike, many seeds, every run written down."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, overload

from mmpareto_jax.training._choices import is_own
from mmpareto_jax.training._run.lock import locked
from mmpareto_jax.training._study.comparison import Comparison
from mmpareto_jax.training._study.records import (
    Records,
    claim,
    describe,
    read_runs,
    unclaim,
)
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._study.runs import Runs, Together
from mmpareto_jax.training._study.shares import PATIENCE, Share
from mmpareto_jax.training._study.workers import default_workers
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.registry import make_task
from mmpareto_jax.training._tasks.settled import check_method, config_of

Progress = Callable[[int, int, str], None]


@overload
def compare(
    task: Task,
    comparison: Comparison,
    workdir: str | Path,
    *,
    workers: int | None = 1,
    together: Together = "auto",
    num_processes: int = 1,
    process_id: int = 0,
    patience: float = PATIENCE,
    inspect: bool = True,
    progress: Progress | None = None,
) -> list[Record]: ...


@overload
def compare(
    comparison: Comparison,
    workdir: str | Path,
    /,
    *,
    workers: int | None = 1,
    together: Together = "auto",
    num_processes: int = 1,
    process_id: int = 0,
    patience: float = PATIENCE,
    inspect: bool = True,
    progress: Progress | None = None,
) -> list[Record]: ...


def compare(
    task: Any = None,
    comparison: Any = None,
    workdir: Any = None,
    *,
    workers: int | None = 1,
    together: Together = "auto",
    num_processes: int = 1,
    process_id: int = 0,
    patience: float = PATIENCE,
    inspect: bool = True,
    progress: Progress | None = None,
) -> list[Record]:
    """Runs a comparison, or what is missing of it.

    Args:
      task: what to learn; left out (``compare(comparison, workdir)``), what the
        comparison's config names.
      comparison: what to do.
      workdir: a directory for ``comparison.json`` and ``runs.jsonl``, a line for every
        finished run; created if it does not exist. Runs that are there already are not
        repeated.
      workers: 1 for this process, more for so many others, which take the GPUs in turn
        or, without any, one thread each; None for one on each GPU, or two. They make
        the task themselves, so it must have a name: a built-in one's, or
        ``module:function``.
      together: how many runs of a method are trained side by side, in one program;
        "auto" for what is faster on this device, which is timed before a method's
        first runs, or for 1 where workers have a thread each. The records' numbers are
        the same but for rounding. What was timed stands in ``environment.json``.
      num_processes: how many processes, on any hosts that see the directory, do the
        comparison together; each is called alike but for its `process_id`.
      process_id: which one this is, from 0. It appends to ``runs.jsonl``, the others
        to ``runs-1.jsonl``, ...; and it alone waits for the final runs of all.
      patience: seconds without a new record from any process after which those that
        this one waits for are given up; longer than a run takes.
      inspect: whether final runs are probed, and the loss around their end measured.
      progress: called as ``progress(done, total, what)`` after every run.

    Returns:
      The records that are in the directory then, those that were there first included:
      in process 0 of all runs, tuning included. A record
      has the run's method, lr and seed; the measures on "validation" and "test" of the
      epoch that is best on validation, shares from 0 to 1; the main one of validation
      as a "score", of which more is better; by group the share of
      conflicting steps, the histogram of cosines, quantiles of the magnitude factor and
      the gradients' norms by epoch.

    Raises:
      ValueError: the directory holds another comparison, or one that is not readable;
        the data are not there; a method does not fit the model or the task; several
        workers for a task that was made in Python; a number that is out of range.
      TimeoutError: what another process was to do is still missing; says what.
      ChildProcessError: a worker died, for want of memory perhaps; says at which run.
        What the others had finished is there.
    """
    if isinstance(task, Comparison):
        task, comparison, workdir = None, task, comparison
    _check_types(task, comparison, workdir)
    share = Share(num_processes, process_id, patience)
    return compare_share(
        task,
        comparison,
        Path(workdir),
        share,
        workers=workers,
        together=together,
        inspect=inspect,
        progress=progress,
    )


def compare_share(
    task: Task | None,
    comparison: Comparison,
    workdir: Path,
    share: Share,
    *,
    workers: int | None,
    together: Together,
    inspect: bool,
    progress: Progress | None,
) -> list[Record]:
    """One process's share of ``compare``."""
    if workers is None:
        workers = default_workers() if task is None else 1
    _check(task, workers, together, progress)
    made, comparison = _settled(task, comparison)
    runs = Runs(task, workers, together)
    tuning = comparison.tuning()
    total = len(tuning) + len(comparison.methods) * comparison.seeds
    with (
        locked(workdir, f"lock-{share.process_id}" if share.process_id else "lock"),
        _claimed(workdir, comparison, share) as file,
    ):
        if share.is_first:
            describe(workdir, made.measures, {})
        records = read_runs(workdir)
        for stage in ("tuning", "final"):
            configs = tuning if stage == "tuning" else comparison.final(records)
            missing = share.missing(configs, records)
            # Closed at once where something fails here: its workers end with it.
            with contextlib.closing(
                runs.all(missing, inspect and stage == "final")
            ) as finished:
                for record in finished:
                    file.append(record)
                    records.append(record)
                    if progress is not None:
                        progress(len(records), total, f"{stage}: {record['method']}")
            if share.is_first:
                describe(workdir, made.measures, runs.timed())
            if stage == "tuning" or share.is_first:
                records = share.wait(workdir, configs)
    return records


@contextlib.contextmanager
def _claimed(workdir: Path, comparison: Comparison, share: Share) -> Iterator[Records]:
    """The directory is this comparison's; the file of this process's records.

    Where no run comes to an end, it is left as it was found.
    """
    is_new = not (workdir / "comparison.json").exists()
    claim(workdir, comparison)
    try:
        with contextlib.closing(Records(workdir, share.process_id)) as file:
            yield file
    except Exception:
        if is_new and share.is_first and not read_runs(workdir):
            unclaim(workdir)
        raise


def _check_types(task: Any, comparison: Any, workdir: Any) -> None:
    """Refuses arguments in another order.

    Raises:
      TypeError: names what was expected.
    """
    there = task is None or isinstance(task, Task)
    right = isinstance(comparison, Comparison) and isinstance(workdir, str | Path)
    if not (there and right):
        found = ", ".join(type(x).__name__ for x in (task, comparison, workdir))
        raise TypeError(
            "compare: expected (comparison, workdir) or (task, comparison, workdir), a "
            f"Task, a Comparison and a path, got {found}"
        )


def _check(
    task: Task | None, workers: int, together: Together, progress: Any = None
) -> None:
    if not isinstance(workers, int):
        raise TypeError(f"workers: expected an integer, got {workers!r:.60}")
    if not (progress is None or callable(progress)):
        kind = type(progress).__name__
        raise TypeError(f"progress: expected a function, got {kind}")
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    if together != "auto" and not (isinstance(together, int) and together >= 1):
        raise ValueError(f"together: expected auto or at least 1, got {together}")
    if task is not None and workers > 1:
        raise ValueError(
            "workers: expected 1 for a task that was made in Python; name it as "
            "module:function for more"
        )


def _settled(task: Task | None, comparison: Comparison) -> tuple[Task, Comparison]:
    """Both, once each method is known to fit a user's task, whose size is told."""
    config = comparison.config
    made = task or make_task(config)
    if task is None and not is_own(config.task):
        config.check_sizes()
        return made, comparison
    comparison = dataclasses.replace(comparison, config=config_of(made, config))
    for method in comparison.methods:
        check_method(made, comparison.run(method, comparison.lr_grid[0], 0))
    return made, comparison
