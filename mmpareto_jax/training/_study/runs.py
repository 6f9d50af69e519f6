"""The runs of a comparison: here or in other processes, one by one or side by side."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal

from mmpareto_jax.training._config import Config
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._study.together import Measured, measure, run_together
from mmpareto_jax.training._study.workers import Pool, pool, visible_gpus
from mmpareto_jax.training._tasks.base import Task

Together = int | Literal["auto"]
# Runs side by side, at most.
_TOGETHER = 16


class Runs:
    """Does runs: in this process or in others, one by one or side by side."""

    def __init__(self, task: Task | None, workers: int, together: Together):
        self._run = functools.partial(run_together, task=task)
        self._measure = functools.partial(measure, task=task)
        self._workers = workers
        # On a thread each, runs side by side are slower (tests/benchmarks/NOTES.md).
        on_threads = workers > 1 and not visible_gpus(os.environ)
        self._together = 1 if together == "auto" and on_threads else together
        self._measured: dict[str, Measured] = {}

    def all(
        self, configs: Sequence[Config], inspect: bool
    ) -> Generator[Record, None, None]:
        """The records of these runs, as they are finished."""
        run = functools.partial(_named, functools.partial(self._run, inspect=inspect))
        groups = self._groups(configs)
        if self._workers == 1:
            for group in groups:
                self._time([group], None)
                for part in self._parts(group):
                    yield from run(part)
        elif configs:
            with pool(self._workers) as others:
                self._time(groups, others)
                parts = [part for group in groups for part in self._parts(group)]
                for _, records in others.each(run, parts, _name):
                    yield from records

    def timed(self) -> dict[str, Any]:
        """Method -> what was timed, for ``environment.json``."""
        return {method: found._asdict() for method, found in self._measured.items()}

    def _groups(self, configs: Sequence[Config]) -> list[list[Config]]:
        """Those of each method, which share their program."""
        groups: dict[str, list[Config]] = {}
        for config in configs:
            groups.setdefault(config.method, []).append(config)
        return list(groups.values())

    def _time(self, groups: Sequence[Sequence[Config]], others: Pool | None) -> None:
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
        parts = [group[:largest] for group in new]
        measure = functools.partial(_named, self._measure)
        if others is None:
            found = [*enumerate(map(measure, parts))]
        else:
            found = sorted(others.each(measure, parts, _name))
        self._measured |= {new[i][0].method: measured for i, measured in found}

    def _parts(self, group: Sequence[Config]) -> Iterator[Sequence[Config]]:
        """What is run side by side; all about equally many."""
        size = self._together
        if size == "auto":
            measured = self._measured.get(group[0].method)
            size = measured.faster if measured else 1
        number = -(-len(group) // size)
        for i in range(number):
            yield group[i * len(group) // number : (i + 1) * len(group) // number]


def _named(do: Callable[[Sequence[Config]], Any], part: Sequence[Config]) -> Any:
    """Does something with runs; what goes wrong there has a note of which these are."""
    try:
        return do(part)
    except Exception as error:
        error.add_note(f"in {_name(part)}")
        raise


def _name(part: Sequence[Config]) -> str:
    """What a message calls runs that are done side by side, of one method."""
    lrs, seeds = (
        ", ".join(dict.fromkeys(f"{value:g}" for value in values))
        for values in ([c.lr for c in part], [c.seed for c in part])
    )
    return f"{part[0].method} lr {lrs} seed {seeds}"
