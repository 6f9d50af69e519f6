"""A picture of trajectories, in parameter space and in objective space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.problems._problem import Front, Problem
from mmpareto_jax.problems._trajectory import Trajectory

# matplotlib is of the train extra: the problems themselves must do without it.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Lightness grows along it, so time reads in grey and for colour-blind readers too;
# the front is the one thing in vermilion.
_TIME = "viridis"
_FRONT = "#D55E00"
_POINTS = 400  # of a path that are drawn


def draw_trajectories(
    problem: Problem,
    trajectories: Mapping[str, Sequence[Trajectory]],
    path: str | Path,
) -> Path:
    """Draws a column of two panels per method into one PNG.

    Above, the parameters: contours of the summed losses, the Pareto set, and each path
    coloured by time from its start to its end. Below, the same paths as losses, with
    the front.

    Args:
      problem: of two parameters; the lower panels show its first two objectives.
      trajectories: method -> one trajectory per start.
      path: the file.

    Returns:
      The file.

    Raises:
      ValueError: no method, or a problem of more than two parameters.

    Example:
      >>> import pathlib, tempfile
      >>> from mmpareto_jax import problems
      >>> problem = problems.two_quadratics()
      >>> found = problems.compare_trajectories(problem, ["uniform", "mmpareto"])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "paths.png")
      ...     drawn = problems.draw_trajectories(problem, found.trajectories, path)
      ...     drawn.stat().st_size > 10_000
      True
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    if not trajectories:
        raise ValueError(
            "draw_trajectories: trajectories must name a method, got none."
        )
    if len(problem.view) != 2:
        raise ValueError(
            "draw_trajectories: the problem must have 2 parameters, got "
            f"{len(problem.view)}."
        )
    num = len(trajectories)
    figure = Figure(figsize=(2.4 * num + 1.6, 6.1), layout="constrained")
    axes = figure.subplots(2, num, sharex="row", sharey="row", squeeze=False)
    front = None if problem.pareto_set is None else problem.front(400)
    grid = _sum_on_grid(problem)
    for column, (name, paths) in enumerate(trajectories.items()):
        upper, lower = axes[:, column]
        upper.contour(*grid, colors="0.75", linewidths=0.7, linestyles="-")
        if front is not None:
            _front(upper, problem, np.asarray(front.params))
            _front(lower, problem, np.asarray(front.losses))
        for one in paths:
            params, losses = np.asarray(one.params), np.asarray(one.losses)
            time = _time(params)
            _path(upper, params, time)
            _path(lower, losses[:, :2], time)
        upper.set(
            title=name, xlabel="$x_1$", xlim=problem.view[0], ylim=problem.view[1]
        )
        lower.set_xlabel(problem.objectives[0])
        lower.grid(alpha=0.25)
        lower.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("$x_2$")
    axes[1, 0].set_ylabel(problem.objectives[1])
    _limits(axes[1, 0], trajectories, front)
    scale = ScalarMappable(cmap=_TIME)  # from 0 to 1
    bar = figure.colorbar(scale, ax=axes, shrink=0.5, aspect=30, pad=0.01)
    bar.set_ticks([0, 1], labels=["start", "near\nthe end"])
    bar.set_label("steps", labelpad=-20)
    figure.legend(
        handles=_legend(front),
        loc="outside lower center",
        ncols=min(4, 2 * num),
        frameon=False,
    )
    figure.suptitle(problem.name)
    path = Path(path)
    with whole_file(path) as file:
        figure.savefig(file, format=path.suffix[1:] or None, dpi=110)
    return path


def _sum_on_grid(
    problem: Problem, resolution: int = 120
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates, the summed losses there [y, x], and the levels to draw."""
    x, y = (np.linspace(low, high, resolution) for low, high in problem.view)
    points = jnp.stack(jnp.meshgrid(jnp.asarray(x), jnp.asarray(y)), axis=-1)
    losses = jax.jit(jax.vmap(jax.vmap(problem.losses)))(points)
    total = np.asarray(losses.sum(-1))
    # By quantiles: of a bowl, equal steps would draw its walls alone.
    return x, y, total, np.unique(np.quantile(total, np.linspace(0.02, 0.98, 14)))


def _front(axis: Axes, problem: Problem, points: np.ndarray) -> None:
    curve = len(problem.objectives) == 2 and np.ptp(points, axis=0).max() > 0
    if curve:
        axis.plot(*points.T, color=_FRONT, alpha=0.55, lw=5, solid_capstyle="butt")
    else:
        points = np.unique(points, axis=0)
        # A front of one point would else be hidden by the stars that end there.
        size, alpha = (3, 0.35) if len(points) > 1 else (14, 0.55)
        axis.plot(*points[:, :2].T, "o", color=_FRONT, mew=0, alpha=alpha, ms=size)


def _time(params: np.ndarray) -> np.ndarray:
    """The step as a share of those before the path stays near its end, [T + 1].

    By all steps, a path that soon arrives would have one colour; by length, one that
    goes on in a zigzag.
    """
    away = np.linalg.norm(params - params[-1], axis=1)
    far = np.flatnonzero(~(away <= 0.05 * away.max()))
    arrival = far[-1] + 1 if far.size else 1
    return np.minimum(np.arange(len(params)) / arrival, 1)


def _path(axis: Axes, points: np.ndarray, time: np.ndarray) -> None:
    from matplotlib.collections import LineCollection

    finite = np.isfinite(points).all(1)
    points, time = points[finite], time[finite]
    arrival = int(np.searchsorted(time, 1))
    before = np.linspace(0, arrival, _POINTS).astype(int)
    after = np.linspace(arrival, len(points) - 1, _POINTS).astype(int)
    shown = np.unique(np.append(before, after).clip(0, len(points) - 1))
    some = points[shown]
    segments = np.stack([some[:-1], some[1:]], axis=1)
    lines = LineCollection(list(segments), cmap=_TIME, linewidths=1.6, zorder=3)
    lines.set_array(time[shown[1:]])
    lines.set_clim(0, 1)
    axis.add_collection(lines, autolim=False)
    axis.plot(*points[0], "o", mfc="white", mec="k", ms=5, zorder=4)
    axis.plot(*points[-1], "*", mfc="k", mec="white", mew=0.6, ms=10, zorder=5)


def _limits(
    axis: Axes, trajectories: Mapping[str, Sequence[Trajectory]], front: Front | None
) -> None:
    """Room for the front and all ends; paths may come from outside."""
    paths = [one for paths in trajectories.values() for one in paths]
    points = np.stack([np.asarray(one.losses)[-1, :2] for one in paths])
    if front is not None:
        points = np.append(points, np.asarray(front.losses)[:, :2], axis=0)
    points = points[np.isfinite(points).all(1)]
    if not len(points) or not np.ptp(points, axis=0).max() > 1e-3:
        return  # everything ends in one point: then the starts, too, are of interest
    low, high = points.min(0), points.max(0)
    low, high = low - 0.15 * (high - low), high + 0.3 * (high - low)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _legend(front: Front | None) -> list[Line2D]:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], ls="", marker="o", mfc="white", mec="k", label="start"),
        Line2D([], [], ls="", marker="*", color="k", ms=9, label="end"),
        Line2D([], [], color="0.75", label="sum of the losses"),
    ]
    if front is not None:
        label = "Pareto front"
        handles.append(Line2D([], [], color=_FRONT, lw=5, alpha=0.55, label=label))
    return handles
