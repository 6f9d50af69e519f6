"""Tasks of a user's own that train in no time, named as ``small_tasks:lines``."""

import numpy as np
from flax import nnx

from mmpareto_jax import training

_RNG = np.random.default_rng(0)
_SIZES = {"train": 64, "validation": 24, "test": 24}


def _arrays(size):
    x = _RNG.normal(size=(size, 2)).astype(np.float32)
    return {"x": x, "left": x.sum(1), "right": x[:, 0] - 2 * x[:, 1]}


_DATA = {split: _arrays(size) for split, size in _SIZES.items()}


class Encoder(nnx.Module):
    """A layer whose run has state beside its parameters: statistics, and keys."""

    out_features = 8

    def __init__(self, rngs):
        self.layer = nnx.Linear(2, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.dropout(nnx.relu(self.norm(self.layer(x))))


def lines(seen=lambda y: y):
    """Two losses, no joint one, no features; what is measured is an error."""
    return training.task(
        lambda rngs: nnx.Linear(2, 2, rngs=rngs),
        {
            "left": lambda y, batch: (y[:, 0] - batch["left"]) ** 2,
            "right": lambda y, batch: (y[:, 1] - batch["right"]) ** 2,
        },
        _DATA,
        {"error": training.lower_is_better(lambda y, b: abs(y[:, 0] - b["left"]))},
        name="lines",
        forward=lambda model, batch: seen(model(batch["x"])),
    )


def unscored():
    """`lines`, and a measure that is a number for no example."""
    wrong = training.lower_is_better(lambda y, b: abs(y[:, 0]) * float("nan"))
    return training.task(
        lambda rngs: nnx.Linear(2, 2, rngs=rngs),
        {"left": lambda y, batch: (y[:, 0] - batch["left"]) ** 2},
        _DATA,
        {"error": wrong},
        name="unscored",
        forward=lambda model, batch: model(batch["x"]),
    )


def sensors():
    """Two modalities of one label."""
    data = {
        split: {
            "left": arrays["x"],
            "right": np.stack([arrays["left"], arrays["right"]], 1),
            "label": (arrays["left"] > 0).astype(np.int32),
        }
        for split, arrays in _DATA.items()
    }
    return training.classification(
        data,
        name="sensors",
        encoders={"left": Encoder, "right": Encoder},
    )
