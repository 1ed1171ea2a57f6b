"""Speed of multiple choice: all items together against one request at a time, as ratios measured in one run:
    python -m bench.perf.lm_eval CHECKPOINT FILE [--alone 400]

FILE has items as `patchbench lm-eval-tasks` reads them, such as ARC-easy's. The requests are what lm-eval makes of
them: the context, and each choice after a space.

(a) seconds for a request of `--alone` that are scored one at a time, spread over all, to those for a request when all
    are scored in one call;
(b) the same against scoring all texts in batches, each choice with its context anew: what sharing contexts brings;
(c) the largest difference that it makes to a request, in nats.

"cpu" ratios count this process's own seconds, which other processes disturb less than those of the wall.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from bench.evaluation.byte_model import CutModel
from bench.evaluation.likelihood import Likelihood, likelihoods
from bench.lm_eval.task_files import task_of_file
from bench.training.checkpoint import load_model

Seconds = tuple[float, float]
"""Of the wall, and of this process."""


def timed(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def requests_of(file: Path) -> list[tuple[bytes, bytes]]:
    rows = task_of_file(file)[1].rows
    return [(row["context"].encode(), f" {choice}".encode()) for row in rows for choice in row["choices"]]


def measure(model: CutModel, requests: list[tuple[bytes, bytes]], alone: int) -> dict[str, float]:
    likelihoods(model, requests[:64])  # compiles what is compiled
    together: list[Likelihood] = []
    some = [requests[i * len(requests) // alone] for i in range(min(alone, len(requests)))]
    single: list[Likelihood] = []
    all_wall, all_cpu = timed(lambda: together.extend(likelihoods(model, requests)))
    one_wall, one_cpu = timed(lambda: single.extend(likelihoods(model, [request])[0] for request in some))
    anew_wall, anew_cpu = timed(lambda: model.nats([context + choice for context, choice in requests]))
    of = dict(zip(requests, together, strict=True))
    each, every = len(some), len(requests)
    return {
        "requests": float(every),
        "requests_per_second": every / all_wall,
        "a_one_at_a_time_over_all_together": one_wall / each / (all_wall / every),
        "a_one_at_a_time_over_all_together_cpu": one_cpu / each / (all_cpu / every),
        "b_each_text_anew_over_all_together": anew_wall / all_wall,
        "b_each_text_anew_over_all_together_cpu": anew_cpu / all_cpu,
        "c_largest_difference_nats": max(abs(of[r].log - s.log) for r, s in zip(some, single, strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("file", type=Path)
    parser.add_argument("--alone", type=int, default=400)
    arguments = parser.parse_args()
    found = measure(load_model(arguments.checkpoint), requests_of(arguments.file), arguments.alone)
    print(json.dumps({k: round(v, 6) for k, v in found.items()}, indent=1))


if __name__ == "__main__":
    main()
