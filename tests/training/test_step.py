"""Tests for the compiled step of every method."""

import dataclasses
import re
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmpareto_jax.data import train_batches
from mmpareto_jax.training import Config
from mmpareto_jax.training._choices import MethodName
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.registry import make_task

CONFIG = Config(train_examples=64, batch_size=16, steps=3, schedule="constant")


@pytest.fixture(scope="module")
def task():
    return make_task(CONFIG)


def one_step(config, task):
    program = make_program(config, task)
    batch = next(
        train_batches(task.data["train"], batch_size=config.batch_size, seed=0)
    )
    before = jax.tree.map(np.asarray, program.state.params)
    state, metrics = program.step(program.state, batch)
    return program, before, state, metrics


def change(before, state):
    """Path -> how far a parameter moved in a first step of SGD."""
    moved = jax.tree.map(lambda a, b: np.asarray(b) - a, before, state.params)
    leaves, _ = jax.tree_util.tree_flatten_with_path(moved)
    return {jax.tree_util.keystr(path, simple=True): x for path, x in leaves}


@pytest.mark.slow
@pytest.mark.parametrize("method", get_args(MethodName))
def test_every_method_makes_a_step(method, task):
    """Traced, not compiled; the state keeps its structure and dtypes."""
    kind = "multi-digits" if method == "single-task" else CONFIG.task
    config = dataclasses.replace(CONFIG, method=method, task=kind)
    if method in ("greedy", "single-task"):  # they have a model of their own
        task = make_task(config)
    batch = next(train_batches(task.data["train"], batch_size=16, seed=0))
    if method in ("krum", "trimmed-mean"):  # they need three objectives
        with pytest.raises(ValueError, match="the number of objectives must be >= 3"):
            jax.eval_shape(*_step_of(config, task, batch))
        return
    function, state, batch = _step_of(config, task, batch)
    after, metrics = jax.eval_shape(function, state, batch)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert all(x.shape == () for x in metrics.values())


def _step_of(config, task, batch):
    program = make_program(config, task)
    return program.step, program.state, batch


@pytest.mark.parametrize("method", ["joint", "uniform", "mmpareto", "nash-mtl"])
def test_groups(method):
    config = dataclasses.replace(CONFIG, method=method)
    program = make_program(config, make_task(config))
    expected = (
        {"joint": ("joint",)}
        if method == "joint"
        else {
            "joint+audio": ("joint", "audio"),
            "joint+visual": ("joint", "visual"),
            "joint": ("joint",),
        }
    )
    heads = {"audio": ("audio",), "visual": ("visual",)}
    assert program.groups.groups == expected | heads


def test_gamma_scales_the_encoders_alone(task):
    configs = [
        dataclasses.replace(CONFIG, method=m, weight_decay=0.0, gamma=2.0)
        for m in ("uniform", "uniform-gamma")
    ]
    plain, control = (change(*one_step(c, task)[1:3]) for c in configs)
    for path, moved in plain.items():
        factor = 2.0 if "encoder" in path else 1.0
        np.testing.assert_allclose(control[path], factor * moved, rtol=1e-4, atol=1e-6)


def test_step_compiles_once_and_moves_nothing_off_the_device(task):
    program, _, state, _ = one_step(CONFIG, task)
    batches = train_batches(task.data["train"], batch_size=16, seed=1)
    batches = [jax.device_put(next(batches)) for _ in range(2)]
    with jax.transfer_guard("disallow"):
        for batch in batches:
            state, metrics = program.step(state, batch)
    assert program.step._cache_size() <= 2  # host and device batches
    assert int(state.step) == 3
    text = program.step.lower(state, batches[0]).compile().as_text()
    assert "callback" not in text
    assert jnp.isfinite(metrics["loss/joint"])


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters(task):
    config = dataclasses.replace(CONFIG, precision="bf16")
    program, _, state, metrics = one_step(config, make_task(config))
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    _, _, _, exact = one_step(CONFIG, task)
    assert metrics["loss/joint"] == pytest.approx(float(exact["loss/joint"]), rel=0.05)
    assert metrics["loss/joint"] != exact["loss/joint"]
    batch = {k: x[:16] for k, x in task.data["train"].items()}
    assert "bf16" in program.step.lower(state, batch).as_text()


def test_evaluation_counts_every_example_once(task):
    program = make_program(CONFIG, task)
    arrays = {k: x[:250] for k, x in task.data["validation"].items()}
    whole = program.evaluate(program.state, arrays)
    parts = [
        (len(part["label"]), program.evaluate(program.state, part))
        for part in (
            {k: x[:100] for k, x in arrays.items()},
            {k: x[100:] for k, x in arrays.items()},
        )
    ]
    for name, value in whole.items():
        expected = sum(n * scores[name] for n, scores in parts) / 250
        assert value == pytest.approx(expected, rel=1e-5)


def test_training_learns(task):
    config = dataclasses.replace(CONFIG, steps=40)
    program = make_program(config, task)
    state, losses = program.state, []
    batches = train_batches(task.data["train"], batch_size=16, seed=0)
    for _ in range(config.num_steps):
        state, metrics = program.step(state, next(batches))
        losses.append(float(metrics["loss/joint"]))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_plain_is_the_uniform_sum(task):
    """The same parameters after a step, from one ordinary gradient."""
    config = dataclasses.replace(CONFIG, method="uniform")
    batch = next(train_batches(task.data["train"], batch_size=16, seed=0))
    states = []
    for plain in (True, False):
        program = make_program(config, task, plain=plain)
        states.append(program.step(program.state, batch)[0])
    for a, b in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_restart_is_a_fresh_run_without_compilation(task):
    """Another seed and learning rate: as if the program had been made for them."""
    program = make_program(CONFIG, task)
    config = dataclasses.replace(CONFIG, seed=7, lr=0.3)
    other = make_program(config, task)
    batch = next(train_batches(task.data["train"], batch_size=16, seed=0))
    program.step(program.restart(0, 0.1), batch)
    state, _ = program.step(program.restart(7, 0.3), batch)
    expected, _ = other.step(other.state, batch)
    # Nor for the steps after the first one.
    program.step(jax.tree.map(jnp.copy, state), batch)
    assert program.step._cache_size() == 1
    for a, b in zip(
        *map(jax.tree.leaves, (state.params, expected.params)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_runs_draw_their_own_numbers(task):
    """A rule that draws: by the run's seed, though the program is one."""
    config = dataclasses.replace(CONFIG, method="rlw")
    program = make_program(config, task)
    keys = [
        np.asarray(optax.tree.get(program.restart(seed, 0.1).opt_state, "key_data"))
        for seed in (0, 1, 0)
    ]
    assert np.any(keys[0] != keys[1])
    np.testing.assert_array_equal(keys[0], keys[2])
    first = optax.tree.get(program.state.opt_state, "key_data")
    np.testing.assert_array_equal(keys[0], first)


def test_the_highest_precision_is_that_of_every_product(task):
    """Forward and backward; on a CPU the numbers are the same."""
    config = dataclasses.replace(CONFIG, precision="highest")
    programs = [make_program(c, task) for c in (CONFIG, config)]
    batch = {k: x[:16] for k, x in task.data["train"].items()}
    plain, highest = (p.step.lower(p.state, batch).as_text() for p in programs)
    products = re.findall(r"(?:dot_general|convolution).*", highest)
    assert len(products) > 20
    assert all("HIGHEST" in x for x in products)
    assert not all("HIGHEST" in x for x in re.findall(r"convolution.*", plain))
