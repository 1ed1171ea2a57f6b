"""The section of the report page with verdicts on claims."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.claims.config import Claims
from bench.claims.verdicts import SAID, Finding
from bench.reporting.formats import Table, hypertext
from bench.reporting.verdicts import verdicts_table

ID = "claims"


def section(claims: Claims, findings: Sequence[Finding]) -> str:
    """HTML: how many claims have which verdict, and the table."""
    table = verdicts_table(claims, findings)
    counted = {said: sum(one.said == said for one in findings) for said in SAID}
    said = ", ".join(f"<strong>{count}</strong> {name}" for name, count in counted.items() if count)
    items = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return "\n".join(
        [
            f'<section class="suite" id="{ID}" aria-labelledby="{ID}-title">',
            f'<h2 id="{ID}-title">What papers claim</h2>',
            f'<p class="lead">{escape(claims.about)}</p>' if claims.about else "",
            f'<p class="headline">Of {len(findings)} claims: {said}.</p>',
            f'<div class="wide card" tabindex="0" role="region" aria-label="Verdicts on claims">'
            f"{hypertext(Table(table.columns, table.rows))}</div>",
            f'<details class="notes"><summary>What each verdict rests on</summary><ul>{items}</ul></details>',
            "</section>",
        ]
    )
