"""Pieces of an HTML page that needs nothing but itself."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.figure import Figure

# Drawn as pictures inside the SVG: a path for each of more points is megabytes.
_MANY_POINTS = 3000

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
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table {
  border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0;
}
th, td {
  padding: 0.3rem 0.75rem 0.3rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line);
}
td { white-space: nowrap; }
th { font-weight: 600; }
thead th { vertical-align: bottom; font-size: 0.9rem; }
th:first-child, table.plain td { text-align: left; }
table.plain td { white-space: normal; overflow-wrap: anywhere; }
table:not(.plain) th:first-child { position: sticky; left: 0; background: var(--page); }
figure { margin: 1.4rem 0; }
figure svg { display: block; height: auto; fill: currentColor; }
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
    first = "".join(f'<th scope="col">{escape(x)}</th>' for x in head)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(key)}</th>'
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


def details(summary: str, *content: str) -> str:
    """What is there for those who ask; `summary` is text and the content is HTML."""
    inner = "\n".join(content)
    return f"<details><summary>{escape(summary)}</summary>\n{inner}\n</details>"


def figure(drawing: Figure, number: int, caption: str) -> str:
    """A figure as inline SVG, in the colours of the page.

    Args:
      drawing: whose black is to be the colour of the page's text.
      number: another one for each figure of a page: an SVG's names are the page's.
      caption: text.
    """
    for axis in drawing.axes:
        for line in axis.lines:
            line.set_rasterized(len(line.get_xydata()) > _MANY_POINTS)
        for points in axis.collections:
            points.set_rasterized(len(points.get_offsets()) > _MANY_POINTS)
    file = io.StringIO()
    # Text stays text; names come from what is drawn and not from a random number.
    options = {"svg.fonttype": "none", "svg.hashsalt": "mmpareto"}
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(options):
        drawing.savefig(file, format="svg", transparent=True, dpi=160, metadata=nothing)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # In HTML an svg element has its name spaces by itself.
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>f{number}-", svg)
    svg = re.sub(r"(fill|stroke): ?#000000", r"\1: currentColor", svg)
    width = drawing.get_figwidth()
    # As wide as drawn where there is room; scrolled where it would be unreadable.
    size = f"width: {6 * width:.0f}rem; max-width: 100%; min-width: {4 * width:.0f}rem"
    label, (_, _, *box) = escape(caption), drawing.bbox.bounds
    across, down = (72 * x / drawing.dpi for x in box)
    svg = svg[svg.index(">") + 1 :].strip()
    svg = (
        f'<svg viewBox="0 0 {across:g} {down:g}" role="img" aria-label="{label}" '
        f'style="{size}">\n{svg}'
    )
    return (
        f'<figure><div class="scroll" tabindex="0">{svg}</div>\n'
        f"<figcaption>{label}</figcaption></figure>"
    )
