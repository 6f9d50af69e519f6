"""The command ``mmpareto``: train, evaluate, plot, report, compare, sweep, prepare, ...

Heavy imports are inside the commands, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mmpareto_jax._cli import cache as _cache
from mmpareto_jax._cli import commands as _commands
from mmpareto_jax._cli import completion as _completion
from mmpareto_jax._cli import devices as _devices
from mmpareto_jax._cli import explain as _explain
from mmpareto_jax._cli import faults as _faults
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
_RUN: dict[str, Callable[[dict[str, Any]], int]] = {
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: the arguments; by default the process's own.

    Returns:
      The exit code: 0; 1 where ``check`` finds something; 2 for a mistake in the call,
      a file that cannot be read or written, or too little memory; 3 where a run of
      several processes has lost one; 4 where steps that were not finite have ended a
      run of ``train`` (its files are there, and a checkpoint of before them); 70 for a
      fault of the program or of a task of the user's own, whose traceback ``--debug``
      shows; 130 after Ctrl-C, and after SIGTERM and SIGHUP where a training could end
      with a checkpoint; 141 where nobody reads what is printed any more; 143 and 129
      where SIGTERM and SIGHUP ended a comparison, a sweep or a preparation.
    """
    parser = make_parser()
    try:
        arguments = vars(parser.parse_args(argv))
    except SystemExit as stop:  # argparse has printed its line or its help
        return int(stop.code or 0)
    command, debug = arguments.pop("command"), arguments.pop("debug", False)
    if missing := _missing(command):
        _faults.say(f"{missing} missing: pip install 'mmpareto-jax[train]'")
        return USAGE_ERROR
    if "" not in sys.path:
        sys.path.append("")  # tasks are named by modules of this directory, too

    def do() -> int:
        if command == "completion":
            return _completion.completion(parser, arguments["shell"])
        cache = _cache.kept(arguments.pop("cache", None))
        with _progress.warnings_as_lines(), cache:
            return _RUN[command](arguments)

    try:
        if not (arguments.get("coordinator") or arguments.get("distributed")):
            if command not in RESTARTED:
                return do()
            with _stopping.interrupts(), _stopping.going_on(_stopping.again):
                return do()
        if _member.is_child():
            return _member.compute(
                do, functools.partial(_faults.tell, command=command, debug=debug)
            )
        _devices.Devices.taken_from(dict(arguments))  # mistakes need no child
        return _member.watch(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:  # as of `mmpareto methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except KeyboardInterrupt as error:
        if command in RESTARTED:
            print(f"Stopped. To go on: {_stopping.again()}.", file=sys.stderr)
        return _stopping.exit_code(error)
    except (Exception, SystemExit) as error:  # the latter of a user's own code
        return _faults.tell(error, command, debug=debug)


def _missing(command: str) -> str:
    """What the command needs and is not installed."""
    train = ("flax", "grain", "orbax", "tensorboardX", "rich", "matplotlib")
    few = {"completion": ("shtab",), "methods": (), "datasets": ()}
    needed = few.get(command, train)
    return ", ".join(x for x in needed if importlib.util.find_spec(x) is None)
