"""One line about a piece of work: how far, how fast, how long still."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable

from mmpareto_jax.training._described.names import shortened

# The rate is that of the last minute: points a second apart at least.
_POINTS, _APART = 60, 1.0
_SHORTEST_BAR, _LONGEST_BAR = 8, 30


class Line:
    """How far a piece of work is, in as many words as there is room for.

    Args:
      what: is done: "compare av-digits".
      unit: in the plural: "runs".
      total: how many of them.
      done: how many of them are there at the start.
      clock: seconds.
    """

    def __init__(
        self,
        what: str,
        unit: str,
        total: int = 0,
        done: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.what, self.unit, self.total, self.done = what, unit, total, done
        self.note = ""
        self._clock, self._begun = clock, clock()
        self._points: collections.deque[tuple[float, int]] = collections.deque(
            maxlen=_POINTS
        )
        self.restart(done)

    def restart(self, done: int) -> None:
        """What went before says nothing of the rate: it was there, or compiled."""
        self.done = done
        self._points.clear()
        self._points.append((self._clock(), done))

    def update(self, done: int) -> None:
        """So many are done by now."""
        self.done = done
        now = self._clock()
        if now - self._points[-1][0] >= _APART:
            self._points.append((now, done))

    @property
    def rate(self) -> float:
        """Units per second; 0 where nothing is known yet."""
        start, done = self._points[0]
        seconds = self._clock() - start
        return (self.done - done) / seconds if seconds > 0 else 0.0

    def fields(self, count: str = "") -> list[str]:
        """What is known, in order; `count` in place of the done ones of all."""
        time_left = ""
        if self.total and self.done >= self.total:
            time_left = f"took {_clock_time(self._clock() - self._begun)}"
        elif self.rate:
            time_left = f"left {_clock_time((self.total - self.done) / self.rate)}"
        count = count or f"{self.done}/{self.total or '?'} {self.unit}"
        return [self.what, count, self._speed(), time_left, self.note]

    def plain(self, count: str = "") -> str:
        """All of it, for a file."""
        return _joined(self.fields(count))

    def text(self, width: int) -> str:
        """What fits, with a bar where there is room for one.

        Where there is too little, the word for the unit goes first, then the rate, a
        part of the name, and the note.
        """
        fields = self.fields()
        if len(_joined(fields)) > width:
            fields[1] = fields[1].split()[0]
        if len(_joined(fields)) > width:
            fields[2] = ""
        excess = len(_joined(fields)) - width
        if excess > 0:
            fields[0] = shortened(self.what, max(16, len(self.what) - excess))
        if len(_joined(fields)) > width:
            fields[4] = ""
        room = width - len(_joined(fields)) - 2
        if self.total and room >= _SHORTEST_BAR:
            fields.insert(1, self._bar(min(room, _LONGEST_BAR)))
        return _joined(fields)[:width]

    def _bar(self, length: int) -> str:
        full = length * min(self.done, self.total) // self.total
        return "━" * full + "─" * (length - full)

    def _speed(self) -> str:
        for seconds, unit in ((1, "s"), (60, "min"), (3600, "h")):
            number = self.rate * seconds
            if number >= 1:
                return f"{number:.{0 if number >= 10 else 1}f} {self.unit}/{unit}"
        return ""


def _joined(fields: list[str]) -> str:
    return "  ".join(filter(None, fields))


def _clock_time(seconds: float) -> str:
    """Hours, minutes and seconds: 0:09, 12:05, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    start = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{start}:{rest:02}"
