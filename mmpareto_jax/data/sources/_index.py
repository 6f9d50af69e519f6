"""What is written when the arrays are: a report of what was left out, and the index."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.data.sources._files import array_path, checksum, write_json
from mmpareto_jax.data.sources._plan import Example, Plan, Problem
from mmpareto_jax.data.sources._report import by_reason, in_short


def write_report(
    plan: Plan, out: Path, used: Sequence[Example], problems: Sequence[Problem]
) -> None:
    """Says what was left out and what was not.

    Args:
      plan: what was to be decoded.
      out: where the file goes.
      used: the examples that could be.
      problems: what was left out.

    Raises:
      ValueError: a split has no usable example.
    """
    report = {
        "left_out": len(problems),
        "reasons": by_reason(problems),
        "counts": _counts(plan, used),
    }
    write_json(out / "report.json", report)
    for split in _splits(plan):
        if not any(example.split == split for example in used):
            raise ValueError(
                f"prepare: no usable example in split {split!r} ({in_short(problems)});"
                f" all reasons are in {out / 'report.json'}"
            )


def write_index(
    plan: Plan,
    out: Path,
    used: Sequence[Example],
    arrays: Sequence[tuple[str, str]],
    left_out: int,
) -> None:
    """Writes the labels, and the index last: then all is there.

    Args:
      plan: what was to be decoded.
      out: where the files go.
      used: the examples that are in the arrays.
      arrays: split and name of those that are written.
      left_out: number of examples that are not in them.
    """
    splits = _splits(plan)
    names = {split: sorted(n for s, n in arrays if s == split) for split in splits}
    for split in splits:
        labels = [example.label for example in used if example.split == split]
        if None not in labels:
            with whole_file(array_path(out, split, "label")) as file:
                np.save(file, np.asarray(labels, np.int32))
            names[split].append("label")
    index = {
        "dataset": plan.dataset,
        "classes": plan.classes,
        "options": dict(plan.options),
        "fingerprint": plan.fingerprint(),
        "arrays": names,
        "ids": {s: [e.id for e in used if e.split == s] for s in splits},
        "counts": _counts(plan, used),
        "left_out": left_out,
        "sha256": {
            f"{split}-{name}": checksum(array_path(out, split, name))
            for split, found in names.items()
            for name in found
        },
    }
    write_json(out / "index.json", index)


def _splits(plan: Plan) -> list[str]:
    return list(dict.fromkeys(example.split for example in plan.examples))


def _counts(plan: Plan, used: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Split -> class -> number of examples; all are "examples" where they have none."""
    found = collections.Counter((e.split, e.label) for e in used)
    kinds: dict[str, int | None] = {name: k for k, name in enumerate(plan.classes)}
    if all(example.label is None for example in plan.examples):
        kinds = {"examples": None}
    return {
        split: {name: found[split, k] for name, k in kinds.items()}
        for split in _splits(plan)
    }
