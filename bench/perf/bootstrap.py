"""How long the statistics of a large table take: python -m bench.perf.bootstrap

10,000 resamples x 20 rows x 2,000 documents, as a table does it: an interval and a paired difference for
every row, and the rows in bold. Exits 1 when that takes more than 3 seconds.
"""

import sys
import time

import numpy as np

from bench.records.statistics import RESAMPLES, Bootstrap, Floats, Scores, best_rows

ROWS, DOCUMENTS, LIMIT = 20, 2_000, 3.0


def table_of(seeds: int) -> dict[str, Scores]:
    """Made-up sums of the usual kind: documents of all lengths and difficulties, rows nearly alike."""
    rng = np.random.default_rng(0)
    sizes = np.round(np.exp(rng.normal(6.5, 0.8, DOCUMENTS))) + 20
    bpb = 2.2 + rng.gamma(4, 0.1, DOCUMENTS)
    counts: Floats = np.tile(sizes, (seeds, 1)).astype(np.float64)
    rows = {}
    for row in range(ROWS):
        noise = rng.normal(0.005 * row, 0.03, (seeds, DOCUMENTS)) + rng.normal(0, 0.003, (seeds, 1))
        rows[f"row {row}"] = Scores(tuple(range(seeds)), (bpb + noise) * counts, counts)
    return rows


def seconds(rows: dict[str, Scores]) -> float:
    """Wall-clock time of everything a table asks for."""
    start = time.perf_counter()
    bootstrap = Bootstrap(rows)
    for label in rows:
        bootstrap.estimate(label)
        bootstrap.difference(label, "row 0")
    best_rows(bootstrap, rows)
    return time.perf_counter() - start


def main() -> int:
    worst = 0.0
    for seeds in (1, 3):
        took = seconds(table_of(seeds))
        worst = max(worst, took)
        print(f"{RESAMPLES} resamples x {ROWS} rows x {DOCUMENTS} documents, seeds {seeds}: {took:.2f} s")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
