"""The package from outside: light to import, versioned, documented."""

import ast
import dataclasses
import importlib.metadata
import inspect
import pathlib
import pickle
import pkgutil
import re
import subprocess
import sys

import pytest

import mmpareto_jax as mmp
from mmpareto_jax._published import PUBLISHED
from mmpareto_jax._version import __version__

TRAIN = ("flax", "grain", "matplotlib", "orbax", "rich", "sklearn", "soundfile")
TRAIN += ("tensorboardX", "chex")
COMMANDS = ("train", "evaluate", "plot", "report", "compare", "sweep", "prepare")
COMMANDS += ("check", "completion")


def loaded(code):
    """The modules that are there after ``code`` in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('|', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=pathlib.Path(mmp.__file__).parents[1],
    )
    return set(done.stdout.rpartition("|")[2].split())


def outside(modules):
    """Of these, what is neither the standard library's nor ours."""
    roots = {name.split(".")[0] for name in modules}
    ours = {"mmpareto_jax", "__main__", "sitecustomize"}
    return {n for n in roots if n not in sys.stdlib_module_names | ours}


def test_the_core_is_light():
    """jax and optax alone: nothing of the train extra, and no room above the core."""
    modules = loaded("import mmpareto_jax; mmpareto_jax.mmpareto(2)")
    assert {"jax", "optax", "mmpareto_jax._combine.mmpareto_transformation"} <= modules
    assert not (outside(modules) - outside(loaded("import optax"))) & set(TRAIN)
    above = ("models", "data", "problems", "training", "cli")
    assert not {f"mmpareto_jax.{name}" for name in above} & modules


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        *([command, "--help"] for command in COMMANDS),
        ["train", "--lr", "fast"],
    ],
    ids=" ".join,
)
def test_help_and_mistakes_wait_for_nothing(arguments):
    """No module from outside, so neither jax nor numpy."""
    bare = outside(loaded("pass"))  # what .pth files of the environment import
    code = f"from mmpareto_jax.cli import main; assert main({arguments}) in (0, 2)"
    assert outside(loaded(code)) - bare == set()


@pytest.mark.parametrize("package", ["mmpareto_jax", "mmpareto_jax.training"])
class TestOnFirstUse:
    """A package whose names come later looks as one that imports them at once."""

    def test_nothing_is_loaded_before(self, package):
        probes = "hasattr(p, '_none'), hasattr(p, '__wrapped__'), repr(p), p.__doc__"
        modules = loaded(f"import {package} as p; {probes}")
        assert "jax" not in modules
        assert f"{package}._public" not in modules

    def test_dir_and_star_have_the_public_names(self, package):
        module = importlib.import_module(package)
        listed = importlib.import_module(f"{package}._public")
        expected = {name for name in vars(listed) if not name.startswith("_")}
        shown = {name for name in dir(module) if not name.startswith("_")}
        star = {}
        exec(f"from {package} import *", star)
        assert expected == star.keys() - {"__builtins__"} == set(module.__all__)
        rooms = {x.name for x in pkgutil.iter_modules(module.__path__)}
        assert expected <= shown <= expected | rooms

    def test_dir_may_come_before_any_use(self, package):
        code = f"import {package} as p; assert len(dir(p)) > 20"
        assert f"{package}._public" in loaded(code)

    def test_a_room_may_be_had_without_the_names(self, package):
        """By the modules that the names come from, too."""
        room = {"mmpareto_jax": "weightings", "mmpareto_jax.training": "baselines"}
        modules = loaded(f"from {package} import {room[package]}")
        assert f"{package}.{room[package]}" in modules
        assert f"{package}._public" not in modules
        modules = loaded(f"import {package} as p; p.{room[package]}")
        assert f"{package}.{room[package]}" in modules

    def test_a_name_of_a_room_is_the_room(self, package):
        module = importlib.import_module(package)
        rooms = {x.name for x in pkgutil.iter_modules(module.__path__)}
        both = rooms & set(module.__all__)
        assert both == ({"weightings"} if package == "mmpareto_jax" else set())
        for name in both:
            assert getattr(module, name) is sys.modules[f"{package}.{name}"]

    def test_unknown_names(self, package):
        module = importlib.import_module(package)
        with pytest.raises(AttributeError, match=f"'{package}' has no attribute 'no'"):
            _ = module.no
        assert not any(hasattr(module, name) for name in ("", "no.no", "no._public"))
        with pytest.raises(ImportError, match="cannot import name 'no'"):
            exec(f"from {package} import no")


