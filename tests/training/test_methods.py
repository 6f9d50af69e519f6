"""Methods in the loop: short runs of each that is more than a rule of the library."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mmpareto_jax.training import Config
from mmpareto_jax.training._methods.greedy import relative_squares
from mmpareto_jax.training._run.fit import fit
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.registry import make_task

SMALL = {"train_examples": 48, "batch_size": 16, "epochs": 3, "lr": 0.02, "width": 8}


@functools.cache
def task_and_program(config):
    task = make_task(config)
    return task, make_program(config, task)


def run(method, start=None, **options):
    """The state before the first step, those at the ends of epochs, the metrics."""
    config = Config(method=method, **(SMALL | options))
    task, program = task_and_program(config)
    first = program.restart(config.seed, config.lr)
    kept, metrics = [jax.device_get(first)], []
    fit(
        program,
        config,
        task,
        first if start is None else jax.tree.map(jnp.asarray, start),
        on_step=lambda _, x: metrics.append(jax.device_get(x)),
        on_pause=lambda state, _: kept.append(jax.device_get(state)),
    )
    return task, program, kept, metrics


def leaves_of(state, prefix):
    flat, _ = jax.tree.flatten_with_path(state.params)
    return [
        np.asarray(x)
        for path, x in flat
        if jax.tree_util.keystr(path, simple=True, separator="/").startswith(prefix)
    ]


def test_modulation_scales_the_joint_gradient():
    """One step from the same start: the encoders' updates differ by the factor."""
    options = {"steps": 1, "weight_decay": 0.0}
    _, _, (first, plain), _ = run("joint", **options)
    for method in ("ogm", "agm"):
        _, _, (_, after), _ = run(method, **options, alpha=0.6)
        found = optax.tree.get(after.opt_state, "coefficients")
        assert len(set(map(float, found.values()))) == 2
        for name, factor in found.items():
            triples = zip(
                *(leaves_of(x, f"{name}_encoder") for x in (first, plain, after)),
                strict=True,
            )
            for x, y, z in triples:
                scaled = factor if method == "agm" or x.ndim > 1 else 1.0
                np.testing.assert_allclose(z - x, scaled * (y - x), atol=1e-6)
        for x, y in zip(leaves_of(plain, "fusion"), leaves_of(after, "fusion")):  # noqa: B905
            np.testing.assert_allclose(x, y, atol=1e-7)


def test_ogm_ge_is_noisy():
    options = {"steps": 1, "weight_decay": 0.0, "alpha": 0.0}
    _, _, (_, plain), _ = run("joint", **options)
    _, _, (_, noisy), _ = run("ogm-ge", **options)
    differ = [
        np.any(x != y)
        for x, y in zip(
            leaves_of(plain, "audio_encoder/convs"),
            leaves_of(noisy, "audio_encoder/convs"),
            strict=True,
        )
    ]
    assert all(differ)


def test_modulation_needs_a_fusion_that_adds():
    config = Config(method="ogm", fusion="gated", **SMALL)
    with pytest.raises(ValueError, match="OGM and AGM need a fusion that adds"):
        make_program(config, make_task(config))


def test_prototypes_are_the_class_means_of_the_last_epoch():
    task, program, (first, one, *_, last), _ = run("pmr")
    assert not first.memory["alpha"]
    assert not one.memory["alpha"]
    assert last.memory["alpha"] == 1
    # They were made before the last epoch, from the state at the end of the one before.
    _, _, kept, _ = run("pmr")
    features = program.features(jax.tree.map(jnp.asarray, kept[2]), task.data["train"])
    label = task.data["train"]["label"]
    for m, x in features.items():
        for c in range(10):
            np.testing.assert_allclose(
                last.memory["prototypes"][m][c],
                x[label == c].mean(axis=0),
                rtol=1e-4,
                atol=1e-5,
            )


def test_blending_learns_weights():
    _, _, kept, _ = run("g-blending", epochs=5)
    weights = [list(map(float, state.memory.weights.values())) for state in kept]
    assert weights[:4] == [[1, 1, 1]] * 4  # the second estimate is before epoch 5
    assert all(float(x) for x in kept[2].memory.validation.values())
    np.testing.assert_allclose(sum(weights[5]), 3, rtol=1e-5)


