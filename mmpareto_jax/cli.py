"""The command ``mmpareto``: train, evaluate, plot, compare, sweep, prepare.

Heavy imports are inside the commands, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import importlib.util
import sys
import types
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from mmpareto_jax._version import __version__

if TYPE_CHECKING:
    from mmpareto_jax.training import Config, Result
    from mmpareto_jax.training._loop import Progress

_USAGE_ERROR = 2
_INTERRUPTED = 130
_COMPARED = (
    "joint",
    "uniform",
    "uniform-gamma",
    "pareto",
    "mmpareto",
    "pcgrad",
    "cagrad",
    "nash-mtl",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments; by default the process's own.

    Returns:
      The exit code: 0, 2 for a mistake in the call, 130 after Ctrl-C.
    """
    missing = [
        name
        for name in ("flax", "grain", "orbax", "tensorboardX", "rich", "matplotlib")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        return _fail(f"{', '.join(missing)} missing: pip install 'mmpareto-jax[train]'")
    try:
        arguments = vars(_parser().parse_args(argv))
        command = arguments.pop("command")
        run = {
            "train": _train,
            "evaluate": _evaluate,
            "plot": _plot,
            "compare": _compare,
            "sweep": _sweep,
            "prepare": _prepare,
        }
        code: int = run[command](arguments)
    except SystemExit as stop:  # argparse has printed its line or its help
        return int(stop.code or 0)
    except ValueError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE_ERROR, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    from mmpareto_jax.training._config import Config, Task

    parser = _Parser(prog="mmpareto", allow_abbrev=False, description=main.__doc__)
    parser.description = "Multimodal training with MMPareto in JAX."
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train", help="train a model", allow_abbrev=False, argument_default=None
    )
    train.add_argument(
        "task",
        nargs="?",
        choices=typing.get_args(Task),
        help="what to learn (default: av-digits)",
    )
    train.add_argument("--workdir", help="where the run is written (default: runs/...)")
    train.add_argument(
        "--resume", action="store_true", help="continue the run in --workdir"
    )
    file = "TOML or JSON; flags go first"
    train.add_argument("--config", metavar="FILE", help=file)
    hints = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        if field.name != "task":
            _add_flag(train, field, hints[field.name])

    evaluate = commands.add_parser("evaluate", help="evaluate a run's checkpoint")
    evaluate.add_argument("workdir")
    evaluate.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="best",
        help="best on validation, or latest (default: %(default)s)",
    )
    plot = commands.add_parser("plot", help="draw a run's figures again")
    plot.add_argument("workdir")

    compare = commands.add_parser(
        "compare",
        help="compare methods, each with its own learning rate, over seeds",
        allow_abbrev=False,
    )
    compare.add_argument("task", nargs="?", choices=typing.get_args(Task))
    compare.add_argument(
        "--methods",
        type=_listed(str),
        default=_COMPARED,
        metavar="A,B,...",
        help=f"(default: {','.join(_COMPARED)})",
    )
    compare.add_argument(
        "--lr-grid",
        type=_listed(float),
        default=(0.05, 0.1, 0.2, 0.4),
        metavar="X,Y,...",
        help="each method gets the best one on validation (default: 0.05,0.1,0.2,0.4)",
    )
    compare.add_argument(
        "--seeds", type=int, default=10, help="final runs of a method (default: 10)"
    )
    compare.add_argument(
        "--tune-seeds",
        type=int,
        default=3,
        help="tuning runs for each learning rate (default: 3)",
    )
    compare.add_argument(
        "--workers", type=int, default=2, help="processes (default: 2)"
    )
    compare.add_argument(
        "--workdir",
        help="where all is written; runs that are there already are not repeated "
        "(default: runs/compare-TASK)",
    )
    compare.add_argument(
        "--config", metavar="FILE", help="TOML or JSON; flags go first"
    )
    for field in dataclasses.fields(Config):
        if field.name not in ("task", "method", "lr", "seed"):
            _add_flag(compare, field, hints[field.name])

    sweep = commands.add_parser(
        "sweep",
        help="map where conflicts matter: MMPareto against uniform × γ, on av-digits",
        allow_abbrev=False,
    )
    sweep.add_argument(
        "--settings", type=_listed(str), metavar="A,B,...", help="(default: all)"
    )
    sweep.add_argument(
        "--seeds", type=int, default=8, help="final runs of a method (default: 8)"
    )
    sweep.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    sweep.add_argument("--workdir", default="runs/sweep", help="(default: %(default)s)")

    prepare = commands.add_parser(
        "prepare",
        help="decode a published data set into one compact form",
        allow_abbrev=False,
    )
    prepare.add_argument("name", choices=typing.get_args(Task)[1:])
    prepare.add_argument(
        "--raw", metavar="DIR", help="the published files (colored-digits: or nothing)"
    )
    prepare.add_argument("--out", metavar="DIR", required=True, help="where to write")
    prepare.add_argument(
        "--workers", type=int, default=2, help="processes (default: 2)"
    )
    prepare.add_argument(
        "--split",
        choices=("actor", "literature"),
        help="crema-d: nobody in two splits (default), or that of the csv files",
    )
    prepare.add_argument("--size", type=int, help="of the frames (default: 224)")
    prepare.add_argument(
        "--candidates",
        type=int,
        help="frames from each part of a clip, of which training draws one",
    )
    prepare.add_argument("--seed", type=int, help="of the split (default: 0)")
    return parser


