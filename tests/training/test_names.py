"""Tests for names as they are shown: short, and different where they have to be."""

import types

import pytest

from mmpareto_jax.training._described.names import shortened, tag
from mmpareto_jax.training._run.writers import TensorBoard

MANY = "+".join(f"example{i}" for i in range(1000))
LONG = "x" * 500


@pytest.mark.parametrize("width", [20, 40, 60])
@pytest.mark.parametrize("name", ["a", "a+b", MANY, LONG, f"{LONG}+{LONG}", "a" * 40])
def test_a_name_fits_and_keeps_its_ends(name, width):
    shown = shortened(name, width)
    assert len(shown) <= width
    assert (shown == name) == (len(name) <= width)
    assert shown[:3] == name[:3]


def test_parts_may_be_joined_by_commas():
    assert shortened(MANY.replace("+", ", "), 60, ", ") == (
        "example0, example1, …, example999 (1000)"
    )


def test_tags_are_short_and_different():
    other = MANY.replace("example500", "sample500")
    names = [
        f"{group}/{kind}"
        for group in (MANY, other, LONG, "joint+audio")
        for kind in ("cosine", "conflict", f"weight/{LONG}")
    ]
    tags = [tag(name) for name in names]
    assert len(set(tags)) == len(names)
    assert max(map(len, tags)) < 110
    assert not any("+" in x for x in tags)
    assert tag("joint+audio/weight/audio") == "joint_audio/weight/audio"


def test_tensorboard_has_short_tags(tmp_path):
    board = TensorBoard()
    board.on_start(types.SimpleNamespace(workdir=tmp_path, step=0, kept=[]))
    board._record(1, "train", {f"{MANY}/cosine": 0.5, "loss/joint": 1.0})
    board.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    data = events.read_bytes()
    assert len(data) < 2000
    assert tag(f"{MANY}/cosine").encode() in data
    assert b"train/loss/joint" in data
