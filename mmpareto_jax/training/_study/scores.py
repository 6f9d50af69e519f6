"""What scores of several runs say: paired differences, ranks, corrected p-values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from mmpareto_jax.training._tasks.criteria import Measure


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


def paired(first: np.ndarray, second: np.ndarray) -> Difference:
    r"""The paired difference of two methods' scores, with Student's t.

    .. math:: t = \frac{\bar d}{s / \sqrt n}, \qquad \bar d \pm t_{n-1}^{0.975}
        \frac{s}{\sqrt n}

    with :math:`d_i` the differences by seed, s their standard deviation (n − 1), and p
    two-sided. Where all are equal there is no deviation: p is then 0, or 1 where they
    are 0. Pairs with a score that is not finite, of a run that diverged, are left out.

    Args:
      first: [n], the scores of one method as they are shown, n ≥ 2 of them.
      second: [n], those of the reference, in the same order of the seeds.

    Returns:
      The difference first − second: ``mean``, the ends ``low`` and ``high`` of its
      95 % confidence interval, in the unit of the scores, and ``p``. All but the mean
      are NaN for n = 1.

    Raises:
      ValueError: two numbers of scores.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.training import paired
      >>> print(paired(np.array([82.0, 85.0, 84.0]), np.array([80.0, 82.0, 83.0])))
      +2.0 [-0.5, +4.5], p = 0.074

    References:
      Student, The Probable Error of a Mean, Biometrika 6, 1908.
    """
    differences = finite(np.asarray(first, float) - np.asarray(second, float))
    if len(differences) < 2:
        mean = float(differences.mean()) if len(differences) else math.nan
        return Difference(mean, math.nan, math.nan, math.nan)
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
      scores: measure -> values [...], of any one shape and unit.
      single: the same measures of the single-task models in the same units; the mean of
        those that are finite is compared with.
      measures: those of the tasks, named "kind/task".

    Returns:
      Δp, [...]; infinite where a single-task mean is 0.

    Raises:
      KeyError: `scores` or `single` lacks a measure.
      IndexError: a measure's name has no "/".

    References:
      Maninis, Radosavovic & Kokkinos, Attentive Single-Tasking of Multiple Tasks,
      CVPR 2019, https://arxiv.org/abs/1904.08918, equation 4.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.training import Measure, relative_improvement
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
        reference = float(mean_of(single[m.name]))
        gain = 100 * (np.asarray(scores[m.name]) - reference) / reference
        own = tasks.setdefault(m.name.split("/", 1)[1], [])
        own.append(gain if m.higher else -gain)
    each = np.stack([np.mean(own, axis=0) for own in tasks.values()])
    return np.asarray(each.mean(axis=0))


def mean_ranks(
    scores: Mapping[str, Mapping[str, np.ndarray]], measures: Sequence[Measure]
) -> dict[str, float]:
    """The mean over measures of each method's rank among the methods, 1 is best.

    Methods are ranked by their means over seeds; equal ones share their mean rank. One
    with scores that are not finite (runs that diverged) comes after all with fewer, and
    its mean is that of the others.

    Args:
      scores: method -> measure -> values [seeds].
      measures: by which to rank, at least one.

    Returns:
      Method -> its mean rank, from 1 to the number of methods.

    Raises:
      KeyError: a method lacks a measure.

    Example:
      >>> import numpy as np
      >>> from mmpareto_jax.training import Measure, mean_ranks
      >>> values = {"a": {"accuracy/x": np.array([1.0])},
      ...           "b": {"accuracy/x": np.array([3.0])}}
      >>> mean_ranks(values, [Measure("accuracy/x", "x")])
      {'a': 2.0, 'b': 1.0}
    """
    ranks = []
    for m in measures:
        keys = [merit_of(x[m.name], m.higher) for x in scores.values()]
        order = sorted(set(keys))
        ranks.append(stats.rankdata([-order.index(key) for key in keys]))
    return dict(zip(scores, np.mean(ranks, axis=0).tolist(), strict=True))


def finite(values: np.ndarray) -> np.ndarray:
    """Those of the values [n] that are finite."""
    kept: np.ndarray = values[np.isfinite(values)]
    return kept


def mean_of(values: np.ndarray) -> float:
    """The mean of the values that are finite; NaN where there are none."""
    found = finite(values)
    return float(found.mean()) if len(found) else math.nan


def merit_of(values: np.ndarray, higher: bool) -> tuple[float, float]:
    """By what methods are ordered, from their values [seeds]; more is better.

    The share of values that are finite, then their mean.
    """
    share, mean = float(np.isfinite(values).mean()), mean_of(values)
    return share, -math.inf if math.isnan(mean) else mean if higher else -mean


def holm(p_values: Sequence[float]) -> list[float]:
    r"""P-values after Holm's step-down correction for their number.

    .. math:: \tilde p_{(i)} = \min\Big(1, \max_{j \le i} (n - j + 1)\, p_{(j)}\Big)

    with :math:`p_{(1)} \le \dots \le p_{(n)}`. Whoever calls those below a level
    significant errs anywhere with at most that probability.

    Args:
      p_values: n of them, in any order; of any tests, independent or not. One that is
        NaN counts, and stays NaN.

    Returns:
      The corrected ones, in the order of `p_values`.

    Example:
      >>> from mmpareto_jax.training import holm
      >>> holm([0.01, 0.04, 0.03])
      [0.03, 0.06, 0.06]

    References:
      Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian
      Journal of Statistics 6, 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, k in enumerate(np.argsort(p_values)):
        if math.isnan(p_values[k]):  # these come last
            corrected[k] = math.nan
            continue
        largest = max(largest, (len(p_values) - rank) * p_values[k])
        corrected[k] = min(1.0, largest)
    return corrected
