"""Assembles the report page from records."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from bench import __version__
from bench.claims.config import Claims
from bench.claims.verdicts import Finding
from bench.records.record import Record, content
from bench.records.selection import Selection
from bench.records.statistics import RESAMPLES
from bench.reporting import intrinsics
from bench.reporting.formats import Table, hypertext
from bench.reporting.plots import style
from bench.reporting.plots.catalog import KINDS, drawn
from bench.reporting.plots.heat_map import AGREEMENT, heat_map
from bench.reporting.report import claims
from bench.reporting.report.summary import headline, key_facts
from bench.reporting.report.tables import tables
from bench.reporting.report.viewing import texts
from bench.reporting.table import Comparison

SCRIPTS = ("cuts.js", "viewer.js", "page.js")
# Colours of the pictures that follow the page's, light or dark.
VARIABLES = {
    **{style.INK: "ink", style.DIM: "dim", style.LINE: "line", style.PAPER: "card"},
    **{style.BLUE: "blue", style.ORANGE: "orange", style.GREEN: "green"},
    **{style.PURPLE: "purple", style.SKY: "sky", style.OCHRE: "ochre", style.RED: "red"},
}


def page(
    chosen: Sequence[Selection],
    reference: str | None = None,
    resamples: int = RESAMPLES,
    verdicts: tuple[Claims, Sequence[Finding]] | None = None,
    cuts: Mapping[str, Sequence[Table]] | None = None,
) -> str:
    """The whole document, with a section of verdicts where there are any. The same records give the same bytes.

    `cuts`: by suite the tables of `patchbench intrinsics`, which stand beside those of its records.

    Raises BenchError where rows of a suite cannot be compared, and where there is no matplotlib.
    """
    names = [selection.suite for selection in chosen]
    claimed = [] if verdicts is None else [claims.ID]
    parts = {
        "title": escape(f"patchbench: {', '.join(names)}"),
        "style": _asset("style.css"),
        "script": "\n".join(_asset(name) for name in SCRIPTS),
        "navigation": " ".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in (*names, *claimed)),
        "claims": "" if verdicts is None else claims.section(*verdicts),
        "suites": "\n".join(_suite(s, reference, resamples, (cuts or {}).get(s.suite, ())) for s in chosen),
        "data": _json({"runs": _runs(chosen), "suites": [_viewed(selection) for selection in chosen]}),
        "records": "\n".join(_packed(record) for selection in chosen for record in selection.records),
        "footer": escape(_footer(chosen)),
    }
    return Template(_asset("page.html")).substitute(parts)


def _asset(name: str) -> str:
    return (resources.files("bench.reporting.report") / name).read_text(encoding="utf-8")


# --- a suite


def _suite(selection: Selection, reference: str | None, resamples: int, cuts: Sequence[Table]) -> str:
    compared = Comparison(selection.records, selection.rows, reference, resamples=resamples)
    name = escape(selection.suite)
    return "\n".join(
        [
            f'<section class="suite" id="{name}" data-suite="{name}" aria-labelledby="{name}-title">',
            f'<h2 id="{name}-title">{name}</h2>',
            f'<p class="lead">{_said(selection.about)}</p>' if selection.about else "",
            f'<p class="headline">{headline(compared)}</p>',
            f'<p class="key">{escape(key_facts(compared))}</p>',
            _tables(selection, compared, cuts),
            _plots(selection, compared, cuts),
            "</section>",
        ]
    )


def _said(text: str) -> str:
    """A comment of a suite as HTML: what is in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _tables(selection: Selection, compared: Comparison, cuts: Sequence[Table]) -> str:
    """A tab for each; without a script they stand below each other."""
    made = tables(compared) | dict(zip(intrinsics.TITLES, cuts, strict=False))
    tabs, panels = [], []
    for number, (title, table) in enumerate(made.items()):
        panel = f"{escape(selection.suite)}-table-{number}"
        tabs.append(
            f'<button type="button" role="tab" id="{panel}-tab" aria-controls="{panel}">{escape(title)}</button>'
        )
        panels.append(_panel(panel, f"{selection.suite}: {title}", table, selection.notes))
    label = escape(f"Tables of {selection.suite}")
    return f'<div role="tablist" aria-label="{label}" hidden>{"".join(tabs)}</div>\n' + "\n".join(panels)


