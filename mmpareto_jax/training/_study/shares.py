"""Runs in shares: of several processes, on any hosts, that see one directory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from mmpareto_jax.training._config import Config
from mmpareto_jax.training._study.records import look, name_of
from mmpareto_jax.training._study.run_once import Record

PATIENCE = 3600.0
_PAUSE = 0.5
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Share:
    """What one of several processes does of a list of runs.

    They know of each other by their records alone; so one that died is missed, and any
    number of processes may go on.

    Attributes:
      num_processes: how many there are, at least 1.
      process_id: which one this is, from 0.
      patience: seconds without a new record after which those that are waited for are
        given up.
      watched: the directory below which any record counts as new; None: the
        comparison's own.

    Raises:
      ValueError: a number that is out of range.
    """

    num_processes: int = 1
    process_id: int = 0
    patience: float = PATIENCE
    watched: Path | None = None

    def __post_init__(self) -> None:
        for name in ("num_processes", "process_id"):
            if not isinstance(getattr(self, name), int):
                raise TypeError(
                    f"{name}: expected an integer, got {getattr(self, name)!r:.60}"
                )
        if not isinstance(self.patience, int | float):
            raise TypeError(f"patience: expected seconds, got {self.patience!r:.60}")
        if self.num_processes < 1:
            raise ValueError(
                f"num_processes: expected at least 1, got {self.num_processes}"
            )
        if not 0 <= self.process_id < self.num_processes:
            raise ValueError(
                f"process_id: expected 0 to {self.num_processes - 1}, "
                f"got {self.process_id}"
            )
        if not self.patience > 0:
            raise ValueError(f"patience: expected seconds > 0, got {self.patience}")

    @property
    def is_first(self) -> bool:
        """Whether this is the process that also waits for all, and tells."""
        return self.process_id == 0

    def missing(
        self, configs: Sequence[Config], records: Sequence[Record]
    ) -> list[Config]:
        """What this process has still to do of all these runs.

        Its own are those at process_id, process_id + num_processes, ..., whichever are
        there already: processes that begin at different times must agree.
        """
        there = {name_of(record) for record in records}
        own = configs[self.process_id :: self.num_processes]
        return [config for config in own if name_of(config) not in there]

    def wait(self, workdir: Path, configs: Sequence[Config]) -> list[Record]:
        """The records of the directory, once those of all these runs are there.

        Raises:
          TimeoutError: nothing came for as long as the patience lasts; says what of
            which share is missing.
        """
        size, since = -1, time.monotonic()
        while True:
            records, _ = look(workdir)
            there = {name_of(record) for record in records}
            missing = {
                i: config
                for i, config in enumerate(configs)
                if name_of(config) not in there
            }
            if not missing:
                return records
            files = (self.watched or workdir).rglob("runs*.jsonl")
            found = sum(path.stat().st_size for path in files)
            if found != size:
                size, since = found, time.monotonic()
            elif time.monotonic() - since > self.patience:
                raise TimeoutError(self._lost(workdir, missing))
            time.sleep(_PAUSE)

    def _lost(self, workdir: Path, missing: dict[int, Config]) -> str:
        shares: dict[int, list[str]] = {}
        for i, config in missing.items():
            run = f"{config.method} lr {config.lr:g} seed {config.seed}"
            shares.setdefault(i % self.num_processes, []).append(run)
        parts = []
        for process_id, runs in sorted(shares.items()):
            more = ", ..." if len(runs) > _NAMED else ""
            named = ", ".join(runs[:_NAMED])
            parts.append(f"{len(runs)} of process {process_id} ({named}{more})")
        return (
            f"workdir {workdir}: no new run in {self.patience:g} s; still missing are "
            f"{'; '.join(parts)}. Start the command again, with any number of "
            "processes: what is there is not repeated"
        )
