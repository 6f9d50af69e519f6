"""Runs whose weights are found now and then, and smoothed."""

import jax
import numpy as np
import optax
import pytest
from training.test_methods import SMALL, run

from mmpareto_jax.training import Config, read_metrics, train
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._study.run_once import run_once
from mmpareto_jax.training._tasks.registry import make_task


def test_weights_are_found_at_every_fifth_step():
    """48 examples in batches of 16, three epochs: steps 0 and 5 of nine."""
    _, _, kept, metrics = run("nash-mtl", refresh=5, smooth=0.5)
    assert int(optax.tree.get(kept[-1].opt_state, "age")) == 4
    assert int(optax.tree.get(kept[-1].opt_state, "steps")) == 9
    # As often has the running mean moved on.
    combination = kept[-1].opt_state[0]
    assert {int(x.step) for x in combination.rule.weighting.values()} == {2}
    for name in ("weight/audio", "cosine", "conflict", "norm/joint"):
        seen = np.array([m[f"joint+audio/{name}"] for m in metrics], float)
        np.testing.assert_array_equal(np.flatnonzero(np.isfinite(seen)), [0, 5])


def test_it_survives_a_stop():
    _, _, kept, _ = run("nash-mtl", refresh=4, smooth=0.9)
    _, _, again, _ = run("nash-mtl", start=kept[-2], refresh=4, smooth=0.9)
    jax.tree.map(np.testing.assert_array_equal, kept[-1], again[-1])


def test_what_is_told_of_a_run(tmp_path):
    """Of the steps that found weights: one of six."""
    result = train(Config(refresh=6, **(SMALL | {"epochs": 2})), tmp_path)
    found = [
        r["joint+audio/cosine"] for r in read_metrics(tmp_path) if r["split"] == "train"
    ]
    assert [x is None for x in found] == [False] + [True] * 5
    assert result.conflicts["joint+audio"] == float(found[0] < 0)
    record = run_once(Config(refresh=6, **(SMALL | {"epochs": 2})), inspect=False)
    for group in record["groups"].values():
        assert np.isfinite(group["conflict"])
        assert sum(group["cosines"]) == 6
        assert all(np.isfinite(x).all() for x in group["norms"].values())


@pytest.mark.parametrize("method", ["joint", "dwa", "ogm"])
def test_methods_that_find_weights_at_every_step(method):
    """Nothing of theirs is kept between."""
    _, _, kept, _ = run(method, steps=3)
    _, _, again, _ = run(method, steps=3, refresh=5)
    for a, b in zip(
        jax.tree.leaves(kept[-1].params),
        jax.tree.leaves(again[-1].params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"refresh: expected 1 to .*, got 0"):
        Config(refresh=0)
    with pytest.raises(ValueError, match=r"smooth: expected 0 <= decay < 1, got 1\.0"):
        Config(smooth=1.0)
    with pytest.raises(ValueError, match="smooth: expected none with variant official"):
        Config(smooth=0.5, variant="official")
    with pytest.raises(ValueError, match="refresh: expected 1 with gradients features"):
        Config("multi-digits", refresh=2, gradients="features")
    config = Config(method="graddrop", refresh=5, **SMALL)
    with pytest.raises(ValueError, match="refresh: expected 1 for graddrop, which"):
        make_program(config, make_task(config))
    config = Config(method="dwa", smooth=0.5, **SMALL)
    with pytest.raises(ValueError, match="smooth: expected none for dwa, which"):
        make_program(config, make_task(config))
