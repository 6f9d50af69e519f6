"""The notebooks run as they are, draw what they promise, and are clean in git."""

import ast
import base64
import io
import json
import os
import pathlib
import re

import matplotlib.image
import nbclient
import nbformat
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = {
    "01_quickstart": 3,
    "02_geometry": 4,
    "03_audio_visual": 5,
    "04_multi_task": 3,
    "05_your_model": 1,
    "06_scale": 2,
    "07_physics_informed": 3,
}
BADGE = re.compile(
    r"\[!\[Open in Colab\]\(https://colab\.research\.google\.com/assets/"
    r"colab-badge\.svg\)\]\(https://colab\.research\.google\.com/github/"
    r"(?P<repository>[\w.-]+/[\w.-]+)/blob/main/(?P<path>[^)]+)\)"
)
PARAM = re.compile(r"(?P<name>\w+) = (?P<value>.+?)\s+# ?@param (?P<form>.+)")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [x for cell in code_cells(notebook) for x in cell.outputs]


def test_there_are_notebooks():
    assert set(FIGURES) <= {path.stem for path in NOTEBOOKS}


@pytest.mark.slow
@each_notebook
def test_runs(path, tmp_path, monkeypatch):
    """In an empty directory, without an error or a word on stderr."""
    search = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(search))
    notebook = read(path)
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(
        notebook,
        timeout=180,  # of a cell: one that hangs is named
        kernel_name="python3",
        resources=resources,
        shutdown_kernel="immediate",
    )
    client.execute()
    said = [x.text for x in outputs(notebook) if x.get("name") == "stderr"]
    assert not said

    pictures = [
        base64.b64decode(x.data["image/png"])
        for x in outputs(notebook)
        if "image/png" in x.get("data", {})
    ]
    assert len(pictures) >= FIGURES.get(path.stem, 1)
    for picture in pictures:
        pixels = matplotlib.image.imread(io.BytesIO(picture), format="png")[..., :3]
        colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
        assert len(colours) > 50
        assert counts.max() < 0.99 * counts.sum()  # more than background
        assert min(pixels.shape[:2]) > 200


@each_notebook
def test_is_valid_and_holds_no_results(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not outputs(notebook)
    assert all(cell.execution_count is None for cell in code_cells(notebook))
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_opens_in_colab(path):
    """The badge leads to this file, and the first code cell installs the package."""
    notebook = read(path)
    badge = BADGE.search(notebook.cells[0].source)
    assert badge
    assert badge["path"] == path.relative_to(ROOT).as_posix()
    install = code_cells(notebook)[0].source
    assert 'if importlib.util.find_spec("mmpareto_jax") is None:' in install
    assert f"mmpareto-jax[train] @ git+https://github.com/{badge['repository']}" in (
        install
    )


def test_all_name_one_repository():
    found = {
        BADGE.search(read(path).cells[0].source)["repository"] for path in NOTEBOOKS
    }
    assert len(found) == 1, found


@each_notebook
def test_form_fields(path):
    """Each is ``name = value  # @param form``, and the form offers the value."""
    lines = [
        line
        for cell in code_cells(read(path))
        for line in cell.source.splitlines()
        if "@param" in line
    ]
    assert lines
    for line in lines:
        found = PARAM.fullmatch(line)
        assert found, line
        value, form = ast.literal_eval(found["value"]), found["form"]
        # Colab takes keys without quotes, too.
        form, _ = json.JSONDecoder().raw_decode(
            re.sub(r"([{,]\s*)(\w+)\s*:", r'\1"\2":', form)
        )
        if isinstance(form, list):
            assert value in form, line
        elif form["type"] == "slider":
            assert form["min"] <= value <= form["max"], line
        else:
            kinds = {"integer": int, "number": (int, float), "boolean": bool}
            assert isinstance(value, kinds.get(form["type"], str)), line


@each_notebook
def test_links_exist(path):
    text = "\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (path.parent / link).exists(), link
