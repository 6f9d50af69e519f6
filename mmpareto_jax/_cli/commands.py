"""What the subcommands of ``mmpareto`` do, and what they print.

Heavy imports are inside the functions, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import inspect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, get_args

from mmpareto_jax._cli import progress as _progress
from mmpareto_jax._cli.devices import Devices
from mmpareto_jax._cli.nearest import check_names
from mmpareto_jax.training._choices import MULTI_TASK, MethodName, RuleName, is_own
from mmpareto_jax.training._described.names import shortened

if TYPE_CHECKING:
    from mmpareto_jax.training import Comparison, Config, Result

FAULTY = 1
INTERRUPTED = 130
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


def train(arguments: dict[str, Any]) -> int:
    devices = Devices.taken_from(arguments)
    workdir, resume = arguments.pop("workdir"), arguments.pop("resume")
    config = _config(arguments, workdir, resume)
    if workdir is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        task = config.task.replace(":", ".")
        workdir = f"runs/{task}-{config.method}-seed{config.seed}-{now}"
    devices.start()
    from mmpareto_jax._cli.training_progress import TrainingProgress
    from mmpareto_jax.training import draw_figures, train
    from mmpareto_jax.training._run.processes import is_first, told

    workdir = told(workdir)[0]  # that of the first process, whose clock named it
    with contextlib.closing(TrainingProgress()) as progress:
        result = train(
            config, workdir, resume=resume, callbacks=[progress], **devices.placement
        )
    code = 0 if result.finished else INTERRUPTED
    if not is_first():
        return code
    files = draw_figures(workdir)
    _print_result(result, [path.name for path in files])
    if code:
        print(f"Stopped. To go on: mmpareto train --workdir {workdir} --resume")
    return code


def _config(
    arguments: dict[str, Any],
    workdir: str | None,
    resume: bool,
    methods_of: Callable[[Config], Collection[str]] = lambda config: (config.method,),
) -> Config:
    """Defaults (of the run, when it is resumed) < the file < the flags.

    What is given has to be an option of the task and of one of the methods, even where
    it is given as it is by default.
    """
    from mmpareto_jax.training._config import Config, load_config
    from mmpareto_jax.training._options.groups import refuse_unused

    values: dict[str, Any] = {}
    if resume:
        if workdir is None:
            raise ValueError("--resume needs the --workdir of the run to continue")
        from mmpareto_jax.training._run.workdir import read_config

        values = read_config(workdir).to_dict()
    path = arguments.pop("config")
    given = load_config(path) if path is not None else {}
    given |= {k: v for k, v in arguments.items() if v is not None}
    config = Config(**values | given)
    options = [k for k in given if k not in ("task", "method")]
    refuse_unused(options, config.task, methods_of(config))
    return config


def evaluate(arguments: dict[str, Any]) -> int:
    devices = Devices.taken_from(arguments)
    devices.start()
    from mmpareto_jax.training import evaluate

    workdir, checkpoint = arguments["workdir"], arguments["checkpoint"]
    _print_result(evaluate(workdir, checkpoint, **devices.placement), [])
    return 0


def plot(arguments: dict[str, Any]) -> int:
    if arguments["workdir"] == "trajectories":
        return _trajectories(arguments)
    from mmpareto_jax.training import draw_figures

    for path in draw_figures(arguments["workdir"]):
        print(path)
    return 0


def _trajectories(arguments: dict[str, Any]) -> int:
    from pathlib import Path

    from mmpareto_jax import problems

    name, methods = arguments["problem"], arguments["methods"]
    check_names("problem", [name], problems.PROBLEMS)
    check_names("method", methods or (), _library_methods())
    problem = problems.PROBLEMS[name]()
    found = problems.compare_trajectories(problem, methods or problems.METHODS)
    path = Path(arguments["out"] or f"{name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    problems.draw_trajectories(problem, found.trajectories, path)
    print(found.table())
    print(f"\n{path}")
    return 0


def _library_methods() -> list[str]:
    """The methods that need no trainer."""
    rules = [*get_args(RuleName), "pareto"]
    return sorted({*rules, *(rule.replace("-", "_") for rule in rules)})


def report(arguments: dict[str, Any]) -> int:
    from pathlib import Path

    from mmpareto_jax.training import write_report

    workdirs, out = arguments["workdirs"], arguments["out"]
    if out is None:
        out = "report.html"
        if len(workdirs) == 1:
            out = Path(workdirs[0]) / out
    print(write_report(workdirs, out))
    return 0


def compare(arguments: dict[str, Any]) -> int:
    own = ("methods", "lr_grid", "seeds", "tune_seeds")
    plan = {name: arguments.pop(name) for name in own}
    division = {name: arguments.pop(name) for name in DIVISION}
    _check_workers(division["workers"])
    workdir = arguments.pop("workdir")

    def methods_of(config: Config) -> tuple[str, ...]:
        plan["methods"] = plan["methods"] or _compared(config)
        return tuple(plan["methods"])

    config = _config(arguments, workdir, resume=False, methods_of=methods_of)
    from pathlib import Path

    from mmpareto_jax import training
    from mmpareto_jax.training._study.records import read_measures
    from mmpareto_jax.training._study.summary import legend

    comparison = training.Comparison(config, **plan)
    workdir = Path(workdir or f"runs/compare-{config.task.replace(':', '-')}")
    there = len(training.read_runs(workdir))
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
    (workdir / "table.md").write_text(table + "\n")
    (workdir / "runs.csv").write_text(training.csv_text(records))
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


def _check_workers(workers: int | None) -> None:
    if workers is not None and workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {workers}")


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


def sweep(arguments: dict[str, Any]) -> int:
    from pathlib import Path

    from mmpareto_jax import training

    _check_workers(arguments["workers"])
    workdir = Path(arguments.pop("workdir"))
    given = {k: v for k, v in arguments.items() if v is not None}
    check_names("setting", given.get("settings", ()), training.SETTINGS)
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
    (workdir / "table.md").write_text(table + "\n")
    training.draw_sweep(rows, workdir / "map.png")
    print(f"Test accuracy in %, {given['seeds']} seeds; learning rates tuned for each")
    print("setting and method; paired differences with 95 % intervals; p-values after")
    print(f"Holm's correction for {len(rows)} settings\n")
    print(table)
    print(f"\nworkdir: {workdir}\n  table.md  map.png")
    return 0


def prepare(arguments: dict[str, Any]) -> int:
    name, raw, out = (arguments.pop(k) for k in ("name", "raw", "out"))
    workers = arguments.pop("workers")
    if workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {workers}")
    given = {k: v for k, v in arguments.items() if v is not None}
    from mmpareto_jax.data.sources import options_of, plan_of, prepare

    for option in given:
        if option not in options_of(name):
            raise ValueError(f"--{option}: {name} has no such option")
    plan = plan_of(name, raw, **given)
    _progress.announce(f"{len(plan.examples)} examples")
    with _progress.preparation(name) as progress:
        prepared = prepare(plan, out, workers=workers, progress=progress)
    index = prepared.index
    for split, counts in index["counts"].items():
        each = ", ".join(f"{k} {n}" for k, n in list(counts.items())[:12])
        more = ", ..." if len(counts) > 12 else ""
        # Without classes there is one count for all.
        shown = f" ({each}{more})" if "label" in prepared.arrays[split] else ""
        print(f"{split}: {sum(counts.values())} examples{shown}")
    print(f"left out: {index['left_out']}; the reasons are in {out}/report.json")
    digest = hashlib.sha256("".join(index["sha256"].values()).encode()).hexdigest()
    print(f"checksum of all arrays: {digest[:16]}")
    print(f"To train: mmpareto train {name} --data {out}")
    return 0


def check(arguments: dict[str, Any]) -> int:
    from mmpareto_jax.data.sources import check_prepared, open_prepared

    directory = arguments["directory"]
    faults = check_prepared(directory)
    for fault in faults:
        print(f"{directory}: {fault}")
    if faults:
        return FAULTY
    for split, arrays in open_prepared(directory).arrays.items():
        shown = (f"{name} {x.dtype} {list(x.shape[1:])}" for name, x in arrays.items())
        print(
            f"{split}: {len(next(iter(arrays.values())))} examples: {', '.join(shown)}"
        )
    return 0


def _step_times(comparison: Any, workdir: Any) -> dict[str, float]:
    """Measured once, and kept in the directory."""
    import json

    from mmpareto_jax import training

    path = workdir / "step_times.json"
    if not path.exists():
        _progress.announce("timing a step of each method")
        lr = comparison.lr_grid[0]
        configs = [comparison.run(method, lr, 0) for method in comparison.methods]
        path.write_text(json.dumps(training.step_times(configs), indent=2) + "\n")
    times: dict[str, float] = json.loads(path.read_text())
    return times


def _print_result(result: Result, figures: list[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from mmpareto_jax.training._study.summary import legend, titled

    shares = all(measure.percent for measure in result.measures)
    title = f"{result.config.method}{', in %' if shares else ''}"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    table.add_column("")
    for split in result.scores:
        table.add_column(split, justify="right")
    for measure in result.measures:
        values = [measure.shown(s[measure.name]) for s in result.scores.values()]
        unit = ", %" if measure.percent and not shares else ""
        shown = [f"{x:.1f}" if measure.percent else f"{x:.4g}" for x in values]
        table.add_row(f"{titled(measure)}{unit}", *shown)
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    print(legend(result.measures))
    note = " on validation" if result.checkpoint == "best" else ""
    print(f"checkpoint: step {result.step}, the {result.checkpoint}{note}")
    for group, share in result.conflicts.items():
        where, objectives = result.groups.describe(group)
        names = shortened(objectives, between=", ")
        print(f"conflicting steps, {where} ({names}): {100 * share:.1f} %")
    print(f"workdir: {result.workdir}")
    print("  config.json  result.json  metrics.jsonl  tensorboard/  checkpoints/")
    if figures:
        print(f"  figures/: {'  '.join(figures)}")
