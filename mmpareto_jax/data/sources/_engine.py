"""Preparing a data set: resumable, and complete only when its index is there."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

from mmpareto_jax.data._limits import CLASSES, EXAMPLES
from mmpareto_jax.data.sources._copy import copy
from mmpareto_jax.data.sources._decode import CHUNK, decode_all, forget
from mmpareto_jax.data.sources._files import SPLITS
from mmpareto_jax.data.sources._merge import merge
from mmpareto_jax.data.sources._plan import Arrays, Example, Plan, check_usable
from mmpareto_jax.data.sources._report import in_short
from mmpareto_jax.data.sources._store import Prepared, open_prepared

Progress = Callable[[int, int, int], None]

# In `out` as long as it is unfinished: the decoded chunks, and a sign that it is ours.
PARTS = "mmpareto-parts"


def prepare(
    plan: Plan,
    out: str | Path,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Prepared:
    """Decodes or copies all examples, and writes the prepared form.

    An example that fails is left out and listed in ``report.json`` with its reason. A
    stopped call goes on where it was (copies start again); after a finished one nothing
    is decoded again. Nothing is written outside of `out`, nor is what is there already
    overwritten.

    Args:
      plan: what to decode.
      out: a directory for the arrays, ``index.json`` and ``report.json``: a new or an
        empty one, or that of a stopped call.
      workers: processes.
      progress: called as ``progress(done, total, left out)``.

    Returns:
      The prepared data, opened.

    Raises:
      ValueError: `out` holds something else, a split has no usable example, some
        examples have a label and some have none, or there are more examples or classes
        than the limits (``mmpareto_jax/data/_limits.py``).
      MemoryError: there are too many workers for the machine.
      OSError: the disk is full, or nothing can be written there. After room has been
        made the same call goes on.
    """
    out = Path(out)
    _check(plan)
    if (out / "index.json").exists():
        there = open_prepared(out)
        if there.index["fingerprint"] != plan.fingerprint():
            raise ValueError(
                f"prepare: {out} holds other prepared data ({there.dataset}, "
                f"{there.index['options']}): name another directory, or delete it"
            )
        _clear(out)
        return there
    if plan.decode is None:
        _parts(plan, out)
        copy(plan, out, progress)
    else:
        _decode(plan, plan.decode, out, workers=workers, progress=progress)
    _clear(out)
    return open_prepared(out)


def _decode(
    plan: Plan,
    decode: Callable[[Example], Arrays],
    out: Path,
    *,
    workers: int,
    progress: Progress | None,
) -> None:
    parts = _parts(plan, out)
    chunks = [
        (parts / f"{i:06}", plan.examples[i : i + CHUNK])
        for i in range(0, len(plan.examples), CHUNK)
    ]
    done, problems = 0, list(plan.problems)
    if plan.raw is not None:
        decode = functools.partial(_inside, decode, plan.raw)
    for found in decode_all(decode, chunks, workers):
        problems += found
        done = min(done + CHUNK, len(plan.examples))
        if progress is not None:
            progress(done, len(plan.examples), len(problems))
    try:
        merge(plan, out, [path for path, _ in chunks], problems)
    except ValueError:
        forget([path for path, _ in chunks])
        raise


def _inside(decode: Callable[[Example], Arrays], raw: Path, example: Example) -> Arrays:
    """Opens no file of an example before all are seen to be plain ones in `raw`."""
    for path in map(Path, example.files):
        check_usable(path, raw)
    return decode(example)


def _check(plan: Plan) -> None:
    """Refuses what leads nowhere, before anything is written."""
    if len({example.label is None for example in plan.examples}) > 1:
        raise ValueError("prepare: plan: some examples have a label and some have none")
    for split in SPLITS:
        if not any(example.split == split for example in plan.examples):
            raise ValueError(
                f"prepare: {plan.dataset}: {len(plan.examples)} examples, none for "
                f"{split}; {in_short(plan.problems)}"
            )
    for what, number, limit in (
        ("examples", len(plan.examples), EXAMPLES),
        ("classes", len(plan.classes), CLASSES),
    ):
        if number > limit:
            raise ValueError(f"prepare: {number} {what}, the limit is {limit}")


def _parts(plan: Plan, out: Path) -> Path:
    """Where chunks are kept; that they can be shows that the directory is ours."""
    ours = out / PARTS
    if ours.is_symlink() or (not ours.is_dir() and out.is_dir() and any(out.iterdir())):
        raise ValueError(
            f"prepare: {out} is not empty, and holds no data that are half prepared: "
            "name another directory"
        )
    parts = ours / plan.fingerprint()[:16]
    parts.mkdir(parents=True, exist_ok=True)
    return parts


def _clear(out: Path) -> None:
    """Deletes the chunks, and what killed calls left half written."""
    if (out / PARTS).is_dir() and not (out / PARTS).is_symlink():
        for path in out.glob(".*.part"):
            path.unlink(missing_ok=True)
        shutil.rmtree(out / PARTS)
