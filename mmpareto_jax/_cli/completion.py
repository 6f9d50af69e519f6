"""What ``mmpareto completion`` prints: a shell's completion script, from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mmpareto_jax._cli.paths import path

SHELLS = ("bash", "zsh", "fish")


def completion(parser: argparse.ArgumentParser, shell: str) -> int:
    """Prints the script."""
    import shtab

    _complete_paths(parser, shtab.FILE)
    print(shtab.complete(parser, shell))
    return 0


def _complete_paths(
    parser: argparse.ArgumentParser, by_shell: Mapping[str, Any]
) -> None:
    for action in parser._actions:  # argparse has no other way to its arguments
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, by_shell)
        elif action.type is path:
            vars(action)["complete"] = by_shell  # where shtab looks
