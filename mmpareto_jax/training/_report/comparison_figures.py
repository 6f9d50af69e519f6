"""Pictures of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mmpareto_jax.training._described.names import shortened
from mmpareto_jax.training._report.drawing import outer_legend, plain_log, save
from mmpareto_jax.training._study.run_once import COSINE_BINS, RADII, Record
from mmpareto_jax.training._study.scores import finite
from mmpareto_jax.training._study.summary import Row, titled
from mmpareto_jax.training._tasks.criteria import Measure

# Style of a line -> how it is written.
_STYLES = {"-": "–––", "--": "– –", ":": "· · ·", "-.": "– ·"}


def draw_comparison(
    rows: Sequence[Row],
    records: Sequence[Record],
    measures: Sequence[Measure],
    directory: str | Path,
) -> list[Path]:
    """Draws test scores, cosines, gradient norms, magnitude factors and sharpness.

    Args:
      rows: of ``summarize``, at least one.
      records: of all runs, as ``compare`` returned them.
      measures: of the task, the main one first.
      directory: where the PNG files go; created if it does not exist.

    Returns:
      The files: ``scores.png``, ``cosines.png``, ``norms.png``, ``magnitude.png`` and
      ``sharpness.png``.

    Raises:
      KeyError: a row lacks a measure.
      OSError: a file cannot be written.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in comparison_figures(rows, records, measures).items():
        path = directory / f"{name}.png"
        save(figure, path, dpi=120)
        paths.append(path)
    return paths


def comparison_figures(
    rows: Sequence[Row], records: Sequence[Record], measures: Sequence[Measure]
) -> dict[str, Figure]:
    """The figures of a comparison by name, for the arguments of ``draw_comparison``."""
    final = {
        row.method: [
            r
            for r in records
            if (r["method"], r["lr"]) == (row.method, row.lr)
            and r["seed"] < len(next(iter(row.scores.values())))
            and not r.get("diverged")
        ]
        for row in rows
    }
    return {
        "scores": _scores(rows, measures),
        "cosines": _per_group(final, _cosines, "cosine of the gradients", "share"),
        "norms": _per_group(final, _norms, "epoch", "norm of the gradient"),
        "magnitude": _per_group(final, _magnitude, "quantile", "mean weight (γλ)"),
        "sharpness": _sharpness(final),
    }


def _scores(rows: Sequence[Row], measures: Sequence[Measure]) -> Figure:
    across = min(3, len(measures))
    down = -(-len(measures) // across)
    figure = Figure(
        figsize=(4 * across, down * (0.35 * len(rows) + 1.2)), layout="constrained"
    )
    axes = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for axis, measure in zip(axes, measures, strict=False):
        for y, row in enumerate(rows):
            values = finite(row.scores[measure.name])
            axis.plot(values, np.full(len(values), y), "o", alpha=0.5, color="C0")
            if len(values) > 1:
                spread = values.std(ddof=1)
                axis.errorbar(values.mean(), y, xerr=spread, fmt="k|", capsize=4, ms=12)
        unit = ", %" if measure.percent else ""
        axis.set(title=titled(measure), xlabel=f"test{unit}")
        axis.grid(axis="x", alpha=0.3)
    for axis in axes[len(measures) :]:
        axis.set_visible(False)
    axes[0].set_yticks(range(len(rows)), [row.method for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _per_group(
    final: Mapping[str, Sequence[Record]], draw: Any, xlabel: str, ylabel: str
) -> Figure:
    """A panel for each group of parameters, a line for each method."""
    groups = list(
        {g: None for runs in final.values() for r in runs for g in r["groups"]}
    )
    figure = Figure(
        figsize=(4.4 * max(1, len(groups)) + 1.6, 3.8), layout="constrained"
    )
    for i, group in enumerate(groups):
        axis = figure.add_subplot(1, len(groups), i + 1)
        axis.set(title=shortened(group), xlabel=xlabel, ylabel=ylabel)
        for number, (method, runs) in enumerate(final.items()):
            own = [r["groups"][group] for r in runs if group in r["groups"]]
            if own:
                draw(axis, method, own, f"C{number % 10}")
        if axis.get_yscale() == "log":
            plain_log(axis.yaxis)
    outer_legend(figure)
    return figure


def _cosines(axis: Any, method: str, own: Sequence[Any], color: str) -> None:
    counts = np.sum([g["cosines"] for g in own], axis=0)
    centers = (COSINE_BINS[:-1] + COSINE_BINS[1:]) / 2
    axis.step(centers, counts / counts.sum(), where="mid", label=method, color=color)
    axis.axvline(0, color="0.6", lw=0.8)
    axis.set_xticks([-1, -0.5, 0, 0.5, 1])


def _norms(axis: Any, method: str, own: Sequence[Any], color: str) -> None:
    # More than these are not told apart.
    styles = dict(zip(own[0]["norms"], _STYLES, strict=False))
    for objective, style in styles.items():
        mean = np.mean([g["norms"][objective] for g in own], axis=0)
        label = method if style == "-" else None
        axis.plot(np.arange(1, len(mean) + 1), mean, style, label=label, color=color)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel(
        "epoch;  "
        + ",  ".join(f"{shortened(k, 20)} {_STYLES[x]}" for k, x in styles.items())
    )
    axis.set_yscale("log")


def _magnitude(axis: Any, method: str, own: Sequence[Any], color: str) -> None:
    values = np.mean([g["magnitude"] for g in own], axis=0)
    axis.plot(range(len(values)), values, "o-", label=method, color=color)
    axis.set_xticks(range(len(values)), ["0", "0.5", "0.9", "0.99", "1"])
    axis.set_yscale("log")


def _sharpness(final: Mapping[str, Sequence[Record]]) -> Figure:
    figure = Figure(figsize=(6, 3.8), layout="constrained")
    axis = figure.add_subplot()
    for method, runs in final.items():
        curves = [r["sharpness"] for r in runs if "sharpness" in r]
        if curves:
            axis.plot(RADII, np.mean(curves, axis=0), "o-", label=method, ms=3)
    axis.set(
        title="along filter-normalised directions",
        xlabel="distance",
        ylabel="main training loss",
        yscale="log",
    )
    plain_log(axis.yaxis)
    outer_legend(figure)
    return figure
