"""A suite on several ranks of one run:
`torchrun --standalone --nproc-per-node=2 -m bench.execution.torchrun_entry SUITE ...`.

Every rank does the same steps (`bench.system.distributed`); `launch.parallel`, `micro_bytes` and `recompute` say how a
model is spread. `patchbench run` begins this where a suite has `launch: {devices: N}`. Killed ranks are begun again by
torchrun (`--max-restarts`) and go on from the last checkpoint, as does another number of ranks; where torchrun itself
was killed, they stop. A run that fails has a record that says so, and the exit code is 0 all the same: torchrun would
train it again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from bench.system import distributed
from bench.system.processes import stop_with_parent
from bench.system.signals import EXIT_CODE, STOPS_WITHIN, Stopped, heed_sigterm
from patchers.errors import BenchError


def train(suite: str, overrides: list[str], results: Path, plugins: list[str], only: str | None) -> None:
    """Do what is missing of a suite, or `only` one run of it, as one rank of those that torchrun began."""
    from bench.execution.run import Silent, run_suite
    from bench.suites.config import load_suite
    from bench.system.progress import Display

    config = load_suite(suite, overrides, plugins)
    distributed.begin()
    try:
        if distributed.is_first():
            with Display() as display:
                run_suite(config, results, display, only)
        else:
            run_suite(config, results, Silent(), only)
    finally:
        distributed.end()


def main() -> int:
    """The arguments are those that `patchbench run` hands on (`bench.execution.workers.Job.arguments`)."""
    heed_sigterm()
    stop_with_parent(STOPS_WITHIN)
    parser = argparse.ArgumentParser(prog="python -m bench.execution.torchrun_entry", description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--plugin", action="append", default=[], dest="plugins", metavar="FILE")
    parser.add_argument("--only", metavar="RUN_ID")
    given = parser.parse_intermixed_args()
    try:
        train(given.suite, given.overrides, given.results, given.plugins, given.only)
    except BenchError as error:
        print(f"patchbench: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except Stopped:
        return EXIT_CODE
    return 0


def end(code: int) -> NoReturn:
    """End at once: threads of gloo and NCCL that outlive their group abort a process that takes its interpreter down
    under them, and all that was to be written is on disk."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    end(main())
