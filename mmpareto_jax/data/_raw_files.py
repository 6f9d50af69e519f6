"""Files of others, before they are opened: plain ones, of some size, in one place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mmpareto_jax.data._limits import FILE_BYTES


def check_file(path: Path, root: Path, limit: int | None = FILE_BYTES) -> None:
    """Refuses what is not to be opened; links are followed, and not believed.

    Args:
      path: of the file.
      root: the directory that it has to lie in, or a file that it has to be.
      limit: of its bytes; None: of any size.

    Raises:
      ValueError: it is missing, lies outside of the root, is a pipe or a device, or too
        large; the message does not name it.
    """
    check_inside(path, root)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is no plain file")
    if limit is not None and found.st_size > limit:
        raise ValueError(f"{found.st_size} bytes, more than the limit of {limit}")


def check_inside(path: Path, root: Path) -> None:
    """Refuses what is missing, or lies elsewhere once links are followed.

    Raises:
      ValueError: the message does not name the path.
    """
    try:
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(str(error.strerror)) from None
    if not real.is_relative_to(os.path.realpath(root)):
        raise ValueError(f"lies outside of {root}, at {real}: copy it there")


def read_lines(path: Path, root: Path) -> list[str]:
    """The lines of a list.

    Raises:
      ValueError: as of `check_file`, or it is no text; the message names it.
    """
    try:
        check_file(path, root)
        return path.read_text("utf-8").splitlines()
    except ValueError as error:
        raise ValueError(f"raw: {path}: {error}") from None
