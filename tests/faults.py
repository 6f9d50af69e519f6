"""Commands while something fails: a disk that fills, a process that is killed.

``python faults.py FAULT COMMAND DIRECTORY BOUND...`` does a command on so little space
and again when there is enough, and prints a line of JSON for each bound. FAULT is
``disk``, a file system of so many KiB (as root, in a mount namespace of its own), or
``files``, no file of which grows beyond so many bytes.
"""

import contextlib
import dataclasses
import faulthandler
import io
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

PLACE = pathlib.Path(__file__).parent / "training"
LINES = ["small_tasks:lines", "--batch-size", "16"]
# By name: the command on DIRECTORY/out, and how it goes on where it has begun.
_COMPARE = ["compare", *LINES, "--steps", "4", "--methods", "uniform,mmpareto"]
_COMPARE += ["--lr-grid", "0.1", "--seeds", "2", "--together", "1", "--workdir", "OUT"]
_REPORT = ["report", "RUN", "--out", "OUT/page.html"]
_PREPARE = ["prepare", "arrays", "--raw", "RAW/arrays.npz", "--out", "OUT"]
COMMANDS = {
    "train": (
        ["train", *LINES, "--steps", "8", "--log-every", "1", "--workdir", "OUT"],
        ["train", "--workdir", "OUT", "--resume"],
    ),
    "compare": (_COMPARE, _COMPARE),
    "report": (_REPORT, _REPORT),
    "prepare": (_PREPARE, _PREPARE),
}
SECONDS = 240


def environment(**others):
    """Of a process that finds the package and compiles little."""
    root = str(PLACE.parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **others}


def can_mount():
    """Whether this process may have a file system of its own."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


# The tests may run in the background, where a child would ignore these.
AS_IN_A_TERMINAL = ("env", "--default-signal=HUP,INT")


def started(arguments, **others):
    """A command in a group of its own, with its output."""
    return subprocess.Popen(
        [*AS_IN_A_TERMINAL, sys.executable, "-m", "mmpareto_jax", *map(str, arguments)],
        env=environment(**others),
        cwd=PLACE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended: its group, exit code and output."""

    group: int
    code: int
    out: str
    err: str


def finished(arguments, **others):
    """A command that is left alone."""
    process = started(arguments, **others)
    return Ended(process.pid, *_waited(process))


def ended(arguments, number, when, seconds=0.0, **others):
    """A command to which a signal is sent, alone and not to what it has started.

    Args:
      arguments: of the command.
      number: of the signal.
      when: whether it is time.
      seconds: how much later it is sent.
      **others: variables of the environment.
    """
    process = started(arguments, **others)
    late = time.monotonic() + SECONDS
    while process.poll() is None and not when():
        assert time.monotonic() < late, "it is never time"
        time.sleep(0.005)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(number)
    return Ended(process.pid, *_waited(process))


def _waited(process):
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def alive(group):
    """The processes of a group that run."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = path.read_text().rsplit(")", 1)[1].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(path.parent.name))
    return found


def under(fault, command, directory, bounds, **others):
    """What came of a command for each bound."""
    wrapped = ["unshare", "-m"] if fault == "disk" else []
    script = [sys.executable, __file__, fault, command, directory, *bounds]
    done = subprocess.run(
        [*wrapped, *map(str, script)],
        env=environment(**others),
        cwd=PLACE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def arrays_of(workdir):
    """Checkpoint -> path -> values."""
    import orbax.checkpoint as ocp

    handler = ocp.StandardCheckpointer()
    folders = (pathlib.Path(workdir).absolute() / "checkpoints").glob("[0-9]*")
    whole = {x for x in folders if x.name.isdigit()}
    return {x.name: handler.restore(x / "default") for x in sorted(whole)}


def same(one, other):
    """Whether two runs have the same metrics and the same checkpoints, to the bit."""
    texts = [pathlib.Path(x, "metrics.jsonl").read_bytes() for x in (one, other)]
    found = [arrays_of(x) for x in (one, other)]
    latest = [x[max(x, key=int)] for x in found]
    bits = [
        {k: (str(x.dtype), x.tobytes()) for k, x in y.items()} for y in _host(latest)
    ]
    return texts[0] == texts[1] and bits[0] == bits[1]


def _host(trees):
    import numpy as np

    return [{k: np.asarray(x) for k, x in tree.items()} for tree in trees]


def files_of(directory):
    """Names of the files that are there."""
    found = pathlib.Path(directory).rglob("*")
    return sorted(str(x.relative_to(directory)) for x in found if x.is_file())


class _Disk:
    """A file system of so many KiB."""

    def __init__(self, directory, bound):
        self._directory = directory
        options = ["-t", "tmpfs", "-o", f"size={bound}k", "none"]
        subprocess.run(["mount", *options, directory], check=True)

    def free(self):
        subprocess.run(["mount", "-o", "remount,size=1g", self._directory], check=True)

    def close(self):
        subprocess.run(["umount", "-l", self._directory], check=True)


class _Files:
    """No file may grow beyond so many bytes."""

    def __init__(self, directory, bound):
        self._directory = directory
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, self._before[1]))

    def free(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)

    def close(self):
        for path in self._directory.iterdir():
            shutil.rmtree(path)


def _called(arguments):
    """Exit code and output of a command, which must not hang."""
    from mmpareto_jax.cli import main

    out, err = io.StringIO(), io.StringIO()
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    faulthandler.cancel_dump_traceback_later()
    return code, err.getvalue().splitlines()


def _child(fault, command, directory, *bounds):
    directory = pathlib.Path(directory)
    small, whole = directory / "small", directory / "whole"
    small.mkdir()
    places = {"RUN": directory / "run", "RAW": directory / "raw"}

    def filled(arguments, out):
        for name, path in {**places, "OUT": out}.items():
            arguments = [x.replace(name, str(path)) for x in arguments]
        return arguments

    first, again = COMMANDS[command]
    code, said = _called(filled(first, whole))
    assert code == 0, said
    for bound in map(int, bounds):
        space = {"disk": _Disk, "files": _Files}[fault](small, bound)
        code, said = _called(filled(first, small / "out"))
        left = files_of(small)
        space.free()
        found = {"bound": bound, "code": code, "said": said, "left": left}
        if code:
            began = (small / "out" / "config.json").exists()
            way_on = again if began else first
            found["again"], found["then"] = _called(filled(way_on, small / "out"))
            if command == "train":
                found["same"] = same(small / "out", whole)
        found["files"] = [len(files_of(x)) for x in (small / "out", whole)]
        print(json.dumps(found), flush=True)
        space.close()


if __name__ == "__main__":
    _child(*sys.argv[1:])
