"""What a comparison came to: means, paired differences, a table."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mmpareto_jax.training._study.compare import Comparison
from mmpareto_jax.training._study.run_once import Record
from mmpareto_jax.training._tasks.criteria import Measure

CONTROL = "uniform-gamma"
SINGLE = "single-task"
_REFERENCES = ("uniform", CONTROL)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A paired difference of two methods over the same seeds.

    Attributes:
      mean: of method minus reference, in percentage points.
      low: lower end of the 95 % confidence interval (Student's t).
      high: its upper end.
      p: two-sided p-value of the paired t-test.
    """

    mean: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}], {p}"


@dataclasses.dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
      method: its name.
      lr: the learning rate that was chosen for it.
      scores: measure -> its values on test as they are shown, one for each seed.
      probes: encoder -> test accuracies in % of a linear classifier on its features.
      conflict: group -> share of conflicting steps, the mean over seeds.
      differences: reference -> the difference of the main measure; not for the
        reference itself.
      improvement: Δp in %, one for each seed; None where it has no meaning or no
        single-task models were trained.
      rank: the mean over measures of the rank of the method's mean; None for a
        single objective.
    """

    method: str
    lr: float
    scores: Mapping[str, np.ndarray]
    probes: Mapping[str, np.ndarray]
    conflict: Mapping[str, float]
    differences: Mapping[str, Difference]
    improvement: np.ndarray | None = None
    rank: float | None = None


def paired(first: np.ndarray, second: np.ndarray) -> Difference:
    """The difference of two methods' scores [seeds], in the order of the seeds.

    Example:
      >>> print(paired(np.array([82.0, 85.0, 84.0]), np.array([80.0, 82.0, 83.0])))
      +2.0 [-0.5, +4.5], p = 0.074
    """
    differences = np.asarray(first, float) - np.asarray(second, float)
    mean, error = float(differences.mean()), float(stats.sem(differences))
    if error <= 1e-12 * abs(mean):
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    student = stats.t(len(differences) - 1)
    half = float(student.ppf(0.975)) * error
    p = 2 * float(student.sf(abs(mean) / error))
    return Difference(mean, mean - half, mean + half, p)


def relative_improvement(
    scores: Mapping[str, np.ndarray],
    single: Mapping[str, np.ndarray],
    measures: Sequence[Measure],
) -> np.ndarray:
    r"""Δp, the mean relative improvement over single-task models, in %.

    .. math:: \Delta p = \frac{100}{K} \sum_k \frac{1}{N_k} \sum_n
        (-1)^{l_{kn}} \frac{M_{kn} - M^{\text{single}}_{kn}}{M^{\text{single}}_{kn}}

    with l = 1 where less is better; a task with many measures counts once.

    Args:
      scores: measure -> values [...].
      single: the same measures of the single-task models; their mean is compared with.
      measures: those of the tasks, named "kind/task".

    Returns:
      Δp, [...].

    References:
      Maninis, Radosavovic & Kokkinos, Attentive Single-Tasking of Multiple Tasks,
      CVPR 2019, https://arxiv.org/abs/1904.08918, equation 4.

    Example:
      >>> error = Measure("error/depth", "error", higher=False)
      >>> share = Measure("accuracy/digit", "digit")
      >>> relative_improvement(
      ...     {"error/depth": np.array([9.0]), "accuracy/digit": np.array([88.0])},
      ...     {"error/depth": np.array([10.0]), "accuracy/digit": np.array([80.0])},
      ...     [error, share],
      ... )
      array([10.])
    """
    tasks: dict[str, list[np.ndarray]] = {}
    for m in measures:
        reference = float(np.mean(single[m.name]))
        gain = 100 * (np.asarray(scores[m.name]) - reference) / reference
        own = tasks.setdefault(m.name.split("/", 1)[1], [])
        own.append(gain if m.higher else -gain)
    each = np.stack([np.mean(own, axis=0) for own in tasks.values()])
    return np.asarray(each.mean(axis=0))


def mean_ranks(
    scores: Mapping[str, Mapping[str, np.ndarray]], measures: Sequence[Measure]
) -> dict[str, float]:
    """Method -> the mean over measures of its rank among the methods, 1 is best.

    Methods are ranked by their means over seeds; equal ones share their mean rank.

    Args:
      scores: method -> measure -> values.
      measures: by which to rank.

    Example:
      >>> values = {"a": {"accuracy/x": np.array([1.0])},
      ...           "b": {"accuracy/x": np.array([3.0])}}
      >>> mean_ranks(values, [Measure("accuracy/x", "x")])
      {'a': 2.0, 'b': 1.0}
    """
    ranks = []
    for m in measures:
        means = np.array([np.mean(x[m.name]) for x in scores.values()])
        ranks.append(stats.rankdata(-means if m.higher else means))
    return dict(zip(scores, np.mean(ranks, axis=0).tolist(), strict=True))


def summarize(
    comparison: Comparison, records: Sequence[Record], measures: Sequence[Measure]
) -> list[Row]:
    """A row for each method whose final runs are all there.

    Args:
      comparison: what was compared.
      records: what ``compare`` returned, or ``read_runs`` read.
      measures: of the task, the main one first.
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
            m.name: m.shown(np.array([r["test"][m.name] for r in rs])) for m in measures
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
                    k: np.array([100 * r["probe"][k] for r in rs])
                    for k in rs[0]["probe"]
                },
                {
                    group: float(np.mean([r["groups"][group]["conflict"] for r in rs]))
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
            )
        )
    return rows


def markdown(
    rows: Sequence[Row],
    measures: Sequence[Measure],
    times: Mapping[str, float] | None = None,
) -> str:
    """The table, best mean of the main measure first.

    Args:
      rows: of ``summarize``.
      measures: of the task, the main one first.
      times: method -> time of a step relative to the plain sum, of ``step_times``.
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
    head = ["method", "lr", *(m.title for m in measures)]
    head += ["Δp %", "mean rank"] if several else []
    head += [f"{k}, probe" for k in probes]
    head += [f"− {r}" for r in _REFERENCES]
    groups = list({g: None for row in rows for g in row.conflict})
    head += [f"conflicts, {g} %" for g in groups]
    head += ["time of a step"] if times else []
    lines = [head]
    for row in sorted(rows, key=lambda r: -r.scores[measures[0].name].mean()):
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
        lines.append(cells)
    return lines


def _spread(values: np.ndarray, percent: bool) -> str:
    """Mean ± s.d., with as many digits as the unit needs."""
    digits = 1 if percent or abs(values.mean()) >= 10 else 3
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def csv_text(records: Sequence[Record]) -> str:
    """All runs, a line each."""
    file = io.StringIO()
    names = list(records[0]["test"])
    writer = csv.writer(file, lineterminator="\n")
    head = [f"{split}_{k}" for split in ("validation", "test") for k in names]
    writer.writerow(["method", "lr", "seed", "step", *head])
    for r in records:
        values = [r[split][k] for split in ("validation", "test") for k in names]
        writer.writerow([r["method"], r["lr"], r["seed"], r["step"], *values])
    return file.getvalue()
