"""What the probes of a run have seen, as one figure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

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

_STEPS = {"sum_descent": "the plain sum", "update_descent": "what is applied"}


def probe_figure(probes: Sequence[Record]) -> Figure:
    """Descents by the plain sum and by what is applied; the min-norm point's angle.

    Args:
      probes: the records of the probes, at least one.
    """
    objectives = _names(probes, "sum_descent/")
    groups = {
        k.removesuffix("/min_norm_cosine"): k
        for k in _names(probes, "", "/min_norm_cosine")
    }
    figure, axes = panels(2 + bool(groups))
    for axis, (kind, title) in zip(axes, _STEPS.items(), strict=False):
        axis.axhline(0, color="0.3", lw=0.8)
        keys = {k.removeprefix("sum_descent/"): k for k in objectives}
        chosen = {name: f"{kind}/{name}" for name in keys}
        _lines(axis, probes, chosen)
        axis.set(title=f"{title}\n(below 0: raises the objective)", ylim=(-1.05, 1.05))
        axis.set(xlabel="step", ylabel="descent")
    if groups:
        chosen = {shortened(group): key for group, key in groups.items()}
        _lines(axes[2], probes, chosen, angle=True)
        axes[2].set(title="min-norm point and sum", xlabel="step")
        axes[2].set(ylabel="angle, degrees", ylim=(-3, 93))
    outer_legend(figure)
    return figure


def _lines(
    axis: Axes, probes: Sequence[Record], keys: Mapping[str, str], angle: bool = False
) -> None:
    styles = "--" if angle else "-"
    for (label, key), colour in zip(
        keys.items(), itertools.cycle(COLOURS), strict=False
    ):
        steps, values = series(probes, key)
        if angle:
            values = np.degrees(np.arccos(np.clip(values, -1, 1)))
        axis.plot(steps, values, styles, marker=".", color=colour, label=label)


def _names(probes: Sequence[Record], start: str, end: str = "") -> list[str]:
    every = dict.fromkeys(k for r in probes for k in r)
    return [k for k in every if k.startswith(start) and k.endswith(end)]
