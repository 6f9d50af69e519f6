"""The README's code runs, and its commands are the ones that CI runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(number, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # one trains
    exec(compile(BLOCKS[number], "README.md", "exec"), {})


def test_the_complete_example_prints_diagnostics(capsys):
    (block,) = [x for x in BLOCKS if "mmp.diagnostics(" in x]
    exec(compile(block, "README.md", "exec"), {})
    assert "joint+audio cosine" in capsys.readouterr().out


def test_relative_links_exist():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_ci_runs_the_readme_command():
    command = 'pip install -e ".[test]" && pytest'
    assert command in README
    assert command in (ROOT / ".ci/run").read_text()
