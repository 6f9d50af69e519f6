"""The metrics of a run as they are on disk: one JSON line per record."""

from __future__ import annotations

import codecs
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpareto_jax._whole_files import check_plain, whole_file
from mmpareto_jax.training._run.damaged import FOLDER, say

_NAME = "metrics.jsonl"


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    r"""The records of a run, in order.

    A line that holds none is left out: the last one, cut off by the end of a process,
    without a word; others with a warning that says how many they are.

    Args:
      workdir: the run's directory; one without ``metrics.jsonl`` has no
        records.

    Returns:
      For each record a dict: "step", "split" ("train" every ``log_every`` steps and
      where an epoch ends, "validation" at the end of an epoch and of the run, "probe"
      every ``probe_every`` steps), and numbers and bools by name, None for what was not
      finite. One of split "train" is the mean over "steps" steps, which is left out
      where it is 1; ``Callback.on_step`` says what it has.

    Example:
      >>> import pathlib, tempfile
      >>> from mmpareto_jax.training import read_metrics
      >>> with tempfile.TemporaryDirectory() as name:
      ...     path = pathlib.Path(name)
      ...     whole, cut_off = '{"step": 1, "split": "train"}', '{"step": 2, "sp'
      ...     _ = (path / "metrics.jsonl").write_text(f"{whole}\n{cut_off}")
      ...     read_metrics(path)
      [{'step': 1, 'split': 'train'}]
    """
    path = Path(workdir) / _NAME
    if not path.exists():
        return []
    records, damaged = [], 0
    for text, record in _lines(path):
        if record is not None:
            records.append(record)
        elif not _is_cut_off(text):
            damaged += 1
    if damaged:
        lines = "line that holds" if damaged == 1 else "lines that hold"
        say(f"workdir {workdir}: {_NAME}: left out {damaged} {lines} no record")
    return records


def records_of(workdir: Path) -> Iterator[dict[str, Any]]:
    """What ``read_metrics`` reads, one by one and without a word."""
    path = workdir / _NAME
    if path.exists():
        yield from (record for _, record in _lines(path) if record is not None)


def keep_records(workdir: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> int:
    """Drops the records that are not wanted; the file is rewritten whole, if at all.

    Lines that hold no record are moved to ``WORKDIR/damaged/metrics.jsonl``, and a
    warning says how many; but for the last one, where it was cut off.

    Args:
      workdir: the run's directory.
      wanted: whether a record stays.

    Returns:
      The last step of the records that stay; 0 where there are none.
    """
    path = workdir / _NAME
    if not path.exists():
        return 0
    last, changed, damaged = 0, False, 0
    for text, record in _lines(path):
        if record is None:
            damaged += not _is_cut_off(text)
        elif wanted(record):
            last = max(last, record["step"])
        stays = record is not None and wanted(record) and not _is_cut_off(text)
        changed = changed or not stays
    if damaged:
        aside = workdir / FOLDER / _NAME
        _append(aside, (x for x, r in _lines(path) if r is None and not _is_cut_off(x)))
        lines = "line that holds" if damaged == 1 else "lines that hold"
        say(f"workdir {workdir}: moved {damaged} {lines} no record to {aside}")
    if changed:
        with whole_file(path) as file:
            for text, record in _lines(path):
                if record is not None and wanted(record):
                    file.write(text.rstrip(b"\r\n") + b"\n")
    return last


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """The lines as they stand, but for blank ones; with the record that each holds."""
    try:
        check_plain(path, None)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with path.open("rb") as file:
        for line_of_file in file:
            text = line_of_file.removeprefix(codecs.BOM_UTF8)
            if text.strip():
                yield text, _record(text)


def _record(text: bytes) -> dict[str, Any] | None:
    """What a line holds: an object with a step and a split; None: something else."""
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("split"), str):
        return None
    return found if type(found.get("step")) is int else None


def _is_cut_off(text: bytes) -> bool:
    """Whether it is the end of a file whose process was killed."""
    return not text.endswith(b"\n")


def _append(path: Path, texts: Iterator[bytes]) -> None:
    """Adds lines to a file, and waits until they are on disk."""
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.writelines(texts)
        file.flush()
        os.fsync(file.fileno())


def conflict_share(records: Sequence[Mapping[str, Any]], group: str) -> float | None:
    """The share of steps with a conflict, whatever the records are means of.

    Args:
      records: of ``read_metrics``, of split "train".
      group: of parameters, by its name in the records.

    Returns:
      From 0 to 1, of the steps that found weights; None where none did.

    Example:
      >>> from mmpareto_jax.training import conflict_share
      >>> records = [
      ...     {"step": 4, "steps": 4, "a+b/conflict": 0.25},
      ...     {"step": 5, "a+b/conflict": True},
      ... ]
      >>> conflict_share(records, "a+b")
      0.4
    """
    name, conflicts, steps = f"{group}/conflict", 0, 0
    for record in records:
        if (share := record.get(name)) is not None:
            number = int(record.get(f"{name}_count", record.get("steps", 1)))
            conflicts += round(share * number)  # a mean of so many zeros and ones
            steps += number
    return conflicts / steps if steps else None


def line(record: Mapping[str, Any]) -> str:
    """A record as it stands in the file, which ``read_metrics`` reads."""
    return json.dumps(record) + "\n"


def plain(value: Any) -> float | bool | None:
    """A scalar as JSON has it: no NaN, no infinity."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return value
    return float(value) if math.isfinite(value) else None
