"""Names against what stands behind them: no table lacks one, none has another."""

from typing import get_args

import pytest

import mmpareto_jax as mmp
from mmpareto_jax._published import PUBLISHED
from mmpareto_jax.data import sources
from mmpareto_jax.training import _choices as choices
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
