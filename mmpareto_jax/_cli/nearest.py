"""A name that does not exist, and the nearest one that does."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

_FEW = 16
# Of two names, from which on one must be the other.
_SURE = 0.8


def unknown(
    what: str,
    name: str,
    known: Iterable[str],
    listed_by: str = "",
    *,
    beside: str = "",
    unlikely: Collection[str] = (),
) -> str:
    """What is said of the name, in one line.

    Args:
      what: it should be: "option", "task", "method", ...
      name: what was written.
      known: the names that there are.
      listed_by: the command that lists them, where they are too many for a line.
      beside: what else it may be.
      unlikely: of the names, those that come after all others that are near.

    Returns:
      The nearest name; where none is near, all of them, or who lists them.

    Example:
      >>> from mmpareto_jax._cli.nearest import unknown
      >>> unknown("option", "--metod", ["--method", "--lr"])
      'unknown option --metod; did you mean --method?'
      >>> unknown("shell", "csh", ["bash", "fish"])
      'unknown shell csh; expected one of bash, fish'
    """
    known = list(known)
    likely = [x for x in known if x not in unlikely]
    said, other = (
        f"unknown {what} {name or repr(name)}",
        f", or {beside}" if beside else "",
    )
    for names, cutoff in ((known, _SURE), (likely, 0.6), (known, 0.6)):
        if near := difflib.get_close_matches(name.lower(), names, 1, cutoff):
            return f"{said}; did you mean {near[0]}{other}?"
    if len(known) > _FEW:
        return f"{said}; {listed_by} lists them" if listed_by else said
    return f"{said}; expected one of {', '.join(known)}{other}"


def check_names(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError for the first name that is not known."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(unknown(what, name, known))
