"""Pieces of an HTML page that needs nothing but itself."""

from __future__ import annotations

import html
import io
import re
import warnings
import zlib
from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmpareto_jax.training._report.drawing import save

# Drawn as pictures inside the SVG: a path for each of more points is megabytes.
_MANY_POINTS = 3000
# What does not fit beside other columns.
_LONG_TEXT, _LONG_WORD = 40, 20

_STYLE = """
:root {
  color-scheme: light dark;
  --text: #1b1f24; --faint: #5b6470; --line: #d8dde3; --page: #fff; --raised: #f5f7f9;
  --mark: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root {
    --text: #e4e7eb; --faint: #9aa4b0; --line: #363d46; --page: #14171b;
    --raised: #1d2127; --mark: #79b8ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 74rem; padding: 1rem clamp(0.8rem, 3vw, 2rem) 4rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 0.3rem; }
h2 {
  font-size: 1.25rem; margin: 2.6rem 0 0.6rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line);
}
h3 { font-size: 1rem; margin: 1.6rem 0 0.4rem; }
p { margin: 0.4rem 0; max-width: 46rem; }
p.note, figcaption { color: var(--faint); font-size: 0.9rem; }
a { color: var(--mark); }
.scroll {
  overflow-x: auto;
  /* A shadow where more is to the right, and what covers it at the end. */
  background:
    linear-gradient(to left, var(--page) 40%, transparent) 100% / 2rem 100% no-repeat
      local,
    linear-gradient(to left, var(--line), transparent) 100% / 0.8rem 100% no-repeat;
}
details .scroll { background: none; }
table {
  border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0;
}
th, td {
  padding: 0.3rem 0.75rem 0.3rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
td, tbody th { white-space: nowrap; }
th.long { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
th { font-weight: 600; }
thead th { vertical-align: bottom; font-size: 0.9rem; }
th:first-child, table.plain :is(th, td) { text-align: left; }
table.plain :is(th, td) { white-space: normal; overflow-wrap: anywhere; }
table:not(.plain) th:first-child { position: sticky; left: 0; background: var(--page); }
.figures { display: flex; flex-wrap: wrap; gap: 1.6rem 1.8rem; margin: 1.4rem 0; }
figure { margin: 0; min-width: 0; max-width: 100%; }
figure svg { display: block; max-width: 100%; height: auto; fill: currentColor; }
figcaption { width: 0; min-width: 100%; }
details {
  margin: 0.7rem 0; padding: 0.45rem 0.8rem; background: var(--raised);
  border-radius: 0.4rem;
}
summary { cursor: pointer; font-weight: 600; }
@media print { details { background: none; } }
"""
# What the page may load: nothing. It is a second lock; there is nothing to load.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def escape(text: object) -> str:
    """The text as HTML, for elements and attributes alike."""
    return html.escape(str(text))


def page(title: str, body: Iterable[str]) -> str:
    """The whole document; `title` is text and the body is HTML."""
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
    ]
    lines = ["<!DOCTYPE html>", '<html lang="en">', "<head>", *head, "</head>"]
    return "\n".join([*lines, "<body>", *body, "</body>", "</html>", ""])


def table(
    head: Sequence[object], lines: Iterable[Sequence[object]], *, plain: bool = False
) -> str:
    """A table of text; the first cell of a line is its head.

    Args:
      head: of the columns; none: without.
      lines: the cells.
      plain: of words, which wrap, instead of numbers, which stand in a line.
    """
    first = "".join(_head(x, "col") for x in head)
    rows = "\n".join(
        f"<tr>{_head(key, 'row')}"
        + "".join(f"<td>{escape(x)}</td>" for x in cells)
        + "</tr>"
        for key, *cells in lines
    )
    top = f"<thead><tr>{first}</tr></thead>\n" if head else ""
    kind = ' class="plain"' if plain else ""
    # Focusable, so that what is cut off is reached by keyboard.
    return (
        f'<div class="scroll" tabindex="0"><table{kind}>\n{top}<tbody>\n{rows}\n'
        "</tbody></table></div>"
    )


def _head(text: object, scope: str) -> str:
    """A head cell; a long name in it may be broken anywhere."""
    words = str(text).split()
    long = len(str(text)) > _LONG_TEXT or max(map(len, words), default=0) > _LONG_WORD
    kind = ' class="long"' if long else ""
    return f'<th scope="{scope}"{kind}>{escape(text)}</th>'


def details(summary: str, *content: str) -> str:
    """What is there for those who ask; `summary` is text and the content is HTML."""
    inner = "\n".join(content)
    return f"<details><summary>{escape(summary)}</summary>\n{inner}\n</details>"


def figures(drawings: Iterable[tuple[Figure, str]]) -> str:
    """Figures with their captions, side by side where there is room."""
    inner = "\n".join(_figure(drawing, caption) for drawing, caption in drawings)
    return f'<div class="figures">\n{inner}\n</div>'


def _figure(drawing: Figure, caption: str) -> str:
    """A figure as inline SVG; what is black takes the colour of the page's text."""
    for axis in drawing.axes:
        for line in axis.lines:
            line.set_rasterized(np.size(line.get_xdata()) > _MANY_POINTS)
        for points in axis.collections:
            num = max(np.shape(points.get_offsets())[0], len(points.get_paths()))
            points.set_rasterized(num > _MANY_POINTS)
    file = io.StringIO()
    with (
        # Text stays text; names come from what is drawn and not from a random number.
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "mmpareto"}),
        warnings.catch_warnings(),
    ):
        # The reader's browser has glyphs that matplotlib's font has not.
        warnings.filterwarnings("ignore", "Glyph")
        save(drawing, file, format="svg", transparent=True, dpi=160)
    svg = file.getvalue()
    body = svg[svg.index("<defs>") : svg.rindex("</svg>")]
    # The names in an SVG are names in the whole page.
    own = f"f{zlib.crc32(body.encode()):08x}"
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}-", body)
    body = re.sub(r"(fill|stroke): ?#000000", r"\1: currentColor", body)
    width, height = drawing.get_size_inches()
    # As wide as drawn where there is room; scrolled where it would be unreadable.
    size = f"width: {5.6 * width:.1f}rem; min-width: {3.8 * width:.1f}rem"
    label = escape(caption)
    return (
        f'<figure><div class="scroll" tabindex="0"><svg role="img" '
        f'viewBox="0 0 {72 * width:g} {72 * height:g}" aria-label="{label}" '
        f'style="{size}">\n{body}</svg></div>\n'
        f"<figcaption>{label}</figcaption></figure>"
    )
