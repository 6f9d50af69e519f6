"""Preparing is killed, loses a worker, has no room: the same call goes on."""

import errno
import functools
import multiprocessing
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmpareto_jax.data.sources import (
    Example,
    Plan,
    _engine,
    _merge,
    open_prepared,
    plan_of,
    prepare,
)

SPLITS = ("train", "train", "validation", "test")


def decode(example, size=100):
    number = int(example.id[1:])
    return {
        "x": np.full(size, number, np.float32),
        "y": np.full((2, 3), number, np.uint8),
    }


def decoded(number=12, **change):
    examples = [
        Example(f"e{i}", SPLITS[i % 4], i % 3, (f"{i}.txt",)) for i in range(number)
    ]
    return Plan("toy", ("a", "b", "c"), examples, change.pop("decode", decode), {})


def copied(root):
    root.mkdir(exist_ok=True)
    x = np.random.default_rng(0).normal(size=(60, 50)).astype(np.float32)
    np.savez(root / "raw.npz", x=x, label=np.arange(60) % 3)
    return plan_of("arrays", root / "raw.npz")


def everything(root):
    return {p.name: p.read_bytes() for p in root.iterdir()}


@pytest.fixture
def short_chunks(monkeypatch):
    for module in (_engine, _merge):
        monkeypatch.setattr(module, "CHUNK", 4)


# --- Killed


def killed_at(number, after, plan, out):
    """Kills itself at this of all files that come to their place, and at the end."""
    steps = iter(range(number))

    def dying(work):
        def do(*args, **kwargs):
            last = next(steps, None) is None
            if not last or after:
                work(*args, **kwargs)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        return do

    Path.replace = dying(Path.replace)
    shutil.rmtree = dying(shutil.rmtree)
    prepare(plan, out)


# Forks, which a process with JAX in it should not.
SCRIPT = """
import os, sys
from pathlib import Path
sys.path[:0] = [{here!r}]
import test_survives as t
root, kind = Path(sys.argv[1]), sys.argv[2]
for module in (t._engine, t._merge):
    module.CHUNK = 4
plan = t.decoded() if kind == "decoded" else t.copied(root)
t.prepare(plan, root / "whole")
whole, kills = t.everything(root / "whole"), 0
for number in range(100):
    for after in (False, True):
        out = root / f"{{number}}{{after}}"
        child = os.fork()
        if not child:
            t.killed_at(number, after, plan, out)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not status:
            print(kills)
            sys.exit()
        kills += 1
        t.prepare(plan, out)
        assert t.everything(out) == whole, out
"""


@pytest.mark.parametrize(("kind", "steps"), [("decoded", 18), ("copied", 9)])
def test_killed_at_any_file_it_goes_on_to_the_same_bytes(tmp_path, kind, steps):
    """Before and after each file comes to its place, and as the chunks are deleted."""
    script = SCRIPT.format(here=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 2 * steps


# --- Processes


def dies_once(example, mark):
    """As if somebody had killed the process."""
    if example.id == "e5" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(example)


def test_a_worker_that_is_killed_costs_nothing(tmp_path, short_chunks):
    plan = decoded(40, decode=functools.partial(dies_once, mark=tmp_path / "mark"))
    found = prepare(plan, tmp_path / "out", workers=2)
    assert (tmp_path / "mark").exists()
    assert found.index["left_out"] == 0
    whole = prepare(decoded(40), tmp_path / "whole")
    assert found.index["sha256"] == whole.index["sha256"]


def test_processes_end_where_the_work_is_interrupted(tmp_path, short_chunks):
    before = {child.pid for child in multiprocessing.active_children()}

    def stop(done, total, left_out):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(decoded(40), tmp_path / "out", workers=2, progress=stop)
    assert {child.pid for child in multiprocessing.active_children()} == before
    prepare(decoded(40), tmp_path / "out")


def waits(example):
    """Says who it is, and does not come back."""
    print(os.getpid(), flush=True)
    signal.pause()


def test_processes_end_with_the_one_that_is_killed(tmp_path):
    script = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "import test_survives as t\n"
        "if __name__ == '__main__':\n"
        f"    out = {str(tmp_path / 'out')!r}\n"
        "    t.prepare(t.decoded(100, decode=t.waits), out, workers=2)\n"
    )
    (tmp_path / "main.py").write_text(script)
    run = [sys.executable, str(tmp_path / "main.py")]
    with subprocess.Popen(run, stdout=subprocess.PIPE, text=True) as parent:
        workers = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        parent.kill()
        for worker in workers:  # to be read from once it has ended
            assert select.select([worker], [], [], 60) == ([worker], [], [])
            os.close(worker)


def no_memory(example):
    raise MemoryError


def test_too_little_memory_is_no_fault_of_a_clip(tmp_path):
    with pytest.raises(MemoryError):
        prepare(decoded(decode=no_memory), tmp_path / "out")
    assert prepare(decoded(), tmp_path / "out").index["left_out"] == 0


# --- No room


@pytest.fixture
def largest_file():
    """No file may grow beyond a size: the nearest to a full disk without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    "case",
    # Of a chunk 4,000 bytes, of the largest array 10,000, of the index 3,000.
    [
        *(("decoded", 300, 1), ("decoded", 300, 2), ("decoded", 6000, 1)),
        *(("copied", 100, 1), ("copied", 3000, 1)),
    ],
)
def test_without_room_it_says_so_and_goes_on_later(
    case, tmp_path, largest_file, short_chunks
):
    kind, size, workers = case
    plan = decoded(40) if kind == "decoded" else copied(tmp_path)
    whole = prepare(plan, tmp_path / "whole")
    out = tmp_path / "out"
    largest_file(size)
    with pytest.raises(OSError, match="File too large") as failed:
        prepare(plan, out, workers=workers)
    largest_file(resource.RLIM_INFINITY)
    assert failed.value.errno == errno.EFBIG
    assert Path(failed.value.filename).is_relative_to(out)
    assert not [x for x in out.rglob("*") if x.name.startswith(".")]
    with pytest.raises(ValueError, match="holds no prepared data"):
        open_prepared(out)
    assert prepare(plan, out).index == whole.index
    assert everything(out) == everything(tmp_path / "whole")


def test_a_damaged_chunk_is_decoded_again(tmp_path, short_chunks):
    def stop(done, total, left_out):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(decoded(), tmp_path / "out", progress=stop)
    first, second, third = sorted((tmp_path / "out").rglob("*.npz"))
    first.write_bytes(first.read_bytes()[:100])
    second.unlink()
    third.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"npz is damaged .* the same command"):
        prepare(decoded(), tmp_path / "out")
    prepare(decoded(), tmp_path / "out")
    prepare(decoded(), tmp_path / "whole")
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")
