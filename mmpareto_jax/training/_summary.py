"""What a comparison came to: means, paired differences, a table."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mmpareto_jax.training._compare import Comparison
from mmpareto_jax.training._run_once import Record

CONTROL = "uniform-gamma"
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
      scores: objective -> test accuracies in %, one for each seed.
      probes: encoder -> test accuracies in % of a linear classifier on its features.
      conflict: group -> share of conflicting steps, the mean over seeds.
      differences: reference -> the difference of the main objective; not for the
        reference itself.
    """

    method: str
    lr: float
    scores: Mapping[str, np.ndarray]
    probes: Mapping[str, np.ndarray]
    conflict: Mapping[str, float]
    differences: Mapping[str, Difference]


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


def summarize(comparison: Comparison, records: Sequence[Record]) -> list[Row]:
    """A row for each method whose final runs are all there.

    Args:
      comparison: what was compared.
      records: what ``compare`` returned, or ``read_runs`` read.
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
        method: {k: np.array([100 * r["test"][k] for r in rs]) for k in rs[0]["test"]}
        for method, rs in whole.items()
    }
    rows = []
    for method, rs in whole.items():
        main = next(iter(scores[method]))
        rows.append(
            Row(
                method,
                chosen[method],
                scores[method],
                {
                    k: np.array([100 * r["probe"][k] for r in rs])
                    for k in rs[0]["probe"]
                },
                {
                    group: float(np.mean([r["groups"][group]["conflict"] for r in rs]))
                    for group in rs[0]["groups"]
                },
                {
                    other: paired(scores[method][main], scores[other][main])
                    for other in _REFERENCES
                    if other != method and other in scores
                },
            )
        )
    return rows


def markdown(
    rows: Sequence[Row],
    titles: Mapping[str, str],
    times: Mapping[str, float] | None = None,
) -> str:
    """The table, best mean of the main objective first.

    Args:
      rows: of ``summarize``.
      titles: objective -> what people call it, the main one first.
      times: method -> time of a step relative to the plain sum, of ``step_times``.
    """
    probes = list(rows[0].probes)
    head = ["method", "lr", *titles.values(), *(f"{k}, probe" for k in probes)]
    head += [f"− {r}" for r in _REFERENCES]
    groups = list({g: None for row in rows for g in row.conflict})
    head += [f"conflicts, {g} %" for g in groups]
    head += ["time of a step"] if times else []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    main = next(iter(titles))
    for row in sorted(rows, key=lambda r: -r.scores[main].mean()):
        cells = [row.method, f"{row.lr:g}"]
        columns = [row.scores[k] for k in titles] + [row.probes[k] for k in probes]
        cells += [f"{x.mean():.1f} ± {x.std(ddof=1):.1f}" for x in columns]
        cells += [str(row.differences.get(r, "")) for r in _REFERENCES]
        cells += [
            f"{100 * row.conflict[g]:.1f}" if g in row.conflict else "" for g in groups
        ]
        cells += [f"{times[row.method]:.2f}"] if times else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def csv_text(records: Sequence[Record]) -> str:
    """All runs, a line each."""
    file = io.StringIO()
    first = records[0]
    names = list(first["test"])
    writer = csv.writer(file, lineterminator="\n")
    head = [f"{split}_{k}" for split in ("validation", "test") for k in names]
    writer.writerow(["method", "lr", "seed", "step", *head])
    for r in records:
        values = [r[split][k] for split in ("validation", "test") for k in names]
        writer.writerow([r["method"], r["lr"], r["seed"], r["step"], *values])
    return file.getvalue()
