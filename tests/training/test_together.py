"""Runs side by side in one program: their records are those of runs one by one."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import small_tasks

from mmpareto_jax.training import Comparison, Config, compare, read_runs
from mmpareto_jax.training._study import runs as _runs
from mmpareto_jax.training._study import together
from mmpareto_jax.training._study.run_once import run_once
from mmpareto_jax.training._study.together import Measured, measure, run_together
from mmpareto_jax.training._tasks.settled import config_of

SENSORS, LINES = small_tasks.sensors(), small_tasks.lines()
SENSOR_CONFIG = config_of(SENSORS, Config(batch_size=16, epochs=3))
LINE_CONFIG = config_of(LINES, Config(batch_size=16, steps=10))


def runs(config, method, number=3):
    return [
        dataclasses.replace(config, method=method, seed=seed, lr=0.05 * (seed + 1))
        for seed in range(number)
    ]


def alike(one, other, where=""):
    """Equal, but for rounding, the time, and that they were together."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            alike(value, other[key], f"{where}/{key}")
    elif isinstance(one, str):
        assert one == other, where
    elif where.endswith("/cosines"):  # counts in bins
        assert np.abs(np.subtract(one, other)).sum() <= 2, where
    else:
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5, err_msg=where)


def without_time(record):
    return {k: x for k, x in record.items() if k not in ("seconds", "together")}


@pytest.mark.parametrize(
    "method", ["joint", "uniform", "mmpareto", "modo", "gradnorm", "famo", "ogm-ge"]
)
def test_records_are_those_of_one_by_one(method):
    configs = runs(SENSOR_CONFIG, method)
    found = run_together(configs, task=SENSORS)
    for config, record in zip(configs, found, strict=True):
        assert record["together"] == 3
        alone = run_once(config, task=SENSORS)
        alike(without_time(alone), without_time(record))
        assert set(record["probe"]) == {"left", "right"}
        assert len(record["sharpness"]) == 7


def test_any_losses_and_the_best_epoch_of_each():
    """Learning rates at which different epochs are the best one."""
    configs = [
        dataclasses.replace(LINE_CONFIG, method="mmpareto", seed=s, lr=lr)
        for s, lr in enumerate((0.02, 0.3, 0.55, 0.7))
    ]
    found = run_together(configs, task=LINES, inspect=False)
    alone = [run_once(config, task=LINES, inspect=False) for config in configs]
    assert len({record["step"] for record in alone}) > 1
    for one, record in zip(alone, found, strict=True):
        alike(without_time(one), without_time(record))
        assert record["probe"] == {}


def test_a_method_between_epochs_is_run_one_by_one():
    configs = runs(SENSOR_CONFIG, "relearning", 2)
    found = run_together(configs, task=SENSORS, inspect=False)
    assert ["together" in record for record in found] == [False, False]
    assert [record["seed"] for record in found] == [0, 1]
    assert measure(configs, task=SENSORS) == Measured(1, None)


