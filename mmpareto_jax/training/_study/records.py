"""The files of a comparison's directory, but for tables and figures."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpareto_jax._whole_files import check_plain, naming, whole_file, write_whole
from mmpareto_jax.training._config import Config, renamed
from mmpareto_jax.training._run.damaged import FOLDER, say
from mmpareto_jax.training._run.workdir import now, read_record, versions, workdir_of
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
    if not isinstance(there.get("together", {}), dict):
        reason = f"together: expected an object, got {there['together']}"
        raise ValueError(_unreadable(path, reason))
    # The device is in the records: this process must not take it from its workers.
    begun = {"versions": versions(), "started": now(), **there}
    begun["measures"] = [measure._asdict() for measure in measures]
    begun["together"] = {**there.get("together", {}), **timed}
    _write(path, begun)


def _write(path: Path, values: dict[str, Any]) -> None:
    """At once, so that no other process reads half of it."""
    write_whole(path, json.dumps(values, indent=2) + "\n")


class Records:
    """The file to which one process appends its records.

    Lines that hold none are moved to ``WORKDIR/damaged`` first, but for the end of one
    that was cut off with the process that wrote it.
    """

    def __init__(self, workdir: Path, process_id: int):
        name = f"runs-{process_id}.jsonl" if process_id else "runs.jsonl"
        self._path = workdir / name
        if self._path.exists():
            _mend(self._path)
        self._file = self._path.open("ab")

    def append(self, record: Record) -> None:
        """Writes a line, and waits until it is on disk.

        Raises:
          OSError: it cannot be written; what was there before stays.
        """
        with naming(self._path):
            self._file.write((json.dumps(record) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        # What is left in the buffer is what `append` could not write.
        with contextlib.suppress(OSError):
            self._file.close()


def _mend(path: Path) -> None:
    """Leaves whole records only: the next one begins on a line of its own."""
    text = path.read_bytes()
    lines = list(_lines(text))
    kept = b"".join(line + b"\n" for line, record in lines if record is not None)
    if kept == text:
        return
    lost = [line for line, record in lines if record is None]
    if lost and not text.endswith(b"\n") and text.endswith(lost[-1]):
        lost.pop()
    if lost:
        aside = path.parent / FOLDER / path.name
        aside.parent.mkdir(exist_ok=True)
        with naming(aside), aside.open("ab") as file:
            file.write(b"".join(line + b"\n" for line in lost))
        say(f"{path}: moved {_counted(len(lost))} no record to {aside}")
    with whole_file(path) as whole:
        whole.write(kept)


def _lines(text: bytes) -> Iterator[tuple[bytes, Record | None]]:
    """The lines but for blank ones, each with the record that it holds, if any."""
    for line in text.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        if line := line.strip():
            yield line, _record(line)


def _record(line: bytes) -> Record | None:
    """What a line holds; None where that is not the record of a run."""
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and _is_record(found) else None


def _is_record(found: Record) -> bool:
    """Whether it names its run, and has the scores that are looked at."""
    kinds: dict[str, Any] = {"method": str, "lr": int | float, "seed": int}
    kinds |= dict.fromkeys(("validation", "test", "groups"), dict)
    return all(
        isinstance(found.get(name), kind) and not isinstance(found[name], bool)
        for name, kind in kinds.items()
    ) and bool(found["validation"])


def _counted(lines: int) -> str:
    return "1 line that holds" if lines == 1 else f"{lines} lines that hold"


def _files(workdir: Path) -> list[Path]:
    """Those that processes append to, that of the first one first."""
    return [*workdir.glob("runs.jsonl"), *sorted(workdir.glob("runs-*.jsonl"))]


def read_runs(workdir: str | Path) -> list[Record]:
    """The records in a comparison's directory, of whichever process.

    A line that holds no record is left out: the last one, cut off with the process that
    wrote it, without a word; others with a warning that says how many they are. Of a
    run that two processes did there is one record.

    Args:
      workdir: the directory; one without ``runs.jsonl`` has no records.

    Returns:
      What ``compare`` returned, or what is there of it.
    """
    records, lost = look(workdir_of("read_runs", workdir))
    for path, number in lost.items():
        say(f"{path}: left out {_counted(number)} no record")
    return records


def look(workdir: str | Path) -> tuple[list[Record], dict[Path, int]]:
    """As ``read_runs``, silently; and file -> how many lines of it are left out."""
    found: dict[Run, Record] = {}
    lost: dict[Path, int] = {}
    for path in _files(Path(workdir)):
        try:
            check_plain(path, None)
        except ValueError as error:
            raise ValueError(_unreadable(path, str(error))) from None
        text = path.read_bytes()
        for line, record in _lines(text):
            if record is not None:
                found.setdefault(name_of(record), record)
            elif not text.endswith(line):
                lost[path] = lost.get(path, 0) + 1
    return list(found.values()), lost


def read_comparison(workdir: str | Path) -> Comparison:
    """What the directory's comparison is.

    Args:
      workdir: the directory that ``compare`` was given.

    Returns:
      The comparison, equal to the one that ``compare`` was given; of a task of one's
      own, its config says how many training examples there were.

    Raises:
      ValueError: there is none, or it is not readable, or has an option or a value that
        this version does not know; or the prepared data that it names are gone.
    """
    workdir = workdir_of("read_comparison", workdir)
    values = read_record(workdir / "comparison.json")
    if not values:
        raise ValueError(f"workdir {workdir}: holds no comparison")
    try:
        return _comparison(values)
    except KeyError as error:
        reason = f"without {error.args[0]}"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise ValueError(_unreadable(workdir / "comparison.json", reason))


def _comparison(values: dict[str, Any]) -> Comparison:
    """What the values of a file say, if they are of the types that they should be."""
    config = values["config"]
    if not isinstance(config, dict):
        raise TypeError(f"config: expected an object, got {config!r:.60}")
    for name, kind in (("methods", str), ("lr_grid", int | float)):
        found = values[name]
        if not isinstance(found, list) or not all(isinstance(x, kind) for x in found):
            expected = "names" if kind is str else "numbers"
            raise TypeError(f"{name}: expected a list of {expected}, got {found!r:.60}")
    for name in ("seeds", "tune_seeds"):
        if not isinstance(values.get(name, 2), int):
            raise TypeError(f"{name}: expected a number, got {values[name]!r:.60}")
    lists = {name: tuple(values[name]) for name in ("methods", "lr_grid")}
    return Comparison(**{**values, **lists, "config": Config(**renamed(config))})


def _unreadable(path: Path, reason: str) -> str:
    return (
        f"workdir {path.parent}: unreadable {path.name}: {reason}; mend it, or choose "
        "another --workdir"
    )


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
    workdir = Path(workdir)
    path = workdir / "environment.json"
    written = read_record(path).get("measures", ())
    if not written:
        return make_task(read_comparison(workdir).config).measures
    try:
        return tuple(Measure(**values) for values in written)
    except TypeError as error:
        raise ValueError(_unreadable(path, f"measures: {error}")) from None


def read_step_times(workdir: Path) -> dict[str, float]:
    """What the steps of methods cost, as ``mmpareto compare`` has measured it.

    Raises:
      ValueError: its file is not readable.
    """
    path = workdir / "step_times.json"
    times = read_record(path)
    for method, time in times.items():
        if not isinstance(time, int | float):
            raise ValueError(
                f"workdir {workdir}: unreadable {path.name}: {method}: expected a "
                f"number, got {time!r:.60}; remove it, and it is measured anew"
            )
    return times
