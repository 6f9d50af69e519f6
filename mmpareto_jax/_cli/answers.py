"""A parser whose answer to a mistake is one line that names the nearest right word."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from mmpareto_jax._cli.nearest import unknown
from mmpareto_jax._cli.options import of_others
from mmpareto_jax.training._choices import is_own

USAGE_ERROR = 2
# What a name is called, and who lists the names, where the argument's own name does not
# say it.
_CALLED = {"name": "data set"}
_LISTED_BY = {"method": "mmpareto methods", "task": "mmpareto datasets"}
_BESIDE = {"task": "module:function"}


class Parser(argparse.ArgumentParser):
    """Answers a mistake in one line, without the usage text."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # before the command or behind it
            help="show the traceback of whatever goes wrong",
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """An unknown option is told apart before its value is taken for a word."""
        args = sys.argv[1:] if args is None else args
        self._check_options(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message}\n")

    def _check_options(self, args: Sequence[str]) -> None:
        for text in args:
            if text == "--" or (self._subparsers and not text.startswith("-")):
                return  # words from here on; or a command, whose parser will see it
            name = text.partition("=")[0]
            known = self._option_string_actions
            if re.match(r"--?[A-Za-z]", name) and name not in known:
                self.error(unknown("option", name, known, unlikely=of_others(args)))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """The choices of an argument; of tasks also module:function, the user's own."""
        own = action.dest == "task" and is_own(value)
        if action.choices is None or value in action.choices or own:
            return
        called = _CALLED.get(action.dest, action.dest.replace("_", " "))
        known = [str(choice) for choice in action.choices]
        listed_by, beside = (x.get(action.dest, "") for x in (_LISTED_BY, _BESIDE))
        self.error(unknown(called, str(value), known, listed_by, beside=beside))
