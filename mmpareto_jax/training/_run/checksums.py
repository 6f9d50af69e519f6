"""What was written of a folder, to know later whether it is still that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path

from mmpareto_jax._whole_files import read_json, write_whole

_NAME = "checksums.json"


def write_checksums(folder: Path, leave_out: Collection[str] = ()) -> None:
    """Writes ``checksums.json`` into a folder: size and SHA-256 of each of its files.

    Args:
      folder: its files are complete.
      leave_out: paths of files in it that still change.
    """
    found = {
        str(path.relative_to(folder)): [path.stat().st_size, _sha256(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file() and str(path.relative_to(folder)) not in leave_out
    }
    write_whole(folder / _NAME, json.dumps(found, indent=1) + "\n")


def damage(folder: Path) -> str | None:
    """What of a folder is no longer what was written.

    Returns:
      The first file and what is wrong with it; None where nothing is, or the folder has
      no ``checksums.json``.
    """
    return next(_damages(folder), None)


def _damages(folder: Path) -> Iterator[str]:
    if not (folder / _NAME).exists():
        return
    try:
        written = read_json(folder / _NAME)
        for name, (size, digest) in written.items():
            path = folder / name
            if not path.is_file():
                yield f"{name} is missing"
            elif path.stat().st_size != size:
                yield f"{name} has {path.stat().st_size} bytes, not {size}"
            elif _sha256(path) != digest:
                yield f"{name} has another checksum than when it was written"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        yield f"{_NAME} cannot be read: {error}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
