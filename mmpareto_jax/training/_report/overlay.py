"""Pictures that several runs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmpareto_jax.training._described.names import shortened
from mmpareto_jax.training._report.drawing import (
    COLOURS,
    Record,
    outer_legend,
    panels,
    series,
)
from mmpareto_jax.training._study.summary import titled
from mmpareto_jax.training._tasks.criteria import Measure

# Points of a curve of shares, each the mean over as many steps.
_POINTS = 30


def curves(runs: Mapping[str, Sequence[Record]], measures: Sequence[Measure]) -> Figure:
    """Each measure on validation, a line for each run that has it.

    Args:
      runs: what a run is called -> its metrics.
      measures: what is drawn, at least one.
    """
    figure, axes = panels(len(measures))
    for axis, measure in zip(axes, measures, strict=True):

        def draw(
            records: Sequence[Record], measure: Measure = measure
        ) -> tuple[np.ndarray, np.ndarray]:
            held_out = [r for r in records if r["split"] == "validation"]
            steps, values = series(held_out, measure.name)
            return steps, measure.shown(values)

        _lines(axis, runs, draw)
        unit = "validation, %" if measure.percent else "validation"
        axis.set(title=titled(measure), xlabel="step", ylabel=unit)
    outer_legend(figure, below=True)
    return figure


def conflicts(runs: Mapping[str, Sequence[Record]], groups: Sequence[str]) -> Figure:
    """The share of conflicting steps by step, a line for each run that has it.

    Args:
      runs: what a run is called -> its metrics.
      groups: of parameters, at least one.
    """
    figure, axes = panels(len(groups))
    for axis, group in zip(axes, groups, strict=True):

        def draw(
            records: Sequence[Record], group: str = group
        ) -> tuple[np.ndarray, np.ndarray]:
            return _shares(*series(records, f"{group}/conflict"))

        _lines(axis, runs, draw)
        axis.set(title=shortened(group), xlabel="step", ylabel="conflicting steps, %")
        axis.set_ylim(-2, 102)
    outer_legend(figure, below=True)
    return figure


def _lines(
    axis: Axes,
    runs: Mapping[str, Sequence[Record]],
    draw: Callable[[Sequence[Record]], tuple[np.ndarray, np.ndarray]],
) -> None:
    """A line for each run; those of equal runs lie upon each other, and show."""
    for number, (label, records) in enumerate(runs.items()):
        steps, values = draw(records)
        if len(steps):
            axis.plot(
                steps,
                values,
                color=COLOURS[number % len(COLOURS)],
                marker=".",
                linewidth=1.2 + 1.6 * (len(runs) - 1 - number) / len(runs),
                label=label,
            )


def _shares(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal parts of the run, in %, where these end."""
    parts = min(_POINTS, len(steps))
    if not parts:
        return steps, values
    ends = np.array([part[-1] for part in np.array_split(steps, parts)])
    means = [100 * part.mean() for part in np.array_split(values, parts)]
    return ends, np.array(means)
