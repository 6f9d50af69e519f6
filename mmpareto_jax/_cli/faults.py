"""How a command ends that could not do its work: one line, and an exit code."""

from __future__ import annotations

import functools
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from mmpareto_jax._cli.answers import USAGE_ERROR

# The exit code of a fault in the program, or in code of the user's own: EX_SOFTWARE.
FAULT = 70
# Characters of a message; all of it stands in the traceback.
_LONGEST = 1000
# What needs less memory where there is too little of it.
_LESS = {
    "train": "--batch-size, --width or --train-examples",
    "compare": "--together, --workers, --batch-size or --width",
    "sweep": "--together or --workers",
    "prepare": "--workers or --size",
}
_PACKAGE = Path(__file__).parents[1]


def tell(error: BaseException, command: str, *, debug: bool) -> int:
    """Says on standard error what went wrong.

    Args:
      error: what was raised.
      command: by which command.
      debug: whether the traceback comes first.

    Returns:
      The exit code: 2 for a mistake in the call, a file that cannot be read or written,
      or too little memory; 70 for anything else, which is a fault in a program.
    """
    if debug:
        traceback.print_exception(error)
    line, code = _line(error, command)
    if code == FAULT and not debug:
        line += "; --debug shows the traceback"
    say(line)
    return code


def say(message: str) -> None:
    """Prints a message in one line, whatever is in it."""
    line = " ".join(message.split())
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]} ..."
    print(f"mmpareto: {line}", file=sys.stderr, flush=True)


def _line(error: BaseException, command: str) -> tuple[str, int]:
    """What is said, and the exit code."""
    kind, place = type(error).__name__, _place(error)
    where = f" ({place})" if place else ""
    reason = _reason(error) or kind
    if _lacks_memory(error):
        less = f"; less takes a smaller {_LESS[command]}" if command in _LESS else ""
        return f"out of memory: {reason}{where}{less}", USAGE_ERROR
    if isinstance(error, ValueError | OSError):
        return f"{reason}{where}", USAGE_ERROR
    whose = f"in {place}" if place else "of mmpareto_jax itself"
    said = kind if reason == kind else f"{kind}: {reason}"
    return f"{said}: a fault {whose}", FAULT


def _reason(error: BaseException) -> str:
    """Its message, of another program's the first line, which says most; its notes."""
    text = str(error).strip()
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        text = f"{error.strerror}{where}"
    ours = isinstance(error, ValueError | OSError)
    text = text if ours else text.partition("\n")[0]
    return "; ".join([text, *getattr(error, "__notes__", ())])


def _lacks_memory(error: BaseException) -> bool:
    """Whether the host or a device had too little."""
    of_jax = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    return isinstance(error, MemoryError) or (
        of_jax and "RESOURCE_EXHAUSTED" in str(error)
    )


def _place(error: BaseException) -> str:
    """The innermost line of code that is neither ours nor a library's, if any."""
    seen: BaseException | None = error
    while seen is not None:
        if found := list(_own_lines(seen.__traceback__)):
            return found[-1]
        seen = seen.__cause__
    return ""


@functools.cache
def _libraries() -> tuple[Path, ...]:
    """Where the code of libraries lies; only a fault waits for that."""
    return tuple(Path(path) for path in set(sysconfig.get_paths().values()))


def _own_lines(step: TracebackType | None) -> Iterator[str]:
    while step is not None:
        path = Path(step.tb_frame.f_code.co_filename)
        known = path.is_relative_to(_PACKAGE) or any(
            map(path.is_relative_to, _libraries())
        )
        if path.suffix == ".py" and not known:
            yield f"{path}, line {step.tb_lineno}"
        step = step.tb_next
