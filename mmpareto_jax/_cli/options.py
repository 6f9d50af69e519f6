"""The options of a run as flags, under whom they belong to."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Collection
from typing import Any

from mmpareto_jax.training._choices import spelled
from mmpareto_jax.training._options.groups import GROUPS


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
        options["metavar"] = field.name.upper() if len(options["choices"]) > 9 else None
    elif hint is bool:
        options = {"action": argparse.BooleanOptionalAction}
    else:
        kind = typing.get_args(hint)[0] if isinstance(hint, types.UnionType) else hint
        options = {"type": kind, "metavar": kind.__name__.upper()}
    default = "" if field.default is None else f" (default: {field.default})"
    section.add_argument(
        f"--{field.name.replace('_', '-')}",
        help=f"{field.metadata['help']}{default}",
        **options,
    )
