"""What a comparison came to: a row for each method, a table."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmpareto_jax.training._described.names import shortened
from mmpareto_jax.training._study.comparison import Comparison
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._study.scores import (
    Difference,
    finite,
    mean_of,
    mean_ranks,
    merit_of,
    paired,
    relative_improvement,
)
from mmpareto_jax.training._tasks.criteria import Measure

CONTROL = "uniform-gamma"
SINGLE = "single-task"
_REFERENCES = ("uniform", CONTROL)


@dataclasses.dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
      method: its name.
      lr: the learning rate that was chosen for it.
      scores: measure -> its values on test as they are shown, one for each seed; NaN
        for a run that diverged.
      probes: encoder -> test accuracies in % of a linear classifier on its features.
      conflict: group -> share of conflicting steps, the mean over seeds.
      differences: reference -> the difference of the main measure; not for the
        reference itself.
      improvement: Δp in %, one for each seed; None where it has no meaning or no
        single-task models were trained.
      rank: the mean over measures of the rank of the method's mean; None for a
        single objective.
      diverged: how many runs did; no mean is of them.
    """

    method: str
    lr: float
    scores: Mapping[str, np.ndarray]
    probes: Mapping[str, np.ndarray]
    conflict: Mapping[str, float]
    differences: Mapping[str, Difference]
    improvement: np.ndarray | None = None
    rank: float | None = None
    diverged: int = 0


def summarize(
    comparison: Comparison, records: Sequence[Record], measures: Sequence[Measure]
) -> list[Row]:
    """A row for each method whose final runs are all there.

    Args:
      comparison: what was compared.
      records: what ``compare`` returned, or ``read_runs`` read.
      measures: of the task, the main one first.

    Returns:
      The rows, in the order of ``comparison.methods``. One has the ``method`` and the
      ``lr`` that was chosen for it; by measure its test ``scores`` [seeds] as they are
      shown; by encoder the ``probes`` [seeds] in %; by group the mean share of
      ``conflict``; the paired ``differences`` of the main measure to ``uniform`` and
      ``uniform-gamma``, where these are there; and for several tasks the mean ``rank``
      and, beside single-task models, the ``improvement`` [seeds] in %.

    Raises:
      KeyError: a record lacks a measure.

    Example:
      >>> from mmpareto_jax import training
      >>> plan = training.Comparison(
      ...     training.Config(), ("uniform", "mmpareto"), lr_grid=(0.1,), seeds=2
      ... )
      >>> def record(method, seed, accuracy):
      ...     scores = {"accuracy/joint": accuracy}
      ...     return {"method": method, "lr": 0.1, "seed": seed, "validation": scores,
      ...             "test": scores, "probe": {}, "groups": {}}
      >>> records = [record("uniform", 0, 0.80), record("uniform", 1, 0.82),
      ...            record("mmpareto", 0, 0.85), record("mmpareto", 1, 0.86)]
      >>> measures = [training.Measure("accuracy/joint", "multimodal")]
      >>> rows = training.summarize(plan, records, measures)
      >>> print(training.markdown(rows, measures))
      | method | lr | multimodal ↑ | − uniform | − uniform-gamma |
      |---|---|---|---|---|
      | mmpareto | 0.1 | 85.5 ± 0.7 | +4.5 [-1.9, +10.9], p = 0.070 |  |
      | uniform | 0.1 | 81.0 ± 1.4 |  |  |
    """
    chosen = comparison.learning_rates(records)
    final = {(r["method"], r["lr"], r["seed"]): r for r in records}
    runs = {
        method: [
            final.get((method, chosen[method], s)) for s in range(comparison.seeds)
        ]
        for method in comparison.methods
    }
    whole = {m: [r for r in rs if r] for m, rs in runs.items() if all(rs)}
    scores = {
        method: {
            m.name: m.shown(np.array([_of(r, "test", m.name) for r in rs]))
            for m in measures
        }
        for method, rs in whole.items()
    }
    main, single = measures[0].name, scores.get(SINGLE)
    # The mean over tasks is no task.
    tasks = [m for m in measures if not m.name.endswith("/mean")]
    several = len(tasks) < len(measures)
    ranks = mean_ranks(scores, tasks) if several else {}
    rows = []
    for method, rs in whole.items():
        own = scores[method]
        compared = several and single is not None and method != SINGLE
        rows.append(
            Row(
                method,
                chosen[method],
                own,
                {
                    k: np.array([100 * _of(r, "probe", k) for r in rs])
                    for k in rs[0]["probe"]
                },
                {
                    group: mean_of(
                        np.array([_of(r, "groups", group, "conflict") for r in rs])
                    )
                    for group in rs[0]["groups"]
                },
                {
                    other: paired(own[main], scores[other][main])
                    for other in _REFERENCES
                    if other != method and other in scores
                },
                relative_improvement(own, single, tasks)
                if compared and single is not None
                else None,
                ranks.get(method),
                sum(bool(r.get("diverged")) for r in rs),
            )
        )
    return rows


def _of(record: Record, *path: str) -> float:
    """A number of a record; NaN of a run that has diverged, or where there is none."""
    found: Any = record
    for name in path:
        found = found[name]
    return math.nan if found is None or record.get("diverged") else float(found)


