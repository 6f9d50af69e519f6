"""Parts of a page, each of which is shown, or said not to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mmpareto_jax.training._report import html

# What files that somebody else has written lead to.
FAULTS = (
    *(ArithmeticError, AttributeError, LookupError, OSError),
    *(RecursionError, TypeError, ValueError),
)


def part(what: str, content: Iterable[str]) -> Iterator[str]:
    """The HTML of a part, or of a sentence where its files are not what they should be.

    Args:
      what: it is called there.
      content: its HTML; made here.
    """
    try:
        yield from list(content)
    except FAULTS as error:
        yield note(f"{what} cannot be shown: {reason(error)}")


def note(text: str) -> str:
    """A sentence beside what is shown."""
    return f'<p class="note">{html.escape(text)}</p>'


def reason(error: Exception) -> str:
    """An error in a few words."""
    text = f"{type(error).__name__}: {error}"
    return text if len(text) <= 200 else f"{text[:199]}…"
