"""Renders a table as Markdown, LaTeX, CSV, HTML, JSON or terminal text.

Nothing is computed here. CSV and JSON have every digit; the others round for people. Every text is escaped for
where it goes.
"""

import csv
import html
import io
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from bench.records.comparison import Mark
from bench.records.statistics import Estimate
from patchers.named import unknown

Style = Literal["text", "bits", "signed", "ratio", "si", "count", "number"]
NOTHING = "—"  # in place of a number that is not there


@dataclass(frozen=True)
class Column:
    """`id` is stable and what scripts use; `title` is for people; `style` says how numbers are rounded."""

    id: str
    title: str
    style: Style
    interval: bool = False  # its cells have a low and a high end


@dataclass(frozen=True)
class Cell:
    """A value with its interval where it has one. `text` is shown in place of the value, but not in CSV and JSON."""

    value: str | float | int | None = None
    low: float | None = None
    high: float | None = None
    best: bool = False  # in bold
    text: str | None = None

    @classmethod
    def of(cls, found: Estimate | None) -> Self:
        """Nothing where there is no number, and no interval where an end of it is not known."""
        if found is None or math.isnan(found.value):
            return cls()
        known = math.isfinite(found.low) and math.isfinite(found.high)
        return cls(found.value, found.low, found.high) if known else cls(found.value)


@dataclass(frozen=True)
class Row:
    label: str
    cells: tuple[Cell, ...]  # one a column
    group: str | None = None
    marked: Mark | None = None


