"""Decoding chunks of examples: in parallel, and never stopped by one bad clip."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from mmpareto_jax._processes import tied_pool
from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.data.sources._files import read_json, write_json
from mmpareto_jax.data.sources._plan import (
    Arrays,
    Example,
    Problem,
    UnusableError,
    reason_of,
)

# Examples that one process decodes at a time, and what a stop loses at most.
CHUNK = 32

Chunk = tuple[Path, Sequence[Example]]


def decode_all(
    decode: Callable[[Example], Arrays], chunks: Sequence[Chunk], workers: int
) -> Iterator[list[Problem]]:
    """Decodes what is missing; yields what was left out of each chunk.

    Args:
      decode: of the plan.
      chunks: where a chunk's arrays and its report go, and its examples.
      workers: processes. One that dies costs nothing but time: its chunk is decoded
        again, apart from the others.
    """
    missing = []
    for chunk in chunks:
        finished = _problems_of(chunk[0])
        if finished is None:
            missing.append(chunk)
        else:
            yield finished
    if workers == 1 or len(missing) < 2:
        for path, examples in missing:
            yield _decode_chunk(decode, path, examples)
        return
    while missing:
        try:
            for path, problems in _decode_together(decode, missing, workers):
                missing = [chunk for chunk in missing if chunk[0] != path]
                yield problems
        # A clip that kills its decoder takes the pool with it. It is one of the first.
        except BrokenProcessPool:
            suspects, missing = missing[: 2 * workers], missing[2 * workers :]
            for path, examples in suspects:
                done = _problems_of(path)
                yield _decode_apart(decode, path, examples) if done is None else done


def _decode_together(
    decode: Callable[[Example], Arrays], chunks: Sequence[Chunk], workers: int
) -> Iterator[tuple[Path, list[Problem]]]:
    """No more chunks at a time than could be the cause if a process dies."""
    waiting = iter(chunks)
    jobs: dict[Any, Path] = {}
    with tied_pool(workers) as pool:
        while True:
            for path, examples in itertools.islice(waiting, 2 * workers - len(jobs)):
                jobs[pool.submit(_decode_chunk, decode, path, examples)] = path
            if not jobs:
                return
            done, _ = concurrent.futures.wait(jobs, return_when="FIRST_COMPLETED")
            for job in done:
                problems = job.result()
                yield jobs.pop(job), problems


def _decode_apart(
    decode: Callable[[Example], Arrays], path: Path, examples: Sequence[Example]
) -> list[Problem]:
    """A chunk in a process of its own; if it dies too, every example in its own."""
    with contextlib.suppress(BrokenProcessPool), tied_pool(1) as pool:
        return pool.submit(_decode_chunk, decode, path, examples).result()
    alive = []
    for example in examples:
        try:
            with tied_pool(1) as pool:
                alive.append(pool.submit(_survives, decode, example).result())
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


def report_of(part: Path) -> Path:
    """What was decoded of a chunk, and what was left out: written last."""
    return part.with_suffix(".json")


def _problems_of(part: Path) -> list[Problem] | None:
    """What was left out of a chunk; None where it is to be decoded."""
    if not part.with_suffix(".npz").exists():
        return None
    try:
        return [Problem(*x) for x in read_json(report_of(part))["problems"]]
    except (OSError, ValueError, TypeError, LookupError):
        return None


def forget(parts: Iterable[Path]) -> None:
    """Has chunks with something left out decoded again: files may have been mended."""
    for part in parts:
        if _problems_of(part) != []:
            report_of(part).unlink(missing_ok=True)


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
        except MemoryError:  # no fault of the example
            raise
        except Exception as error:
            first = example.files[0] if example.files else ""
            file = getattr(error, "file", None) or first
            problems.append(Problem(example.id, file, reason_of(error)))
    stacked = {
        name: np.stack([x[name] for x in arrays]) for name in (arrays or [{}])[0]
    }
    with whole_file(path.with_suffix(".npz")) as opened:
        np.savez(opened, allow_pickle=False, **stacked)
    write_json(report_of(path), {"good": good, "problems": problems})
    return problems
