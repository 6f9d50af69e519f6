"""The command ``mmpareto``: train, evaluate, plot, report, compare, sweep, prepare.

Heavy imports are inside the commands, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
import types
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

from mmpareto_jax._cli import commands as _commands
from mmpareto_jax._cli import completion as _completion
from mmpareto_jax._version import __version__

_USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments; by default the process's own.

    Returns:
      The exit code: 0, 2 for a mistake in the call, 130 after Ctrl-C.
    """
    try:
        parser = _parser()
        arguments = vars(parser.parse_args(argv))
        command = arguments.pop("command")
        if missing := _missing(command):
            return _fail(f"{missing} missing: pip install 'mmpareto-jax[train]'")
        if command == "completion":
            return _completion.completion(parser, arguments["shell"])
        run = {
            "train": _commands.train,
            "evaluate": _commands.evaluate,
            "plot": _commands.plot,
            "report": _commands.report,
            "compare": _commands.compare,
            "sweep": _commands.sweep,
            "prepare": _commands.prepare,
        }
        code: int = run[command](arguments)
    except SystemExit as stop:  # argparse has printed its line or its help
        return int(stop.code or 0)
    except ValueError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _commands.INTERRUPTED
    return code


def _missing(command: str) -> str:
    """What the command needs and is not installed."""
    train = ("flax", "grain", "orbax", "tensorboardX", "rich", "matplotlib")
    needed = ("shtab",) if command == "completion" else train
    return ", ".join(x for x in needed if importlib.util.find_spec(x) is None)


class _Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE_ERROR, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    from mmpareto_jax.training._choices import TaskName
    from mmpareto_jax.training._config import Config

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
        choices=typing.get_args(TaskName),
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
    plot = commands.add_parser(
        "plot", help="draw a run's figures again, or trajectories of toy problems"
    )
    plot.add_argument("workdir", help="of the run; or the word trajectories")
    plot.add_argument(
        "--problem", default="toy", help="trajectories: of what (default: %(default)s)"
    )
    plot.add_argument(
        "--methods", type=_listed(str), metavar="A,B,...", help="trajectories: of whom"
    )
    plot.add_argument(
        "--out", metavar="FILE", help="trajectories: the PNG (default: PROBLEM.png)"
    )

    report = commands.add_parser(
        "report", help="one HTML page about runs and comparisons", allow_abbrev=False
    )
    report.add_argument(
        "workdirs", nargs="+", metavar="WORKDIR", help="of train or of compare"
    )
    report.add_argument(
        "--out",
        metavar="FILE",
        help="(default: report.html in WORKDIR; of several: in this directory)",
    )

    compare = commands.add_parser(
        "compare",
        help="compare methods, each with its own learning rate, over seeds",
        allow_abbrev=False,
    )
    compare.add_argument("task", nargs="?", choices=typing.get_args(TaskName))
    compare.add_argument(
        "--methods",
        type=_listed(str),
        metavar="A,B,...",
        help=f"(default: {','.join(_commands.COMPARED)}; "
        "for several tasks single-task instead of joint)",
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
    prepare.add_argument("name", choices=_commands.PREPARED)
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
    prepare.add_argument(
        "--classes", type=int, choices=(7, 19), help="cityscapes: labels (default: 7)"
    )
    prepare.add_argument("--seed", type=int, help="of the split (default: 0)")

    completion = commands.add_parser(
        "completion",
        help="print a shell's completion script, for source",
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=_completion.SHELLS)
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
    from mmpareto_jax.training._choices import spelled

    options: dict[str, Any]
    if typing.get_origin(hint) is typing.Literal:
        options = {"choices": typing.get_args(hint)}
        if field.name == "method":
            options["type"] = spelled
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


def _fail(message: str) -> int:
    print(f"mmpareto: {message}", file=sys.stderr)
    return _USAGE_ERROR
