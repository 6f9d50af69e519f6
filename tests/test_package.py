"""The package from outside: light to import, versioned, documented."""

import importlib.metadata
import inspect
import pathlib
import subprocess
import sys

import pytest

import mmpareto_jax as mmp
from mmpareto_jax._version import __version__

TRAIN = ("flax", "grain", "matplotlib", "orbax", "rich", "sklearn", "soundfile")
TRAIN += ("tensorboardX", "chex")


def test_import_is_light():
    """jax and optax alone: nothing of the train extra, and no room above the core."""
    code = "import sys, mmpareto_jax; print(*sys.modules); mmpareto_jax.mmpareto(2)"
    path = str(pathlib.Path(mmp.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=path,
    )
    modules = set(done.stdout.split())
    assert {"jax", "optax", "mmpareto_jax"} <= modules
    assert not {name for name in modules if name.split(".")[0] in TRAIN}
    above = ("models", "data", "problems", "training", "cli")
    assert not {f"mmpareto_jax.{name}" for name in above} & modules


def test_version():
    assert mmp.__version__ == __version__
    try:
        importlib.metadata.distribution("mmpareto-jax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package runs from its source and is not installed")
    assert importlib.metadata.version("mmpareto-jax") == __version__


def public():
    names = {name: getattr(mmp, name) for name in vars(mmp) if not name.startswith("_")}
    names |= {
        f"weightings.{name}": x
        for name, x in vars(mmp.weightings).items()
        if not name.startswith("_")
    }
    return {n: x for n, x in names.items() if not _unlisted(n)}


def _unlisted(name):
    """Rooms that a test imported by their own path are attributes, too."""
    return name in ("models", "data", "problems", "training", "cli")


def test_every_public_name_has_a_docstring():
    undocumented = [name for name, x in public().items() if not inspect.getdoc(x)]
    assert undocumented == []
    members = [
        f"{name}.{member}"
        for name, x in public().items()
        if inspect.isclass(x)
        for member, value in vars(x).items()
        if not member.startswith("_") and inspect.isroutine(value)
        if not inspect.getdoc(getattr(x, member))
    ]
    assert members == []


def test_every_public_function_shows_an_example():
    functions = {n: x for n, x in public().items() if inspect.isfunction(x)}
    assert {"mmpareto", "aggregate", "weightings.mgda"} <= set(functions)
    assert [n for n, x in functions.items() if ">>>" not in inspect.getdoc(x)] == []


def test_the_public_names():
    expected = """
        AggregateState ObjectiveGroups Weighting aggregate diagnostics gramian
        min_norm_weights mmpareto objective_groups value_and_objective_grads weightings
    """
    assert set(expected.split()) <= set(public())


def test_typed():
    assert (pathlib.Path(mmp.__file__).parent / "py.typed").exists()
