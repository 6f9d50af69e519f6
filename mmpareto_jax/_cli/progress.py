"""Progress bars of the commands; none where the output is no terminal.

Heavy imports are inside the functions, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from mmpareto_jax.training import Callback, Config


@contextlib.contextmanager
def training(config: Config) -> Iterator[list[Callback]]:
    """Steps, their speed, and the losses."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from mmpareto_jax.training import Callback

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:.0f} steps/s")

    columns = (
        TextColumn(config.method),
        BarColumn(),
        MofNCompleteColumn(),
        Speed(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )

    class Shown(Callback):
        def __init__(self, update: Any):
            self.update = update

        def on_tick(self, step: int) -> None:
            self.update(completed=step, total=config.num_steps)

        def on_step(self, step: int, metrics: dict[str, Any]) -> None:
            if step % 10 == 0:
                shown = "  ".join(
                    f"{name.removeprefix('loss/')} {value:.2f}"
                    for name, value in metrics.items()
                    if name.startswith("loss/") and value is not None
                )
                self.update(description=f"losses: {shown}")

    with _bar("compiling", *columns) as update:
        yield [Shown(update)] if update else []


@contextlib.contextmanager
def comparison() -> Iterator[Callable[[int, int, str], None] | None]:
    """Runs, and the method of the last one."""
    with _bar("compiling") as update:

        def progress(done: int, total: int, what: str) -> None:
            update(completed=done, total=total, description=what)

        yield progress if update else None


@contextlib.contextmanager
def preparation() -> Iterator[Callable[[int, int, int], None] | None]:
    """Clips, and how many were left out."""
    with _bar("decoding") as update:

        def progress(done: int, total: int, left_out: int) -> None:
            what = f"decoding, {left_out} left out"
            update(completed=done, total=total, description=what)

        yield progress if update else None


@contextlib.contextmanager
def _bar(what: str, *columns: ProgressColumn) -> Iterator[Any]:
    """What updates the one bar that is shown; None where the output is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=None)
        yield functools.partial(bar.update, task)
