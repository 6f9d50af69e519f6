"""A run as a part of a report: read from its files, written as HTML."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmpareto_jax as mmp
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._described.names import shortened
from mmpareto_jax.training._options.groups import is_used
from mmpareto_jax.training._report import html
from mmpareto_jax.training._report.parts import note, part
from mmpareto_jax.training._report.run_figures import run_figures
from mmpareto_jax.training._run.counts import NONFINITE, Nonfinite
from mmpareto_jax.training._run.metrics import read_metrics
from mmpareto_jax.training._run.workdir import read_record
from mmpareto_jax.training._study.summary import legend, titled
from mmpareto_jax.training._tasks.criteria import Measure

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Config)}
_CAPTIONS = {
    "learning_curves": "Loss and accuracy by step: validation (dots) and training "
    "(faint, a moving mean).",
    "cosine": "Cosine of the objectives' gradients on the parameters that they share; "
    "a step with a conflict is in the other colour.",
    "weights": "Share of each objective's weight in the combination; equal shares lie "
    "upon each other, the wider marks below.",
    "gradient_norms": "Norms of the objectives' gradients on the parameters that they "
    "share.",
    "probe": "What the probes have seen of the task's objectives, over all parameters: "
    "the cosine of an objective's own direction and the step of the plain sum, and of "
    "the optimiser; and for each group how far the sum is from the min-norm point.",
}

# Of which less is better: until a run has ended, its files have the names alone.
_LESS = ("absolute_error/", "relative_error/", "mean_angle/", "median_angle/")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """What a run's directory holds.

    Attributes:
      name: what the report calls it.
      config: its options.
      known: its measures as they were recorded; empty where they were not.
      environment: versions, device and date, as far as they were recorded.
      result: result.json; empty where the run has not come to its end.
      metrics: the records of metrics.jsonl.
      unread: what could not be read, in a sentence; empty where all could.
    """

    name: str
    config: Mapping[str, Any]
    known: Sequence[Mapping[str, Any]]
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    metrics: list[dict[str, Any]]
    unread: str = ""

    @property
    def measures(self) -> list[Measure]:
        """What the run reports, the main one first."""
        if self.known:
            return [Measure(**m) for m in self.known]
        # Runs of a version that did not write them at the start.
        names = {k: None for r in self.validation for k in r if "/" in k}
        names = {k: None for k in names if not k.startswith("loss/")}
        main = [k for k in names if k.endswith(("/mean", "/joint"))]
        return [
            Measure(
                k,
                k.split("/", 1)[1],
                higher=not k.startswith(_LESS),
                percent=k.startswith("accuracy/"),
            )
            for k in {**dict.fromkeys(main), **names}
        ]

    @property
    def validation(self) -> list[dict[str, Any]]:
        """The records on the validation split."""
        return [r for r in self.metrics if r["split"] == "validation"]

    @property
    def diverged(self) -> bool:
        """Whether steps that were not finite have ended it, or were its last."""
        return bool(self.result.get("diverged"))

    @property
    def nonfinite(self) -> Nonfinite:
        """Its steps that were not finite, up to now."""
        steps = [r for r in self.metrics if r["split"] == "train"]
        last = f"/{NONFINITE}"
        groups = {k: None for r in steps for k in r if k.endswith(last)}
        objectives = self.environment.get("objectives", ())
        return Nonfinite.of(steps, objectives, [k.removesuffix(last) for k in groups])

    @property
    def scores(self) -> dict[str, Mapping[str, Any]]:
        """Split -> name -> value, of the epoch that is best on validation."""
        if self.result:
            scores: dict[str, Mapping[str, Any]] = self.result["scores"]
            return scores
        best = self.best
        return {"validation": best} if best else {}

    @property
    def best(self) -> dict[str, Any]:
        """The record of the epoch that is best on validation; empty without any."""
        if not self.measures:
            return {}
        main = self.measures[0]
        sign = 1 if main.higher else -1
        scored = [r for r in self.validation if r.get(main.name) is not None]
        # Of equal ones the last, as the trainer does.
        return max(reversed(scored), key=lambda r: sign * r[main.name], default={})


def read_run(workdir: Path, name: str) -> RunFiles:
    """Reads the files of a run.

    Raises:
      ValueError: there is none, or its config.json is not readable.
    """
    record = read_record(workdir / "config.json")
    if not isinstance(record.get("config"), dict):
        raise ValueError(f"workdir {workdir}: unreadable config.json: holds no config")
    result, unread = {}, ""
    try:
        result = read_record(workdir / "result.json")
    except ValueError as error:
        unread = str(error)
    known = record.pop("measures", ())
    known = result.get("measures", known)
    config, metrics = record.pop("config"), read_metrics(workdir)
    return RunFiles(name, config, known, record, result, metrics, unread)


def run_section(run: RunFiles) -> Iterator[str]:
    """The HTML of a run."""
    config = run.config
    yield (
        f"<p>{html.escape(config.get('method'))} on {html.escape(config.get('task'))}"
        f", learning rate {html.escape(config.get('lr'))}, "
        f"seed {html.escape(config.get('seed'))}</p>"
    )
    if run.unread:
        yield note(run.unread)
    yield from part("The scores", _scores(run))
    yield from part("The conflicts", _conflicts(run))
    yield from part("The figures", _figures(run))
    yield from part("The probes", _probes(run))
    methods = [str(config.get("method", ""))]
    yield from part("The configuration", _once(options, config, methods))
    yield from part("The environment", _once(environment, run.environment))


def _once(made: Callable[..., str], *of: Any) -> Iterator[str]:
    yield made(*of)


def _conflicts(run: RunFiles) -> Iterator[str]:
    conflicts = [
        (f"{where} ({shortened(objectives, 60, ', ')})", f"{100 * share:.1f}")
        for where, objectives, share in run.result.get("conflicts", {}).values()
    ]
    if conflicts:
        yield html.table(("parameters (objectives)", "conflicting steps, %"), conflicts)


def _figures(run: RunFiles) -> Iterator[str]:
    if any(r["split"] == "train" for r in run.metrics):
        drawings = run_figures(run.metrics)
        yield html.figures((d, _CAPTIONS[name]) for name, d in drawings.items())
    else:
        yield note("No step is recorded yet.")


def _probes(run: RunFiles) -> Iterator[str]:
    probes = [r for r in run.metrics if r["split"] == "probe"]
    if probes:
        said = mmp.summarize([_short_names(record) for record in probes])
        yield f"<p>{html.escape(said)}</p>"


def _short_names(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record, its groups under names that a sentence has room for."""
    return {"/".join(map(shortened, k.split("/"))): x for k, x in record.items()}