def _listed(kind: Any) -> Any:
    """The type of a flag with values between commas."""

    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(x) for x in text.split(","))

    parse.__name__ = f"list of {kind.__name__}"
    return parse


def _add_flag(
    parser: argparse.ArgumentParser, field: dataclasses.Field[Any], hint: Any
) -> None:
    options: dict[str, Any]
    if typing.get_origin(hint) is typing.Literal:
        options = {"choices": typing.get_args(hint)}
        options["metavar"] = field.name.upper() if len(options["choices"]) > 9 else None
    elif hint is bool:
        options = {"action": argparse.BooleanOptionalAction}
    else:
        kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
        options = {"type": kind, "metavar": kind.__name__.upper()}
    default = "" if field.default is None else f" (default: {field.default})"
    parser.add_argument(
        f"--{field.name.replace('_', '-')}",
        help=f"{field.metadata['help']}{default}",
        **options,
    )


def _train(arguments: dict[str, Any]) -> int:
    workdir, resume = arguments.pop("workdir"), arguments.pop("resume")
    config = _config(arguments, workdir, resume)
    if workdir is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        workdir = f"runs/{config.task}-{config.method}-seed{config.seed}-{now}"
    from mmpareto_jax.training import draw_figures, train

    with _progress_bar(config) as progress:
        result = train(config, workdir, resume=resume, progress=progress)
    files = draw_figures(workdir)
    _print_result(result, [path.name for path in files])
    if result.finished:
        return 0
    print(f"Stopped. To go on: mmpareto train --workdir {workdir} --resume")
    return _INTERRUPTED


def _config(arguments: dict[str, Any], workdir: str | None, resume: bool) -> Config:
    """Defaults (of the run, when it is resumed) < the file < the flags."""
    from mmpareto_jax.training._config import Config, load_config

    values: dict[str, Any] = {}
    if resume:
        if workdir is None:
            raise ValueError("--resume needs the --workdir of the run to continue")
        from mmpareto_jax.training._loop import read_config

        values = read_config(workdir).to_dict()
    path = arguments.pop("config")
    if path is not None:
        values |= load_config(path)
    values |= {k: v for k, v in arguments.items() if v is not None}
    return Config(**values)


def _evaluate(arguments: dict[str, Any]) -> int:
    from mmpareto_jax.training import evaluate

    _print_result(evaluate(arguments["workdir"], arguments["checkpoint"]), [])
    return 0


def _plot(arguments: dict[str, Any]) -> int:
    from mmpareto_jax.training import draw_figures

    for path in draw_figures(arguments["workdir"]):
        print(path)
    return 0


def _compare(arguments: dict[str, Any]) -> int:
    own = ("methods", "lr_grid", "seeds", "tune_seeds")
    plan = {name: arguments.pop(name) for name in own}
    workers, workdir = arguments.pop("workers"), arguments.pop("workdir")
    if workers < 1:
        raise ValueError(f"--workers: expected at least 1, got {workers}")
    config = _config(arguments, workdir, resume=False)
    from pathlib import Path

    from mmpareto_jax import training

    comparison = training.Comparison(config, **plan)
    workdir = Path(workdir or f"runs/compare-{config.task}")
    with _comparison_bar() as progress:
        records = training.compare(
            comparison, workdir, workers=workers, progress=progress
        )
    rows = training.summarize(comparison, records)
    titles = training.make_task(config).title
    times = _step_times(comparison, workdir)
    table = training.markdown(rows, titles, times)
    (workdir / "table.md").write_text(table + "\n")
    (workdir / "runs.csv").write_text(training.csv_text(records))
    figures = training.draw_comparison(rows, records, titles, workdir / "figures")
    print(f"Test accuracy in %, mean ± s.d. over {comparison.seeds} seeds; paired")
    print(
        "differences of the first column with 95 % intervals; time of a step relative"
    )
    print("to that of the plain sum, without any of the methods' machinery\n")
    print(table)
    print(f"\nworkdir: {workdir}")
    print("  comparison.json  runs.jsonl  runs.csv  table.md")
    print(f"  figures/: {'  '.join(path.name for path in figures)}")
    return 0


