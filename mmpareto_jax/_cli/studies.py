"""``mmpareto compare`` and ``sweep``: what they do, and what they print.

Heavy imports are inside the functions, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from mmpareto_jax._cli import progress as _progress
from mmpareto_jax._cli.commands import config_of
from mmpareto_jax._cli.devices import check_workers
from mmpareto_jax._cli.nearest import check_names
from mmpareto_jax._whole_files import write_whole
from mmpareto_jax.training._choices import MULTI_TASK, MethodName, is_own

if TYPE_CHECKING:
    from mmpareto_jax.training import Comparison, Config

_OTHERS: tuple[MethodName, ...] = (
    "uniform",
    "uniform-gamma",
    "pareto",
    "mmpareto",
    "pcgrad",
    "cagrad",
)
COMPARED: tuple[MethodName, ...] = ("joint", *_OTHERS, "nash-mtl")
COMPARED_LOSSES: tuple[MethodName, ...] = (*_OTHERS, "nash-mtl")
COMPARED_TASKS: tuple[MethodName, ...] = ("single-task", *COMPARED_LOSSES)
# How the runs of a comparison are divided among devices and processes.
DIVISION = ("workers", "together", "num_processes", "process_id", "patience")


def compare(arguments: dict[str, Any]) -> int:
    own = ("methods", "lr_grid", "seeds", "tune_seeds")
    plan = {name: arguments.pop(name) for name in own}
    division = {name: arguments.pop(name) for name in DIVISION}
    check_workers(division["workers"])
    workdir = arguments.pop("workdir")

    def methods_of(config: Config) -> tuple[str, ...]:
        plan["methods"] = plan["methods"] or _compared(config)
        return tuple(plan["methods"])

    config = config_of(arguments, workdir, resume=False, methods_of=methods_of)
    from pathlib import Path

    from mmpareto_jax import training
    from mmpareto_jax.training._study.records import look, read_measures
    from mmpareto_jax.training._study.summary import legend

    comparison = training.Comparison(config, **plan)
    _check_share(division)
    workdir = Path(workdir or f"runs/compare-{config.task.replace(':', '-')}")
    there = len(look(workdir)[0])
    if not there or training.read_comparison(workdir) == comparison:
        _progress.announce(_length(comparison, there))
    with _progress.runs(f"compare {config.task}", done=there) as progress:
        records = training.compare(comparison, workdir, **division, progress=progress)
    if division["process_id"]:
        return _leave_to_the_first(division, workdir)
    # As it was written: of a task of one's own, with its size.
    comparison, measures = training.read_comparison(workdir), read_measures(workdir)
    rows = training.summarize(comparison, records, measures)
    times = _step_times(comparison, workdir)
    table = training.markdown(rows, measures, times)
    write_whole(workdir / "table.md", table + "\n")
    write_whole(workdir / "runs.csv", training.csv_text(records))
    figures = training.draw_comparison(rows, records, measures, workdir / "figures")
    print(f"On test, mean ± s.d. over {comparison.seeds} seeds; paired differences of")
    print(
        "the first column with 95 % intervals; time of a step relative to that of the"
    )
    print("plain sum, without any of the methods' machinery.")
    print(f"{legend(measures)}\n")
    print(table)
    print(f"\nworkdir: {workdir}")
    print("  comparison.json  runs.jsonl  runs.csv  table.md")
    print(f"  figures/: {'  '.join(path.name for path in figures)}")
    return 0


def _compared(config: Config) -> tuple[MethodName, ...]:
    """The methods that are compared where none are named."""
    if not is_own(config.task):
        return COMPARED_TASKS if config.task in MULTI_TASK else COMPARED
    from mmpareto_jax.training import make_task

    # Without modalities of one label there is no joint loss alone to train by.
    several = make_task(config).detached is None
    return COMPARED_LOSSES if several else COMPARED


def _check_share(division: dict[str, Any]) -> None:
    """Raises ValueError for a share that there is not, before any announcement."""
    from mmpareto_jax.training._study.shares import Share

    names = ("num_processes", "process_id", "patience")
    Share(**{name: division[name] for name in names})


def _leave_to_the_first(division: dict[str, Any], workdir: Any) -> int:
    this, all_ = division["process_id"], division["num_processes"]
    print(f"Process {this} of {all_} has done its share; process 0 tells the result.")
    print(f"\nworkdir: {workdir}")
    return 0


def _length(comparison: Comparison, there: int) -> str:
    """How many runs a comparison is, and how many of them are there already."""
    tune = len(comparison.tuning())
    count = len(comparison.methods) * comparison.seeds
    text = f"{tune + count} runs: {tune} to tune, {count} that count"
    return f"{text}; {there} are there already" if there else text


def _step_times(comparison: Any, workdir: Any) -> dict[str, float]:
    """Measured once, and kept in the directory."""
    import json

    from mmpareto_jax import training
    from mmpareto_jax.training._study.records import read_step_times

    path = workdir / "step_times.json"
    times = read_step_times(workdir)
    if not times:
        _progress.announce("timing a step of each method")
        lr = comparison.lr_grid[0]
        configs = [comparison.run(method, lr, 0) for method in comparison.methods]
        times = training.step_times(configs)
        write_whole(path, json.dumps(times, indent=2) + "\n")
    return times


def sweep(arguments: dict[str, Any]) -> int:
    from pathlib import Path

    from mmpareto_jax import training

    check_workers(arguments["workers"])
    workdir = Path(arguments.pop("workdir"))
    given = {k: v for k, v in arguments.items() if v is not None}
    check_names("setting", given.get("settings", ()), training.SETTINGS)
    _check_share(given)
    settings = given.get("settings", tuple(training.SETTINGS))
    plan = inspect.signature(training.sweep).parameters
    each = 2 * (len(plan["lr_grid"].default) + given["seeds"])
    count = f"{len(settings)} setting{'s' if len(settings) > 1 else ''}"
    _progress.announce(f"{count}, {each} runs of two methods in each")
    with _progress.settings() as progress:
        rows = training.sweep(training.Config(), workdir, progress=progress, **given)
    if given["process_id"]:
        return _leave_to_the_first(given, workdir)
    table = training.sweep_markdown(rows)
    write_whole(workdir / "table.md", table + "\n")
    training.draw_sweep(rows, workdir / "map.png")
    print(f"Test accuracy in %, {given['seeds']} seeds; learning rates tuned for each")
    print("setting and method; paired differences with 95 % intervals; p-values after")
    print(f"Holm's correction for {len(rows)} settings\n")
    print(table)
    print(f"\nworkdir: {workdir}\n  table.md  map.png")
    return 0
