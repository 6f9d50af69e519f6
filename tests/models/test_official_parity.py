"""Three training steps of the official network against numbers recorded from it.

The recording is described in tests/golden's documentation: the official PyTorch loop
with two ResNet-18, in float64. Initial values and data come from seeds by name.
"""

import math
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax.models import AVClassifier, load_torch, to_torch

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parents[1] / "golden" / "official_resnet_shared.npz"
STEPS, BATCH, FRAMES = 3, 8, 2
AUDIO, VISUAL = (64, 48), (48, 48)


def initial_value(name, shape):
    r = np.random.default_rng(zlib.crc32(name.encode()))
    if name.startswith("head"):
        bound = 1 / math.sqrt(1024 if name.startswith("head.") else 512)
        return r.uniform(-bound, bound, size=shape)
    if len(shape) == 4:
        fan_out = shape[0] * shape[2] * shape[3]
        return r.normal(size=shape) * math.sqrt(2 / fan_out)
    if name.endswith(".weight"):
        return 1 + 0.02 * r.normal(size=shape)
    return np.full(shape, float(name.endswith("running_var")))


def batches():
    r = np.random.default_rng(0)
    for _ in range(STEPS):
        audio = r.normal(size=(BATCH, 1, *AUDIO)).astype(np.float32)
        visual = r.normal(size=(BATCH, FRAMES, 3, *VISUAL)).astype(np.float32)
        yield (
            jnp.asarray(np.moveaxis(audio, 1, -1), jnp.float64),
            jnp.asarray(np.moveaxis(visual, 2, -1), jnp.float64),
            jnp.asarray(r.integers(0, 6, BATCH)),
        )


def positions(name):
    """How many values a BatchNorm of torch name `name` averages over."""
    audio = name.startswith("audio_net")
    # Stride of the layer's output to the input: 2 after conv1, 4 after the max-pool
    # and in layer1, then doubled in each stage.
    layer = name.split(".")[1]
    stride = 2 ** (int(layer[-1]) + 1) if layer.startswith("layer") else 2
    height, width = AUDIO if audio else VISUAL
    images = BATCH if audio else BATCH * FRAMES
    return images * math.ceil(height / stride) * math.ceil(width / stride)


def as_torch_convention(name, value):
    """Running variance from flax's biased convention to torch's unbiased one.

    Both are 0.9^s + sum of 0.1 * 0.9^(s-i) * variance_i over the steps, and n is the
    same in each of them, so the conversion is exact.
    """
    if not name.endswith("running_var"):
        return value
    n = positions(name)
    start = 0.9**STEPS
    return start + (value - start) * n / (n - 1)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def trained(golden):
    """Losses [3, 3], cosines [3, 2], final arrays, number of traces of the step."""
    with jax.enable_x64(True):
        model = AVClassifier(6, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        shapes = {name: value.shape for name, value in to_torch(model).items()}
        load_torch(model, {n: initial_value(n, shape) for n, shape in shapes.items()})
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def losses_fn(params, rest, batch):
            audio, visual, labels = batch
            merged = nnx.merge(graphdef, params, rest, copy=True)
            losses = {
                name: optax.softmax_cross_entropy_with_integer_labels(z, labels).mean()
                for name, z in merged(audio, visual).items()
            }
            return losses, nnx.state(merged, nnx.Not(nnx.Param))

        data = list(batches())
        groups = mmp.objective_groups(losses_fn, params, rest, data[0], has_aux=True)
        tx = optax.chain(
            mmp.mmpareto(groups, gamma=1.5, variant="official"),
            optax.add_decayed_weights(1e-4),
            optax.sgd(2e-3, momentum=0.9),
        )

        traces = []

        @jax.jit
        def step(params, rest, opt_state, batch):
            traces.append(1)
            (losses, rest), grads = mmp.value_and_objective_grads(
                losses_fn, groups, has_aux=True
            )(params, rest, batch)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), rest, opt_state, losses

        opt_state = tx.init(params)
        losses, cosines = [], []
        for i, batch in enumerate(data):
            np.testing.assert_array_equal(batch[2], golden[f"label/{i}"])
            params, rest, opt_state, values = step(params, rest, opt_state, batch)
            found = mmp.diagnostics(opt_state)
            losses.append([values[name] for name in ("joint", "audio", "visual")])
            cosines.append(
                [found[f"joint+{name}"]["cosine"] for name in ("audio", "visual")]
            )
        nnx.update(model, params, rest)
        return np.array(losses), np.array(cosines), to_torch(model), len(traces)


def test_losses_before_each_update(trained, golden):
    losses, _, _, _ = trained
    np.testing.assert_allclose(losses, golden["losses"], rtol=1e-8)


def test_cosines(trained, golden):
    _, cosines, _, _ = trained
    np.testing.assert_allclose(cosines, golden["cosine"], rtol=0, atol=1e-8)
    assert (cosines < 0).any(), "the recording has conflicts"
    assert (cosines > 0).any()


def test_final_values(trained, golden):
    _, _, arrays, _ = trained
    names = {n.removeprefix("final/") for n in golden if n.startswith("final/")}
    assert arrays.keys() == names
    for name in sorted(names):
        value = as_torch_convention(name, arrays[name])
        r = np.random.default_rng(zlib.crc32(f"probe:{name}".encode()))
        norm, inner = golden[f"final/{name}"]
        np.testing.assert_allclose(
            np.linalg.norm(value), norm, rtol=1e-6, err_msg=f"norm of {name}"
        )
        # The probe's inner product is about as large as the norm, or by chance nearly
        # zero: the norm is the scale of its error.
        probe = r.normal(size=value.shape)
        np.testing.assert_allclose(
            np.vdot(value, probe), inner, rtol=0, atol=1e-6 * norm, err_msg=name
        )


def test_the_step_compiles_once(trained):
    _, _, _, traces = trained
    assert traces == 1
