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
    ("_version", "_lazy", "models", "data"),
    ("_gradients",),
    ("_gramians",),
    ("weightings",),
    ("_combine",),
    ("_public",),
    ("",),
    ("problems",),
    ("training",),
    ("_progress", "_completion"),
    ("_commands",),
    ("cli",),
    ("__main__",),
)
COMMAND_LINE = {room for floor in FLOORS[-4:] for room in floor}
# The core, which is the first five, takes jax, numpy and optax alone.
OUTSIDE = {
    "_gradients": {"jax", "numpy"},
    "_gramians": {"jax", "numpy"},
    "weightings": {"jax", "numpy", "optax"},
    "_combine": {"jax", "numpy", "optax"},
    "_public": set(),
    "models": {"flax", "jax", "numpy"},
}


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
    assert "mmpareto_jax.training._workdir" in found["mmpareto_jax.training._loop"]
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


@pytest.mark.parametrize("room", ["_gradients", "_gramians", "_combine"])
def test_a_private_room_opens_without_loading_anything(graph, room):
    """Its modules may be first, then, in any order."""
    assert graph[f"mmpareto_jax.{room}"] == set()
