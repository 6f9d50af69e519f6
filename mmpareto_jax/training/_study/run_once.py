"""One run of a comparison, and what is written down of it."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmpareto_jax.data import column
from mmpareto_jax.training._config import Config
from mmpareto_jax.training._run.counts import Nonfinite
from mmpareto_jax.training._run.fit import fit
from mmpareto_jax.training._run.metrics import plain
from mmpareto_jax.training._run.state import TrainState, diverged
from mmpareto_jax.training._run.step import Program, make_program
from mmpareto_jax.training._study.probe import probe_accuracy
from mmpareto_jax.training._tasks.base import Task
from mmpareto_jax.training._tasks.registry import make_task
from mmpareto_jax.training._tasks.settled import check_method

Record = dict[str, Any]
COSINE_BINS = np.linspace(-1, 1, 41)
RADII = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
_SHARP_SEEDS, _DIRECTIONS = 3, 3


class Trained(NamedTuple):
    """What a run came to.

    Attributes:
      last: the state at its end.
      best: the state at the end of the epoch that is best on validation, the last one
        of equal ones; of a run that ended before its first epoch did, the last state.
      validation: the scores of that epoch.
      steps: the metrics of every step.
      seconds: how long it took.
    """

    last: TrainState
    best: TrainState
    validation: dict[str, float]
    steps: Sequence[dict[str, Any]]
    seconds: float


def program_of(config: Config, task: Task | None) -> tuple[Task, Program]:
    """The task, and the program that runs of any seed and learning rate share."""
    return _program(dataclasses.replace(config, seed=0, lr=1.0), task)


@functools.lru_cache(maxsize=2)
def _program(config: Config, task: Task | None) -> tuple[Task, Program]:
    task = (task or make_task(config)).first(config.num_train)
    check_method(task, config)
    return task, make_program(config, task)


def score_of(record: Record) -> float:
    """By which its run is chosen, more is better; NaN for one that has diverged.

    Its best epoch may have been before that.
    """
    found = record.get("score", next(iter(record["validation"].values())))
    return math.nan if found is None or record.get("diverged") else float(found)


def merit(task: Task, scores: Mapping[str, float]) -> float:
    """By which epochs are chosen, more is better; a score that is not finite loses."""
    found = task.better(scores)
    return found if math.isfinite(found) else -math.inf


def run_once(
    config: Config,
    *,
    task: Task | None = None,
    inspect: bool = True,
) -> Record:
    """One run: the best epoch on validation, scored on test.

    Args:
      config: of the run.
      task: what it learns; None: what the config names.
      inspect: whether to probe the encoders and, for the first seeds, to measure the
        loss around the end; half of a short run's time.
    """
    task, program = program_of(config, task)
    best: tuple[TrainState, dict[str, float]] | None = None
    steps: list[dict[str, Any]] = []

    def on_step(_: int, values: dict[str, Any]) -> None:
        steps.append(values)

    def on_pause(state: TrainState, scores: dict[str, float] | None) -> None:
        nonlocal best
        if scores is None:  # steps that were not finite have ended the run
            if best is not None:
                return
            scores = program.evaluate(state, task.data["validation"])
        if best is None or merit(task, scores) >= merit(task, best[1]):
            # A copy: the next step takes the state's memory.
            best = jax.tree.map(jnp.copy, state), scores

    start = time.perf_counter()
    last = fit(
        program,
        dataclasses.replace(config, log_every=1),  # their quantiles are told
        task,
        program.restart(config.seed, config.lr),
        on_step=on_step,
        on_pause=on_pause,
    )
    seconds = time.perf_counter() - start
    assert best is not None
    trained = Trained(last, *best, steps, seconds)
    return record_of(program, task, config, trained, inspect)


def record_of(
    program: Program, task: Task, config: Config, trained: Trained, inspect: bool
) -> Record:
    """What is written down of a run."""
    test = program.evaluate(trained.best, task.data["test"])
    record: Record = {
        "method": config.method,
        "lr": config.lr,
        "seed": config.seed,
        "step": int(trained.best.step),
        "score": task.better(trained.validation),
        "seconds": round(trained.seconds, 2),
        "device": jax.devices()[0].device_kind,
        "validation": {m.name: trained.validation[m.name] for m in task.measures},
        "test": {m.name: test[m.name] for m in task.measures},
        "probe": _probe(program, trained.best, task) if inspect else {},
        "groups": _describe(program, trained.steps, config.steps_per_epoch),
    }
    groups = program.groups
    bad = Nonfinite.of(trained.steps, groups.objectives, groups.groups)
    if bad.steps:
        record["nonfinite"] = bad._asdict()
    if diverged(int(trained.last.streak), config.ends_after):
        record["diverged"] = True
    if inspect and config.seed < _SHARP_SEEDS:
        record["sharpness"] = _sharpness(program, trained.last, task, config.seed)
    return dict(_without_nan(record))


def _without_nan(x: Any) -> Any:
    """The same with None for what is not finite: JSON has no NaN."""
    if isinstance(x, Mapping):
        return {k: _without_nan(v) for k, v in x.items()}
    if isinstance(x, list):
        return [_without_nan(v) for v in x]
    return plain(x) if isinstance(x, float) else x


def _probe(program: Program, state: TrainState, task: Task) -> dict[str, float]:
    """Encoder -> the test accuracy of a linear classifier on its features."""
    found = {k: program.features(state, x) for k, x in task.data.items()}
    if not found["train"]:
        return {}
    labels = {k: column(x, "label") for k, x in task.data.items()}
    return {
        name: probe_accuracy({k: x[name] for k, x in found.items()}, labels)
        for name in found["train"]
    }


def _describe(
    program: Program, steps: Sequence[dict[str, Any]], steps_per_epoch: int
) -> dict[str, Any]:
    """Group -> what its gradients did over the run."""
    found = {}
    for group, objectives in program.groups.groups.items():
        if len(objectives) < 2:
            continue

        def values(key: str, group: str = group) -> np.ndarray:
            return np.array([s.get(f"{group}/{key}", np.nan) for s in steps], float)

        # Where weights are kept nothing new is seen: what was seen last holds on.
        there = np.isfinite(values("conflict"))
        first, each = int(np.argmax(there)), np.arange(len(steps))
        last = np.maximum.accumulate(np.where(there, each, first))

        def series(
            key: str, values: Callable[..., np.ndarray] = values, last: Any = last
        ) -> np.ndarray:
            held: np.ndarray = np.take(values(key), last)
            return held

        cosines = series("cosine")
        epochs = [
            slice(i, i + steps_per_epoch) for i in range(0, len(steps), steps_per_epoch)
        ]
        norms = {
            k: [float(series(f"norm/{k}")[e].mean()) for e in epochs]
            for k in objectives
        }
        magnitude = np.quantile(series("magnitude"), [0, 0.5, 0.9, 0.99, 1])
        where, _ = program.groups.describe(group)
        found[where] = {
            "conflict": float(series("conflict").mean()),
            "cosines": np.histogram(cosines, COSINE_BINS)[0].tolist(),
            "magnitude": [float(x) for x in magnitude],
            "mean_magnitude": float(series("magnitude").mean()),
            "norms": norms,
        }
    return found


def _sharpness(
    program: Program, state: TrainState, task: Task, seed: int
) -> list[float]:
    """The main loss on the training split along random directions, by ``RADII``.

    Directions are filter-normalised (Li et al., 2018): each filter's has its norm;
    biases and normalisation stay.
    """
    rng = np.random.default_rng(seed)
    main = [f"loss/{name}" for name in task.main]
    losses = []
    for _ in range(_DIRECTIONS):

        def direction(x: jax.Array) -> jax.Array:
            if x.ndim < 2:
                return jnp.zeros_like(x)
            own = np.asarray(x, np.float32)
            d = rng.normal(size=x.shape).astype(np.float32)
            axes = tuple(range(x.ndim - 1))
            size = np.sqrt((d**2).sum(axes) / np.maximum((own**2).sum(axes), 1e-30))
            return jnp.asarray(d / size, x.dtype)

        way = jax.tree.map(direction, state.params)
        for radius in RADII:
            moved = jax.tree.map(lambda x, d, r=radius: x + r * d, state.params, way)
            scores = program.evaluate(state._replace(params=moved), task.data["train"])
            losses.append(sum(scores[name] for name in main))
    mean = np.mean(np.reshape(losses, (_DIRECTIONS, len(RADII))), axis=0)
    return [float(x) for x in mean]