@dataclass(frozen=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def cell(self, row: str, column: str) -> Cell:
        """The cell of the row with this label in the column with this id."""
        place = [c.id for c in self.columns].index(column)
        return next(r for r in self.rows if r.label == row).cells[place]

    def groups(self) -> Iterator[tuple[str | None, list[Row]]]:
        """The rows by group, in their order; one group called None where there are none."""
        for name, rows in groupby(self.rows, key=lambda row: row.group):
            yield name, list(rows)


def render(table: Table, format: str) -> str:
    """The table as text in one of FORMATS. Raises BenchError for another format."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    return FORMATS[format](table)


# --- numbers for people


def shown(column: Column, cell: Cell) -> tuple[str, str]:
    """What a person reads in a cell: the value, and its interval or nothing."""
    if cell.text is not None:
        return cell.text, ""
    if cell.value is None:
        return NOTHING, ""
    if isinstance(cell.value, str):
        return cell.value, ""
    if not column.interval or cell.low is None or cell.high is None:
        return number(cell.value, column.style), ""
    return number(cell.value, column.style), f"[{number(cell.low, column.style)}, {number(cell.high, column.style)}]"


def number(value: float, style: Style) -> str:
    """A number rounded as its style says: `si` has three digits and a k, M, G, T, P or E."""
    if style == "count":
        return f"{value:,.0f}"
    if style == "si":
        return _si(value)
    digits = {"bits": ".3f", "signed": "+.3f", "ratio": ".2f"}.get(style, ".4g")
    text = f"{value:{digits}}"
    return text.lstrip("+-") if style == "signed" and float(text) == 0 else text


def _si(value: float) -> str:
    value = float(f"{value:.3g}")
    power = 0 if value == 0 else min(6, max(0, math.floor(math.log10(abs(value))) // 3))
    if power == 0 and value == int(value):
        return f"{value:.0f}"
    scaled = value / 1000**power
    return f"{scaled:.{2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0}f}{' kMGTPE'[power].strip()}"


def _title(column: Column) -> str:
    return f"{column.title} [95 %]" if column.interval else column.title


def _one_line(text: str) -> str:
    return " ".join(text.split())


# --- formats


def markdown(table: Table) -> str:
    def text(value: str) -> str:
        return re.sub(r"([\\`*<|])", r"\\\1", _one_line(value))

    def cell(column: Column, cell: Cell) -> str:
        value, interval = (text(part) for part in shown(column, cell))
        return f"**{value}** {interval}".rstrip() if cell.best else f"{value} {interval}".rstrip()

    lines = [[text(_title(column)) for column in table.columns]]
    for group, rows in table.groups():
        if group is not None:
            lines.append([f"*{text(group)}*"] + [""] * (len(table.columns) - 1))
        lines += [[cell(c, x) for c, x in zip(table.columns, row.cells, strict=True)] for row in rows]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(table.columns))]
    left = [column.style == "text" for column in table.columns]

    def joined(line: list[str]) -> str:
        padded = (v.ljust(w) if is_left else v.rjust(w) for v, w, is_left in zip(line, widths, left, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if is_left else "-" * (w - 1) + ":" for w, is_left in zip(widths, left, strict=True)]
    out = [joined(lines[0]), joined(rule), *map(joined, lines[1:])]
    return "\n".join([*out, *(["", *(f"- {text(note)}" for note in table.notes)] if table.notes else [])])


LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "—": "---",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
}


def _tex(character: str) -> str:
    """What pdflatex can print as it is, what has a command, and the number of any other character."""
    if character in LATEX:
        return LATEX[character]
    printable = " " <= character <= "~" or "\xa1" <= character <= "\xff" or character in "…–‘’“”"
    return character if printable else f"[U+{ord(character):04X}]"


def latex(table: Table) -> str:
    def text(value: str) -> str:
        return "".join(map(_tex, _one_line(value)))

    def cell(column: Column, cell: Cell) -> str:
        value, interval = (text(part) for part in shown(column, cell))
        if not isinstance(cell.value, str):
            value, interval = (re.sub(r"-(?=\d)", "$-$", part) for part in (value, interval))
        value = f"\\textbf{{{value}}}" if cell.best else value
        return f"{value} {{\\scriptsize {interval}}}" if interval else value

    def line(cells: list[str]) -> str:
        # A row that begins with [ or * would be taken for an option of the \\ before it.
        return ("{}" if cells[0][:1] in ("[", "*") else "") + " & ".join(cells) + r" \\"

    body = []
    for group, rows in table.groups():
        if group is not None:
            body += [r"\addlinespace", rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{text(group)}}}}} \\"]
        body += [line([cell(c, x) for c, x in zip(table.columns, row.cells, strict=True)]) for row in rows]
    notes = [r"\medskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
    notes += [f"{text(note)}\\par" for note in table.notes] + [r"\end{minipage}"]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs,graphicx} and, for \\textquotedbl, \\usepackage[T1]{fontenc}",
            r"\begin{table}",
            r"\centering",
            r"\setlength{\tabcolsep}{4pt}",
            r"\sbox0{%",
            rf"\begin{{tabular}}{{{''.join('l' if c.style == 'text' else 'r' for c in table.columns)}}}",
            r"\toprule",
            line([text(_title(column)) for column in table.columns]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            *(["", *notes] if table.notes else []),
            r"\end{table}",
        ]
    )


def comma_separated(table: Table) -> str:
    """All digits, no notes; an interval is two more columns, `ID_low` and `ID_high`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    grouped = any(row.group is not None for row in table.rows)
    head = ["group"] if grouped else []
    for column in table.columns:
        head += [column.id, f"{column.id}_low", f"{column.id}_high"] if column.interval else [column.id]
    writer.writerow(head)
    for row in table.rows:
        values: list[Any] = [row.group] if grouped else []
        for column, cell in zip(table.columns, row.cells, strict=True):
            values += [cell.value, cell.low, cell.high] if column.interval else [cell.value]
        writer.writerow(["" if value is None else value for value in values])
    return out.getvalue().rstrip("\n")


def as_json(table: Table) -> str:
    """Columns, rows and notes; a cell with an interval is an object, another one its value."""

    def value(column: Column, cell: Cell) -> Any:
        if not column.interval:
            return cell.value
        return {"value": cell.value, "low": cell.low, "high": cell.high, "best": cell.best}

    rows = []
    for row in table.rows:
        cells = {c.id: value(c, x) for c, x in zip(table.columns, row.cells, strict=True)}
        rows.append({"label": row.label, "group": row.group, "marked": row.marked, "cells": cells})
    columns = [{"id": c.id, "title": c.title, "interval": c.interval} for c in table.columns]
    return json.dumps({"columns": columns, "rows": rows, "notes": table.notes}, ensure_ascii=False, indent=1)


def hypertext(table: Table) -> str:
    """A fragment for any page: no style but alignment, no script; exact numbers in `data-value` to sort by."""

    def text(value: str) -> str:
        return html.escape(_one_line(value))

    def attributes(column: Column, cell: Cell | None = None) -> str:
        value = "" if cell is None or cell.value is None else f' data-value="{html.escape(str(cell.value))}"'
        return value + ("" if column.style == "text" else ' style="text-align:right"')

    def cell(column: Column, cell: Cell) -> str:
        value, interval = (text(part) for part in shown(column, cell))
        value = f"<strong>{value}</strong>" if cell.best else value
        inside = f"{value} <small>{interval}</small>" if interval else value
        if column.id == "row":
            return f'<th scope="row"{attributes(column, cell)}>{inside}</th>'
        return f"<td{attributes(column, cell)}>{inside}</td>"

    lines = ['<figure class="patchbench-table">', "<table>", "<thead><tr>"]
    lines += [
        f'<th scope="col" data-column="{text(c.id)}"{attributes(c)}>{text(_title(c))}</th>' for c in table.columns
    ]
    lines += ["</tr></thead>"]
    for group, rows in table.groups():
        lines.append("<tbody>")
        if group is not None:
            lines.append(f'<tr><th scope="rowgroup" colspan="{len(table.columns)}">{text(group)}</th></tr>')
        for row in rows:
            mark = f' class="{row.marked}"' if row.marked else ""
            lines.append(f"<tr{mark}>")
            lines += [cell(c, x) for c, x in zip(table.columns, row.cells, strict=True)]
            lines.append("</tr>")
        lines.append("</tbody>")
    lines.append("</table>")
    if table.notes:
        lines += ["<figcaption><ul>", *(f"<li>{text(note)}</li>" for note in table.notes), "</ul></figcaption>"]
    return "\n".join([*lines, "</figure>"])


def rich_table(table: Table, width: int | None = None, star: bool = False) -> RenderableType:
    """For `rich.console.Console.print`: the table, and its notes below.

    Columns that do not fit into `width` go below the others, with the rows' labels once more. `star` is for where
    bold cannot be seen.
    """
    parts = [_rich_part(table, part, star) for part in _parts(table, width)]
    return Group(*parts, *(Text(_one_line(note), style="dim") for note in table.notes))


WORDS_WIDTH = 32  # texts longer than this are wrapped
GAP = 3  # between columns


def _width(table: Table, place: int) -> int:
    """How many characters a column needs so that nothing but long texts is wrapped."""
    column = table.columns[place]
    cells = (len(" ".join(shown(column, row.cells[place])).strip()) for row in table.rows)
    width = max([*(len(word) for word in column.title.split()), *cells, 6 if column.interval else 1])
    return min(width, WORDS_WIDTH) if column.style == "text" and column.id != "row" else width


def _parts(table: Table, width: int | None) -> Iterator[list[int]]:
    """The places of the columns that stand beside each other, the row's label first in each part."""
    labels = [place for place, column in enumerate(table.columns) if column.id == "row"]
    part: list[int] = []
    for place in range(len(table.columns)):
        needed = sum(_width(table, p) + GAP for p in dict.fromkeys([*labels, *part, place]))
        if width is not None and needed > width and set(part) - set(labels):
            yield list(dict.fromkeys([*labels, *part]))
            part = []
        part.append(place)
    yield list(dict.fromkeys([*labels, *part]))


def _rich_part(table: Table, places: list[int], star: bool) -> RichTable:
    out = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column, width in ((table.columns[place], _width(table, place)) for place in places):
        title = [*textwrap.wrap(column.title, width), *(["[95 %]"] if column.interval else [])]
        justify: Literal["left", "right"] = "left" if column.style == "text" else "right"
        out.add_column(Text("\n".join(title)), justify=justify, min_width=width, overflow="fold")
    styles = {"leaky": "italic dim", "pretrained": "italic", "failed": "dim", None: ""}
    for group, rows in table.groups():
        if group is not None:
            out.add_row(Text(group, style="italic"))
        for row in rows:
            cells = [_rich_cell(table.columns[place], row.cells[place], star) for place in places]
            out.add_row(*cells, style=styles[row.marked])
        out.add_section()
    return out


def _rich_cell(column: Column, cell: Cell, star: bool) -> Text:
    value, interval = shown(column, cell)
    text = Text(("*" if star and cell.best else "") + _one_line(value), style="bold" if cell.best else "")
    return text.append(f" {interval}", style="not bold dim") if interval else text


def terminal(table: Table) -> str:
    """As wide and as colourful as standard output is; whole lines and no colour where that is no terminal."""
    console = Console(highlight=False)
    if console.is_terminal:
        content = rich_table(table, console.width, star=console.color_system is None)
    else:
        console = Console(highlight=False, width=10_000, color_system=None)
        content = rich_table(table, star=True)
    with console.capture() as capture:
        console.print(content)
    return "\n".join(line.rstrip() for line in capture.get().strip("\n").split("\n"))


FORMATS: dict[str, Callable[[Table], str]] = {
    "terminal": terminal,
    "md": markdown,
    "latex": latex,
    "csv": comma_separated,
    "html": hypertext,
    "json": as_json,
}