def test_what_does_not_fit_the_memory_is_halved(monkeypatch):
    tried = []

    def side_by_side(program, task, configs, inspect):
        tried.append(len(configs))
        if len(configs) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return [{"seed": c.seed} for c in configs]

    monkeypatch.setattr(together, "_records", side_by_side)
    monkeypatch.setattr(together, "run_once", lambda c, **_: {"seed": c.seed})
    found = run_together(runs(LINE_CONFIG, "uniform", 7), task=LINES)
    assert [record["seed"] for record in found] == list(range(7))
    assert tried == [7, 4, 2, 2, 3, 2]

    def broken(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(together, "_records", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        run_together(runs(LINE_CONFIG, "uniform"), task=LINES)


def test_timing_halves_too(monkeypatch):
    tried = []

    class Many(together._Many):
        def __init__(self, program, task, configs):
            tried.append(len(configs))
            if len(configs) > 4:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            super().__init__(program, task, configs)

    def seconds(steps):
        return 8.0 if isinstance(steps, Many) else 4.0

    monkeypatch.setattr(together, "_Many", Many)
    monkeypatch.setattr(together, "_seconds", seconds)
    found = measure(runs(LINE_CONFIG, "uniform", 9), task=LINES)
    assert found == Measured(4, 0.5)
    assert found.faster == 4
    assert tried == [9, 4]


def test_a_step_that_is_timed_is_real():
    """And where compiling takes longer than all steps, nothing is timed."""
    short = runs(dataclasses.replace(LINE_CONFIG, steps=4), "uniform")
    jax.clear_caches()
    assert measure(short, task=LINES) == Measured(1, None)
    many = runs(dataclasses.replace(LINE_CONFIG, steps=10**7), "uniform")
    found = measure(many, task=LINES)
    assert found.runs == 3
    assert found.ratio > 0
    assert found.faster in (1, 3)


def test_the_faster_one():
    assert Measured(8, 0.4).faster == 8
    assert Measured(8, 1.4).faster == 1
    assert Measured(1, None).faster == 1


@pytest.fixture
def parts(monkeypatch):
    """The sizes of what is run side by side, and what is timed."""
    sizes, timed = [], []

    def run(configs, task=None, inspect=True):
        sizes.append(len(configs))
        zero = {split: {"error": 1.0} for split in ("validation", "test")}
        zero["groups"] = {}
        return [
            {"method": c.method, "lr": c.lr, "seed": c.seed, "score": 0.0} | zero
            for c in configs
        ]

    def measure(configs, task=None):
        timed.append((configs[0].method, len(configs)))
        return Measured(
            len(configs), {"uniform": 0.3, "pcgrad": 1.7}[configs[0].method]
        )

    monkeypatch.setattr(_runs, "run_together", run)
    monkeypatch.setattr(_runs, "measure", measure)
    return sizes, timed


PLAN = Comparison(
    Config(batch_size=16, epochs=1),
    ("uniform", "pcgrad"),
    (0.1, 0.2, 0.3),
    seeds=18,
    tune_seeds=2,
)


def test_what_is_faster_is_timed_once_a_method(parts, tmp_path):
    sizes, timed = parts
    compare(LINES, PLAN, tmp_path)
    assert timed == [("uniform", 6), ("pcgrad", 6)]
    assert sizes == [6, *[1] * 6, 6, 6, 6, *[1] * 18]
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["together"] == {
        "uniform": {"runs": 6, "ratio": 0.3},
        "pcgrad": {"runs": 6, "ratio": 1.7},
    }


def test_what_goes_on_keeps_what_was_timed(parts, tmp_path):
    """A single run that is missing says nothing of many, and is not timed."""
    _, timed = parts
    compare(LINES, PLAN, tmp_path)
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    before = json.loads((tmp_path / "environment.json").read_text())
    timed.clear()
    compare(LINES, PLAN, tmp_path)
    assert not timed
    assert json.loads((tmp_path / "environment.json").read_text()) == before


def test_a_number_is_taken_as_it_is(parts, tmp_path):
    sizes, timed = parts
    compare(LINES, PLAN, tmp_path, together=4)
    assert not timed
    # As even as they come: 6 runs to tune, 18 that count.
    assert sizes == [3, 3] * 2 + [3, 4, 3, 4, 4] * 2
    assert len(read_runs(tmp_path)) == 2 * (6 + 18)


def test_at_most_sixteen(parts, tmp_path):
    sizes, timed = parts
    compare(LINES, dataclasses.replace(PLAN, lr_grid=(0.1,), seeds=40), tmp_path)
    assert timed == [("uniform", 16), ("pcgrad", 16)]
    assert sizes == [13, 13, 14, *[1] * 40]


def test_on_threads_nothing_is_timed(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(_runs, "visible_gpus", lambda _: ())
    assert _runs.Runs(None, 2, "auto")._together == 1
    monkeypatch.setattr(_runs, "visible_gpus", lambda _: ("0", "1"))
    assert _runs.Runs(None, 2, "auto")._together == "auto"


@pytest.mark.parametrize("together", [0, "all", -1])
def test_mistakes(together, tmp_path):
    with pytest.raises(ValueError, match="together: expected auto or at least 1"):
        compare(LINES, PLAN, tmp_path / "new", together=together)
    assert not (tmp_path / "new").exists()
