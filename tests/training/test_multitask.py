"""Several tasks through the one loop: data, trunks, sharings, measures, features."""

import html
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from written import mnist, nyuv2

from mmpareto_jax.cli import main
from mmpareto_jax.data import load_multi_digits, train_batches
from mmpareto_jax.training import Config, train, write_report
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._study.run_once import run_once
from mmpareto_jax.training._tasks.registry import make_task

pytestmark = pytest.mark.slow

SMALL = {"width": 8, "train_examples": 32, "batch_size": 8, "steps": 2}
FLAGS = ["--width", "8", "--train-examples", "32", "--batch-size", "8", "--steps", "2"]


def one_step(config, task=None):
    task = task or make_task(config)
    program = make_program(config, task)
    batch = next(train_batches(task.data["train"], batch_size=8, seed=0))
    return program, *program.step(program.state, batch)


def test_digits_from_the_command(tmp_path, capsys):
    arguments = ["train", "digit-tasks", "--num-tasks", "3", *FLAGS]
    assert main([*arguments, "--workdir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "mean of the tasks" in out
    assert "conflicting steps, sharing (digit, position, size)" in out
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert {"loss/digit", "accuracy/size"} < set(record)
    assert (tmp_path / "figures" / "weights.png").stat().st_size > 5000
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<td>" in page.split("mean of the tasks ↑, %", 1)[1]
    assert "sharing (digit, position, size)" in page


def test_scenes_are_measured_like_nyuv2(tmp_path):
    result = train(Config(task="scenes", **SMALL), tmp_path)
    names = [m.name for m in result.measures]
    assert names[:3] == [
        "score/mean",
        "miou/segmentation",
        "pixel_accuracy/segmentation",
    ]
    assert len(names) == 1 + 2 + 2 + 5
    test = result.scores["test"]
    assert set(names) <= set(test)
    # By hand: 1 of 3 tasks each, 100 log, less is better for errors.
    by_task = [
        np.log([test["miou/segmentation"], test["pixel_accuracy/segmentation"]]),
        -np.log([test["absolute_error/depth"], test["relative_error/depth"]]),
        np.log(
            [
                1 / test["mean_angle/normal"],
                1 / test["median_angle/normal"],
                *(
                    max(test[f"within_{x}/normal"], 1e-4)
                    for x in ("11.25", "22.5", "30")
                ),
            ]
        ),
    ]
    expected = 100 * np.mean([x.mean() for x in by_task])
    np.testing.assert_allclose(test["score/mean"], expected, rtol=1e-6)
    assert {p.name for p in (tmp_path / "figures").glob("*")} == set()
    page = write_report([tmp_path], tmp_path / "report.html").read_text()
    for m in result.measures:
        arrow = "↑" if m.higher else "↓"
        title = html.escape(f"{m.title} {arrow}{', %' if m.percent else ''}")
        value = f"{m.shown(test[m.name]):{'.1f' if m.percent else '.4g'}}"
        cells = re.search(rf"<tr><th[^>]*>{re.escape(title)}</th>(.*)</tr>", page)
        assert cells[1].endswith(f"<td>{value}</td>")


@pytest.mark.parametrize("name", ["nyuv2", "cityscapes"])
def test_prepare_and_train_dense_data(name, tmp_path, capsys):
    """Two commands; Cityscapes has no normals."""
    raw, data = nyuv2(tmp_path / "raw"), str(tmp_path / "data")
    prepare = ["prepare", name, "--raw", str(raw), "--out", data, "--workers", "1"]
    if name == "cityscapes":
        prepare += ["--classes", "19"]
        for folder in raw.glob("*/label"):
            folder.rename(folder.with_name("label_19"))
    for path in raw.rglob("*.npy"):  # a trunk halves three times
        np.save(path, np.resize(np.load(path), (8, 8, *np.load(path).shape[2:])))
    assert main(prepare) == 0
    out = capsys.readouterr().out
    assert "train: 18 examples\n" in out
    flags = ["--width", "8", "--batch-size", "4", "--steps", "2"]
    train = ["train", name, "--data", data, "--workdir", str(tmp_path / "run"), *flags]
    assert main(train) == 0
    out = capsys.readouterr().out
    assert "mIoU ↑, %" in out
    assert ("mean angle" in out) == (name == "nyuv2")
    config = Config(task=name, data=data, batch_size=4)
    task = make_task(config)
    assert task.eval_batch == 200
    batches = train_batches(
        task.data["train"], batch_size=4, seed=0, transform=task.transform
    )
    assert next(batches)["image"].dtype == np.uint8


def test_digits_of_mnist(tmp_path):
    """Two IDX files of each part, as published."""
    raw = mnist(tmp_path / "raw")
    config = Config(task="multi-digits", data=str(raw), train_examples=16, batch_size=8)
    assert config.num_train == 16
    task = make_task(config)
    assert task.data["train"]["image"].shape == (16, 36, 36, 1)


@pytest.mark.parametrize("sharing", ["hard", "cross-stitch", "mtan"])
def test_every_sharing_takes_a_step(sharing):
    config = Config(task="multi-digits", sharing=sharing, **SMALL)
    program, state, metrics = one_step(config)
    trunk = "left+right"
    assert program.groups.groups[trunk] == ("left", "right")
    assert metrics[f"{trunk}/magnitude"] >= 1.5 - 1e-5
    assert int(state.step) == 1


def test_single_task_models_share_nothing():
    config = Config(task="multi-digits", method="single-task", **SMALL)
    program, state, _ = one_step(config)
    assert set(program.groups.groups) == {"left", "right"}
    # What one task sees does not move the other's trunk.
    task = make_task(config)
    other = {k: v.copy() for k, v in task.data["train"].items()}
    other["right"] = (other["right"] + 1) % 10
    batch = next(train_batches(other, batch_size=8, seed=0))
    again, _ = program.step(program.restart(0, config.lr), batch)
    trunks = [dict(s.params["sharing"]["trunks"]) for s in (state, again)]
    same = [
        all(
            np.array_equal(x, y)
            for x, y in zip(
                jax.tree.leaves(trunks[0][k]),
                jax.tree.leaves(trunks[1][k]),
                strict=True,
            )
        )
        for k in (0, 1)
    ]
    assert same == [True, False]


def test_resnet_trunk():
    task = make_task(Config(task="multi-digits", encoder="resnet18", **SMALL))
    from flax import nnx

    model = nnx.eval_shape(lambda: task.make_model(nnx.Rngs(0)))
    assert model.sharing.out_features == 512


def test_features_instead_of_parameters():
    """Another Gramian, the same heads; nothing changes where there is one task."""
    made = {}
    for gradients in ("parameters", "features"):
        config = Config(
            task="multi-digits", gradients=gradients, method="mgda", **SMALL
        )
        program, state, metrics = one_step(config)
        made[gradients] = program, state, metrics
    (plain, state, seen), (level, other, found) = made.values()
    assert seen["loss/left"] == found["loss/left"]
    assert level.groups.group_of("features") == "left+right"
    assert level.groups.describe("left+right")[0] == "features"
    assert plain.groups.describe("left+right")[0] == "sharing"
    name = "left+right/norm/left"
    assert float(seen[name]) != float(found[name])
    for head in ("left_head", "right_head"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            state.params[head],
            other.params[head],
        )


def test_the_plain_sum_is_the_same_at_both_levels():
    states = []
    for gradients in ("parameters", "features"):
        more = {"gradients": gradients, "method": "uniform", "encoder": "cnn"}
        config = Config(task="multi-digits", **more, **SMALL)
        states.append(one_step(config)[1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        (states[0].params, states[0].rest),
        (states[1].params, states[1].rest),
    )


def test_a_run_of_a_comparison():
    record = run_once(Config(task="multi-digits", **SMALL | {"steps": 4}))
    names = ["accuracy/mean", "accuracy/left", "accuracy/right"]
    for split in ("validation", "test"):
        found = record[split]
        assert list(found) == names
        mean = (found["accuracy/left"] + found["accuracy/right"]) / 2
        np.testing.assert_allclose(found["accuracy/mean"], mean)
    assert record["probe"] == {}
    assert list(record["groups"]) == ["sharing"]
    assert len(record["sharpness"]) == 7


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_level_of_noise_reaches_the_data(noise):
    config = Config(task="multi-digits", right_noise=noise, train_examples=32)
    for split, arrays in make_task(config).data.items():
        size = 32 if split == "train" else None
        expected = load_multi_digits(split, num_examples=size, noise=noise)
        np.testing.assert_array_equal(arrays["image"], expected.image)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"task": "multi-digits", "method": "ogm"}, "one for multi-task tasks"),
        ({"task": "av-digits", "method": "single-task"}, "one for multimodal tasks"),
        ({"task": "nyuv2"}, "the directory of prepared data for nyuv2"),
        ({"task": "scenes", "data": "somewhere"}, "nothing for scenes"),
        ({"task": "digit-tasks", "num_tasks": 9}, "num_tasks: expected 2 to 8"),
        ({"task": "multi-digits", "right_noise": 2.0}, "right_noise: expected 0 to 1"),
        ({"gradients": "features"}, "a multi-task model with --sharing hard"),
        (
            {"task": "multi-digits", "gradients": "features", "sharing": "mtan"},
            "a multi-task model with --sharing hard",
        ),
        ({"task": "scenes", "encoder": "cnn"}, "encoder: scenes has a prediction"),
        ({"task": "multi-digits", "encoder": "segnet"}, "encoder: multi-digits has"),
        ({"encoder": "segnet"}, "encoder: segnet is for"),
    ],
)
def test_mistakes(changes, match):
    def build():
        config = Config(**SMALL, **changes)
        make_program(config, make_task(config))

    with pytest.raises(ValueError, match=match):
        build()


def test_predictions_of_a_large_image_are_made_in_small_batches():
    arrays = {"image": jnp.zeros((2, 128, 64, 3))}
    from mmpareto_jax.training._tasks import several_tasks as _several_tasks

    config = Config(task="scenes", **SMALL)
    splits = dict.fromkeys(("train", "validation", "test"), arrays)
    made = _several_tasks._of(config, splits, {}, dense=True)
    assert made.eval_batch == 8
