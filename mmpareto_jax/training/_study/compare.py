"""Comparisons of methods: tuned alike, many seeds, every run written down."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from mmpareto_jax.training._choices import is_own
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._study.comparison import Comparison
from mmpareto_jax.training._study.records import (
    Records,
    claim,
    describe,
    read_runs,
    unclaim,
)
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._study.shares import PATIENCE, Share
from mmpareto_jax.training._study.together import Measured, measure, run_together
from mmpareto_jax.training._study.workers import default_workers, pool, visible_gpus
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.registry import make_task
from mmpareto_jax.training._tasks.settled import check_method, config_of

Progress = Callable[[int, int, str], None]
Together = int | Literal["auto"]
# Runs side by side, at most.
_TOGETHER = 16


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
    """
    if isinstance(task, Comparison):
        task, comparison, workdir = None, task, comparison
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
    _check(task, workers, together)
    made, comparison = _settled(task, comparison)
    with _claimed(workdir, comparison, share):
        if share.is_first:
            describe(workdir, made.measures, {})
        runs = _Runs(task, workers, together)
        tuning = comparison.tuning()
        total = len(tuning) + len(comparison.methods) * comparison.seeds
        records = read_runs(workdir)
        with contextlib.closing(Records(workdir, share.process_id)) as file:
            for stage in ("tuning", "final"):
                configs = tuning if stage == "tuning" else comparison.final(records)
                missing = share.missing(configs, records)
                for record in runs.all(missing, inspect and stage == "final"):
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
def _claimed(workdir: Path, comparison: Comparison, share: Share) -> Iterator[None]:
    """Where no run comes to an end, the directory is left as it was found."""
    is_new = not (workdir / "comparison.json").exists()
    claim(workdir, comparison)
    try:
        yield
    except Exception:
        if is_new and share.is_first and not read_runs(workdir):
            unclaim(workdir)
        raise


def _check(task: Task | None, workers: int, together: Together) -> None:
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


class _Runs:
    """Does runs: in this process or in others, one by one or side by side."""

    def __init__(self, task: Task | None, workers: int, together: Together):
        self._run = functools.partial(run_together, task=task)
        self._measure = functools.partial(measure, task=task)
        self._workers = workers
        # On a thread each, runs side by side are slower (tests/benchmarks/NOTES.md).
        on_threads = workers > 1 and not visible_gpus(os.environ)
        self._together = 1 if together == "auto" and on_threads else together
        self._measured: dict[str, Measured] = {}

    def all(self, configs: Sequence[Config], inspect: bool) -> Iterator[Record]:
        """The records of these runs, as they are finished."""
        run = functools.partial(self._run, inspect=inspect)
        groups = self._groups(configs)
        if self._workers == 1:
            for group in groups:
                self._time([group], map)
                for part in self._parts(group):
                    yield from run(part)
        elif configs:
            with pool(self._workers) as others:
                self._time(groups, others.map)
                parts = [part for group in groups for part in self._parts(group)]
                jobs = [others.submit(run, part) for part in parts]
                for job in concurrent.futures.as_completed(jobs):
                    yield from job.result()

    def timed(self) -> dict[str, Any]:
        """Method -> what was timed, for ``environment.json``."""
        return {method: found._asdict() for method, found in self._measured.items()}

    def _groups(self, configs: Sequence[Config]) -> list[list[Config]]:
        """Those of each method, which share their program."""
        groups: dict[str, list[Config]] = {}
        for config in configs:
            groups.setdefault(config.method, []).append(config)
        return list(groups.values())

    def _time(self, groups: Sequence[Sequence[Config]], each: Any) -> None:
        """Times what is not yet known; each method once."""
        if self._together != "auto":
            return
        new = [
            group
            for group in groups
            if len(group) > 1 and group[0].method not in self._measured
        ]
        for_worker = max(1, sum(map(len, groups)) // self._workers)
        largest = min(_TOGETHER, for_worker)
        found = each(self._measure, [group[:largest] for group in new])
        self._measured |= {
            group[0].method: measured
            for group, measured in zip(new, found, strict=True)
        }

    def _parts(self, group: Sequence[Config]) -> Iterator[Sequence[Config]]:
        """What is run side by side; all about equally many."""
        size = self._together
        if size == "auto":
            measured = self._measured.get(group[0].method)
            size = measured.faster if measured else 1
        number = -(-len(group) // size)
        for i in range(number):
            yield group[i * len(group) // number : (i + 1) * len(group) // number]
