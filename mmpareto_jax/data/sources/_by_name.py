"""The data sets by name: what each has to decode, and its options."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmpareto_jax._published import PUBLISHED
from mmpareto_jax.data.sources._plan import Plan

NAMES = PUBLISHED


def plan_of(name: str, raw: str | Path | None, **options: Any) -> Plan:
    """What is to be decoded for a data set.

    Args:
      name: one of ``NAMES``.
      raw: the directory of the published files; see the data set's own module for its
        layout. "colored-digits" takes None, for the digits of scikit-learn; "arrays" a
        file, too.
      **options: of the data set's own function, see ``options_of``.

    Returns:
      The plan, for ``prepare``.

    Raises:
      ValueError: an unknown name, or the directory does not have the layout.
    """
    plan = _function_of(name)
    if raw is None and name != "colored-digits":
        files = "the directory of its files"
        if name == "arrays":
            files = "the .npz file, or the directory of .npy files"
        raise ValueError(f"prepare: raw: {name} needs {files}")
    if raw is not None and not Path(raw).is_dir() and name != "arrays":
        raise ValueError(f"prepare: raw: {raw} is no directory")
    return plan(None if raw is None else Path(raw), **options)


def options_of(name: str) -> tuple[str, ...]:
    """The options that a data set has.

    Example:
      >>> from mmpareto_jax.data.sources import options_of
      >>> options_of("crema-d")
      ('split', 'candidates', 'size', 'seed')
    """
    return tuple(inspect.signature(_function_of(name)).parameters)[1:]


def _function_of(name: str) -> Callable[..., Plan]:
    if name not in NAMES:
        raise ValueError(f"prepare: name: expected one of {NAMES}, got {name!r}")
    module = {"ucf-101": "ucf101"}.get(name, name.replace("-", "_"))
    # Each brings its own libraries; none is imported for the others.
    found = importlib.import_module(f"mmpareto_jax.data.sources._{module}")
    plan: Callable[..., Plan] = found.plan
    return plan
