"""Metrics of a run: one JSON line per record, and the same for TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class Metrics:
    """Writes metrics; a resumed run drops what lies after the step it resumes from."""

    def __init__(self, workdir: Path, resume_step: int):
        self._path = workdir / "metrics.jsonl"
        kept = [r for r in read_metrics(workdir) if r["step"] <= resume_step]
        self._path.write_text("".join(_line(r) for r in kept))
        self._file = self._path.open("a")
        self._board = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=resume_step + 1
        )

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Appends one record: scalars by name."""
        record = {k: _plain(v) for k, v in values.items()}
        self._file.write(_line({"step": step, "split": split, **record}))
        for name, value in record.items():
            if value is not None:
                # TensorBoard has no "+" in its names.
                tag = f"{split}/{name.replace('+', '_')}"
                self._board.add_scalar(tag, float(value), step)

    def flush(self) -> None:
        """Brings everything to the files."""
        self._file.flush()
        self._board.flush()

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self._board.close()


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    r"""The records of a run, in order.

    A last line that was cut off (a killed process) is left out.

    Args:
      workdir: the run's directory; one without ``metrics.jsonl`` has no
        records.

    Returns:
      For each record a dict: "step", "split" ("train" at every step, "validation" at
      the end of an epoch and of the run, "probe" every ``probe_every`` steps), and
      numbers and bools by name, None for what was not finite.

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


def _plain(value: Any) -> float | bool | None:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool):
        return value
    # JSON has no NaN: a share of no weight is null.
    return float(value) if math.isfinite(value) else None


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"
