"""Runs of one method side by side, in one program; and whether that is faster."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax.data import train_batches
from mmpareto_jax.training._batch import Batch
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._run.numbers import numbers
from mmpareto_jax.training._run.state import TrainState, diverged
from mmpareto_jax.training._run.step import Program
from mmpareto_jax.training._study.run_once import (
    Record,
    Trained,
    merit,
    program_of,
    record_of,
    run_once,
)
from mmpareto_jax.training._tasks.base import Task

# Timed steps are this many in a row, and so many times.
_STEPS, _REPEATS = 5, 3


class Measured(NamedTuple):
    """What it costs to run several side by side.

    Attributes:
      runs: how many; less than was asked for where more do not fit the memory.
      ratio: the time of a step of all of them, over that of a step of each; None where
        it was not measured: nothing could be gained.
    """

    runs: int
    ratio: float | None

    @property
    def faster(self) -> int:
        """How many at a time are faster: all of them, or 1."""
        return self.runs if self.ratio is not None and self.ratio < 1 else 1


def run_together(
    configs: Sequence[Config],
    *,
    task: Task | None = None,
    inspect: bool = True,
) -> list[Record]:
    """Runs that differ in seed and learning rate, side by side.

    Each has its own order of batches, and its own best epoch; its numbers are those of
    ``run_once`` but for rounding. Where they do not fit the memory, half of them are
    run at a time; where the method does something between epochs, one.

    Args:
      configs: of the runs, at least one.
      task: what they learn; None: what the configs name.
      inspect: as of ``run_once``.

    Returns:
      Their records, in the same order; "together" is the number of runs.
    """
    if len(configs) == 1:
        return [run_once(configs[0], task=task, inspect=inspect)]
    made, program = program_of(configs[0], task)
    size = 1
    if program.between_epochs is None:
        try:
            return _records(program, made, configs, inspect)
        except jax.errors.JaxRuntimeError as error:
            if not _is_of_memory(error):
                raise
        size = -(-len(configs) // 2)
    return [
        record
        for begin in range(0, len(configs), size)
        for record in run_together(
            configs[begin : begin + size], task=task, inspect=inspect
        )
    ]


def measure(configs: Sequence[Config], *, task: Task | None = None) -> Measured:
    """Times a few steps of these runs, side by side and one after the other.

    Compilation is not counted. But where it takes longer than all steps of the runs,
    there is nothing to gain, and none is timed.

    Args:
      configs: of the runs, of one method.
      task: what they learn; None: what the configs name.
    """
    made, program = program_of(configs[0], task)
    runs = len(configs)
    if runs == 1 or program.between_epochs is not None:
        return Measured(1, None)
    start = time.perf_counter()
    one = _One(program, made, configs[0])
    jax.block_until_ready(one.take())
    compiling, single = time.perf_counter() - start, _seconds(one)
    if compiling > runs * configs[0].num_steps * single:
        return Measured(1, None)
    try:
        return Measured(runs, _ratio(one, _Many(program, made, configs)) / runs)
    except jax.errors.JaxRuntimeError as error:
        if not _is_of_memory(error):
            raise
    return measure(configs[: runs // 2], task=task)


def _ratio(one: _One, many: _Many) -> float:
    """The time of a step of many, over that of a step of one."""
    jax.block_until_ready(many.take())
    # In turn, so that other load on the machine falls on both alike.
    times = [(_seconds(one), _seconds(many)) for _ in range(_REPEATS)]
    alone, together = (statistics.median(x) for x in zip(*times, strict=True))
    return float(together / alone)


def _seconds(steps: _One | _Many) -> float:
    """Of a step, with the making of its batch."""
    start = time.perf_counter()
    jax.block_until_ready([steps.take() for _ in range(_STEPS)])
    return (time.perf_counter() - start) / _STEPS


class _One:
    """A run's steps, as ``fit`` takes them."""

    def __init__(self, program: Program, task: Task, config: Config):
        self._step = program.logged
        self._state = program.restart(config.seed, config.lr)
        self._batches = _order(task, config)
        example = next(_order(task, config))
        self._empty = program.tally(self._state, example).empty()

    def take(self) -> jax.Array:
        """A step; its metrics, packed."""
        batch = next(self._batches)
        self._state, tally = self._step(self._state, self._empty, batch)
        return tally


class _Many:
    """The steps of several runs.

    Attributes:
      state: of all, stacked.
      packing: how the metrics of one are packed.
    """

    def __init__(self, program: Program, task: Task, configs: Sequence[Config]):
        first = [program.restart(config.seed, config.lr) for config in configs]
        self.packing = program.tally(first[0], next(_order(task, configs[0])))
        self.state: TrainState = jax.tree.map(lambda *x: jnp.stack(x), *first)
        self._step = program.logged_each
        self._orders = [_order(task, config) for config in configs]
        self._empty = np.stack([self.packing.empty()] * len(configs))

    def take(self) -> jax.Array:
        """A step of each; their metrics, packed and stacked."""
        batches = [next(order) for order in self._orders]
        batch = jax.tree.map(lambda *x: np.stack(x), *batches)
        self.state, tally = self._step(self.state, self._empty, batch)
        return tally


def _order(task: Task, config: Config) -> Iterator[Batch]:
    """The batches of a run."""
    batches = train_batches(
        task.data["train"],
        batch_size=config.batch_size,
        seed=config.seed,
        transform=task.transform,
    )
    return map(numbers, batches)


def _records(
    program: Program, task: Task, configs: Sequence[Config], inspect: bool
) -> list[Record]:
    """Trains all of them at once."""
    start, runs, config = time.perf_counter(), len(configs), configs[0]
    many = _Many(program, task, configs)
    best = jax.tree.map(jnp.copy, many.state)
    merits, validation = np.full(runs, -np.inf), [dict[str, float]() for _ in configs]
    has_best = np.zeros(runs, bool)
    tallies = []
    for step in range(1, config.num_steps + 1):
        tallies.append(many.take())
        if not config.ends_epoch(step):
            continue
        scores = program.evaluate_each(many.state, task.data["validation"])
        found = np.array([merit(task, x) for x in scores])
        # A run that has ended has no more epochs; but for a first one.
        goes_on = ~_ended(many.state, config) | ~has_best
        wins, has_best = goes_on & (found >= merits), has_best | True
        best = _chosen(wins, many.state, best)
        merits = np.where(wins, found, merits)
        validation = [
            new if won else old
            for new, old, won in zip(scores, validation, wins, strict=True)
        ]
    seen = jax.device_get(tallies)
    seconds = (time.perf_counter() - start) / runs

    def record(run: int) -> Record:
        last, own = jax.tree.map(lambda x: x[run], (many.state, best))
        steps = [
            many.packing.record(tally[run], 1)
            for tally in seen
            if many.packing.steps(tally[run])
        ]
        trained = Trained(last, own, validation[run], steps, seconds)
        return record_of(program, task, configs[run], trained, inspect)

    return [record(run) | {"together": runs} for run in range(runs)]


def _ended(states: TrainState, config: Config) -> np.ndarray:
    """[runs], whether steps that were not finite have ended a run."""
    if config.ends_after is None:
        return np.zeros(len(states.step), bool)
    found: np.ndarray = diverged(np.asarray(states.streak), config.ends_after)
    return found


@jax.jit
def _chosen(wins: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    """By run the new state, or the old one."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(wins.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    found: TrainState = jax.tree.map(choose, new, old)
    return found


def _is_of_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)
