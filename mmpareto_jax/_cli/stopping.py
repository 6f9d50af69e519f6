"""What ends a command from outside, and what is said then."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_shown = sys.unraisablehook
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, as Ctrl-C.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP unwind what goes on, and what it started ends.

    Raises:
      Stopped: one of them came.
    """

    def stop(number: int, _: Any) -> None:
        raise Stopped(number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # One that is ignored, as by nohup, stays so.
    before = {n: x for n in numbers if (x := signal.getsignal(n)) == signal.SIG_DFL}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def again() -> str:
    """How to go on with what is not done twice."""
    return "the same command"


def exit_code(error: KeyboardInterrupt) -> int:
    """As shells have it: 128 and the signal."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    return 128 + number


@contextlib.contextmanager
def going_on(how: Callable[[], str]) -> Iterator[None]:
    """Where a disk is full inside, or a process died, the error says how to go on.

    Args:
      how: says the command.
    """
    try:
        yield
    except ChildProcessError as error:
        error.add_note(f"to go on: {how()}")
        raise
    except OSError as error:
        if error.errno in _FULL:
            error.add_note(f"free some space; to go on: {how()}")
        raise


def quiet_orbax() -> None:
    """An error of a checkpoint is told where it is raised, by no thread of orbax.

    From here to the end of the process, which some of these threads live to see.
    """
    logging.getLogger("absl").addFilter(_is_another)
    sys.unraisablehook = _unraisable


def _is_another(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _unraisable(ignored: Any) -> None:
    # Of a write that ends when the one that failed is no longer waited for.
    if str(ignored.exc_value) != "Event loop is closed":
        _shown(ignored)
