"""Decoding many files: in parallel, resumable, and never stopped by one bad clip."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpareto_jax.data.sources._store import (
    Prepared,
    array_path,
    checksum,
    open_prepared,
    read_json,
    write_json,
)

Arrays = dict[str, np.ndarray]
Progress = Callable[[int, int, int], None]

# Examples that one process decodes at a time, and what a stop loses at most.
_CHUNK = 32


class UnusableError(ValueError):
    """An example that cannot be used; the message says why."""


class Example(NamedTuple):
    """One example, not decoded yet.

    Attributes:
      id: its name, unique.
      split: where it belongs.
      label: index of its class; None where examples have no class.
      files: what it is decoded from.
    """

    id: str
    split: str
    label: int | None
    files: tuple[str, ...]


class Problem(NamedTuple):
    """Something that was left out.

    Attributes:
      id: of the example, or the name of the file.
      file: where it is.
      reason: why.
    """

    id: str
    file: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be decoded.

    Attributes:
      dataset: its name.
      classes: names, in the order of the labels, be they of examples or of pixels.
      examples: all of them, in the order in which they will lie on disk; all have a
        label or none has.
      decode: example -> arrays without a batch axis, of the same shapes and dtypes for
        all; raises where it cannot. A function that other processes can import.
      options: what the arrays depend on beside the files; written to the index.
      problems: what was left out already.
    """

    dataset: str
    classes: tuple[str, ...]
    examples: Sequence[Example]
    decode: Callable[[Example], Arrays]
    options: Mapping[str, Any]
    problems: Sequence[Problem] = ()

    def fingerprint(self) -> str:
        """Changes with anything that changes the result, but the files' contents."""
        what = [self.dataset, self.classes, self.examples, dict(self.options)]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def prepare(
    plan: Plan,
    out: str | Path,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> Prepared:
    """Decodes all examples, or what is missing, and writes the prepared form.

    An example that fails is left out and listed in ``report.json`` with its reason. A
    stopped call goes on where it was; after a finished one nothing is decoded again.

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
    index = read_json(out / "index.json")
    if index is not None:
        if index["fingerprint"] != plan.fingerprint():
            raise ValueError(
                f"prepare: {out} holds other prepared data ({index['dataset']}, "
                f"{index['options']}): name another directory, or delete it"
            )
        return open_prepared(out)
    parts = out / "parts" / plan.fingerprint()[:16]
    parts.mkdir(parents=True, exist_ok=True)
    chunks = [
        (parts / f"{i:06}", plan.examples[i : i + _CHUNK])
        for i in range(0, len(plan.examples), _CHUNK)
    ]
    done, problems = 0, list(plan.problems)
    for found in _decode_all(plan.decode, chunks, workers):
        problems += found
        done = min(done + _CHUNK, len(plan.examples))
        if progress is not None:
            progress(done, len(plan.examples), len(problems))
    _merge(plan, out, [path for path, _ in chunks], problems)
    shutil.rmtree(out / "parts")
    return open_prepared(out)


_Chunk = tuple[Path, Sequence[Example]]


def _decode_all(
    decode: Callable[[Example], Arrays], chunks: Sequence[_Chunk], workers: int
) -> Iterator[list[Problem]]:
    finished = {path for path, _ in chunks if _report(path).exists()}
    for path in sorted(finished):
        yield [Problem(*x) for x in read_json(_report(path))["problems"]]
    missing = [chunk for chunk in chunks if chunk[0] not in finished]
    if workers == 1 or len(missing) < 2:
        for path, examples in missing:
            yield _decode_chunk(decode, path, examples)
        return
    with _pool(workers) as pool:
        jobs = [pool.submit(_decode_chunk, decode, *chunk) for chunk in missing]
        # A clip that kills its decoder takes the pool with it.
        with contextlib.suppress(BrokenProcessPool):
            for job in concurrent.futures.as_completed(jobs):
                yield job.result()
    for path, examples in missing:
        if not _report(path).exists():
            yield _decode_apart(decode, path, examples)


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn)


def _decode_apart(
    decode: Callable[[Example], Arrays], path: Path, examples: Sequence[Example]
) -> list[Problem]:
    """A chunk in a process of its own; if it dies too, every example in its own."""
    with _pool(1) as pool, contextlib.suppress(BrokenProcessPool):
        return pool.submit(_decode_chunk, decode, path, examples).result()
    alive = []
    for example in examples:
        with _pool(1) as pool:
            job = pool.submit(_survives, decode, example)
            try:
                alive.append(job.result())
            except BrokenProcessPool:
                alive.append(False)
    apart = functools.partial(
        _unless_it_kills, decode, dict(zip(examples, alive, strict=True))
    )
    return _decode_chunk(apart, path, examples)


def _survives(decode: Callable[[Example], Arrays], example: Example) -> bool:
    with contextlib.suppress(Exception):
        decode(example)
    return True


def _unless_it_kills(
    decode: Callable[[Example], Arrays], alive: Mapping[Example, bool], example: Example
) -> Arrays:
    if not alive[example]:
        raise UnusableError("its decoder died")
    return decode(example)


def _report(part: Path) -> Path:
    return part.with_suffix(".json")


def _decode_chunk(
    decode: Callable[[Example], Arrays], path: Path, examples: Sequence[Example]
) -> list[Problem]:
    """Writes the arrays of a chunk, and then what there is to say of it."""
    good: list[int] = []
    arrays: list[Arrays] = []
    problems: list[Problem] = []
    for number, example in enumerate(examples):
        try:
            arrays.append(decode(example))
            good.append(number)
        except Exception as error:
            expected = isinstance(error, UnusableError)
            reason = str(error) if expected else f"{type(error).__name__}: {error}"
            file = example.files[0] if example.files else ""
            problems.append(Problem(example.id, file, reason))
    temporary = path.with_suffix(".tmp.npz")
    stacked = {
        name: np.stack([x[name] for x in arrays]) for name in (arrays or [{}])[0]
    }
    np.savez(temporary, allow_pickle=False, **stacked)
    os.replace(temporary, path.with_suffix(".npz"))
    write_json(_report(path), {"good": good, "problems": problems})
    return problems


def _merge(
    plan: Plan, out: Path, parts: Sequence[Path], problems: Sequence[Problem]
) -> None:
    """Parts to one file for each split and array; the index comes last."""
    good = [
        number * _CHUNK + k
        for number, path in enumerate(parts)
        for k in read_json(_report(path))["good"]
    ]
    used = [plan.examples[i] for i in good]
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
