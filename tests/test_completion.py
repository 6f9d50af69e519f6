"""Tests for the completion scripts: what the shells themselves make of them."""

import shutil
import subprocess

import pytest

from mmpareto_jax._cli import completion as _completion
from mmpareto_jax.cli import main

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
words=($(complete -p mmpareto)); function=${words[-2]}
"$function" mmpareto "${COMP_WORDS[-1]}" 2> /dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'source "$argv[1]"; complete -C "$argv[2]"'

CASES = [
    (
        "",
        {"train", "evaluate", "plot", "report", "compare", "sweep", "prepare"}
        | {"check", "completion", "datasets", "methods"},
    ),
    ("tr", {"train"}),
    ("train av", {"av-digits"}),
    ("train --met", {"--method"}),
    ("train --no-co", {"--no-conflict-test"}),
    ("train --method mg", {"mgda"}),
    ("train av-digits --lr 0.1 --method mmp", {"mmpareto"}),
    ("evaluate run --checkpoint ", {"best", "latest"}),
    ("train --workdir fol", {"folder"}),
    ("prepare crema-d --raw fol", {"folder"}),
    ("report elsewhere fol", {"folder"}),
    ("check fol", {"folder"}),
    ("completion ", set(_completion.SHELLS)),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """By shell; beside them, something to complete."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "folder").mkdir()
    paths = {}
    for shell in _completion.SHELLS:
        with pytest.MonkeyPatch.context() as patch, open(folder / shell, "w") as file:
            patch.setattr("sys.stdout", file)
            assert main(["completion", shell]) == 0
        paths[shell] = folder / shell
    return paths


def run(shell, arguments, cwd):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run(
        [shell, *arguments], capture_output=True, text=True, check=True, cwd=cwd
    )
    return done.stdout


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash_completes(line, expected, scripts):
    path = scripts["bash"]
    words = ["mmpareto", *line.split(" ")]
    out = run("bash", ["--norc", "-c", BASH, "bash", str(path), *words], path.parent)
    assert set(out.split()) == expected


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish_completes(line, expected, scripts):
    path = scripts["fish"]
    arguments = ["--no-config", "-c", FISH, str(path), f"mmpareto {line}"]
    out = run("fish", arguments, path.parent)
    # Each line is a word, and after a tabulator what it does.
    found = {row.split("\t")[0].removesuffix("/") for row in out.splitlines()}
    assert expected <= found


def test_zsh_reads_it(scripts):
    path = scripts["zsh"]
    run("zsh", ["-f", "-n", str(path)], path.parent)
    code = (
        'autoload -Uz compinit; compinit -D -u; eval "$(<$1)"; print $_comps[mmpareto]'
    )
    assert "mmpareto" in run("zsh", ["-f", "-c", code, "zsh", str(path)], path.parent)


def test_an_unknown_shell(capsys):
    assert main(["completion", "csh"]) == 2
    assert "unknown shell csh; did you mean zsh?" in capsys.readouterr().err
