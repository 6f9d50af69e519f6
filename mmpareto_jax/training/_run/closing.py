"""What is closed at last: an error of that hides none that came before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol, TypeVar


class _Closed(Protocol):
    def close(self) -> None: ...


Thing = TypeVar("Thing", bound=_Closed)


@contextlib.contextmanager
def closed_at_last(thing: Thing) -> Iterator[Thing]:
    """As `contextlib.closing`; but where something has failed inside, that is raised.

    On a full disk, what is left in the buffers of files fails again when it is closed.
    """
    try:
        yield thing
    except BaseException:
        with contextlib.suppress(Exception):
            thing.close()
        raise
    thing.close()
