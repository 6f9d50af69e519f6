"""Comparisons: tuned alike, resumable, and summarised rightly."""

import dataclasses
import json

import matplotlib.image
import numpy as np
import pytest
from scipy import stats

from mmpareto_jax.cli import main
from mmpareto_jax.training import (
    Comparison,
    Config,
    Measure,
    compare,
    csv_text,
    markdown,
    paired,
    read_comparison,
    read_runs,
    summarize,
)
from mmpareto_jax.training._study import runs as _runs
from mmpareto_jax.training._study import together as _together
from mmpareto_jax.training._study.summary import legend
from mmpareto_jax.training._study.together import Measured

CONFIG = Config(train_examples=64, batch_size=16, steps=4)
PLAN = Comparison(
    CONFIG,
    ("uniform", "uniform-gamma", "mmpareto"),
    (0.1, 0.2),
    seeds=3,
    tune_seeds=2,
)
MEASURES = (
    Measure("accuracy/joint", "multimodal"),
    Measure("accuracy/audio", "audio"),
)


def fake(config, task=None, inspect=True):
    """Final runs would prefer lr 0.1 and tuning runs prefer 0.2 for mmpareto alone."""
    tuning = config.seed >= 10_000
    good = 0.2 if (config.method == "mmpareto") == tuning else 0.1
    bonus = {"uniform": 0.0, "uniform-gamma": 0.02, "mmpareto": 0.05}[config.method]
    score = 0.5 + bonus + 0.1 * (config.lr == good) + 0.001 * (config.seed % 7)
    scores = {"accuracy/joint": score, "accuracy/audio": score / 2}
    group = {"conflict": bonus, "cosines": [1] * 40, "magnitude": [1.0] * 5}
    group |= {"norms": {"joint": [1.0, 2.0], "audio": [2.0, 1.0]}}
    return {
        "method": config.method,
        "lr": config.lr,
        "seed": config.seed,
        "step": 4,
        "validation": scores,
        "test": {k: x - 0.1 for k, x in scores.items()},
        "probe": {"audio": score / 4},
        "groups": {"encoder": group},
        "sharpness": [1.0] * 7,
    }


@pytest.fixture
def faked(monkeypatch):
    calls = []

    def run(config, task=None, inspect=True):
        calls.append(config)
        assert inspect == (config.seed < 10_000)  # tuning runs need only their score
        return fake(config)

    monkeypatch.setattr(_together, "run_once", run)
    monkeypatch.setattr(_runs, "measure", lambda *_, **__: Measured(1, None))
    return calls


def test_the_budget_is_the_same_for_every_method(faked, tmp_path):
    records = compare(PLAN, tmp_path)
    for method in PLAN.methods:
        own = [c for c in faked if c.method == method]
        tuning = [(c.lr, c.seed) for c in own if c.seed >= 10_000]
        assert tuning == [(lr, s) for lr in (0.1, 0.2) for s in (10_000, 10_001)]
        final = [c for c in own if c.seed < 10_000]
        assert [c.seed for c in final] == [0, 1, 2]
        assert {c.lr for c in final} == {0.2 if method == "mmpareto" else 0.1}
        for config in own:
            same = {"method": config.method, "lr": config.lr, "seed": config.seed}
            assert dataclasses.replace(CONFIG, **same) == config
    assert len(records) == 3 * (2 * 2 + 3)


def test_a_methods_spelling_does_not_matter(faked, tmp_path):
    python = dataclasses.replace(PLAN, methods=("uniform", "uniform_gamma", "mmpareto"))
    assert python == PLAN
    records = compare(python, tmp_path)
    assert {r["method"] for r in records} == set(PLAN.methods)
    with pytest.raises(ValueError, match="methods: expected different values"):
        dataclasses.replace(PLAN, methods=("nash-mtl", "nash_mtl"))


