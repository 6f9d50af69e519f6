"""Files that are there whole or not at all, whatever ends the process that writes."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

# Bytes of a small file: a config, a record, a score.
SMALL = 2**26


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


def check_plain(path: Path, limit: int | None = SMALL) -> None:
    """Refuses what is not to be opened: it could block, or fill the memory.

    Raises:
      OSError: there is no such file.
      ValueError: a directory, a pipe or a device, or too large; does not name it.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is no plain file")
    if limit is not None and found.st_size > limit:
        raise ValueError(f"{found.st_size} bytes, more than the limit of {limit}")


def read_json(
    path: Path,
    limit: int = SMALL,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """What a file of JSON holds.

    Args:
      path: of the file.
      limit: of its bytes.
      pairs: what makes an object of its names and values; by default a dict.

    Raises:
      OSError: it cannot be read.
      ValueError: as of `check_plain`, or it is no JSON; does not name it.
    """
    check_plain(path, limit)
    try:
        return json.loads(path.read_text("utf-8"), object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("values are nested too deep") from None


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
