"""Steps that are not finite: undone, counted, the end of a run, and never the best."""

import collections
import dataclasses
import json
import math
import os
import re
import shutil
import signal

import jax
import numpy as np
import pytest
import small_tasks

from mmpareto_jax.cli import main
from mmpareto_jax.data import train_batches
from mmpareto_jax.training import (
    Callback,
    Comparison,
    Config,
    Measure,
    evaluate,
    markdown,
    paired,
    read_metrics,
    summarize,
    train,
    write_report,
)
from mmpareto_jax.training._run.checkpoint import Checkpoints
from mmpareto_jax.training._run.counts import Nonfinite
from mmpareto_jax.training._run.placement import placement_of
from mmpareto_jax.training._run.state import TrainState
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._study.probe import probe_accuracy
from mmpareto_jax.training._study.run_once import run_once
from mmpareto_jax.training._study.scores import mean_ranks
from mmpareto_jax.training._study.together import run_together
from mmpareto_jax.training._tasks.settled import config_of

SENSORS, LINES = small_tasks.sensors(), small_tasks.lines()
METHODS = ("mmpareto", "uniform", "ogm-ge", "agm", "pmr", "gradnorm", "famo", "db-mtl")


def program(task=SENSORS, mesh=None, shard=None, **options):
    config = config_of(task, Config(batch_size=16, steps=20, **options))
    return make_program(config, task, placement=placement_of(mesh, shard))


def batches(task=SENSORS):
    return train_batches(task.data["train"], batch_size=16, seed=0)


