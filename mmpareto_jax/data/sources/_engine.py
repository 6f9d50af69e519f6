"""Preparing a data set: resumable, and complete only when its index is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from mmpareto_jax.data.sources._copy import copy
from mmpareto_jax.data.sources._decode import CHUNK, decode_all
from mmpareto_jax.data.sources._merge import merge
from mmpareto_jax.data.sources._plan import Plan
from mmpareto_jax.data.sources._store import Prepared, open_prepared

Progress = Callable[[int, int, int], None]


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
    is decoded again.

    Args:
      plan: what to decode.
      out: a directory for the arrays, ``index.json`` and ``report.json``.
      workers: processes.
      progress: called as ``progress(done, total, left out)``.

    Returns:
      The prepared data, opened.

    Raises:
      ValueError: `out` holds something else, a split has no usable example, or some
        examples have a label and some have none.
    """
    out = Path(out)
    if len({example.label is None for example in plan.examples}) > 1:
        raise ValueError("prepare: plan: some examples have a label and some have none")
    if (out / "index.json").exists():
        there = open_prepared(out)
        if there.index["fingerprint"] != plan.fingerprint():
            raise ValueError(
                f"prepare: {out} holds other prepared data ({there.dataset}, "
                f"{there.index['options']}): name another directory, or delete it"
            )
        return there
    if plan.decode is None:
        out.mkdir(parents=True, exist_ok=True)
        copy(plan, out, progress)
        return open_prepared(out)
    parts = out / "parts" / plan.fingerprint()[:16]
    parts.mkdir(parents=True, exist_ok=True)
    chunks = [
        (parts / f"{i:06}", plan.examples[i : i + CHUNK])
        for i in range(0, len(plan.examples), CHUNK)
    ]
    done, problems = 0, list(plan.problems)
    for found in decode_all(plan.decode, chunks, workers):
        problems += found
        done = min(done + CHUNK, len(plan.examples))
        if progress is not None:
            progress(done, len(plan.examples), len(problems))
    merge(plan, out, [path for path, _ in chunks], problems)
    shutil.rmtree(out / "parts")
    return open_prepared(out)
