"""What the commands say while they work, on standard error.

In a terminal one line that is drawn anew; elsewhere a plain line now and then. Heavy
imports are inside the functions, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mmpareto_jax._cli.line import Line
from mmpareto_jax.training._described.names import shortened

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

Clock = Callable[[], float]
# Seconds between two lines in a file about something that moves in small steps.
_SELDOM = 30.0


def announce(text: str) -> None:
    """Says what is to come."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Warnings about a run's directory are a line each; those of others stay."""
    from mmpareto_jax.training._run.damaged import RunWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", RunWarning)
        show = warnings.showwarning

        def line(message: Any, category: type[Warning], *where: Any) -> None:
            if issubclass(category, RunWarning):
                announce(f"mmpareto: {message}")
            else:
                show(message, category, *where)

        warnings.showwarning = line  # type: ignore[assignment]
        yield


class Display:
    """Shows a line: in its place in a terminal, or else when it is told to.

    Args:
      line: what is shown.
      console: where; None: standard error.
    """

    def __init__(self, line: Line, console: Console | None = None):
        from rich.console import Console

        self._line = line
        self._console = console or Console(stderr=True)
        self._live: Live | None = None

    def start(self) -> None:
        """From now on the line is there, in a terminal."""
        from rich.live import Live
        from rich.text import Text

        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=lambda: Text(self._text()),
                refresh_per_second=4,
            )
            self._live.start()

    def say(self, text: str) -> None:
        """A line that stays, everywhere."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def announce(self, length: str) -> None:
        """What is to come, and how long it is."""
        what = self._line.what
        if self._console.is_terminal:
            room = max(16, self._console.width - len(length) - 3)
            self.say(self._cut(f"{shortened(what, room)}: {length}"))
        else:
            self.say(f"{what}: {length}")

    def report(self, count: str = "") -> None:
        """The line as it is now, where there is no terminal."""
        if not self._console.is_terminal:
            self.say(self._line.plain(count))

    def close(self) -> None:
        """Leaves the line as it is at the end."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _text(self) -> str:
        # The last column is free: a terminal may wrap behind it.
        return self._cut(self._line.text(self._console.width - 1))

    def _cut(self, text: str) -> str:
        """As many of its columns as there are; a character may take two."""
        from rich.text import Text

        cut = Text(text)
        cut.truncate(self._console.width - 1, overflow="ellipsis")
        return cut.plain


@contextlib.contextmanager
def runs(
    what: str,
    unit: str = "runs",
    done: int = 0,
    *,
    console: Console | None = None,
    clock: Clock = time.monotonic,
) -> Iterator[Callable[[int, int, str], None]]:
    """Runs, told of after each: a line each where there is no terminal.

    Args:
      what: is done.
      unit: what is counted.
      done: how many are there already.
      console: where; None: standard error.
      clock: seconds.
    """
    line = Line(what, unit, done=done, clock=clock)
    with _shown(line, console) as display:

        def progress(done: int, total: int, what: str) -> None:
            line.total, line.note = total, what
            line.update(done)
            display.report()

        yield progress


@contextlib.contextmanager
def settings(
    console: Console | None = None, clock: Clock = time.monotonic
) -> Iterator[Callable[[int, int, str], None]]:
    """Settings of the sweep, told of before each: a line each, and one at the end."""
    with runs("sweep", "settings", console=console, clock=clock) as progress:
        total = 0

        def before(done: int, all_of_them: int, what: str) -> None:
            nonlocal total
            total = all_of_them
            progress(done, total, what)

        yield before
        progress(total, total, "")


@contextlib.contextmanager
def preparation(
    name: str, *, console: Console | None = None, clock: Clock = time.monotonic
) -> Iterator[Callable[[int, int, int], None]]:
    """Examples, and how many were left out; outside of a terminal a line now and then.

    Args:
      name: of the data set.
      console: where; None: standard error.
      clock: seconds.
    """
    line = Line(f"prepare {name}", "examples", clock=clock)
    with _shown(line, console) as display:
        said = clock()

        def progress(done: int, total: int, left_out: int) -> None:
            nonlocal said
            line.total, line.note = total, f"{left_out} left out"
            line.update(done)
            now = clock()
            if done >= total or now - said >= _SELDOM:
                said = now
                display.report()

        yield progress


@contextlib.contextmanager
def _shown(line: Line, console: Console | None) -> Iterator[Display]:
    display = Display(line, console)
    display.start()
    with contextlib.closing(display):
        yield display
