"""The table of verdicts on claims, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from math import ceil, inf, isfinite, isnan
from typing import Any

from bench.claims.config import Claims
from bench.claims.power import MOST_DOCUMENTS, MOST_SEEDS, WANTED, Need
from bench.claims.verdicts import Examined, Finding
from bench.records.comparison import is_leaky
from bench.records.record import Record, dig, is_pretrained
from bench.records.statistics import Estimate
from bench.reporting import footnotes
from bench.reporting.formats import Cell, Column, Row, Style, Table, number

COLUMNS = (
    Column("row", "claim", "text"),
    Column("says", "it says that", "text"),
    Column("verdict", "verdict at this scale", "text"),
    Column("alone", "uncorrected", "text"),
    Column("estimate", "estimate [95 %], and the margin", "text"),
    Column("published", "published", "text"),
    Column("decide", "what would decide it", "text"),
)
MARKS = (("Leaky", is_leaky, footnotes.LEAKY), ("Pretrained", is_pretrained, footnotes.PRETRAINED))


def verdicts_table(claims: Claims, findings: Sequence[Finding]) -> Table:
    """A row a claim; what each rests on stands in the notes."""
    rows = [
        Row(
            one.claim.id,
            (
                Cell(one.claim.id),
                Cell(one.claim.claim),
                Cell(one.said, best=one.said in ("supported", "refuted")),
                Cell(one.alone),
                Cell(estimate_text(one)),
                Cell(published_text(one)),
                Cell(decide_text(one) or None),
            ),
        )
        for one in findings
    ]
    return Table(COLUMNS, tuple(rows), tuple(_notes(claims, findings)))


def _notes(claims: Claims, findings: Sequence[Finding]) -> Iterable[str]:
    tested = [one for one in findings if one.decidable]
    yield (
        "Supported: the interval lies within the margin, which was fixed beforehand; refuted: beyond it; undecided: "
        "the margin is inside. [95 %]: documents and seeds, paired. Of other scales nothing is said."
    )
    if tested:
        yield (
            f"Verdict: with Holm's correction over the {len(tested)} claims that records can decide: the chance "
            "of any false verdict in the list is 5 % at most; uncorrected: each claim alone at 5 %."
        )
    if any(one.need for one in findings):
        yield (
            f"What would decide it: so that it is in {100 * WANTED:.0f} % of samples, if the truth is what was "
            "estimated, by simulation from the records' own documents and seeds."
        )
    if any(len(t.measured.seeds) == 1 and t.measured.spread for one in tested for t in one.tested):
        yield (
            "Where rows have one seed, what trainings differ by is taken from rows on the same text that have several "
            f"(of {' or '.join(claims.spread)}), as if it were the same here."
        )
    for one in findings:
        yield f"{one.claim.id}: {_rests_on(one)}"


def _rests_on(finding: Finding) -> str:
    source = finding.claim.source
    said = [f"{source.paper}{f' (arXiv {source.arxiv})' if source.arxiv else ''}, {source.where}."]
    if finding.claim.reading:
        said.append(f"Here: {finding.claim.reading}")
    if finding.said == "no records":
        return " ".join([*said, f"No records: {finding.why}."])
    if len(finding.tested) > 1:
        said.append("All of: " + "; ".join(condition_text(one) for one in finding.tested) + ".")
    else:
        said += [f"{one.what}." for one in finding.tested]
    if finding.needed:
        said.append(f"Needs: {'; '.join(map(condition_text, finding.needed))}.")
    suites = dict.fromkeys(predicate.suite for predicate in finding.claim.tests)
    said.append(f"{len(finding.records)} records of {', '.join(suites)}: {scale_text(finding.records)}.")
    for name, is_so, remark in MARKS:
        if rows := dict.fromkeys(record["row"] for record in finding.records if is_so(record)):
            said.append(f"{name}: {', '.join(rows)}; {remark[0].lower()}{remark[1:]}")
    said += footnotes.several_versions(record for record in finding.records if not is_pretrained(record))
    return " ".join(said)


def published_text(finding: Finding) -> str:
    """The paper's own figure, and what it was measured at."""
    source = finding.claim.source
    return source.figure if source.scale is None else f"{source.figure} ({source.scale})"


