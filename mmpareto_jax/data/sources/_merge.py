"""From decoded chunks to one file for each split and array."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpareto_jax.data.sources._decode import CHUNK, report_of
from mmpareto_jax.data.sources._files import array_path, read_json
from mmpareto_jax.data.sources._index import write_index, write_report
from mmpareto_jax.data.sources._plan import Plan, Problem


def merge(
    plan: Plan, out: Path, parts: Sequence[Path], problems: Sequence[Problem]
) -> None:
    """Joins the chunks to one file for each split and array; the index comes last.

    Args:
      plan: what was decoded.
      out: where the files go.
      parts: the chunks, in order.
      problems: what was left out.

    Raises:
      ValueError: a split has no usable example.
    """
    used = [
        plan.examples[number * CHUNK + k]
        for number, path in enumerate(parts)
        for k in read_json(report_of(path))["good"]
    ]
    write_report(plan, out, used, problems)
    sizes = collections.Counter(example.split for example in used)
    files: dict[tuple[str, str], np.memmap] = {}
    row: collections.Counter[str] = collections.Counter()
    position = 0
    for path in parts:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        number = len(next(iter(arrays.values()), ()))
        for k in range(number):
            split = used[position].split
            for name, values in arrays.items():
                if (split, name) not in files:
                    files[split, name] = np.lib.format.open_memmap(
                        array_path(out, split, name),
                        "w+",
                        dtype=values.dtype,
                        shape=(sizes[split], *values.shape[1:]),
                    )
                files[split, name][row[split]] = values[k]
            row[split] += 1
            position += 1
    for file in files.values():
        file.flush()
    write_index(plan, out, used, list(files), len(problems))
