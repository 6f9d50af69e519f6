"""Each command once, in a process of its own, with its defaults at a small size."""

import concurrent.futures
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import mmpareto_jax as mmp
from mmpareto_jax import training
from mmpareto_jax.cli import main

pytestmark = pytest.mark.slow

SMALL = ("--train-examples", "32", "--batch-size", "16", "--width", "4")


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory, quick_processes):
    """Of the commands' processes and their workers: warnings are errors there, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "error")
        # Most of the time of such short runs is compilation.
        for name, value in quick_processes.items():
            patch.setenv(name, value)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
            cache = tmp_path_factory.mktemp("compiled")
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
        yield


# What stands on standard error besides: how long it will take, and how far it is.
LENGTH = re.compile(
    r"\d+ (runs: \d+ to tune, \d+ that count|examples)|timing a step of"
)
PROGRESS = re.compile(
    r"[a-z -]+(: \d+ epochs?, \d+ steps(, from step \d+)?|  (epoch )?\d+/\d+ .*)"
)


def mmpareto(*arguments):
    """What the command prints; how far it is goes to standard error, in plain lines."""
    done = subprocess.run(
        [sys.executable, "-m", "mmpareto_jax", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(mmp.__file__).parents[1],
    )
    told = done.stderr.splitlines()
    assert done.returncode == 0, done.stderr
    assert [x for x in told if not (LENGTH.match(x) or PROGRESS.fullmatch(x))] == []
    assert bool(told) == (arguments[0] in ("train", "compare", "prepare"))
    return done.stdout


def scores(out):
    """What train and evaluate print of a run's checkpoint."""
    return out.partition("workdir:")[0]


def read(path):
    return json.loads(path.read_text())


def test_a_run(tmp_path):
    run = tmp_path / "run"
    assert "multimodal" in mmpareto("train", *SMALL, "--steps", 2, "--workdir", run)
    assert read(run / "result.json")["step"] == 2

    # As it is after a stop: the run has further to go than it has come.
    record = read(run / "config.json")
    record["config"]["steps"] = 4
    (run / "config.json").write_text(json.dumps(record))
    resumed = mmpareto("train", "--workdir", run, "--resume")
    result = read(run / "result.json")
    assert result["finished"]
    steps = [r["step"] for r in training.read_metrics(run) if r["split"] == "train"]
    assert steps == [1, 2, 3, 4]

    evaluated = mmpareto("evaluate", run)
    joint = result["scores"]["test"]["accuracy/joint"]
    assert f"{100 * joint:.1f}" in scores(evaluated)
    assert scores(evaluated) == scores(resumed)

    drawn = mmpareto("plot", run).split()
    assert len(drawn) == 4
    page = pathlib.Path(mmpareto("report", run).strip()).read_text()
    assert page.count("<figcaption>") == len(drawn)


def test_compare(tmp_path):
    """Of a task that compiles in half the time of av-digits, which the sweep has."""
    plan = ("--methods", "uniform,mmpareto", "--lr-grid", "0.1", "--seeds", "2")
    size = (*SMALL, "--steps", 1, "--workdir", tmp_path)
    out = mmpareto("compare", "multi-digits", *plan, *size)
    runs = {(r["method"], r["lr"], r["seed"]) for r in training.read_runs(tmp_path)}
    assert runs == {(m, 0.1, seed) for m in ("uniform", "mmpareto") for seed in (0, 1)}
    assert "| mmpareto | 0.1 |" in out
    page = pathlib.Path(mmpareto("report", tmp_path).strip()).read_text()
    drawn = list((tmp_path / "figures").iterdir())
    assert page.count("<figcaption>") == len(drawn) > 2


def test_sweep(tmp_path, monkeypatch, capsys):
    """In this process, since the command has no flag for the size of its runs."""
    pools = []

    def pool(workers, **options):
        pools.append(workers)
        return make(workers, **options)

    make = concurrent.futures.ProcessPoolExecutor
    monkeypatch.setattr(concurrent.futures, "ProcessPoolExecutor", pool)
    small = {"train_examples": 32, "batch_size": 16, "width": 4, "steps": 1}
    monkeypatch.setattr(training, "Config", functools.partial(training.Config, **small))
    plan = ("--settings", "as it is", "--seeds", "2")
    assert main(["sweep", *plan, "--workdir", str(tmp_path)]) == 0
    assert pools == [2, 2]  # for tuning, and for the final runs
    captured = capsys.readouterr()
    assert "| as it is | " in captured.out
    length, before, after = captured.err.splitlines()
    assert length == "1 setting, 10 runs of two methods in each"
    assert before == "sweep  0/1 settings  as it is"
    assert after.startswith("sweep  1/1 settings  ")
    records = training.read_runs(tmp_path / "as-it-is")
    tuning = [r for r in records if r["seed"] >= 10_000]
    assert (len(tuning), len(records)) == (2 * 3, 2 * 3 + 2 * 2)
    assert {r["method"] for r in records} == {"uniform-gamma", "mmpareto"}


def test_prepare(tmp_path):
    out = mmpareto("prepare", "colored-digits", "--out", tmp_path)
    index = read(tmp_path / "index.json")
    for split, counts in index["counts"].items():
        assert f"{split}: {sum(counts.values())} examples" in out
    plan = {"task": "colored-digits", "data": str(tmp_path), "width": 4}
    task = training.make_task(training.Config(**plan))
    assert len(task.data["test"]["label"]) == sum(index["counts"]["test"].values())
