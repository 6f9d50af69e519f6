"""Every module may be the first one imported, as by a spawned worker or by pickle."""

import ast
import graphlib
import json
import pathlib
import subprocess
import sys

import pytest

import mmpareto_jax as mmp

ROOT = pathlib.Path(mmp.__file__).parents[1]
LAZY = ("mmpareto_jax", "mmpareto_jax.training")

# The rooms of the trainer, from the ground up: a module imports from its own room and
# from those before it. A module belongs to the longest name that it begins with.
ROOMS = (
    "mmpareto_jax.training._choices",
    "mmpareto_jax.training._config",
    "mmpareto_jax.training._batch",
    "mmpareto_jax.training._methods._baselines",
    "mmpareto_jax.training._methods",
    "mmpareto_jax.training._tasks",
    "mmpareto_jax.training._run",
    "mmpareto_jax.training._study",
    "mmpareto_jax.training._report",
    "mmpareto_jax.training.baselines",
    "mmpareto_jax.training._public",
    "mmpareto_jax.training",
    "mmpareto_jax._cli",
    "mmpareto_jax.cli",
)

# What is first in one process is no longer so in the next: ours are forgotten before
# each import. What is from outside stays, or this would take minutes; and some of it
# cannot be imported by several threads.
IMPORTS = """
import importlib, json, sys, threading

def forget():
    for own in [m for m in sys.modules if m.split(".")[0] == "mmpareto_jax"]:
        del sys.modules[own]

names, together = json.loads(sys.argv[1])
failed, loaded, clashed = {}, {}, {}
for name in names:
    forget()
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
    loaded[name] = [m for m in sys.modules if m.startswith("mmpareto_jax")]

def first(name):
    start.wait()
    try:
        importlib.import_module(name)
        importlib.import_module("mmpareto_jax.training").Result
    except Exception as error:
        clashed[name] = repr(error)

forget()
start = threading.Barrier(len(together))
threads = [threading.Thread(target=first, args=(name,)) for name in together]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

import mmpareto_jax, mmpareto_jax.training as training
result = training.Result
for package in (mmpareto_jax, training):
    importlib.reload(package)
mmpareto_jax.gramian, training.baselines
again = training.Result is result and {"Config", "train"} < set(dir(training))
print(json.dumps([failed, loaded, clashed, again]))
"""


def modules():
    """Name -> file."""
    found = {}
    for path in sorted((ROOT / "mmpareto_jax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def python(code, *arguments):
    """What `code` prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found():
    """What fails, what of ours each import loads, what clashes; loading again."""
    names = list(modules())
    # These packages import nothing. Where one imports its modules, they wait for each
    # other: Python gives up there, whatever the package.
    together = [n for n in names if n.startswith("mmpareto_jax.training._")]
    return json.loads(python(IMPORTS, json.dumps([names, together])))


def test_every_module_imports_first(found):
    failed, loaded, *_ = found
    assert len(loaded) > 150
    assert failed == {}


@pytest.mark.parametrize("package", LAZY)
def test_no_module_needs_the_list_that_needs_it(found, package):
    """It would be imported again, half loaded, where it is the first one."""
    _, loaded, *_ = found
    names = f"{package}._public"
    needed = set(loaded[names]) - {names}
    assert len(needed) > 20
    assert [name for name in needed if names in loaded[name]] == []


@pytest.mark.parametrize(
    "module",
    [
        "mmpareto_jax.training._study._run_once",  # a worker's
        "mmpareto_jax.training.baselines",
        "mmpareto_jax.weightings",
        "mmpareto_jax.problems",
    ],
)
def test_in_a_fresh_interpreter(module):
    python(f"import {module}")


def test_modules_may_be_first_in_several_threads(found):
    _, _, clashed, _ = found
    assert clashed == {}


def test_packages_may_be_loaded_again(found):
    assert found[-1] is True


def imported(path, known):
    """The modules that are named in a file's import statements, wherever they stand."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield name if name in known else base


@pytest.fixture(scope="module")
def graph():
    """Module -> what it imports, also within functions, or for type checkers."""
    known = modules()
    return {name: set(imported(path, known)) for name, path in known.items()}


def test_imports_have_no_circle(graph):
    run = "mmpareto_jax.training._run"
    assert f"{run}._workdir" in graph[f"{run}._loop"]
    assert "mmpareto_jax.data._av_digits" in graph["mmpareto_jax.data"]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def room(module):
    """The room that a module belongs to; None outside of the trainer."""
    inside = [x for x in ROOMS if module == x or module.startswith(f"{x}.")]
    return max(inside, key=len, default=None)


def is_package(path):
    return path.name == "__init__.py"


def test_the_trainers_rooms_are_all_there():
    known = modules()
    assert [x for x in ROOMS if x not in known] == []
    packages = {x for x, path in known.items() if room(x) and is_package(path)}
    assert packages <= set(ROOMS)
    # The package's own room is its __init__ alone: a new module needs a place.
    assert [x for x in known if room(x) == "mmpareto_jax.training"] == [
        "mmpareto_jax.training"
    ]


def test_no_import_leads_up(graph):
    """Within the trainer, whose circles between rooms are upward arrows, too."""
    level = {name: number for number, name in enumerate(ROOMS)}
    arrows = [(x, y) for x, names in graph.items() if room(x) for y in names if room(y)]
    assert len(arrows) > 100
    assert [(x, y) for x, y in arrows if level[room(y)] > level[room(x)]] == []


def test_nothing_below_needs_the_trainer(graph):
    above = {"mmpareto_jax.__main__"}
    below = {x for x in graph if not room(x)} - above
    assert len(below) > 100
    found = [(x, y) for x in below for y in graph[x] if room(y)]
    assert found == []


def test_private_rooms_import_nothing_by_themselves(graph):
    """So each of their modules may be the first, in any thread."""
    known = modules()
    rooms = [x for x in ROOMS if is_package(known[x]) and x not in LAZY]
    assert len(rooms) == 7
    assert [x for x in rooms if graph[x]] == []
