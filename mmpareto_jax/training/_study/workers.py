"""Processes for independent runs: on a GPU each, or on a thread each."""

# Only the standard library: a worker's environment is set before anything is imported.
from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from mmpareto_jax._processes import end_with_the_parent

_PROCESSES_ON_CPU = 2
_MEMORY = 0.9  # of a GPU, for all processes on it

Given = TypeVar("Given")
Found = TypeVar("Found")


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


class Pool:
    """Processes that each do one thing after the other."""

    def __init__(self, executor: concurrent.futures.ProcessPoolExecutor, doing: Any):
        self._executor = executor
        # By worker two numbers: its process, and the position of what it does.
        self._doing = doing
        self._processes: Sequence[Any] = ()
        self._what: Sequence[str] = ()

    def each(
        self,
        do: Callable[[Given], Found],
        what: Sequence[Given],
        named: Callable[[Given], str] = str,
    ) -> Iterator[tuple[int, Found]]:
        """Does something with each, in whatever order.

        Args:
          do: what; it and what it is given can be pickled.
          what: with which.
          named: what a message calls one of them.

        Yields:
          Position in `what`, and what came of it, as soon as it is there.
        """
        self._what = [named(given) for given in what]
        jobs = {
            self._executor.submit(_do, do, number, given): number
            for number, given in enumerate(what)
        }
        self._processes = multiprocessing.active_children()
        # The executor hears of the last process that it started, and so of its end,
        # with what is submitted next.
        self._executor.submit(int)
        for job in concurrent.futures.as_completed(jobs):
            yield jobs[job], job.result()

    def died(self) -> ChildProcessError:
        """How the first one died, once all have ended."""
        # So the executor has ended the others.
        so = -signal.SIGTERM
        alone = [x for x in self._processes if x.exitcode not in (None, 0, so)]
        if not alone:
            return ChildProcessError(f"a worker died: {_ended(so)}")
        first = alone[0]
        said = zip(self._doing[::2], self._doing[1::2], strict=True)
        doing = [self._what[number] for pid, number in said if pid == first.pid]
        at = f"at {doing[0]}" if doing else "as it began"
        return ChildProcessError(
            f"worker {first.pid} died {at}: {_ended(first.exitcode)}"
        )


def _ended(code: int) -> str:
    """The exit code of a process in words."""
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    # What ends a process so is mostly the kernel, where it has no more memory.
    return f"{name}, out of memory?" if -code == signal.SIGKILL else name


# In a worker: where it says which process does what.
_doing: Any = None
_number = 0


def _do(do: Callable[[Any], Any], number: int, given: Any) -> Any:
    _doing[2 * _number : 2 * _number + 2] = os.getpid(), number
    return do(given)


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Pool]:
    """So many processes, each with its own environment.

    Raises:
      ChildProcessError: one of them died; says which, how, and at what.
    """
    gpus = visible_gpus(os.environ)
    context = multiprocessing.get_context("spawn")
    # What numerical libraries read when they are imported must be there before.
    shared = {} if gpus else worker_environment(0, workers, gpus, os.environ)
    # Closed when this process fails, or ends in any way: the workers end with it.
    hears, tells = context.Pipe(duplex=False)
    doing = context.RawArray("l", 2 * workers)
    executor = concurrent.futures.ProcessPoolExecutor(
        workers,
        mp_context=context,
        initializer=_begin,
        initargs=(context.Value("i", 0), workers, gpus, hears, doing),
    )
    others = Pool(executor, doing)
    try:
        with _environment(shared), executor:
            try:
                yield others
            except BaseException:
                tells.close()
                raise
    except BrokenProcessPool:
        raise others.died() from None
    tells.close()


def _begin(
    numbers: Any, workers: int, gpus: tuple[str, ...], hears: Any, doing: Any
) -> None:
    """In a worker: takes the next number, and its GPU before the backend starts."""
    global _doing, _number
    end_with_the_parent(hears)
    # A terminal sends both to all: the parent answers, and the workers end with it.
    for name in (signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    with numbers.get_lock():
        _doing, _number = doing, numbers.value
        numbers.value += 1
    if gpus:
        own = worker_environment(_number, workers, gpus, os.environ)
        os.environ.update(own)


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
