"""A process that is killed, at any moment: the run goes on to the same bits."""

import importlib.util
import pathlib
import random
import signal
import sys
import time

import pytest

from mmpareto_jax.training import read_runs

HERE = pathlib.Path(__file__).parent


def _faults():
    """``tests/faults.py``, which is a script, too."""
    spec = importlib.util.spec_from_file_location("faults", HERE.parent / "faults.py")
    found = sys.modules["faults"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


faults = _faults()
LINES = ["small_tasks:lines", "--batch-size", "16"]
TRAIN = ["train", *LINES, "--steps", "40", "--log-every", "3"]
COMPARE = ["compare", *LINES, "--steps", "8", "--methods", "uniform,mmpareto"]
COMPARE += ["--lr-grid", "0.1", "--seeds", "4", "--together", "1", "--workers", "2"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory, quick_processes):
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**quick_processes, "JAX_COMPILATION_CACHE_DIR": cache}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, environment):
    """A run that nothing has ended."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert faults.finished([*TRAIN, "--workdir", workdir], **environment).code == 0
    return workdir


# When something of the run is there, and so many hundredths of a second later.
MOMENTS = [
    ("config.json", 0),
    ("checkpoints/8.orbax-checkpoint-tmp*", 0),
    ("checkpoints/24", 3),
    ("result.json", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("marker", "hundredths"), MOMENTS)
def test_a_run_that_is_killed_goes_on(whole, environment, tmp_path, marker, hundredths):
    workdir = tmp_path / "run"
    ended = faults.ended(
        [*TRAIN, "--workdir", workdir],
        signal.SIGKILL,
        lambda: any(workdir.glob(marker)),
        hundredths / 100,
        **environment,
    )
    assert ended.code in (-signal.SIGKILL, 0)
    again = faults.finished(["train", "--workdir", workdir, "--resume"], **environment)
    assert again.code == 0, again.err
    assert faults.same(workdir, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_comparison_that_is_ended_says_how_to_go_on(environment, tmp_path, number):
    """Its workers end with it, and what they had finished stays."""
    workdir = tmp_path / "both"
    ended = faults.ended(
        [*COMPARE, "--workdir", workdir],
        number,
        lambda: len(read_runs(workdir)) >= 2,
        random.Random(int(number)).uniform(0, 0.2),
        **environment,
    )
    assert ended.code == 128 + number
    assert ended.err.splitlines()[-1] == "Stopped. To go on: the same command."
    assert "Traceback" not in ended.err
    assert "resource_tracker" not in ended.err
    time.sleep(0.5)
    assert faults.alive(ended.group) == []
    there = read_runs(workdir)
    assert 2 <= len(there) < 8
