"""Summarises a suite in a sentence: the best row, its margin and its significance."""

from __future__ import annotations

from html import escape

import numpy as np

from bench.records.comparison import BPB
from bench.records.record import dig
from bench.records.statistics import Estimate, best_rows, verdict
from bench.reporting.footnotes import matched
from bench.reporting.formats import number
from bench.reporting.plots.curves import fits_of
from bench.reporting.report.tables import crossing_text
from bench.reporting.table import Comparison


def headline(compared: Comparison) -> str:
    """HTML. Of the rows that are ranked: leaky and failed ones are not."""
    has = compared.scores(BPB) if BPB in compared.metrics else {}
    ranked = [label for label in compared.shown if compared.runs[label].mark is None and label in has]
    said, ranked = _largest(compared, ranked)
    if not ranked:
        return "No row has a number."
    bootstrap, margin = compared.bootstrap(BPB), compared.margin(BPB)
    values = {label: bootstrap.estimate(label) for label in ranked}
    order = sorted(ranked, key=lambda label: values[label].value)
    best = order[0]
    said += f"<strong>{escape(best)}</strong> has the fewest bits per byte, {_with_interval(values[best])}."
    if len(order) == 1:
        return f"{said} It is the only row that is ranked."
    tied = [label for label in order if label in best_rows(bootstrap, ranked, margin=margin)]
    if len(tied) > 1:
        others = _listed([f"<strong>{escape(label)}</strong>{_cost(compared, label, best)}" for label in tied[1:]])
        said += f" Not shown to be worse: {others}."
    behind = [label for label in order if label not in tied]
    if behind:
        difference = bootstrap.difference(behind[0], best)
        if difference is not None and verdict(difference, margin=margin) == "worse":
            said += (
                f" {escape(behind[0])} comes {'next' if len(tied) == 1 else 'after these'}, "
                f"{_with_interval(difference, signed=True)} behind the best."
            )
    if all(len(compared.runs[label].records) == 1 for label in ranked):
        said += " One seed: how much another training would move these numbers is not known."
    fits = fits_of(compared)
    turns = [crossing_text(found) for found in fits.crossings if found.compute is not None] if fits else []
    return " ".join([said, *map(escape, turns)])


def _cost(compared: Comparison, label: str, best: str) -> str:
    """What a row costs beside the best one, where that is another price."""
    costs = [float(np.mean(compared.runs[row].values("flops.per_byte.total"))) for row in (label, best)]
    ratio = costs[0] / costs[1]
    if 1 / 1.1 < ratio < 1.1:
        return ""
    return f" (at {ratio:.2g} times the FLOPs a byte)"


def _largest(compared: Comparison, labels: list[str]) -> tuple[str, list[str]]:
    """Of a sweep, the rows at the largest value, and the words that say so; else all of them."""
    sweeps = {label: dig(compared.runs[label].any_record, "config.sweep") for label in labels}
    values = [sweep["value"] for sweep in sweeps.values() if sweep]
    if not values:
        return "", labels
    largest = max(values)
    key = next(sweep["key"] for sweep in sweeps.values() if sweep)
    there = [label for label, sweep in sweeps.items() if sweep and sweep["value"] == largest]
    return f"At the largest {escape(key)}, {largest:,}: ", there


def _with_interval(estimate: Estimate, signed: bool = False) -> str:
    style = "signed" if signed else "bits"
    value, low, high = (number(x, style) for x in (estimate.value, estimate.low, estimate.high))  # type: ignore[arg-type]
    return value if "nan" in low else f'{value} <span class="dim">[{low}, {high}]</span>'


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def key_facts(compared: Comparison) -> str:
    """Data, window, seeds and what was matched, in one line."""
    if not compared.records:
        return ""
    first = compared.records[0]
    test = first["data"]["splits"]["test"]
    seeds = sorted({record["seed"] for record in compared.records})
    window = first["config"].get("train", {}).get("window")
    facts = [
        f"{first['data']['name']}, {test['bytes']:,} bytes of test text",
        f"window of {window:,} bytes" if window else "",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
        matched(compared.records),
        "[95 % intervals]",
    ]
    return " · ".join(fact for fact in facts if fact)
