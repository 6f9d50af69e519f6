"""Pictures that several runs share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

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
    widths,
)
from mmpareto_jax.training._run.metrics import conflict_share
from mmpareto_jax.training._study.summary import titled
from mmpareto_jax.training._tasks.criteria import Measure

# Steps and values.
Curve: TypeAlias = tuple[np.ndarray, np.ndarray]
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
        _lines(axis, {k: _values(x, measure) for k, x in runs.items()})
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
        _lines(axis, {k: _shares(x, group) for k, x in runs.items()})
        axis.set(title=shortened(group), xlabel="step", ylabel="conflicting steps, %")
        axis.set_ylim(-2, 102)
    outer_legend(figure, below=True)
    return figure


def _lines(axis: Axes, runs: Mapping[str, Curve]) -> None:
    """A line for each run; those of equal runs lie upon each other, and are seen."""
    sizes = widths(len(runs), 1.2, 6.0)
    for number, (label, (steps, values)) in enumerate(runs.items()):
        if len(steps):
            axis.plot(
                steps,
                values,
                color=COLOURS[number % len(COLOURS)],
                marker="o",
                markersize=2 + sizes[number],
                linewidth=sizes[number],
                label=label,
            )


def _values(records: Sequence[Record], measure: Measure) -> Curve:
    held_out = [r for r in records if r["split"] == "validation"]
    steps, values = series(held_out, measure.name)
    return steps, measure.shown(values)


def _shares(records: Sequence[Record], group: str) -> Curve:
    """Of equal parts of the records that have it, in %, where these end."""
    seen = [r for r in records if r.get(f"{group}/conflict") is not None]
    parts = min(_POINTS, len(seen))
    steps, values = [], []
    for rows in np.array_split(np.arange(len(seen)), parts) if parts else ():
        part = [seen[row] for row in rows]
        steps.append(part[-1]["step"])
        values.append(100 * (conflict_share(part, group) or 0.0))
    return np.array(steps), np.array(values)