def _scores(run: RunFiles) -> Iterator[str]:
    if not run.result:
        yield (
            '<p class="note">No test scores: the run has not ended, or is of a version '
            "that wrote none.</p>"
        )
    elif run.diverged:
        yield (
            '<p class="note">The run diverged; these are the scores of what there was '
            "before.</p>"
        )
    elif not run.result["finished"]:
        yield (
            '<p class="note">The run was stopped before its end; these are the scores '
            "of what there is.</p>"
        )
    if (found := run.nonfinite).steps:
        said = found.said(run.config.get("on_nonfinite", "continue"))
        yield f'<p class="note">{html.escape(said)}.</p>'
    scores = run.scores
    if not scores:
        return
    lines = [(headed(m), *(shown(m, s) for s in scores.values())) for m in run.measures]
    yield html.table(("", *scores), lines)
    step = run.result.get("step") or run.best["step"]
    which = run.result.get("checkpoint", "best")
    note = "the best on validation" if which == "best" else "the latest"
    said = html.escape(legend(run.measures))
    yield f'<p class="note">Scores of step {html.escape(step)}, {note}. {said}</p>'


def headed(measure: Measure) -> str:
    """What heads the measure's values: which way is better, and the unit."""
    return f"{titled(measure)}, %" if measure.percent else titled(measure)


def shown(measure: Measure, scores: Mapping[str, Any]) -> str:
    """The measure as it stands in a table; a dash where it has no value."""
    value = scores.get(measure.name)
    if value is None:
        return "–"
    return f"{measure.shown(value):{'.1f' if measure.percent else '.4g'}}"


def options(config: Mapping[str, Any], methods: Sequence[str]) -> str:
    """The options that runs of these methods have; what is not by default again.

    Those of other tasks and methods are left out.
    """
    task = str(config.get("task", ""))
    config = {
        k: x
        for k, x in config.items()
        if k not in DEFAULTS or is_used(k, task, methods)
    }
    changed = [f"{k} = {x}" for k, x in config.items() if x != DEFAULTS.get(k)]
    lines = [(k, x, DEFAULTS.get(k, "")) for k, x in config.items()]
    others = ", ".join(changed) or "nothing"
    return html.details(
        "Configuration",
        f"<p>Not by default: {html.escape(others)}</p>",
        html.table(("option", "value", "default"), lines, plain=True),
    )


def environment(record: Mapping[str, Any]) -> str:
    """Versions, device and date, as they were recorded."""
    again = [f"{x['started']} on {x['device']}" for x in record.get("resumed", ())]
    shown = {"resumed": "; ".join(again)} if again else {}
    hidden = ("versions", "objectives", "measures", "together")
    lines = [
        *((k, x) for k, x in (dict(record) | shown).items() if k not in hidden),
        *dict(record.get("versions", {})).items(),
    ]
    return html.details("Environment", html.table((), lines, plain=True))
