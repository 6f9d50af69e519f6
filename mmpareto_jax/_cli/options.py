"""The options of a run as flags, under whom they belong to."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Collection, Sequence
from typing import Any

from mmpareto_jax._cli.paths import path
from mmpareto_jax.training._choices import TASKS, MethodName, spelled
from mmpareto_jax.training._options.groups import GROUPS
from mmpareto_jax.training._options.of_all import Run

# Characters of the choices that stand in braces, which no line break divides.
_BRACES = 20


def add_options(parser: argparse.ArgumentParser, without: Collection[str]) -> None:
    """Adds all flags but those of the fields in `without`."""
    for group in GROUPS:
        hints = typing.get_type_hints(group.options)
        section = parser.add_argument_group(group.title)
        for field in dataclasses.fields(group.options):
            if field.name not in without:
                _add_flag(section, field, hints[field.name])


def _add_flag(
    section: argparse._ArgumentGroup, field: dataclasses.Field[Any], hint: Any
) -> None:
    options: dict[str, Any]
    if typing.get_origin(hint) is typing.Literal:
        options = {"choices": typing.get_args(hint)}
        if field.name == "method":
            options["type"] = spelled
        braces = sum(map(len, options["choices"])) <= _BRACES
        options["metavar"] = None if braces else field.name.upper()
    elif hint is bool:
        options = {"action": argparse.BooleanOptionalAction}
    else:
        kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
        options = {"type": kind, "metavar": kind.__name__.upper()}
        if field.name == "data":
            options["type"] = path
    names = ""
    if field.name == "method":
        names = "; the table below has all"
    elif options.get("metavar") and "choices" in options:
        names = f"; one of {', '.join(options['choices'])}"
    section.add_argument(flag_of(field), help=f"{help_of(field)}{names}", **options)


def of_others(args: Sequence[str]) -> set[str]:
    """The flags of other built-in tasks and methods than those that `args` name.

    Where they name no task, it is the default one.
    """
    words = {spelled(word) for text in args for word in text.split("=")}
    tasks = words & {*TASKS} or {Run.task}
    methods = words & {*typing.get_args(MethodName)}
    return {
        flag_of(field)
        for group in GROUPS
        if not tasks & {*group.tasks} or (methods and not methods & {*group.methods})
        for field in dataclasses.fields(group.options)
    }


def flag_of(field: dataclasses.Field[Any]) -> str:
    """How the option is written."""
    return f"--{field.name.replace('_', '-')}"


def help_of(field: dataclasses.Field[Any]) -> str:
    """What it does, and its default where there is one."""
    default = "" if field.default is None else f" (default: {field.default})"
    return f"{field.metadata['help']}{default}"
