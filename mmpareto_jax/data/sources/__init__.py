"""Published raw files in, one compact memory-mapped form out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmpareto_jax.data.sources._engine import Example as Example
from mmpareto_jax.data.sources._engine import Plan as Plan
from mmpareto_jax.data.sources._engine import Problem as Problem
from mmpareto_jax.data.sources._engine import Progress as Progress
from mmpareto_jax.data.sources._engine import UnusableError as UnusableError
from mmpareto_jax.data.sources._engine import prepare as prepare
from mmpareto_jax.data.sources._store import Prepared as Prepared
from mmpareto_jax.data.sources._store import open_prepared as open_prepared

NAMES = ("crema-d", "kinetics-sounds", "colored-digits", "modelnet40", "ucf-101")


def plan_of(name: str, raw: str | Path | None, **options: Any) -> Plan:
    """What is to be decoded for a data set.

    Args:
      name: one of ``NAMES``.
      raw: the directory of the published files; see the data set's own module for its
        layout. "colored-digits" takes None, for the digits of scikit-learn.
      **options: of the data set's own function.

    Returns:
      The plan, for ``prepare``.

    Raises:
      ValueError: an unknown name, or the directory does not have the layout.
    """
    if name not in NAMES:
        raise ValueError(f"plan_of: name: expected one of {NAMES}, got {name!r}")
    # Each brings its own libraries; none is imported for the others.
    from mmpareto_jax.data.sources import (
        _colored_digits,
        _crema_d,
        _kinetics_sounds,
        _modelnet40,
        _ucf101,
    )

    plans: dict[str, Callable[..., Plan]] = {
        "crema-d": _crema_d.plan,
        "kinetics-sounds": _kinetics_sounds.plan,
        "colored-digits": _colored_digits.plan,
        "modelnet40": _modelnet40.plan,
        "ucf-101": _ucf101.plan,
    }
    if raw is None and name != "colored-digits":
        raise ValueError(f"plan_of: raw: {name} needs the directory of its files")
    return plans[name](None if raw is None else Path(raw), **options)
