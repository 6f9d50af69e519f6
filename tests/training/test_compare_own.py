"""Comparisons on a task of a user's own, of which less is better; scores not finite."""

import dataclasses
import json
import math

import numpy as np
import pytest
import small_tasks

from mmpareto_jax._cli import studies
from mmpareto_jax.cli import main
from mmpareto_jax.training import (
    Comparison,
    Config,
    Measure,
    compare,
    markdown,
    read_comparison,
    read_runs,
    summarize,
    write_report,
)
from mmpareto_jax.training._run.fit import fit
from mmpareto_jax.training._study import run_once as _run_once
from mmpareto_jax.training._study import together as _together
from mmpareto_jax.training._study.records import name_of, read_measures
from mmpareto_jax.training._study.run_once import program_of, run_once
from mmpareto_jax.training._study.together import run_together
from mmpareto_jax.training._tasks.registry import make_task
from mmpareto_jax.training._tasks.settled import config_of

LINES = small_tasks.lines()
CONFIG = Config(batch_size=16, epochs=3)
PLAN = Comparison(CONFIG, ("uniform", "mmpareto"), (0.01, 0.2, 0.7), 2, 1)
BY_NAME = dataclasses.replace(
    PLAN, config=Config("small_tasks:lines", batch_size=16, epochs=3)
)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Real runs, side by side, of a task that was made in Python."""
    workdir = tmp_path_factory.mktemp("compared")
    return workdir, compare(LINES, PLAN, workdir, together=3)


def test_the_lowest_learning_rate_and_epoch_are_chosen(compared):
    workdir, records = compared
    chosen = PLAN.learning_rates(records)
    for method in PLAN.methods:
        tuning = {
            r["lr"]: r["validation"]["error"]
            for r in records
            if r["method"] == method and r["seed"] >= 10_000
        }
        assert len(tuning) == 3
        assert chosen[method] == min(tuning, key=tuning.get)
    plan = read_comparison(workdir)
    for config in plan.tuning()[:3]:
        (record,) = [r for r in records if name_of(r) == name_of(config)]
        task, program = program_of(config, LINES)
        errors = []
        fit(
            program,
            config,
            task,
            program.restart(config.seed, config.lr),
            on_step=lambda *_: None,
            on_pause=lambda state, x, errors=errors: errors.append(
                (x["error"], int(state.step))
            ),
        )
        error, step = min(errors)
        assert record["step"] == step
        np.testing.assert_allclose(record["validation"]["error"], error, rtol=1e-4)
        np.testing.assert_allclose(record["score"], -error, rtol=1e-4)


def test_no_joint_objective_and_no_features(compared):
    _, records = compared
    final = [r for r in records if r["seed"] < 10_000]
    assert len(final) == 4
    for record in final:
        assert record["probe"] == {}
        assert len(record["sharpness"]) == 7
        assert list(record["test"]) == ["error"]


def test_the_best_comes_first_in_the_table(compared):
    _, records = compared
    measures = LINES.measures
    lines = markdown(summarize(PLAN, records, measures), measures).splitlines()[2:]
    found = [float(line.split(" | ")[2].split(" ± ")[0]) for line in lines]
    assert len(found) == 2
    assert found == sorted(found)


def test_the_report_needs_no_task(compared, tmp_path):
    workdir, _ = compared
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["measures"] == [
        {"name": "error", "title": "error", "higher": False, "percent": False}
    ]
    assert read_measures(workdir) == (Measure("error", "error", False, False),)
    assert read_comparison(workdir).config.task == ":lines"
    page = write_report([workdir], tmp_path / "page.html").read_text()
    assert "mmpareto" in page
    assert "error" in page


def test_directories_of_before_have_no_measures(tmp_path):
    """They are those of the task, if it can be made."""
    plan = dataclasses.replace(PLAN, config=Config(train_examples=64, batch_size=16))
    values = json.dumps(dataclasses.asdict(plan))
    (tmp_path / "comparison.json").write_text(values)
    assert read_measures(tmp_path) == make_task(plan.config).measures


def test_by_name_in_other_processes(compared, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    records = compare(BY_NAME, tmp_path, workers=2)
    _, expected = compared
    expected = {name_of(r): r for r in expected}
    assert {name_of(r) for r in records} == set(expected)
    for record in records:
        for split in ("validation", "test"):
            np.testing.assert_allclose(
                record[split]["error"],
                expected[name_of(record)][split]["error"],
                rtol=1e-4,
            )
    assert read_comparison(tmp_path).config.train_examples == 64


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(studies, "COMPARED_LOSSES", ("uniform", "mmpareto"))
    flags = "--batch-size 16 --epochs 2 --lr-grid 0.1 --seeds 2 --workers 1"
    arguments = ["compare", "small_tasks:lines", *flags.split()]
    assert main([*arguments, "--workdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| mmpareto | 0.1 |" in out
    assert "error ↓" in out
    assert len(read_runs(tmp_path)) == 4
    assert main(["report", str(tmp_path)]) == 0


def test_methods_that_are_compared_by_default():
    assert studies._compared(Config("small_tasks:lines")) == studies.COMPARED_LOSSES
    assert studies._compared(Config("small_tasks:sensors")) == studies.COMPARED
    assert "single-task" not in studies.COMPARED_LOSSES
    assert "joint" not in studies.COMPARED_LOSSES


def test_a_task_without_a_name_has_no_other_processes(tmp_path):
    with pytest.raises(ValueError, match="workers: expected 1 for a task that was"):
        compare(LINES, PLAN, tmp_path, workers=2)


# --- Scores that are not finite


def tuned(scores):
    """Records of tuning runs: learning rate -> its scores."""
    return [
        {"method": "uniform", "lr": lr, "seed": 10_000 + i, "score": score}
        | {"validation": {"error": -score}}
        for lr, found in scores.items()
        for i, score in enumerate(found)
    ]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({0.1: [1.0], 0.2: [math.nan]}, 0.1),
        ({0.1: [math.nan], 0.2: [-5.0]}, 0.2),
        ({0.1: [math.inf], 0.2: [-5.0]}, 0.2),
        ({0.1: [9.0, math.nan], 0.2: [1.0, 2.0]}, 0.2),
        ({0.1: [1.0, math.nan], 0.2: [2.0, math.nan]}, 0.2),
        ({0.1: [math.nan], 0.2: [math.nan]}, 0.1),
        ({0.1: [-math.inf], 0.2: [-9.0]}, 0.2),
    ],
)
def test_a_learning_rate_that_diverges_never_wins(scores, expected):
    plan = Comparison(Config(), ("uniform",), (0.1, 0.2), seeds=2, tune_seeds=2)
    assert plan.learning_rates(tuned(scores)) == {"uniform": expected}


def test_the_order_of_the_records_does_not_matter():
    """Means of the same numbers are equal, in any order: the first one is chosen."""
    plan = Comparison(Config(), ("uniform",), (0.1, 0.2), seeds=2, tune_seeds=3)
    scores = [0.1, 0.7, 0.3]
    records = tuned({0.1: scores, 0.2: [0.7, 0.3, 0.1]})
    assert plan.learning_rates(records) == {"uniform": 0.1}
    assert plan.learning_rates(records[::-1]) == {"uniform": 0.1}


@pytest.mark.parametrize(
    ("errors", "step"),
    [
        ([0.5, math.nan, 0.4], 12),
        ([0.4, 0.5, math.nan], 4),
        ([math.nan, 0.5, 0.6], 8),
        ([math.nan, math.inf, math.nan], 12),
    ],
)
def test_an_epoch_that_is_not_finite_never_wins(errors, step, monkeypatch):
    config = dataclasses.replace(config_of(LINES, CONFIG), method="uniform")
    task, program = program_of(config, LINES)
    left = list(errors)

    def evaluate(state, source):
        known = source is task.data["validation"]
        return {"error": left.pop(0) if known else 0.0}

    def evaluate_each(states, source):
        return [{"error": left[0]}, {"error": left.pop(0)}]

    faked = program._replace(evaluate=evaluate, evaluate_each=evaluate_each)
    for module in (_run_once, _together):
        monkeypatch.setattr(module, "program_of", lambda *_: (task, faked))
    alone = run_once(config, task=LINES, inspect=False)
    left = list(errors)
    both = run_together([config] * 2, task=LINES, inspect=False)
    for record in (alone, *both):
        assert record["step"] == step
        chosen = errors[step // 4 - 1]
        finite = np.isfinite(chosen)  # JSON has nothing else
        assert record["validation"]["error"] == (chosen if finite else None)
        assert record["score"] == (-chosen if finite else None)


def test_a_method_that_diverged_is_last_in_the_table():
    plan = Comparison(Config(), ("pcgrad", "uniform", "mmpareto"), (0.1,), seeds=2)
    means = {"pcgrad": math.nan, "uniform": 2.0, "mmpareto": 1.0}
    records = [
        {"method": m, "lr": 0.1, "seed": s, "probe": {}, "groups": {}}
        | {split: {"error": x + s} for split in ("validation", "test")}
        for m, x in means.items()
        for s in (0, 1)
    ]
    for higher, expected in (
        (False, ["mmpareto", "uniform", "pcgrad"]),
        (True, ["uniform", "mmpareto", "pcgrad"]),
    ):
        measures = [Measure("error", "error", higher, percent=False)]
        lines = markdown(summarize(plan, records, measures), measures).splitlines()
        assert [line.split(" | ")[0][2:] for line in lines[2:]] == expected
