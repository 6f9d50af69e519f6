"""The metrics of a run as they are on disk: one JSON line per record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    r"""The records of a run, in order.

    A last line that was cut off (a killed process) is left out.

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
    path = Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


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
