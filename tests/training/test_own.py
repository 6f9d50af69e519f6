"""Tests for tasks of a user's own: any data, any model, any losses."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from mmpareto_jax import cli
from mmpareto_jax.data import FunctionExamples, train_batches
from mmpareto_jax.training import (
    Callback,
    Config,
    classification,
    draw_figures,
    evaluate,
    higher_is_better,
    lower_is_better,
    make_task,
    read_metrics,
    task,
    train,
    write_report,
)
from mmpareto_jax.training._report.run_figures import run_figures
from mmpareto_jax.training._run.step import make_program
from mmpareto_jax.training._tasks.settled import settled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3)).astype(np.float32)
ARRAYS = {"x": X, "left": X.sum(1), "right": (X**2).sum(1)}
SPLITS = {"train": slice(120), "validation": slice(120, 157), "test": slice(157, 200)}
DATA = {split: {k: v[s] for k, v in ARRAYS.items()} for split, s in SPLITS.items()}
LOSSES = {
    "left": lambda y, batch: (y[:, 0] - batch["left"]) ** 2,
    "right": lambda y, batch: jnp.mean((y[:, 1] - batch["right"]) ** 2),
}
MEASURES = {
    "squared": lower_is_better(lambda y, batch: (y[:, 0] - batch["left"]) ** 2),
    "right": higher_is_better(
        lambda y, batch: jnp.abs(y[:, 0] - batch["left"]) < 0.5, percent=True
    ),
}
CONFIG = Config(batch_size=16, epochs=3, lr=0.05)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(3, 16, rngs=rngs)
        self.out = nnx.Linear(16, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(jnp.tanh(linen.Dense(16)(x)))


def init(key):
    return {"hidden": 0.3 * jax.random.normal(key, (3, 16)), "out": jnp.zeros((16, 2))}


def apply(params, x):
    return jnp.tanh(x @ params["hidden"]) @ params["out"]


MODELS = {
    "class": Net,
    "function": lambda rngs: nnx.Sequential(nnx.Linear(3, 2, rngs=rngs)),
    "linen": Linen(),
    "plain": (init, apply),
}


def own(model=Net, data=DATA, losses=LOSSES, measures=MEASURES, **more):
    return task(
        model,
        losses,
        data,
        measures,
        name="lines",
        forward=lambda model, batch: model(batch["x"]),
        **more,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(own(), CONFIG, tmp_path_factory.mktemp("own") / "run")


@pytest.mark.parametrize("kind", MODELS)
def test_every_kind_of_model_learns(kind, tmp_path):
    result = train(own(MODELS[kind]), CONFIG, tmp_path)
    losses = [r["loss/left"] for r in read_metrics(tmp_path) if r["split"] == "train"]
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert result.groups.groups == {"left+right": ("left", "right")}
    assert result.config.task == ":lines"
    assert result.config.train_examples == 120


def test_scores_are_means_over_all_examples(finished):
    """Of 37 and 43 examples, which no batch size divides; scalars as well."""
    params = finished.state.params
    best = evaluate(finished.workdir, task=own()).state
    graphdef, _ = nnx.split(Net(nnx.Rngs(0)))
    del params
    model = nnx.merge(graphdef, best.params, best.rest)
    for split in ("validation", "test"):
        batch, scores = DATA[split], finished.scores[split]
        y = np.asarray(model(batch["x"]))
        left = (y[:, 0] - batch["left"]) ** 2
        expected = {
            "loss/left": left.mean(),
            "loss/right": ((y[:, 1] - batch["right"]) ** 2).mean(),
            "squared": left.mean(),
            "right": (np.sqrt(left) < 0.5).mean(),
        }
        assert set(scores) == set(expected)
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value, rel=1e-4), name


def test_scalars_count_by_the_size_of_their_batch():
    program = make_program(*reversed(settled(own(eval_batch=16), CONFIG)))
    whole = make_program(*reversed(settled(own(eval_batch=200), CONFIG)))
    state = program.state
    a, b = (p.evaluate(state, DATA["test"]) for p in (program, whole))
    assert a == pytest.approx(b, rel=1e-5)


def test_the_best_checkpoint_has_the_lowest_of_what_should_be_low(finished):
    found = {
        r["step"]: r["squared"]
        for r in read_metrics(finished.workdir)
        if r["split"] == "validation"
    }
    assert len(found) == 3
    assert found[finished.step] == min(found.values())
    assert [m.higher for m in finished.measures] == [False, True]


def test_without_measures_the_sum_of_the_losses_decides(tmp_path):
    result = train(own(measures=None), CONFIG, tmp_path)
    (measure,) = result.measures
    assert (measure.name, measure.higher) == ("losses", False)
    scores = result.scores["test"]
    assert scores["losses"] == pytest.approx(scores["loss/left"] + scores["loss/right"])


def test_resumed_evaluated_drawn_and_reported(finished, tmp_path):
    class Stop(Callback):
        def on_tick(self, step):
            if step == 12:
                raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train(own(), CONFIG, tmp_path / "a", callbacks=[Stop()])
    resumed = train(own(), CONFIG, tmp_path / "a", resume=True)
    for a, b in zip(
        jax.tree.leaves(resumed.state), jax.tree.leaves(finished.state), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert evaluate(tmp_path / "a", task=own()).scores == finished.scores
    with pytest.raises(ValueError, match="was made in Python, and has to be given"):
        evaluate(tmp_path / "a")
    other = dataclasses.replace(CONFIG, lr=0.1)
    with pytest.raises(ValueError, match=r"another config: lr 0.05 \(now 0.1\)"):
        train(own(), other, tmp_path / "a", resume=True)
    names = {path.stem for path in draw_figures(tmp_path / "a")}
    assert {"learning_curves", "cosine", "weights", "gradient_norms"} <= names
    text = write_report([tmp_path / "a"], tmp_path / "page.html").read_text()
    assert "squared" in text


def test_own_measures_are_drawn(finished):
    """Each in a panel, also one that is called like an objective."""
    curves = run_figures(read_metrics(finished.workdir))["learning_curves"]
    panels = {axis.get_ylabel(): axis for axis in curves.axes}
    assert set(panels) == {"loss", "squared", "right"}
    records = [r for r in read_metrics(finished.workdir) if r["split"] == "validation"]
    for name in ("squared", "right"):
        _, dots = panels[name].lines
        np.testing.assert_allclose(dots.get_ydata(), [r[name] for r in records])


def test_fewer_training_examples(tmp_path):
    config = dataclasses.replace(CONFIG, train_examples=32)
    function = FunctionExamples(
        lambda seed, epoch, i: {k: v[i] for k, v in ARRAYS.items()}, 120
    )
    states = []
    for number, source in enumerate((DATA["train"], function)):
        result = train(
            own(data=DATA | {"train": source}), config, tmp_path / str(number)
        )
        assert int(result.state.step) == 6
        states.append(result.state.params)
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_built_in_task_is_made_by_the_same_call():
    """Without a private door: from its arrays, with the encoders it has by default."""
    config = Config(train_examples=64, batch_size=16)
    built_in = make_task(config)
    same = classification(
        built_in.data,
        name="av-digits",
        encoders={
            name: lambda rngs, name=name: getattr(
                built_in.make_model(rngs), f"{name}_encoder"
            )
            for name in ("audio", "visual")
        },
    )
    batch = next(train_batches(built_in.data["train"], batch_size=16, seed=0))
    assert same.measures == built_in.measures
    programs = [make_program(config, x) for x in (built_in, same)]
    assert programs[0].groups == programs[1].groups
    # Keys are drawn in another order, so only the shapes are the same.
    shapes = [jax.tree.map(jnp.shape, p.state.params) for p in programs]
    assert shapes[0] == shapes[1]
    _, metrics = programs[1].step(programs[1].state, batch)
    assert np.isfinite(metrics["loss/joint"])


def sensors(size, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, size)
    clue = np.eye(3, dtype=np.float32)[label]
    return {
        "a": clue + 0.3 * rng.normal(size=(size, 3)).astype(np.float32),
        "b": clue[:, ::-1] + 0.5 * rng.normal(size=(size, 3)).astype(np.float32),
        "label": label,
    }


SENSORS = {
    k: sensors(n, n) for k, n in (("train", 96), ("validation", 40), ("test", 50))
}


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.out_features = 8
        self.linear = nnx.Linear(3, 8, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.linear(x))


ENCODERS = {"a": Encoder, "b": Encoder}


@pytest.mark.parametrize("method", ["mmpareto", "joint", "ogm", "pmr", "relearning"])
def test_own_modalities_with_every_kind_of_method(method, tmp_path):
    own = classification(SENSORS, name="sensors", encoders=ENCODERS)
    epochs = 6 if method == "relearning" else 3
    config = Config(method=method, batch_size=16, epochs=epochs, lr=0.1)
    result = train(own, config, tmp_path)
    assert result.scores["test"]["accuracy/joint"] > 0.8
    assert set(result.groups.objectives) == {"joint", "a", "b"}
    for records in (sensors_records(),):
        as_records = classification(
            records, name="sensors", encoders=ENCODERS, num_classes=3
        )
        again = train(as_records, config, tmp_path / "records")
        assert again.scores == result.scores


def sensors_records():
    return {
        split: [
            {name: array[i] for name, array in arrays.items()}
            for i in range(len(arrays["label"]))
        ]
        for split, arrays in SENSORS.items()
    }


def test_a_method_that_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    lines, own_sensors = own(), classification(SENSORS, encoders=ENCODERS)
    workdir = tmp_path / "run"
    cases = [
        (lines, {"method": "ogm"}, "ogm needs a joint objective and its modalities"),
        (
            own_sensors,
            {"method": "mmcosine"},
            "needs fusion cosine, and own has",
        ),
        (lines, {"width": 32}, "width: not an option of a task of its own"),
        (lines, {"num_tasks": 4}, "of a task of its own, but of digit-tasks"),
        (lines, {"method": "pcgrad", "gamma": 2.0}, "gamma: not an option of pcgrad"),
        (lines, {"precision": "bf16"}, "expected f32 or highest"),
        (lines, {"batch_size": 200}, "batch_size: expected at most the 120 training"),
        (lines, {"probe_every": 999}, "probe_every: expected at most"),
    ]
    for own_task, options, match in cases:
        with pytest.raises(ValueError, match=match):
            train(own_task, Config(**options), workdir)
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"data": {"train": DATA["train"]}}, ValueError, "expected train, validation"),
        ({"losses": {}}, TypeError, "losses: expected name -> function, at least"),
        ({"losses": [abs]}, TypeError, "losses: expected name -> function"),
        (
            {"measures": {"loss/left": MEASURES["right"]}},
            ValueError,
            "name of something",
        ),
        ({"measures": {"x": min}}, TypeError, r"expected higher_is_better\(...\) or"),
        ({"model": 3}, TypeError, "model: expected a function of nnx.Rngs"),
        ({"model": Net(nnx.Rngs(0))}, TypeError, "model: expected a function"),
        ({"model": Linen}, TypeError, "got a Linen class"),
        ({"eval_batch": 0}, ValueError, "eval_batch: expected at least 1"),
        (
            {"data": DATA | {"test": DATA["test"] | {"x": X[157:, :2]}}},
            ValueError,
            "test: expected examples of .* as in train",
        ),
        (
            {"data": {k: v | {"mask": v["left"]} for k, v in DATA.items()}},
            ValueError,
            'expected no name "mask"',
        ),
    ],
)
def test_mistakes_of_a_task(change, error, match):
    with pytest.raises(error, match=match):
        own(**change)


def test_a_loss_of_another_shape_is_refused(tmp_path):
    wrong = own(losses={"both": lambda y, batch: y**2})
    with pytest.raises(ValueError, match=r"losses: both: expected .* \[16\], or a sc"):
        train(wrong, CONFIG, tmp_path / "run")
    wrong = own(model=lambda rngs: 3)
    with pytest.raises(TypeError, match=r"expected a flax.nnx.Module to be made"):
        train(wrong, CONFIG, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"label": np.zeros(50)}, "label: expected integers"),
        ({"label": np.full(50, -1)}, "label: expected 0 to"),
        ({"c": np.zeros((50, 2))}, "expected label and"),
    ],
)
def test_mistakes_of_data(change, match):
    data = SENSORS | {"test": SENSORS["test"] | change}
    with pytest.raises(ValueError, match=match):
        classification(data, encoders=ENCODERS)
    with pytest.raises(ValueError, match="encoders: expected one for each"):
        classification(SENSORS, encoders={"a": Encoder})
    with pytest.raises(ValueError, match="num_classes: expected a number"):
        classification(sensors_records(), encoders=ENCODERS)


MODULE = """
import numpy as np
from flax import nnx
from mmpareto_jax import training