def _panel(panel: str, title: str, table: Table, notes: tuple[str, ...]) -> str:
    bare = hypertext(Table(table.columns, table.rows))
    items = "".join(f"<li>{escape(note)}</li>" for note in (*notes, *table.notes))
    return (
        f'<div role="tabpanel" id="{panel}" aria-labelledby="{panel}-tab">'
        f'<div class="wide card" tabindex="0" role="region" aria-label="{escape(title)}">{bare}</div>'
        f'<details class="notes"><summary>How to read this table</summary><ul>{items}</ul></details></div>'
    )


def _plots(selection: Selection, compared: Comparison, cuts: Sequence[Table]) -> str:
    figures = []
    for kind in KINDS:
        # Texts stay texts: they can be read aloud, searched, and take a tenth of the room.
        salt = {"svg.fonttype": "none", "svg.hashsalt": f"patchbench {selection.suite} {kind}"}
        figure = drawn(compared, kind, **salt)
        if figure is None:
            continue
        picture = themed(style.as_svg(figure, **salt), f"{selection.suite}-{kind}")
        figures.append(_figure(picture, f"{KINDS[kind].title}: {KINDS[kind].what}", KINDS[kind].caption))
    for table in cuts[1:2]:
        salt = {"svg.fonttype": "none", "svg.hashsalt": f"patchbench {selection.suite} agreement"}
        with style.styled(**salt):
            figure = heat_map(table, AGREEMENT)
        picture = themed(style.as_svg(figure, **salt), f"{selection.suite}-agreement")
        figures.append(_figure(picture, f"{AGREEMENT}: F1 of the boundaries of each two patchers", table.notes[0]))
    return f'<div class="plots">{"".join(figures)}</div>'


def _figure(picture: str, about: str, caption: str) -> str:
    return (
        f'<figure class="card"><div class="wide" tabindex="0" role="img" aria-label="{escape(about)}">'
        f"{picture}</div>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def themed(svg: str, name: str) -> str:
    """The picture in the page's colours and its font, as wide as there is room, its ids apart from other pictures'."""
    svg = re.sub("|".join(VARIABLES), lambda colour: f"var(--{VARIABLES[colour[0]]})", svg)
    svg = re.sub(r"(?<=<svg )[^>]*", lambda tag: re.sub(r'\b(?<!-)(width|height)="[^"]*" ?', "", tag[0]), svg, count=1)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{escape(name)}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{escape(name)}-", svg)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)


# --- data for the scripts


def _runs(chosen: Sequence[Selection]) -> list[dict[str, Any]]:
    return [
        {"id": r["run_id"], "suite": s.suite, "row": r["row"], "seed": r["seed"], "ok": r["status"] == "ok"}
        for s in chosen
        for r in s.records
    ]


def _viewed(selection: Selection) -> dict[str, Any]:
    return {"name": selection.suite, "texts": texts(selection.records, selection.rows)}


def _packed(record: Record) -> str:
    """A record, compressed: thirty of them would be megabytes of numbers that few look at."""
    packed = base64.b64encode(gzip.compress(content(record), 9, mtime=0)).decode()
    return f'<script type="application/gzip" id="{escape(_place(record))}">{packed}</script>'


def _place(record: Record) -> str:
    """Runs of two suites may have one id: they are the same run."""
    return f"record-{record['suite']}/{record['run_id']}"


def _json(value: Any) -> str:
    """For inside of a script element, which nothing in it can end."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _footer(chosen: Sequence[Selection]) -> str:
    runs = [record for selection in chosen for record in selection.records]
    failed = sum(record["status"] != "ok" for record in runs)
    counted = f"{len(runs)} runs" + (f", {failed} of them failed" if failed else "")
    return f"Made by patchbench {__version__} from {counted}; every number comes from the records in this page."
