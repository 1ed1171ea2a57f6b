"""Tables of the numbers that need no training: of patchers, of their agreement, and of languages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.intrinsics.measure import Intrinsics, Numbers
from bench.reporting.formats import Cell, Column, Row, Style, Table, render
from patchers.errors import BenchError
from patchers.named import unknown

KEPT = "intrinsics.json"
"""What the tables of a suite are called in its folder of results, where its report finds them."""
TITLES = ("Cuts alone", "Agreement of cuts", "Languages")
"""Of the tables in a report."""

Value = float | int | str | None
COLUMNS: dict[str, tuple[str, Style, Callable[[Numbers], Value]]] = {
    "bytes_per_patch": ("bytes/patch", "ratio", lambda n: n.lengths.mean),
    "p50": ("bytes, p50", "number", lambda n: n.lengths.median),
    "p95": ("bytes, p95", "number", lambda n: n.lengths.p95),
    "variation": ("variation", "ratio", lambda n: n.lengths.variation),
    "fertility": ("patches/word", "ratio", lambda n: n.words.fertility if n.words else None),
    "whole_words": ("words in one patch", "ratio", lambda n: n.words.whole if n.words else None),
    "word_f1": ("F1 words", "bits", lambda n: n.words.f1 if n.words else None),
    "word_precision": ("precision words", "bits", lambda n: n.words.precision if n.words else None),
    "word_recall": ("recall words", "bits", lambda n: n.words.recall if n.words else None),
    "morpheme_f1": ("F1 morphemes", "bits", lambda n: n.morphemes),
    "types": ("distinct patches", "count", lambda n: n.vocabulary.types),
    "used": ("vocabulary used", "ratio", lambda n: n.used),
    "renyi": ("Rényi efficiency", "bits", lambda n: n.vocabulary.renyi),
    "shannon": ("Shannon efficiency", "bits", lambda n: n.vocabulary.shannon),
    "stability": ("F1 noise", "bits", lambda n: n.stability),
    "parity_mean": ("premium, mean", "ratio", lambda n: n.parity.mean if n.parity else None),
    "parity_worst": ("premium, worst", "ratio", lambda n: n.parity.worst if n.parity else None),
    "parity_gini": ("Gini of languages", "bits", lambda n: n.parity.gini if n.parity else None),
    "rate": ("bytes/s", "si", lambda n: n.rate),
    "fit_seconds": ("fit, s", "number", lambda n: None if n.fit_seconds is None else round(n.fit_seconds, 2)),
}
"""Title, rounding, and where the number is, by id."""

ON_WISH = ("word_precision", "word_recall")
"""Columns that are shown where they are asked for."""

NOTES = {
    "fertility": "Patches/word: patches that a word touches, the mean over words (fertility; Rust et al. 2021). A word "
    "is a run of letters, marks and digits.",
    "word_f1": "F1 words: precision is the share of boundaries that are not inside of a word, recall the share of gaps "
    "between words that have a boundary.",
    "morpheme_f1": "F1 morphemes: of boundaries inside of the words whose morphemes were given (Virpioja et al. 2011).",
    "types": "Distinct patches, and their entropies, are of this text; a longer one has more.",
    "used": "Vocabulary used: share of a tokenizer's ids that stand in this text.",
    "renyi": "Efficiency: entropy of the distribution of patches over that of equal shares; Rényi's of order 2.5 "
    "(Zouhar et al. 2023), and Shannon's.",
    "stability": "F1 noise: boundaries of clean and of noisy text, aligned through the edit; all kinds together.",
    "rate": "Bytes/s: of the processor's time on this machine, after the fit.",
}


def check_columns(columns: Sequence[str]) -> None:
    """Raises BenchError for a column that is none."""
    for name in columns:
        if name not in COLUMNS:
            raise unknown("column", name, COLUMNS)


def tables(
    found: Intrinsics,
    columns: Sequence[str] = (),
    in_models: Sequence[str] = (),
    twice: Sequence[tuple[str, str]] = (),
) -> list[Table]:
    """Of the patchers, of their agreement, and of the languages where there were aligned texts.

    `in_models` and `twice` are rows that are not in them: they cut inside of a model, or as another one does.
    """
    first = numbers_table(found, columns)
    notes = list(first.notes)
    if in_models:
        notes.append(f"Left out, as they cut inside of a trained model alone: {', '.join(in_models)}.")
    if twice:
        notes.append(f"Cut alike: {', '.join(f'{label} as {other}' for label, other in twice)}.")
    languages = languages_table(found)
    return [
        dataclasses.replace(first, notes=tuple(notes)),
        agreement_table(found),
        *([] if languages is None else [languages]),
    ]


def rendered(made: Sequence[Table], format: str) -> str:
    """All tables as one text: a JSON array, or one below the other."""
    texts = [render(table, format) for table in made]
    return f"[{','.join(texts)}]" if format == "json" else "\n\n".join(texts)


def kept(made: Sequence[Table]) -> str:
    """The tables as JSON that `read` takes back, for the report of the suite."""
    return json.dumps([dataclasses.asdict(table) for table in made], ensure_ascii=False, indent=1)


def read(path: Path) -> list[Table]:
    """What `kept` wrote; none where there is no such file. Raises BenchError for a file that is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [
            Table(
                tuple(Column(**column) for column in table["columns"]),
                tuple(Row(**{**row, "cells": tuple(Cell(**cell) for cell in row["cells"])}) for row in table["rows"]),
                tuple(table["notes"]),
            )
            for table in found
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BenchError(f"cannot read {path}: {error}; `patchbench intrinsics SUITE` makes it again") from error


def numbers_table(found: Intrinsics, columns: Sequence[str] = ()) -> Table:
    """A row a patcher. Columns without a number in any row are left out unless they are asked for."""
    names = columns or [name for name in COLUMNS if name not in ON_WISH]
    made = {name: [Cell(COLUMNS[name][2](row)) for row in found.rows] for name in names}
    shown = [name for name, cells in made.items() if columns or any(cell.value is not None for cell in cells)]
    rows = [Row(row.label, (Cell(row.label), *(made[name][at] for name in shown))) for at, row in enumerate(found.rows)]
    heads = [Column("row", "patcher", "text"), *(Column(name, *COLUMNS[name][:2]) for name in shown)]
    notes = [
        f"Cut: {found.documents:,} documents of {found.source}, {found.bytes:,} bytes, {found.words:,} words; no "
        "model was trained.",
        *(note for name, note in NOTES.items() if name in shown),
    ]
    if "morpheme_f1" in shown:
        notes.append(f"Words with given morphemes: {found.morpheme_words:,}.")
    if any(name.startswith("parity_") for name in shown):
        notes.append(_parity_note(found))
    return Table(tuple(heads), tuple(rows), tuple(notes))


def _parity_note(found: Intrinsics) -> str:
    return (
        f"Premium: patches of the same {found.sentences:,} sentences over those of {found.reference} (Petrov et al. "
        "2023); Gini's coefficient is over the patches of all languages, 0 where all cost the same."
    )


def agreement_table(found: Intrinsics) -> Table:
    """F1 of the boundaries of each two patchers."""
    labels = [row.label for row in found.rows]
    heads = (Column("row", "boundaries, F1", "text"), *(Column(label, label, "ratio") for label in labels))
    rows = [
        Row(label, (Cell(label), *(Cell(float(value)) for value in found.agreement[at])))
        for at, label in enumerate(labels)
    ]
    notes = ("Agreement: twice the boundaries that two patchers share on this text over those of both (Dice 1945).",)
    return Table(heads, tuple(rows), notes)


def languages_table(found: Intrinsics) -> Table | None:
    """The premium of each language, the dearest first; None without aligned texts."""
    parities = {row.label: row.parity for row in found.rows if row.parity is not None}
    if not parities:
        return None
    languages = list(next(iter(parities.values())).premiums)
    languages.sort(key=lambda name: -sum(one.premiums[name] for one in parities.values()))
    heads = (Column("row", "language", "text"), *(Column(label, label, "ratio") for label in parities))
    rows = [Row(name, (Cell(name), *(Cell(one.premiums[name]) for one in parities.values()))) for name in languages]
    ends: list[tuple[str, Callable[[Any], Value]]] = [("mean", lambda p: p.mean), ("Gini", lambda p: p.gini)]
    rows += [Row(name, (Cell(name), *(Cell(of(one)) for one in parities.values()))) for name, of in ends]
    return Table(heads, tuple(rows), (_parity_note(found),))