def estimate_text(finding: Finding) -> str:
    """The number that the verdict hangs on, with its interval and the margin."""
    most = finding.deciding
    if most is None:
        return ""
    parts = [f"{_interval(most.estimate, most.style)}, wanted {bounds_text(most)}"]
    return "; ".join([*parts, *map(_crossing_text, finding.places)])


def _crossing_text(place: Estimate) -> str:
    if not 0 < place.value < inf:
        return "no crossing inside the budgets"
    low, high = (
        "beyond" if not isfinite(end) else number(end, "si") if end > 0 else "before" for end in (place.low, place.high)
    )
    return f"crossing at {number(place.value, 'si')} [{low}, {high}]"


def condition_text(tested: Examined) -> str:
    wanted = f", wanted {bounds_text(tested)}" if tested.supported else ""
    return f"{tested.what} {_interval(tested.estimate, tested.style)}{wanted}"


def bounds_text(tested: Examined) -> str:
    low, high = (None if b is None else number(b, tested.style) for b in (tested.at_least, tested.at_most))
    if low is not None and high is not None:
        return f"{low} to {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def _interval(found: Estimate, style: Style) -> str:
    if isnan(found.value):
        return "no number"
    if isnan(found.low):
        return f"{number(found.value, style)} [no interval]"
    return f"{number(found.value, style)} [{number(found.low, style)}, {number(found.high, style)}]"


def decide_text(finding: Finding) -> str:
    """What a claim without a verdict wants."""
    if finding.said == "no records":
        return f"no records: {finding.why}"
    if finding.why:
        return finding.why
    return need_text(finding.need, finding) if finding.need is not None else ""


def need_text(need: Need, finding: Finding) -> str:
    most = finding.deciding
    assert most is not None
    documents = most.measured.influences.shape[1]
    ways = []
    if need.documents is not None:
        ways.append(f"{need.documents:.2g} times the documents (about {ceil(need.documents * documents):,})")
    if need.seeds is not None:
        ways.append(f"{need.seeds} seeds")
    if ways:
        return f"{' or '.join(ways)}; now the power is {need.now:.2f}"
    nothing = f"neither {MOST_DOCUMENTS:,.0f} times the documents nor {MOST_SEEDS} seeds"
    return f"{nothing}: the estimate is too near to the margin"


def scale_text(records: Sequence[Record]) -> str:
    """What records were measured at, in a line."""

    def span(path: str) -> str:
        values = [value for record in records if (value := dig(record, path)) is not None]
        ends = [number(end, "si") for end in (min(values), max(values))] if values else []
        return " to ".join(dict.fromkeys(ends))

    texts = dict.fromkeys(
        f"{record['data']['name']}, {number(record['data']['splits']['test']['bytes'], 'si')}B of test text"
        for record in records
    )
    seeds = sorted({record["seed"] for record in records})
    trained = f"{span('parameters.non_embedding')} non-embedding parameters, {span('cost.train_bytes')}B read"
    return "; ".join([trained, *texts, f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"])


# --- for scripts


def verdicts_json(claims: Claims, findings: Sequence[Finding]) -> str:
    """All of it, with the names of the records."""
    out = {"claims": claims.name, "verdicts": [_json(one) for one in findings]}
    return json.dumps(out, ensure_ascii=False, indent=1, allow_nan=False)


def _json(finding: Finding) -> dict[str, Any]:
    source = finding.claim.source
    need = finding.need
    return {
        "id": finding.claim.id,
        "claim": finding.claim.claim,
        "verdict": finding.said,
        "uncorrected": finding.alone,
        "p": finding.p,
        "p_holm": finding.p_in_list,
        "source": {"paper": source.paper, "arxiv": source.arxiv, "where": source.where},
        "published": {"figure": source.figure, "scale": source.scale},
        "scale": scale_text(finding.records) if finding.records else None,
        "conditions": [
            {"what": one.what, "at_least": one.at_least, "at_most": one.at_most, **one.estimate.as_json()}
            for one in finding.tested
        ],
        "crossings": [place.as_json() for place in finding.places],
        "why": finding.why or None,
        "need": None if need is None else {"power": need.now, "documents": need.documents, "seeds": need.seeds},
        "records": [record["run_id"] for record in finding.records],
    }


def expectations(claims: Claims, findings: Sequence[Finding]) -> str:
    """A line a claim, for `--expect`."""
    head = f"# patchbench verdict {claims.name}; --expect this file fails where a verdict has changed"
    return "\n".join([head, *(f"{one.claim.id}: {one.said}" for one in findings)])
