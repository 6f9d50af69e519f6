"""Tests for the configuration: one dataclass for Python, files and flags."""

import dataclasses
import json

import pytest

from mmpareto_jax.cli import _parser
from mmpareto_jax.training import Config, load_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0.0}, "lr: expected a finite number > 0, got 0.0"),
        ({"lr": float("nan")}, "lr: expected a finite number > 0, got nan"),
        ({"gamma": -1.0}, "gamma: expected a finite number >= 0, got -1.0"),
        ({"momentum": 1.0}, "momentum: expected 0 <= momentum < 1, got 1.0"),
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"seed": "0"}, "seed: expected int, got '0'"),
        ({"epochs": True}, "epochs: expected int, got True"),
        ({"method": "sgd"}, "method: expected one of joint, uniform"),
        ({"method": None}, "method: expected one of joint, uniform"),
        ({"batch_size": 10, "train_examples": 5}, "at most train_examples, got 10"),
    ],
)
def test_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        Config(**values)


def test_length():
    config = Config(train_examples=100, batch_size=32, epochs=2)
    assert (config.steps_per_epoch, config.num_steps) == (3, 6)
    assert dataclasses.replace(config, steps=5).num_steps == 5


def test_integers_are_numbers():
    assert Config(gamma=2).gamma == 2


@pytest.mark.parametrize("name", ["nash-mtl", "nash_mtl"])
def test_a_rule_has_one_spelling(name, tmp_path):
    """That of the flag; as a function's name it is accepted everywhere, too."""
    assert Config(method=name) == Config(method="nash-mtl")
    assert Config(method=name).to_dict()["method"] == "nash-mtl"
    assert dataclasses.replace(Config(), method=name).method == "nash-mtl"
    assert _parser().parse_args(["train", "--method", name]).method == "nash-mtl"
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
    flags = vars(_parser().parse_args(["train"]))
    fields = {field.name for field in dataclasses.fields(Config)}
    assert fields == set(flags) - {"command", "workdir", "resume", "config"}
    assert all(flags[name] is None for name in fields)
