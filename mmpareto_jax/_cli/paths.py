"""Arguments that are files or directories."""

from __future__ import annotations

import argparse
import tempfile
import unicodedata
from collections.abc import Collection
from pathlib import Path


def path(text: str) -> str:
    """The type of such an argument: a path that can be printed, and named in a file.

    Raises:
      argparse.ArgumentTypeError: says what is wrong with it.
    """
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(
            f"expected a path (./ and a name), got {text!r}"
        )
    # Bytes that are no UTF-8 come as surrogates.
    if {"Cc", "Cs"} & set(map(unicodedata.category, text)):
        raise argparse.ArgumentTypeError(
            f"expected a path in UTF-8 without control characters, got {text!a}"
        )
    return text


def make_room(file: Path, endings: Collection[str]) -> None:
    """Makes the file's directory, before the work of which the file will tell.

    Raises:
      ValueError: the file has another ending, or is a directory.
      OSError: nothing can be written there.
    """
    if file.suffix not in endings:
        raise ValueError(f"--out: expected one of *{', *'.join(endings)}, got {file}")
    if file.is_dir():
        raise ValueError(f"--out: expected a file, got the directory {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=file.parent):
        pass
