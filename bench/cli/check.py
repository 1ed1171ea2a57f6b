"""Runs the patcher contract for `patchbench check` and prints the findings, cut statistics and speed."""

from __future__ import annotations

import dataclasses
import html
import textwrap
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from bench.data.config import DataConfig, load
from bench.data.cut_statistics import CutStatistics, cut_statistics
from bench.data.fitted_patchers import PATCHER_SEED, Asked, Say
from patchers import Patcher
from patchers.audit import audit
from patchers.finding import Finding
from patchers.losses import Losses

# Enough for every rule of the contract; it is fitted anew each time, for a saved one might not be what `fit` makes.
CORPUS = DataConfig(corpus="wiki-en", max_bytes=1_000_000, calibration=0.2)
MOST_SECONDS = 1.0  # of measuring the rate


@dataclasses.dataclass(frozen=True, repr=False)
class Verdict:
    """All that was found out about a patcher."""

    label: str
    patcher: Patcher
    findings: list[Finding]
    statistics: CutStatistics | None
    """On the calibration documents of CORPUS; None for a patcher that is not sound, of which nothing is reliable."""
    rate: float | None
    """Bytes a second on these documents, the best of a few times."""
    losses: Losses | None = None
    """What its tokens do not give back of them; None for a patcher that can lose nothing."""

    @property
    def sound(self) -> bool:
        """Whether every rule of the contract holds."""
        return all(finding.passed for finding in self.findings)

    def __repr__(self) -> str:
        return f"<{self.label}: {'sound' if self.sound else 'not sound'}>"

    def __str__(self) -> str:
        console = Console(width=10_000, color_system=None, highlight=False)
        with console.capture() as captured:
            show(self, console)
        return captured.get().rstrip()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def check(asked: Asked, say: Say, quick: bool = False) -> Verdict:
    """Fit the patcher where it learns, and run the contract on real text and on documents at the edges.

    What it raises when it is fitted is its own; what it raises under a rule is that rule's finding.
    """
    say(f"reading {CORPUS.label}")
    data = load(CORPUS)
    patcher, docs = asked.patcher, data.calibration.texts
    if asked.learns:
        say(f"fitting {patcher.name}")
        patcher = patcher.fit(data.train.texts, PATCHER_SEED)
    findings = audit(patcher, docs, quick=quick, say=lambda rule: say(f"auditing {patcher.name}: {rule}"))
    verdict = Verdict(asked.label, patcher, findings, None, None)
    if not verdict.sound:
        return verdict
    say(f"measuring {patcher.name}")
    statistics = cut_statistics(docs, patcher.segment_many(docs))
    return dataclasses.replace(verdict, statistics=statistics, rate=rate(patcher, docs), losses=patcher.losses(docs))


def rate(patcher: Patcher, docs: Sequence[bytes]) -> float:
    """Bytes a second."""
    best, began = float("inf"), time.perf_counter()
    for _ in range(20):
        begin = time.perf_counter()
        patcher.segment_many(docs)
        best = min(best, time.perf_counter() - begin)
        if time.perf_counter() - began > MOST_SECONDS:
            break
    return sum(map(len, docs)) / best


def show(verdict: Verdict, console: Console) -> None:
    """A line a rule; what a broken one has to say in full."""
    patcher = verdict.patcher
    kind = f"{patcher.kind}, {'causal' if patcher.causal else 'not causal: its boundaries are priced'}"
    _print(console, Text.assemble((verdict.label, "bold"), (f"  {kind}; {patcher.source}", "dim")))
    width = console.width if console.is_terminal else 1000
    for finding in verdict.findings:
        mark = ("ok  ", "green") if finding.passed else ("FAIL", "bold red")
        head = f"  {finding.name:14} "
        room = max(20, width - len(head) - 4)
        lines = textwrap.wrap(finding.detail, room, break_long_words=False, break_on_hyphens=False) or [""]
        if finding.passed and len(lines) > 1:
            lines = [textwrap.shorten(finding.detail, room, placeholder=" …")]
        _print(console, Text.assemble(mark, head, lines[0]))
        for line in lines[1:]:
            _print(console, Text(" " * (len(head) + 4) + line))
    for trace in {finding.detail: finding.trace for finding in verdict.findings if finding.trace}.values():
        _print(console, Text("\n" + trace.rstrip()))
    if verdict.losses is not None:
        lossless = verdict.losses.lossless
        mark = ("     lossless       ", "") if lossless else ("     not lossless   ", "yellow")
        _print(console, Text.assemble(mark, f"on {CORPUS.label} {verdict.losses.words()}"))
    _print(console, Text(_last_line(verdict), "bold"))


def _last_line(verdict: Verdict) -> str:
    broken = [finding.name for finding in verdict.findings if not finding.passed]
    if broken:
        return f"not sound: it breaks {', '.join(broken)}"
    assert verdict.statistics is not None
    assert verdict.rate is not None
    found, spaces = verdict.statistics, verdict.statistics.on_spaces
    beside = "" if spaces is None else f", {100 * spaces:.0f} % of boundaries on spaces"
    return (
        f"sound: all {len(verdict.findings)} rules hold. On {CORPUS.label}: {found.mean:.2f} bytes a patch "
        f"(median {found.median:g}, p95 {found.p95}, variation {found.variation:.2f}){beside}; "
        f"{verdict.rate / 1e6:.3g} MB/s"
    )


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True)


def as_json(verdict: Verdict) -> dict[str, Any]:
    patcher = verdict.patcher
    return {
        "patcher": verdict.label,
        "name": patcher.name,
        "options": patcher.options(),
        "kind": patcher.kind,
        "causal": patcher.causal,
        "sound": verdict.sound,
        "findings": [
            {
                "rule": f.name,
                "passed": f.passed,
                "detail": f.detail,
                "example": None if f.example is None else f.example.as_json(),
                "trace": f.trace or None,
            }
            for f in verdict.findings
        ],
        "statistics": None if verdict.statistics is None else dataclasses.asdict(verdict.statistics),
        "losses": None if verdict.losses is None else verdict.losses.as_json(),
        "bytes_per_second": None if verdict.rate is None else round(verdict.rate),
    }
