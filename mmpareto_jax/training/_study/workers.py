"""Processes for independent runs: on a GPU each, or on a thread each."""

# Only the standard library: a worker's environment is set before anything is imported.
from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from typing import Any

_PROCESSES_ON_CPU = 2
_MEMORY = 0.9  # of a GPU, for all processes on it


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The NVIDIA GPUs that JAX would use, as CUDA_VISIBLE_DEVICES names them.

    JAX is not asked: it would take them for this process.

    Args:
      environment: variables by name, as ``os.environ``.

    Returns:
      Those of ``CUDA_VISIBLE_DEVICES``, or else all that ``nvidia-smi`` lists; none
      where ``JAX_PLATFORMS`` leaves no GPU to JAX.
    """
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return ()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA itself looks at none that follows one that it does not know.
        ends = [i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
        return tuple(names[: ends[0]] if ends else names)
    return tuple(str(number) for number in range(_listed_gpus()))


def _listed_gpus() -> int:
    try:
        found = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in found.stdout.splitlines())


def worker_environment(
    number: int, workers: int, gpus: tuple[str, ...], environment: Mapping[str, str]
) -> dict[str, str]:
    """What a worker's environment has of its own.

    Args:
      number: of the worker, from 0.
      workers: how many there are.
      gpus: of ``visible_gpus``.
      environment: the variables that it inherits.

    Returns:
      Variables by name: one GPU, which workers take in turn, and a share of its memory
      where it has several; without GPUs, one thread.
    """
    if not gpus:
        # Two runs side by side are faster than one run on two threads.
        flags = environment.get("XLA_FLAGS", "")
        return {
            "XLA_FLAGS": f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
            "OMP_NUM_THREADS": environment.get("OMP_NUM_THREADS", "1"),
        }
    own = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}
    beside = len(range(number % len(gpus), workers, len(gpus)))
    memory = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    if beside > 1 and memory not in environment:
        own[memory] = f"{_MEMORY / beside:.3f}"
    return own


def default_workers() -> int:
    """A worker for each GPU; without GPUs two, on a thread each."""
    return len(visible_gpus(os.environ)) or _PROCESSES_ON_CPU


@contextlib.contextmanager
def pool(workers: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """So many processes, each with its own environment."""
    gpus = visible_gpus(os.environ)
    context = multiprocessing.get_context("spawn")
    # What numerical libraries read when they are imported must be there before.
    shared = {} if gpus else worker_environment(0, workers, gpus, os.environ)
    # Closed when this process fails, or ends in any way: the workers end with it.
    hears, tells = context.Pipe(duplex=False)
    with (
        _environment(shared),
        concurrent.futures.ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_begin,
            initargs=(context.Value("i", 0), workers, gpus, hears),
        ) as executor,
    ):
        try:
            yield executor
        except BaseException:
            tells.close()
            raise
    tells.close()


def _end_with_the_parent(hears: Any) -> None:
    with contextlib.suppress(EOFError, OSError):
        hears.recv()
    os._exit(1)


def _begin(numbers: Any, workers: int, gpus: tuple[str, ...], hears: Any) -> None:
    """In a worker: takes the next number, and its GPU before the backend starts."""
    watch = threading.Thread(target=_end_with_the_parent, args=[hears], daemon=True)
    watch.start()
    if not gpus:
        return
    with numbers.get_lock():
        number = numbers.value
        numbers.value += 1
    os.environ.update(worker_environment(number, workers, gpus, os.environ))


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
