"""What was left out, told by reason: one cause is one entry, however many it hits."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence
from typing import Any

from mmpareto_jax.data.sources._plan import Problem

# Reasons that are told apart, and examples of each.
_REASONS, _EXAMPLES = 100, 10


def by_reason(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """The problems, the most frequent reason first.

    Args:
      problems: in any order. Reasons that differ in numbers alone are one.

    Returns:
      For each reason how many there are (``count``), ten of them in full
      (``examples``), and the ids of all (``ids``). Beyond a hundred reasons the rest
      is one.

    Example:
      >>> short = [Problem(f"clip{i}", "x.wav", f"too short: 0.{i} s") for i in (3, 4)]
      >>> found = by_reason([*short, Problem("odd", "odd.wav", "no sound")])
      >>> [(x["count"], x["ids"], x["examples"][0]["reason"]) for x in found]
      [(2, ['clip3', 'clip4'], 'too short: 0.3 s'), (1, ['odd'], 'no sound')]
    """
    found: dict[str, list[Problem]] = collections.defaultdict(list)
    for problem in problems:
        found[re.sub(r"\d+(?:\.\d+)?", "#", problem.reason)].append(problem)
    groups = sorted(found.values(), key=len, reverse=True)
    rest = [x for group in groups[_REASONS:] for x in group]
    return [
        {
            "count": len(group),
            "examples": [x._asdict() for x in group[:_EXAMPLES]],
            "ids": [x.id for x in group],
        }
        for group in [*groups[:_REASONS], rest]
        if group
    ]


def in_short(problems: Sequence[Problem]) -> str:
    """The most frequent reason, for a message.

    Example:
      >>> in_short([Problem("a", "raw/a.wav", "no sound")])
      '1 left out, 1 of them as raw/a.wav: no sound'
      >>> in_short([])
      'none is left out'
    """
    if not problems:
        return "none is left out"
    first = by_reason(problems)[0]
    example = first["examples"][0]
    return (
        f"{len(problems)} left out, {first['count']} of them as {example['file']}: "
        f"{example['reason']}"
    )
