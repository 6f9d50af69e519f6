"""The rooms of the package: imports go downwards, and have no circle.

Read from the source, so that imports within functions and those for type checkers
count too.
"""

import ast
import graphlib
import pathlib
import sys

import pytest

import mmpareto_jax as mmp

ROOT = pathlib.Path(mmp.__file__).parents[1]

# From the lowest floor to the highest. A module may import its own room and those of
# the floors below; rooms on one floor do not know each other. "" is the package itself.
FLOORS = (
    ("_version", "_lazy", "_published", "_whole_files", "_array_files", "_processes"),
    ("models",),
    ("data",),
    ("_gradients",),
    ("_gramians",),
    ("weightings",),
    ("_combine",),
    ("_probe",),
    ("_public",),
    ("",),
    ("problems",),
    ("training",),
    ("_cli",),
    ("cli",),
    ("__main__",),
)
COMMAND_LINE = {room for floor in FLOORS[-3:] for room in floor}
# The core, which is the first six, takes jax, numpy and optax alone.
OUTSIDE = {
    "_gradients": {"jax", "numpy"},
    "_gramians": {"jax", "numpy"},
    "weightings": {"jax", "numpy", "optax"},
    "_combine": {"jax", "numpy", "optax"},
    "_probe": {"jax", "numpy"},
    "_public": set(),
    "models": {"flax", "jax", "numpy", "safetensors"},
}


# The rooms of the trainer, from the ground up: a module imports from its own room and
# from those before it. A module belongs to the longest name that it begins with.
ROOMS = (
    "mmpareto_jax.training._choices",
    "mmpareto_jax.training._described",
    "mmpareto_jax.training._options",
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


def modules():
    """Name -> file."""
    found = {}
    for path in sorted((ROOT / "mmpareto_jax").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


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


def is_ours(name):
    return name.split(".")[0] == "mmpareto_jax"


def room_of(name):
    return [*name.split("."), ""][1]


@pytest.fixture(scope="module")
def graph():
    """Each module with those that it imports, from outside too."""
    known = modules()
    found = {name: set(imported(path, known)) for name, path in known.items()}
    run = "mmpareto_jax.training._run"
    assert f"{run}.workdir" in found[f"{run}.loop"]
    assert "mmpareto_jax.data._av_digits" in found["mmpareto_jax.data"]
    return found


def test_imports_have_no_circle(graph):
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_room_is_on_one_floor(graph):
    rooms = [room for floor in FLOORS for room in floor]
    assert sorted(rooms) == sorted({room_of(name) for name in graph})


def test_imports_go_downwards(graph):
    floor_of = {room: n for n, floor in enumerate(FLOORS) for room in floor}
    upwards = [
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in filter(is_ours, others)
        if room_of(name) != room_of(other)
        if floor_of[room_of(name)] <= floor_of[room_of(other)]
    ]
    assert upwards == []


@pytest.mark.parametrize("room", OUTSIDE)
def test_what_a_room_takes_from_outside(graph, room):
    """Exactly that: a room that no longer needs something says so here."""
    others = set().union(*(graph[name] for name in graph if room_of(name) == room))
    outside = {name.split(".")[0] for name in others if not is_ours(name)}
    assert outside - sys.stdlib_module_names == OUTSIDE[room]


def test_only_the_command_line_knows_the_trainer(graph):
    users = {
        room_of(name)
        for name, others in graph.items()
        if any(room_of(other) == "training" for other in filter(is_ours, others))
    }
    assert users - {"training"} <= COMMAND_LINE


@pytest.mark.parametrize("room", ["_gradients", "_gramians", "_combine", "_probe"])
def test_a_private_room_opens_without_loading_anything(graph, room):
    """Its modules may be first, then, in any order."""
    assert graph[f"mmpareto_jax.{room}"] == set()


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
    lazy = ("mmpareto_jax.training",)
    rooms = [x for x in ROOMS if is_package(known[x]) and x not in lazy]
    assert len(rooms) == 9
    assert [x for x in rooms if graph[x]] == []
