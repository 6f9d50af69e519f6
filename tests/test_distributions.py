"""Tests for what is published: the wheel, the sdist, and that they agree."""

import importlib.metadata
import pathlib
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser

import pytest
from packaging.requirements import Requirement

from mmpareto_jax._version import __version__

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent
NAME = f"mmpareto_jax-{__version__}"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

pytest.importorskip("build")


def build(source, out, *flags):
    # Without isolation: the back end is that of the test extra, and nothing is fetched.
    command = ["-m", "build", "--no-isolation", *flags, "--outdir", str(out), source]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Name -> content, of the wheel from the source tree."""
    out = build(ROOT, tmp_path_factory.mktemp("wheel"), "--wheel")
    return read_wheel(out)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What ``python -m build`` writes: an sdist, and a wheel from that sdist."""
    return build(ROOT, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def sdist(published):
    """Names in the sdist."""
    with tarfile.open(published / f"{NAME}.tar.gz") as archive:
        names = [x.name for x in archive.getmembers() if x.isfile()]
    assert all(name.startswith(f"{NAME}/") for name in names)
    return {name.removeprefix(f"{NAME}/") for name in names}


def read_wheel(folder):
    with zipfile.ZipFile(folder / f"{NAME}-py3-none-any.whl") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def source_files(folder):
    found = (ROOT / folder).rglob("*")
    return {
        path.relative_to(ROOT).as_posix(): path
        for path in found
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_is_the_package(wheel):
    """All of it, the data and py.typed too, and nothing else."""
    files = {n: x for n, x in wheel.items() if not n.startswith(f"{NAME}.dist-info/")}
    expected = source_files("mmpareto_jax")
    assert files.keys() == expected.keys()
    assert all(files[name] == path.read_bytes() for name, path in expected.items())
    assert "mmpareto_jax/py.typed" in files
    assert "mmpareto_jax/data/av_digits/train.ogg" in files
    kinds = {pathlib.PurePath(name).suffix for name in files}
    assert kinds == {".py", ".typed", ".ogg", ".json", ".md"}


def test_the_sdist_has_the_package_and_its_tests(sdist):
    assert source_files("mmpareto_jax").keys() <= sdist
    assert {"tests/test_mmpareto.py", "tests/golden/torchjd_shared.npz"} <= sdist
    above = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"}
    above |= {"PKG-INFO", ".gitignore"}
    assert {name for name in sdist if "/" not in name} == above
    assert {name.split("/")[0] for name in sdist} - above == {"mmpareto_jax", "tests"}
    assert not [name for name in sdist if "__pycache__" in name or ".egg-info" in name]


def test_the_sdist_builds_the_same_wheel(wheel, published):
    assert read_wheel(published) == wheel


def test_metadata(wheel):
    metadata = Parser().parsestr(wheel[f"{NAME}.dist-info/METADATA"].decode())
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == set(
        PROJECT["optional-dependencies"]
    )
    needed = [x for x in metadata.get_all("Requires-Dist") if "extra ==" not in x]
    assert sorted(needed) == sorted(PROJECT["dependencies"])
    scripts = wheel[f"{NAME}.dist-info/entry_points.txt"].decode()
    assert "mmpareto = mmpareto_jax.cli:main" in scripts
    assert f"{NAME}.dist-info/licenses/LICENSE" in wheel


def test_what_extras_ask_of_others_is_there():
    """pip only warns of an extra that jax does not have, and installs without it."""
    for requirements in PROJECT["optional-dependencies"].values():
        for requirement in map(Requirement, requirements):
            if requirement.name == PROJECT["name"]:
                known = set(PROJECT["optional-dependencies"])
            elif requirement.extras:
                found = importlib.metadata.metadata(requirement.name)
                known = set(found.get_all("Provides-Extra"))
            else:
                continue
            assert requirement.extras <= known, requirement


def test_the_version_is_written_once():
    """In ``_version.py``, where the build reads it."""
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    text = (ROOT / "mmpareto_jax" / "_version.py").read_text()
    assert text.count(__version__) == 1
    for path in ("mmpareto_jax/__init__.py", "pyproject.toml", "notebooks/conf.py"):
        if (ROOT / path).exists():  # notebooks are not in the sdist
            assert f'"{__version__}"' not in (ROOT / path).read_text()


def test_the_changelog_begins_with_this_version():
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    first = next(line for line in lines if line.startswith("## "))
    assert first.split()[1] == __version__
