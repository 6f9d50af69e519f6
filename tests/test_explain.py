"""Tests for what is told of methods and data: all of them, in lines that fit."""

import re
import subprocess
import sys
from typing import get_args

import pytest
from described import check_described

import mmpareto_jax as mmp
from mmpareto_jax._published import PUBLISHED
from mmpareto_jax.cli import main
from mmpareto_jax.training import Config, make_task
from mmpareto_jax.training._choices import (
    MULTIMODAL,
    EmbeddedName,
    MethodName,
    TaskName,
)
from mmpareto_jax.training._described.datasets import DATASETS
from mmpareto_jax.training._described.methods import METHODS

WIDTHS = (60, 80, 120)


def told(capsys, *arguments):
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def plain(text):
    """Without the line breaks that the width makes."""
    return " ".join(text.split())


@pytest.fixture(params=WIDTHS)
def width(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_methods_are_listed_once_by_kind(width, capsys):
    out = told(capsys, "methods")
    assert max(map(len, out.splitlines())) < width
    names = re.findall(r"^  (\S+)", out, re.MULTILINE)
    assert sorted(names) == sorted(get_args(MethodName))
    rules, baselines, controls = re.split(r"^(?=baselines|controls)", out, flags=re.M)
    assert "  mgda " in rules
    assert "  ogm-ge " in baselines
    assert "  uniform-gamma " in controls
    for method in METHODS.values():
        assert method.line in plain(out)
        assert method.paper in plain(out)


def test_datasets_are_listed_with_how_to_prepare_them(width, capsys):
    out = told(capsys, "datasets")
    # A layout has no blanks at which to break it.
    assert max(len(x) for x in out.splitlines() if not re.search(r"/|--", x)) < width
    names = re.findall(r"^  (?!mmpareto )(\S+)", out, re.MULTILINE)
    assert sorted(names) == sorted(get_args(TaskName))
    embedded, published = out.split("\npublished: ")
    assert "  scenes " in embedded
    assert "mmpareto prepare NAME --raw DIR --out DIR" in published
    for data in DATASETS.values():
        assert data.sizes in plain(out)
        assert data.raw in plain(out)


@pytest.mark.parametrize("name", get_args(MethodName))
def test_a_method_is_explained_in_full(name, capsys):
    out = told(capsys, "methods", name)
    assert max(map(len, out.splitlines())) < 80
    method = METHODS[name]
    assert method.line in plain(out)
    assert (" promises " in out) == (method.documented.startswith("weightings."))
    if method.documented:
        year = re.findall(r"\d{4}", method.paper)
        said = plain(out).partition(" reference ")[2]
        assert all(x in said for x in year)
        assert f"mmpareto_jax.{method.documented}(" in plain(out)


@pytest.mark.parametrize("name", get_args(TaskName))
def test_a_data_set_is_explained_in_full(name, width, capsys):
    out = told(capsys, "datasets", name)
    assert max(len(x) for x in out.splitlines() if not re.search(r"/|--", x)) < width
    data, said = DATASETS[name], plain(out)
    for text in (data.line, data.sizes, data.raw, data.paper):
        assert text in said
    for array, text in data.arrays.items():
        assert f"{array} {text}" in said
    assert ("--right-noise" in said) == (name == "multi-digits")
    assert ("--fusion" in said) == (name in MULTIMODAL)
    command = (
        f"to prepare mmpareto prepare {name} --raw DIR --out DIR to train mmpareto"
    )
    assert (command in said) == (name in PUBLISHED)
    assert f"mmpareto train {name}" in said


@pytest.mark.parametrize("name", get_args(EmbeddedName))
def test_the_arrays_of_the_data_in_the_package_are_those(name):
    given = make_task(Config(name, train_examples=32)).data["train"]
    check_described(name, given)


def test_own_options_stand_with_their_defaults(capsys):
    out = plain(told(capsys, "methods", "mmpareto"))
    assert "--gamma factor on the encoders' gradients (default: 1.5)" in out
    assert "--max-magnitude upper limit of the magnitude factor in" in out
    assert "https://arxiv.org/abs/2405.17730" in out
    assert "promises never ascends, scale equivariant, any order" in out
    out = plain(told(capsys, "methods", "aligned_mtl"))
    assert "--gamma" not in out
    assert "aligned_mtl(preference=None, *, scale='min')" in out
    assert "--gamma" in told(capsys, "methods", "uniform-gamma")


def test_help_has_every_method_once_in_columns(width, capsys):
    out = told(capsys, "train", "--help")
    assert max(map(len, out.splitlines())) <= width
    table = out.partition("methods (mmpareto methods explains them):")[2]
    for name, method in METHODS.items():
        entry = rf"  {re.escape(name)} +{re.escape(method.words)}(  |$)"
        assert len(re.findall(entry, table, re.MULTILINE)) == 1, name
    usage = out.partition("options of the run")[0]
    assert "mgda" not in usage


LIGHT = """
import sys
from mmpareto_jax.cli import main
assert main(sys.argv[1:]) == 0
print({"jax", "flax", "numpy"} & set(sys.modules))
"""


@pytest.mark.parametrize("command", ["methods", "datasets"])
def test_lists_wait_for_nothing_heavy(command):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("set()\n")
    assert mmp.__version__ not in done.stderr
