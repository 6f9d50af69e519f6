"""Workers: each has its GPU, or its thread; none is needed to know that."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mmpareto_jax.training._study import workers
from mmpareto_jax.training._study.workers import visible_gpus, worker_environment

LISTED = "".join(f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})\n" for i in range(4))


@pytest.fixture
def listed(monkeypatch):
    """A machine with four GPUs."""

    def run(command, **_):
        assert command == ["nvidia-smi", "-L"]
        return subprocess.CompletedProcess(command, 0, LISTED + "  MIG 1g.10gb\n")

    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ("0", "1", "2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, ("2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"}, ("GPU-a", "GPU-b")),
        ({"CUDA_VISIBLE_DEVICES": "1,-1,2"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"JAX_PLATFORMS": "cpu"}, ()),
        ({"JAX_PLATFORMS": "cuda,cpu"}, ("0", "1", "2", "3")),
    ],
)
def test_gpus_without_jax(listed, environment, expected):
    assert visible_gpus(environment) == expected


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), subprocess.CalledProcessError(9, "nvidia-smi")]
)
def test_no_driver_is_no_gpu(monkeypatch, error):
    def run(*_, **__):
        raise error

    monkeypatch.setattr(subprocess, "run", run)
    assert visible_gpus({}) == ()


def test_workers_take_gpus_in_turn():
    gpus = ("2", "GPU-b", "7")
    own = [worker_environment(i, 5, gpus, {}) for i in range(5)]
    taken = [x["CUDA_VISIBLE_DEVICES"] for x in own]
    assert taken == ["2", "GPU-b", "7", "2", "GPU-b"]
    # Those that share one do not each take three quarters of its memory.
    memory = [x.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for x in own]
    assert memory == ["0.450", "0.450", None, "0.450", "0.450"]
    chosen = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2"}
    assert list(worker_environment(0, 5, gpus, chosen)) == ["CUDA_VISIBLE_DEVICES"]


def test_without_gpus_a_thread_each():
    there = {"XLA_FLAGS": "--xla_a=1", "OMP_NUM_THREADS": "3"}
    own = worker_environment(1, 2, (), there)
    assert own["XLA_FLAGS"] == "--xla_a=1 --xla_cpu_multi_thread_eigen=false"
    assert own["OMP_NUM_THREADS"] == "3"
    own = worker_environment(1, 2, (), {})
    assert own["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"
    assert own["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(("gpus", "expected"), [((), 2), (("0",), 1), (("0", "3"), 2)])
def test_the_default(monkeypatch, gpus, expected):
    monkeypatch.setattr(workers, "visible_gpus", lambda _: gpus)
    assert workers.default_workers() == expected


def seen(_):
    """What a worker's environment has; waits, so that no worker does all."""
    import time

    time.sleep(1)
    return os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("OMP_NUM_THREADS")


def test_each_process_begins_with_its_own(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")  # asked for in no process here
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with workers.pool(2) as pool:
        found = {x for _, x in pool.each(seen, range(4))}
    assert found == {("5", None), ("6", None)}
    assert dict(os.environ) == before


def test_the_environment_is_as_it_was(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with workers.pool(1) as pool:
        assert list(pool.each(seen, [0])) == [(0, ("", "1"))]
    assert dict(os.environ) == before


POOL = """
import os, signal, time
from mmpareto_jax.training._study.workers import pool

def wait(number):
    print(os.getpid(), flush=True)
    time.sleep(300)

if __name__ == "__main__":
    # Where the tests run in the background, it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pool(2) as others:
        list(others.each(wait, range(4)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(number, tmp_path):
    """However it ends, and at once: nothing waits for the runs under way."""
    script = tmp_path / "script.py"
    script.write_text(POOL)
    # A group of its own: what ends the parent does not reach the workers.
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with parent:
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.send_signal(number)
        assert parent.wait(timeout=60) != 0
    for _ in range(300):
        there = [pid for pid in workers if is_running(pid)]
        if not there:
            break
        time.sleep(0.1)
    assert there == []


def die(how):
    if how is not None:
        time.sleep(0.5)
        os.kill(os.getpid(), how)
    time.sleep(60)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (signal.SIGKILL, r"worker \d+ died at the heavy one: SIGKILL, out of memory\?"),
        (signal.SIGSEGV, r"worker \d+ died at the heavy one: SIGSEGV"),
        (signal.SIGTERM, "a worker died: SIGTERM"),
    ],
)
def test_a_worker_that_dies_is_told(how, said, monkeypatch):
    """Which one, how and at what, though the other one is ended, too."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    names = {None: "the slow one", how: "the heavy one"}
    with pytest.raises(ChildProcessError, match=f"^{said}$"), workers.pool(2) as pool:
        list(pool.each(die, [None, how], names.get))


def fail(what):
    raise ValueError(f"no {what}")


def test_what_fails_in_a_worker_fails_here(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ValueError, match="no 5"), workers.pool(1) as pool:
        list(pool.each(fail, [5]))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
