"""Several processes that see one directory: shares, waiting, and who is missed."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

import mmpareto_jax as mmp
from mmpareto_jax.cli import main
from mmpareto_jax.training import (
    Comparison,
    Config,
    compare,
    read_comparison,
    read_runs,
)
from mmpareto_jax.training._run.damaged import RunWarning
from mmpareto_jax.training._run.lock import locked
from mmpareto_jax.training._study import shares
from mmpareto_jax.training._study.records import Records, name_of
from mmpareto_jax.training._study.shares import Share

PLAN = Comparison(
    Config("small_tasks:lines", batch_size=16, epochs=2),
    ("uniform", "mmpareto"),
    (0.05, 0.2, 0.8),
    seeds=3,
    tune_seeds=1,
)
CONFIGS = [
    dataclasses.replace(PLAN.config, seed=seed, train_examples=64) for seed in range(7)
]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(shares, "_PAUSE", 0.01)


def record(config):
    scores = {k: {"accuracy/mean": 0.5} for k in ("validation", "test")}
    run = {"method": config.method, "lr": config.lr, "seed": config.seed}
    return run | scores | {"groups": {}}


def write(workdir, process_id, configs):
    file = Records(workdir, process_id)
    for config in configs:
        file.append(record(config))
    file.close()


@pytest.mark.parametrize("number", [1, 2, 3, 9])
def test_shares_are_all_runs_once(number):
    parts = [Share(number, i).missing(CONFIGS, []) for i in range(number)]
    together = [config for part in parts for config in part]
    assert sorted(c.seed for c in together) == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_what_is_there_changes_no_share_but_its_own():
    there = [record(config) for config in CONFIGS[:3]]
    left = [Share(2, i).missing(CONFIGS, there) for i in (0, 1)]
    assert [[c.seed for c in part] for part in left] == [[4, 6], [3, 5]]


def test_records_of_all_files_each_run_once(tmp_path):
    write(tmp_path, 1, CONFIGS[2:5])
    write(tmp_path, 0, CONFIGS[:3])
    write(tmp_path, 12, CONFIGS[5:])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["runs-1.jsonl", "runs-12.jsonl", "runs.jsonl"]
    assert [r["seed"] for r in read_runs(tmp_path)] == list(range(7))


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path):
    write(tmp_path, 0, CONFIGS[:2])
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text()[:-9])
    write(tmp_path, 0, CONFIGS[1:3])
    assert [r["seed"] for r in read_runs(tmp_path)] == [0, 1, 2]


def test_waiting_ends_with_the_last_record(quick, tmp_path):
    """New records, of anybody, begin the patience anew."""
    write(tmp_path, 0, CONFIGS[::2])
    share = Share(2, 0, patience=1.0)

    def other():
        for config in CONFIGS[1::2]:
            time.sleep(0.5)
            write(tmp_path, 1, [config])

    thread = threading.Thread(target=other)
    thread.start()
    records = share.wait(tmp_path, CONFIGS)
    thread.join()
    assert {name_of(r) for r in records} == {name_of(c) for c in CONFIGS}


def test_who_is_missed_is_named(quick, tmp_path):
    write(tmp_path, 0, CONFIGS[:4])
    with pytest.raises(TimeoutError) as found:
        Share(3, 0, patience=0.1).wait(tmp_path, CONFIGS)
    message = str(found.value)
    assert "no new run in 0.1 s" in message
    assert "1 of process 0 (mmpareto lr 0.05 seed 6)" in message
    assert "1 of process 1 (mmpareto lr 0.05 seed 4)" in message
    assert "1 of process 2 (mmpareto lr 0.05 seed 5)" in message
    with pytest.raises(TimeoutError, match=r"7 of process 0 \(.* seed 2, ...\)"):
        Share(1, 0, patience=0.1).wait(tmp_path / "none", CONFIGS)


def test_growth_anywhere_that_is_watched_counts(quick, tmp_path):
    """A sweep's processes may be at another setting."""
    here, there = tmp_path / "one", tmp_path / "two"
    for path in (here, there):
        path.mkdir()
    share = Share(2, 1, patience=0.6, watched=tmp_path)

    def other():
        for i in range(4):
            time.sleep(0.3)
            write(there, 0, CONFIGS[i : i + 1])
        write(here, 0, CONFIGS)

    thread = threading.Thread(target=other)
    thread.start()
    assert len(share.wait(here, CONFIGS)) == 7
    thread.join()


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (("--num-processes", "0"), "num_processes: expected at least 1, got 0"),
        (("--process-id", "1"), "process_id: expected 0 to 0, got 1"),
        (("--patience", "0"), "patience: expected seconds > 0, got 0.0"),
        (("--together", "some"), "--together: expected auto or at least 1, got some"),
        (("--together", "0"), "together: expected auto or at least 1, got 0"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "sweep"])
def test_mistakes(command, flags, match, tmp_path, capsys):
    workdir = tmp_path / "new"
    assert main([command, "--workdir", str(workdir), *flags]) == 2
    assert match in capsys.readouterr().err
    assert not workdir.exists()


