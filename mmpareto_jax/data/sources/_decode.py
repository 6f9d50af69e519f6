"""Decoding chunks of examples: in parallel, and never stopped by one bad clip."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from mmpareto_jax._whole_files import whole_file
from mmpareto_jax.data.sources._files import read_json, write_json
from mmpareto_jax.data.sources._plan import Arrays, Example, Problem, UnusableError

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
      workers: processes.
    """
    finished = {path for path, _ in chunks if report_of(path).exists()}
    for path in sorted(finished):
        yield [Problem(*x) for x in read_json(report_of(path))["problems"]]
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
        if not report_of(path).exists():
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


def report_of(part: Path) -> Path:
    """What was decoded of a chunk, and what was left out: written last."""
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
    stacked = {
        name: np.stack([x[name] for x in arrays]) for name in (arrays or [{}])[0]
    }
    with whole_file(path.with_suffix(".npz")) as opened:
        np.savez(opened, allow_pickle=False, **stacked)
    write_json(report_of(path), {"good": good, "problems": problems})
    return problems
