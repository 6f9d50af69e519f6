"""The code of the guides and recipes runs, where what it is for is installed.

Kauldron, Tunix and Gymnax have environments of their own: see the pages.
"""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parent.parent / "notebooks" / "docs"
PAGES = DOCS / "recipes"
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


OWN = blocks(DOCS / "own_data.md")


# A ResNet, and a comparison.
LONG = [n for n, x in enumerate(OWN) if "ResNet18" in x or "compare(task" in x]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(n, marks=[pytest.mark.slow][n not in LONG :])
        for n in range(len(OWN))
    ],
)
def test_the_page_on_own_data(number, monkeypatch, tmp_path, capsys):
    """Each block for itself, but the comparison, which is of the task before it."""
    monkeypatch.chdir(tmp_path)
    code = OWN[number]
    if "compare(task" in code:
        code = OWN[number - 1] + code
    exec(compile(code, "own_data.md", "exec"), {"__name__": "own_data"})
    said = capsys.readouterr().out
    if number == 0:
        accuracy = float(said.splitlines()[-1])
        assert accuracy > 0.6  # of four classes
        assert (tmp_path / "runs" / "watch" / "report.html").exists()
    if "compare(task" in code and number:
        assert "| mmpareto |" in said
    if "Printed" in code:
        assert len(said.splitlines()) == 2


def test_the_examples_are_as_short_as_they_are_said_to_be():
    """Three modalities from arrays under 25 lines, an own model under 40."""
    lines = [len([x for x in code.splitlines() if x.strip()]) for code in OWN]
    assert lines[0] < 25
    assert lines[2] < 40