def test_relearning_moves_encoders_towards_their_start():
    options = {"epochs": 6, "schedule": "constant"}
    _, _, plain, _ = run("joint", **options)
    _, _, reset, _ = run("relearning", **options, alpha=50.0)
    for a, b in zip(plain[:6], reset[:6], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    first = plain[0]
    distance = [
        sum(
            np.sum((x - y) ** 2)
            for x, y in zip(
                leaves_of(state, "audio_encoder"),
                leaves_of(first, "audio_encoder"),
                strict=True,
            )
        )
        for state in (plain[6], reset[6])
    ]
    assert distance[1] < 0.5 * distance[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pmr", "g-blending", "relearning"])
def test_what_happens_between_epochs_survives_a_stop(method):
    options = {"epochs": 6} if method == "relearning" else {}
    _, _, kept, _ = run(method, **options)
    _, _, again, _ = run(method, start=kept[-2], **options)
    jax.tree.map(np.testing.assert_array_equal, kept[-1], again[-1])


def test_greedy_steers_the_model():
    """With ε = 0 it rebalances as soon as it may: after two epochs."""
    _, _, kept, _ = run("greedy", epochs=4, alpha=0.0)
    cares = [int(state.memory.care) for state in kept]
    assert cares[:3] == [-1] * 3
    assert cares[3] in (0, 1)
    for state in kept:
        assert state.rest["interaction"]["care"][...] == state.memory.care
    # Until then it is plain joint training of the same model.
    _, _, plain, _ = run("joint", epochs=4, fusion="mmtm")
    for a, b in zip(kept[:3], plain[:3], strict=True):
        jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert any(
        np.any(a != b)
        for a, b in zip(
            jax.tree.leaves(kept[4].params),
            jax.tree.leaves(plain[4].params),
            strict=True,
        )
    )
    memory = kept[1].memory
    assert memory.step == 3
    assert np.all(memory.exchange > 0)
    assert np.all(memory.branch > 0)


def test_greedy_finds_exchanges_and_branches():
    """The same parameters as by the attributes of the model's modules."""
    config = Config(method="greedy", **SMALL)
    model = make_task(config).make_model(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    grads = jax.tree.map(lambda x: x**2 + 1, params)
    exchange, branch = relative_squares(params, grads)
    mmtm, encoders = model.interaction, [model.audio_encoder, model.visual_encoder]
    for number, encoder in enumerate(encoders):
        own = [each[number] for each in mmtm.excitations]
        for found, modules in ((exchange, [*own, *mmtm.squeezes]), (branch, [encoder])):
            leaves = jax.tree.leaves([nnx.state(x, nnx.Param) for x in modules])
            below = sum(np.sum(np.square(x)) for x in leaves)
            above = sum(np.sum(np.square(np.square(x) + 1)) for x in leaves)
            np.testing.assert_allclose(found[number], above / below, rtol=1e-4)


def test_greedy_compares_two_modalities():
    config = Config(method="greedy", modalities=3, **SMALL)
    with pytest.raises(ValueError, match="greedy compares two modalities, got"):
        make_program(config, make_task(config))


def test_mmcosine_brings_its_fusion():
    _, program, _, metrics = run("mmcosine", steps=2)
    assert "kernels" in program.state.params["fusion"]
    assert np.isfinite(metrics[-1]["loss/joint"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "encoder"),
    [
        ("sum", "cnn"),
        ("film", "cnn"),
        ("gated", "cnn"),
        ("mmtm", "cnn"),
        ("central", "cnn"),
        ("bottleneck", "transformer"),
    ],
)
def test_every_fusion_trains_with_mmpareto(fusion, encoder):
    _, program, _, metrics = run("mmpareto", fusion=fusion, encoder=encoder, steps=2)
    most = max(len(objectives) for objectives in program.groups.groups.values())
    assert most == (3 if fusion in ("mmtm", "bottleneck") else 2)
    assert np.isfinite(metrics[-1]["loss/joint"])
