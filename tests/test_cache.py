"""Compiled programs are kept between commands."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

import mmpareto_jax as mmp
from mmpareto_jax._cli import cache
from mmpareto_jax._cli.parser import make_parser

NAME = "JAX_COMPILATION_CACHE_DIR"


def configured():
    return (
        os.environ.get(NAME),
        jax.config.jax_compilation_cache_dir,
        jax.config.jax_enable_compilation_cache,
        jax.config.jax_persistent_cache_min_compile_time_secs,
    )


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's cache directory, of a user who has configured nothing."""
    monkeypatch.delenv(NAME, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def test_by_default_in_the_users_cache(home):
    before = configured()
    with cache.kept(None):
        there = str(home / "mmpareto_jax" / "xla")
        assert configured() == (there, there, True, 0.0)
        assert os.path.isdir(there)
    assert configured() == before


def test_without_xdg_in_the_home(home, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(home))
    with cache.kept(None):
        assert os.environ[NAME] == str(home / ".cache" / "mmpareto_jax" / "xla")


def test_what_is_configured_wins_but_for_the_flag(home, monkeypatch):
    monkeypatch.setenv(NAME, "elsewhere")
    with cache.kept(None):
        assert os.environ[NAME] == "elsewhere"
    monkeypatch.delenv(NAME)
    jax.config.update("jax_compilation_cache_dir", "in-python")
    with cache.kept(None):
        assert configured()[:2] == (None, "in-python")
    with cache.kept(str(home / "own")):
        assert configured()[:2] == (str(home / "own"),) * 2
    assert [x.name for x in home.iterdir()] == ["own"]


def test_none(home):
    with cache.kept(False):
        assert not jax.config.jax_enable_compilation_cache
        assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "False"
    assert jax.config.jax_enable_compilation_cache
    assert not list(home.iterdir())


def test_one_that_cannot_be_written_is_a_warning(home, capsys):
    (home / "file").write_text("")
    before = configured()
    with cache.kept(str(home / "file")):
        assert configured() == before
    told = capsys.readouterr().err
    assert told.startswith("mmpareto: compiled programs are not kept: ")
    assert str(home / "file") in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    "command", ["train", "evaluate runs/a", "compare", "sweep"], ids=str.split
)
def test_flags(command):
    parse = make_parser().parse_args
    own = command.split()
    assert parse(own).cache is None
    assert parse([*own, "--cache", "there"]).cache == "there"
    assert parse([*own, "--no-cache"]).cache is False
    with pytest.raises(SystemExit):
        parse([*own, "--no-cache", "--cache", "there"])


@pytest.mark.slow
def test_a_second_run_compiles_nothing(tmp_path, quick_processes):
    """In another process: all that it needs is there."""
    environment = {
        k: x
        for k, x in os.environ.items()
        if not k.startswith(("JAX_COMP", "JAX_PERS"))
    }
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "user"), **quick_processes}
    code = """
import sys, jax.monitoring
counts = {}
def count(name, **_):
    counts[name] = counts.get(name, 0) + 1
jax.monitoring.register_event_listener(count)
from mmpareto_jax.cli import main
assert main(sys.argv[1:]) == 0
found = [counts.get(f"/jax/compilation_cache/cache_{x}", 0) for x in ("hits", "misses")]
print("counts", *found)
"""
    command = ["train", "--train-examples", "32", "--width", "4", "--steps", "1"]

    def train(name):
        out = subprocess.check_output(
            [sys.executable, "-c", code, *command, "--workdir", str(tmp_path / name)],
            text=True,
            env=environment,
            cwd=pathlib.Path(mmp.__file__).parents[1],
        )
        (line,) = [x for x in out.splitlines() if x.startswith("counts ")]
        return tuple(map(int, line.split()[1:]))

    _, misses = train("first")
    kept = {path.name for path in (tmp_path / "user").rglob("*-cache")}
    assert misses > 0
    assert kept
    hits, misses = train("second")
    assert hits > 0
    assert misses == 0
    assert {path.name for path in (tmp_path / "user").rglob("*-cache")} == kept
