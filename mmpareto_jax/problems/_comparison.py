"""Where methods end on a problem, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmpareto_jax import weightings
from mmpareto_jax._combine.aggregate import aggregate
from mmpareto_jax._combine.mmpareto_transformation import mmpareto
from mmpareto_jax.problems._measures import distance_to_front, pareto_stationarity
from mmpareto_jax.problems._problem import Front, Problem
from mmpareto_jax.problems._quadratics import (
    element_wise_quadratic,
    three_quadratics,
    two_quadratics,
)
from mmpareto_jax.problems._toy import toy
from mmpareto_jax.problems._trajectory import Trajectory, trajectories

# What a command line can offer, by name.
PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    "toy": toy,
    "toy-scaled": lambda: toy(0.1),
    "two-quadratics": two_quadratics,
    "two-quadratics-scaled": lambda: two_quadratics(0.1),
    "three-quadratics": three_quadratics,
    "element-wise": element_wise_quadratic,
}
METHODS = ("uniform", "mgda", "pcgrad", "cagrad", "nash-mtl", "mmpareto")


class Limit(NamedTuple):
    """Where a method ended from one start.

    Attributes:
      method: its name.
      start: [D].
      params: [D], the last point.
      losses: [K], there.
      distance: from the losses to the front's (NaN where it is not known).
      stationarity: :func:`pareto_stationarity` at the last point.
      balance: 1 if all objectives give up the same share of what lies between their
        best and their worst value on the front, 0 at the end of a front of two; NaN
        where the front is a point or not known. It means little far from the front.
    """

    method: str
    start: np.ndarray
    params: np.ndarray
    losses: np.ndarray
    distance: float
    stationarity: float
    balance: float


class Comparison(NamedTuple):
    """What :func:`compare_trajectories` found.

    Attributes:
      problem: the problem.
      trajectories: method -> one trajectory per start.
      limits: one row per method and start, in this order.
    """

    problem: Problem
    trajectories: dict[str, list[Trajectory]]
    limits: list[Limit]

    def table(self) -> str:
        """The limits as a Markdown table."""
        names = self.problem.objectives
        head = ["method", "start", "end", *names, "to front", "stationarity", "balance"]
        lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for row in self.limits:
            cells = [
                row.method,
                _vector(row.start, 1),
                _vector(row.params, 2),
                *(f"{x:.3f}" for x in row.losses),
                _or_dash(row.distance, ".3f"),
                f"{row.stationarity:.1e}",
                _or_dash(row.balance, ".2f"),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


def compare_trajectories(
    problem: Problem,
    methods: Sequence[str]
    | Mapping[str, optax.GradientTransformationExtraArgs] = METHODS,
    *,
    steps: int | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Comparison:
    """Runs methods from every start of a problem and says where they end.

    In float32 a rule with a noise floor (MMPareto, CAGrad, Nash-MTL) takes a direction
    of less than about 1e-3 of the gradients for zero, and ends that far from
    stationary; with ``jax.enable_x64(True)`` that is 5e-8.

    Args:
      problem: the problem.
      methods: names of rules of ``mmp.weightings`` with their defaults ("nash-mtl" and
        "nash_mtl" are one; "pareto" is "mgda"), or name -> transformation.
      steps: by default the problem's.
      optimizer: by default the problem's.

    Returns:
      The trajectories and a row per method and start.

    Raises:
      ValueError: no method, an unknown one, or one twice, however it is spelled.

    Example:
      >>> from mmpareto_jax import problems
      >>> problem = problems.two_quadratics()
      >>> found = problems.compare_trajectories(problem, ["uniform", "mmpareto"])
      >>> [limit.method for limit in found.limits[::8]]
      ['uniform', 'mmpareto']
      >>> print(max(limit.stationarity for limit in found.limits) < 1e-2)
      True
    """
    if not isinstance(methods, Mapping):
        spelled = [name.replace("_", "-") for name in methods]
        if len(set(spelled)) < len(spelled):
            raise ValueError(
                f"compare_trajectories: methods must differ, got {', '.join(methods)}."
            )
        methods = {name: combination_of(name, problem.objectives) for name in methods}
    if not methods:
        raise ValueError("compare_trajectories: methods must name one, got none.")
    front = None if problem.pareto_set is None else problem.front(5000)
    paths = {
        name: trajectories(problem, combination, steps, optimizer)
        for name, combination in methods.items()
    }
    ends = [(name, path) for name in paths for path in paths[name]]
    points = jnp.stack([path.params[-1] for _, path in ends])
    measure = jax.jit(jax.vmap(lambda x: pareto_stationarity(problem.jacobian(x))))
    stationarity = np.asarray(measure(points))
    limits = [
        _limit(name, path, front, float(value))
        for (name, path), value in zip(ends, stationarity, strict=True)
    ]
    return Comparison(problem, paths, limits)


def combination_of(
    name: str, objectives: Sequence[str]
) -> optax.GradientTransformationExtraArgs:
    """A rule of the library, by its name and with its defaults.

    Args:
      name: of a function in ``mmp.weightings``, with "-" or "_".
      objectives: the objectives' names.

    Returns:
      The transformation from stacked gradients to updates.

    Raises:
      ValueError: there is no such rule, or it has an argument without a default.

    Example:
      >>> from mmpareto_jax import problems
      >>> transformation = problems.combination_of("nash-mtl", ["first", "second"])
    """
    known = {n: f for n, f in vars(weightings).items() if n[0].islower()}
    # They have no default; the plain constant is "uniform".
    given = ("constant", "smoothed")
    known = {n: f for n, f in known.items() if callable(f) and n not in given}
    key = {"pareto": "mgda"}.get(name, name.replace("-", "_"))
    if key == "mmpareto":
        return mmpareto(tuple(objectives))
    if key not in known:
        expected = ", ".join(sorted(known))
        raise ValueError(f"unknown method {name!r}; expected one of {expected}.")
    return aggregate(known[key](), tuple(objectives))


def _limit(
    method: str, path: Trajectory, front: Front | None, stationarity: float
) -> Limit:
    losses = np.asarray(path.losses[-1], float)
    distance = balance = float("nan")
    if front is not None and np.isfinite(losses).all():
        known = np.asarray(front.losses, float)
        distance = distance_to_front(losses[None], known)
        best, worst = known.min(0), known.max(0)
        if np.all(worst > best):
            balance = 1 - float(np.ptp((losses - best) / (worst - best)))
    return Limit(
        method=method,
        start=np.asarray(path.params[0]),
        params=np.asarray(path.params[-1]),
        losses=losses,
        distance=distance,
        stationarity=stationarity,
        balance=balance,
    )


def _vector(x: np.ndarray, digits: int) -> str:
    # Adding zero turns a rounded -0.0 into 0.0.
    return "(" + ", ".join(f"{v + 0.0:.{digits}f}" for v in x.round(digits)) + ")"


def _or_dash(x: float, spec: str) -> str:
    return "–" if np.isnan(x) else format(x, spec)
