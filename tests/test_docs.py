"""The documentation site builds without a warning, and leaves no public name out."""

import importlib
import inspect
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

import mmpareto_jax

ROOT = pathlib.Path(__file__).parent.parent
SITE = ROOT / "notebooks"
REFERENCE = SITE / "docs" / "reference"
MODULES = ["mmpareto_jax"] + [
    f"mmpareto_jax.{found.name}"
    for found in pkgutil.iter_modules(mmpareto_jax.__path__)
    if found.ispkg and not found.name.startswith("_")
]
COMMAND = "sphinx-build -W --keep-going notebooks build/site"
DIRECTIVE = re.compile(
    r"^\.\. (?:auto(?:function|class|data)|py:data):: (\S+)$", re.MULTILINE
)


def documented():
    text = "\n".join(path.read_text() for path in REFERENCE.glob("*.rst"))
    return DIRECTIVE.findall(text)


def lookup(path):
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def public(module):
    return {
        name: x
        for name, x in inspect.getmembers(importlib.import_module(module))
        if not name.startswith("_") and not inspect.ismodule(x)
    }


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module):
    """Under this path, or another one of the same object."""
    seen = [lookup(path) for path in documented()]
    names = public(module)
    assert names
    missing = [n for n, x in names.items() if not any(x is other for other in seen)]
    assert not missing


def test_nothing_is_described_twice():
    paths = documented()
    assert len(set(paths)) == len(paths)


def test_every_page_is_reached():
    index = (SITE / "index.md").read_text()
    for path in (SITE / "docs").rglob("*.*"):
        if path.suffix in (".md", ".rst"):
            page = path.relative_to(SITE).with_suffix("").as_posix()
            assert f"\n{page}\n" in index, page


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built by the command of CONTRIBUTING.md, to another place."""
    pytest.importorskip("sphinx")
    assert COMMAND in (ROOT / "CONTRIBUTING.md").read_text()
    out = tmp_path_factory.mktemp("site")
    arguments = COMMAND.replace("build/site", str(out)).split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_the_site_has_all_pages(site):
    for notebook in SITE.glob("*.ipynb"):
        assert (site / f"{notebook.stem}.html").exists()
    home = (site / "index.html").read_text()
    assert "One descent direction for several losses" in home
    assert "_images/av_digits_cosine.png" in home


@pytest.mark.slow
def test_formulas_and_names_are_rendered(site):
    """No markup of the docstrings is left over as text."""
    pages = list((site / "docs" / "reference").glob("*.html"))
    assert len(pages) == len(list(REFERENCE.glob("*.rst")))
    for page in pages:
        text = re.sub(r"<[^>]+>", "", page.read_text())
        assert ":math:" not in text
        assert ":func:" not in text
        assert "Alias for field number" not in text
    assert "<math" in (site / "docs" / "reference" / "core.html").read_text()


@pytest.mark.slow
def test_no_page_fetches_a_script_or_a_font(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link)[^>]*(?:src|href)=\"(https?:[^\"]+)", page.read_text()
        )
        assert not loaded, page
