"""A probe in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmpareto_jax._probe.reading import Reading

_SHARED = ("parameters", "cosine", "similarity", "alignment", "conflicts", "min-norm")
_EACH = ("parameters", "objective", "norm", "by the sum", "by the update")


def table(readings: Mapping[str, Reading]) -> str:
    """What objectives have in common, and then a line for each of them.

    ``cosine`` and ``similarity`` are the smallest of the pairs, ``min-norm`` is the
    relative length of the min-norm point and the angle between it and the sum. The
    last columns are descents, with an arrow where the step raises the objective.
    """
    several = {k: x for k, x in readings.items() if len(x.objectives) > 1}
    shared = [_SHARED, *(_shared(name, own) for name, own in several.items())]
    lines = [x for name, own in readings.items() for x in _each(name, own)]
    each = [_EACH[: len(lines[0])], *lines]
    return "\n\n".join(_aligned(x) for x in ([shared, each] if several else [each]))


def _shared(name: str, own: Reading) -> list[str]:
    angle = np.degrees(np.arccos(np.asarray(own.min_norm_cosine, np.float64)))
    return [
        name,
        f"{np.min(own.cosines):.2f}",
        f"{np.min(own.similarities):.2f}",
        f"{float(own.alignment):.2f}",
        f"{100 * float(own.conflicts):.0f} %",
        f"{float(own.min_norm_length):.2f} at {angle:.0f}°",
    ]


def _each(name: str, own: Reading) -> Iterator[list[str]]:
    for k, objective in enumerate(own.objectives):
        descents = [own.sum_descent, own.update_descent]
        values = [float(x[k]) for x in descents if x is not None]
        cells = [f"{x:.2f}{' ↑' if x < 0 else ''}" for x in values]
        yield ["" if k else name, objective, f"{float(own.norms[k]):.3g}", *cells]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = (
        "  ".join(f"{x:<{n}}" for x, n in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return "\n".join(text)
