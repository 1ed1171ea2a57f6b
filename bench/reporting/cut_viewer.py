"""Renders texts with coloured patches, once per patcher: for `patchbench segment` in a terminal and as a page, and for
notebooks.

Nothing of the text reaches the terminal but what can be printed: a control character is shown as its picture
(U+2400 and on), and whatever else is not a printable character, or is cut inside, as its bytes, `‹e2›`.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.data.cut_statistics import CutStatistics, cut_statistics
from patchers import Patcher, Starts
from patchers.errors import BenchError
from patchers.scores.byte_models import Scores

SHOWN = 10_000  # bytes of a text that are printed; statistics and JSON have all of it
STYLES = ("#10202c on #9ecbf2", "#2c1d08 on #ffcf87")  # patches in turns
BARS = " ▁▂▃▄▅▆▇█"
NARROW = 100  # columns where there is no terminal


@runtime_checkable
class Scoring(Protocol):
    """A patcher that has a score for each byte, such as an entropy."""

    def scores(self, data: bytes) -> Scores: ...


@dataclasses.dataclass(frozen=True, repr=False)
class Cut:
    """A text as one patcher cuts it; a notebook shows it in colours."""

    label: str
    patcher: Patcher
    text: bytes
    starts: Starts
    """(len(text),) bool: whether a patch starts at each byte."""
    scores: Scores | None
    """(len(text),): the patcher's score of each byte, where it has any (an entropy is in nats)."""
    statistics: CutStatistics
    """What `patchbench segment` says."""

    def __repr__(self) -> str:
        return f"<{self.label}: {len(self.text):,} bytes in {len(self.patches):,} patches>"

    def _repr_html_(self) -> str:
        return fragment(self)

    @property
    def patches(self) -> list[bytes]:
        """The text, patch by patch."""
        edges = [*np.flatnonzero(self.starts).tolist(), len(self.text)]
        return [self.text[a:b] for a, b in itertools.pairwise(edges)]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each patch, shape (patches,)."""
        return np.diff(np.flatnonzero(np.append(self.starts, True)))

    @property
    def boundaries(self) -> str:
        return "causal" if self.patcher.causal else "priced"

    @property
    def top(self) -> float:
        """The score that a bar of full height stands for."""
        return float(self.scores.max(initial=0.0)) if self.scores is not None else 0.0

    @property
    def scale(self) -> str:
        """What the bars mean."""
        name: str = getattr(self.patcher, "score_name", "score")
        return f"{name}, byte by byte, 0 to {self.top:.3g}"


def view(label: str, patcher: Patcher, text: bytes) -> Cut:
    """Raises BenchError for a patcher that does not return a start a byte; its own exceptions are its own."""
    starts = patcher.segment(text)
    if not isinstance(starts, np.ndarray) or starts.dtype != np.bool_ or starts.shape != (len(text),):
        got = f"{starts.dtype} {starts.shape}" if isinstance(starts, np.ndarray) else type(starts).__name__
        raise BenchError(
            f"patcher '{patcher.name}' returned {got}, wanted a numpy array of bool of shape ({len(text)},); "
            f"see `patchbench check {patcher.name}`"
        )
    if not starts[:1].all():
        raise BenchError(
            f"patcher '{patcher.name}' starts no patch at byte 0, where every document has a start; "
            f"see `patchbench check {patcher.name}`"
        )
    scores = patcher.scores(text) if isinstance(patcher, Scoring) else None
    return Cut(label, patcher, text, starts, scores, cut_statistics([text], [starts]))


# --- a text as what can be shown


@dataclasses.dataclass(frozen=True)
class Cell:
    """The least that is shown as one: a character with its marks, or a byte."""

    shown: str
    begin: int
    end: int  # bytes begin..end-1 of the text
    patch: int  # the number of the patch it is in
    starts: bool  # whether it begins that patch
    raw: bool = False  # stands for bytes that cannot be shown as they are
    newline: bool = False

    @property
    def width(self) -> int:
        """Columns of a terminal."""
        return cell_len(self.shown)


def shown_bytes(text: bytes, starts: Starts) -> int:
    """How much of a text is printed: whole patches where they are not too long, and whole characters."""
    if len(text) <= SHOWN:
        return len(text)
    last = int(np.flatnonzero(starts[: SHOWN + 1])[-1])
    end = last if last > SHOWN // 2 else SHOWN
    while 0x80 <= text[end] < 0xC0 and end > SHOWN // 2:
        end -= 1
    return end


def cells(text: bytes, starts: Starts) -> list[Cell]:
    """The whole text, in order."""
    numbers = (np.cumsum(starts) - 1).tolist()
    flags = starts.tolist()
    out: list[Cell] = []
    at = 0
    for character in text.decode(errors="surrogateescape"):
        invalid = 0xDC80 <= ord(character) <= 0xDCFF
        end = at + (1 if invalid else len(character.encode()))
        if character in _PICTURES:
            picture = _PICTURES[character]
            out.append(Cell(picture, at, end, numbers[at], flags[at], raw=True, newline=character == "\n"))
        elif invalid or not character.isprintable() or any(flags[at + 1 : end]):
            out += [Cell(f"‹{text[i]:02x}›", i, i + 1, numbers[i], flags[i], raw=True) for i in range(at, end)]
        elif cell_len(character) == 0:  # a mark: it goes onto the character before, unless that is in another patch
            if out and not flags[at] and not out[-1].raw:
                out[-1] = dataclasses.replace(out[-1], shown=out[-1].shown + character, end=end)
            else:
                out.append(Cell("◌" + character, at, end, numbers[at], flags[at]))
        else:
            out.append(Cell(character, at, end, numbers[at], flags[at]))
        at = end
    return out


_PICTURES = {chr(code): chr(0x2400 + code) for code in range(32)} | {"\x7f": "␡"}


def rows(text: Sequence[Cell], width: int, gap: int) -> Iterator[list[Cell]]:
    """Lines of at most `width` columns, of which each patch takes `gap` more; a patch that fits is not broken."""
    row: list[Cell] = []
    used = 0
    for _, group in itertools.groupby(text, key=lambda cell: cell.patch):
        patch = list(group)
        needed = sum(cell.width for cell in patch) + gap
        if row and used + needed > width >= needed:
            yield row
            row, used = [], 0
        for cell in patch:
            columns = cell.width + gap * cell.starts
            if row and used + columns > width:
                yield row
                row, used = [], 0
            row.append(cell)
            used += columns
            if cell.newline:
                yield row
                row, used = [], 0
    if row:
        yield row


# --- on a terminal


def show(views: Sequence[Cut], source: str, console: Console) -> None:
    """Print every view, then all statistics in one table."""
    colour = console.is_terminal and console.color_system is not None and not console.no_color
    width = console.width if console.is_terminal else NARROW
    for one in views:
        _print(console, Text.assemble((one.label, "bold"), ("  " + describe(one), "dim")))
        for line in _lines(one, width, colour):
            _print(console, line)
        _print(console, Text())
    if not console.is_terminal:
        console = Console(file=console.file, width=1000, highlight=False)
    console.print(statistics_table(views, source))


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True)


def describe(one: Cut) -> str:
    """What a patcher is, in a few words."""
    knob = one.patcher.knob
    value = one.patcher.options().get(knob) if knob else None
    setting = "" if value is None else f"{knob} {value:.4g}, " if isinstance(value, float) else f"{knob} {value}, "
    return f"{setting}{one.boundaries}; {one.patcher.source}"


def _lines(one: Cut, width: int, colour: bool) -> Iterator[Text]:
    end = shown_bytes(one.text, one.starts)
    gap = 0 if colour else 1
    for row in rows(cells(one.text[:end], one.starts[:end]), width, gap):
        line = Text()
        for (patch, raw), group in itertools.groupby(row, key=lambda cell: (cell.patch, cell.raw)):
            shown = "".join("│" * (gap and cell.starts) + cell.shown for cell in group)
            line.append(shown, (STYLES[patch % 2] + (" italic" if raw else "")) if colour else "")
        yield line
        if one.scores is not None:
            bars = "".join(" " * (gap and cell.starts) + _bar(one, cell) * cell.width for cell in row)
            yield Text(bars.rstrip(), "dim")
    if one.scores is not None:
        yield Text(f"▁▂▃▄▅▆▇█ {one.scale}", "dim")
    if end < len(one.text):
        yield Text(f"… and {len(one.text) - end:,} bytes more, which the numbers below count; --json has all", "dim")


def height(one: Cut, cell: Cell) -> float:
    """The highest score of a cell's bytes, as a share of the highest of all."""
    assert one.scores is not None
    return float(np.clip(one.scores[cell.begin : cell.end].max() / one.top, 0, 1)) if one.top > 0 else 0.0


