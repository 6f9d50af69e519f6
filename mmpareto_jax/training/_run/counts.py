"""How many steps of a run were not finite, and whose fault it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# What is no group of parameters: statistics, and what rules and methods keep.
ELSEWHERE = "other state"
# The metric of a step that says whether it was one, and the last part of a group's.
NONFINITE = "nonfinite"
_DONE = {
    "skip": "skipped",
    "stop": "which ended the run",
    "continue": "taken as they were",
}


class Nonfinite(NamedTuple):
    """Steps that were not finite, counted.

    Attributes:
      steps: how many.
      total: of how many.
      objectives: objective -> at how many of these its loss or its gradient was at
        fault; those without any are left out.
      groups: group of parameters, or "other state" (the model's statistics, what rules
        and methods keep) -> at how many a gradient on it was, or what came of it.
      last: the step that ends the last record of one; None: there is none.
    """

    steps: int
    total: int
    objectives: dict[str, int]
    groups: dict[str, int]
    last: int | None

    @classmethod
    def of(
        cls,
        records: Iterable[Mapping[str, Any]],
        objectives: Iterable[str],
        groups: Iterable[str],
    ) -> Nonfinite:
        """Of the records of steps."""
        records = list(records)
        bad = [r for r in records if r.get(NONFINITE)]

        def count(name: str) -> int:
            return sum(int(r.get(name, 0)) for r in bad)

        own = {k: count(f"{NONFINITE}/{k}") for k in objectives}
        named = dict.fromkeys([*groups, ELSEWHERE])
        by_group = {k: count(f"{k}/{NONFINITE}") for k in named}
        return cls(
            count(NONFINITE),
            sum(int(r.get("steps", 1)) for r in records),
            {k: n for k, n in own.items() if n},
            {k: n for k, n in by_group.items() if n},
            max((int(r["step"]) for r in bad if "step" in r), default=None),
        )

    def said(self, what: str) -> str:
        """The sentence, with what was done.

        Args:
          what: the run's ``on_nonfinite``.

        Example:
          >>> found = Nonfinite(7, 200, {"audio": 7}, {"joint+audio": 7}, 34)
          >>> found.said("skip")
          '7 of 200 steps were not finite (audio: 7; on joint+audio: 7), skipped'
        """
        own = ", ".join(f"{k}: {n}" for k, n in self.objectives.items())
        groups = ", ".join(f"{k}: {n}" for k, n in self.groups.items())
        where = "; ".join(filter(None, [own, groups and f"on {groups}"]))
        were = "was" if self.steps == 1 else "were"
        return (
            f"{self.steps} of {self.total} steps {were} not finite"
            f"{f' ({where})' if where else ''}, {_DONE[what]}"
        )
