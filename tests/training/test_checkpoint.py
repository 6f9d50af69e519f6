"""Tests for checkpoints: which of them stay, which is the best, whose they are."""

import contextlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_tasks import lines, sensors

from mmpareto_jax import training
from mmpareto_jax.training._run.checkpoint import Checkpoints

NAN, INF = math.nan, math.inf


def state(step):
    return {"step": jnp.asarray(step), "key": jax.random.key(step)}


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.3, 0.5, NAN], 2),
        ([0.5, NAN, 0.4], 1),
        ([NAN, 0.5, 0.4], 2),
        ([-2.0, INF, -3.0], 1),
        ([-INF, -1e35, None], 2),
        ([NAN, NAN, INF], None),
        ([None, NAN, None], None),
        ([0.5, 0.5, 0.3], 2),
        ([0.5, None, None], 1),
        ([None, None, None], None),
    ],
)
def test_the_best_has_the_highest_score_that_is_finite(tmp_path, scores, best):
    with contextlib.closing(Checkpoints(tmp_path)) as kept:
        for step, score in enumerate(scores, 1):
            kept.save(state(step), step, score)
    with contextlib.closing(Checkpoints(tmp_path)) as kept:
        assert kept.best_step() == best
        assert int(kept.restore(state(0), kept.latest_step())["step"]) == 3
        found = best and kept.restore(state(0), kept.best_step())
        assert best == (found and int(found["step"]))
        if best:
            data = jax.random.key_data(found["key"])
            np.testing.assert_array_equal(
                data, jax.random.key_data(jax.random.key(best))
            )


class Wide(nnx.Module):
    """A layer of any width."""

    def __init__(self, width, rngs):
        self.layer, self.out_features = nnx.Linear(2, width, rngs=rngs), width

    def __call__(self, x):
        return self.layer(x)


class Errors(training.Callback):
    """Step and error of each epoch."""

    def __init__(self):
        self.found = []

    def on_epoch(self, step, scores):
        self.found.append((step, scores["error"]))


def trained(workdir, least):
    """A run whose measure is NaN where it falls below `least`; its epochs."""

    def error(y, batch):
        mean = jnp.mean((y[:, 0] - batch["left"]) ** 2)
        return jnp.where(mean < least, jnp.nan, mean)

    task = training.task(
        lambda rngs: nnx.Linear(2, 2, rngs=rngs),
        {
            "left": lambda y, batch: (y[:, 0] - batch["left"]) ** 2,
            "right": lambda y, batch: (y[:, 1] - batch["right"]) ** 2,
        },
        lines().data,
        {"error": training.lower_is_better(error)},
        name="falling",
        forward=lambda model, batch: model(batch["x"]),
    )
    config = training.Config(batch_size=16, epochs=3, lr=0.01, method="uniform")
    errors = Errors()
    result = training.train(task, config, workdir, callbacks=[errors])
    return result, errors.found


def test_a_run_whose_measure_is_nan_at_its_end_keeps_the_epoch_before(tmp_path):
    _, plain = trained(tmp_path / "plain", 0.0)
    (_, first), (step, second), (_, third) = plain
    assert first > second > third
    result, errors = trained(tmp_path / "nan", (second + third) / 2)
    assert errors[:2] == plain[:2]
    assert math.isnan(errors[2][1])
    assert (result.step, result.checkpoint) == (step, "best")
    assert result.scores["validation"]["error"] == second


def test_other_parameters_are_named(tmp_path):
    stored = {"a": {"kernel": jnp.ones(2)}, "b": jnp.ones((3, 4)), "c": jnp.ones(1)}
    model = {"a": {"bias": jnp.ones(2)}, "b": jnp.ones((3, 8)), "c": jnp.ones(1, int)}
    with contextlib.closing(Checkpoints(tmp_path)) as kept:
        kept.save(stored, 3, 0.5)
        with pytest.raises(ValueError, match="checkpoint 3") as error:
            kept.restore(model, 3)
        assert str(error.value) == (
            "checkpoint 3: has other parameters than the model: missing a/bias; "
            "b is (3, 4), not (3, 8); c is float32, not int32; and 1 more"
        )
        with pytest.raises(ValueError, match=r"the model: unexpected a/kernel$"):
            kept.restore({"b": jnp.ones((3, 4)), "c": jnp.ones(1)}, 3)


def test_a_run_of_another_model_is_told_in_one_line(tmp_path):
    def wide(width):
        return training.classification(
            sensors().data,
            name="sensors",
            encoders={m: lambda rngs: Wide(width, rngs) for m in ("left", "right")},
        )

    config = training.Config(batch_size=16, epochs=1, method="uniform")
    training.train(wide(8), config, tmp_path)
    for again in (
        lambda: training.evaluate(tmp_path, task=wide(4)),
        lambda: training.train(wide(4), config, tmp_path, resume=True),
    ):
        with pytest.raises(ValueError, match="checkpoint 4: has other") as error:
            again()
        assert "params/left_encoder/layer/bias is (8,), not (4,); " in str(error.value)
        assert "\n" not in str(error.value)
