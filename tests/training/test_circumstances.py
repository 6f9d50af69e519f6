"""How a run began, as its directory tells."""

import subprocess

import pytest

from mmpareto_jax.training._run import circumstances as module
from mmpareto_jax.training._run.circumstances import circumstances, commit_of


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """With one commit; git has the time that it needs."""
    monkeypatch.setattr(module, "_PATIENCE", 60)
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "a")
    return tmp_path


def test_the_commit_and_whether_something_has_changed(repository):
    commit = git(repository, "rev-parse", "HEAD")
    assert commit_of(repository) == {"commit": commit, "dirty": False}
    (repository / "new").write_text("not of the repository")
    (repository / "folder").mkdir()
    assert commit_of(repository / "folder") == {"commit": commit, "dirty": False}
    (repository / "a").write_text("22")
    assert commit_of(repository) == {"commit": commit, "dirty": True}


def test_without_git_or_a_repository_or_a_commit_there_is_none(
    repository, tmp_path_factory, monkeypatch
):
    other = tmp_path_factory.mktemp("other")
    assert commit_of(other) is None
    git(other, "init", "-q")
    assert commit_of(other) is None
    monkeypatch.setenv("PATH", "")
    assert commit_of(repository) is None


def test_a_repository_that_takes_long_has_its_commit_at_least(repository, monkeypatch):
    ask = module._git

    def late(folder, *arguments, patience):
        return [] if "status" in arguments else ask(folder, *arguments, patience=60)

    monkeypatch.setattr(module, "_git", late)
    commit = git(repository, "rev-parse", "HEAD")
    assert commit_of(repository) == {"commit": commit, "dirty": None}


def test_where_and_how_the_process_works(repository, monkeypatch):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=false")
    monkeypatch.setenv("A_PASSWORD", "secret")
    monkeypatch.setattr("sys.argv", ["mmpareto", "train", "--lr", "0.1"])
    found = circumstances()
    assert found["argv"] == ["mmpareto", "train", "--lr", "0.1"]
    assert found["environment"]["XLA_FLAGS"] == "--xla_cpu_enable_fast_math=false"
    assert "A_PASSWORD" not in found["environment"]
    commit = git(repository, "rev-parse", "HEAD")
    expected = {"commit": commit, "dirty": False}
    assert found["git"]["working directory"] == expected
    assert found["jax"]["jax_enable_x64"] is False
