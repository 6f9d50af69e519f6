"""Wrong calls of the Python API: one line that names what is wrong, and no internals.

Those that are refused before anything is compiled; of the command line see
test_bad_input.py.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax  # noqa: F401
import pytest
from flax import nnx

import mmpareto_jax as mmp  # noqa: F401
from mmpareto_jax import data, models, training  # noqa: F401
from mmpareto_jax import weightings as W  # noqa: F401
from mmpareto_jax.training import Comparison, Config  # noqa: F401
from mmpareto_jax.training._tasks.architecture import HEADS, INTERACTIONS

P = {"w": jnp.ones(2), "head": jnp.ones(2)}
G = {"w": jnp.ones((2, 2)), "head": jnp.ones((2, 2))}
SPLITS = ("train", "validation", "test")
X = {s: {"x": np.ones((4, 3), np.float32), "label": np.arange(4) % 2} for s in SPLITS}


def losses(p):
    return {"a": jnp.sum(p["w"]), "b": jnp.sum(p["head"])}


def vector(p):
    return {"a": p["w"], "b": jnp.sum(p["head"])}


def integer(p):
    return {"a": 1, "b": jnp.sum(p["head"])}


def one(p):
    return jnp.sum(p["w"])


def nothing(p):
    return {}


def none(p):
    return None


def text(p):
    return "loss"


def pair(p):
    return jnp.sum(p["w"]), jnp.sum(p["head"])


def update(tx, g, **more):
    return tx.update(g, tx.init(P), P, **more)


# A call, and the beginning of what it says: a line each.
LINES = pathlib.Path(__file__).with_name("bad_calls.txt").read_text().splitlines()
CALLS = [line.split("  ->  ") for line in LINES]
NAMES = {
    **globals(),
    "rngs": nnx.Rngs(0),
}


@pytest.mark.parametrize(("call", "said"), CALLS, ids=[call for call, _ in CALLS])
def test_a_wrong_call_says_what_is_wrong(call, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError)) as caught:
        eval(call, NAMES)
    message = f"{caught.type.__name__}: {caught.value}"
    assert message.startswith(said)
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


SHAPES = {1: (8,), 2: (12, 3), 3: (8, 8, 1), 4: (2, 8, 8, 1)}
# The fusions that two modalities of such a shape cannot have.
REFUSED = {
    (1, "bottleneck"): "BottleneckTokens: ",
    (2, "bottleneck"): "BottleneckTokens: ",
    (3, "bottleneck"): "BottleneckTokens: ",
    (4, "bottleneck"): "BottleneckTokens: ",
}


@pytest.mark.parametrize("fusion", [*HEADS, *INTERACTIONS])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_fusion_that_cannot_be_says_so(fusion, number):
    for axes, shape in SHAPES.items():
        x = np.ones((4, *shape), np.float32)
        arrays = {f"m{i}": x for i in range(number)} | {"label": np.arange(4) % 2}
        task = training.classification(
            dict.fromkeys(SPLITS, arrays), fusion=fusion, width=8
        )
        batch = jax.eval_shape(dict, arrays)

        def logits(batch, task=task):
            return task.outputs(task.make_model(nnx.Rngs(0)), batch).logits

        said = REFUSED.get((axes, fusion))
        if number == 1 and fusion in ("film", "gated"):
            said = f"{HEADS[fusion].__name__}: in_features must name at least two"
        if said is None:
            assert len(nnx.eval_shape(logits, batch)) == number + 1
        else:
            with pytest.raises(ValueError, match=said):
                nnx.eval_shape(logits, batch)
