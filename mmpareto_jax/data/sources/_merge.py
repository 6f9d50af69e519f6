"""From decoded chunks to one file for each split and array."""

from __future__ import annotations

import collections
import contextlib
import itertools
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.data.sources._decode import CHUNK, report_of
from mmpareto_jax.data.sources._files import (
    array_path,
    read_json,
    write_head,
    write_rows,
)
from mmpareto_jax.data.sources._index import write_index, write_report
from mmpareto_jax.data.sources._plan import Plan, Problem, reason_of


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
    files: dict[tuple[str, str], BinaryIO] = {}
    position = 0
    with contextlib.ExitStack() as stack:
        for path in parts:
            arrays = _decoded(path)
            number = len(next(iter(arrays.values()), ()))
            splits = np.array([x.split for x in used[position : position + number]])
            position += number
            for (name, values), split in itertools.product(
                arrays.items(), sorted({*splits.tolist()})
            ):
                if (split, name) not in files:
                    file = stack.enter_context(whole_file(array_path(out, split, name)))
                    write_head(file, (sizes[split], *values.shape[1:]), values.dtype)
                    files[split, name] = file
                write_rows(files[split, name], values[splits == split], values.dtype)
    write_index(plan, out, used, list(files), len(problems))


def _decoded(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a chunk; one that is damaged is decoded again by the next call."""
    try:
        with (
            path.with_suffix(".npz").open("rb") as file,
            np.load(file, allow_pickle=False) as stored,
        ):
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        path.with_suffix(".npz").unlink(missing_ok=True)
        raise ValueError(
            f"prepare: {path}.npz is damaged ({reason_of(error)}): the same command "
            "decodes it again"
        ) from None
