"""The code of the recipes runs, where the trainer is installed that it is for.

Kauldron, Tunix and Gymnax have environments of their own: see the pages.
"""

import pathlib
import re

import pytest

PAGES = pathlib.Path(__file__).parent.parent / "notebooks" / "docs" / "recipes"
NEEDS = {
    "nnx": "flax",
    "instance_wise": "jax",
    "kauldron": "kauldron",
    "tunix": "tunix",
    "reinforcement_learning": "gymnax",
}


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.DOTALL | re.M)


def test_every_page_is_known():
    assert {path.stem for path in PAGES.glob("*.md")} == set(NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NEEDS)
def test_the_code_runs(name, monkeypatch, tmp_path):
    """Block after block, in one namespace and an empty directory."""
    pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    found, namespace = blocks(PAGES / f"{name}.md"), {"__name__": "recipe"}
    assert found
    for block in found:
        exec(compile(block, f"{name}.md", "exec"), namespace)
