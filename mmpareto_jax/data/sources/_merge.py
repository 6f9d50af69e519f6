"""From decoded chunks to one file for each split and array."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpareto_jax.data.sources._decode import CHUNK, report_of
from mmpareto_jax.data.sources._plan import Example, Plan, Problem
from mmpareto_jax.data.sources._store import (
    array_path,
    checksum,
    read_json,
    write_json,
)


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
    splits = list(dict.fromkeys(example.split for example in plan.examples))
    sizes = collections.Counter(example.split for example in used)
    report = {
        "problems": [x._asdict() for x in problems],
        "left_out": len(problems),
        "counts": _counts(plan, used),
    }
    write_json(out / "report.json", report)
    for split in splits:
        if not sizes[split]:
            raise ValueError(
                f"prepare: no usable example in split {split!r}; the reasons are in "
                f"{out / 'report.json'}"
            )
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
    names = {split: sorted({n for s, n in files if s == split}) for split in splits}
    for split in splits:
        labels = [example.label for example in used if example.split == split]
        if None not in labels:
            np.save(array_path(out, split, "label"), np.asarray(labels, np.int32))
            names[split].append("label")
    write_json(
        out / "index.json",
        {
            "dataset": plan.dataset,
            "classes": plan.classes,
            "options": dict(plan.options),
            "fingerprint": plan.fingerprint(),
            "arrays": names,
            "ids": {s: [e.id for e in used if e.split == s] for s in splits},
            "counts": report["counts"],
            "left_out": len(problems),
            "sha256": {
                f"{split}-{name}": checksum(array_path(out, split, name))
                for split, found in names.items()
                for name in found
            },
        },
    )


def _counts(plan: Plan, used: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Split -> class -> number of examples; all are "examples" where they have none."""
    found = collections.Counter((e.split, e.label) for e in used)
    splits = dict.fromkeys(e.split for e in plan.examples)
    kinds: dict[str, int | None] = {name: k for k, name in enumerate(plan.classes)}
    if all(example.label is None for example in plan.examples):
        kinds = {"examples": None}
    return {
        split: {name: found[split, k] for name, k in kinds.items()} for split in splits
    }
