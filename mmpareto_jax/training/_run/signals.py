"""Ctrl-C and SIGTERM: the first one ends a run after its step."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one interrupts."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    # None: of a library, not of Python.
    before = {n: signal.getsignal(n) or signal.SIG_DFL for n in numbers}
    first: list[float] = []

    def stop(number: int, _: Any) -> None:
        if not stopped.is_set():
            stopped.set()
            first.append(time.monotonic())
        elif time.monotonic() - first[0] > 1:  # no second copy of the first one
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number in numbers:
            signal.signal(number, before[number])