def _sweep(arguments: dict[str, Any]) -> int:
    from pathlib import Path

    from mmpareto_jax import training

    if arguments["workers"] < 1:
        raise ValueError(f"--workers: expected at least 1, got {arguments['workers']}")
    workdir = Path(arguments.pop("workdir"))
    given = {k: v for k, v in arguments.items() if v is not None}
    with _comparison_bar() as progress:
        rows = training.sweep(training.Config(), workdir, progress=progress, **given)
    table = training.sweep_markdown(rows)
    (workdir / "table.md").write_text(table + "\n")
    training.draw_sweep(rows, workdir / "map.png")
    print(f"Test accuracy in %, {given['seeds']} seeds; learning rates tuned for each")
    print("setting and method; paired differences with 95 % intervals; p-values after")
    print(f"Holm's correction for {len(rows)} settings\n")
    print(table)
    print(f"\nworkdir: {workdir}\n  table.md  map.png")
    return 0


def _prepare(arguments: dict[str, Any]) -> int:
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
    with _prepare_bar() as progress:
        prepared = prepare(plan, out, workers=workers, progress=progress)
    index = prepared.index
    for split, counts in index["counts"].items():
        each = ", ".join(f"{k} {n}" for k, n in list(counts.items())[:12])
        more = ", ..." if len(counts) > 12 else ""
        print(f"{split}: {sum(counts.values())} examples ({each}{more})")
    print(f"left out: {index['left_out']}; the reasons are in {out}/report.json")
    digest = hashlib.sha256("".join(index["sha256"].values()).encode()).hexdigest()
    print(f"checksum of all arrays: {digest[:16]}")
    print(f"To train: mmpareto train {name} --data {out}")
    return 0


@contextlib.contextmanager
def _prepare_bar() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console) as bar:
        task = bar.add_task("decoding", total=None)

        def progress(done: int, total: int, left_out: int) -> None:
            what = f"decoding, {left_out} left out"
            bar.update(task, completed=done, total=total, description=what)

        yield progress


def _step_times(comparison: Any, workdir: Any) -> dict[str, float]:
    """Measured once, and kept in the directory."""
    import json

    from mmpareto_jax import training

    path = workdir / "step_times.json"
    if not path.exists():
        lr = comparison.lr_grid[0]
        configs = [comparison.run(method, lr, 0) for method in comparison.methods]
        path.write_text(json.dumps(training.step_times(configs), indent=2) + "\n")
    times: dict[str, float] = json.loads(path.read_text())
    return times


@contextlib.contextmanager
def _comparison_bar() -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console) as bar:
        task = bar.add_task("compiling", total=None)

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield progress


def _print_result(result: Result, figures: list[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=f"{result.config.method}, accuracy in %")
    table.add_column("")
    for split in result.scores:
        table.add_column(split, justify="right")
    for objective, title in result.titles.items():
        accuracies = [s[f"accuracy/{objective}"] for s in result.scores.values()]
        table.add_row(title, *(f"{100 * x:.1f}" for x in accuracies))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    note = " on validation" if result.checkpoint == "best" else ""
    print(f"checkpoint: step {result.step}, the {result.checkpoint}{note}")
    for group, share in result.conflicts.items():
        where, objectives = result.groups.describe(group)
        print(f"conflicting steps, {where} ({objectives}): {100 * share:.1f} %")
    print(f"workdir: {result.workdir}")
    print("  config.json  metrics.jsonl  tensorboard/  checkpoints/")
    if figures:
        print(f"  figures/: {'  '.join(figures)}")


@contextlib.contextmanager
def _progress_bar(config: Config) -> Iterator[Progress | None]:
    """A bar with losses, accuracies and steps/s; nothing when not on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.0f} steps/s")

    columns = (
        TextColumn(config.method),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("train", total=None, metrics="compiling")

        def progress(step: int, total: int, metrics: dict[str, Any]) -> None:
            if step % 10 == 0 and metrics:
                shown = [
                    f"{name.split('/')[1]} {100 * float(value):.0f} %, "
                    f"loss {float(metrics[name.replace('accuracy', 'loss')]):.2f}"
                    for name, value in sorted(metrics.items())
                    if name.startswith("accuracy/")
                ]
                bar.update(task, metrics="; ".join(shown))
            bar.update(task, completed=step, total=total)

        yield progress


def _fail(message: str) -> int:
    print(f"mmpareto: {message}", file=sys.stderr)
    return _USAGE_ERROR
