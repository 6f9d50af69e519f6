"""PNG figures of a run, from its metrics alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmpareto_jax.training._described.names import shortened
from mmpareto_jax.training._report.drawing import (
    COLOURS,
    Record,
    outer_legend,
    panels,
    plain_log,
    save,
    series,
    widths,
)
from mmpareto_jax.training._report.probe_figure import probe_figure
from mmpareto_jax.training._run.counts import NONFINITE
from mmpareto_jax.training._run.metrics import conflict_share, read_metrics

# Marks of weights, in points; and gradients that a legend has names for.
_WIDEST, _NARROWEST, _NAMED = 12.0, 2.0, 8


def draw_figures(workdir: str | Path) -> list[Path]:
    """Draws the figures of a finished or stopped run into ``WORKDIR/figures``.

    ``learning_curves.png``: accuracy and loss of every objective. For runs in which
    several objectives act on a group of parameters also, per group,
    ``cosine.png``, ``weights.png`` and ``gradient_norms.png``: what Figure 1 of the
    MMPareto paper shows, on your own run. For runs with ``probe_every`` also
    ``probe.png``.

    Args:
      workdir: the run's directory.

    Returns:
      The files.

    Raises:
      ValueError: the directory holds no metrics, or some that are no numbers.
      OSError: a file cannot be written.
    """
    workdir = Path(workdir)
    records = read_metrics(workdir)
    if not any(r["split"] == "train" for r in records):
        raise ValueError(f"workdir {workdir}: holds no metrics to plot")
    try:
        figures = run_figures(records)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"workdir {workdir}: metrics.jsonl has values that cannot be drawn: {error}"
        ) from None
    folder = workdir / "figures"
    folder.mkdir(exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        save(figure, paths[-1], dpi=130)
    return paths


def run_figures(records: Sequence[Record]) -> dict[str, Figure]:
    """The figures of a run by name, from its metrics; of at least one step."""
    train = [r for r in records if r["split"] == "train"]
    validation = [r for r in records if r["split"] == "validation"]
    probes = [r for r in records if r["split"] == "probe"]
    groups = [k.removesuffix("/cosine") for k in train[0] if k.endswith("/cosine")]
    figures = {"learning_curves": _learning_curves(train, validation)}
    if groups:
        figures["cosine"] = _cosine(train, groups)
        figures["weights"] = _weights(train, groups)
        figures["gradient_norms"] = _gradient_norms(train, groups)
    if probes:
        figures["probe"] = probe_figure(probes)
    return figures


def _learning_curves(train: list[Record], validation: list[Record]) -> Figure:
    colours = _colours(train)
    kinds: list[str] = []  # of each objective
    alone: list[str] = []  # measures of no single one
    for name in validation[0] if validation else train[0]:
        kind, _, objective = name.partition("/")
        if objective in colours and kind != NONFINITE:
            kinds += [kind] if kind not in kinds else []
        elif validation and objective != "mean" and name not in ("step", "split"):
            alone.append(name)
    figure, axes = panels(len(kinds) + len(alone))
    for axis, name in zip(axes[len(kinds) :], alone, strict=True):
        steps, values = series(train, name)
        if len(steps):  # the sum of the losses is of validation alone
            axis.plot(steps, _smooth(values), color="0.2", alpha=0.35, lw=1)
        axis.plot(*series(validation, name), color="0.2", marker=".")
        axis.set(xlabel="step", ylabel=shortened(name))
    for axis, kind in zip(axes[: len(kinds)], kinds, strict=True):
        for name, colour in colours.items():
            steps, values = series(train, f"{kind}/{name}")
            if not len(steps):
                continue
            axis.plot(steps, _smooth(values), color=colour, alpha=0.35, lw=1)
            steps, values = series(validation, f"{kind}/{name}")
            axis.plot(steps, values, color=colour, marker=".", label=name)
        axis.set(xlabel="step", ylabel=kind.replace("_", " "))
        if kind == "loss":
            axis.set_yscale("log")
            plain_log(axis.yaxis)
        if kind == "accuracy":
            axis.set_ylim(0, 1.02)
    axes[0].set(title="validation (dots), training (faint)")
    outer_legend(figure)
    return figure


def _cosine(train: list[Record], groups: Sequence[str]) -> Figure:
    figure, axes = panels(len(groups))
    for axis, group in zip(axes, groups, strict=True):
        name = f"{group}/cosine"
        seen = [r for r in train if r.get(name) is not None]
        steps, values = series(seen, name)
        conflict = np.array([bool(r.get(f"{group}/conflict")) for r in seen], bool)
        axis.axhline(0, color="0.3", lw=0.8)
        # From the mean of a record down to the least.
        least = np.array([r.get(f"{name}_min", r[name]) for r in seen], float)
        below = least < values
        axis.vlines(steps[below], least[below], values[below], color="0.8", lw=0.8)
        axis.scatter(steps[~conflict], values[~conflict], s=5, color=COLOURS[0])
        axis.scatter(steps[conflict], values[conflict], s=9, color=COLOURS[1])
        share = f"conflict in {conflict_share(train, group) or 0.0:.1%} of the steps"
        axis.set(
            title=f"{shortened(group)}\n{share}",
            xlabel="step",
            ylabel="cosine of the gradients",
            ylim=(-1.05, 1.05),
        )
    return figure


def _weights(train: list[Record], groups: Sequence[str]) -> Figure:
    figure, axes = panels(len(groups))
    colours = _colours(train)
    # Equal shares lie upon each other: wide marks under narrow ones show both.
    sizes = dict(zip(colours, widths(len(colours), _NARROWEST, _WIDEST), strict=True))
    for axis, group in zip(axes, groups, strict=True):
        for name in sorted(_names(train, group, "weight"), key=lambda k: -sizes[k]):
            steps, values = series(train, f"{group}/weight/{name}")
            axis.plot(
                steps,
                values,
                "o",
                markersize=sizes[name],
                markeredgewidth=0,
                color=colours[name],
                label=name,
            )
        axis.set(title=shortened(group), xlabel="step", ylabel="share of the weight")
        axis.set_ylim(-0.04, 1.04)
    outer_legend(figure)
    return figure


def _gradient_norms(train: list[Record], groups: Sequence[str]) -> Figure:
    figure, axes = panels(len(groups))
    colours = _colours(train)
    for axis, group in zip(axes, groups, strict=True):
        names = _names(train, group, "norm")
        norms = [series(train, f"{group}/norm/{name}")[1] for name in names]
        positive = np.concatenate(norms)
        positive = positive[positive > 0]
        if not positive.size:
            continue
        bins = np.geomspace(positive.min(), positive.max() * 1.001, 40).tolist()
        for number, (name, values) in enumerate(zip(names, norms, strict=True)):
            if not len(values):  # none was finite
                continue
            label = f"{shortened(name)}: median {np.median(values):.3g}"
            axis.hist(
                values,
                bins=bins,
                histtype="stepfilled",
                color=colours[name],
                alpha=0.55,
                label=label if number < _NAMED else None,
            )
        axis.set(
            title=shortened(group), xlabel="norm of the gradient", ylabel=_unit(train)
        )
        axis.set_xscale("log")
        plain_log(axis.xaxis)
        axis.legend(frameon=False, fontsize="small")
    return figure


def _colours(train: list[Record]) -> dict[str, str]:
    """One colour per objective, the same in every figure."""
    names = [k.removeprefix("loss/") for k in train[0] if k.startswith("loss/")]
    return dict(zip(names, itertools.cycle(COLOURS), strict=False))


def _names(train: list[Record], group: str, kind: str) -> list[str]:
    prefix = f"{group}/{kind}/"
    return [k.removeprefix(prefix) for k in train[0] if k.startswith(prefix)]


def _unit(train: list[Record]) -> str:
    """What a record is of."""
    steps = max(r.get("steps", 1) for r in train)
    return "steps" if steps == 1 else f"means of {steps} steps"


def _smooth(values: np.ndarray, span: int = 15) -> np.ndarray:
    """A centred moving mean that shrinks at the ends."""
    ones, kernel = np.ones_like(values), np.ones(min(span, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(ones, kernel, "same")
