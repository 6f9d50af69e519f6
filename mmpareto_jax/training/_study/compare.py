"""Comparisons of methods: tuned alike, many seeds, every run written down."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from mmpareto_jax.training._choices import is_own, spelled
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._options.groups import refuse_unused
from mmpareto_jax.training._run.workdir import now, read_record, versions
from mmpareto_jax.training._study.run_once import Record, run_once
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.registry import make_task
from mmpareto_jax.training._tasks.settled import check_method, config_of

# Seeds of the tuning runs start here, so that none is also a final run.
_FIRST_TUNING_SEED = 10_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
      config: of every run, but for method, learning rate and seed.
      methods: the methods, by the names of ``--method``, each once.
      lr_grid: learning rates, each once; each method gets the one that is best for it
        on the validation split, by the mean over `tune_seeds` runs.
      seeds: final runs for each method, at least 2, with the seeds 0, 1, ...
      tune_seeds: runs for each method and learning rate, at least 1, with other seeds.

    Raises:
      ValueError: no method or no learning rate, or one of them twice; a method or a
        learning rate that `config` cannot have; too few runs.

    Example:
      >>> from mmpareto_jax.training import Comparison, Config
      >>> plan = Comparison(
      ...     Config(), ("uniform", "mmpareto"), lr_grid=(0.05, 0.1), tune_seeds=1
      ... )
      >>> [(run.method, run.lr, run.seed) for run in plan.tuning()][:2]
      [('uniform', 0.05, 10000), ('uniform', 0.1, 10000)]
      >>> len(plan.final([]))
      20
    """

    config: Config
    methods: tuple[str, ...]
    lr_grid: tuple[float, ...]
    seeds: int = 10
    tune_seeds: int = 3

    def __post_init__(self) -> None:
        # As its runs have them: records are found by these names.
        object.__setattr__(self, "methods", tuple(spelled(m) for m in self.methods))
        for name in ("methods", "lr_grid"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different values, got {values}")
        for method in self.methods:
            for lr in self.lr_grid:
                self.run(method, lr, 0)  # raises where it is not valid
        refuse_unused(self.config.given(), self.config.task, self.methods)
        if self.seeds < 2:
            raise ValueError(f"seeds: expected at least 2, got {self.seeds}")
        if self.tune_seeds < 1:
            raise ValueError(f"tune_seeds: expected at least 1, got {self.tune_seeds}")

    def run(self, method: str, lr: float, seed: int) -> Config:
        """The configuration of one run.

        Args:
          method: its name.
          lr: the learning rate.
          seed: of the run.

        Returns:
          `config` with these.

        Raises:
          ValueError: a value that it cannot have.
        """
        change: dict[str, Any] = {"method": method, "lr": lr, "seed": seed}
        return dataclasses.replace(self.config, **change)

    def tuning(self) -> list[Config]:
        """The runs that choose learning rates.

        Returns:
          Their configurations; none where there is one learning rate only.
        """
        if len(self.lr_grid) == 1:
            return []
        seeds = range(_FIRST_TUNING_SEED, _FIRST_TUNING_SEED + self.tune_seeds)
        return [
            self.run(method, lr, seed)
            for method in self.methods
            for lr in self.lr_grid
            for seed in seeds
        ]

    def final(self, records: Sequence[Record]) -> list[Config]:
        """The runs that are compared.

        Args:
          records: of the tuning runs; of others nothing is read.

        Returns:
          Their configurations, ``seeds`` for each method.
        """
        chosen = self.learning_rates(records)
        return [
            self.run(method, chosen[method], seed)
            for method in self.methods
            for seed in range(self.seeds)
        ]

    def learning_rates(self, records: Sequence[Record]) -> dict[str, float]:
        """The learning rates that the tuning runs choose.

        Args:
          records: of the tuning runs; of others nothing is read.

        Returns:
          Method -> the one with the best mean of the main measure on validation; the
          first of equal ones, and of all where there are no records.
        """

        def score(method: str, lr: float) -> float:
            found = [
                r.get("score", next(iter(r["validation"].values())))
                for r in records
                if (r["method"], r["lr"]) == (method, lr)
                and r["seed"] >= _FIRST_TUNING_SEED
            ]
            return float(np.mean(found)) if found else -math.inf

        return {
            method: max(self.lr_grid, key=functools.partial(score, method))
            for method in self.methods
        }


@overload
def compare(
    task: Task,
    comparison: Comparison,
    workdir: str | Path,
    *,
    workers: int = 1,
    inspect: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Record]: ...


@overload
def compare(
    comparison: Comparison,
    workdir: str | Path,
    /,
    *,
    workers: int = 1,
    inspect: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Record]: ...


def compare(
    task: Any = None,
    comparison: Any = None,
    workdir: Any = None,
    *,
    workers: int = 1,
    inspect: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Record]:
    """Runs a comparison, or what is missing of it.

    Args:
      task: what to learn; left out (``compare(comparison, workdir)``), what the
        comparison's config names.
      comparison: what to do.
      workdir: a directory for ``comparison.json`` and ``runs.jsonl``, a line for every
        finished run; created if it does not exist. Runs that are there already are not
        repeated.
      workers: 1 for this process, more for so many others, each with one thread; they
        make the task themselves, so it must have a name: a built-in one's, or
        ``module:function``.
      inspect: whether final runs are probed, and the loss around their end measured.
      progress: called as ``progress(done, total, what)`` after every run.

    Returns:
      The records of all runs, tuning included, those that were there first. A record
      has the run's method, lr and seed; the measures on "validation" and "test" of the
      epoch that is best on validation, shares from 0 to 1; the main one of validation
      as a "score", of which more is better; by group the share of
      conflicting steps, the histogram of cosines, quantiles of the magnitude factor and
      the gradients' norms by epoch.

    Raises:
      ValueError: the directory holds another comparison, or one that is not readable;
        the data are not there; a method does not fit the model or the task; several
        workers for a task that was made in Python.
    """
    if isinstance(task, Comparison):
        task, comparison, workdir = None, task, comparison
    if task is not None and workers > 1:
        raise ValueError(
            "workers: expected 1 for a task that was made in Python; name it as "
            "module:function for more"
        )
    workdir = Path(workdir)
    task, comparison = _settled(task, comparison)
    _claim(workdir, comparison)
    records = read_runs(workdir)
    tuning = comparison.tuning()
    total = len(tuning) + len(comparison.methods) * comparison.seeds
    for stage in ("tuning", "final"):
        configs = tuning if stage == "tuning" else comparison.final(records)
        done = {(r["method"], r["lr"], r["seed"]) for r in records}
        missing = [c for c in configs if (c.method, c.lr, c.seed) not in done]
        with (workdir / "runs.jsonl").open("a") as file:
            run = functools.partial(
                run_once,
                task=task,
                cache=str(workdir / "compiled"),
                inspect=inspect and stage == "final",
            )
            for record in _run_all(run, missing, workers):
                file.write(json.dumps(record) + "\n")
                file.flush()
                records.append(record)
                if progress is not None:
                    progress(len(records), total, f"{stage}: {record['method']}")
    return records


def read_runs(workdir: str | Path) -> list[Record]:
    """The records in a comparison's directory.

    A line that was cut off (a killed process) is left out.

    Args:
      workdir: the directory; one without ``runs.jsonl`` has no records.

    Returns:
      What ``compare`` returned, or what is there of it.
    """
    path = Path(workdir) / "runs.jsonl"
    records = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def read_comparison(workdir: str | Path) -> Comparison:
    """What the directory's comparison is.

    Args:
      workdir: the directory that ``compare`` was given.

    Returns:
      The comparison, equal to the one that ``compare`` was given.

    Raises:
      ValueError: there is none, or it is not readable, or has a value that this
        version does not know; or the prepared data that it names are gone.
      KeyError: its file lacks the config, the methods or the learning rates.
      TypeError: its file has an option that this version does not know.
    """
    values = read_record(Path(workdir) / "comparison.json")
    if not values:
        raise ValueError(f"workdir {workdir}: holds no comparison")
    values["config"] = Config(**values["config"])
    for name in ("methods", "lr_grid"):
        values[name] = tuple(values[name])
    return Comparison(**values)


def _settled(
    task: Task | None, comparison: Comparison
) -> tuple[Task | None, Comparison]:
    """Both, once each method is known to fit a user's task, whose size is told."""
    config = comparison.config
    if task is None and not is_own(config.task):
        return task, comparison
    made = task or make_task(config)
    comparison = dataclasses.replace(comparison, config=config_of(made, config))
    for method in comparison.methods:
        check_method(made, comparison.run(method, comparison.lr_grid[0], 0))
    return task, comparison


def _claim(workdir: Path, comparison: Comparison) -> None:
    path = workdir / "comparison.json"
    if path.exists():
        if read_comparison(workdir) != comparison:
            raise ValueError(f"workdir {workdir}: holds another comparison")
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(comparison), indent=2) + "\n")
    # The device is in the records: this process must not take it from its workers.
    environment = {"versions": versions(), "started": now()}
    (workdir / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")


def _run_all(
    run: Callable[[Config], Record], configs: Sequence[Config], workers: int
) -> Iterator[Record]:
    if workers == 1:
        yield from map(run, configs)
        return
    # One thread each: two runs side by side are faster than one run on two threads.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        with concurrent.futures.ProcessPoolExecutor(
            workers, mp_context=multiprocessing.get_context("spawn")
        ) as pool:
            jobs = [pool.submit(run, config) for config in configs]
            for job in concurrent.futures.as_completed(jobs):
                yield job.result()
    finally:
        os.environ["XLA_FLAGS"] = flags