def test_a_patched_name_stays_patched(monkeypatch):
    monkeypatch.setattr(mmp, "gramian", None)
    assert not hasattr(mmp, "no_such_name")
    assert mmp.gramian is None


def test_a_room_without_its_extra_says_what_to_install():
    code = """
import sys
sys.modules["flax"] = None
import mmpareto_jax as mmp
uses = {"models": lambda: mmp.models, "training": lambda: mmp.training.train}
for room, use in uses.items():
    try:
        use()
    except ImportError as error:
        wanted = f"{room} needs flax: pip install 'mmpareto-jax[train]'"
        assert wanted in str(error), error
    else:
        raise SystemExit("no error")
"""
    assert "mmpareto_jax" in loaded(code)


def test_first_uses_may_be_from_several_threads():
    code = """
import concurrent.futures, mmpareto_jax
names = ["mmpareto", "weightings", "gramian", "ObjectiveGroups"] * 4
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda name: getattr(mmpareto_jax, name), names))
"""
    assert "mmpareto_jax._public" in loaded(code)


def test_public_objects_survive_pickle():
    groups = mmp.ObjectiveGroups.from_labels({"a": "g"}, {"g": ("x", "y")})
    assert pickle.loads(pickle.dumps(groups)) == groups
    for x in (mmp.mmpareto, mmp.AggregateState, mmp.weightings.mgda):
        assert pickle.loads(pickle.dumps(x)) is x


def test_version():
    assert mmp.__version__ == __version__
    try:
        importlib.metadata.distribution("mmpareto-jax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package runs from its source and is not installed")
    assert importlib.metadata.version("mmpareto-jax") == __version__


def public():
    names = {name: getattr(mmp, name) for name in dir(mmp) if not name.startswith("_")}
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


PACKAGES = ("", "weightings", "data", "data.sources", "models", "problems", "training")
DIRECTORY = pathlib.Path(mmp.__file__).parent


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_offers_nothing_by_accident(package):
    """What its ``__init__`` imports it means to offer: no ``Any``, no ``Path``."""
    file = DIRECTORY / package.replace(".", "/") / "__init__.py"
    tree = ast.parse(file.read_text())
    imports = [x for x in tree.body if isinstance(x, ast.Import | ast.ImportFrom)]
    if package in ("", "training"):  # they take away what they needed
        assert not {"TYPE_CHECKING", "on_first_use"} & set(vars(_room(package)))
        return
    assert [x.name for node in imports for x in node.names if x.asname != x.name] == []


def _room(name):
    return importlib.import_module(f"mmpareto_jax.{name}".removesuffix("."))


def test_messages_name_no_helper():
    """They begin with a public function, an argument or a command of the shell."""
    training = _room("training")
    given = (training.Config, training.Comparison)
    known = {x.name for fields in map(dataclasses.fields, given) for x in fields}
    known |= {*COMMANDS, *PUBLISHED}
    for name in (*PACKAGES, "training.baselines"):
        known |= set(dir(_room(name)))
    helpers, begun = set(), {}
    for path in DIRECTORY.rglob("_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                helpers.add(node.name)
            elif isinstance(node, ast.Raise):
                texts = [x for x in ast.walk(node) if isinstance(x, ast.Constant)]
                begins = [re.match(r"(\w+): ", str(x.value)) for x in texts]
                begun |= {x[1]: f"{path.name}:{node.lineno}" for x in begins if x}
    assert {"mnist_digits", "mmpareto"} <= helpers
    assert {"prepare", "data"} <= set(begun)
    assert {x: where for x, where in begun.items() if x in helpers - known} == {}


def test_typed():
    assert (pathlib.Path(mmp.__file__).parent / "py.typed").exists()
