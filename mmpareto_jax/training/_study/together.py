"""Runs of one method side by side in one program, where that is faster."""

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
from mmpareto_jax.training._run.step import Program, TrainState
from mmpareto_jax.training._study.run_once import (
    Record,
    Trained,
    keep_compiled,
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
    cache: str | None = None,
    inspect: bool = True,
) -> list[Record]:
    """Runs that differ in seed and learning rate, side by side.

    Each has its own order of batches, and its own best epoch; its numbers are those of
    ``run_once`` but for rounding. Where they do not fit the memory, half of them are
    run at a time; where the method does something between epochs, one.

    Args:
      configs: of the runs, at least one.
      task: what they learn; None: what the configs name.
      cache: as of ``run_once``.
      inspect: as of ``run_once``.

    Returns:
      Their records, in the same order; "together" is the number of runs.
    """
    alone = len(configs) == 1
    if not alone:
        keep_compiled(cache)
        alone = program_of(configs[0], task)[1].between_epochs is not None
    if alone:
        return [run_once(c, task=task, cache=cache, inspect=inspect) for c in configs]
    try:
        return _side_by_side(configs, task, inspect)
    except jax.errors.JaxRuntimeError as error:
        if not _is_of_memory(error):
            raise
    half = len(configs) // 2
    return [
        record
        for some in (configs[:half], configs[half:])
        for record in run_together(some, task=task, cache=cache, inspect=inspect)
    ]


def measure(
    configs: Sequence[Config], *, task: Task | None = None, cache: str | None = None
) -> Measured:
    """Times a few steps of these runs, side by side and one after the other.

    Compilation is not counted. But where it takes longer than all steps of the runs,
    there is nothing to gain, and none is timed.

    Args:
      configs: of the runs, of one method.
      task: what they learn; None: what the configs name.
      cache: as of ``run_once``.
    """
    keep_compiled(cache)
    settled, program = program_of(configs[0], task)
    runs = len(configs)
    if runs == 1 or program.between_epochs is not None:
        return Measured(1, None)
    start = time.perf_counter()
    one = _Steps(program, settled, configs[:1])
    compiling, single = time.perf_counter() - start, one.seconds()
    if compiling > runs * configs[0].num_steps * single:
        return Measured(1, None)
    try:
        return Measured(runs, _ratio(one, _Steps(program, settled, configs)))
    except jax.errors.JaxRuntimeError as error:
        if not _is_of_memory(error):
            raise
    return measure(configs[: runs // 2], task=task, cache=cache)


def _ratio(one: _Steps, many: _Steps) -> float:
    # In turn, so that other load on the machine falls on both alike.
    times = [(one.seconds(), many.seconds()) for _ in range(_REPEATS)]
    alone, together = (statistics.median(x) for x in zip(*times, strict=True))
    return float(together / (many.runs * alone))


class _Steps:
    """Steps of runs that go on and on; the first one, which compiles, is done."""

    def __init__(self, program: Program, task: Task, configs: Sequence[Config]):
        self.runs = len(configs)
        if self.runs == 1:
            (config,) = configs
            self._step = program.step
            self._state = program.restart(config.seed, config.lr)
            self._batches = _orders(task, configs)[0]
        else:
            self._step = program.step_each
            self._state = _stacked(program, configs)
            self._batches = _side_by_side_batches(task, configs)
        self._go(1)

    def _go(self, steps: int) -> None:
        for _ in range(steps):
            self._state, _ = self._step(self._state, next(self._batches))
        jax.block_until_ready(self._state.step)

    def seconds(self) -> float:
        """Of a step, with the making of its batch."""
        start = time.perf_counter()
        self._go(_STEPS)
        return (time.perf_counter() - start) / _STEPS


def _side_by_side(
    configs: Sequence[Config], task: Task | None, inspect: bool
) -> list[Record]:
    config, runs = configs[0], len(configs)
    task, program = program_of(config, task)
    start = time.perf_counter()
    state, batches = _stacked(program, configs), _side_by_side_batches(task, configs)
    best = jax.tree.map(jnp.copy, state)
    merits, validation = np.full(runs, -np.inf), [dict[str, float]() for _ in configs]
    steps = []
    for number in range(1, config.num_steps + 1):
        state, values = program.step_each(state, next(batches))
        steps.append(values)
        if number % config.steps_per_epoch and number != config.num_steps:
            continue
        scores = program.evaluate_each(state, task.data["validation"])
        found = np.array([merit(task, x) for x in scores])
        better = found >= merits
        best = _chosen(better, state, best)
        merits = np.where(better, found, merits)
        validation = [
            x if wins else kept
            for x, kept, wins in zip(scores, validation, better, strict=True)
        ]
    seen = jax.device_get(steps)
    seconds = (time.perf_counter() - start) / runs

    def record(i: int) -> Record:
        last, own = (jax.tree.map(lambda x: x[i], x) for x in (state, best))
        metrics = [{k: x[i] for k, x in values.items()} for values in seen]
        trained = Trained(last, own, validation[i], metrics, seconds)
        return record_of(program, task, configs[i], trained, inspect)

    return [record(i) | {"together": runs} for i in range(runs)]


def _stacked(program: Program, configs: Sequence[Config]) -> TrainState:
    """The first states of the runs."""
    states = [program.restart(config.seed, config.lr) for config in configs]
    found: TrainState = jax.tree.map(lambda *x: jnp.stack(x), *states)
    return found


def _orders(task: Task, configs: Sequence[Config]) -> list[Iterator[Batch]]:
    """The batches of each run."""
    return [
        train_batches(
            task.data["train"],
            batch_size=config.batch_size,
            seed=config.seed,
            transform=task.transform,
        )
        for config in configs
    ]


def _side_by_side_batches(task: Task, configs: Sequence[Config]) -> Iterator[Batch]:
    for batches in zip(*_orders(task, configs), strict=True):
        yield jax.tree.map(lambda *x: np.stack(x), *batches)


@jax.jit
def _chosen(better: jax.Array, new: TrainState, old: TrainState) -> TrainState:
    """By run the new state, or the old one."""

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    found: TrainState = jax.tree.map(choose, new, old)
    return found


def _is_of_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)
