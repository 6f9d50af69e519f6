"""Groups as a value: made by hand, looked up, printed, refused."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import mmpareto_jax as mmp
from mmpareto_jax._gradients.groups import as_groups, named_leaves, path_name

PREFIXES = {
    "audio": ("joint", "audio"),
    "visual": ("joint", "visual"),
    "head": ("joint",),
    "head/audio": ("audio",),
}


def test_the_longest_prefix_decides():
    groups = mmp.ObjectiveGroups.from_prefixes(PREFIXES)
    assert groups.objectives == ("joint", "audio", "visual")
    assert groups.group_of("head") == "head"
    assert groups.group_of("head/joint/kernel") == "head"
    assert groups.group_of("head/audio/kernel") == "head/audio"
    assert groups.group_of("audio/conv/0") == "audio"


@pytest.mark.parametrize("path", ["text", "audio2", "audi", "", "x/audio"])
def test_a_prefix_is_whole_keys(path):
    groups = mmp.ObjectiveGroups.from_prefixes(PREFIXES)
    with pytest.raises(ValueError, match=f"parameter '{path}' belongs to no group"):
        groups.group_of(path)


def test_the_empty_prefix_matches_all():
    groups = mmp.ObjectiveGroups.from_prefixes({"": ("a", "b"), "head": ("a",)})
    assert groups.group_of("") == groups.group_of("trunk/0") == ""
    assert groups.group_of("head/kernel") == "head"


def test_from_labels():
    """A tree of labels, also one that stops above the parameters."""
    labels = {"audio": [{"kernel": "a", "bias": "a"}, "a"], "head": "h"}
    rules = {"a": ("joint", "audio"), "h": ("joint",)}
    groups = mmp.ObjectiveGroups.from_labels(labels, rules)
    assert groups.group_of("audio/0/kernel") == "a"
    assert groups.group_of("audio/1/deeper/kernel") == "a"
    assert groups.group_of("head") == "h"


def test_value_semantics():
    one = mmp.ObjectiveGroups.from_prefixes(PREFIXES)
    two = mmp.ObjectiveGroups.from_prefixes(
        dict(reversed(PREFIXES.items())), one.objectives
    )
    assert one == two
    assert hash(one) == hash(two)
    assert one != mmp.ObjectiveGroups.from_prefixes(PREFIXES | {"head": ("audio",)})
    assert jax.jit(lambda x, g: x, static_argnums=1)(1.0, one) == 1.0


def test_prints_as_a_table():
    groups = mmp.ObjectiveGroups.from_prefixes(PREFIXES | {"frozen": ()})
    lines = str(groups).splitlines()
    assert lines[0].split() == ["group", "objectives", "parameters"]
    assert lines[1].split() == ["audio", "joint,", "audio", "audio"]
    assert lines[-1].split() == ["frozen", "-", "frozen"]


def test_prints_many_parameters_shortly():
    labels = {f"layer{i}": "all" for i in range(9)}
    groups = mmp.ObjectiveGroups.from_labels(labels, {"all": ("a", "b")})
    assert "... (9 in all)" in str(groups)
    assert "(all)" in str(as_groups(2, "test"))


@pytest.mark.parametrize(
    ("prefixes", "objectives", "match"),
    [
        ({"a": ("x",)}, ("y",), "unknown objective 'x' in group 'a'"),
        ({"a": ("x", "x")}, None, "group 'a' names an objective twice"),
        ({"a": ("x",)}, ("x", "x"), "objectives must differ"),
    ],
)
def test_errors(prefixes, objectives, match):
    with pytest.raises(ValueError, match=f"ObjectiveGroups: .*{match}"):
        mmp.ObjectiveGroups.from_prefixes(prefixes, objectives)


def test_a_word_is_no_sequence_of_names():
    with pytest.raises(TypeError, match="group 'a' must be a sequence of names"):
        mmp.ObjectiveGroups.from_prefixes({"a": "joint"})


def test_unknown_group():
    with pytest.raises(ValueError, match="unknown group 'b' for 'head'"):
        mmp.ObjectiveGroups.from_labels({"head": "b"}, {"a": ("x",)})


def test_as_groups():
    given = mmp.ObjectiveGroups.from_prefixes(PREFIXES)
    assert as_groups(given, "test") is given
    assert as_groups(2, "test").groups == {"all": ("0", "1")}
    assert as_groups(["x", "y"], "test").group_of("any/path") == "all"


def test_paths():
    tree = {"a": [jnp.zeros(1), {"b": jnp.zeros(1)}], "value": jnp.zeros(1)}
    assert [path for path, _ in named_leaves(tree)] == ["a/0", "a/1/b", "value"]
    assert path_name(()) == ""


def test_nnx_paths_are_alike_with_and_without_variables():
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
    paths = [path for path, _ in named_leaves(state)]
    assert paths == [path for path, _ in named_leaves(nnx.as_pure(state))]
    assert sorted(paths) == ["bias", "kernel"]


def test_prints_the_shortest_path_that_is_of_no_other_group():
    """A common first key (Linen), and a part of an encoder that is frozen."""
    groups = mmp.ObjectiveGroups(
        ("joint", "audio"),
        {"both": ("joint", "audio"), "joint": ("joint",), "none": ()},
        {
            "params/audio/conv/kernel": "both",
            "params/audio/conv/bias": "both",
            "params/audio/stem/kernel": "none",
            "params/visual/conv/kernel": "joint",
            "params/visual/stem/kernel": "joint",
        },
    )
    assert groups.describe("both")[0] == "params/audio/conv"
    assert groups.describe("joint")[0] == "params/visual"
    assert groups.describe("none")[0] == "params/audio/stem"
