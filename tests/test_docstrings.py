"""What is public says what goes in, what comes out and what it refuses.

Read from the source: nothing is called, and closures count as the body of what returns
them.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap

import pytest

PACKAGES = (
    "mmpareto_jax",
    "mmpareto_jax.weightings",
    "mmpareto_jax.training",
    "mmpareto_jax.training.baselines",
)
NOTHING = ("None", "NoReturn")
# What helpers raise for those that call them.
REFUSALS = dict.fromkeys(
    ("check", "check_at_least", "check_limit", "preference_of", "required"),
    "ValueError",
) | {"without_derivative": "NotImplementedError"}
# Methods whose one line still stands for their sections.
BRIEF = {
    "mmpareto_jax.ObjectiveGroups.group_of",
    "mmpareto_jax.ObjectiveGroups.describe",
    "mmpareto_jax.training.Config.to_dict",
}


def public(module):
    return {
        name: x
        for name, x in inspect.getmembers(importlib.import_module(module), callable)
        if not name.startswith("_")
    }


def methods(cls):
    """Its own public functions; what a generated class has got is not written here."""
    for name, x in vars(cls).items():
        inner = getattr(x, "fget", None) or getattr(x, "__func__", x)
        written = inspect.isfunction(inner) and inner.__module__ == cls.__module__
        if written and not name.startswith("_"):
            yield name, inner, isinstance(x, property)


def callables():
    found = {}
    for module in PACKAGES:
        for name, x in public(module).items():
            found[f"{module}.{name}"] = x, False
            if inspect.isclass(x):
                for own, inner, is_property in methods(x):
                    found[f"{module}.{name}.{own}"] = inner, is_property
    return {name: x for name, x in found.items() if name not in BRIEF}


FOUND = callables()


def parsed(x):
    """The function, or for a class all that runs when one is made."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(x))).body
    if isinstance(node, ast.ClassDef):
        # Its methods speak for themselves, and its fields are attributes.
        made = ("__init__", "__new__", "__post_init__")
        return [n for n in node.body if getattr(n, "name", "") in made]
    return [node]


def raised(nodes):
    """The names of what is raised, wherever it stands in there."""
    for node in nodes:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Raise) and inner.exc is not None:
                what = inner.exc.func if isinstance(inner.exc, ast.Call) else inner.exc
                yield ast.unparse(what)
            if isinstance(inner, ast.Call) and ast.unparse(inner.func) in REFUSALS:
                yield REFUSALS[ast.unparse(inner.func)]


def fields_with_help(x):
    """An option's text is in its field, where the command line finds it too."""
    fields = dataclasses.fields(x) if dataclasses.is_dataclass(x) else ()
    return {field.name for field in fields if "help" in field.metadata}


def wanted(x, is_property):
    """The sections that its docstring must have, and the errors that it must name."""
    nodes = parsed(x)
    errors = set(raised(nodes))
    sections = {"Raises"} if errors else set()
    if inspect.isclass(x):
        if set(inspect.signature(x).parameters) - fields_with_help(x):
            sections.add("Attributes")
        return sections, errors
    (node,) = nodes
    arguments = node.args
    names = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        *filter(None, (arguments.vararg, arguments.kwarg)),
    ]
    if [a.arg for a in names if a.arg not in ("self", "cls")]:
        sections.add("Args")
    returns = ast.unparse(node.returns) if node.returns else "None"
    if returns not in NOTHING and not is_property:
        sections.add("Returns")
    return sections, errors


def sections_of(text):
    """Heading -> its lines."""
    parts = re.split(r"^(\w+):\n", f"{text}\n", flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def lacks(text, sections, errors):
    there = sections_of(text)
    missing = {x for x in sections if not there.get(x, "").strip()}
    refused = there.get("Raises", "")
    return missing | {x for x in errors if f"{x}:" not in refused}


def test_the_list_is_the_packages():
    assert {f"mmpareto_jax.{x}" for x in ("mmpareto", "gramian")} <= set(FOUND)
    assert "mmpareto_jax.training.Comparison.tuning" in FOUND
    assert "mmpareto_jax.training.baselines.ogm" in FOUND
    assert len(FOUND) > 90


@pytest.mark.parametrize("name", FOUND)
def test_a_public_name_is_documented(name):
    x, is_property = FOUND[name]
    text = inspect.getdoc(x)
    assert text
    assert "Alias for field" not in text
    assert not lacks(text, *wanted(x, is_property))


@pytest.mark.parametrize("name", FOUND)
def test_every_argument_is_described(name):
    """By its name, and no other one."""
    x, _ = FOUND[name]
    there = sections_of(inspect.getdoc(x))
    heading = "Attributes" if inspect.isclass(x) else "Args"
    described = re.findall(r"^  (\*{0,2}\w+):", there.get(heading, ""), re.MULTILINE)
    names = set(inspect.signature(x).parameters) - {"self", "cls"}
    described = {name.lstrip("*") for name in described}
    assert described <= names
    assert described | fields_with_help(x) >= names


def test_what_is_missing_is_seen():
    def documented(a, check, *, b=1) -> int:
        """One line.

        Args:
          a: that.

        Raises:
          TypeError: it is something.
        """
        check("documented", "a", a, b > 0, "> 0")
        if a:
            raise TypeError(b)
        return 1

    sections, errors = wanted(documented, False)
    assert sections == {"Args", "Raises", "Returns"}
    assert errors == {"TypeError", "ValueError"}
    missing = lacks(inspect.getdoc(documented), sections, errors)
    assert missing == {"Returns", "ValueError"}
