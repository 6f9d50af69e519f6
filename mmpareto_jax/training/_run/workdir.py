"""The files by which a run says what it is, and what it came to."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpareto_jax._version import __version__
from mmpareto_jax._whole_files import read_json, write_whole
from mmpareto_jax.training._config import Config, renamed

if TYPE_CHECKING:  # a resumed run's mistakes need not wait for flax
    from mmpareto_jax.training._run.result import Result
    from mmpareto_jax.training._tasks.base import Task

_RESULT = "result.json"
# What a run that is not taken up would write over.
_OF_A_RUN = ("metrics.jsonl", "checkpoints", "tensorboard", _RESULT)


def workdir_of(caller: str, workdir: Any) -> Path:
    """The directory that a public function was given.

    Raises:
      TypeError: it is no path.
    """
    if not isinstance(workdir, str | Path):
        raise TypeError(
            f"{caller}: workdir: expected a path, got {type(workdir).__name__}"
        )
    return Path(workdir)


def refuse_other_run(workdir: Path, config: Config, resume: bool) -> None:
    """Refuses a workdir that this run may not write to; changes nothing.

    Raises:
      ValueError: it holds a run and `resume` is False, or holds none, or one of
        another configuration, and `resume` is True.
    """
    if resume:
        old = read_config(workdir)
        if not config.is_sized:  # a task that is not made yet
            config = config.settled(config.task, old.num_train)
        there, new = old.to_dict(), config.to_dict()
        differ = [f"{k} {there[k]} (now {new[k]})" for k in new if there[k] != new[k]]
        if differ:
            raise ValueError(
                f"workdir {workdir}: holds a run of another config: {', '.join(differ)}"
            )
    elif (workdir / "config.json").exists():
        raise ValueError(
            f"workdir {workdir}: already holds a run; continue it with --resume "
            "(resume=True), or choose another --workdir"
        )
    elif left := [name for name in _OF_A_RUN if (workdir / name).exists()]:
        raise ValueError(
            f"workdir {workdir}: has the {' and '.join(left)} of a run without its "
            "config.json; choose another --workdir"
        )


def claim(
    workdir: Path,
    config: Config,
    task: Task,
    *,
    resume: bool,
    began: Mapping[str, Any],
) -> None:
    """Makes the workdir this run's: writes its config.json.

    Args:
      workdir: of the run.
      config: of the run.
      task: what it learns.
      resume: whether it goes on.
      began: how and on what, which stands in the file for each time that it did.

    Raises:
      ValueError: as of `refuse_other_run`.
    """
    refuse_other_run(workdir, config, resume)
    path = workdir / "config.json"
    if resume:
        refuse_other_task(workdir, task)
        record = read_record(path)
        before = record.get("resumed")
        record["resumed"] = [*(before if isinstance(before, list) else ()), began]
    else:
        workdir.mkdir(parents=True, exist_ok=True)
        record = {"config": config.to_dict(), **_of_task(task), **began}
    write_whole(path, json.dumps(record, indent=2) + "\n")


def unclaim(workdir: Path) -> None:
    """Takes back what a run wrote that never made a step; at last that it is one."""
    for name in ("tensorboard", "checkpoints"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("metrics.jsonl", "config.json"):
        (workdir / name).unlink(missing_ok=True)


def refuse_other_task(workdir: Path, task: Task) -> None:
    """Refuses a run of a task with other objectives or measures; changes nothing.

    Raises:
      ValueError: names what differs.
    """
    record = read_record(workdir / "config.json")
    for what, now in _of_task(task).items():
        there = record.get(what, now)  # of a version that did not write it
        if there != now:
            raise ValueError(
                f"workdir {workdir}: holds a run of another task: {what} {there} "
                f"(now {now})"
            )


def _of_task(task: Task) -> dict[str, Any]:
    """What of a task stands in ``config.json``."""
    return {
        "objectives": list(task.criteria),
        "measures": [measure._asdict() for measure in task.measures],
    }


def read_config(workdir: str | Path) -> Config:
    """The configuration of the run in `workdir`.

    Args:
      workdir: the directory that ``train`` was given.

    Returns:
      The configuration, equal to the one that ``train`` was given.

    Raises:
      ValueError: there is none, or it is not readable, or it has an option or a value
        that this version does not know; or the prepared data that it names are gone.
    """
    path = workdir_of("read_config", workdir) / "config.json"
    if not path.exists():
        raise ValueError(f"workdir {workdir}: holds no run (no config.json)")
    values = read_record(path).get("config")
    try:
        if not isinstance(values, dict):
            raise ValueError("holds no config")
        return Config(**renamed(values))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"workdir {workdir}: unreadable config.json: {error}"
        ) from None


def write_result(result: Result) -> None:
    """Writes ``result.json``: all that is reported, without the parameters."""
    conflicts = {
        group: [*result.groups.describe(group), share]
        for group, share in result.conflicts.items()
    }
    record = {
        "checkpoint": result.checkpoint,
        "step": result.step,
        "finished": result.finished,
        "diverged": result.diverged,
        "nonfinite": result.nonfinite._asdict(),
        "measures": [measure._asdict() for measure in result.measures],
        "scores": {
            # JSON has no NaN.
            split: {
                k: float(x) if math.isfinite(x) else None for k, x in scores.items()
            }
            for split, scores in result.scores.items()
        },
        "conflicts": conflicts,
    }
    path = result.workdir / _RESULT
    write_whole(path, json.dumps(record, indent=2) + "\n")


def forget_result(workdir: Path) -> None:
    """Of a run that goes on: it is no longer at what it came to."""
    (workdir / _RESULT).unlink(missing_ok=True)


def read_record(path: Path) -> dict[str, Any]:
    """One of these files; empty where there is none.

    Raises:
      ValueError: it is not readable.
    """
    if not path.exists():
        return {}
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"workdir {path.parent}: unreadable {path.name}: {error}"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(
            f"workdir {path.parent}: unreadable {path.name}: expected an object, got "
            f"{type(record).__name__}"
        )
    return record


def versions() -> dict[str, str]:
    """Of all that a run's numbers depend on."""
    others = ("jax", "jaxlib", "optax", "flax", "numpy")
    found = {name: importlib.metadata.version(name) for name in others}
    python = platform.python_version()
    return {"mmpareto_jax": __version__, **found, "python": python}


def now() -> str:
    """Date and time with the offset of the zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
