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
# Chunks that are given to a process at a time.
_AHEAD = 2

Chunk = tuple[Path, Sequence[Example]]


def decode_all(
    decode: Callable[[Example], Arrays], chunks: Sequence[Chunk], workers: int
) -> Iterator[list[Problem]]:
    """Decodes what is missing; yields what was left out of each chunk.

    Args:
      decode: of the plan.
      chunks: where a chunk's arrays and its report go, and its examples.
      workers: processes. One that dies costs nothing but time: what it may have
        decoded is decoded again, and where one dies again, each example apart.
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
        # A clip that kills its decoder takes the pool with it.
        except BrokenProcessPool:
            suspects = missing[: _AHEAD * workers]
            try:
                for _, problems in _decode_together(decode, suspects, 1, ahead=1):
                    missing = missing[1:]
                    yield problems
            except BrokenProcessPool:
                (path, examples), *missing = missing
                yield _decode_chunk(_unless_killed(decode, examples), path, examples)


def _decode_together(
    decode: Callable[[Example], Arrays],
    chunks: Sequence[Chunk],
    workers: int,
    *,
    ahead: int = _AHEAD,
) -> Iterator[tuple[Path, list[Problem]]]:
    """No more chunks at a time than are suspects where a process dies."""
    waiting = iter(chunks)
    jobs: dict[Any, Path] = {}
    with tied_pool(workers) as pool:
        while True:
            more = ahead * workers - len(jobs)
            for path, examples in itertools.islice(waiting, more):
                jobs[pool.submit(_decode_chunk, decode, path, examples)] = path
            if not jobs:
                return
            done, _ = concurrent.futures.wait(jobs, return_when="FIRST_COMPLETED")
            for job in done:
                problems = job.result()
                yield jobs.pop(job), problems


def _unless_killed(
    decode: Callable[[Example], Arrays], examples: Sequence[Example]
) -> Callable[[Example], Arrays]:
    """Decodes those that another process has survived."""
    alive: dict[Example, bool] = {}
    while len(alive) < len(examples):
        try:
            with tied_pool(1) as pool:
                for example in examples[len(alive) :]:
                    job = pool.submit(_survives, decode, example)
                    alive[example] = job.result()
        except BrokenProcessPool:
            alive[examples[len(alive)]] = False
    return functools.partial(_unless_it_kills, decode, alive)


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
