"""What the figures of runs have in common: panels, colours, legends, series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from matplotlib import ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.training._described.names import shortened

# Okabe & Ito's colours, which stay apart for colour-blind readers.
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000", "#F0E442"),
)
Record = dict[str, Any]
# Of a legend: how many there are at most, and how long.
_ENTRIES, _LABEL = 20, 56


def panels(num: int, across: float = 5.2) -> tuple[Figure, list[Axes]]:
    """A figure with up to three panels in a row."""
    columns = min(num, 3)
    rows = -(-num // columns)
    figure = Figure(figsize=(across * columns, 3.6 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(num)]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def outer_legend(figure: Figure, *, below: bool = False) -> None:
    """One legend for all panels, beside or below them: it hides no curve."""
    handles: dict[str, Artist] = {}
    for axis in figure.axes:
        lines, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, lines, strict=True))
    if handles:
        labels = list(handles)[:_ENTRIES]
        shown = [shortened(label, _LABEL) for label in labels]
        if len(handles) > _ENTRIES:
            shown[-1] = f"… and {len(handles) - _ENTRIES + 1} more"
        figure.legend(
            [handles[label] for label in labels],
            shown,
            loc="outside lower left" if below else "outside right upper",
            frameon=False,
            fontsize="small",
        )


def save(figure: Figure, file: Path | TextIO, **options: Any) -> None:
    """Writes a figure, in which names are text, whatever they hold.

    The numbers at logarithmic axes are formulas, and stay so.

    Args:
      figure: whole.
      file: where to.
      **options: of ``Figure.savefig``.
    """
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    texts = [text for legend in legends if legend for text in legend.get_texts()]
    for axis in figure.axes:
        texts += [axis.title, axis.xaxis.label, axis.yaxis.label]
    for text in texts:
        text.set_parse_math(False)
    if isinstance(file, Path):
        with whole_file(file) as opened:
            figure.savefig(opened, format=file.suffix[1:] or None, **options)
    else:
        figure.savefig(file, **options)


def plain_log(axis: Axis) -> None:
    """Plain numbers on a logarithmic axis that spans few decades; once it is full."""
    low, high = axis.get_view_interval()
    if high > 1000 * low:
        return
    if high > 10 * low:
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    else:
        axis.set_major_locator(ticker.MaxNLocator(5, steps=(1, 2, 5, 10)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def series(records: Sequence[Record], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the records that have one."""
    pairs = [(r["step"], r[key]) for r in records if r.get(key) is not None]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.asarray(steps), np.asarray(values, float)


def widths(num: int, narrowest: float, widest: float) -> list[float]:
    """Of marks that may lie upon each other, the lowest first: all are seen.

    Args:
      num: of them.
      narrowest: the last one's.
      widest: as much as it may be; few are told apart by less.
    """
    first = max(narrowest, min(widest, 1.5 * narrowest * num))
    sizes: list[float] = np.linspace(narrowest, first, num)[::-1].tolist()
    return sizes
