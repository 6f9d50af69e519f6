"""What ``mmpareto methods`` and ``mmpareto datasets`` print, and the help's columns."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from mmpareto_jax._cli.options import flag_of, help_of
from mmpareto_jax.training._choices import MULTI_TASK, TASKS, MethodName, TaskName
from mmpareto_jax.training._described.datasets import DATASETS, Dataset
from mmpareto_jax.training._described.described import HEADINGS, Described
from mmpareto_jax.training._described.methods import METHODS
from mmpareto_jax.training._described.promises import PROMISES
from mmpareto_jax.training._options.groups import GROUPS

_EVERY = len(get_args(MethodName))
_KINDS = {
    "rule": "a rule",
    "baseline": "a baseline against modality imbalance",
    "control": "a control",
}


def method_columns() -> str:
    """Every method with a word or two, in columns, for the help of ``train``."""
    width = _width()
    lines = ["methods (mmpareto methods explains them):"]
    for kind in HEADINGS:
        cells = [f"{k:<14} {m.words}" for k, m in METHODS.items() if m.kind == kind]
        cell = max(len(text) for text in cells) + 2
        across = max(1, (width - 2) // cell)
        down = -(-len(cells) // across)
        lines.append(f"  {kind}s")
        lines += [
            "  " + "".join(f"{text:<{cell}}" for text in cells[row::down]).rstrip()
            for row in range(down)
        ]
    return "\n".join(lines)


def methods(arguments: dict[str, Any]) -> int:
    """Lists all methods, or explains one in full."""
    name: MethodName | None = arguments["method"]
    print("\n".join(_listed_methods() if name is None else _explained(name)))
    return 0


def _listed_methods() -> Iterator[str]:
    for kind, heading in HEADINGS.items():
        yield f"{heading}\n"
        for name, method in METHODS.items():
            if method.kind == kind:
                yield from _entry(name, [method.line, *_origin(method)])
        yield ""
    yield "mmpareto methods NAME explains one in full."


def _origin(method: Described) -> Iterator[str]:
    """Its paper, what it needs and its note, as far as there is something to say."""
    needs = f"needs {method.needs}" if method.needs else ""
    if said := "; ".join(filter(None, [method.paper, needs, method.note])):
        yield said


def _explained(name: MethodName) -> Iterator[str]:
    method = METHODS[name]
    yield f"{name}, {_KINDS[method.kind]}"
    yield from _entry("", [method.line])
    if method.needs:
        yield from _entry("needs", [method.needs])
    if method.note:
        yield from _entry("note", [method.note])
    kept = [
        promise
        for promise, rules in PROMISES.items()
        if method.documented.removeprefix("weightings.")
        in [rule.replace("-", "_") for rule in rules]
    ]
    if kept:
        yield from _entry("promises", [", ".join(kept)])
    for flag, text in _own_options(name):
        yield from _entry(flag, [text])
    if method.documented:
        yield from _entry("in Python", [_signature(method.documented)])
        yield from _entry("reference", [_reference(method.documented)])
    elif method.paper:
        yield from _entry("reference", [method.paper])


def _own_options(name: MethodName) -> Iterator[tuple[str, str]]:
    """The flags that few methods look at, this one among them."""
    for group in GROUPS:
        if name in group.methods and len(group.methods) < _EVERY:
            for field in dataclasses.fields(group.options):
                yield flag_of(field), help_of(field)


def _signature(documented: str) -> str:
    """The public name, called with its defaults."""
    arguments = inspect.signature(_find(documented)).parameters.values()
    bare = [x.replace(annotation=inspect.Parameter.empty) for x in arguments]
    return f"mmpareto_jax.{documented}{inspect.Signature(bare)}"


def _reference(documented: str) -> str:
    """The references of its docstring."""
    _, _, after = (inspect.getdoc(_find(documented)) or "").partition("References:\n")
    lines = []
    for line in after.splitlines():
        if not line.startswith(" "):
            break
        lines.append(line.strip())
    return " ".join(lines)


def _find(documented: str) -> Any:
    module, _, name = documented.rpartition(".")
    return getattr(importlib.import_module(f"mmpareto_jax.{module}"), name)


def datasets(arguments: dict[str, Any]) -> int:
    """Lists the data that there are, or explains those of one task in full."""
    name: TaskName | None = arguments["name"]
    print("\n".join(_listed_datasets() if name is None else _explained_data(name)))
    return 0


def _listed_datasets() -> Iterator[str]:
    embedded = [name for name, data in DATASETS.items() if not data.raw]
    published = [name for name, data in DATASETS.items() if data.raw]
    yield "in the package: mmpareto train NAME\n"
    for name in embedded:
        yield from _dataset(name)
    yield "\npublished: nothing is downloaded; from your copy,"
    yield "  mmpareto prepare NAME --raw DIR --out DIR"
    yield "  mmpareto train NAME --data DIR\n"
    for name in published:
        yield from _dataset(name)
    yield "\nmmpareto datasets NAME explains one in full."


def _explained_data(name: TaskName) -> Iterator[str]:
    data = DATASETS[name]
    yield f"{name}, {_kind_of_task(name)}"
    yield from _entry("", [data.line])
    yield from _entry("arrays", [f"{k} {text}" for k, text in data.arrays.items()])
    yield from _entry("sizes", [_sizes(data)])
    if data.raw:
        yield from _entry("raw files", [data.raw])
        yield from _entry(
            "to prepare", [f"mmpareto prepare {name} --raw DIR --out DIR"]
        )
    given = " --data DIR" if data.raw else ""
    yield from _entry("to train", [f"mmpareto train {name}{given}"])
    for group in GROUPS:
        if name in group.tasks and len(group.tasks) < len(TASKS):
            for field in dataclasses.fields(group.options):
                yield from _entry(flag_of(field), [help_of(field)])
    if data.paper:
        yield from _entry("reference", [data.paper])


def _kind_of_task(name: TaskName) -> str:
    return "several tasks" if name in MULTI_TASK else "several modalities"


def _sizes(data: Dataset) -> str:
    return data.sizes if data.raw else f"training / validation / test: {data.sizes}"


def _dataset(name: TaskName) -> Iterator[str]:
    data = DATASETS[name]
    said = [f"{data.line} ({_kind_of_task(name)})", _sizes(data)]
    if data.paper:
        said.append(data.paper)
    if data.raw:
        said.append(f"raw files: {data.raw}")
    yield from _entry(name, said)


def _entry(name: str, said: Iterable[str]) -> Iterator[str]:
    """A name and paragraphs beside it."""
    start, indent = f"  {name:<15} ", " " * 18
    for text in said:
        yield from textwrap.wrap(
            text,
            _width(),
            initial_indent=start,
            subsequent_indent=indent,
            break_on_hyphens=False,
            break_long_words=False,
        )
        start = indent


def _width() -> int:
    return shutil.get_terminal_size().columns - 1
