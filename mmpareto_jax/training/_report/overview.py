"""Several runs side by side: scores, curves, conflicts, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmpareto_jax.training._described.names import shortened
from mmpareto_jax.training._report import html
from mmpareto_jax.training._report.overlay import conflicts, curves
from mmpareto_jax.training._report.run_section import (
    DEFAULTS,
    RunFiles,
    headed,
    shown,
)
from mmpareto_jax.training._study.summary import legend
from mmpareto_jax.training._tasks.criteria import Measure


def overview(runs: Sequence[RunFiles]) -> Iterator[str]:
    """The HTML of several runs: a part for each task, since their measures differ."""
    tasks: dict[str, list[RunFiles]] = {}
    for run in runs:
        tasks.setdefault(str(run.config.get("task")), []).append(run)
    for task, own in tasks.items():
        if len(tasks) > 1:
            yield f"<h3>Runs of {html.escape(task)}</h3>"
        measures = _measures(own)
        if measures:
            yield from _scores(own, measures)
        if len(own) > 1:
            yield from _overlays(own, measures)
            yield from _differences(own)


def _measures(runs: Sequence[RunFiles]) -> list[Measure]:
    """What any of them reports, the main one first."""
    found: dict[str, Measure] = {}
    # First those that know their measures' titles.
    for run in sorted(runs, key=lambda run: not run.result):
        for measure in run.measures:
            found.setdefault(measure.name, measure)
    return list(found.values())


def _scores(runs: Sequence[RunFiles], measures: Sequence[Measure]) -> Iterator[str]:
    main = measures[0]
    head = ["run", "method", "lr", "seed", f"validation: {headed(main)}"]
    head += [f"test: {headed(measure)}" for measure in measures]
    lines = []
    for run in runs:
        name = f"{run.name} (diverged)" if run.diverged else run.name
        cells = [name, *(run.config.get(k) for k in ("method", "lr", "seed"))]
        validation, test = (run.scores.get(k, {}) for k in ("validation", "test"))
        cells += [shown(main, validation), *(shown(m, test) for m in measures)]
        lines.append(cells)
    yield html.table(head, lines)
    yield f'<p class="note">{html.escape(legend(measures))}</p>'


def _overlays(runs: Sequence[RunFiles], measures: Sequence[Measure]) -> Iterator[str]:
    """The curves and the conflicts that at least two of them have."""
    metrics = dict(zip(_labels(runs), (run.metrics for run in runs), strict=True))

    def several(key: str, split: str) -> bool:
        having = [
            any(r["split"] == split and r.get(key) is not None for r in records)
            for records in metrics.values()
        ]
        return sum(having) > 1

    shared = [m for m in measures if several(m.name, "validation")]
    names = {k: None for x in metrics.values() for r in x for k in r}
    groups = [
        k.removesuffix("/conflict")
        for k in names
        if k.endswith("/conflict") and several(k, "train")
    ]
    drawings = []
    if shared:
        title = shared[0].title if len(shared) == 1 else "Measures"
        drawings.append((curves(metrics, shared), f"{title} on validation, by step."))
    if groups:
        caption = "Share of conflicting steps, by step; where gradients are combined."
        drawings.append((conflicts(metrics, groups), caption))
    if drawings:
        yield html.figures(drawings)


def _labels(runs: Sequence[RunFiles]) -> list[str]:
    """What the curves are called: different, though names that fit may be alike."""
    labels = [
        shortened(f"{run.config.get('method')}: {run.name}", 50, "/") for run in runs
    ]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{number}. {label}" for number, label in enumerate(labels, 1)]


def _differences(runs: Sequence[RunFiles]) -> Iterator[str]:
    options = {
        k: [run.config.get(k, default) for run in runs]
        for k, default in DEFAULTS.items()
    }
    differ = [(k, *xs) for k, xs in options.items() if any(x != xs[0] for x in xs)]
    if differ:
        yield "<h3>Options that differ</h3>"
        yield html.table(("option", *(run.name for run in runs)), differ)
