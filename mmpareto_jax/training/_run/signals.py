"""Ctrl-C, SIGTERM and SIGHUP: the first one ends a run after its step."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that the first of these signals sets; a second one interrupts.

    SIGHUP stays ignored where it is, as under ``nohup``. Where it comes of a terminal
    that has gone, what is written to that from then on goes nowhere, and fails nothing.
    """
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    # None: of a library, not of Python.
    before = {n: signal.getsignal(n) or signal.SIG_DFL for n in ending_signals()}
    terminals = [stream for stream in _descriptors() if os.isatty(stream)]
    first: list[float] = []

    def stop(number: int, _: Any) -> None:
        if number == signal.SIGHUP:
            _forget_lost(terminals)
        if not stopped.is_set():
            stopped.set()
            first.append(time.monotonic())
        elif time.monotonic() - first[0] > 1:  # no second copy of the first one
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def heard_interrupts() -> Iterator[Callable[[], None]]:
    """A function that raises the Ctrl-C which came and was not heard, if one did.

    JAX calls Python from where nothing can be raised, as when garbage is collected: a
    Ctrl-C that comes then would be dropped.
    """
    heard = threading.Event()

    def interrupt(*_: Any) -> None:
        heard.set()
        raise KeyboardInterrupt

    def raise_again() -> None:
        if heard.is_set():
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not is_main or before is not signal.default_int_handler:
        yield raise_again
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield raise_again
    finally:
        signal.signal(signal.SIGINT, before)


def ending_signals() -> list[signal.Signals]:
    """Those that end a process which does not say otherwise."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [
        signal.SIGINT,
        signal.SIGTERM,
        *([] if ignored else [signal.SIGHUP]),
    ]


def _descriptors() -> Iterator[int]:
    """Of standard output and error, where they have some: not in a notebook."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            yield stream.fileno()


def _forget_lost(terminals: list[int]) -> None:
    """Of these the ones that are no longer there take anything that is written."""
    lost = [descriptor for descriptor in terminals if not os.isatty(descriptor)]
    if lost:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in lost:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
