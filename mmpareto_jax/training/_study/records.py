"""The files of a comparison's directory, but for tables and figures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpareto_jax._whole_files import write_whole
from mmpareto_jax.training._config import Config, renamed
from mmpareto_jax.training._run.workdir import now, read_record, versions
from mmpareto_jax.training._study.comparison import Comparison
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._tasks.criteria import Measure
from mmpareto_jax.training._tasks.registry import make_task

Run = tuple[str, float, int]


def name_of(run: Config | Record) -> Run:
    """What a comparison knows a run by: method, learning rate and seed."""
    if isinstance(run, Config):
        return run.method, run.lr, run.seed
    return run["method"], run["lr"], run["seed"]


def claim(workdir: Path, comparison: Comparison) -> None:
    """Makes the directory this comparison's: writes its ``comparison.json``.

    Raises:
      ValueError: it holds another one, or one that is not readable.
    """
    path = workdir / "comparison.json"
    if path.exists():
        there = dataclasses.asdict(read_comparison(workdir))
        now = dataclasses.asdict(comparison)
        # Of the config, too, each option by its name.
        there |= there.pop("config")
        now |= now.pop("config")
        differ = [f"{k} {there[k]} (now {now[k]})" for k in now if there[k] != now[k]]
        if differ:
            raise ValueError(
                f"workdir {workdir}: holds another comparison: {', '.join(differ)}"
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    _write(path, dataclasses.asdict(comparison))


def unclaim(workdir: Path) -> None:
    """Takes back what a comparison wrote that never finished a run."""
    for name in ("comparison.json", "environment.json", "runs.jsonl"):
        (workdir / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others' files may be there
        workdir.rmdir()


def describe(
    workdir: Path, measures: Sequence[Measure], timed: Mapping[str, Any]
) -> None:
    """Writes ``environment.json``; of an earlier part of the comparison it is kept.

    Args:
      workdir: of the comparison.
      measures: of the task, the main one first.
      timed: method -> what was timed.
    """
    path = workdir / "environment.json"
    there = read_record(path)
    # The device is in the records: this process must not take it from its workers.
    begun = {"versions": versions(), "started": now(), **there}
    begun["measures"] = [measure._asdict() for measure in measures]
    begun["together"] = {**there.get("together", {}), **timed}
    _write(path, begun)


def _write(path: Path, values: dict[str, Any]) -> None:
    """At once, so that no other process reads half of it."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


class Records:
    """The file to which one process appends its records."""

    def __init__(self, workdir: Path, process_id: int):
        name = f"runs-{process_id}.jsonl" if process_id else "runs.jsonl"
        self._file = (workdir / name).open("a+b")
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            # A killed process left half a line.
            if self._file.read(1) != b"\n":
                self._file.write(b"\n")

    def append(self, record: Record) -> None:
        """Writes a line."""
        self._file.write((json.dumps(record) + "\n").encode())
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _files(workdir: Path) -> list[Path]:
    """Those that processes append to, that of the first one first."""
    return [*workdir.glob("runs.jsonl"), *sorted(workdir.glob("runs-*.jsonl"))]


def read_runs(workdir: str | Path) -> list[Record]:
    """The records in a comparison's directory, of whichever process.

    A line that was cut off (a killed process) is left out; of a run that two processes
    did there is one record.

    Args:
      workdir: the directory; one without ``runs.jsonl`` has no records.

    Returns:
      What ``compare`` returned, or what is there of it.
    """
    found: dict[Run, Record] = {}
    for path in _files(Path(workdir)):
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found.setdefault(name_of(record), record)
    return list(found.values())


def read_comparison(workdir: str | Path) -> Comparison:
    """What the directory's comparison is.

    Args:
      workdir: the directory that ``compare`` was given.

    Returns:
      The comparison, equal to the one that ``compare`` was given; of a task of one's
      own, its config says how many training examples there were.

    Raises:
      ValueError: there is none, or it is not readable, or has a value that this
        version does not know; or the prepared data that it names are gone.
      KeyError: its file lacks the config, the methods or the learning rates.
      TypeError: its file has an option that this version does not know.
    """
    values = read_record(Path(workdir) / "comparison.json")
    if not values:
        raise ValueError(f"workdir {workdir}: holds no comparison")
    values["config"] = Config(**renamed(values["config"]))
    for name in ("methods", "lr_grid"):
        values[name] = tuple(values[name])
    return Comparison(**values)


def read_measures(workdir: str | Path) -> tuple[Measure, ...]:
    """The measures of the directory's comparison, the main one first.

    Args:
      workdir: the directory that ``compare`` was given.

    Returns:
      Those that stand in ``environment.json``; of a comparison of an older version
      those of the task, which is made for it.

    Raises:
      ValueError: as of ``read_comparison``; or the task cannot be made.
    """
    written: Sequence[Any] = read_record(Path(workdir) / "environment.json").get(
        "measures", ()
    )
    if written:
        return tuple(Measure(**values) for values in written)
    return make_task(read_comparison(workdir).config).measures
