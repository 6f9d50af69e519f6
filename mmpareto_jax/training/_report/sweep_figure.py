"""The picture of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mmpareto_jax.training._report.drawing import save
from mmpareto_jax.training._study.sweep import SweepRow


def draw_sweep(rows: Sequence[SweepRow], path: str | Path) -> Path:
    """The map as a picture: conflicts against the difference, with its interval.

    Args:
      rows: of ``sweep``.
      path: the PNG file, in a directory that exists.

    Returns:
      The file: a point for each setting, across the share of conflicting steps in %,
      and up the difference to uniform × γ in points, with its 95 % interval.

    Raises:
      OSError: the file cannot be written.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(0, color="0.7", linewidth=1)
    for number, row in enumerate(rows):
        d = row.difference
        axes.errorbar(
            100 * row.conflict,
            d.mean,
            [[d.mean - d.low], [d.high - d.mean]],
            fmt="o",
            markersize=5,
            capsize=2,
            linewidth=1,
            color=f"C{number % 10}",
            markerfacecolor=f"C{number % 10}" if number < 10 else "white",
            label=row.setting,
        )
    axes.set_xlabel("conflicting steps, %")
    axes.set_ylabel("MMPareto − uniform × γ, points (95 % interval)")
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    path = Path(path)
    save(figure, path, dpi=120)
    return path