def data(n):
    x = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    return {"x": x, "up": x[:, 0] ** 2, "down": -x[:, 0]}

def lines(config=None):
    losses = {
        "up": lambda y, batch: (y[:, 0] - batch["up"]) ** 2,
        "down": lambda y, batch: (y[:, 1] - batch["down"]) ** 2,
    }
    return training.task(
        lambda rngs: nnx.Linear(1, 2, rngs=rngs),
        losses,
        {"train": data(64), "validation": data(20), "test": data(20)},
        name="lines",
        forward=lambda model, batch: model(batch["x"]),
    )

def nothing():
    return 3

def sized(size=4):
    return lines()

def needy(a, b):
    return lines()

class Named:
    av_digits = staticmethod(lambda config: lines())
"""


def test_by_module_and_function(tmp_path, monkeypatch, capsys):
    """From the command line, in the directory where the module is."""
    (tmp_path / "my_tasks.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    flags = ["--batch-size", "16", "--epochs", "2", "--workdir", "run"]
    assert cli.main(["train", "my_tasks:lines", *flags]) == 0
    assert "sum of the losses" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["task"], config["train_examples"]) == ("my_tasks:lines", 64)
    assert cli.main(["evaluate", "run"]) == 0
    assert cli.main(["train", "--resume", "--workdir", "run"]) == 0
    assert cli.main(["plot", "run"]) == 0
    assert cli.main(["report", "run"]) == 0
    capsys.readouterr()
    for name, said in (
        ("no_tasks:lines", "there is no module no_tasks"),
        ("my_tasks:circles", "my_tasks has no function 'circles'"),
        ("my_tasks:nothing", "expected a training.Task to be returned, got int"),
        ("my_tasks:needy", "a function of nothing, or of a config, not of a, b"),
    ):
        assert cli.main(["train", name, "--workdir", "other"]) == 2
        assert said in capsys.readouterr().err
    data = ["--data", str(tmp_path)]
    assert cli.main(["train", "my_tasks:sized", "--workdir", "other", *data]) == 2
    assert "data: not an option of my_tasks:sized" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    steps = ["--batch-size", "16", "--steps", "1"]
    for name in ("sized", "Named.av_digits"):
        workdir = ["--workdir", name]
        assert cli.main(["train", f"my_tasks:{name}", *workdir, *steps]) == 0


class LinenDropout(linen.Module):
    @linen.compact
    def __call__(self, x, training):
        x = linen.BatchNorm(use_running_average=not training)(linen.Dense(8)(x))
        return linen.Dense(2)(linen.Dropout(0.9, deterministic=not training)(x))


def floats(tree):
    return [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]


def test_linen_is_told_whether_it_trains(tmp_path):
    """Dropout is off in evaluation, and statistics move in training."""
    dropped = task(
        LinenDropout(),
        LOSSES,
        DATA,
        forward=lambda model, batch: model(batch["x"], model.training),
    )
    program = make_program(*reversed(settled(dropped, CONFIG)))
    first = [np.asarray(x) for x in floats(program.state.rest)]
    params = jax.tree.map(np.asarray, program.state.params)
    batch = next(train_batches(DATA["train"], batch_size=16, seed=0))
    scores = program.evaluate(program.state, DATA["test"])
    assert scores == program.evaluate(program.state, DATA["test"])
    state, metrics = program.step(program.state, batch)
    moved = [np.any(a != b) for a, b in zip(floats(state.rest), first, strict=True)]
    assert moved == [True, True]  # mean and variance
    # By hand, without dropout and with the statistics of the beginning.
    linen_params = params["net"]
    dense = lambda x, p: x @ p["kernel"][...] + p["bias"][...]  # noqa: E731
    hidden = dense(DATA["test"]["x"], linen_params["Dense_0"]) / np.sqrt(1 + 1e-5)
    y = dense(hidden, linen_params["Dense_1"])
    left = np.mean((y[:, 0] - DATA["test"]["left"]) ** 2)
    assert scores["loss/left"] == pytest.approx(left, rel=1e-4)
    assert metrics["loss/left"] != pytest.approx(left, rel=1e-2)


def test_labels_of_records_are_looked_at(tmp_path):
    for wrong in (-1, 3):
        records = sensors_records()
        records["train"][7] = records["train"][7] | {"label": wrong}
        bad = classification(records, encoders=ENCODERS, num_classes=3)
        config = Config(batch_size=32, epochs=1)
        with pytest.raises(ValueError, match=r"train: label: expected 0 to 2, got"):
            train(bad, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_name_of_a_built_in_task_is_no_built_in_task(tmp_path):
    result = train(dataclasses.replace(own(), name="av-digits"), CONFIG, tmp_path)
    assert (result.config.task, int(result.state.step)) == (":av-digits", 21)


def test_another_task_does_not_go_on(finished):
    config = (finished.workdir / "config.json").read_text()
    other = own(losses={"left": LOSSES["left"], "up": LOSSES["right"]})
    with pytest.raises(ValueError, match="a run of another task: objectives"):
        train(other, CONFIG, finished.workdir, resume=True)
    with pytest.raises(ValueError, match="a run of another task: measures"):
        evaluate(finished.workdir, task=own(measures=None))
    assert (finished.workdir / "config.json").read_text() == config
    assert (finished.workdir / "result.json").exists()


def test_integers_are_not_wrapped(tmp_path):
    large = {k: v | {"left": 2**33 + np.arange(len(v["x"]))} for k, v in DATA.items()}
    with pytest.raises(ValueError, match="left: expected integers that int32 has"):
        train(own(data=large), CONFIG, tmp_path / "run")
    small = {k: v | {"left": np.arange(len(v["x"]))} for k, v in DATA.items()}
    assert train(own(data=small), CONFIG, tmp_path / "small").finished
    words = {k: v | {"who": np.array(["a"] * len(v["x"]))} for k, v in DATA.items()}
    with pytest.raises(ValueError, match="who: expected numbers, got <U1"):
        train(own(data=words), CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_losses_and_their_sum_have_names_of_their_own(tmp_path):
    named = own(losses={"sum": LOSSES["left"], "right": LOSSES["right"]}, measures=None)
    scores = train(named, CONFIG, tmp_path).scores["test"]
    assert scores["losses"] == pytest.approx(scores["loss/sum"] + scores["loss/right"])


def test_a_run_that_makes_no_step_leaves_nothing(tmp_path):
    """Nor what others had there."""

    def wrong(batch, rngs):
        return batch | {"x": batch["x"][:, :2]}

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TypeError, match="contracting dimensions"):
        train(own(transform=wrong), CONFIG, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert train(own(), CONFIG, tmp_path).finished


def test_arguments_in_another_order_are_refused(tmp_path):
    for arguments in ((own(), tmp_path, CONFIG), (DATA, CONFIG, tmp_path), (CONFIG,)):
        with pytest.raises(TypeError, match=r"expected \(config, workdir\) or \(task"):
            train(*arguments)
    for callbacks in ([object()], Callback()):
        with pytest.raises(TypeError, match="expected a list of"):
            train(own(), CONFIG, tmp_path, callbacks=callbacks)


@pytest.mark.parametrize(
    ("encoder", "match"),
    [
        (Encoder(nnx.Rngs(0)), "a: expected a function of nnx.Rngs"),
        (
            lambda rngs: nnx.Sequential(nnx.Linear(3, 8, rngs=rngs)),
            "a module with out_f",
        ),
    ],
)
def test_mistakes_of_encoders(encoder, match, tmp_path):
    with pytest.raises(TypeError, match=match):
        train(
            classification(SENSORS, encoders=ENCODERS | {"a": encoder}),
            Config(batch_size=16),
            tmp_path / "run",
        )


def test_sizes_are_those_of_the_task_and_of_no_other(tmp_path):
    """A batch larger than all of AV-digits, and a probe after its last step."""
    size = 4_096
    arrays = {"x": np.zeros((size, 3), np.float32), "left": np.zeros(size)}
    data = dict.fromkeys(SPLITS, arrays | {"right": np.zeros(size)})
    config = Config(batch_size=size, epochs=500, steps=1)
    assert train(own(data=data), config, tmp_path / "large").finished
    config = Config(batch_size=1, epochs=1, probe_every=2_000)
    with pytest.raises(ValueError, match="probe_every: expected at most 120 steps"):
        train(own(), config, tmp_path / "run")
    with pytest.raises(ValueError, match="at most the 1000 training examples"):
        train(Config(batch_size=size), tmp_path / "run")
    assert not (tmp_path / "run").exists()
