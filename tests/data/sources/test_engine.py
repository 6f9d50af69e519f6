"""Decoding many files: in parallel, resumable, one bad clip stops nothing."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import written

from mmpareto_jax.data.sources import (
    Example,
    Plan,
    Problem,
    UnusableError,
    _engine,
    _merge,
    open_prepared,
    prepare,
)

SPLITS = ("train", "train", "validation", "test")


def decode(example, log=None):
    """A number in a file; negative ones cannot be used."""
    if log is not None:
        with Path(log).open("a") as file:
            file.write(example.id + "\n")
    value = int(Path(example.files[0]).read_text())
    if value < 0:
        raise UnusableError("negative")
    return {"x": np.full((2,), value, np.float32), "y": np.array(value % 7, np.uint8)}


def plan_of(root, number=100, **options):
    root.mkdir(exist_ok=True)
    examples = []
    for i in range(number):
        path = root / f"{i}.txt"
        path.write_text(str(i))
        examples.append(Example(f"e{i}", SPLITS[i % 4], i % 3, (str(path),)))
    given = {"decode": decode, "options": {"size": 2}} | options
    return Plan("toy", ("a", "b", "c"), examples, **given)


def test_what_can_be_used_is_stored_in_order(tmp_path):
    plan = plan_of(tmp_path / "raw", problems=[Problem("odd", "odd.txt", "no name")])
    (tmp_path / "raw" / "4.txt").write_text("-1")
    (tmp_path / "raw" / "5.txt").write_text("?")
    (tmp_path / "raw" / "6.txt").unlink()
    found = prepare(plan, tmp_path / "out")
    train = found.arrays["train"]
    expected = [i for i in range(100) if i % 4 < 2 and i not in (4, 5)]
    np.testing.assert_array_equal(train["x"], np.transpose([expected] * 2))
    np.testing.assert_array_equal(train["y"], np.array(expected) % 7)
    np.testing.assert_array_equal(train["label"], np.array(expected) % 3)
    assert found.ids["train"] == tuple(f"e{i}" for i in expected)
    assert isinstance(train["x"], np.memmap)
    assert train["label"].dtype == np.int32
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = written.reasons(tmp_path / "out")
    assert reasons.keys() == {"odd", "e4", "e5", "e6"}
    assert reasons["e4"] == "negative"
    assert reasons["e5"].startswith("ValueError: invalid literal")
    assert reasons["e6"].startswith("FileNotFoundError")
    assert report["left_out"] == 4
    assert sum(report["counts"]["train"].values()) == 48
    assert report["counts"]["validation"] == {"a": 7, "b": 8, "c": 9}
    assert not (tmp_path / "out" / "mmpareto-parts").exists()


def test_a_stopped_call_goes_on_and_a_finished_one_is_done(tmp_path):
    log = tmp_path / "log"
    plan = plan_of(tmp_path / "raw", decode=functools.partial(decode, log=log))

    def stop(done, total, left_out):
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(plan, tmp_path / "out", progress=stop)
    first = log.read_text().split()
    assert 64 <= len(first) < 100
    with pytest.raises(ValueError, match="holds no prepared data"):
        open_prepared(tmp_path / "out")
    found = prepare(plan, tmp_path / "out")
    assert sorted(log.read_text().split()) == sorted(e.id for e in plan.examples)
    again = prepare(plan, tmp_path / "out")
    assert len(log.read_text().split()) == 100
    assert again.index == found.index
    whole = prepare(plan_of(tmp_path / "raw"), tmp_path / "other")
    assert whole.index["sha256"] == found.index["sha256"]


def test_processes_change_nothing(tmp_path):
    plan = plan_of(tmp_path / "raw")
    (tmp_path / "raw" / "70.txt").write_text("-1")
    seen = []
    one = prepare(plan, tmp_path / "one", progress=lambda *x: seen.append(x))
    two = prepare(plan, tmp_path / "two", workers=2)
    assert one.index == two.index
    assert seen[-1] == (100, 100, 1)


def fatal(example):
    """Kills its process for two of the examples, as broken native code does."""
    if example.id in ("e5", "e10"):
        os._exit(1)
    return decode(example)


def test_a_clip_that_kills_its_decoder(tmp_path, monkeypatch):
    """Chunks are short here: of one with such a clip each has a process of its own."""
    for module in (_engine, _merge):
        monkeypatch.setattr(module, "CHUNK", 4)
    plan = plan_of(tmp_path / "raw", 12, decode=fatal)
    found = prepare(plan, tmp_path / "out", workers=2)
    reasons = written.reasons(tmp_path / "out")
    assert reasons == {"e5": "its decoder died", "e10": "its decoder died"}
    assert sum(len(x) for x in found.ids.values()) == 10


def test_another_plan_is_refused(tmp_path):
    prepare(plan_of(tmp_path / "raw"), tmp_path / "out")
    with pytest.raises(ValueError, match="holds other prepared data"):
        prepare(plan_of(tmp_path / "raw", options={"size": 3}), tmp_path / "out")


def test_a_split_without_examples(tmp_path):
    plan = plan_of(tmp_path / "raw", 8)
    for i in (3, 7):
        (tmp_path / "raw" / f"{i}.txt").write_text("-1")
    with pytest.raises(ValueError, match="no usable example in split 'test'"):
        prepare(plan, tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["left_out"] == 2


def test_what_is_missing_is_named(tmp_path):
    prepare(plan_of(tmp_path / "raw"), tmp_path / "out")
    (tmp_path / "out" / "test-y.npy").unlink()
    with pytest.raises(ValueError, match=r"test-y\.npy is missing"):
        open_prepared(tmp_path / "out")
