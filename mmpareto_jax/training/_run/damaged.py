"""What of a run's directory cannot be read: it is moved aside, and said."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

# Of a run's directory: where such files are moved to.
FOLDER = "damaged"


class RunWarning(UserWarning):
    """A sentence about a run's directory; the command line prints it as it is."""


def say(sentence: str) -> None:
    """Warns of something that does not end the run."""
    warnings.warn(sentence, RunWarning, stacklevel=3)


def move_aside(workdir: Path, path: Path) -> Path:
    """Moves a file or folder into ``WORKDIR/damaged``, beside what lies there.

    Returns:
      Where it is now.
    """
    folder = workdir / FOLDER
    folder.mkdir(exist_ok=True)
    target, number = folder / path.name, 1
    while os.path.lexists(target):
        number += 1
        target = folder / f"{path.name}.{number}"
    shutil.move(path, target)
    return target
