"""One run at a time in a directory, and none that locks it for ever."""

import errno
import fcntl
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import pytest

import mmpareto_jax
from mmpareto_jax.training._run.damaged import RunWarning
from mmpareto_jax.training._run.lock import locked

ROOT = pathlib.Path(mmpareto_jax.__file__).parents[1]
HOLDS = """
import pathlib, sys
from mmpareto_jax.training._run.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holder(workdir):
    """Another process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(workdir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout.readline() == "locked\n"
    return process


def refusal(workdir):
    with pytest.raises(ValueError, match="writes to it") as refused, locked(workdir):
        pass
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_what_was_made_for_a_lock_is_gone(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / "lock").exists()
    assert not (tmp_path / "a").exists()
    with pytest.raises(OSError, match="too long"), locked(tmp_path / "a" / ("b" * 300)):
        pass
    assert not (tmp_path / "a").exists()


def test_another_process_is_named_and_what_it_leaves_is_no_lock(tmp_path):
    with holder(tmp_path) as process:
        message = refusal(tmp_path)
        who = f"process {process.pid} on {socket.gethostname()} since 20"
        assert message.startswith(f"workdir {tmp_path}: {who}")
        assert "wait until it has ended, or choose another --workdir" in message
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / "lock").exists()
        with locked(tmp_path):
            content = (tmp_path / "lock").read_text()
            assert content.startswith(f"process {os.getpid()} on ")
            assert content.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_same_process_is_another_run(tmp_path):
    found = []
    with locked(tmp_path):
        refusal(tmp_path)
        thread = threading.Thread(target=lambda: found.append(refusal(tmp_path)))
        thread.start()
        thread.join()
    assert len(found) == 1
    with locked(tmp_path):
        pass


def test_it_is_free_after_a_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), locked(tmp_path):
            raise KeyboardInterrupt


def test_a_directory_is_left_as_it_was_found(tmp_path):
    new = tmp_path / "new"
    with locked(new):
        assert new.is_dir()
    assert not new.exists()
    with locked(new):
        (new / "config.json").write_text("{}")
    assert [p.name for p in new.iterdir()] == ["config.json"]
    with locked(tmp_path):
        (new / "config.json").unlink()
        new.rmdir()
    assert tmp_path.is_dir()


def test_what_cannot_be_locked_is_named(tmp_path):
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(OSError, match=r"Invalid argument: .*lock"), locked(tmp_path):
        pass


FORKS = """
import os, pathlib, sys
from mmpareto_jax.training._run.lock import locked

def is_refused(workdir):
    try:
        with locked(workdir):
            return False
    except ValueError:
        return True

workdir = pathlib.Path(sys.argv[1])
reads, writes = os.pipe()
with locked(workdir):
    if not os.fork():
        os.close(writes)
        os.read(reads, 1)
        os._exit(0)
    assert is_refused(workdir)
with locked(workdir):  # while the child lives
    if not os.fork():
        sys.exit()  # out of the block
    os.wait()
    assert is_refused(workdir)
os.close(writes)
os.wait()
"""


def test_a_forked_process_holds_no_lock(tmp_path):
    """Neither while it lives nor when it ends, within the block."""
    fork = [sys.executable, "-c", FORKS, str(tmp_path)]
    subprocess.run(fork, check=True, timeout=60, cwd=ROOT)
    assert list(tmp_path.iterdir()) == []


def test_whoever_waits_at_a_removed_file_takes_the_new_one(tmp_path, monkeypatch):
    """The owner ends between the opening of its file and the lock on it."""
    lock, removed = fcntl.flock, []

    def late(descriptor, how):
        if not removed:
            removed.append(os.fstat(descriptor).st_ino)
            (tmp_path / "lock").unlink()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        refusal(tmp_path)
    assert len(removed) == 1


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_it_is_said(number, tmp_path, monkeypatch):
    def fails(descriptor, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    with pytest.warns(RunWarning, match="has no locks"), locked(tmp_path):
        assert (tmp_path / "lock").exists()
    assert list(tmp_path.iterdir()) == []