def titled(measure: Measure) -> str:
    """What people call the measure, and which way is better."""
    return f"{measure.title} {'↑' if measure.higher else '↓'}"


def legend(measures: Sequence[Measure]) -> str:
    """The sentence that says what their values are."""
    ways = {measure.higher for measure in measures}
    said = [
        f"{'↑' if way else '↓'} {'more' if way else 'less'} is better"
        for way in (True, False)
        if way in ways
    ]
    if any(measure.percent for measure in measures):
        said.append("shares are in %")
    if any(measure.name == "score/mean" for measure in measures):
        said.append(
            "the score is 100 times the mean logarithm of the tasks' measures, so that "
            "1 more is 1 % better"
        )
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}."


def markdown(
    rows: Sequence[Row],
    measures: Sequence[Measure],
    times: Mapping[str, float] | None = None,
) -> str:
    """The table, best mean of the main measure first.

    Args:
      rows: of ``summarize``, at least one.
      measures: of the task, the main one first.
      times: method -> time of a step relative to the plain sum, of ``step_times``; by
        default there is no such column.

    Returns:
      A table in Markdown: by measure the mean ± standard deviation over seeds (n − 1),
      shares in %, and what else the rows have. ``summarize`` shows one. Where runs
      diverged, it says how many in a column of its own; means are of the others, and
      the method comes behind those with fewer.

    Raises:
      IndexError: there are no rows.
      KeyError: a row lacks a measure, or `times` a method.
    """
    table = table_cells(rows, measures, times)
    head, *lines = ["| " + " | ".join(cells) + " |" for cells in table]
    return "\n".join([head, "|" + "---|" * len(table[0]), *lines])


def table_cells(
    rows: Sequence[Row],
    measures: Sequence[Measure],
    times: Mapping[str, float] | None = None,
) -> list[list[str]]:
    """The cells of ``markdown``'s table, its head first."""
    probes = list(rows[0].probes)
    several = any(row.rank is not None for row in rows)
    head = ["method", "lr", *map(titled, measures)]
    head += ["Δp % ↑", "mean rank ↓"] if several else []
    head += [f"{k}, probe ↑" for k in probes]
    head += [f"− {r}" for r in _REFERENCES]
    groups = list({g: None for row in rows for g in row.conflict})
    head += [f"conflicts, {shortened(g)} %" for g in groups]
    head += ["time of a step"] if times else []
    diverged = any(row.diverged for row in rows)
    head += ["diverged"] if diverged else []
    lines = [head]
    for row in _best_first(rows, measures[0]):
        cells = [row.method, f"{row.lr:g}"]
        cells += [_spread(row.scores[m.name], m.percent) for m in measures]
        if several:
            gain = "" if row.improvement is None else _spread(row.improvement, True)
            cells += [gain, f"{row.rank:.1f}"]
        cells += [_spread(row.probes[k], True) for k in probes]
        cells += [str(row.differences.get(r, "")) for r in _REFERENCES]
        cells += [
            f"{100 * row.conflict[g]:.1f}" if g in row.conflict else "" for g in groups
        ]
        cells += [f"{times[row.method]:.2f}"] if times else []
        if diverged:
            cells.append(f"{row.diverged} of {len(row.scores[measures[0].name])} runs")
        lines.append(cells)
    return lines


def _best_first(rows: Sequence[Row], main: Measure) -> list[Row]:
    """By the mean of the main measure; behind them those of which runs diverged."""

    def behind(row: Row) -> tuple[float, float]:
        share, merit = merit_of(row.scores[main.name], main.higher)
        return -share, -merit

    return sorted(rows, key=behind)


def _spread(values: np.ndarray, percent: bool) -> str:
    """Mean ± s.d. of those that are finite, with as many digits as the unit needs."""
    values = finite(values)
    if not len(values):
        return "–"
    digits = 1 if percent or abs(values.mean()) >= 10 else 3
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def csv_text(records: Sequence[Record]) -> str:
    """All runs, a line each.

    Args:
      records: what ``compare`` returned, at least one.

    Returns:
      CSV with a head: method, lr, seed, the step of the best epoch, and the measures on
      validation and test, as they are in the records: shares from 0 to 1.

    Raises:
      IndexError: there are no records.
      KeyError: a record lacks a measure of the first one.

    Example:
      >>> from mmpareto_jax.training import csv_text
      >>> record = {"method": "uniform", "lr": 0.1, "seed": 0, "step": 31,
      ...           "validation": {"accuracy/x": 0.5}, "test": {"accuracy/x": 0.25}}
      >>> print(csv_text([record]), end="")
      method,lr,seed,step,validation_accuracy/x,test_accuracy/x
      uniform,0.1,0,31,0.5,0.25
    """
    file = io.StringIO()
    names = list(records[0]["test"])
    writer = csv.writer(file, lineterminator="\n")
    head = [f"{split}_{k}" for split in ("validation", "test") for k in names]
    writer.writerow(["method", "lr", "seed", "step", *head])
    for r in records:
        values = [r[split][k] for split in ("validation", "test") for k in names]
        writer.writerow([r["method"], r["lr"], r["seed"], r["step"], *values])
    return file.getvalue()
