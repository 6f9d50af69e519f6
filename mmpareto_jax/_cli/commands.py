"""``mmpareto train``, ``evaluate``, ``plot`` and ``report``: what they do, and print.

Heavy imports are inside the functions, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import sys
import warnings
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, get_args

from mmpareto_jax._cli.devices import Devices
from mmpareto_jax._cli.nearest import check_names
from mmpareto_jax._cli.paths import make_room
from mmpareto_jax._cli.stopping import again, going_on, quiet_orbax
from mmpareto_jax.training._choices import RuleName
from mmpareto_jax.training._described.names import shortened

if TYPE_CHECKING:
    from mmpareto_jax.training import Config, Result

INTERRUPTED, DIVERGED = 130, 4


def train(arguments: dict[str, Any]) -> int:
    devices = Devices.taken_from(arguments)
    workdir, resume = arguments.pop("workdir"), arguments.pop("resume")
    config = config_of(arguments, workdir, resume)
    if workdir is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        task = config.task.replace(":", ".")
        workdir = f"runs/{task}-{config.method}-seed{config.seed}-{now}"
    devices.start()
    from mmpareto_jax._cli.training_progress import TrainingProgress
    from mmpareto_jax.training import draw_figures, train
    from mmpareto_jax.training._run.processes import is_first, told

    workdir = told(workdir)[0]  # that of the first process, whose clock named it
    quiet_orbax()
    with (
        contextlib.closing(TrainingProgress()) as progress,
        going_on(functools.partial(_resumed, workdir)),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", ".* not finite")  # it is said below
        result = train(
            config, workdir, resume=resume, callbacks=[progress], **devices.placement
        )
    code = 0 if result.finished else INTERRUPTED
    code = DIVERGED if result.diverged else code
    if not is_first():
        return code
    with going_on(lambda: f"mmpareto plot {workdir}"):
        files = draw_figures(workdir)
    _print_result(result, [path.name for path in files])
    if result.diverged:
        print(_diverged(result), file=sys.stderr)
    elif code:
        print(f"Stopped. To go on: mmpareto train --workdir {workdir} --resume")
    return code


def _resumed(workdir: str) -> str:
    """The command that goes on with the run, if it has begun."""
    began = os.path.exists(os.path.join(workdir, "config.json"))
    return f"mmpareto train --workdir {workdir} --resume" if began else again()


def _diverged(result: Result) -> str:
    """What became of it, which checkpoint is left, and what to do."""
    config = result.config
    way_out = (
        f"lower --lr (now {config.lr:g}), or see --on-nonfinite, and train to another "
        "--workdir"
    )
    if result.is_unscored and not result.nonfinite.steps:
        return (
            "mmpareto: the run diverged: no checkpoint has a finite score on "
            f"validation; {way_out}"
        )
    kept = []
    if config.ends_after is not None:
        kept.append(f"checkpoint {int(result.state.step)} is the state before them")
    if result.checkpoint == "best" and not result.is_unscored:
        kept.append(f"the best on validation is checkpoint {result.step}")
    said = [result.nonfinite.said(config.on_nonfinite), *kept]
    return (
        f"mmpareto: the run diverged at step {result.nonfinite.last}: "
        f"{'; '.join(said)}; {way_out}"
    )


def config_of(
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
    if config.is_sized:
        config.check_sizes()
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
    path = Path(arguments["out"] or f"{name}.png")
    make_room(path, endings=(".png", ".pdf", ".svg"))
    problem = problems.PROBLEMS[name]()
    found = problems.compare_trajectories(problem, methods or problems.METHODS)
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
    if result.nonfinite.steps:
        print(f"{result.nonfinite.said(result.config.on_nonfinite)}.")
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
