"""Files that are there whole or not at all, whatever ends the process that writes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """What fails inside without naming a file names this one.

    Raises:
      OSError: as it came, with a file name.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` to write to, which takes its place when all is on disk.

    Where writing fails, what was at `path` stays as it was, and nothing lies beside it.
    Of a process that is killed a file ``.NAME.PID.part`` may be left.

    Raises:
      OSError: the disk is full, or nothing can be written there; it names `path`.
    """
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        try:
            with part.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(part)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_whole(path: Path, text: str) -> None:
    """Writes a text so, in UTF-8.

    Raises:
      OSError: as of `whole_file`.
    """
    with whole_file(path) as file:
        file.write(text.encode())
