"""Several real processes, over the loopback: the numbers are those of one."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("several_processes.py")


def run(number, out):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(port), str(number), str(i), str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(number)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(said)
    with np.load(out) as found:
        return [found[name] for name in found.files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(1, tmp_path_factory.mktemp("one") / "one.npz")


def test_the_two_ways_agree(alone):
    half = len(alone) // 2
    for a, b in zip(alone[:half], alone[half:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("number", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_are_one(number, alone, tmp_path):
    for a, b in zip(run(number, tmp_path / "several.npz"), alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