def _bar(one: Cut, cell: Cell) -> str:
    return BARS[int(np.ceil(height(one, cell) * 8))]


# --- as HTML

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


# --- numbers

TITLES = ("patches", "mean", "median", "p95", "variation", "on spaces")


def numbers(statistics: CutStatistics) -> list[str]:
    """One text for each of TITLES."""
    share = statistics.on_spaces
    return [
        f"{statistics.patches:,}",
        _number(statistics.mean, ".2f"),
        _number(statistics.median, "g"),
        _number(statistics.p95, "d"),
        _number(statistics.variation, ".2f"),
        "—" if share is None else f"{share:.0%}".replace("%", " %"),
    ]


def _number(value: Any, style: str) -> str:
    return "—" if value is None else f"{value:{style}}"


def statistics_table(views: Sequence[Cut], source: str) -> Table:
    size = len(views[0].text) if views else 0
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="")
    table.title = Text(f"{size:,} bytes {source}; lengths in bytes")
    table.add_column("patcher", overflow="fold")
    for title in TITLES:
        table.add_column(title, justify="right")
    for one in views:
        table.add_row(Text(one.label), *numbers(one.statistics))
    return table


def as_json(one: Cut) -> dict[str, Any]:
    """All that is known of a view. `starts` are the positions of the first bytes, and exact; in `patches` bytes
    that are no UTF-8 are written as \\xNN."""
    places = np.flatnonzero(one.starts).tolist()
    return {
        "patcher": one.label,
        "name": one.patcher.name,
        "options": one.patcher.options(),
        "kind": one.patcher.kind,
        "causal": one.patcher.causal,
        "statistics": dataclasses.asdict(one.statistics),
        "starts": places,
        "patches": [
            one.text[begin:end].decode(errors="backslashreplace")
            for begin, end in itertools.pairwise([*places, len(one.text)])
        ],
        "scores": None if one.scores is None else [round(score, 6) for score in one.scores.tolist()],
    }
