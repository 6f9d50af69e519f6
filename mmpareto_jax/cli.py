"""The command ``mmpareto``: train, evaluate, plot, report, compare, sweep, prepare, ...

Heavy imports are inside the commands, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence

from mmpareto_jax._cli import cache as _cache
from mmpareto_jax._cli import commands as _commands
from mmpareto_jax._cli import completion as _completion
from mmpareto_jax._cli import devices as _devices
from mmpareto_jax._cli import explain as _explain
from mmpareto_jax._cli import member as _member
from mmpareto_jax._cli import preparing as _preparing
from mmpareto_jax._cli import progress as _progress
from mmpareto_jax._cli import stopping as _stopping
from mmpareto_jax._cli import studies as _studies
from mmpareto_jax._cli.answers import USAGE_ERROR
from mmpareto_jax._cli.parser import make_parser

CLOSED = 141
# What these have done they do not do again.
RESTARTED = ("compare", "sweep", "prepare")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments; by default the process's own.

    Returns:
      The exit code: 0; 1 where ``check`` finds something; 2 for a mistake in the call,
      or a file that cannot be read or written; 3 where a run of several processes has
      lost one; 4 where steps that were not finite have ended a run of ``train`` (its
      files are there, and a checkpoint of before them); 130 after Ctrl-C, and after
      SIGTERM and SIGHUP where a training could end with a checkpoint; 141 where nobody
      reads what is printed any more; 143 and 129 where SIGTERM and SIGHUP ended a
      comparison, a sweep or a preparation.
    """
    command = ""
    try:
        if "" not in sys.path:
            sys.path.append("")  # tasks are named by modules of this directory, too
        parser = make_parser()
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
            "compare": _studies.compare,
            "sweep": _studies.sweep,
            "prepare": _preparing.prepare,
            "methods": _explain.methods,
            "datasets": _explain.datasets,
            "check": _preparing.check,
        }

        def do() -> int:
            cache = _cache.kept(arguments.pop("cache", None))
            with _progress.warnings_as_lines(), cache:
                return run[command](arguments)

        several = arguments.get("coordinator") or arguments.get("distributed")
        if several and not _member.is_child():
            _devices.Devices.taken_from(dict(arguments))  # mistakes need no child
            return _member.watch(sys.argv[1:] if argv is None else argv)
        if several:
            return _member.compute(do)
        if command not in RESTARTED:
            return do()
        with _stopping.interrupts(), _stopping.going_on(_stopping.again):
            return do()
    except SystemExit as stop:  # argparse has printed its line or its help
        return int(stop.code or 0)
    except BrokenPipeError:  # as of `mmpareto methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except (OSError, ValueError) as error:
        return _fail(_stopping.told(error))
    except KeyboardInterrupt as error:
        if command in RESTARTED:
            print(f"Stopped. To go on: {_stopping.again()}.", file=sys.stderr)
        return _stopping.exit_code(error)


def _missing(command: str) -> str:
    """What the command needs and is not installed."""
    train = ("flax", "grain", "orbax", "tensorboardX", "rich", "matplotlib")
    few = {"completion": ("shtab",), "methods": (), "datasets": ()}
    needed = few.get(command, train)
    return ", ".join(x for x in needed if importlib.util.find_spec(x) is None)


def _fail(message: str) -> int:
    print(f"mmpareto: {message}", file=sys.stderr)
    return USAGE_ERROR
