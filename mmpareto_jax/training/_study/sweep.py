"""A designed sweep: where do conflicts matter, and does MMPareto gain there?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpareto_jax.training._config import Config
from mmpareto_jax.training._study.compare import compare_share
from mmpareto_jax.training._study.comparison import Comparison
from mmpareto_jax.training._study.records import read_measures
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._study.runs import Together
from mmpareto_jax.training._study.scores import Difference, holm, mean_of
from mmpareto_jax.training._study.shares import PATIENCE, Share
from mmpareto_jax.training._study.summary import CONTROL, summarize
from mmpareto_jax.training._tasks.criteria import Measure

# What each setting changes, one thing at a time, with what that needs beside it.
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
      conflict: share of conflicting steps under MMPareto, from 0 to 1, the mean over
        groups and seeds.
      control: mean test accuracy of uniform × γ, in %.
      ours: that of MMPareto.
      difference: the paired difference MMPareto − uniform × γ, of ``paired``.
      corrected: its p-value after Holm's correction for all settings of the sweep.
      diverged: how many of the runs did; means and differences are of the others.
    """

    setting: str
    conflict: float
    control: float
    ours: float
    difference: Difference
    corrected: float
    diverged: int = 0


def sweep(
    config: Config,
    workdir: str | Path,
    *,
    settings: Sequence[str] = tuple(SETTINGS),
    lr_grid: tuple[float, ...] = (0.05, 0.1, 0.2),
    seeds: int = 8,
    tune_seeds: int = 1,
    workers: int | None = None,
    together: Together = "auto",
    num_processes: int = 1,
    process_id: int = 0,
    patience: float = PATIENCE,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[SweepRow]:
    """Compares MMPareto with uniform × γ in every setting.

    Args:
      config: what all settings share.
      workdir: where each setting has a comparison's directory, named after it; created
        if it does not exist. What is there is not repeated.
      settings: names of ``SETTINGS``, at least one.
      lr_grid: learning rates; each method gets its own best one in each setting.
      seeds: final runs of a method, at least 2.
      tune_seeds: runs for each learning rate, at least 1.
      workers: as of ``compare``.
      together: as of ``compare``.
      num_processes: as of ``compare``.
      process_id: as of ``compare``.
      patience: as of ``compare``; a new record in any setting counts.
      progress: called as ``progress(settings done, settings, setting)``, before each.

    Returns:
      A row for each setting, in their order; none in other processes than the first.

    Raises:
      TypeError: an argument is of another type.
      ValueError: an unknown setting; as of ``Comparison`` (a learning rate twice, too
        few runs, an option that `config` cannot have beside a setting) and of
        ``compare`` (a directory that holds another comparison).
      TimeoutError: as of ``compare``.

    Example:
      >>> from mmpareto_jax.training import Config, sweep
      >>> sweep(Config(), "sweeps", settings=("batch 7",))
      Traceback (most recent call last):
      ValueError: settings: expected some of ['as it is', 'batch 16', ...], got batch 7
    """
    given: Any = config
    if not (isinstance(given, Config) and isinstance(workdir, str | Path)):
        found = f"{type(config).__name__}, {type(workdir).__name__}"
        raise TypeError(f"sweep: expected a Config and a path, got {found}")
    if isinstance(settings, str) or not isinstance(settings, Sequence) or not settings:
        raise TypeError(
            "settings: expected a sequence of names, at least one, got "
            f"{settings!r:.60}"
        )
    for name in settings:
        if name not in SETTINGS:
            raise ValueError(f"settings: expected some of {list(SETTINGS)}, got {name}")
    workdir = Path(workdir)
    share = Share(num_processes, process_id, patience, watched=workdir)
    comparisons = {
        name: Comparison(
            dataclasses.replace(config, **SETTINGS[name]),
            _METHODS,
            lr_grid,
            seeds,
            tune_seeds,
        )
        for name in settings
    }
    rows = []
    for number, (name, comparison) in enumerate(comparisons.items()):
        if progress is not None:
            progress(number, len(settings), name)
        directory = workdir / name.replace(" ", "-").replace("%", "percent")
        records = compare_share(
            None,
            comparison,
            directory,
            share,
            workers=workers,
            together=together,
            inspect=False,
            progress=None,
        )
        if share.is_first:
            rows.append(_row(name, comparison, records, read_measures(directory)[0]))
    corrected = holm([row.difference.p for row in rows])
    return [
        dataclasses.replace(row, corrected=p)
        for row, p in zip(rows, corrected, strict=True)
    ]


def _row(
    name: str, comparison: Comparison, records: Sequence[Record], main: Measure
) -> SweepRow:
    found = {row.method: row for row in summarize(comparison, records, [main])}
    ours, control = found["mmpareto"], found[CONTROL]
    return SweepRow(
        name,
        float(np.mean(list(ours.conflict.values()))),
        mean_of(control.scores[main.name]),
        mean_of(ours.scores[main.name]),
        ours.differences[CONTROL],
        0.0,
        control.diverged + ours.diverged,
    )


def sweep_markdown(rows: Sequence[SweepRow]) -> str:
    """The map as a table.

    Args:
      rows: of ``sweep``.

    Returns:
      A table in Markdown, a line for each row; conflicts and accuracies in %, the
      difference in points with its 95 % interval and its p-value, uncorrected.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.training import SweepRow, paired, sweep_markdown
      >>> found = paired(np.array([82.0, 85.0, 84.0]), np.array([80.0, 82.0, 83.0]))
      >>> row = SweepRow("as it is", 0.15, 81.7, 83.7, found, 0.15)
      >>> print(sweep_markdown([row]).splitlines()[-1])
      | as it is | 15.0 | 81.7 | 83.7 | +2.0 [-0.5, +4.5], p = 0.074 | 0.15 |
    """
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
    lines += [
        f"\n{row.setting}: {row.diverged} runs diverged, and are left out."
        for row in rows
        if row.diverged
    ]
    return "\n".join(lines)
