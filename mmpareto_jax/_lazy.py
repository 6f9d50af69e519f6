"""Packages whose public names are imported when the first of them is used.

``mmpareto --help`` imports this package, and must not wait for jax.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def imported(name: str, room: str) -> ModuleType:
    """The module of that name.

    Raises:
      ImportError: it needs what is not installed; says how `room` gets it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing.partition(".")[0] == name.partition(".")[0]:
            raise
        raise ImportError(
            f"{room} needs {missing}: pip install 'mmpareto-jax[train]'"
        ) from None


def on_first_use(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` (PEP 562) of a package with a ``_public`` module.

    That module imports all public names and is the one list of them: type checkers
    read it through the package's ``from ... import *``. A module that it imports may
    not import a public name from the package: where that module comes first, as in a
    spawned process, the list would import it again, half loaded. A public room (a
    module without an underscore) is imported alone, so anyone may ask for it.

    Args:
      package: its name.

    Returns:
      The two functions, for the package's ``__init__``.
    """
    module = sys.modules[package]

    def load() -> dict[str, Any]:
        public = vars(imported(f"{package}._public", package))
        names = {name: x for name, x in public.items() if not name.startswith("_")}
        for name, x in names.items():
            vars(module).setdefault(name, x)  # what a test has put there stays
        return names

    def getattr_(name: str) -> Any:
        if name == "__all__":  # asked for by `from package import *`
            return sorted(load())
        # Imports ask for private modules and dunders before they are there: such names
        # load nothing.
        if not name.startswith("_"):
            # `from package import room` asks here first, and the list may need the
            # module that asks.
            if name.isidentifier() and importlib.util.find_spec(f"{package}.{name}"):
                room = f"{package}.{name}"
                return imported(room, room)
            if name in (names := load()):
                return names[name]
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=module)

    def dir_() -> list[str]:
        load()
        return sorted(vars(module))

    return getattr_, dir_
