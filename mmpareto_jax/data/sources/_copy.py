"""Examples that are rows of arrays already: copied, some of them at a time."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmpareto_jax.data.sources._files import array_path
from mmpareto_jax.data.sources._index import write_index, write_report
from mmpareto_jax.data.sources._plan import Plan
from mmpareto_jax.data.sources._rows import blocks


def copy(
    plan: Plan, out: Path, progress: Callable[[int, int, int], None] | None
) -> None:
    """Writes the arrays of a plan that has copies; the index comes last.

    Args:
      plan: what is to be copied.
      out: where the files go.
      progress: called as ``progress(done, total, left out)``; an example is done when
        all its arrays are.

    Raises:
      ValueError: the files would replace those that are copied.
    """
    write_report(plan, out, plan.examples, plan.problems)
    sizes = collections.Counter(example.split for example in plan.examples)
    done = 0
    arrays = len(plan.copies) // len(sizes)  # of an example
    opened = array = None
    for (split, name), found in plan.copies.items():
        if array is None or found.open is not opened:  # several splits of one array
            opened, array = found.open, found.open()
        source = getattr(array, "filename", None)  # of one that is mapped into memory
        if source is not None and Path(source).parent.samefile(out):
            raise ValueError(f"prepare: {out} holds what is to be copied: name another")
        file = np.lib.format.open_memmap(
            array_path(out, split, name),
            "w+",
            dtype=found.dtype,
            shape=(sizes[split], *array.shape[1:]),
        )
        for start, block in blocks(array, found.rows):
            file[start : start + len(block)] = block
            if progress is not None:
                copied = (done + start + len(block)) // arrays
                progress(copied, len(plan.examples), len(plan.problems))
        file.flush()
        done += sizes[split]
    write_index(plan, out, plan.examples, list(plan.copies), len(plan.problems))
