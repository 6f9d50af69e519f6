"""Names against what stands behind them: no table lacks one, none has another."""

import re
from typing import get_args

import jax.numpy as jnp
import promises
import pytest

import mmpareto_jax as mmp
from mmpareto_jax import training
from mmpareto_jax._published import PUBLISHED
from mmpareto_jax.data import as_examples, sources
from mmpareto_jax.training import _choices as choices
from mmpareto_jax.training._described.datasets import DATASETS
from mmpareto_jax.training._described.methods import METHODS
from mmpareto_jax.training._described.promises import PROMISES
from mmpareto_jax.training._methods import registry as methods
from mmpareto_jax.training._options.of_all import EMBEDDED
from mmpareto_jax.training._tasks import architecture
from mmpareto_jax.training._tasks import registry as tasks


def test_every_rule_of_the_library_is_a_method():
    """All but the one whose weights the user gives, and the one around another."""
    rules = {name for name in vars(mmp.weightings) if name.islower()}
    names = {name.replace("_", "-") for name in rules if name[0] != "_"}
    assert set(get_args(choices.RuleName)) == names - {"constant", "smoothed"}


def test_every_other_method_is_made_by_the_registry():
    others = set(get_args(choices.MethodName)) - set(get_args(choices.RuleName))
    assert others <= set(methods._METHODS) <= set(get_args(choices.MethodName))


def test_a_task_is_of_one_kind_and_its_data_of_one_source():
    names = get_args(choices.TaskName)
    assert sorted(names) == sorted(choices.MULTIMODAL + choices.MULTI_TASK)
    assert sorted(names) == sorted((*EMBEDDED, *PUBLISHED))
    assert sources.NAMES == PUBLISHED


@pytest.mark.parametrize(
    ("names", "tables"),
    [
        (choices.MethodName, [METHODS]),
        (choices.TaskName, [DATASETS]),
        (choices.EmbeddedName, [EMBEDDED]),
        (choices.EmbeddedName, [tasks.EMBEDDED]),
        (choices.HeadName, [architecture.HEADS]),
        (choices.InteractionName, [architecture.INTERACTIONS]),
        (choices.FusionName, [architecture.HEADS, architecture.INTERACTIONS]),
        (choices.SharingName, [architecture.SHARINGS]),
    ],
)
def test_tables_are_complete(names, tables):
    assert sorted(get_args(names)) == sorted(key for table in tables for key in table)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_data_set_has_its_module(name):
    assert isinstance(sources.options_of(name), tuple)


RULES = {k.replace("_", "-"): m for k, m in promises.METHODS.items() if k != "constant"}


def words(text):
    """What a note has between its commas."""
    return set(filter(None, re.split("[,;] ", text)))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_described_as_its_promises_are_tested(name):
    said, known = METHODS[name], RULES[name]
    assert said.paper == known.paper
    assert said.documented == f"weightings.{name.replace('-', '_')}"
    notes = words(known.note.replace("here", "promises with"))
    needed = {x.removeprefix("the ") for x in words(said.needs)}
    assert (needed | words(said.note)) - {"at least 3 objectives"} == notes
    kept = {promise for promise, rules in PROMISES.items() if name in rules}
    assert kept == {
        promise
        for promise, holds in {
            "never ascends": known.descends,
            "linear in each length": known.linear,
            "scale equivariant": known.scales,
            "any order": known.symmetric,
        }.items()
        if holds
    }


def test_promises_are_of_rules():
    assert {name for rules in PROMISES.values() for name in rules} <= set(RULES)


@pytest.mark.parametrize("name", ["trimmed-mean", "krum"])
def test_three_objectives_are_needed_where_that_is_said(name):
    assert "at least 3 objectives" in METHODS[name].needs
    tx = mmp.aggregate(RULES[name].rule, ("a", "b"))
    params = {"w": jnp.zeros(3)}
    with pytest.raises(ValueError, match=name.replace("-", "_")):
        tx.update({"w": jnp.ones((2, 3))}, tx.init(params), params)


@pytest.mark.parametrize(
    "name", choices.MULTI_TASK_METHODS + choices.MULTIMODAL_METHODS
)
def test_a_word_or_two_and_a_line(name):
    said = METHODS[name]
    assert said.kind == ("control" if name in ("joint", "single-task") else "baseline")
    assert bool(said.paper) == bool(said.documented) == (said.kind == "baseline")


def test_descriptions_are_short():
    for said in METHODS.values():
        assert 0 < len(said.words) <= 18
        assert 0 < len(said.line) <= 62
        assert not said.line.endswith(".")


@pytest.mark.parametrize("name", EMBEDDED)
def test_sizes_of_embedded_data_are_those_of_their_arrays(name):
    data = training.make_task(training.Config(name)).data
    sizes = [len(as_examples(source)) for source in data.values()]
    assert DATASETS[name].sizes == " / ".join(f"{n:,}" for n in sizes)
    assert sizes[0] == EMBEDDED[name]


def test_published_data_say_which_files_they_are_of():
    assert {name for name, data in DATASETS.items() if data.raw} == set(PUBLISHED)
