"""Processes that end with the one that began them, whatever ends it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def tied_pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """So many processes. They are gone at once where the block or this process fails.

    Raises:
      ChildProcessError: they cannot be started.
    """
    context = multiprocessing.get_context("spawn")
    # Closed when this process ends in any way: the workers end with it.
    hears, tells = context.Pipe(duplex=False)
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(hears,)
    )
    try:
        try:
            pool.submit(os.getpid).result()
        except concurrent.futures.process.BrokenProcessPool:
            raise ChildProcessError(
                "processes cannot be started, or are killed at once; a program of your "
                "own needs `if __name__ == '__main__':` around what it does"
            ) from None
        yield pool
    except BaseException:
        tells.close()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
    tells.close()


def _begin(hears: Any) -> None:
    # Ctrl-C in a terminal reaches all of them: the first process says what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_the_parent(hears)


def end_with_the_parent(hears: Any) -> None:
    """From here on this process ends when the other end of a pipe is closed."""
    threading.Thread(target=_wait_for_its_end, args=[hears], daemon=True).start()


def _wait_for_its_end(hears: Any) -> None:
    with contextlib.suppress(EOFError, OSError):
        hears.recv()
    os._exit(1)