def test_only_what_is_missing_is_run(faked, tmp_path):
    whole = compare(PLAN, tmp_path)
    lines = (tmp_path / "runs.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "runs.jsonl").write_text("".join(lines[:8]) + lines[8][:20])
    faked.clear()
    again = compare(PLAN, tmp_path)
    assert len(faked) == len(whole) - 8

    def order(records):
        return sorted(json.dumps(r, sort_keys=True) for r in records)

    assert order(again) == order(whole) == order(read_runs(tmp_path))
    faked.clear()
    compare(PLAN, tmp_path)
    assert not faked


def test_another_comparison_is_refused(faked, tmp_path):
    compare(PLAN, tmp_path)
    assert read_comparison(tmp_path) == PLAN
    with pytest.raises(ValueError, match=r"another comparison: .* \(now "):
        compare(dataclasses.replace(PLAN, seeds=4), tmp_path)


def test_summary(faked, tmp_path):
    rows = {r.method: r for r in summarize(PLAN, compare(PLAN, tmp_path), MEASURES)}
    ours, control = rows["mmpareto"], rows["uniform-gamma"]
    np.testing.assert_allclose(ours.scores["accuracy/joint"], [45.0, 45.1, 45.2])
    np.testing.assert_allclose(control.scores["accuracy/joint"], [42.0, 42.1, 42.2])
    assert (ours.lr, control.lr) == (0.2, 0.1)
    np.testing.assert_allclose(ours.conflict["encoder"], 0.05)
    assert set(ours.differences) == {"uniform", "uniform-gamma"}
    assert set(control.differences) == {"uniform"}
    np.testing.assert_allclose(ours.differences["uniform"].mean, 5.0)


def test_table_and_csv(faked, tmp_path):
    records = compare(PLAN, tmp_path)
    lines = markdown(summarize(PLAN, records, MEASURES), MEASURES).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| mmpareto",
        "| uniform-gamma",
        "| uniform",
    ]
    assert "45.1 ± 0.1" in lines[2]
    assert lines[0].split(" | ")[2:5] == [
        "multimodal ↑",
        "audio ↑",
        "audio, probe ↑",
    ]
    assert lines[2].split(" | ")[4] == "13.8 ± 0.0"
    table = csv_text(records).splitlines()
    assert len(table) == 1 + len(records)
    assert table[0].startswith("method,lr,seed,step,validation_accuracy/joint")


def test_a_method_with_missing_runs_has_no_row(faked, tmp_path):
    records = compare(PLAN, tmp_path)
    lost = [r for r in records if (r["method"], r["seed"]) != ("uniform", 1)]
    assert [r.method for r in summarize(PLAN, lost, MEASURES)] == [
        "uniform-gamma",
        "mmpareto",
    ]


