"""The type of arguments that are files or directories."""

from __future__ import annotations

import argparse
import unicodedata


def path(text: str) -> str:
    """A path that can be printed, and named in a file.

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
