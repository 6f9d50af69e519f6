"""What is to be decoded: examples, how, and what cannot be used."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpareto_jax.data._raw_files import check_file, check_inside

Arrays = dict[str, np.ndarray]


class UnusableError(ValueError):
    """An example that cannot be used; the message says why.

    Attributes:
      file: which of its files; None where that is not known.
    """

    def __init__(self, reason: str, file: str | None = None):
        super().__init__(reason)
        self.file = file

    def __reduce__(self) -> tuple[type, tuple[str, str | None]]:
        """From another process the file comes too."""
        return type(self), (str(self), self.file)


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """What a reader makes of a broken file becomes an `UnusableError` that names it.

    Raises:
      UnusableError: the block has failed. Too little memory is no fault of the file.
    """
    try:
        yield
    except MemoryError:
        raise
    except UnusableError as error:
        error.file = error.file or str(path)
        raise
    except Exception as error:
        raise UnusableError(reason_of(error), str(path)) from error


def check_usable(path: Path, raw: Path) -> None:
    """Refuses what is no plain file, or a directory, in `raw`, before it is opened.

    Raises:
      UnusableError: it is missing, lies elsewhere, is too large, a pipe or a device.
    """
    try:
        (check_inside if path.is_dir() else check_file)(path, raw)
    except ValueError as error:
        raise UnusableError(str(error), str(path)) from None


def reason_of(error: Exception) -> str:
    """The first line of what an error says, not too long, and what kind of error it is.

    Example:
      >>> reason_of(KeyError("x"))
      "KeyError: 'x'"
    """
    lines = str(error).splitlines() or [""]
    said = lines[0] if len(lines[0]) <= 300 else f"{lines[0][:300]}..."
    kind = "" if isinstance(error, UnusableError) else f"{type(error).__name__}: "
    return f"{kind}{said}"


class Example(NamedTuple):
    """One example, not decoded yet.

    Attributes:
      id: its name, unique.
      split: where it belongs.
      label: index of its class; None where examples have no class.
      files: what it is decoded from.
    """

    id: str
    split: str
    label: int | None
    files: tuple[str, ...]


class Problem(NamedTuple):
    """Something that was left out.

    Attributes:
      id: of the example, or the name of the file.
      file: where it is.
      reason: why.
    """

    id: str
    file: str
    reason: str


class Rows(NamedTuple):
    """Rows of an array that is there already.

    Attributes:
      open: gives the array [N, ...].
      rows: which, in order; None: all.
      dtype: what they are stored as.
    """

    open: Callable[[], np.ndarray]
    rows: np.ndarray | None
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be decoded, or copied where that has happened.

    Attributes:
      dataset: its name.
      classes: names, in the order of the labels, be they of examples or of pixels.
      examples: all of them, in the order in which they will lie on disk; all have a
        label or none has.
      decode: example -> arrays without a batch axis, of the same shapes and dtypes for
        all; raises where it cannot. A function that other processes can import. None
        where there are copies.
      options: what the arrays depend on beside the files; written to the index.
      problems: what was left out already.
      copies: split and name -> rows of an array, one for each example of the split;
        splits in the order of the examples. Empty where there is a `decode`.
      raw: the directory that all files lie in, links followed; None: anywhere.
    """

    dataset: str
    classes: tuple[str, ...]
    examples: Sequence[Example]
    decode: Callable[[Example], Arrays] | None
    options: Mapping[str, Any]
    problems: Sequence[Problem] = ()
    copies: Mapping[tuple[str, str], Rows] = dataclasses.field(default_factory=dict)
    raw: Path | None = None

    def fingerprint(self) -> str:
        """Changes with anything that changes the result, but the files' contents."""
        what = [self.dataset, self.classes, self.examples, dict(self.options)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()
