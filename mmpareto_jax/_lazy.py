"""Packages whose public names are imported when the first of them is used.

``mmpareto --help`` imports this package, and must not wait for jax.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def on_first_use(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` (PEP 562) of a package with a ``_public`` module.

    That module imports all public names and is the one list of them: type checkers
    read it through the package's ``from ... import *``.

    Args:
      package: its name.

    Returns:
      The two functions, for the package's ``__init__``.
    """
    module = sys.modules[package]

    def load() -> dict[str, Any]:
        public = vars(importlib.import_module(f"{package}._public"))
        names = {name: x for name, x in public.items() if not name.startswith("_")}
        for name, x in names.items():
            vars(module).setdefault(name, x)  # what a test has put there stays
        return names

    def getattr_(name: str) -> Any:
        if name == "__all__":  # asked for by `from package import *`
            return sorted(load())
        # Imports ask for private modules and dunders before they are there: such names
        # load nothing.
        if name.startswith("_") or name not in (names := load()):
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=module)
        return names[name]

    def dir_() -> list[str]:
        load()
        return sorted(vars(module))

    return getattr_, dir_
