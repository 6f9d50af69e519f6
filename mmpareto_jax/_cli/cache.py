"""Where compiled programs are kept between runs: jax's own cache, on by default.

It imports nothing heavy: jax, which reads the environment when it is imported, is told
directly only where it is there already.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmpareto_jax._cli.paths import path

_DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
_ENABLED = "JAX_ENABLE_COMPILATION_CACHE"
_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def add_cache(command: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    either = command.add_mutually_exclusive_group()
    either.add_argument(
        "--cache",
        type=path,
        metavar="DIR",
        help="where compiled programs are kept for later runs (default: "
        "JAX_COMPILATION_CACHE_DIR, or else mmpareto_jax/xla in the user's cache)",
    )
    either.add_argument(
        "--no-cache",
        dest="cache",
        action="store_const",
        const=False,
        help="compile everything anew",
    )


@contextlib.contextmanager
def kept(cache: str | bool | None) -> Iterator[None]:
    """Keeps compiled programs, of this process and of those that it starts.

    Args:
      cache: a directory; None: the one that is configured, or else the default; False:
        none.
    """
    values: dict[str, Any] = {}
    if cache is False:
        values = {_ENABLED: False}
    elif cache is not None or not _configured():
        directory = Path(str(cache)) if cache else _default()
        if _usable(directory):
            # All of a run, not only what takes jax's one second.
            values = {_DIRECTORY: str(directory.absolute()), _SECONDS: 0.0}
    with _set(values):
        yield


def _configured() -> bool:
    """Whether somebody has decided already, in the environment or in Python."""
    jax: Any = sys.modules.get("jax")
    if jax is not None and jax.config.jax_compilation_cache_dir:
        return True
    return _DIRECTORY in os.environ


def _default() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "mmpareto_jax" / "xla"


def _usable(directory: Path) -> bool:
    """Whether it can be written to; says so where it cannot."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError as error:
        print(
            f"mmpareto: compiled programs are not kept: {error}",
            file=sys.stderr,
            flush=True,
        )
        return False


@contextlib.contextmanager
def _set(values: Mapping[str, Any]) -> Iterator[None]:
    """In the environment, and in jax where it has read that already."""
    jax: Any = sys.modules.get("jax")
    told = {name.lower(): value for name, value in values.items()} if jax else {}
    in_jax = {name: getattr(jax.config, name) for name in told} if jax else {}
    in_environment = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        for name, value in told.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, text in in_environment.items():
            if text is None:
                del os.environ[name]
            else:
                os.environ[name] = text
        for name, value in in_jax.items():
            jax.config.update(name, value)
