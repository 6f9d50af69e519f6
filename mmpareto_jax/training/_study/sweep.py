"""A designed sweep: where do conflicts matter, and does MMPareto gain there?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpareto_jax.training._config import Config
from mmpareto_jax.training._study.compare import Comparison, compare
from mmpareto_jax.training._study.summary import CONTROL, Difference, summarize
from mmpareto_jax.training._tasks.registry import make_task

# What each setting changes, one thing at a time.
SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "batch 16": {"batch_size": 16},
    "batch 128": {"batch_size": 128, "epochs": 40},
    "random images 30 %": {"visual_label_noise": 0.3},
    "random images 60 %": {"visual_label_noise": 0.6},
    "contradictions 30 %": {"contradiction": 0.3},
    "contradictions 60 %": {"contradiction": 0.6},
    "three modalities": {"modalities": 3},
    "MMTM": {"fusion": "mmtm"},
    "FiLM": {"fusion": "film"},
    "CentralNet": {"fusion": "central"},
    "bottleneck transformer": {"fusion": "bottleneck", "encoder": "transformer"},
    "width 16": {"width": 16},
    "5 epochs": {"epochs": 5},
    "40 epochs": {"epochs": 40},
}
_METHODS = (CONTROL, "mmpareto")


@dataclasses.dataclass(frozen=True)
class SweepRow:
    """One setting.

    Attributes:
      setting: its name.
      conflict: share of conflicting steps under MMPareto, the mean over groups.
      control: mean test accuracy of uniform × γ, in %.
      ours: that of MMPareto.
      difference: the paired difference of the two.
      corrected: its p-value after Holm's correction for all settings.
    """

    setting: str
    conflict: float
    control: float
    ours: float
    difference: Difference
    corrected: float


def sweep(
    config: Config,
    workdir: str | Path,
    *,
    settings: Sequence[str] = tuple(SETTINGS),
    lr_grid: tuple[float, ...] = (0.05, 0.1, 0.2),
    seeds: int = 8,
    tune_seeds: int = 1,
    workers: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[SweepRow]:
    """Compares MMPareto with uniform × γ in every setting.

    Args:
      config: what all settings share.
      workdir: a comparison's directory for each setting; what is there is not repeated.
      settings: names of ``SETTINGS``.
      lr_grid: learning rates; each method gets its own best one in each setting.
      seeds: final runs of a method.
      tune_seeds: runs for each learning rate.
      workers: processes.
      progress: called as ``progress(settings done, settings, setting)``.

    Returns:
      A row for each setting.

    Raises:
      ValueError: an unknown setting.
    """
    for name in settings:
        if name not in SETTINGS:
            raise ValueError(f"settings: expected some of {list(SETTINGS)}, got {name}")
    rows = []
    for number, name in enumerate(settings):
        if progress is not None:
            progress(number, len(settings), name)
        comparison = Comparison(
            dataclasses.replace(config, **SETTINGS[name]),
            _METHODS,
            lr_grid,
            seeds,
            tune_seeds,
        )
        directory = Path(workdir) / name.replace(" ", "-").replace("%", "percent")
        records = compare(comparison, directory, workers=workers, inspect=False)
        measures = make_task(comparison.config).measures[:1]
        found = {row.method: row for row in summarize(comparison, records, measures)}
        ours, control = found["mmpareto"], found[CONTROL]
        main = measures[0].name
        rows.append(
            SweepRow(
                name,
                float(np.mean(list(ours.conflict.values()))),
                float(control.scores[main].mean()),
                float(ours.scores[main].mean()),
                ours.differences[CONTROL],
                0.0,
            )
        )
    corrected = holm([row.difference.p for row in rows])
    return [
        dataclasses.replace(row, corrected=p)
        for row, p in zip(rows, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values after Holm's step-down correction for their number.

    Example:
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(np.argsort(p_values)):
        largest = max(largest, (len(p_values) - rank) * p_values[k])
        corrected[k] = min(1.0, largest)
    return corrected


def sweep_markdown(rows: Sequence[SweepRow]) -> str:
    """The map as a table."""
    lines = [
        "| setting | conflicts % | uniform × γ | mmpareto | mmpareto − uniform × γ | "
        "p, corrected |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.setting} | {100 * row.conflict:.1f} | {row.control:.1f} | "
        f"{row.ours:.1f} | {row.difference} | {row.corrected:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)
