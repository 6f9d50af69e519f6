"""Tests for the configuration: one dataclass for Python, files and flags."""

import dataclasses
import json

import pytest

from mmpareto_jax._cli.devices import Devices
from mmpareto_jax._cli.parser import make_parser
from mmpareto_jax.training import Config, load_config, read_config
from mmpareto_jax.training._choices import MULTI_TASK, MULTIMODAL
from mmpareto_jax.training._config import renamed
from mmpareto_jax.training._options.groups import GROUPS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, "lr: expected a finite number > 0 that"),
        ({"lr": float("nan")}, "lr: .* float32 holds, got nan"),
        ({"gamma": -1.0}, "gamma: expected a finite number >= 0 that"),
        ({"momentum": 1.0}, "momentum: expected 0 <= momentum < 1, got 1.0"),
        ({"epochs": 0}, "epochs: expected 1 to .*, got 0"),
        ({"steps": 0}, "steps: expected 1 to .*, got 0"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"seed": "0"}, "seed: expected int, got '0'"),
        ({"epochs": True}, "epochs: expected int, got True"),
        ({"method": "sgd"}, "method: expected one of joint, ogm"),
        ({"method": None}, "method: expected one of joint, ogm"),
        ({"max_magnitude": 0.5}, "max_magnitude: expected a finite number >= 1"),
        ({"alpha": -1.0}, "alpha: expected a finite number >= 0"),
        ({"log_every": 0}, "log_every: expected 1 to"),
        ({"probe_every": -1}, "probe_every: expected 0 to"),
        ({"probe_every": 9, "steps": 8}, "probe_every: expected at most 8 steps, got"),
        ({"width": 6}, "width: expected a multiple of 4, up to 8192, got 6"),
        ({"modalities": 4}, "modalities: expected 2 or 3, got 4"),
        ({"fusion": "bottleneck"}, "another one, or --encoder transformer"),
        (
            {"batch_size": 10, "train_examples": 5},
            "at most the 5 training examples",
        ),
    ],
)
def test_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)


def test_length():
    config = Config(train_examples=100, batch_size=32, epochs=2)
    assert (config.steps_per_epoch, config.num_steps) == (3, 6)
    assert dataclasses.replace(config, steps=5).num_steps == 5


def test_a_record_ends_with_its_steps_and_with_the_epoch():
    config = Config(train_examples=100, batch_size=32, steps=8, log_every=2)
    ends = [step for step in range(1, 9) if config.ends_record(step)]
    assert ends == [2, 3, 4, 6, 8]
    assert [step for step in ends if config.ends_epoch(step)] == [3, 6, 8]


@pytest.mark.parametrize(
    ("steps", "of"), [(1, 1), (465, 1), (999, 1), (1000, 2), (10**6, 2000)]
)
def test_a_run_of_any_length_leaves_as_many_records(steps, of):
    assert Config(steps=steps).record_steps == of
    assert Config(steps=steps, log_every=7).record_steps == 7


def test_integers_are_numbers():
    assert Config(gamma=2).gamma == 2


@pytest.mark.parametrize("name", ["nash-mtl", "nash_mtl"])
def test_a_rule_has_one_spelling(name, tmp_path):
    """That of the flag; as a function's name it is accepted everywhere, too."""
    assert Config(method=name) == Config(method="nash-mtl")
    assert Config(method=name).to_dict()["method"] == "nash-mtl"
    assert dataclasses.replace(Config(), method=name).method == "nash-mtl"
    assert make_parser().parse_args(["train", "--method", name]).method == "nash-mtl"
    file = tmp_path / "run.toml"
    file.write_text(f'method = "{name}"\n')
    assert Config(**load_config(file)).method == "nash-mtl"


def test_files(tmp_path):
    toml, other = tmp_path / "run.toml", tmp_path / "run.json"
    toml.write_text('method = "uniform"\nlr = 0.1\n')
    other.write_text(json.dumps(Config(seed=3).to_dict()))
    assert load_config(toml) == {"method": "uniform", "lr": 0.1}
    assert Config(**load_config(other)) == Config(seed=3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "lr = ", "a.toml: Invalid value"),
        ("a.json", "{", "a.json: Expecting"),
        ("a.json", "[1]", "expected names and values"),
        ("a.toml", "rate = 1", "unknown name 'rate'; known are"),
        ("missing.toml", None, "No such file"),
    ],
)
def test_bad_files(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path / name)


def test_every_field_is_a_flag():
    flags = vars(make_parser().parse_args(["train"]))
    fields = {field.name for field in dataclasses.fields(Config)}
    # Where files are, and where a run computes, is no part of its config.
    others = {field.name for field in dataclasses.fields(Devices)}
    others |= {"command", "workdir", "resume", "config", "cache"}
    assert fields == set(flags) - others
    assert all(flags[name] is None for name in fields)


def test_the_groups_are_what_a_config_is_made_of():
    """Every option once, in the order of the groups; the task has the first place."""
    names = [f.name for group in GROUPS for f in dataclasses.fields(group.options)]
    assert names == [field.name for field in dataclasses.fields(Config)]
    assert len(names) == len(set(names))
    assert Config("scenes") == Config(task="scenes")
    with pytest.raises(TypeError, match="positional argument"):
        Config("crema-d", "data")


def test_options_have_owners():
    titles = [group.title for group in GROUPS]
    assert len(titles) == len(set(titles))
    owners = {group.title: (group.tasks, group.methods) for group in GROUPS}
    every_task, every_method = owners["options of the run"]
    assert set(every_task) == set(MULTIMODAL + MULTI_TASK)
    assert owners["options of av-digits"] == (("av-digits",), every_method)
    gamma = owners["options of mmpareto, uniform-gamma"]
    assert gamma == (every_task, ("mmpareto", "uniform-gamma"))


# As a run of before wrote it, when the options were in another order.
WRITTEN = """
{"config": {"task": "multi-digits", "data": null, "method": "mgda", "gamma": 2.0,
"variant": "official", "conflict_test": false, "magnitude": false,
"max_magnitude": 3.0, "alpha": 0.5, "encoder": "transformer", "fusion": "bottleneck",
"sharing": "mtan", "gradients": "features", "width": 32, "seed": 3, "epochs": 2,
"steps": 7, "batch_size": 16, "lr": 0.1, "schedule": "constant", "momentum": 0.5,
"weight_decay": 0.0, "dtype": "bfloat16", "pullback": "vmap", "train_examples": 64,
"audio_snr_db": 1.0, "visual_noise": 0.1, "visual_occlusion": 2, "modalities": 3,
"visual_label_noise": 0.2, "contradiction": 0.4, "num_tasks": 4, "right_noise": 0.6}}
"""


def test_a_config_that_was_written_before_is_read(tmp_path):
    (tmp_path / "config.json").write_text(WRITTEN)
    written = renamed(json.loads(WRITTEN)["config"])
    default = Config().to_dict()
    later = {
        "refresh": 1,
        "smooth": None,
        "probe_every": 0,
        "log_every": None,
        "on_nonfinite": "skip",
        "nonfinite_limit": 10,
    }  # options that came after it
    assert set(written) == set(default) - set(later)
    config = read_config(tmp_path)
    assert config.to_dict() == written | later
    assert [name for name, x in written.items() if x == default[name]] == ["data"]