@pytest.fixture
def command(quick_processes):
    """Starts a process of its own, which knows the small tasks."""
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(pathlib.Path(mmp.__file__).parents[1]), str(here)])

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, "-m", "mmpareto_jax", *map(str, arguments)],
            env={**os.environ, **quick_processes, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


FLAGS = (
    *("compare", "small_tasks:lines", "--batch-size", "16", "--epochs", "2"),
    *("--methods", "uniform,mmpareto", "--lr-grid", "0.05,0.2,0.8"),
    *("--seeds", "3", "--tune-seeds", "1", "--workers", "1", "--together", "1"),
)


def numbers(records):
    """All but the time, by run."""
    return {name_of(r): {k: x for k, x in r.items() if k != "seconds"} for r in records}


@pytest.mark.slow
def test_two_processes_do_what_one_does(command, quick_processes, tmp_path):
    one = command(*FLAGS, "--workdir", tmp_path / "one")
    both = [
        command(
            *(*FLAGS, "--workdir", tmp_path / "two", "--patience", "300"),
            *("--num-processes", "2", "--process-id", i),
        )
        for i in (0, 1)
    ]
    out, *outs = [process.communicate(timeout=500) for process in (one, *both)]
    assert [p.returncode for p in (one, *both)] == [0, 0, 0], (out, outs)
    expected, found = (read_runs(tmp_path / name) for name in ("one", "two"))
    assert numbers(found) == numbers(expected)
    assert len(found) == 2 * 3 + 2 * 3
    # Each did half of both stages.
    for name in ("runs.jsonl", "runs-1.jsonl"):
        lines = (tmp_path / "two" / name).read_text().splitlines()
        seeds = [json.loads(line)["seed"] for line in lines]
        assert [seed >= 10_000 for seed in seeds] == [True] * 3 + [False] * 3
    # One tells, the other says that it does.
    assert "| mmpareto |" in outs[0][0]
    assert "Process 1 of 2 has done its share" in outs[1][0]
    assert "| mmpareto |" not in outs[1][0]
    table = (tmp_path / "two" / "table.md").read_text()
    cells = [line.rpartition(" | ")[0] for line in table.splitlines()]
    one_table = (tmp_path / "one" / "table.md").read_text()
    assert cells == [line.rpartition(" | ")[0] for line in one_table.splitlines()]


@pytest.mark.slow
def test_a_process_that_died_is_missed_and_made_up_for(command, tmp_path):
    """Only one of three ever runs; a single one then does what is missing."""
    flags = (*FLAGS, "--workdir", tmp_path, "--patience", "2")
    alone = command(*flags, "--num-processes", "3", "--process-id", "1")
    _, error = alone.communicate(timeout=300)
    assert alone.returncode == 2
    assert "no new run in 2 s; still missing are 2 of process 0" in error
    assert "2 of process 2 (uniform lr 0.8 seed 10000, " in error
    there = read_runs(tmp_path)
    assert len(there) == 2
    records = compare(PLAN, tmp_path, together=1)
    assert len(records) == 12
    assert [r for r in records if name_of(r) in numbers(there)] == there


NO_RECORDS = [
    b"[1]",
    b"null",
    b'{"method": "uniform"}',
    b'{"method": "uniform", "lr": 0.1, "seed": 1}',
    b"[" * 100_000,
    b"\0\0\0",
    b"\xff",
    b'{"seed"',
]


def test_lines_that_hold_no_record_lose_no_other(tmp_path):
    """They are left out with a word, and moved aside before the next is appended."""
    write(tmp_path, 0, CONFIGS[:3])
    path = tmp_path / "runs.jsonl"
    first, *rest = path.read_bytes().splitlines(keepends=True)
    bad = b"".join(line + b"\n" for line in NO_RECORDS)
    path.write_bytes(
        b"\xef\xbb\xbf" + first + b"\n\r\n" + bad + b"".join(rest) + b"\0\0"
    )
    with pytest.warns(RunWarning, match="left out 8 lines that hold no record"):
        assert [r["seed"] for r in read_runs(tmp_path)] == [0, 1, 2]
    with pytest.warns(RunWarning, match="moved 8 lines that hold no record to"):
        write(tmp_path, 0, CONFIGS[3:4])
    assert [r["seed"] for r in read_runs(tmp_path)] == [0, 1, 2, 3]
    assert (tmp_path / "damaged" / "runs.jsonl").read_bytes() == bad


CHANGES = [
    ("{", "unreadable comparison.json"),
    ("[]", "expected an object"),
    ("[" * 100_000, "unreadable comparison.json"),
    ({"methods": None}, "without methods"),
    ({"config": None}, "without config"),
    ({"config": 3}, "config: expected an object, got 3"),
    ({"methods": "uniform"}, "methods: expected a list of names"),
    ({"methods": [1]}, "methods: expected a list of names"),
    ({"lr_grid": ["a"]}, "lr_grid: expected a list of numbers"),
    ({"seeds": "9"}, "seeds: expected a number"),
    ({"colour": "red"}, "colour"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_comparison_that_cannot_be_read_is_named(tmp_path, change, said):
    path = tmp_path / "comparison.json"
    if isinstance(change, dict):
        values = {**dataclasses.asdict(PLAN), **change}
        change = json.dumps({k: x for k, x in values.items() if x is not None})
    path.write_text(change)
    with pytest.raises(ValueError, match=said) as failed:
        read_comparison(tmp_path)
    assert "comparison.json" in str(failed.value)


def test_one_comparison_at_a_time_in_a_directory(tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match="writes to it"):
        compare(PLAN, tmp_path)
    assert list(tmp_path.iterdir()) == []