def test_paired_differences():
    rng = np.random.default_rng(0)
    a, b = rng.normal(80, 3, size=(2, 10))
    found = paired(a, b)
    expected = stats.ttest_rel(a, b)
    low, high = expected.confidence_interval(0.95)
    np.testing.assert_allclose(
        [found.mean, found.low, found.high, found.p],
        [(a - b).mean(), low, high, expected.pvalue],
    )
    assert paired(a, a).p == 1.0
    assert paired(a + 1, a).p < 0.001


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"methods": ()}, "methods: expected different values"),
        ({"methods": ("uniform", "uniform")}, "methods: expected different values"),
        ({"methods": ("best",)}, "method: expected one of"),
        ({"lr_grid": ()}, "lr_grid: expected different values"),
        ({"lr_grid": (-1.0,)}, "lr: expected a finite number > 0"),
        ({"seeds": 1}, "seeds: expected 2 to 10000"),
        ({"tune_seeds": 0}, "tune_seeds: expected 1 to 10000"),
    ],
)
def test_mistakes(change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(PLAN, **change)


def test_one_learning_rate_needs_no_tuning(faked, tmp_path):
    compare(dataclasses.replace(PLAN, lr_grid=(0.3,)), tmp_path)
    assert {(c.lr, c.seed) for c in faked} == {(0.3, s) for s in (0, 1, 2)}


def test_the_command(tmp_path, capsys):
    """Real runs, in this process: the last epoch's scores, figures and the table."""
    arguments = (
        "compare --methods uniform,mmpareto --lr-grid 0.05 --seeds 2 --workers 1"
    )
    arguments += " --train-examples 64 --batch-size 16 --steps 6"
    assert main([*arguments.split(), "--workdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "| mmpareto | 0.05 |" in out
    assert "time of a step" in out
    times = json.loads((tmp_path / "step_times.json").read_text())
    assert set(times) == {"uniform", "mmpareto"}
    assert min(times.values()) > 0
    assert (tmp_path / "table.md").read_text() in out + "\n"
    records = read_runs(tmp_path)
    assert len(records) == 4
    for record in records:
        assert list(record["test"]) == [
            "accuracy/joint",
            "accuracy/audio",
            "accuracy/visual",
        ]
        assert set(record["probe"]) == {"audio", "visual"}
        audio = record["groups"]["audio_encoder"]
        assert sum(audio["cosines"]) == 6
        assert len(audio["norms"]["joint"]) == 2
        assert record["sharpness"][3] < min(record["sharpness"][0::6])
    magnitude = {
        r["method"]: r["groups"]["audio_encoder"]["magnitude"] for r in records
    }
    assert magnitude["uniform"] == [1.0] * 5
    assert magnitude["mmpareto"][0] >= 1.5 - 1e-6
    paths = sorted((tmp_path / "figures").iterdir())
    assert [p.stem for p in paths] == [
        "cosines",
        "magnitude",
        "norms",
        "scores",
        "sharpness",
    ]
    for path in paths:
        assert matplotlib.image.imread(path)[..., :3].std() > 0.02
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<figcaption>") == len(paths)
    assert records[0]["device"] in page


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        ("--methods best", "unknown method best; mmpareto methods lists them"),
        ("--lr-grid fast", "argument --lr-grid: invalid list of float value"),
        ("--workers 0", "--workers: expected 1 to"),
        ("--seeds 1", "seeds: expected 2 to 10000"),
    ],
)
def test_bad_flags(flags, match, tmp_path, capsys):
    arguments = ["compare", "--workdir", str(tmp_path / "new"), *flags.split()]
    assert main(arguments) == 2
    assert match in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


# --- Several tasks


TASK_MEASURES = (
    Measure("score/mean", "score", percent=False),
    Measure("accuracy/digit", "digit"),
    Measure("error/depth", "error", higher=False, percent=False),
    Measure("share/depth", "share"),
)


def task_record(method, seed, digit, error, share):
    found = {"score/mean": digit, "accuracy/digit": digit}
    found |= {"error/depth": error, "share/depth": share}
    record = {"method": method, "lr": 0.1, "seed": seed, "step": 1}
    record |= {"validation": found, "test": found, "probe": {}}
    return record | {"groups": {"sharing": {"conflict": 0.5}}}


def test_relative_improvement_and_ranks_by_hand():
    plan = Comparison(
        Config(task="digit-tasks", train_examples=64),
        ("single-task", "uniform", "mmpareto"),
        (0.1,),
        seeds=2,
    )
    records = [
        task_record("single-task", 0, 0.7, 2.0, 0.40),
        task_record("single-task", 1, 0.9, 2.0, 0.60),
        task_record("uniform", 0, 0.8, 1.0, 0.50),
        task_record("uniform", 1, 0.8, 1.0, 0.50),
        task_record("mmpareto", 0, 0.4, 3.0, 0.50),
        task_record("mmpareto", 1, 0.6, 3.0, 0.75),
    ]
    single, uniform, ours = summarize(plan, records, TASK_MEASURES)
    assert single.improvement is None
    # The two measures of depth count as one task; less error is more.
    np.testing.assert_allclose(uniform.improvement, [(0 + (50 + 0) / 2) / 2] * 2)
    np.testing.assert_allclose(
        ours.improvement, [(-50 + (-50 + 0) / 2) / 2, (-25 + (-50 + 50) / 2) / 2]
    )
    # By accuracy 1.5, 1.5, 3; by error 2, 1, 3; by share 2.5, 2.5, 1.
    ranks = [single.rank, uniform.rank, ours.rank]
    np.testing.assert_allclose(ranks, [6 / 3, 5 / 3, 7 / 3])
    table = markdown([single, uniform, ours], TASK_MEASURES).splitlines()
    assert table[0].split(" | ")[2:8] == [
        "score ↑",
        "digit ↑",
        "error ↓",
        "share ↑",
        "Δp % ↑",
        "mean rank ↓",
    ]
    cells = next(line for line in table if "mmpareto" in line).split(" | ")
    assert cells[4:8] == ["3.000 ± 0.000", "62.5 ± 17.7", "-25.0 ± 17.7", "2.3"]


def test_the_best_method_is_first_whatever_is_better():
    plan = Comparison(Config(), ("uniform", "mmpareto", "pareto"), (0.1,), seeds=2)
    values = {"uniform": 0.5, "mmpareto": 0.2, "pareto": 0.9}
    records = [
        {"method": method, "lr": 0.1, "seed": seed, "probe": {}, "groups": {}}
        | {key: {"error/x": value + 0.01 * seed} for key in ("validation", "test")}
        for method, value in values.items()
        for seed in (0, 1)
    ]
    for higher, order in ((False, ("mmpareto", "uniform")), (True, ("pareto", "unif"))):
        measures = [Measure("error/x", "x", higher=higher, percent=False)]
        table = markdown(summarize(plan, records, measures), measures).splitlines()
        for line, name in zip(table[2:], order, strict=False):
            assert line.startswith(f"| {name}")


def test_the_sentence_about_scores():
    share, error = Measure("a/x", "x"), Measure("b/x", "x", False, False)
    assert legend([share]) == "↑ more is better; shares are in %."
    assert legend([error]) == "↓ less is better."
    score = Measure("score/mean", "score", percent=False)
    assert legend([score, share, error]) == (
        "↑ more is better; ↓ less is better; shares are in %; the score is 100 times "
        "the mean logarithm of the tasks' measures, so that 1 more is 1 % better."
    )


def test_no_improvement_without_single_task_models():
    plan = Comparison(Config(task="digit-tasks"), ("uniform", "pareto"), (0.1,), 2)
    records = [
        task_record(m, s, 0.5 + 0.1 * s, 1.0, 0.5) for m in plan.methods for s in (0, 1)
    ]
    rows = summarize(plan, records, TASK_MEASURES)
    assert [row.improvement for row in rows] == [None, None]
    assert [row.rank for row in rows] == [1.5, 1.5]