def numbers(state):
    leaves = jax.tree.leaves(state)
    is_key = [jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    return [
        np.asarray(jax.random.key_data(x) if key else x)
        for x, key in zip(leaves, is_key, strict=True)
    ]


def assert_same(one, other):
    for x, y in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(x, y)


def copied(state):
    return jax.tree.map(jax.numpy.copy, state)


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_step_changes_nothing_and_a_good_one_what_it_did(method):
    """Parameters, momentum, the rule's and the method's states, statistics, keys."""
    skip, take = (program(method=method, on_nonfinite=x) for x in ("skip", "continue"))
    assert jax.tree.structure(skip.state) == jax.tree.structure(take.state)
    order = batches()
    state, other = skip.state, take.state
    for _ in range(3):
        batch = next(order)
        state, metrics = skip.step(state, batch)
        other, _ = take.step(other, batch)
    assert not any(metrics[k] for k in metrics if "nonfinite" in k or k == "ended")
    assert_same(state, other)
    batch = next(order)
    bad = {**batch, "left": np.where(np.arange(16) == 3, np.nan, 1)[:, None] + [0, 0]}
    bad["left"] = bad["left"].astype(np.float32)
    before = copied(state)
    state, metrics = skip.step(state, bad)
    assert (int(state.step), int(state.streak)) == (4, 1)
    assert_same(before, state._replace(step=before.step, streak=before.streak))
    assert metrics["nonfinite"]
    assert metrics["nonfinite/joint"]
    assert "nonfinite/left" not in metrics or metrics["nonfinite/left"]
    assert not metrics.get("nonfinite/right", False)
    state, metrics = skip.step(state, batch)
    assert (int(state.step), int(state.streak)) == (5, 0)
    assert not metrics["nonfinite"]


@pytest.mark.parametrize("refresh", [1, 4])
@pytest.mark.parametrize("warm", [0, 2])
def test_kept_weights_are_kept_and_the_right_objective_is_blamed(refresh, warm):
    """Also where the first step is bad, or one between two refreshes."""
    found = program(LINES, refresh=refresh)
    order, state = batches(LINES), found.state
    for _ in range(warm):
        state, _ = found.step(state, next(order))
    before = copied(state)
    batch = next(order)
    state, metrics = found.step(state, {**batch, "right": batch["right"] * np.inf})
    assert_same(before, state._replace(step=before.step, streak=before.streak))
    assert {k for k, x in metrics.items() if "nonfinite" in k and x} == {
        "nonfinite",
        "nonfinite/right",
        "left+right/nonfinite",
    }
    assert np.isnan(metrics["left+right/conflict"])


@pytest.mark.parametrize("mode", ["skip", "continue"])
def test_an_update_that_overflows_is_no_objectives_fault(mode):
    """Losses and gradients are finite; what would be written is not."""
    found = program(LINES, lr=3e38, schedule="constant", on_nonfinite=mode)
    batch = next(batches(LINES))
    far = {k: x * np.float32(100) for k, x in batch.items()}
    before = copied(found.state)
    state, metrics = found.step(found.state, far)
    assert np.isfinite(metrics["loss/left"])
    assert metrics["nonfinite"]
    assert metrics["left+right/nonfinite"]
    assert not metrics["nonfinite/left"]
    assert not metrics["nonfinite/right"]
    same = [
        np.array_equal(x, y)
        for x, y in zip(*map(numbers, (before, state)), strict=True)
    ]
    params = len(jax.tree.leaves(before.params))
    assert all(same[1 : 1 + params]) == (mode == "skip")


def test_parameters_that_are_nan_have_no_score_where_losses_do_not_show_it():
    """As a network's do whose pooling passes NaN over."""
    task = small_tasks.lines(seen=jax.numpy.nan_to_num)
    found = program(task, on_nonfinite="continue")
    held_out = task.data["validation"]
    assert all(map(math.isfinite, found.evaluate(found.state, held_out).values()))
    params = jax.tree.map(lambda x: x * np.nan, found.state.params)
    state = copied(found.state._replace(params=params))
    assert all(map(math.isnan, found.evaluate(state, held_out).values()))
    both = jax.tree.map(lambda *x: jax.numpy.stack(x), found.state, state)
    good, bad = found.evaluate_each(both, held_out)
    assert all(map(math.isfinite, good.values()))
    assert all(map(math.isnan, bad.values()))
    for streak in (1, 2):
        state, metrics = found.step(state, next(batches(task)))
        assert np.isfinite(metrics["loss/left"])
        assert metrics["nonfinite"]
        assert metrics["left+right/nonfinite"]
        assert state.streak == streak


def test_nothing_changes_any_more_after_so_many_in_a_row():
    found = program(LINES, nonfinite_limit=3)
    batch = next(batches(LINES))
    bad = {**batch, "x": batch["x"] * np.nan}
    state, ended, steps = found.state, [], []
    for given in (bad, bad, batch, bad, bad, bad, batch, bad):
        state, metrics = found.step(state, given)
        ended.append(bool(metrics["ended"]))
        steps.append((int(state.step), int(state.streak)))
    assert ended == [False] * 5 + [True] * 3
    assert steps == [(1, 1), (2, 2), (3, 0), (4, 1), (5, 2), (6, 3), (6, 3), (6, 3)]


def cost(found, task, where):
    batch = where.batch(next(batches(task)), 16)
    return found.step.lower(found.state, batch).compile()


def test_what_it_costs():
    """A look at what is written, once; nothing is kept twice."""
    skip, take = (program(on_nonfinite=x) for x in ("skip", "continue"))
    one, other = (cost(x, SENSORS, placement_of(None)) for x in (skip, take))
    size = sum(x.size for x in numbers(skip.state.params))
    flops = one.cost_analysis()["flops"] - other.cost_analysis()["flops"]
    assert flops <= 8 * size
    temporaries = [x.memory_analysis().temp_size_in_bytes for x in (one, other)]
    assert temporaries[0] - temporaries[1] <= 4 * size


@pytest.mark.parametrize("mesh", ["data=8", "data=4,model=2"])
@pytest.mark.parametrize("shard", [None, "params"])
def test_all_devices_decide_alike_by_one_message(mesh, shard):
    """Also where each of them has a part of the parameters."""
    where = placement_of(mesh, shard)
    found = [program(LINES, mesh, shard, on_nonfinite=x) for x in ("skip", "continue")]
    texts = [cost(x, LINES, where).as_text() for x in found]
    messages = [len(re.findall(r" = \S+ all-reduce(?:-start)?\(", x)) for x in texts]
    assert messages[0] <= messages[1] + 1
    skip, order = found[0], batches(LINES)
    state = skip.state
    state, _ = skip.step(state, where.batch(next(order), 16))
    before, batch = copied(state), next(order)
    batch["left"][5] = np.nan  # on one device
    state, metrics = skip.step(state, where.batch(batch, 16))
    assert bool(metrics["nonfinite/left"])
    assert not bool(metrics["nonfinite/right"])
    assert_same(before, state._replace(step=before.step, streak=before.streak))
    for x in jax.tree.leaves(state.params):
        parts = {str(s.index): np.asarray(s.data) for s in x.addressable_shards}
        for s in x.addressable_shards:
            np.testing.assert_array_equal(parts[str(s.index)], np.asarray(s.data))


# --- Runs


def with_bad_rows(rows):
    """The lines, with NaN as the target of "left" in these training examples."""
    data = {split: dict(arrays) for split, arrays in LINES.data.items()}
    left = data["train"]["left"].copy()
    left[list(rows)] = np.nan
    data["train"]["left"] = left
    return dataclasses.replace(LINES, data=data)


CONFIG = Config(batch_size=4, epochs=2, lr=0.02, log_every=4)  # of 16 steps each
ONE, ALL = with_bad_rows([7]), with_bad_rows(range(64))


def test_a_bad_example_costs_its_steps_and_is_told(tmp_path):
    with pytest.warns(UserWarning, match=r"2 of 32 steps were not finite \(left: 2"):
        result = train(ONE, CONFIG, tmp_path)
    groups = {"left+right": 2}
    assert result.nonfinite[:4] == (2, 32, {"left": 2}, groups)
    assert (result.finished, result.diverged) == (True, False)
    assert math.isfinite(result.scores["test"]["error"])
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["nonfinite"]["steps"] == 2
    assert found["diverged"] is False
    records = [r for r in read_metrics(tmp_path) if r["split"] == "train"]
    bad = [r for r in records if "nonfinite" in r]
    assert [r["nonfinite/left"] for r in bad] == [1, 1]
    assert [r["nonfinite/loss/left"] for r in bad] == [1, 1]
    assert len(records) == 8
    assert evaluate(tmp_path, task=ONE).nonfinite == result.nonfinite


@pytest.mark.parametrize("mode", ["skip", "stop"])
def test_a_run_ends_at_its_last_good_state(mode, tmp_path):
    config = dataclasses.replace(CONFIG, on_nonfinite=mode, nonfinite_limit=6)
    with pytest.warns(UserWarning, match="not finite"):
        result = train(ALL, config, tmp_path)
    steps = 6 if mode == "skip" else 1
    assert (result.finished, result.diverged) == (False, True)
    assert (int(result.state.step), result.nonfinite.steps) == (steps, steps)
    first = make_program(config_of(ALL, config), ALL).state
    assert_same(first.params, result.state.params)
    assert evaluate(tmp_path, "latest", task=ALL).step == steps
    assert [r.get("steps", 1) for r in read_metrics(tmp_path)] == (
        [4, 2] if mode == "skip" else [1]
    )
    # It may be tried again, and goes on from there.
    with pytest.warns(UserWarning, match="not finite"):
        again = train(ALL, config, tmp_path, resume=True)
    assert int(again.state.step) == 2 * steps
    assert again.nonfinite.steps == again.nonfinite.total == 2 * steps


def test_what_is_taken_as_it_is_has_no_good_score(tmp_path):
    config = dataclasses.replace(CONFIG, on_nonfinite="continue")
    with pytest.warns(UserWarning, match="taken as they were"):
        result = train(ALL, config, tmp_path)
    assert (result.finished, result.diverged) == (True, True)
    assert result.nonfinite.steps == 32
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["scores"]["test"]["error"] is None


class Interrupt(Callback):
    def __init__(self, step):
        self.step = step

    def on_tick(self, step):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


# The state of a version that counted nothing.
Older = collections.namedtuple("Older", TrainState._fields[:-1])


@pytest.mark.filterwarnings("ignore:.*not finite")
@pytest.mark.parametrize("older", [False, True])
def test_the_streak_goes_on_where_a_run_does(older, tmp_path, monkeypatch):
    """A checkpoint of a version that knew none begins with 0."""
    if older:
        save = Checkpoints.save
        monkeypatch.setattr(
            Checkpoints,
            "save",
            lambda self, state, *args: save(self, Older(*state[:-1]), *args),
        )
    config = dataclasses.replace(CONFIG, nonfinite_limit=6)
    train(ALL, config, tmp_path, callbacks=[Interrupt(3)])
    monkeypatch.undo()
    result = train(ALL, config, tmp_path, resume=True)
    assert int(result.state.step) == (3 + 6 if older else 6)


def test_the_command_says_what_became_of_it(tmp_path, capsys):
    options = ["--train-examples", "64", "--batch-size", "16", "--width", "8"]
    code = main(
        ["train", *options, "--lr", "1e6", "--steps", "20", "--workdir", str(tmp_path)]
    )
    out, err = capsys.readouterr()
    assert code == 4
    (line,) = [x for x in err.splitlines() if x.startswith("mmpareto: the run diver")]
    for what in ("steps were not finite (", "is the state before them", "--lr (now 1e"):
        assert what in line
    assert "skipped" in out
    assert "not finite" in err.splitlines()[1]  # when it first happened


# --- Comparisons


def without_time(record):
    return {k: x for k, x in record.items() if k not in ("seconds", "together")}


def test_a_run_without_a_finite_score_has_diverged(tmp_path, capsys):
    """Every step is finite, and what the last one led to has no score."""
    command = ["train", "small_tasks:unscored", "--steps", "2", "--batch-size", "16"]
    assert main([*command, "--workdir", str(tmp_path)]) == 4
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the run diverged: no checkpoint has a finite score on validation" in said
    assert "--lr (now" in said
    record = json.loads((tmp_path / "result.json").read_text())
    assert (record["diverged"], record["finished"]) == (True, True)
    assert record["checkpoint"] == "latest"
    assert evaluate(tmp_path, task=small_tasks.unscored()).diverged


def test_a_run_that_diverges_does_not_disturb_those_beside_it():
    config = config_of(LINES, dataclasses.replace(CONFIG, method="uniform"))
    configs = [
        dataclasses.replace(config, seed=seed, lr=lr)
        for seed, lr in enumerate((0.02, 1e30, 0.05))
    ]
    found = run_together(configs, task=LINES, inspect=False)
    alone = [run_once(x, task=LINES, inspect=False) for x in configs]
    assert [r.get("diverged", False) for r in found] == [False, True, False]
    assert found[1]["nonfinite"]["steps"] >= config.nonfinite_limit
    for one, other in zip(alone, found, strict=True):
        assert one.get("nonfinite") == other.get("nonfinite")
        assert one["step"] == other["step"]
        if not one.get("diverged"):
            assert one["test"]["error"] == pytest.approx(other["test"]["error"], 1e-4)
        json.dumps(other, allow_nan=False)


def record(method, lr, seed, score, **more):
    scores = {"accuracy/joint": score}
    return {
        "method": method,
        "lr": lr,
        "seed": seed,
        "score": score,
        "validation": scores,
        "test": scores,
        "probe": {},
        "groups": {},
        **more,
    }


@pytest.mark.parametrize(
    "bad",
    [
        {"score": None},
        {"score": math.nan},
        {"score": math.inf},
        {"score": 0.99, "diverged": True},
    ],
)
def test_a_learning_rate_that_diverged_is_not_chosen(bad):
    """Whatever its best epoch was, and where it comes first."""
    plan = Comparison(Config(), ("uniform",), lr_grid=(9.0, 0.1), tune_seeds=2)
    records = [
        record("uniform", 9.0, 10_000, **bad),
        record("uniform", 9.0, 10_001, 0.98),
        record("uniform", 0.1, 10_000, 0.5),
        record("uniform", 0.1, 10_001, 0.6),
    ]
    for found in (records, records[::-1]):
        assert plan.learning_rates(found) == {"uniform": 0.1}


def test_a_table_says_how_many_diverged_and_averages_the_others():
    plan = Comparison(Config(), ("uniform", "mmpareto"), lr_grid=(0.1,), seeds=3)
    records = [
        *(record("uniform", 0.1, s, 0.8 + 0.01 * s) for s in range(3)),
        record("mmpareto", 0.1, 0, 0.9),
        record("mmpareto", 0.1, 1, 0.92),
        record("mmpareto", 0.1, 2, 0.99, diverged=True),
    ]
    measures = [Measure("accuracy/joint", "multimodal")]
    rows = summarize(plan, records, measures)
    table = markdown(rows, measures).splitlines()
    assert table[0].endswith("| diverged |")
    assert table[2].startswith("| uniform | 0.1 | 81.0 ± 1.0 |")
    assert table[3].startswith("| mmpareto | 0.1 | 91.0 ± 1.4 | +10.5 [")
    assert table[3].endswith("| 1 of 3 runs |")
    finite = summarize(plan, [r for r in records if "diverged" not in r][:3], measures)
    assert "diverged" not in markdown(finite, measures)


def test_statistics_leave_out_what_is_not_finite():
    a, b = np.array([82.0, np.nan, 85, 84]), np.array([80.0, 1, 82, 83])
    assert paired(a, b) == paired(a[[0, 2, 3]], b[[0, 2, 3]])
    assert math.isnan(paired(a[:2], b[:2]).p)
    lower = Measure("error/x", "x", higher=False)
    scores = {
        "none": np.full(2, np.nan),
        "half": np.array([0.1, np.nan]),
        "good": np.array([3.0, 3.0]),
        "best": np.array([2.0, 3.0]),
    }
    found = mean_ranks({k: {"error/x": x} for k, x in scores.items()}, [lower])
    assert found == {"none": 4, "half": 3, "good": 2, "best": 1}


def test_a_probe_of_features_that_are_not_finite():
    labels = {k: np.arange(6) % 2 for k in ("train", "validation", "test")}
    features = {k: np.ones((6, 2)) for k in labels}
    features["test"][0, 0] = np.inf
    assert math.isnan(probe_accuracy(features, labels))


def test_the_sentence():
    assert Nonfinite(1, 9, {}, {"other state": 1}, 4).said("stop") == (
        "1 of 9 steps was not finite (on other state: 1), which ended the run"
    )


def test_a_report_shows_it(tmp_path):
    config = dataclasses.replace(CONFIG, on_nonfinite="stop")
    with pytest.warns(UserWarning, match="not finite"):
        train(ALL, config, tmp_path / "bad")
    shutil.copytree(tmp_path / "bad", tmp_path / "worse")
    runs = [tmp_path / "bad", tmp_path / "worse"]
    page = write_report(runs, tmp_path / "report.html").read_text()
    assert "The run diverged" in page
    said = "1 of 1 steps was not finite (left: 1; on left+right: 1), which ended"
    assert said in page
    assert "bad (diverged)" in page
