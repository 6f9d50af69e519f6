"""The arguments of ``mmpareto``: a function for each command."""

from __future__ import annotations

import argparse
import typing
from typing import Any

from mmpareto_jax._cli.answers import Parser
from mmpareto_jax._cli.cache import add_cache
from mmpareto_jax._cli.completion import SHELLS
from mmpareto_jax._cli.devices import add_devices
from mmpareto_jax._cli.explain import method_columns
from mmpareto_jax._cli.listed import listed
from mmpareto_jax._cli.options import add_options
from mmpareto_jax._cli.parser_of_studies import add_compare, add_sweep
from mmpareto_jax._cli.paths import path
from mmpareto_jax._published import PUBLISHED
from mmpareto_jax._version import __version__
from mmpareto_jax.training._choices import MethodName, TaskName, spelled


def make_parser() -> argparse.ArgumentParser:
    """The parser; ``command`` of what it parses is the command's name."""
    parser = Parser(
        prog="mmpareto",
        allow_abbrev=False,
        description="Multimodal training with MMPareto in JAX.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        _train,
        _evaluate,
        _plot,
        _report,
        add_compare,
        add_sweep,
        _prepare,
        _methods,
        _datasets,
        _check,
        _completion,
    ):
        add(commands)
    return parser


def _train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train a model",
        allow_abbrev=False,
        argument_default=None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=method_columns(),
    )
    train.add_argument(
        "task",
        nargs="?",
        choices=typing.get_args(TaskName),
        metavar="TASK",
        help="what to learn: mmpareto datasets lists it, or module:function returns it "
        "(default: av-digits)",
    )
    train.add_argument(
        "--workdir", type=path, help="where the run is written (default: runs/...)"
    )
    train.add_argument(
        "--resume", action="store_true", help="continue the run in --workdir"
    )
    file = "TOML or JSON; flags go first"
    train.add_argument("--config", type=path, metavar="FILE", help=file)
    add_devices(train, processes=True)
    add_cache(train)
    add_options(train, without=("task",))


def _evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="evaluate a run's checkpoint", allow_abbrev=False
    )
    evaluate.add_argument("workdir", type=path)
    evaluate.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="best",
        help="best on validation, or latest (default: %(default)s)",
    )
    add_devices(evaluate, processes=False)
    add_cache(evaluate)


def _plot(commands: Any) -> None:
    plot = commands.add_parser(
        "plot",
        help="draw a run's figures again, or trajectories of toy problems",
        allow_abbrev=False,
    )
    plot.add_argument("workdir", type=path, help="of the run; or the word trajectories")
    plot.add_argument(
        "--problem", default="toy", help="trajectories: of what (default: %(default)s)"
    )
    plot.add_argument(
        "--methods", type=listed(str), metavar="A,B,...", help="trajectories: of whom"
    )
    plot.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="trajectories: the PNG (default: PROBLEM.png)",
    )


def _report(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="one HTML page about runs and comparisons", allow_abbrev=False
    )
    report.add_argument(
        "workdirs",
        type=path,
        nargs="+",
        metavar="WORKDIR",
        help="of train or of compare",
    )
    report.add_argument(
        "--out",
        type=path,
        metavar="FILE",
        help="(default: report.html in WORKDIR; of several: in this directory)",
    )


def _prepare(commands: Any) -> None:
    prepare = commands.add_parser(
        "prepare",
        help="bring a published data set, or own arrays, into one compact form",
        allow_abbrev=False,
    )
    prepare.add_argument(
        "name",
        choices=PUBLISHED,
        metavar="NAME",
        help=f"the data set, one of {', '.join(PUBLISHED)}",
    )
    prepare.add_argument(
        "--raw",
        type=path,
        metavar="DIR",
        help="the published files (colored-digits: or nothing); "
        "arrays: an npz file, or npy files",
    )
    prepare.add_argument(
        "--out", type=path, metavar="DIR", required=True, help="where to write"
    )
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
    prepare.add_argument(
        "--classes", type=int, choices=(7, 19), help="cityscapes: labels (default: 7)"
    )
    prepare.add_argument("--seed", type=int, help="of the split (default: 0)")
    prepare.add_argument(
        "--shares",
        type=listed(float),
        metavar="X,Y,Z",
        help="arrays: of training, validation and test in a random split "
        "(default: 0.8,0.1,0.1)",
    )


def _check(commands: Any) -> None:
    check = commands.add_parser(
        "check",
        help="say what is wrong with prepared data",
        allow_abbrev=False,
    )
    check.add_argument("directory", type=path, help="what mmpareto prepare wrote")


def _methods(commands: Any) -> None:
    methods = commands.add_parser(
        "methods", help="list and explain the methods", allow_abbrev=False
    )
    methods.add_argument(
        "method",
        nargs="?",
        type=spelled,
        choices=typing.get_args(MethodName),
        metavar="METHOD",
        help="explain this one in full (default: list all)",
    )


def _datasets(commands: Any) -> None:
    datasets = commands.add_parser(
        "datasets", help="list and explain the data sets", allow_abbrev=False
    )
    datasets.add_argument(
        "name",
        nargs="?",
        choices=typing.get_args(TaskName),
        metavar="NAME",
        help="explain this one in full (default: list all)",
    )


def _completion(commands: Any) -> None:
    completion = commands.add_parser(
        "completion",
        help="print a shell's completion script, for source",
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=SHELLS)
