"""Writes the HTML page of `patchbench segment --html FILE`."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Sequence

from bench.reporting.cut_viewer import TITLES, Cell, Cut, cells, describe, height, numbers, shown_bytes

_STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --ink: #1d2329; --dim: #5f6770; --line: #d8d5cc;
  --a: #cfe6fb; --b: #ffe4b3; --edge: #00000038; --bar: #b3372f; }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --ink: #e8e6e1; --dim: #9aa2ab; --line: #343a41;
  --a: #1f4766; --b: #5e4414; --edge: #ffffff40; --bar: #ff8f7d; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 70rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 0; }
p { margin: 0 0 .4rem; color: var(--dim); }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child { text-align: left; } thead th { color: var(--dim); font-weight: 500; }
.text { font: 15px/1.9 ui-monospace, monospace; white-space: break-spaces; overflow-wrap: anywhere; }
.text span { padding: .15em 0; background: var(--a); box-shadow: inset 1px 0 var(--edge); }
.text span:nth-of-type(2n) { background: var(--b); }
.text u { font-style: italic; text-decoration: none; }
.scored { line-height: 2.9; }
.scored i { font-style: normal; padding-bottom: 1.3em;
  background: linear-gradient(var(--bar), var(--bar)) left bottom / 100% calc(var(--s) * 1.1em) no-repeat; }
"""


def fragment(one: Cut) -> str:
    """For a cell of a notebook."""
    style = _STYLE[_STYLE.index(".text {") :]
    colours = "--a: #cfe6fb; --b: #ffe4b3; --edge: #00000038; --bar: #b3372f; color: #1d2329"
    inside = "\n".join([_table([one]), *_section(one)])
    return f'<style>{style}</style>\n<div style="{colours}">{inside}</div>'


def page(views: Sequence[Cut], source: str) -> str:
    """The whole document."""
    size = len(views[0].text) if views else 0
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>patchbench segment</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
            "<h1>One text, cut in different ways</h1>",
            f"<p>{size:,} bytes {html.escape(source)}. Each patch has a colour of its neighbours' other; "
            "point at one for its place. Lengths are in bytes; <i>on spaces</i> is the share of boundaries with white "
            "space beside them.</p>",
            _table(views),
            *(line for one in views for line in _section(one)),
            "</body>\n</html>\n",
        ]
    )


def _table(views: Sequence[Cut]) -> str:
    head = "".join(f'<th scope="col">{title}</th>' for title in ("patcher", *TITLES))
    body = (
        f'<tr><th scope="row">{html.escape(one.label)}</th>'
        + "".join(f"<td>{value}</td>" for value in numbers(one.statistics))
        + "</tr>"
        for one in views
    )
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{"".join(body)}</tbody>\n</table></div>'


def _section(one: Cut) -> Iterator[str]:
    yield f"<h2>{html.escape(one.label)}</h2>"
    yield f"<p>{html.escape(describe(one))}</p>"
    end = shown_bytes(one.text, one.starts)
    yield f'<div class="text{" scored" if one.scores is not None else ""}" dir="auto">'
    shown = cells(one.text[:end], one.starts[:end])
    yield "".join(_patch(one, list(group)) for _, group in itertools.groupby(shown, key=lambda cell: cell.patch))
    yield "</div>"
    if one.scores is not None:
        yield f"<p>Bars: {html.escape(one.scale)}.</p>"
    if end < len(one.text):
        yield f"<p>And {len(one.text) - end:,} bytes more, which the numbers count.</p>"


def _patch(one: Cut, patch: Sequence[Cell]) -> str:
    begin, end = patch[0].begin, patch[-1].end
    inside = "".join(_cell(one, cell) for cell in patch)
    return f'<span title="byte {begin:,}, length {end - begin:,}">{inside}</span>'


def _cell(one: Cut, cell: Cell) -> str:
    shown = html.escape(cell.shown)
    if cell.raw:
        shown = f"<u>{shown}</u>"
    if one.scores is not None:
        shown = f'<i style="--s:{height(one, cell):.2f}">{shown}</i>'
    return shown + "<br>" * cell.newline
