"""Examples that are rows of arrays already: copied, some of them at a time."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path

from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.data.sources._files import array_path, write_head, write_rows
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
    """
    write_report(plan, out, plan.examples, plan.problems)
    sizes = collections.Counter(example.split for example in plan.examples)
    done = 0
    arrays = len(plan.copies) // len(sizes)  # of an example
    opened = array = None
    for (split, name), found in plan.copies.items():
        if array is None or found.open is not opened:  # several splits of one array
            opened, array = found.open, found.open()
        shape = (sizes[split], *array.shape[1:])
        with whole_file(array_path(out, split, name)) as file:
            write_head(file, shape, found.dtype)
            for start, block in blocks(array, found.rows):
                write_rows(file, block, found.dtype)
                if progress is not None:
                    copied = (done + start + len(block)) // arrays
                    progress(copied, len(plan.examples), len(plan.problems))
        done += sizes[split]
    write_index(plan, out, plan.examples, list(plan.copies), len(plan.problems))
