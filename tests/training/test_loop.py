"""Tests for a run as a whole: its files, stopping, resuming, evaluating."""

import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import jax
import matplotlib.image
import numpy as np
import pytest

import mmpareto_jax
from mmpareto_jax.training import (
    Callback,
    Config,
    Measure,
    draw_figures,
    evaluate,
    read_config,
    read_metrics,
    train,
)


def assert_same_state(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def files(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_workdir(run):
    names = {p.name for p in run.workdir.iterdir()}
    records = {"config.json", "result.json", "metrics.jsonl"}
    assert names == records | {"tensorboard", "checkpoints"}
    assert read_config(run.workdir) == run.config
    config = json.loads((run.workdir / "config.json").read_text())
    placed = {"device", "mesh", "shard", "processes"}
    began = {"versions", "argv", "environment", "jax", "git", "started", *placed}
    assert set(config) == {"config", "objectives", "measures", *began}
    assert config["versions"]["jax"] == jax.__version__
    assert config["argv"] == sys.argv
    assert config["jax"]["jax_numpy_dtype_promotion"] == "standard"


def test_result_json_is_the_result(run):
    found = json.loads((run.workdir / "result.json").read_text())
    assert found["scores"] == run.scores
    assert (found["step"], found["finished"]) == (run.step, True)
    assert [Measure(**m) for m in found["measures"]] == list(run.measures)
    assert {k: share for k, (_, _, share) in found["conflicts"].items()} == (
        run.conflicts
    )


def test_a_result_may_be_read_in_another_process(run, tmp_path):
    """By pickle, which imports the module of the class before any other of ours."""
    path = tmp_path / "result.pickle"
    path.write_bytes(pickle.dumps(run))
    code = """
import pathlib, pickle, sys
result = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
print(result.config, result.scores, result.state.step)
"""
    read = [sys.executable, "-W", "error", "-c", code, str(path)]
    root = pathlib.Path(mmpareto_jax.__file__).parents[1]
    out = subprocess.check_output(read, text=True, cwd=root)
    assert out.strip() == f"{run.config} {run.scores} {run.state.step}"


def test_metrics(run):
    records = read_metrics(run.workdir)
    train_steps = [r["step"] for r in records if r["split"] == "train"]
    assert train_steps == list(range(1, 8))
    assert [r["step"] for r in records if r["split"] == "validation"] == [4, 7]
    first = records[0]
    for group, names in (("joint+audio", "audio"), ("joint+visual", "visual")):
        assert -1 <= first[f"{group}/cosine"] <= 1
        assert first[f"{group}/norm/{names}"] > 0
        shares = [first[f"{group}/weight/{x}"] for x in ("joint", names)]
        assert sum(shares) == pytest.approx(1)
        assert first[f"{group}/magnitude"] >= run.config.gamma * (1 - 1e-6)
    share = np.mean(
        [
            r["joint+audio/conflict"]
            for r in records
            if "loss/joint" in r and r["split"] == "train"
        ]
    )
    assert run.conflicts["joint+audio"] == pytest.approx(share)


def test_tensorboard_has_the_same_scalars(run):
    (events,) = (run.workdir / "tensorboard").iterdir()
    content = events.read_bytes()
    for tag in ("train/joint_audio/cosine", "train/loss/joint", "validation/accuracy"):
        assert tag.encode() in content


def test_best_checkpoint_is_the_best_on_validation(run):
    scored = {
        r["step"]: r["accuracy/joint"]
        for r in read_metrics(run.workdir)
        if r["split"] == "validation"
    }
    assert scored[run.step] == max(scored.values())
    assert run.scores["validation"]["accuracy/joint"] == scored[run.step]


def test_evaluate(run):
    best, latest = evaluate(run.workdir), evaluate(run.workdir, "latest")
    assert (best.step, best.scores) == (run.step, run.scores)
    assert latest.step == 7
    assert_same_state(latest.state, run.state)


def test_figures(run, tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(
        (run.workdir / "metrics.jsonl").read_bytes() + b'{"step": 8, "spl'  # killed
    )
    paths = draw_figures(tmp_path)
    assert [p.stem for p in paths] == [
        "learning_curves",
        "cosine",
        "weights",
        "gradient_norms",
    ]
    for path in paths:
        image = matplotlib.image.imread(path)
        assert image.shape[0] > 300
        assert image[..., :3].std() > 0.02


class Interrupt(Callback):
    """Ctrl-C, once this step was given to the device."""

    def __init__(self, step):
        self.step = step

    def on_tick(self, step):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Crash(Callback):
    """Ends the process, nearly, when it hears of this step."""

    def __init__(self, step):
        self.step = step

    def on_step(self, step, metrics):
        if step == self.step:
            raise RuntimeError("power cut")


def test_interrupt_and_resume_is_bitwise_the_whole_run(run, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    stopped = train(run.config, tmp_path, callbacks=[Interrupt(3)])
    assert signal.getsignal(signal.SIGINT) is before
    assert not stopped.finished
    assert (stopped.step, stopped.checkpoint) == (3, "latest")

    resumed = train(run.config, tmp_path, resume=True)
    assert resumed.finished
    assert_same_state(resumed.state, run.state)
    assert resumed.scores == run.scores
    assert read_metrics(tmp_path) == read_metrics(run.workdir)


def test_resume_after_a_crash_repeats_the_lost_steps(run, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        train(run.config, tmp_path, callbacks=[Crash(6)])
    resumed = train(run.config, tmp_path, resume=True)
    assert_same_state(resumed.state, run.state)
    assert read_metrics(tmp_path) == read_metrics(run.workdir)


def test_resume_of_a_finished_run_changes_nothing(run):
    again = train(run.config, run.workdir, resume=True)
    assert again.finished
    assert_same_state(again.state, run.state)
    assert len(read_metrics(run.workdir)) == 9


def test_refuses_a_workdir_that_is_not_its_own(run, tmp_path):
    other = Config(train_examples=64, batch_size=16, steps=7, lr=0.03)
    before = files(run.workdir)
    with pytest.raises(ValueError, match="already holds a run"):
        train(run.config, run.workdir)
    with pytest.raises(ValueError, match=r"another config: lr 0.02 \(now 0.03\)"):
        train(other, run.workdir, resume=True)
    with pytest.raises(ValueError, match="holds no run"):
        train(run.config, tmp_path / "new", resume=True)
    with pytest.raises(ValueError, match="holds no run"):
        evaluate(tmp_path)
    with pytest.raises(ValueError, match="no metrics"):
        draw_figures(tmp_path)
    assert files(run.workdir) == before
    assert not (tmp_path / "new").exists()
    for damaged in ("{", "[1]", "{}", '{"config": [1]}', "[" * 100_000):
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"unreadable config.json"):
            read_config(tmp_path)
