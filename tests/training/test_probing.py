"""A run that is probed: the same run, and what the probes have seen in its files."""

import dataclasses

import jax
import numpy as np
import pytest
from test_loop import Crash, assert_same_state

import mmpareto_jax as mmp
from mmpareto_jax.data import train_batches
from mmpareto_jax.training import (
    Config,
    draw_figures,
    read_metrics,
    train,
    write_report,
)
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.registry import make_task

CONFIG = Config(train_examples=64, batch_size=16, steps=3, width=8, probe_every=2)
ENCODERS = ["joint+audio", "joint+visual"]


def probes(workdir):
    return [r for r in read_metrics(workdir) if r["split"] == "probe"]


@pytest.fixture(scope="module")
def probed(run, tmp_path_factory):
    """The run of the other tests, probed."""
    config = dataclasses.replace(run.config, probe_every=2)
    return train(config, tmp_path_factory.mktemp("probed") / "run")


def test_the_run_is_bitwise_the_same(run, probed):
    assert_same_state(probed.state, run.state)
    assert probed.scores == run.scores
    others = [r for r in read_metrics(probed.workdir) if r["split"] != "probe"]
    assert others == read_metrics(run.workdir)


def test_what_is_written(run, probed):
    found = probes(probed.workdir)
    assert [r["step"] for r in found] == [2, 4, 6]
    steps = {r["step"]: r for r in read_metrics(run.workdir) if r["split"] == "train"}
    for record in found:
        step = steps[record["step"]]
        for group in ENCODERS:  # what the rule itself has seen
            for name in group.split("+"):
                assert record[f"{group}/norm/{name}"] == pytest.approx(
                    step[f"{group}/norm/{name}"], rel=1e-4
                )
            assert record[f"{group}/cosine"] == pytest.approx(
                step[f"{group}/cosine"], abs=1e-4
            )
        assert -1 <= record["update_descent/joint"] <= 1
    (events,) = (probed.workdir / "tensorboard").iterdir()
    for tag in ("probe/joint_audio/alignment", "probe/sum_descent/visual"):
        assert tag.encode() in events.read_bytes()


@pytest.mark.slow
def test_a_resumed_run_has_the_same_probes(probed, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        train(probed.config, tmp_path, callbacks=[Crash(6)])
    resumed = train(probed.config, tmp_path, resume=True)
    assert_same_state(resumed.state, probed.state)
    assert read_metrics(tmp_path) == read_metrics(probed.workdir)


def test_the_report_has_the_sentence_and_the_figure(probed, tmp_path):
    text = write_report([probed.workdir], tmp_path / "page.html").read_text()
    sentence = mmp.summarize(probes(probed.workdir))
    assert sentence.startswith("In 3 probes the sum raises ")
    assert f"<p>{sentence}</p>" in text
    assert text.count("<figcaption>What the probes have seen") == 1
    assert [p.stem for p in draw_figures(probed.workdir)][-1] == "probe"


def first_probe(config, task=None):
    task = task or make_task(config)
    program = make_program(config, task)
    batch = next(train_batches(task.data["train"], batch_size=16, seed=0))
    before = jax.tree.map(np.asarray, program.state.params)
    found = program.probe(program.state, batch)
    after, _ = program.step(program.state, batch)
    moved = jax.tree.map(lambda a, b: np.asarray(b) - a, before, after.params)
    return found, moved


@pytest.mark.parametrize("method", ["joint", "uniform", "ogm"])
def test_the_objectives_are_the_tasks_whatever_the_method(method):
    """Also where unimodal heads only watch; the update is the method's own."""
    found, moved = first_probe(dataclasses.replace(CONFIG, method=method))
    assert list(found.groups)[:2] == ENCODERS
    square = sum(np.sum(np.square(x)) for x in jax.tree.leaves(moved))
    np.testing.assert_allclose(found.whole.update_norm, np.sqrt(square), rtol=1e-4)
    both = found.groups["joint+audio"]
    if method == "uniform":  # a first step of SGD
        np.testing.assert_allclose(both.update_descent, both.sum_descent, atol=1e-3)
    if method == "joint":  # against the joint gradient alone
        np.testing.assert_allclose(both.update_descent[0], 1, atol=1e-3)
        np.testing.assert_allclose(
            both.update_descent[1], both.cosines[0, 1], atol=1e-3
        )


def test_gradients_at_the_features_are_probed_at_the_parameters():
    config = dataclasses.replace(
        CONFIG, task="multi-digits", method="mgda", gradients="features"
    )
    found, _ = first_probe(config)
    assert list(found.groups) == ["left+right", "left", "right"]
    assert found.groups["left+right"].update_norm > 0


def test_what_is_not_finite_before_the_features_is_theirs():
    config = dataclasses.replace(
        CONFIG, task="multi-digits", method="mgda", gradients="features"
    )
    task = make_task(config)
    program = make_program(config, task)
    batch = dict(next(train_batches(task.data["train"], batch_size=16, seed=0)))
    batch["image"] = np.full_like(batch["image"], np.nan)
    before = jax.tree.map(np.asarray, program.state.params)
    after, metrics = program.step(program.state, batch)
    assert metrics["nonfinite"]
    assert metrics[f"{program.groups.group_of('features')}/nonfinite"]
    jax.tree.map(np.testing.assert_array_equal, before, after.params)


def test_nothing_is_probed_unless_asked(run):
    assert run.config.probe_every == 0
    assert not probes(run.workdir)
