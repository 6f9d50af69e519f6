"""How the command ends where it is told to: with a checkpoint, and the way to go on."""

import contextlib
import json
import os
import pathlib
import pty
import signal
import socket
import subprocess
import sys
import time

import faults
import pytest

import mmpareto_jax
from mmpareto_jax import training
from mmpareto_jax.training._run import run

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(mmpareto_jax.__file__).parents[1]
# Four steps to an epoch, and more of them than a test waits for.
LONG = ("--train-examples", "64", "--batch-size", "16", "--width", "4")
ENDLESS = (*LONG, "--steps", "400000")


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory, quick_processes):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick_processes.items():
            patch.setenv(name, value)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            cache = tmp_path_factory.mktemp("compiled")
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
        yield


def command(workdir, *more):
    return [
        *(sys.executable, "-m", "mmpareto_jax", "train", "--device", "cpu"),
        *("--workdir", str(workdir), *more),
    ]


@contextlib.contextmanager
def started(call, **how):
    """The process; it is not left behind."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    call = [*faults.AS_IN_A_TERMINAL, *call]
    process = subprocess.Popen(call, **{**pipes, **how}, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        with process:
            pass


def wait_for_checkpoint(workdir, process, number=1):
    for _ in range(6000):
        found = workdir / "checkpoints"
        there = found.iterdir() if found.exists() else ()
        if sum(p.name.isdecimal() for p in there) >= number:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    pytest.fail("no checkpoint appeared")


def assert_has_stopped(workdir):
    """It has ended in its own way, and goes on: not from an epoch, but where it was."""
    result = json.loads((workdir / "result.json").read_text())
    assert result["finished"] is False
    assert not (workdir / "lock").exists()
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    records = training.read_metrics(workdir)
    assert records[-1]["step"] == max(steps)
    assert {x.name for x in workdir.iterdir()} >= {"config.json", "metrics.jsonl"}


def test_a_ctrl_c_that_jax_drops_while_a_run_is_prepared_ends_it(tmp_path, monkeypatch):
    """As of its callback of the garbage collection, out of which nothing is raised."""
    whole = run.make_program

    def dropping(*args, **options):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return whole(*args, **options)

    monkeypatch.setattr(run, "make_program", dropping)
    config = training.Config(epochs=1, train_examples=16, batch_size=16, width=8)
    # A worker of the tests may ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            training.train(config, tmp_path / "run")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert training.read_metrics(tmp_path / "run") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_checkpoint_and_the_way_to_go_on(number, tmp_path):
    workdir = tmp_path / "run"
    with started(command(workdir, *ENDLESS)) as process:
        wait_for_checkpoint(workdir, process)
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    way = f"Stopped. To go on: mmpareto train --workdir {workdir} --resume"
    assert out.splitlines()[-1] == way
    assert_has_stopped(workdir)


def test_a_terminal_that_goes_takes_nothing_with_it(tmp_path):
    """As when a window is closed, or an ssh connection is lost."""
    workdir = tmp_path / "run"
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with started(
        [sys.executable, "-c", TERMINAL, *command(workdir, *ENDLESS)], **streams
    ) as process:
        os.close(theirs)
        wait_for_checkpoint(workdir, process)
        os.close(ours)
        process.wait(timeout=120)
    assert process.returncode == 130
    assert_has_stopped(workdir)


# Its own session, whose terminal is the one on its standard input.
TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_under_nohup_it_goes_on(tmp_path):
    workdir = tmp_path / "run"
    call = command(workdir, *ENDLESS)
    with started(["nohup", *call], stdin=subprocess.DEVNULL) as process:
        wait_for_checkpoint(workdir, process)
        process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert_has_stopped(workdir)


def test_one_of_several_processes_hears_of_a_hangup(tmp_path):
    """Its parent passes it on; here it is the only one."""
    workdir = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", "1")
    alone = command(workdir, *ENDLESS, *meeting, "--process-id", "0")
    with started(alone) as process:
        wait_for_checkpoint(workdir, process)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert out.splitlines()[-1].startswith("Stopped. To go on: ")
    assert_has_stopped(workdir)


def test_a_second_process_is_refused_and_changes_nothing(tmp_path):
    """While one trains; the records are those of one."""
    workdir = tmp_path / "run"
    with started(command(workdir, *ENDLESS)) as first:
        wait_for_checkpoint(workdir, first)
        again = subprocess.run(
            command(workdir, "--resume"),
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert again.returncode == 2
        assert again.stdout == ""
        assert again.stderr.count("\n") == 1
        who = f"mmpareto: workdir {workdir}: process {first.pid} on "
        assert again.stderr.startswith(who)
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=120)
    assert_has_stopped(workdir)
    records = [x for x in training.read_metrics(workdir) if x["split"] == "train"]
    steps = [x["step"] for x in records]
    assert steps == sorted(set(steps))
    assert sum(x.get("steps", 1) for x in records) == steps[-1]


def test_what_a_killed_run_leaves_is_no_lock(tmp_path):
    """And a damaged checkpoint is told in a line; the run goes on by itself."""
    workdir, finite = tmp_path / "run", (*LONG, "--steps", "4000")
    with started(command(workdir, *finite)) as process:
        wait_for_checkpoint(workdir, process, number=2)
        process.kill()
        process.wait()
    assert (workdir / "lock").exists()
    names = [p.name for p in (workdir / "checkpoints").iterdir()]
    latest = max(int(name) for name in names if name.isdecimal())
    folder = workdir / "checkpoints" / str(latest)
    (folder / "metrics" / "metrics").write_text("")
    with started(command(workdir, "--resume")) as process:
        line = process.stderr.readline()
        assert line.startswith(
            f"mmpareto: workdir {workdir}: checkpoint {latest} is damaged: "
        )
        process.send_signal(signal.SIGKILL)
        process.communicate()
